"""The moments after a change of master, in which the replicas are on their way to the new one.

With `min-replicas-to-write` a new master refuses every write until enough replicas have reached it. That is part of
the change, and clients wait for it as for the rest. A group that lacks replicas for longer answers at once.
"""

from __future__ import annotations

from typing import Final

from rfprotocol.topology.topology import Topology

SETTLES: Final = 5.0
"""Seconds that replicas get, at most: re-pointing them and a partial transfer take well under one."""


class Settling:
    """Whether replicas may still be on their way. Times are seconds of the caller's monotonic clock."""

    def __init__(self, patience: float) -> None:
        """`patience`: for how long a client waits at most."""
        self._length = min(SETTLES, patience)
        self._until = float("-inf")

    def follow(self, former: Topology | None, topology: Topology, now: float) -> None:
        """A topology comes into force behind a former one. The first one is no change: nobody knows since when."""
        if former is None or topology.master is None:
            return
        same = former.master == topology.master and former.run_id in ("", topology.run_id)
        if not same:
            self._until = now + self._length

    def lasts(self, now: float) -> bool:
        """Whether a master that lacks replicas may only be lacking them for the moment."""
        return now < self._until
