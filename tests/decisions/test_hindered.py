"""Managers that reach less than others, that are cut off from the store, or get a short session; servers that are
modelled, so that each of them can be out of sight for one manager alone."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import pytest

from rfmanager.daemon import server_watch
from rfmanager.daemon.daemon import Daemon, Settings
from rfmanager.daemon.leadership import State
from rfmanager.decision import fencing
from rfmanager.decision.decide import decide
from rfmanager.decision.plan import Policy, Record, Resign, Seal, Step, View, Wait
from rfmanager.evidence.agreement import Rule
from rfmanager.monitoring import prober as prober_module
from rfmanager.monitoring.redis_admin import Credentials
from rfprotocol.errors import NodeUnreachable, StoreError
from rfprotocol.network.resolver import Resolver
from rfprotocol.store.interface import Put
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.records import ManualRequest
from rfprotocol.topology.topology import Node, NodeReport, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.eventually import eventually
from tests.support.stores import Changes
from tests.support.world import POLICY, A, B, C, Server, World, serving, until

PATHS = Paths()


def hearsay(view: View, *nodes: Node) -> View:
    """The other managers see these servers well, the primary one does not: as `judge` gives it."""
    seen = dict(view.standings)
    for node in nodes:
        seen[node] = replace(seen[node], sampled_at=float("-inf"))
    return replace(view, standings=seen)


def test_a_candidate_with_more_data_that_only_the_others_reach_is_not_passed_over() -> None:
    world = serving()
    world[2].data = world[2].data[:-1]  # B lags; C has the acknowledged write
    world[1].alive = False
    until(world, Record, "fence")
    world.acknowledge()
    step = chosen_without(world, C, POLICY)
    assert target(step) != B, "an acknowledged write is lost, although its server is up for most managers"


@pytest.mark.parametrize("seconds", [4.1, 60.0])
def test_it_is_waited_for_as_long_as_a_hand_over_takes(seconds: float) -> None:
    """With long bounds of probing, those who reach it take longer to have the role."""
    world = serving()
    world[2].data = world[2].data[:-1]
    world[1].alive = False
    until(world, Record, "fence")
    world.acknowledge()
    policy = replace(POLICY, outseen_after=seconds)
    assert isinstance(chosen_without(world, C, policy), Wait)
    world.now += seconds
    assert isinstance(chosen_without(world, C, policy), Wait)
    world.now += fencing.PATIENCE
    assert target(chosen_without(world, C, policy)) == B


def chosen_without(world: World, unreached: Node, policy: Policy) -> Step:
    """What a manager that does not reach one server does when it has sealed the others."""
    while isinstance(step := decide(hearsay(world.view(), unreached), policy), Seal):
        world._seal(step)
    return step


def target(step: Step) -> Node | None:
    """The server that is to be promoted."""
    return step.topology.change.target if isinstance(step, Record) and step.topology.change else None


def test_a_switchover_does_not_begin_when_the_primary_manager_cannot_command_the_master() -> None:
    world = serving()
    world.request = ManualRequest(B)
    step = decide(hearsay(world.view(), A), POLICY)
    assert not (isinstance(step, Record) and step.name == "drain"), "writes stop, to be given up a second later"


def test_nobody_is_chosen_before_every_member_was_looked_at_once() -> None:
    world = serving()
    world[2].data = world[2].data[:-1]
    world[1].alive = False
    until(world, Record, "fence")
    world.acknowledge()
    for _ in range(5):
        view = world.view()
        seen = {node: standing for node, standing in view.standings.items() if node != C}  # known by the record only
        step = decide(replace(view, standings=seen), POLICY)
        if not isinstance(step, Seal):
            break
        world._seal(step)
    assert not isinstance(step, Record), f"C is a member and has more: {step.topology.change}"


def test_whoever_is_out_of_sight_the_role_goes_to_a_manager_that_sees_more() -> None:
    world = serving()
    view = replace(hearsay(world.view(), A), unseen=(A,))
    assert isinstance(decide(view, POLICY), Resign)
    assert isinstance(decide(replace(view, topology=None), POLICY), Resign)
    world[1].alive = False
    until(world, Record, "fence")
    assert isinstance(decide(replace(world.view(), unseen=(B, C)), POLICY), Resign)


# --- with daemons


@dataclass
class Group:
    servers: dict[Node, Server]
    blind: dict[str, set[Node]] = field(default_factory=dict)


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who")
GROUP: contextvars.ContextVar[Group] = contextvars.ContextVar("group")


class Admin:
    """RedisAdmin to a server of the model."""

    def __init__(self, node: Node, credentials: object, timeout: float, resolver: Resolver) -> None:
        self.node, self.timeout, self.resolver = node, timeout, resolver
        self.group, self.who = GROUP.get(), WHO.get()
        self._credentials = Credentials()

    def bound(self, seconds: float) -> None:
        self.timeout = seconds

    def borrow_from(self, lender: Self) -> None:
        pass

    async def _server(self) -> Server:
        await asyncio.sleep(0.001)
        server = self.group.servers[self.node]
        if not server.alive or self.node in self.group.blind.get(self.who, ()):
            raise NodeUnreachable(f"{self.node} cannot be reached")
        return server

    async def locate(self) -> None:
        pass

    async def probe(self) -> NodeReport:
        server = await self._server()
        master = self.group.servers.get(server.follows) if server.follows else None
        return server.report(bool(master and master.alive and master.role == "master"))

    async def _replicaof(self, host: str, port: str) -> NodeReport:
        server = await self._server()
        if host == "NO":
            server.promote()
        else:
            server.follow(None)
        return await self.probe()

    async def replicate(self, master: Node) -> None:
        (await self._server()).follow(master)

    async def log_in(self) -> Credentials:
        return self._credentials

    async def set_master_credentials(self, credentials: Credentials) -> None:
        await self._server()

    async def close(self) -> None:
        pass


class Canary:
    alive = True

    @classmethod
    async def connect(cls, node: Node, closed: object, resolver: Resolver) -> Canary:
        return cls()

    def beat(self, now: float) -> float:
        return 0.0

    def unacknowledged(self, now: float) -> float:
        return 0.0

    def close(self) -> None:
        pass


class Place:
    """Managers, each with a store of its own, around modelled servers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, servers: int = 3, admin: type[Admin] = Admin) -> None:
        monkeypatch.setattr(server_watch, "RedisAdmin", admin)
        monkeypatch.setattr(prober_module, "Canary", Canary)
        self.world = World(servers)
        self.group = Group(self.world.servers)
        GROUP.set(self.group)
        self._tree = MemTree(asyncio.Event)
        self.tasks: list[asyncio.Task[None]] = []
        self.stores: list[MemStore] = []
        self.daemons: list[Daemon] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def manager(self, *nodes: Node, required: int = 1) -> MemStore:
        """One that begins when its store, which is returned, is started."""
        name = f"m{len(self.tasks)}"
        WHO.set(name)
        self.stores.append(MemStore(self._tree))
        self.daemons.append(Daemon(Settings(nodes, rule=Rule(required=required)), self.stores[-1], name))
        self.tasks.append(asyncio.create_task(self.daemons[-1].run()))
        return self.stores[-1]

    async def primary(self, *nodes: Node, required: int = 1) -> None:
        """The first manager; returns when it is at the head of the queue."""
        await self.manager(*nodes, required=required).start()
        await eventually(lambda: self.daemons[0].tenure.state is State.PRIMARY)

    async def until(self, true: Callable[[Topology], bool]) -> Topology:
        """The first record that is so; the test's own limit ends a wait in vain."""
        changes = Changes(self.stores[0], PATHS.nodes)
        while True:
            entry = await self.stores[0].read(PATHS.nodes)
            if entry is not None and true(now := Topology.decode(entry.data)):
                changes.end()
                return now
            await changes.next()

    async def serves(self, other_than: Node | None = None) -> Topology:
        """The first record with another master."""
        return await self.until(lambda now: now.phase is Phase.SERVING and now.master not in (None, other_than))


def down(daemon: Daemon, node: Node) -> bool:
    """Whether this manager takes the server for dead."""
    report = daemon._servers.probers[node].detector.report
    return report is not None and not report.available


@pytest.mark.parametrize("blind", [set(), {B, C}, {C}], ids=["control", "to both", "to the better one"])
async def test_a_blind_primary_manager_leaves_the_failover_to_one_that_sees(
    monkeypatch: pytest.MonkeyPatch, blind: set[Node]
) -> None:
    async with Place(monkeypatch) as place:
        await place.primary(A, B, C, required=2)
        for _ in range(2):
            await place.manager(A, B, C, required=2).start()
        await place.serves()
        place.group.blind["m0"] = blind  # its switch lost these hosts
        await eventually(lambda: all(down(place.daemons[0], node) for node in blind))
        place.world[3].data = (*place.world[3].data, 1)  # B lags behind: C alone has the last acknowledged write
        place.world[1].alive = False
        assert (await place.serves(other_than=A)).master == C, "the acknowledged write is gone"


def looks(monkeypatch: pytest.MonkeyPatch, daemon: Daemon) -> list[object]:
    """Grows with each turn of a manager that acts."""
    turns: list[object] = []
    refresh = daemon._mirror.refresh

    async def counted(*paths: str) -> None:
        turns.append(paths)
        await refresh(*paths)

    monkeypatch.setattr(daemon._mirror, "refresh", counted)
    return turns


SHORT = 0.3
"""Seconds in which one that does not pause takes a thousand turns. There is no event that says that nothing happens."""


async def test_a_manager_that_waits_for_the_store_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place(monkeypatch) as place:
        place.manager()  # whose store is never started: ZooKeeper cannot be reached
        turns = looks(monkeypatch, place.daemons[0])
        await asyncio.sleep(SHORT)
        assert len(turns) < 20


async def test_a_store_that_refuses_is_asked_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: MemStore, path: str) -> None:
        raise StoreError("ZooKeeper refused (NoAuthError)")

    monkeypatch.setattr(MemStore, "read", refuse)
    async with Place(monkeypatch) as place:
        store = place.manager()
        turns = looks(monkeypatch, place.daemons[0])
        await store.start()
        await asyncio.sleep(SHORT)
        assert len(turns) < 20, "RETRY is 0.1 s"


async def test_a_primary_manager_that_is_cut_off_in_the_middle_of_a_reading_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Place(monkeypatch) as place:
        await place.primary(A, B, C)
        await place.serves()
        daemon = place.daemons[0]
        turns = looks(monkeypatch, daemon)
        daemon._mirror.spoil(PATHS.nodes)  # something changed, and
        place.stores[0].suspend()  # ZooKeeper is gone before it could be read
        await eventually(lambda: turns)
        turns.clear()
        await asyncio.sleep(SHORT)
        assert len(turns) < 50


class Stubborn(Admin):
    """Can be detached, but not promoted: it crashes then and is started again, or does not answer in time."""

    async def _replicaof(self, host: str, port: str) -> NodeReport:
        if host == "NO":
            raise NodeUnreachable(f"{self.node} did not answer in time")
        return await super()._replicaof(host, port)


async def test_the_record_does_not_grow_with_each_attempt_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "STEPS", 12)
    async with Place(monkeypatch, servers=2, admin=Stubborn) as place:
        await place.primary(A, B)
        await place.serves()
        place.world[1].alive = False
        late = await place.until(lambda now: now.epoch >= 12)
        assert late.change is not None
        assert len(late.change.steps) == 12
        assert [step for step, _ in late.change.steps[:3]] == ["noticed", "agreed", "fenced"]


@pytest.mark.parametrize("granted", [4.0, 1.2])
async def test_a_manager_acts_also_in_a_session_that_is_shorter_than_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, granted: float
) -> None:
    async with Place(monkeypatch) as place:
        store = place.manager(A, B, C)
        await eventually(lambda: place.daemons[0]._servers.admins)  # made before the store says how long a session is
        store._session_timeout = granted  # ZooKeeper says it when the connection is there, see Link._follow
        await store.start()
        await place.serves()
        place.world[1].alive = False
        await place.serves(other_than=A)


async def test_a_server_that_only_another_manager_is_configured_with_is_no_reason_to_resign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Place(monkeypatch) as place:
        await place.primary(A, B)
        await place.serves()
        await place.manager(A, B, C).start()  # one after the other is restarted with C
        await eventually(lambda: "m1" in place.daemons[0]._mirror.reports)
        turns = looks(monkeypatch, place.daemons[0])
        await eventually(lambda: len(turns) > 3)
        assert not any(task.done() for task in place.tasks)


async def test_a_request_is_answered_when_two_managers_see_different_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place(monkeypatch) as place:
        await place.primary(A, B, C)
        await place.manager(A, B, C).start()
        assert (await place.serves()).master == A
        place.group.blind.update({"m0": {A}, "m1": {B}})
        for daemon, node in zip(place.daemons, (A, B), strict=True):
            await eventually(partial(down, daemon, node))
        await place.stores[0].commit(Put(PATHS.manual_failover, ManualRequest(C).encode()))
        gone = Changes(place.stores[0], PATHS.manual_failover)
        while await place.stores[0].read(PATHS.manual_failover) is not None:
            await gone.next()


async def test_the_role_is_not_left_to_a_manager_that_died_with_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place(monkeypatch) as place:
        await place.primary(A, B, C)
        await place.manager(A, B, C).start()
        assert (await place.serves()).master == A
        await eventually(lambda: "m1" in place.daemons[0]._mirror.reports)
        place.stores[1].suspend()  # its host died, with the master; its session lasts on, here for ever
        place.world[1].alive = False
        await place.serves(other_than=A)
