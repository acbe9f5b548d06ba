"""The router of a proxy whose writes are durable.

    writes      one of a few lanes that take turns: while one waits for replicas, the next batch goes out on another
    reads       of sessions that wait for nothing else: never behind a write that waits for replicas
    urgent      on the lane for reads: while a script runs, no WAIT is answered and no new connection is of use
    exclusive   durable as well, when they lead to the master

A session stays on the lane that its unanswered commands are on, so turns do not change its order. When a lane is lost
while others with the same key are well, they do its work until another may be opened.
"""

from __future__ import annotations

from rfproxy.core.counters import Stats
from rfproxy.core.durability import Durability, Shortfall
from rfproxy.core.identity import Duty, Identity, LaneKey
from rfproxy.core.policy import Policy
from rfproxy.core.ports import Log
from rfproxy.core.work_items import Need
from rfproxy.routing.event_loop import Shell
from rfproxy.routing.lease import Lease
from rfproxy.routing.router import Router
from rfproxy.routing.waiter import Waiter
from rfproxy.upstream.connection import Lane
from rfproxy.upstream.durable_connection import DurableLane

LANES = 4
"""Shared lanes for writes of sessions with the same key, at most."""


def create_router(policy: Policy, shell: Shell, lease: Lease, stats: Stats, log: Log) -> Router:
    """The router that the policy asks for."""
    if policy.durable is None:
        return Router(policy, shell, lease, stats, log)
    return DurableRouter(policy, policy.durable, shell, lease, stats, log)


class DurableRouter(Router):
    """See the head of this module."""

    def __init__(
        self, policy: Policy, durability: Durability, shell: Shell, lease: Lease, stats: Stats, log: Log
    ) -> None:
        super().__init__(policy, shell, lease, stats, log)
        self._durability = durability
        self._turns: dict[LaneKey, list[DurableLane]] = {}
        self._unreplicated: set[Identity] = set()
        """Whose latest batch was on too few replicas."""

    def lane(self, session: Waiter, need: Need, now: float) -> Lane | None:
        """The shared lane for a run of this session, or None when it has to wait. They take turns: none is kept."""
        return self.find(session.number, session.identity, need, now)

    def find(self, number: int, identity: Identity, need: Need, now: float) -> Lane | None:
        """The same for session `number`, if it were this somebody."""
        key = self._key(number, identity, need, now)
        if key is None:
            return None
        lane = self._shared.get(key) if need is not Need.MASTER else None
        if need is Need.MASTER or (lane is None and self._rests(key, now) and key in self._turns):
            return self._next_turn(key, now)
        if lane is None and self._rests(key, now):
            return None
        return lane or self._open(key)

    def _next_turn(self, key: LaneKey, now: float) -> DurableLane | None:
        """One that has no batch under way, or may be opened; else the one whose batch went out first.

        None when the last attempt to open one failed a moment ago.
        """
        lanes = self._turns.setdefault(key, [])
        for lane in lanes:
            if not lane.waiting:
                return lane
        if len(lanes) == LANES or self._rests(key, now):
            return min(lanes, key=lambda lane: lane.used, default=None)
        if key not in self._shared:
            self._open(key)  # for what is urgent: then it is too late
        lane = self._durable_lane(key)
        lanes.append(lane)
        self._shell.connect(lane)
        return lane

    def _durable_lane(self, key: LaneKey) -> DurableLane:
        return DurableLane(key, self, self._durability, waited=self._waited, run_id=self.run_id(key))

    def _new(self, key: LaneKey, *, exclusive: bool) -> Lane:
        if exclusive and key.duty is Duty.MASTER:
            return self._durable_lane(key)
        lane = super()._new(key, exclusive=exclusive)
        lane.writes = False
        return lane

    def _is_shared(self, lane: Lane) -> bool:
        return super()._is_shared(lane) or lane in self._turns.get(lane.key, [])

    def _all_shared(self) -> list[Lane]:
        return [*super()._all_shared(), *(lane for lanes in self._turns.values() for lane in lanes)]

    def _last_used(self, lane: Lane) -> float:
        """A lane for reads is kept as long as one for writes with the same key."""
        turns = self._turns.get(lane.key, []) if self._shared.get(lane.key) is lane else []
        return max([lane.used, *(other.used for other in turns)])

    def _forget(self, lane: Lane) -> None:
        super()._forget(lane)
        lanes = self._turns.get(lane.key, [])
        if lane in lanes:
            lanes.remove(lane)
        if not lanes:
            self._turns.pop(lane.key, None)

    def _waited(self, lane: Lane, shortfall: Shortfall | None) -> None:
        """WAIT was answered: say so when that is not as it was before."""
        self.stats.batches += 1
        identity = lane.key.identity
        if shortfall is not None and identity not in self._unreplicated:
            self._unreplicated.add(identity)
            self.log.warning(
                "writes_not_replicated",
                node=str(lane.key.node),
                error=f"not replicated {shortfall.reason}",
                epoch=self.epoch,
            )
        elif shortfall is None and identity in self._unreplicated:
            self._unreplicated.discard(identity)
            self.log.info("writes_replicated", node=str(lane.key.node), epoch=self.epoch)
