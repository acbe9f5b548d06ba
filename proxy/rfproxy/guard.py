"""A connection under an account that may ask ROLE and INFO, for connections whose user may not.

It was greeted as every lane is, so it leads to the process that the topology means. It vouches for another connection
when both were there at once, which is shown by a word that one of them answers after the other one stood: no two
processes listen on one address. An older guard is asked ROLE when the other connection stands; for a younger one the
other connection is greeted when the guard is READY, and has to answer that.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import hiredis

from rfprotocol import resp
from rfproxy.greeting import LaneKey, Refusal, Welcome, role_problem
from rfproxy.lane import Lane, LaneOwner, LaneState

_ROLE = resp.encode_command([b"ROLE"])


class Ward(Protocol):
    """What has the lanes that a guard vouches for (`reception`)."""

    def vouched(self, lane: Lane) -> None:
        """The lane leads to the process that the guard has asked."""

    def begin(self, lane: Lane) -> None:
        """The guard is not accepted any more: find another way to greet the lane."""


class Guard(Lane):
    """It carries no runs. All times are seconds of the caller's monotonic clock."""

    def __init__(self, key: LaneKey, owner: LaneOwner, ward: Ward, *, run_id: str = "") -> None:
        """`key.identity` is of the account that may ask."""
        super().__init__(key, owner, run_id=run_id)
        self._ward = ward
        self._younger: list[Lane] = []  # they wait until the guard is greeted; it is younger than these
        self._asked: deque[Lane] = deque()  # for each the guard was asked ROLE
        self._reader = hiredis.Reader()

    @property
    def _ready(self) -> bool:
        return self.state is LaneState.READY

    def vouch(self, lane: Lane) -> None:
        """Call `Ward.vouched` when it is certain that the lane, which stands, leads to the same process."""
        if self._ready:
            self._ask(lane)
        else:
            self._younger.append(lane)

    def _ask(self, lane: Lane) -> None:
        self._asked.append(lane)
        if self._writer is not None:
            self._writer.write(_ROLE)

    def feed(self, data: bytes, now: float) -> None:
        """Bytes from the server."""
        if self.state is LaneState.GREETING:
            super().feed(data, now)
            if self._ready:
                waiting, self._younger = self._younger, []
                for lane in waiting:
                    self._ward.vouched(lane)
        elif self._ready:
            self._answered(data, now)

    def _answered(self, data: bytes, now: float) -> None:
        self._reader.feed(data)
        try:
            while self._asked and (reply := self._reader.gets()) is not False:
                if problem := _problem(self.key, reply):
                    self.lose(now, Welcome(Refusal.UNFIT, problem))
                    return
                self._ward.vouched(self._asked.popleft())
        except hiredis.ProtocolError as error:
            self.lose(now, reason=f"its reply cannot be read: {error}")

    def lose(self, now: float, welcome: Welcome | None = None, reason: str = "") -> None:
        """The connection is of no use any more. Who waits for its word is lost with it, or greeted otherwise."""
        if self.state is LaneState.CLOSED:
            return
        waiting = [*self._younger, *self._asked]
        self._younger.clear()
        self._asked.clear()
        super().lose(now, welcome, reason)
        refused = self.welcome if self.welcome is not None and self.welcome.refusal is not None else None
        for lane in waiting:
            if refused is not None and refused.refusal is Refusal.DENIED:
                self._ward.begin(lane)
            else:
                lane.lose(now, refused, reason)


def _problem(key: LaneKey, reply: object) -> str:
    """What is wrong with a server that answers ROLE like this."""
    return str(reply) if isinstance(reply, hiredis.HiredisError) else role_problem(key.duty, reply)
