"""The clock of leases goes on while the machine is suspended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rfprotocol import clock
from tests.support.clock import Clock


def test_clock__is_the_one_that_counts_suspension() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_clock__machine_was_suspended__jumps_alone(tmp_path: Path) -> None:
    suspending = Clock(tmp_path / "clock")
    code = (
        "import sys, time; from rfprotocol import clock\n"
        "def read(): return clock.now(), time.monotonic(), time.time()\n"
        "before = read(); print(flush=True); sys.stdin.readline(); after = read()\n"
        "print(*(round(b - a, -2) for a, b in zip(before, after)))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=suspending.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        suspending.suspend(1000)
        said, _ = program.communicate("\n")
    assert said.split() == ["1000.0", "0.0", "0.0"]
