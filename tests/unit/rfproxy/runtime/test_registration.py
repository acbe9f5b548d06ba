"""The proxy's place in the store: registered before it is informed, and sure of its lease only while it is both."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rfmanager.decision.fencing import not_acknowledged
from rfmanager.decision.plan import View
from rfprotocol import clock
from rfprotocol.backoff import JITTER
from rfprotocol.errors import StoreUnavailable
from rfprotocol.store.interface import Delete, Entry, Put
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.records import Occupation, ProxyRecord
from rfprotocol.topology.topology import Change, Kind, Node, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from rfproxy.core.policy import Policy
from rfproxy.routing.hold_queue import GateState
from rfproxy.runtime import record_precedence, registration
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.registration import Membership
from rfproxy.runtime.server import Server
from rfproxy.runtime.topology_cache import TopologyCache
from tests.support.eventually import eventually
from tests.support.playbook import SilentLog
from tests.support.stores import Changes

PATHS = Paths("/group")
SERVING_NODE = Node("127.0.0.1", 1)
SERVING = Topology(1, Phase.SERVING, SERVING_NODE)
FENCED = Topology(2, Phase.FENCING)
OTHER, REPLICA = Node("127.0.0.1", 2), Node("127.0.0.1", 3)
SEVENTH = Topology(7, Phase.SERVING, SERVING_NODE, (REPLICA,), run_id="a")
GEMS = Topology(0, Phase.SERVING, SERVING_NODE, (REPLICA,))


class World:
    """A proxy, and what a manager sees and does."""

    def __init__(self, folder: Path) -> None:
        self.tree = MemTree(asyncio.Event)
        self.manager = MemStore(self.tree)
        self.store = MemStore(self.tree, session_timeout=0.3)
        self.log = SilentLog()
        self.server = Server(Policy(), limits=Limits(clients=10), log=self.log)
        self.cache = TopologyCache(folder, "group")
        self.proxy = Membership(self.server, self.store, PATHS, "me", self.cache)

    async def publish(self, topology: Topology | bytes) -> None:
        """Write the record of the servers."""
        entry = await self.manager.read(PATHS.nodes)
        data = topology if isinstance(topology, bytes) else topology.encode()
        await self.manager.commit(Put(PATHS.nodes, data, entry.version if entry else None))

    async def delete(self) -> None:
        """As the gem does to withdraw a master."""
        await self.manager.commit(Delete(PATHS.nodes))

    def complaints(self) -> list[str]:
        """What was said about records that are not followed."""
        return [str(line["error"]) for line in self.log.events("topology_unusable")]

    def gate(self) -> GateState:
        """Whether writes pass."""
        return self.server.router.gate.state(self.server.now())

    def announced(self) -> int | None:
        """The epoch that a manager would read at this moment; None: the proxy is not registered."""
        entry = self.tree.get(PATHS.proxy("me"))
        return ProxyRecord.decode(entry.data).epoch if entry else None

    async def looked(self) -> None:
        """Return when the proxy has looked at the store once more, and dealt with what was there."""
        seen, read = 0, self.store.read

        async def count(path: str) -> Entry | None:
            nonlocal seen
            seen += path == PATHS.nodes  # the second one begins when the first one has been dealt with
            return await read(path)

        self.store.read = count  # type: ignore[method-assign]
        self.proxy._news.set()
        await eventually(lambda: seen)
        self.proxy._news.set()
        await eventually(lambda: seen > 1)
        self.store.read = read  # type: ignore[method-assign]

    async def record(self) -> ProxyRecord | None:
        """What the manager reads of the proxy."""
        entry = await self.manager.read(PATHS.proxy("me"))
        return ProxyRecord.decode(entry.data) if entry else None

    async def acknowledged(self, epoch: int) -> None:
        """Return when the manager can read that the proxy acts on `epoch`."""
        changes = Changes(self.manager, PATHS.proxies)
        while (record := await self.record()) is None or record.epoch != epoch:
            await changes.next()
        changes.end()

    @property
    def lease(self) -> bool:
        return self.server.lease.valid(self.server.now())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.manager.start()
    await world.publish(SERVING)
    yield world
    await world.proxy.stop()
    await world.server.drain(1.0)


@pytest.fixture
async def started(world: World) -> World:
    await world.proxy.start("127.0.0.1:6380")
    await world.proxy.informed.wait()
    await eventually(lambda: world.lease)
    return world


async def test_the_proxy_registers_and_acknowledges_what_it_read(started: World) -> None:
    await started.acknowledged(1)
    record = await started.record()
    assert record is not None
    assert record.address == "127.0.0.1:6380"
    assert started.server.router.topology == SERVING


async def test_it_is_registered_before_it_has_read_anything(world: World) -> None:
    registered_when_applied: list[bool] = []

    class Spy(SilentLog):
        def info(self, event: str, **fields: object) -> None:
            if event == "topology":
                registered_when_applied.append(world.tree.get(PATHS.proxy("me")) is not None)

    world.server.router.log = Spy()
    await world.proxy.start("a:1")
    await world.proxy.informed.wait()
    assert registered_when_applied == [True]


async def test_membership__server_busy__managers_can_read_it(started: World) -> None:
    await started.acknowledged(1)
    changes = Changes(started.manager, PATHS.proxies)
    started.server.router.watch.busy = {SERVING_NODE: Occupation("FLUSHALL", 0.3)}
    started.server.report_busy()
    while not ((record := await started.record()) and record.busy):
        await changes.next()
    changes.end()
    assert record.busy == {str(SERVING_NODE): Occupation("FLUSHALL", 0.3)}


async def test_a_withdrawn_master_is_acknowledged(started: World) -> None:
    await started.publish(FENCED)
    await started.acknowledged(2)


async def test_a_withdrawn_master_is_acknowledged_without_waiting_for_a_proof_of_life(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "PROOFS", 1e-6)
    await world.proxy.start("a:1")
    await eventually(lambda: world.lease)

    async def never_answered() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.store, "prove_alive", never_answered)
    for epoch in (2, 3):
        await world.publish(replace(FENCED, epoch=epoch))
        await world.acknowledged(epoch)


async def test_a_record_of_a_store_that_was_wiped_is_a_new_one_though_its_numbers_are_known(
    started: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await started.manager.read(PATHS.nodes)
    assert known is not None

    async def read(path: str) -> Entry:
        return replace(known, data=replace(SERVING, epoch=5).encode())

    monkeypatch.setattr(started.store, "read", read)
    await started.publish(SERVING)  # so that it looks
    await started.acknowledged(5)


async def test_a_record_that_cannot_be_read_is_said_once_and_changes_nothing(started: World) -> None:
    await started.publish(b"{nonsense")
    await eventually(lambda: started.log.events("topology_unusable"))
    await started.publish(replace(SERVING, epoch=5))
    await started.acknowledged(5)
    assert len(started.log.events("topology_unusable")) == 1


async def test_a_record_of_a_later_release_is_left_alone(started: World) -> None:
    await started.publish(b'{"format": 99, "master": "other:1", "epoch": 9}')
    await eventually(lambda: started.log.events("topology_unusable"))
    assert "upgrade" in str(started.log.events("topology_unusable")[0]["error"])
    assert started.server.router.topology == SERVING


async def test_membership__record_goes_back_also_when_made_anew__writes_wait_for_a_later_one(started: World) -> None:
    await started.publish(replace(SERVING, epoch=7))
    await started.acknowledged(7)
    await started.publish(replace(SERVING, epoch=3))
    await eventually(lambda: started.log.events("topology_unusable"))
    assert started.server.router.epoch == 7
    await started.delete()
    await started.publish(replace(SERVING, epoch=4))
    await started.looked()
    assert started.gate() is GateState.FENCED
    assert started.announced() == 7, "managers see it, and publish beyond"
    await started.publish(replace(SERVING, epoch=8))
    await started.acknowledged(8)
    assert started.gate() is GateState.OPEN


@pytest.fixture
async def seventh(started: World) -> World:
    """The proxy acts on epoch 7, and nothing was logged yet."""
    await started.publish(SEVENTH)
    await started.acknowledged(7)
    await eventually(lambda: started.cache.load() == SEVENTH)
    started.log.lines.clear()
    return started


# --- no news


async def test_membership__record_renewed__is_no_news(seventh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt stays: a replica that is slow is not asked again before its time."""
    router = seventh.server.router
    at = seventh.server.now()
    router._replicas.rest(REPLICA, at)
    seventh.cache.path.unlink()
    announced: list[bytes] = []
    monkeypatch.setattr(seventh.store, "announce", lambda path, data: announced.append(data))
    for _ in range(3):
        await seventh.publish(SEVENTH)
        await seventh.looked()
    assert seventh.log.lines == []
    assert router._replicas.slow(REPLICA, at)
    assert not seventh.cache.path.exists()
    assert announced == []
    entry = await seventh.manager.read(PATHS.nodes)
    assert entry is not None
    assert seventh.proxy._known == entry, "else each look would decode it again"


async def test_membership__equal_record_made_anew__is_no_news_and_its_successors_are_followed(seventh: World) -> None:
    before = await seventh.manager.read(PATHS.nodes)
    await seventh.manager.commit(Delete(PATHS.nodes), Put(PATHS.nodes, SEVENTH.encode()))
    await seventh.looked()
    after = await seventh.manager.read(PATHS.nodes)
    assert before is not None
    assert after is not None
    assert before.created != after.created
    assert seventh.log.lines == []
    await seventh.publish(replace(FENCED, epoch=8))
    await seventh.acknowledged(8)


async def test_membership__cached_topology_is_confirmed__is_acknowledged_and_not_said_again(world: World) -> None:
    world.cache.save(SERVING)
    world.store.suspend()
    await world.proxy.start("a:1")
    await world.proxy.informed.wait()
    world.store.resume()
    await world.acknowledged(1)
    await eventually(lambda: world.lease)
    assert world.gate() is GateState.OPEN
    assert len(world.log.events("topology")) == 1


# --- no record


async def test_membership__record_deleted__writes_wait_and_reads_go_on_until_there_is_one(seventh: World) -> None:
    await seventh.delete()
    await eventually(seventh.complaints)
    topology = seventh.server.router.topology
    assert topology is not None
    assert (topology.phase, topology.master, topology.replicas) == (Phase.DRAINING, None, (REPLICA,))
    assert seventh.gate() is GateState.FENCED
    await seventh.looked()
    assert seventh.complaints() == [
        "the record of the servers was deleted: writes wait until there is one, reads go on"
    ]
    assert seventh.announced() == 7, "the managers number beyond it"
    await seventh.publish(replace(SEVENTH, epoch=8, master=OTHER))
    await seventh.acknowledged(8)
    assert seventh.gate() is GateState.OPEN


async def test_membership__deleted_again_and_again__is_said_each_time(seventh: World) -> None:
    for times in (1, 2):
        await seventh.delete()
        await eventually(lambda: seventh.gate() is GateState.FENCED)
        await seventh.publish(SEVENTH)
        await eventually(lambda: seventh.gate() is GateState.OPEN)
        assert len(seventh.complaints()) == times


async def test_membership__gem_deletes_and_makes_its_record_anew__is_followed_at_once(seventh: World) -> None:
    for gems in (GEMS, replace(GEMS, master=OTHER)):
        await seventh.delete()
        await eventually(lambda: seventh.gate() is GateState.FENCED)
        await seventh.publish(gems)
        await eventually(lambda: seventh.gate() is GateState.OPEN)
        assert seventh.server.router.topology == gems


async def test_membership__there_never_was_a_record__is_said_once_and_the_first_one_is_followed(world: World) -> None:
    await world.delete()
    await world.proxy.start("a:1")
    await eventually(lambda: world.lease)
    await world.looked()
    assert world.complaints() == ["there is no record of the servers yet: a manager makes it"]
    assert not world.proxy.informed.is_set()
    await world.publish(SERVING)
    await world.acknowledged(1)


async def test_membership__started_from_cache_and_store_is_empty__writes_wait(world: World) -> None:
    """A ZooKeeper that was wiped: nobody says that the master of the last run is still one."""
    world.cache.save(SEVENTH)
    await world.delete()
    world.store.suspend()
    await world.proxy.start("a:1")
    await world.proxy.informed.wait()
    world.store.resume()
    await eventually(lambda: world.lease)
    await world.acknowledged(7)
    assert world.gate() is GateState.FENCED
    await world.publish(replace(SEVENTH, epoch=8))
    await world.acknowledged(8)


async def test_membership__store_is_empty_and_cache_comes_later__writes_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "PATIENCE", 0.05)
    world.cache.save(SEVENTH)
    await world.delete()
    await world.proxy.start("a:1")
    await eventually(lambda: world.lease)
    states: list[GateState] = []
    monkeypatch.setattr(world.proxy.informed, "set", lambda: states.append(world.gate()))
    await eventually(lambda: states)
    assert states == [GateState.FENCED]
    assert world.server.router.topology is not None
    assert world.server.router.topology.replicas == (REPLICA,)


# --- records of the gem


async def test_membership__gems_record_beside_ours__is_not_followed_and_said_once(seventh: World) -> None:
    for _ in range(3):  # it writes every 5 s
        await seventh.publish(GEMS)
        await seventh.looked()
    assert seventh.server.router.topology == SEVENTH
    assert seventh.gate() is GateState.OPEN
    assert len(seventh.complaints()) == 1
    assert "Ruby's redis_failover" in seventh.complaints()[0]
    await seventh.publish(replace(SEVENTH, epoch=8))  # taken back
    await seventh.acknowledged(8)


async def test_membership__gems_record_names_another_master__writes_wait_for_who_wins(seventh: World) -> None:
    await seventh.publish(replace(GEMS, master=OTHER))
    await eventually(seventh.complaints)
    assert seventh.gate() is GateState.FENCED
    assert seventh.complaints()[0].endswith("until then writes wait")
    await seventh.publish(SEVENTH)
    await eventually(lambda: seventh.gate() is GateState.OPEN)
    assert seventh.announced() == 7


@pytest.mark.parametrize(
    "in_force",
    [
        SEVENTH,
        replace(FENCED, epoch=8),
        Topology(8, Phase.DRAINING, change=Change(Kind.SWITCHOVER, "asked for", SERVING_NODE, OTHER)),
    ],
)
async def test_membership__gems_records_stay__are_followed_whatever_was_in_force(
    seventh: World, in_force: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_precedence, "GEM_STAYS", 0.1)
    await seventh.publish(in_force)
    await seventh.acknowledged(in_force.epoch)
    await seventh.publish(GEMS)
    await eventually(lambda: seventh.server.router.topology == GEMS)
    await seventh.acknowledged(0)
    assert seventh.gate() is GateState.OPEN
    await seventh.publish(replace(GEMS, master=OTHER))  # and the next one at once
    await eventually(lambda: seventh.server.router.topology == replace(GEMS, master=OTHER))
    await seventh.publish(replace(SEVENTH, epoch=8))  # ours are back
    await seventh.acknowledged(8)


async def test_membership__gems_record_was_followed__the_store_is_not_asked_in_a_loop(
    seventh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_precedence, "GEM_STAYS", 0.05)
    await seventh.publish(GEMS)
    await eventually(lambda: seventh.server.router.topology == GEMS)
    waits: list[float] = []
    wait = seventh.proxy._wait

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await wait(seconds)

    monkeypatch.setattr(seventh.proxy, "_wait", note)
    await eventually(lambda: len(waits) > 3)
    assert min(waits) > 0


async def test_membership__gems_managers_begin_and_cease_to_lead__is_said_once_each(seventh: World) -> None:
    router = seventh.server.router
    await seventh.delete()
    for _ in range(2):
        await seventh.publish(GEMS)
        await eventually(lambda: router.topology == GEMS)
        await seventh.publish(replace(GEMS, master=OTHER))
        await eventually(lambda: router.topology == replace(GEMS, master=OTHER))
        await seventh.publish(Topology(0, Phase.UNSETTLED))  # all servers are down
        await eventually(lambda: router.topology == Topology(0, Phase.UNSETTLED))
        assert router.unfenced
    assert len(seventh.log.events("not_fenced")) == 1
    assert "lost" in str(seventh.log.events("not_fenced")[0]["error"])
    for epoch in (8, 9):
        await seventh.publish(replace(SEVENTH, epoch=epoch))
        await seventh.acknowledged(epoch)
    assert not router.unfenced
    assert len(seventh.log.events("fenced")) == 1


async def test_membership__our_first_record_has_no_epoch__is_not_taken_for_the_gems(world: World) -> None:
    await world.publish(Topology(0, Phase.UNSETTLED))
    await world.proxy.start("a:1")
    await world.proxy.informed.wait()
    assert not world.server.router.unfenced
    assert not world.log.events("not_fenced")


# --- what is acknowledged, while records go back


@pytest.mark.parametrize("older", [replace(SEVENTH, epoch=3), replace(FENCED, epoch=3)])
async def test_membership__store_restored__nothing_is_written_to_before_managers_publish_anew(
    seventh: World, older: Topology
) -> None:
    """The record has its former epoch, and the managers may use those that follow: 4 to withdraw the master, for one.

    The proxy has acknowledged 7, which is greater, so they would not wait for it.
    """
    await seventh.publish(older)
    await eventually(seventh.complaints)
    assert seventh.gate() is GateState.FENCED
    assert seventh.announced() == 7
    await seventh.looked()
    assert len(seventh.complaints()) == 1
    await seventh.publish(replace(SEVENTH, epoch=8))
    await seventh.acknowledged(8)
    assert seventh.gate() is GateState.OPEN


async def test_membership__store_restored_with_an_older_word_of_this_proxy__says_it_again(seventh: World) -> None:
    entry = seventh.tree.get(PATHS.proxy("me"))
    assert entry is not None
    await seventh.manager.commit(
        Put(PATHS.proxy("me"), replace(ProxyRecord.decode(entry.data), epoch=3).encode(), entry.version)
    )
    await seventh.publish(replace(SEVENTH, epoch=3))
    await seventh.acknowledged(7)


async def test_membership__exactly_the_known_record_is_put_back__is_followed(
    seventh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to its version, as a snapshot of the store does."""
    known = await seventh.manager.read(PATHS.nodes)
    assert known is not None
    await seventh.publish(replace(SEVENTH, epoch=3))
    await eventually(lambda: seventh.gate() is GateState.FENCED)

    async def read(path: str) -> Entry:
        return known

    monkeypatch.setattr(seventh.store, "read", read)
    seventh.proxy._news.set()
    await eventually(lambda: seventh.gate() is GateState.OPEN)


async def test_membership__gems_record_made_anew__greater_epoch_is_taken_back_before_the_record_is_read(
    seventh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager withdraws the master in epoch 4 just then: the proxy must not write, and says what it knows."""
    announce, said = seventh.store.announce, list[int]()

    async def interrupted(path: str, data: bytes) -> None:
        await announce(path, data)
        said.append(ProxyRecord.decode(data).epoch)
        if len(said) == 1:
            await seventh.publish(replace(FENCED, epoch=4))

    monkeypatch.setattr(seventh.store, "announce", interrupted)
    await seventh.manager.commit(Delete(PATHS.nodes), Put(PATHS.nodes, GEMS.encode()))
    await eventually(lambda: len(said) > 1)
    await seventh.acknowledged(7)
    assert said[0] == 0
    assert seventh.gate() is not GateState.OPEN
    await seventh.publish(replace(FENCED, epoch=8))
    await seventh.acknowledged(8)


@pytest.mark.parametrize("then", [replace(FENCED, epoch=7), replace(SEVENTH, epoch=3), None])
async def test_membership__what_was_to_be_followed_is_gone_meanwhile__acknowledges_anew(
    seventh: World, then: Topology | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gem's record had stayed, so the proxy took back what it had acknowledged: the managers need that number."""
    monkeypatch.setattr(record_precedence, "GEM_STAYS", 0.0)
    await seventh.publish(replace(FENCED, epoch=7))
    await eventually(lambda: seventh.gate() is GateState.FENCED)
    announce, said = seventh.store.announce, list[int]()

    async def interrupted(path: str, data: bytes) -> None:
        said.append(ProxyRecord.decode(data).epoch)
        if len(said) == 1:
            await (seventh.publish(then) if then else seventh.delete())
        await announce(path, data)

    monkeypatch.setattr(seventh.store, "announce", interrupted)
    await seventh.publish(GEMS)
    await eventually(lambda: said)
    await seventh.acknowledged(7)
    assert said[0] == 0


class Adversary:
    """Writes records at any moment: as managers do, as the gem does, and as a store that was restored or wiped.

    A manager that numbers an epoch knows the receipts, which go back with the store, but may not have read yet what
    this proxy has acknowledged. It has while the proxy has not seen yet that somebody else wrote: nothing that a proxy
    does could help then. No store is restored within the round trips in which the proxy follows its last change.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self._receipts = 1  # the greatest epoch that has one
        self._held = 0  # the epoch of a fence that a manager has taken for complete
        self._read: Entry | None = None
        self._dealt_with: Entry | None = None
        read, announce, wait = world.store.read, world.store.announce, world.proxy._wait

        async def note_read(path: str) -> Entry | None:
            await self.turns()
            entry = await read(path)
            if path == PATHS.nodes:
                self._read = entry
            await self.turns()
            return entry

        async def slow_announce(path: str, data: bytes) -> None:
            await self.turns()
            await announce(path, data)
            await self.turns()

        async def note_wait(seconds: float) -> None:
            self._dealt_with = self._read
            await wait(seconds)

        world.store.read = note_read  # type: ignore[method-assign]
        world.store.announce = slow_announce  # type: ignore[method-assign]
        world.proxy._wait = note_wait  # type: ignore[method-assign]

    async def act(self) -> None:
        topology, other = self._topology, self.random.choice((SERVING_NODE, OTHER))
        serving = Topology(self._next, Phase.SERVING, other, run_id="a")
        match self.random.choice(
            ("fence", "fence", "publish", "publish", "restore", "wipe", "gem", "delete", "expire")
        ):
            case "fence" if topology is not None:
                await self.world.publish(Topology(self._next, Phase.FENCING))
            case "publish" if topology is None or topology.is_gems or self.counted():
                self._receipts = serving.epoch
                await self.world.publish(serving)
            case "restore" | "wipe" as what:
                await eventually(lambda: self._is_settled)
                self._held = 0
                self._receipts = self.random.randrange(1, max(self._receipts, 2))
                data = replace(serving, epoch=self._receipts).encode()
                if what == "restore" and topology is not None:
                    await self.world.publish(data)
                else:
                    gone = [Delete(PATHS.nodes)] if self._entry else []
                    await self.world.manager.commit(*gone, Put(PATHS.nodes, data))
            case "gem":
                self._held = 0
                await self.world.publish(replace(GEMS, master=other))
            case "delete" if topology is not None:
                self._held = 0
                await self.world.delete()
            case "expire":
                self.world.store.expire()

    async def turns(self) -> None:
        """The network takes its time."""
        for _ in range(self.random.choice((0, 1, 3))):
            await asyncio.sleep(0)

    def counted(self) -> bool:
        """Would a manager take the fence for complete?"""
        topology, said = self._topology, self.world.announced()
        if topology is None or topology.phase is not Phase.FENCING:
            return False
        proxies = {} if said is None else {"me": said}
        return not not_acknowledged(View(0.0, 0.0, "m", (), topology, {}, proxies=proxies), topology)

    def check(self) -> None:
        """Invariant 1: no proxy writes to a master that was withdrawn, when all have acknowledged that."""
        if self.counted() and self._topology is not None:
            self._held = self._topology.epoch
        assert not self._held or self.world.gate() is not GateState.OPEN or self.world.server.router.epoch > self._held

    @property
    def _next(self) -> int:
        gems = self._topology is not None and self._topology.is_gems
        careless = (self._dealt_with == self._entry and not gems) or self.world.gate() is GateState.FENCED
        known = 0 if careless and self.random.random() < 0.7 else self.world.announced() or 0
        return max(self._topology.epoch if self._topology else 0, self._receipts, known) + 1

    @property
    def _is_settled(self) -> bool:
        router = self.world.server.router
        return self._dealt_with == self._entry and self.world.announced() == router.acknowledged == router.epoch

    @property
    def _entry(self) -> Entry | None:
        return self.world.tree.get(PATHS.nodes)

    @property
    def _topology(self) -> Topology | None:
        return Topology.decode(self._entry.data) if self._entry else None


@pytest.mark.parametrize("seed", range(40))
async def test_membership__records_come_and_go_as_they_like__a_fence_that_holds_is_one(
    started: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_precedence, "GEM_STAYS", 0.0 if seed % 2 else 10.0)
    adversary = Adversary(started, seed)
    for _ in range(60):
        await adversary.act()
        for _ in range(adversary.random.choice((0, 1, 3, 5, 8, 13, 60))):
            adversary.check()
            await asyncio.sleep(0)
    await started.publish(replace(SEVENTH, epoch=1000))
    await started.acknowledged(1000)
    await eventually(lambda: started.gate() is GateState.OPEN)


async def test_registration__removed_by_somebody__is_made_again_before_the_lease_is_renewed(started: World) -> None:
    """A manager that withdraws the master waits for those that are registered only."""
    changes = Changes(started.manager, PATHS.proxies)
    await started.manager.commit(Delete(PATHS.proxy("me")))
    while await started.record() is None:
        await changes.next()
    changes.end()
    await eventually(lambda: started.lease)


async def test_the_lease_ends_with_the_session_and_comes_back_with_the_next_registration(started: World) -> None:
    started.store.expire()
    assert not started.lease
    started.store.resume()
    await eventually(lambda: started.lease)
    await started.acknowledged(1)


async def test_the_lease_runs_out_while_the_store_is_cut_off(started: World) -> None:
    started.store.suspend()
    await eventually(lambda: started.log.events("lease_lapsed"))
    assert not started.lease


async def test_without_a_store_at_the_start_the_cached_topology_serves_reads_but_not_writes(world: World) -> None:
    world.cache.save(replace(SERVING, replicas=(Node("127.0.0.1", 2),)))
    world.store.suspend()
    await world.proxy.start("a:1")
    await world.proxy.informed.wait()
    assert world.server.router.topology is not None
    assert not world.lease


async def test_what_was_served_is_cached_for_the_next_start(started: World) -> None:
    await eventually(lambda: started.cache.load() == SERVING)


async def test_a_store_that_is_away_is_waited_for_and_not_asked_in_a_loop(started: World) -> None:
    started.store.expire()
    turns = 0
    while turns < 50:  # of the event loop: a busy one would not get that far
        turns += 1
        await asyncio.sleep(0)
    started.store.resume()
    await eventually(lambda: started.lease)


async def test_a_store_that_takes_no_more_connections_is_named_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "PATIENCE", 0.01)
    monkeypatch.setattr(MemStore, "trouble", "accepts and closes at once: its maxClientCnxns may be reached")
    world.store.suspend()
    await world.proxy.start("a:1")
    await eventually(lambda: world.log.events("waiting for ZooKeeper"))
    line = world.log.events("waiting for ZooKeeper")[0]
    assert line["why"] == "it accepts and closes at once: its maxClientCnxns may be reached"


async def test_the_number_of_clients_that_operators_read_is_kept_true(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "REFRESH", 0.0)
    await world.proxy.start("a:1")
    await world.acknowledged(1)
    changes = Changes(world.manager, PATHS.proxies)
    world.server.stats.clients = 7
    while (record := await world.record()) is None or record.clients != 7:
        await changes.next()
    changes.end()


async def test_leaving_withdraws_the_registration(world: World) -> None:
    await world.proxy.start("a:1")
    await world.proxy.informed.wait()
    await world.proxy.stop()
    assert await world.record() is None


async def test_an_acknowledgement_that_was_lost_is_repeated(started: World, monkeypatch: pytest.MonkeyPatch) -> None:
    announce, lost = started.store.announce, list[bytes]()

    async def lose_one(path: str, data: bytes) -> None:
        if ProxyRecord.decode(data).epoch == 2 and not lost:
            lost.append(data)
            raise StoreUnavailable("the request was lost")
        await announce(path, data)

    monkeypatch.setattr(started.store, "announce", lose_one)
    await started.publish(FENCED)
    async with asyncio.timeout(3.0):  # ten sessions long
        await started.acknowledged(2)


async def test_the_same_when_the_connection_blinks(started: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut and restored within one turn of the loop, as a busy proxy hears of it, just as it acknowledges."""
    announce, lost = started.store.announce, list[bytes]()

    async def blink(path: str, data: bytes) -> None:
        if not lost:
            lost.append(data)
            started.store.suspend()
            try:
                await announce(path, data)
            finally:
                started.store.resume()
        await announce(path, data)

    await asyncio.sleep(0.01)
    monkeypatch.setattr(started.store, "announce", blink)
    await started.publish(FENCED)
    async with asyncio.timeout(3.0):
        await started.acknowledged(2)
    assert lost


async def test_who_leaves_does_not_go_on_acknowledging(started: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()

    async def lose(path: str, data: bytes) -> None:
        tried.set()
        raise StoreUnavailable("the request was lost")

    monkeypatch.setattr(started.store, "announce", lose)
    await started.publish(FENCED)
    await tried.wait()
    await started.proxy.stop()
    assert not started.proxy._acknowledgements


async def test_membership__disk_takes_for_ever__acknowledges(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writing = threading.Event(), threading.Event()

    def save(topology: Topology) -> None:
        writing.set()
        disk.wait()

    monkeypatch.setattr(world.cache, "save", save)
    monkeypatch.setattr(registration, "SAVE_TIMEOUT", 0.01)
    await world.proxy.start("a:1")
    await world.acknowledged(1)
    await eventually(writing.is_set)
    await world.publish(replace(SERVING, epoch=3))
    await world.acknowledged(3)
    await world.proxy.stop()
    disk.set()


async def test_membership__machine_was_suspended__lease_is_over(world: World) -> None:
    """The loop's timers stood still with its clock; the lease counts the time of suspension."""
    slept = 0.0
    world.server.now = lambda: clock.now() + slept
    await world.proxy.start("a:1")
    await eventually(lambda: world.lease)
    slept = 1000.0
    assert not world.lease
    assert world.server.router.gate.state(world.server.now()) is GateState.LAPSED
    await eventually(lambda: world.lease)  # by the next proof
    assert world.server.router.gate.state(world.server.now()) is GateState.OPEN


async def test_membership__store_fails_again_and_again__waits_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies that lost the store together do not come back together, and the lease is not lost to a wait."""
    waits: list[float] = []

    async def refuse(path: str, data: bytes) -> None:
        raise StoreUnavailable("away")

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(world.store, "announce", refuse)
    monkeypatch.setattr(world.proxy, "_wait", wait)
    world.server.now = lambda: sum(waits)
    await world.proxy.start("a:1")
    await eventually(lambda: len(waits) > 8)
    longest = 2 * world.store.session_timeout / registration.PROOFS
    assert waits[0] <= longest / 4
    assert all(longest * (1 - JITTER) - 1e-9 <= seconds <= longest + 1e-9 for seconds in waits[2:])
