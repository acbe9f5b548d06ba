"""Clients that leave at the same time are seen off a few in each turn of the loop.

When a program ends that had thousands of connections, all of them end at once, and each may take along a connection to
a server: without a limit others would wait until the last one is dealt with. In between they are served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 32
"""Departures in one turn of the loop: about a millisecond of CPU time."""


class Departures:
    """Of the clients of one process, in the order in which they came about."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """`call_soon` calls something in the next turn of the loop."""
        self._call_soon = call_soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._done = 0
        """In this turn; when that is not 0, or something waits, `_next_turn` will be called."""

    @property
    def crowded(self) -> bool:
        """Whether the next one has to wait."""
        return bool(self._waiting) or self._done >= AT_ONCE

    def see_off(self, departure: Callable[[], None]) -> None:
        """Do at once, or in one of the next turns, what has to be done for one that leaves."""
        if not self._done and not self._waiting:
            self._call_soon(self._next_turn)
        if self.crowded:
            self._waiting.append(departure)
        else:
            self._done += 1
            departure()

    def _next_turn(self) -> None:
        self._done = min(len(self._waiting), AT_ONCE)
        if self._done:
            self._call_soon(self._next_turn)  # first: one that fails does not keep the others waiting for ever
        for _ in range(self._done):
            self._waiting.popleft()()
