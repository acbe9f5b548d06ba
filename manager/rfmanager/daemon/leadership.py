"""Is this manager the primary one, and may it act right now? Pure.

    FOLLOWER ──elected──> PRIMARY ──cut off──> SUSPENDED
        ^                   │  ^──reconnected──────┘ │
        └──campaign── LOST <┴────────ended───────────┘

Leadership ends on the store's side when the session expires, and a cut-off manager learns it late. Commands to Redis
servers are not fenced by the store, so they are only sent while a lease lasts: the session cannot have expired
before `sent time of the last answered round trip + session timeout`, less the margin of `rfprotocol.lease_margin`.
"""

from __future__ import annotations

from enum import Enum

from rfprotocol.lease_margin import good_until
from rfprotocol.store.interface import Fence


class State(Enum):
    """The stages of a tenure."""

    FOLLOWER = "follower"
    PRIMARY = "primary"
    SUSPENDED = "suspended"  # cut off from the store: perhaps still the primary, does nothing
    LOST = "lost"


class Event(Enum):
    """What can happen to it."""

    ELECTED = "elected"
    CUT_OFF = "cut off"
    RECONNECTED = "reconnected"  # in the same session
    ENDED = "ended"  # another session, a lost fence, or given up
    CAMPAIGN = "campaign"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.FOLLOWER, Event.ELECTED): State.PRIMARY,
    (State.PRIMARY, Event.CUT_OFF): State.SUSPENDED,
    (State.PRIMARY, Event.ENDED): State.LOST,
    (State.SUSPENDED, Event.RECONNECTED): State.PRIMARY,
    (State.SUSPENDED, Event.ENDED): State.LOST,
    (State.LOST, Event.CAMPAIGN): State.FOLLOWER,
}
"""Pairs that are not listed change nothing."""


class Tenure:
    """The tenure of this manager. `session_timeout` is in seconds, as negotiated."""

    def __init__(self) -> None:
        self.state = State.FOLLOWER
        self.fence: Fence | None = None
        self.session = 0
        self._lease_ends = float("-inf")

    def move(self, event: Event) -> bool:
        """The one function that changes the state. True when it changed."""
        after = TRANSITIONS.get((self.state, event), self.state)
        changed, self.state = after is not self.state, after
        if after in (State.LOST, State.FOLLOWER):
            self.fence = None
            self._lease_ends = float("-inf")
        return changed

    def elected(self, fence: Fence, session: int) -> bool:
        """The store made this manager the primary one. It may act after the first `proved`."""
        changed = self.move(Event.ELECTED)
        if changed:
            self.fence, self.session = fence, session
        return changed

    def proved(self, sent: float, session: int, session_timeout: float) -> None:
        """A round trip to the store that began at `sent` was answered within `session`."""
        if self.state is State.PRIMARY and session == self.session:
            self._lease_ends = max(self._lease_ends, good_until(sent, session_timeout))

    def covers(self, now: float, seconds: float = 0.0) -> bool:
        """May an action that takes up to `seconds` be started now?"""
        return self.state is State.PRIMARY and now + seconds < self._lease_ends
