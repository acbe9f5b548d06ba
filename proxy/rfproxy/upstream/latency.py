"""Measures whether the replies on a connection to a replica have been slow for a while."""

from __future__ import annotations

from math import inf
from typing import Final

SLOW: Final = 0.05
"""Seconds that a reply may take."""
SLOW_FOR: Final = 0.25
"""Seconds without a reply that took less, after which a replica is passed over. A proxy that stood still finds all
replies late once."""


class Pace:
    """How long the replies on one lane have been slow."""

    def __init__(self) -> None:
        self._since = inf

    @property
    def slow(self) -> bool:
        """Whether the latest reply was."""
        return self._since < inf

    def replied(self, took: float, now: float) -> bool:
        """A reply came after so many seconds; True when it is time to read elsewhere."""
        if took < SLOW:
            self._since = inf
            return False
        self._since = min(self._since, now)
        return now - self._since >= SLOW_FOR
