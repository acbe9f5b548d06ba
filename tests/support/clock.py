"""The clocks of single processes, moved while they run; the system's own are never touched.

As when a real clock is set, only the time of day jumps: CLOCK_MONOTONIC goes on as it did. As when a machine was
suspended, only CLOCK_BOOTTIME jumps. libfaketime 0.9.10 cannot do
that to Python 3.11: with the monotonic clock left alone, `time.sleep` fails.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.processes import Process

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """`clock.given_to(process)` before that starts, `clock.jump(seconds)` and `clock.suspend(seconds)` whenever."""

    def __init__(self, folder: Path) -> None:
        """Needs gcc, and a folder of its own."""
        folder.mkdir()
        library = folder / "clock.so"
        subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
        self._offset = folder / "offset"
        self._environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}
        self._offset.write_bytes(struct.pack("qq", 0, 0))

    def given_to(self, process: Process) -> None:
        """The process lives by this clock from its next start on."""
        process.env = self.environment(process.env)

    def environment(self, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a process that lives by this clock; `given` is what it would be otherwise."""
        return {**(os.environ if given is None else given), **self._environment}

    def jump(self, seconds: int) -> None:
        """From now on the clock is so much ahead of the system's, or behind it if that is negative."""
        self._write(0, seconds)

    def suspend(self, seconds: int) -> None:
        """As if the machine had been suspended for so long in all, without its time of day."""
        self._write(1, seconds)

    def _write(self, place: int, seconds: int) -> None:
        with self._offset.open("r+b") as offset:  # mapped into the processes: to be written in place
            offset.seek(8 * place)
            offset.write(struct.pack("q", seconds))
