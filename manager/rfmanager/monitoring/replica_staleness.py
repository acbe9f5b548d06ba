"""How old is what a replica has? Told by where the master was when: offsets need no common clock. No I/O.

The master's offset is sampled all the time. A replica that had offset 700 when it was asked lacks nothing that
was written before the last sample in which the master had 700 or less.
"""

from __future__ import annotations

from bisect import bisect_right


class Trail:
    """Of one master process; `window` are the seconds that it is remembered for. Times are of the caller's clock."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._run_id = ""
        self._times: list[float] = []
        self._offsets: list[int] = []

    def passed(self, asked: float, run_id: str, offset: int) -> None:
        """The master had this offset; `asked` is when it was asked. Another process begins another trail."""
        if run_id != self._run_id or (self._offsets and offset < self._offsets[-1]):
            self._run_id, self._times, self._offsets = run_id, [], []
        if self._times and asked <= self._times[-1]:
            return
        self._times.append(asked)
        self._offsets.append(offset)
        outdated = bisect_right(self._times, asked - self._window) - 1
        if outdated > 0:
            del self._times[:outdated], self._offsets[:outdated]

    def lag(self, asked: float, offset: int) -> float:
        """The same, at least: since when the master is known to have had more."""
        place = bisect_right(self._offsets, offset)
        return max(0.0, asked - self._times[place]) if place < len(self._offsets) else 0.0

    def age(self, asked: float, offset: int) -> float:
        """By how many seconds a replica that had this offset when it was asked was behind, at most; 0 when by nothing
        that is known, and infinity when by more than is remembered."""
        place = bisect_right(self._offsets, offset)
        if place == len(self._offsets):
            return 0.0
        return max(0.0, asked - self._times[place - 1]) if place else float("inf")
