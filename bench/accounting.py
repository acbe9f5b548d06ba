"""The CPU time of a process so far, as the scheduler counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def cpu_time(pid: int) -> float:
    """Seconds that all threads of a process, and of the processes it has started and that still run, were on a CPU.

    In nanoseconds from /proc/PID/task/*/schedstat, where /proc/PID/stat counts in hundredths of a second.
    """
    total = 0.0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            total += int((thread / "schedstat").read_text().split()[0]) / 1e9
            total += sum(cpu_time(int(child)) for child in (thread / "children").read_text().split())
    return total
