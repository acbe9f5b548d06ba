"""When an attempt that failed may be repeated: one rule for connections, servers, worker processes and ZooKeeper.

    failed ──> wait, each time twice as long, up to a limit ──> one attempt ──> failed ──> ...
                                                                      └──> succeeded: attempts are free again

The wait is shortened by a random part, so that those who failed together do not come back together. While the last
attempt failed, only one attempt is made at a time: it finds out whether the others make sense. Whoever uses this class
decides what a success is; for a server it is a reply to a command of a client, not that it accepted a connection.

No I/O. Times are seconds of the caller's clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable

JITTER = 0.25
"""The part of a wait that is left to chance."""


class Backoff:
    """The attempts at one thing."""

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        at_once: int = 64,
        free: int = 0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`first` and `longest` bound the wait, in seconds; `free` failures in a row are followed by no wait.

        `at_once` attempts may be under way at the same time while nothing fails; `chance` returns 0 to 1.
        """
        self._first = first
        self._longest = longest
        self._at_once = at_once
        self._free = free
        self._chance = chance
        self._failures = 0
        self._due = float("-inf")
        self.wait = 0.0
        """Seconds between the last failure and the next attempt; 0 after a success."""
        self.under_way = 0
        """Attempts that have begun and not ended."""

    @property
    def due(self) -> float:
        """From when on the next attempt may begin."""
        return self._due

    @property
    def failing(self) -> bool:
        """Whether the last attempt that ended with a result failed."""
        return self._failures > 0

    def may_begin(self, now: float) -> bool:
        """Whether another attempt may begin now."""
        return now >= self._due and self.under_way < (1 if self._failures > self._free else self._at_once)

    def begin(self) -> None:
        """An attempt begins."""
        self.under_way += 1

    def end(self) -> None:
        """An attempt is over. What it showed is said by `failed` or `succeeded`, which may come later or not at all."""
        self.under_way -= 1

    def failed(self, now: float) -> float:
        """An attempt failed; returns when the next may begin. What fails before then belongs to the same failure."""
        if now < self._due:
            return self._due
        self._failures += 1
        doublings = self._failures - self._free - 1
        if doublings >= 0:
            wait = self._longest if doublings > 30 else min(self._first * 2**doublings, self._longest)
            self.wait = wait * (1 - JITTER * self._chance())
            self._due = now + self.wait
        return self._due

    def succeeded(self) -> None:
        """It works: the next failure is the first one again."""
        self._failures = 0
        self._due, self.wait = float("-inf"), 0.0
