"""Lanes that others do not wait behind, because a long reply is under way there; and those that had one, as spares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rfproxy.core.identity import LaneKey
from rfproxy.upstream.connection import Lane, LaneState

PARKED: Final = 3
"""Lanes to one server for one account. Beyond that, long replies share a lane with all that comes behind them."""

STALLED: Final = 16
"""The same, with those whose clients do not read. Beyond that, what these have asked for is read and kept."""


class Parking:
    """At most PARKED lanes of each key, and with those that wait for a client to read STALLED."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, None] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes))

    def put(self, lane: Lane) -> None:
        """It has a long reply, or stands by."""
        self._lanes[lane] = None

    def take(self, lane: Lane) -> None:
        """It serves again, or is closed; no error when it is not here."""
        self._lanes.pop(lane, None)

    def full(self, key: LaneKey) -> bool:
        """Whether no more are parked."""
        standing = self._standing(key)
        return len(standing) >= STALLED or sum(not lane.stalled for lane in standing) >= PARKED

    def spare(self, key: LaneKey) -> Lane | None:
        """One that could serve everybody."""
        return next((lane for lane in self._standing(key) if not lane.parked), None)

    def any(self, key: LaneKey) -> Lane | None:
        """One that stands, whoever has to wait behind its reply."""
        return self.spare(key) or next(iter(self._standing(key)), None)

    def _standing(self, key: LaneKey) -> list[Lane]:
        return [lane for lane in self._lanes if lane.key == key and lane.state is LaneState.READY]
