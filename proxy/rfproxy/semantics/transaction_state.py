"""WATCH, MULTI and what follows them, as the server's connection and the client see it.

    NONE ──WATCH──> WATCHING ──MULTI──> WATCHED_QUEUEING ──EXEC, DISCARD──> OVER
      └────MULTI──> QUEUEING ───────────EXEC, DISCARD──────────────────────> OVER

When the connection dies, commands that were merely queued are queued again on the next one (QUEUEING stays). Keys that
were watched may have changed unseen: BROKEN and BROKEN_QUEUEING pretend to go on, until EXEC answers nil, as if
a key had been touched. ABORTED pretends too, until EXEC says that the transaction was discarded.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from rfprotocol.resp.command_table import lookup
from rfproxy.core.peers import Answers

LOST = "connection lost"
GAVE_UP = "the client was told that EXEC will fail"
ENDED = "EXEC with arguments"
"""Which the server refuses, and ends everything that EXEC ends."""


class State(Enum):
    """See the drawing at the head of this module."""

    NONE = "nothing answered yet"
    WATCHING = "watching"
    QUEUEING = "queueing"
    WATCHED_QUEUEING = "watching and queueing"
    BROKEN = "broken"
    BROKEN_QUEUEING = "broken, queueing"
    ABORTED = "aborted, queueing"
    OVER = "over"


_TABLE = {
    (State.NONE, "WATCH"): State.WATCHING,
    (State.NONE, "MULTI"): State.QUEUEING,
    (State.NONE, LOST): State.OVER,
    (State.NONE, GAVE_UP): State.OVER,
    (State.WATCHING, "MULTI"): State.WATCHED_QUEUEING,
    (State.WATCHING, "UNWATCH"): State.OVER,
    (State.WATCHING, LOST): State.BROKEN,
    (State.WATCHING, GAVE_UP): State.BROKEN,
    (State.QUEUEING, "EXEC"): State.OVER,
    (State.QUEUEING, "DISCARD"): State.OVER,
    (State.QUEUEING, GAVE_UP): State.ABORTED,
    (State.WATCHED_QUEUEING, "EXEC"): State.OVER,
    (State.WATCHED_QUEUEING, "DISCARD"): State.OVER,
    (State.WATCHED_QUEUEING, LOST): State.BROKEN_QUEUEING,
    (State.WATCHED_QUEUEING, GAVE_UP): State.ABORTED,
    (State.BROKEN, "MULTI"): State.BROKEN_QUEUEING,
    (State.BROKEN, "UNWATCH"): State.OVER,
    (State.BROKEN_QUEUEING, "EXEC"): State.OVER,
    (State.BROKEN_QUEUEING, "DISCARD"): State.OVER,
    (State.BROKEN_QUEUEING, GAVE_UP): State.ABORTED,
    (State.ABORTED, "EXEC"): State.OVER,
    (State.ABORTED, "DISCARD"): State.OVER,
}
"""What is not listed leaves a state where it is."""

VERBS = frozenset(["WATCH", "UNWATCH", "MULTI", "EXEC", "DISCARD"])

_QUEUEING = frozenset([State.QUEUEING, State.WATCHED_QUEUEING, State.BROKEN_QUEUEING, State.ABORTED])
_PRETENDING = frozenset([State.BROKEN, State.BROKEN_QUEUEING, State.ABORTED])
_ON_A_SERVER = frozenset([State.NONE, State.WATCHING, State.QUEUEING, State.WATCHED_QUEUEING])


class Transaction:
    """The state as of the last command sent, and as of the last one answered."""

    def __init__(self) -> None:
        self.state = State.NONE
        self.answered = State.NONE
        self.queued: list[list[bytes]] = []
        """The commands that the server has taken behind MULTI, as the client gave them."""
        self.size = 0  # bytes of these
        self.others: dict[tuple[bytes, ...], Answers] = {}
        """What other workers have said to commands among these (`gathering`)."""
        self.failed = False
        """The client heard an error instead of QUEUED: EXEC executes nothing, on whichever server."""
        self._under_way: deque[str] = deque()

    def sent(self, event: str) -> None:
        """One of VERBS went out, or is answered by the proxy itself; an empty event is one that changes nothing."""
        self._under_way.append(event)
        self.state = _after(self.state, event)

    def heard(self, event: str) -> None:
        """What was sent first is accounted for, and has had its effect."""
        self._account_for_first()
        self.answered = _after(self.answered, event)

    def undone(self) -> None:
        """The server has refused what was sent first. If that was to begin it, there is no transaction."""
        self._account_for_first()
        self._catch_up()
        if self.state is State.NONE:
            self.state = self.answered = State.OVER

    def withdrawn(self) -> None:
        """The connection gives back, unsent, the last of VERBS that it was handed: it is still to go."""
        if self._under_way:
            self._under_way.pop()
        self._catch_up()

    def took(self, args: list[bytes]) -> None:
        """The server has queued a command."""
        self.queued.append(args)
        self.size += sum(map(len, args))

    def lost(self) -> None:
        """The connection died and everything sent on it was accounted for, or will be sent again."""
        self._leave(GAVE_UP if self.failed and self.answered_queueing else LOST)

    def gave_up(self) -> None:
        """Commands were answered with an error instead of being sent: EXEC must not execute the others."""
        self._leave(GAVE_UP)

    def _leave(self, event: str) -> None:
        self._under_way.clear()
        self.state = self.answered = _after(self.answered, event)

    @property
    def replicates(self) -> bool:
        """Whether replicas may be sent what the server has queued."""
        return any(lookup(args).may_replicate for args in self.queued)

    def _catch_up(self) -> None:
        """The state that what is under way leads to."""
        self.state = self.answered
        for event in self._under_way:
            self.state = _after(self.state, event)

    def _account_for_first(self) -> None:
        if self._under_way:
            self._under_way.popleft()

    @property
    def over(self) -> bool:
        """Whether the last command of it was sent."""
        return self.state is State.OVER

    @property
    def queueing(self) -> bool:
        """Whether the next command to be sent is queued behind MULTI."""
        return self.state in _QUEUEING

    @property
    def answered_queueing(self) -> bool:
        """Whether the next reply is that of a command queued behind MULTI."""
        return self.answered in _QUEUEING

    @property
    def pretending(self) -> bool:
        """Whether no server knows of it any more."""
        return self.state in _PRETENDING

    @property
    def needs_lane(self) -> bool:
        """Whether a connection holds it, or has to."""
        return self.state in _ON_A_SERVER


def _after(state: State, event: str) -> State:
    return State.OVER if event == ENDED else _TABLE.get((state, event), state)
