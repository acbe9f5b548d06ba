"""Connections that are being opened to one server: a bounded number at a time, the others wait for their turn.

    ask ──> [waiting: shared ones first] ──> under way (at most AT_ONCE) ──> the server has answered
                      └── all are lost, with its reason, when one that is under way fails

A Redis server accepts connections between other things, and lets 511 of them wait (tcp-backlog): of thousands that are
opened at once after a change of master, those in excess would be dropped by its kernel. So an opening is over when the
server has answered the greeting, not when the kernel has. While the last one failed, one at a time finds out whether
the server is there again. When to try again is decided by those who need the connections.

Connections for what the proxy itself has to say (`messenger`) stand in a line of their own, behind those of clients,
and are counted apart: whatever becomes of them, no client waits longer, or is told that the server refused it.

No I/O. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rfprotocol.backoff import Backoff
from rfproxy.upstream.connection import Lane, LaneState

AT_ONCE = 128
"""A quarter of Redis' tcp-backlog: several proxies and workers share it."""
ERRANDS_AT_ONCE = 4
"""The same, for what nobody waits for."""


class Opening:
    """The connections being opened to one server. `begin` starts one; it has to say how each of them ends, once."""

    def __init__(self, begin: Callable[[Lane], None], at_once: int = 0, *, ahead: Opening | None = None) -> None:
        """`at_once` is AT_ONCE unless it is given. `ahead`: those that go first."""
        self._begin = begin
        self._ahead = ahead
        self.errands = Opening(begin, ERRANDS_AT_ONCE, ahead=self) if ahead is None else self
        """The line for what nobody waits for."""
        self._attempts = Backoff(0.0, 0.0, at_once=at_once or AT_ONCE)  # the waits are the core's
        self._shared: deque[Lane] = deque()
        self._dedicated: deque[Lane] = deque()
        self._asked: list[Lane] = []

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waits."""
        errands_idle = self.errands is self or self.errands.idle
        return errands_idle and not (self._attempts.under_way or self._asked or self._waiting)

    @property
    def _waiting(self) -> bool:
        return bool(self._shared or self._dedicated)

    def line(self, lane: Lane) -> Opening:
        """The one in which this lane stands."""
        return self if lane.for_clients else self.errands

    def ask(self, lane: Lane) -> None:
        """A lane needs its connection; it is begun by the next `go_on`."""
        self.line(lane)._asked.append(lane)

    def go_on(self, now: float) -> None:
        """Begin as many as may be under way. Lanes that nobody needs any more are left out."""
        for lane in self._asked:
            (self._shared if lane.guest is None else self._dedicated).append(lane)
        self._asked.clear()
        while self._waiting and self._attempts.may_begin(now) and not (self._ahead and self._ahead._waiting):
            lane = self._shared.popleft() if self._shared else self._dedicated.popleft()
            if lane.state is not LaneState.CLOSED:
                self._attempts.begin()
                self._begin(lane)
        if self.errands is not self:
            self.errands.go_on(now)

    def answered(self, now: float) -> None:
        """The server has answered on one of them."""
        self._attempts.end()
        self._attempts.succeeded()
        self.go_on(now)

    def failed(self, reason: str, now: float) -> None:
        """One of them failed, in these words: those that wait would fail, too."""
        self._attempts.end()
        self._attempts.failed(now)
        lanes = [*self._shared, *self._dedicated, *self._asked]
        self._shared.clear()
        self._dedicated.clear()
        self._asked.clear()
        for lane in lanes:
            lane.lose(now, reason=reason)
        self.go_on(now)

    def given_up(self, now: float) -> None:
        """One of them is not needed any more, so nothing is known of the server."""
        self._attempts.end()
        self.go_on(now)
