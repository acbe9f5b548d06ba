"""What both programs ask of the place where the topology is kept.

Three implementations share one contract test: `memory` (embedded mode, tests), `zookeeper` and `socket_client`.
The interface is deliberately small: read with a version, change several records in one transaction under
a fencing token, watch, hold a record for as long as the session lives, lead, and prove that the session lives.

All methods are coroutines bound to the event loop they were started on. Each is bounded in time and raises
`StoreUnavailable` when the store is not connected or does not answer; none waits for a reconnection, save
`campaign`, whose purpose is to wait. All callbacks run on that event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class StoreState(Enum):
    """What is known about the session with the store."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"  # cut off; the session may still live on the other side
    LOST = "lost"  # never connected, expired, or cut off for longer than the session can have lived


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as it was read."""

    data: bytes
    version: int  # of the data; counts from 0, and 0 is a version like any other
    created: int  # differs when a record was deleted and made anew (ZooKeeper: czxid)
    owner: int  # the session that an ephemeral record lives with; 0 for a persistent one


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of leadership: the record at `path` exists exactly as long as the tenure lasts."""

    path: str


@dataclass(frozen=True, slots=True)
class Put:
    """Write `data`. `version` is the one that was read, or None to create a record that must not exist."""

    path: str
    data: bytes
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record, only in `version`, or in any version when that is None."""

    path: str
    version: int | None = None


Change = Put | Delete


class TopologyStore(Protocol):
    """A small, linearizable tree of records."""

    @property
    def state(self) -> StoreState:
        """The state now."""

    @property
    def trouble(self) -> str:
        """Why there is no connection, as a predicate to the store; empty when there is one, or nothing is known."""

    @property
    def session(self) -> int:
        """Identity of the session, 0 before the first. Records announced under an older one are gone or will go."""

    @property
    def session_timeout(self) -> float:
        """Seconds that the store lets a silent session live, as negotiated, not as asked for."""

    def subscribe(self, listener: Callable[[StoreState], None]) -> None:
        """Call `listener` on every change of the state or of the session."""

    async def start(self) -> None:
        """Begin to connect, and return at once: an unreachable store is a state, not an error."""

    async def close(self) -> None:
        """End the session; what it announced vanishes at once. Safe to call twice."""

    async def read(self, path: str) -> Entry | None:
        """The record at `path`, or None."""

    async def read_children(self, path: str) -> Mapping[str, Entry]:
        """The records directly below `path`, by name; empty when there are none or `path` does not exist."""

    async def read_some(self, path: str, names: Collection[str]) -> Mapping[str, Entry]:
        """Those of the records `names` directly below `path` that are there."""

    async def commit(self, *changes: Change, fence: Fence | None = None) -> None:
        """Apply all changes or none, in order, in one transaction. Missing parents are created beforehand.

        Raises `FenceLost` when the fence's record is gone, `StoreConflict` when a version does not match,
        a record to create exists or one to change does not, and `StoreUnavailable` when the outcome is unknown.
        """

    def watch(self, path: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after the record at `path`, the set of its children or the data of a child changed.

        At least once per change, possibly once for several, never with the change itself: read to learn it.
        Also called once after each (re)connection, because changes may have been missed. `path` need not
        exist. Returns the function that ends the watch.
        """

    def watch_each(self, path: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """As `watch`, for who need not read everything below `path` when one record there has changed.

        `changed` is called with the name of a child whose data changed, and with "" when it may be anything.
        """

    async def announce(self, path: str, data: bytes) -> None:
        """Create or update a record that lives as long as this session.

        A record left by another session (the same program before a restart) is replaced.
        It is not renewed by itself: after a new session the caller announces again.
        """

    async def withdraw(self, path: str) -> None:
        """Remove what was announced; no error when it is gone already."""

    async def campaign(self, path: str, name: str) -> Fence:
        """Wait until this session leads the contenders below `path` and return its fencing token.

        Waits through disconnections and new sessions. Cancelling it withdraws from the contest.
        The token does not renew itself: after `FenceLost` or a new session, campaign again.
        """

    async def resign(self, fence: Fence) -> None:
        """Give up a leadership; no error when it is gone already."""

    async def prove_alive(self) -> None:
        """One round trip through the store's leader within this session.

        When it returns, the session was alive at some time after the call began; this is what a lease builds
        upon. (ZooKeeper: a transaction without a change, which a quorum commits and the leader refuses for an
        expired session. `sync` would not do: a deposed leader answers it until it notices.)
        """
