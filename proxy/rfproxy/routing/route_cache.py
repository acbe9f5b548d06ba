"""Which lanes a session's commands took last: the next ones go the same way, as long as nothing has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfproxy.core.work_items import ANYWHERE, NEEDS_MASTER, Need

if TYPE_CHECKING:
    from rfproxy.upstream.connection import Lane


class Ways:
    """Of one session. What they are good for ends with the turn (`Router.turn`) in which they were found."""

    __slots__ = ("_reads", "_turn", "_writes")

    def __init__(self) -> None:
        self._turn = -1
        self._reads: Lane | None = None
        self._writes: Lane | None = None

    def known(self, need: Need, turn: int) -> Lane | None:
        """The lane that was taken for such a need in this turn, if any."""
        if turn != self._turn:
            return None
        return self._reads if need is ANYWHERE else self._writes if need is NEEDS_MASTER else None

    def keep(self, need: Need, turn: int, lane: Lane) -> None:
        """This lane was taken."""
        if turn != self._turn:
            self._turn, self._reads, self._writes = turn, None, None
        if need is ANYWHERE:
            self._reads = lane
        elif need is NEEDS_MASTER:
            self._writes = lane

    def forget(self) -> None:
        """The session is somebody else now."""
        self._turn = -1
