"""Holds what must wait for a master; bounded in time and in bytes.

    FENCED   the topology has no master: one is being replaced
    LAPSED   the lease ran out: there may be another master by now
    RESTING  the master could not be reached, or refused, a moment ago: tried again shortly
    OPEN     writes pass

The state is derived from what is known, never stored. Sessions wait in the order in which they came; the owner
(the router) asks them to go on whenever the state may have changed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from rfprotocol.backoff import Backoff
from rfprotocol.topology.topology import Topology
from rfproxy.routing.lease import Lease

FIRST_REST = 0.01
LONGEST_REST = 0.25
"""Seconds between attempts to reach a master that nobody has declared dead; doubled from first to longest."""

Held = TypeVar("Held", bound=Hashable)


class GateState(Enum):
    """Why writes pass, or do not."""

    OPEN = "the master does not answer"
    FENCED = "there is no master"
    LAPSED = "no word from the store whether the master still is one"
    RESTING = "the master cannot be reached"


# By name, and final: looking up a member of an enumeration costs several times as much, and this is done for each run.
OPEN: Final = GateState.OPEN
FENCED: Final = GateState.FENCED
LAPSED: Final = GateState.LAPSED
RESTING: Final = GateState.RESTING


@dataclass(frozen=True, slots=True)
class _Wait:
    """Since when and until when somebody waits, in seconds of the clock, and with how many bytes."""

    since: float
    size: int
    until: float


class Gate(Generic[Held]):
    """The waiting room. Waiters are sessions; it only compares them."""

    def __init__(self, lease: Lease, *, timeout: float, capacity: int, leaseless: bool = False) -> None:
        """`timeout` in seconds, `capacity` in bytes; `leaseless`: go on without a store (on_store_loss: continue)."""
        self._lease = lease
        self._timeout = timeout
        self._capacity = capacity
        self._leaseless = leaseless
        self._topology: Topology | None = None
        self._backoff = Backoff(FIRST_REST, LONGEST_REST)
        self._waiting: dict[Held, _Wait] = {}
        self._bytes = 0

    def state(self, now: float) -> GateState:
        """Whether a write may be sent at `now`, or why not."""
        if self._topology is None or self._topology.master is None:
            return FENCED
        if not self._leaseless and not self._lease.valid(now):
            return LAPSED
        return RESTING if now < self._backoff.due else OPEN

    def trusts(self, now: float) -> bool:
        """Whether a reply of the master may be believed: asked before a success is relayed."""
        return self._leaseless or self._lease.valid(now)

    def stale_reads(self, now: float) -> bool:
        """Whether the last known master may be read from, although it may be none any more."""
        return now >= self._lease.reads_from

    def lapse(self, now: float) -> float:
        """The lease ran out; returns from when on the last known master may be read from."""
        self._lease.lapsed(now)
        return self._lease.reads_from

    @property
    def reads_from(self) -> float:
        """The same; infinity while there is a lease."""
        return self._lease.reads_from

    def apply(self, topology: Topology) -> None:
        """Another topology is in force; a rest after failed attempts is over."""
        self._topology = topology
        self.recovered()

    def rest(self, now: float) -> float:
        """The master did not serve; returns when to try again, each time later. Failures at once are one failure."""
        return self._backoff.failed(now)

    @property
    def rest_until(self) -> float:
        """The end of the rest."""
        return self._backoff.due

    def recovered(self) -> None:
        """The master has replied to a command. That it accepts connections does not show that it serves."""
        self._backoff.succeeded()

    def hold(self, waiter: Held, size: int, since: float, patience: float | None = None) -> bool:
        """Let `waiter` wait with `size` bytes in all; False when there is no room for them.

        `since`: from when on it waits, in seconds of the clock. That may be long ago: it was let go in vain.
        `patience`: for how many seconds, when that is less than for others.
        """
        wait = self._waiting.get(waiter)
        before = wait.size if wait is not None else 0
        if self._bytes - before + size > self._capacity:
            return False
        self._bytes += size - before
        since = wait.since if wait is not None else since
        timeout = self._timeout if patience is None else min(patience, self._timeout)
        self._waiting[waiter] = _Wait(since, size, since + timeout)
        return True

    def release(self, waiter: Held, now: float) -> float | None:
        """`waiter` waits no more; returns for how many seconds it did, or None if it did not wait."""
        wait = self._waiting.pop(waiter, None)
        if wait is None:
            return None
        self._bytes -= wait.size
        return now - wait.since

    def waiting(self) -> list[Held]:
        """All who wait, in the order in which they were held."""
        return list(self._waiting)

    def expired(self, now: float) -> list[Held]:
        """Those who have waited for the whole timeout; they stay until released."""
        return [waiter for waiter, wait in self._waiting.items() if now >= wait.until]

    def next_expiry(self) -> float:
        """When the longest waiting one runs out of time; infinity when nobody waits."""
        return min((wait.until for wait in self._waiting.values()), default=float("inf"))
