"""The trial run of a reload: the program as it is on the disk says whether it can read its options.

It runs beside the supervisor, which goes on to hear signals meanwhile, and which takes note of its end with that of all
other children.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping

TIMEOUT = 30.0
"""Seconds that it may take."""
_MOST_WORDS = 1 << 16


class Trial:
    """One run of `command`, begun at `now` (seconds). Raises OSError when it cannot be started."""

    def __init__(self, command: list[str], environ: Mapping[str, str], now: float) -> None:
        self._ends_by = now + TIMEOUT
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is over
        on_stderr = (os.POSIX_SPAWN_DUP2, self._words.fileno(), 2)
        try:
            self.pid = os.posix_spawn(command[0], command, environ, file_actions=[on_stderr], setsigmask=())
        except OSError:
            self._words.close()
            raise

    def time_left(self, now: float) -> float:
        """Seconds that it may still take; 0 when it is overdue."""
        return max(0.0, self._ends_by - now)

    def kill(self) -> None:
        """End it; that is heard of as any other end."""
        os.kill(self.pid, signal.SIGKILL)  # not yet waited for, so the id is its own

    def problem(self, code: int, now: float) -> str:
        """It ended with that exit code: what the program has against its options, in one line; empty: nothing."""
        self._words.seek(0)
        words = self._words.read(_MOST_WORDS).decode(errors="replace").strip().splitlines()
        self._words.close()
        if code == 0:
            return ""
        if code < 0 and not self.time_left(now):
            return f"the trial run did not end within {TIMEOUT:g} s"
        return (words or [f"exit status {code}" if code > 0 else signal.Signals(-code).name])[-1]
