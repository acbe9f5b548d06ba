"""Managers that reach less than others, that are cut off from the store, or get a short session; servers that are
modelled, so that each of them can be out of sight for one manager alone."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field, replace
from typing import Self

import pytest

from rfmanager import change
from rfmanager import daemon as daemon_module
from rfmanager import prober as prober_module
from rfmanager.daemon import Daemon, Settings
from rfmanager.decision import decide
from rfmanager.quorum import Rule
from rfmanager.redis_admin import Credentials
from rfmanager.steps import Record, Resign, Seal, View
from rfprotocol.errors import NodeUnreachable, StoreError
from rfprotocol.memstore import MemStore, MemTree
from rfprotocol.paths import Paths
from rfprotocol.records import ManualRequest
from rfprotocol.store import Put
from rfprotocol.topology import Node, NodeReport, Phase, Topology
from tests.manager.world import POLICY, A, B, C, Server, World, serving, until

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
    for _ in range(5):
        step = decide(hearsay(world.view(), C), POLICY)
        if isinstance(step, Seal):
            world._seal(step)
            continue
        break
    chosen = step.topology.change.target if isinstance(step, Record) and step.topology.change else None
    assert chosen != B, "an acknowledged write is lost, although its server is up for most managers"


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

    def __init__(self, node: Node, credentials: object, timeout: float) -> None:
        self.node, self.timeout = node, timeout
        self.group, self.who = GROUP.get(), WHO.get()
        self._credentials = Credentials()

    async def _server(self) -> Server:
        await asyncio.sleep(0.001)
        server = self.group.servers[self.node]
        if not server.alive or self.node in self.group.blind.get(self.who, ()):
            raise NodeUnreachable(f"{self.node} cannot be reached")
        return server

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

    async def set_master_credentials(self) -> None:
        await self._server()

    async def close(self) -> None:
        pass


class Canary:
    alive = True

    @classmethod
    async def connect(cls, node: Node, closed: object) -> Canary:
        return cls()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("blind", [set(), {B, C}, {C}], ids=["control", "to both", "to the better one"])
async def test_a_blind_primary_manager_leaves_the_failover_to_one_that_sees(
    monkeypatch: pytest.MonkeyPatch, blind: set[Node]
) -> None:
    monkeypatch.setattr(daemon_module, "RedisAdmin", Admin)
    monkeypatch.setattr(prober_module, "Canary", Canary)
    world = World(3)
    group = Group(world.servers)
    tree = MemTree(asyncio.Event)
    GROUP.set(group)
    running, stores = [], []
    for name in ("m0", "m1", "m2"):
        WHO.set(name)
        store = MemStore(tree)
        await store.start()
        stores.append(store)
        settings = Settings((A, B, C), rule=Rule(required=2))
        running.append(asyncio.create_task(Daemon(settings, store, name).run()))
        await asyncio.sleep(0.1)

    async def topology() -> Topology | None:
        entry = await stores[0].read(PATHS.nodes)
        return Topology.decode(entry.data) if entry else None

    async def serves(other_than: Node | None) -> bool:
        for _ in range(80):
            now = await topology()
            if now and now.phase is Phase.SERVING and now.master not in (None, other_than):
                return True
            await asyncio.sleep(0.1)
        return False

    try:
        assert await serves(None)
        group.blind["m0"] = blind  # the primary manager: its switch lost these hosts
        await asyncio.sleep(2)
        world[3].data = (*world[3].data, 1)  # B lags behind: C alone has the last acknowledged write
        world[1].alive = False
        found = await serves(A)
        assert found, f"no master 8 s after A died, though m1 and m2 reach B and C: {await topology()}"
        now = await topology()
        assert now
        assert now.master == C, "the acknowledged write is gone"
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def looks_of(store: MemStore, seconds: float) -> int:
    daemon = Daemon(Settings(()), store, "m")
    looks = 0
    refresh = daemon._mirror.refresh

    async def counted(*paths: str) -> None:
        nonlocal looks
        looks += 1
        await refresh(*paths)

    daemon._mirror.refresh = counted  # type: ignore[method-assign]
    running = asyncio.create_task(daemon.run())
    await asyncio.sleep(seconds)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return looks


async def test_a_manager_that_waits_for_the_store_is_idle() -> None:
    store = MemStore(MemTree(asyncio.Event))  # never started: ZooKeeper cannot be reached
    assert await looks_of(store, 0.3) < 20


class Refusing(MemStore):
    async def read(self, path: str) -> None:
        raise StoreError("ZooKeeper refused (NoAuthError)")


async def test_a_store_that_refuses_is_asked_again_after_a_pause() -> None:
    store = Refusing(MemTree(asyncio.Event))
    await store.start()
    assert await looks_of(store, 0.3) < 20, "RETRY is 0.1 s"


class Stubborn(Admin):
    """Can be detached, but not promoted: it crashes then and is started again, or does not answer in time."""

    async def _replicaof(self, host: str, port: str) -> NodeReport:
        if host == "NO":
            raise NodeUnreachable(f"{self.node} did not answer in time")
        return await super()._replicaof(host, port)


async def test_the_record_does_not_grow_with_each_attempt_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "STEPS", 12)
    monkeypatch.setattr(daemon_module, "RedisAdmin", Stubborn)
    monkeypatch.setattr(prober_module, "Canary", Canary)
    world = World(2)
    GROUP.set(Group(world.servers))
    WHO.set("m")
    store = MemStore(MemTree(asyncio.Event))
    await store.start()
    running = asyncio.create_task(Daemon(Settings((A, B)), store, "m").run())

    async def epoch(least: int) -> Topology:
        while True:
            entry = await store.read(PATHS.nodes)
            if entry and (topology := Topology.decode(entry.data)).epoch >= least:
                return topology
            await asyncio.sleep(0.05)

    try:
        await epoch(1)
        world[1].alive = False
        async with asyncio.timeout(20):
            late = await epoch(12)
        assert late.change is not None
        assert len(late.change.steps) == 12
        assert [step for step, _ in late.change.steps[:3]] == ["noticed", "agreed", "fenced"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("granted", [4.0, 1.2])
async def test_a_manager_acts_also_in_a_session_that_is_shorter_than_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, granted: float
) -> None:
    monkeypatch.setattr(daemon_module, "RedisAdmin", Admin)
    monkeypatch.setattr(prober_module, "Canary", Canary)
    world = World(3)
    GROUP.set(Group(world.servers))
    WHO.set("m")
    store = MemStore(MemTree(asyncio.Event), session_timeout=4.0)
    running = asyncio.create_task(Daemon(Settings((A, B, C)), store, "m").run())
    await asyncio.sleep(0.05)
    store._session_timeout = granted  # ZooKeeper says it when the connection is there, see Link._follow
    await store.start()
    try:
        await asyncio.sleep(1)
        world[1].alive = False
        await asyncio.sleep(5)
        entry = await store.read(PATHS.nodes)
        assert entry
        assert Topology.decode(entry.data).phase is Phase.SERVING
        assert Topology.decode(entry.data).master != A
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_primary_manager_that_is_cut_off_in_the_middle_of_a_reading_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon_module, "RedisAdmin", Admin)
    monkeypatch.setattr(prober_module, "Canary", Canary)
    world = World(3)
    GROUP.set(Group(world.servers))
    WHO.set("m")
    store = MemStore(MemTree(asyncio.Event))
    await store.start()
    daemon = Daemon(Settings((A, B, C)), store, "m")
    looks = 0
    refresh = daemon._mirror.refresh

    async def counted(*paths: str) -> None:
        nonlocal looks
        looks += 1
        await refresh(*paths)

    daemon._mirror.refresh = counted  # type: ignore[method-assign]
    running = asyncio.create_task(daemon.run())
    try:
        await asyncio.sleep(0.5)
        daemon._mirror.spoil(PATHS.nodes)  # something changed, and
        store.suspend()  # ZooKeeper is gone before it could be read
        await asyncio.sleep(0.1)
        looks = 0
        await asyncio.sleep(0.5)
        assert looks < 50, f"{looks} looks in 0.5 s"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Place:
    """Managers, each with a store of its own, around modelled servers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(daemon_module, "RedisAdmin", Admin)
        monkeypatch.setattr(prober_module, "Canary", Canary)
        self.world = World(3)
        self.group = Group(self.world.servers)
        GROUP.set(self.group)
        self._tree = MemTree(asyncio.Event)
        self.tasks: list[asyncio.Task[None]] = []
        self.stores: list[MemStore] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def manager(self, *nodes: Node) -> None:
        name = f"m{len(self.tasks)}"
        WHO.set(name)
        store = MemStore(self._tree)
        await store.start()
        self.stores.append(store)
        self.tasks.append(asyncio.create_task(Daemon(Settings(nodes), store, name).run()))
        await asyncio.sleep(0.15)

    async def serves(self, other_than: Node | None = None) -> Topology:
        async with asyncio.timeout(30):
            while True:
                entry = await self.stores[0].read(PATHS.nodes)
                now = Topology.decode(entry.data) if entry else None
                if now and now.phase is Phase.SERVING and now.master not in (None, other_than):
                    return now
                await asyncio.sleep(0.05)


async def test_a_server_that_only_another_manager_is_configured_with_is_no_reason_to_resign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Place(monkeypatch) as place:
        await place.manager(A, B)
        await place.serves()
        await place.manager(A, B, C)  # one after the other is restarted with C
        await asyncio.sleep(1)
        assert not any(task.done() for task in place.tasks)


async def test_a_request_is_answered_when_two_managers_see_different_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place(monkeypatch) as place:
        await place.manager(A, B, C)
        await place.manager(A, B, C)
        assert (await place.serves()).master == A
        place.group.blind.update({"m0": {A}, "m1": {B}})
        await asyncio.sleep(2.5)
        await place.stores[0].commit(Put(PATHS.manual_failover, ManualRequest(C).encode()))
        async with asyncio.timeout(30):
            while True:
                if await place.stores[0].read(PATHS.manual_failover) is None:
                    return
                await asyncio.sleep(0.1)


async def test_the_role_is_not_left_to_a_manager_that_died_with_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place(monkeypatch) as place:
        await place.manager(A, B, C)
        await place.manager(A, B, C)
        assert (await place.serves()).master == A
        await asyncio.sleep(1)
        place.stores[1].suspend()  # its host died, with the master; its session lasts on, here for ever
        place.world[1].alive = False
        await place.serves(other_than=A)
