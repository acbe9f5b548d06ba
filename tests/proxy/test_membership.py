"""The proxy's place in the store: registered before it is informed, and sure of its lease only while it is both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rfprotocol import clock
from rfprotocol.backoff import JITTER
from rfprotocol.errors import StoreUnavailable
from rfprotocol.memstore import MemStore, MemTree
from rfprotocol.paths import Paths
from rfprotocol.records import Occupation, ProxyRecord
from rfprotocol.store import Delete, Entry, Put
from rfprotocol.topology import Node, Phase, Topology
from rfproxy import membership
from rfproxy.cache import TopologyCache
from rfproxy.gate import GateState
from rfproxy.limits import Limits
from rfproxy.membership import Membership
from rfproxy.policy import Policy
from rfproxy.server import Server
from tests.support.eventually import eventually
from tests.support.playbook import SilentLog
from tests.support.stores import Changes

PATHS = Paths("/group")
SERVING_NODE = Node("127.0.0.1", 1)
SERVING = Topology(1, Phase.SERVING, SERVING_NODE)
FENCED = Topology(2, Phase.FENCING)


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
    monkeypatch.setattr(membership, "PROOFS", 1e-6)
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


async def test_a_record_that_goes_back_is_not_followed_unless_it_was_made_anew(started: World) -> None:
    await started.publish(replace(SERVING, epoch=7))
    await started.acknowledged(7)
    await started.publish(replace(SERVING, epoch=3))
    await eventually(lambda: started.log.events("topology_unusable"))
    assert started.server.router.epoch == 7
    await started.manager.commit(Delete(PATHS.nodes))
    await started.publish(replace(SERVING, epoch=4))
    await started.acknowledged(4)


async def test_the_lease_ends_with_the_session_and_comes_back_with_the_next_registration(started: World) -> None:
    started.store.expire()
    assert not started.lease
    started.store.resume()
    await eventually(lambda: started.lease)
    await started.acknowledged(1)


async def test_the_lease_runs_out_while_the_store_is_cut_off(started: World) -> None:
    started.store.suspend()
    await eventually(lambda: not started.lease)
    assert started.log.events("lease_lapsed")


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
    monkeypatch.setattr(membership, "PATIENCE", 0.01)
    monkeypatch.setattr(MemStore, "trouble", "accepts and closes at once: its maxClientCnxns may be reached")
    world.store.suspend()
    await world.proxy.start("a:1")
    await eventually(lambda: world.log.events("waiting for ZooKeeper"))
    line = world.log.events("waiting for ZooKeeper")[0]
    assert line["why"] == "it accepts and closes at once: its maxClientCnxns may be reached"


async def test_the_number_of_clients_that_operators_read_is_kept_true(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "REFRESH", 0.0)
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
    monkeypatch.setattr(membership, "SAVE_TIMEOUT", 0.01)
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
    longest = 2 * world.store.session_timeout / membership.PROOFS
    assert waits[0] <= longest / 4
    assert all(longest * (1 - JITTER) - 1e-9 <= seconds <= longest + 1e-9 for seconds in waits[2:])
