"""Servers that join, leave, or are named by mistake: their data is theirs until an operator says otherwise."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rfmanager.decision.plan import Policy
from rfmanager.operator import operations
from rfmanager.operator.rendering import status_text
from rfmanager.operator.snapshot import Snapshot
from rfprotocol.errors import OperationFailed
from rfprotocol.topology.topology import Node, Phase, Topology
from tests.support.eventually import eventually
from tests.support.managers import PATHS, Site, site
from tests.support.redis import RedisGroup, RedisServer


@pytest.fixture
async def place(redis_group: RedisGroup) -> AsyncIterator[Site]:
    async with site(redis_group) as place:
        yield place


@pytest.fixture
def others() -> Iterator[RedisGroup]:
    """Another living group, with data of its own."""
    with RedisGroup(2) as group:
        with group.master.client() as client:
            client.set("foreign", "precious")
            client.wait(1, 5000)
        yield group


def holds_its_own(group: RedisGroup) -> bool:
    return all(server.command("GET", "foreign") == "precious" for server in group.servers)


async def named(place: Site, *nodes: Node) -> Snapshot:
    """A manager is configured with other servers, too; the state of the group when all were looked at."""
    await place.manager(nodes=(*place.group.nodes, *nodes))
    changed = asyncio.Event()
    end = place.store.watch_each(PATHS.managers, lambda *_: changed.set())
    try:
        while True:
            changed.clear()
            snapshot = await operations.status(place.store, PATHS)
            if {report.node for report in snapshot.strangers} >= set(nodes):
                return snapshot
            await changed.wait()
    finally:
        end()


async def test_master_of_another_group__named_by_mistake__is_left_alone_with_its_replica(
    place: Site, others: RedisGroup
) -> None:
    await place.manager()
    await place.until_serving(2)
    snapshot = await named(place, others.master.node)
    text = status_text(snapshot)
    assert f"{others.master.node}: holds data of another history (1 keys" in text
    assert f"'rfmanager adopt {others.master.node}'" in text
    await place.managers[0].stop()  # the other one leads now
    receipt = await operations.failover(place.store, PATHS, None, 30.0)
    await place.until(lambda topology: topology.epoch >= receipt.epoch and len(topology.replicas) == 2)
    assert holds_its_own(others)
    assert others.master.info()["role"] == "master"
    assert others.master.info()["connected_slaves"] == 1


async def test_foreign_server__operator_adopts_it__becomes_a_replica(place: Site, others: RedisGroup) -> None:
    await place.manager()
    await place.until_serving(2)
    await named(place, others.master.node)
    await place.managers[0].stop()
    found = await operations.adopt(place.store, PATHS, others.master.node)
    assert found.keys == 1
    topology = await place.until_serving(3)
    assert others.master.node in topology.replicas
    assert others.master.command("GET", "foreign") is None
    assert await place.store.read(f"{PATHS.adopted}/{others.master.node}") is None, "it may be overwritten once more"


async def test_foreign_server__comes_up_at_the_address_of_a_replica__is_left_alone(place: Site) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    replica = place.group.replicas[0]
    replica.kill()
    await place.until(lambda topology: replica.node in topology.unavailable)
    leave_a_dump(place.group.folder / "foreign")
    with RedisServer(port=replica.port, folder=place.group.folder / "foreign") as foreign:
        await place.report(manager.daemon.name, lambda report: any(n.keys == 50 for n in report.nodes))
        await place.until_serving(1)
        snapshot = await operations.status(place.store, PATHS)
        assert [report.node for report in snapshot.strangers] == [replica.node]
        assert foreign.info()["role"] == "master"
        assert foreign.command("DBSIZE") == 50


def leave_a_dump(folder: Path) -> None:
    """Of a server that was never part of this group."""
    with RedisServer() as origin, origin.client() as client:
        client.mset({f"foreign:{number}": number for number in range(50)})
        client.save()
        folder.mkdir()
        shutil.copy(origin.folder / "dump.rdb", folder)


async def test_server__leaves_every_configuration__is_dropped_and_not_touched_any_more(place: Site) -> None:
    kept, left = place.group.nodes[:2], place.group.nodes[2]
    await place.manager()
    await place.until_serving(2)
    policy = Policy(membership_grace=0.3)
    await place.manager(nodes=kept, policy=policy)
    await place.managers[0].stop()
    await place.until(lambda topology: left not in topology.nodes)
    server = place.group[left]
    server.command("REPLICAOF", "NO", "ONE")
    server.command("SET", "foreign", "precious")
    receipt = await operations.failover(place.store, PATHS, None, 30.0)
    await place.until(lambda topology: topology.epoch >= receipt.epoch and len(topology.replicas) == 1)
    assert server.command("GET", "foreign") == "precious"
    assert server.info()["role"] == "master"


async def test_server__added_to_a_configuration__becomes_a_replica(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    with RedisServer() as new:
        await place.manager(nodes=(*place.group.nodes, new.node))
        topology = await place.until_serving(3)
        assert new.node in topology.replicas
        assert new.info()["master_port"] == place.group.master.port


async def test_replica__under_another_name_everywhere__old_name_is_dropped_and_data_stay(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    place.group.master.command("SET", "k", "v")
    old = place.group.replicas[0]
    new = Node("localhost", old.port)
    kept = tuple(node for node in place.group.nodes if node != old.node)
    await place.manager(nodes=(*kept, new), policy=Policy(membership_grace=0.3))
    run_id = old.info("server")["run_id"]
    await place.managers[0].stop()
    topology = await place.until(lambda topology: old.node not in topology.nodes and new in topology.replicas)
    assert topology.master == place.group.master.node
    assert old.command("GET", "k") == "v"
    assert old.info("server")["run_id"] == run_id


async def test_server__forgotten_by_an_operator__is_dropped_at_once(place: Site) -> None:
    kept, left = place.group.nodes[:2], place.group.nodes[2]
    await place.manager()
    await place.until_serving(2)
    with pytest.raises(OperationFailed, match="take it out of the configuration there first"):
        await operations.forget(place.store, PATHS, left)
    await place.manager(nodes=kept)
    await place.managers[0].stop()
    await operations.forget(place.store, PATHS, left)
    topology = await place.until_serving(1)
    assert left not in topology.nodes
    with pytest.raises(OperationFailed, match="there is nothing to forget"):
        await operations.forget(place.store, PATHS, left)


async def test_first_start__a_configured_server_is_down_and_nobody_follows_the_master__waits(place: Site) -> None:
    for replica in place.group.replicas:
        replica.kill()
    manager = await place.manager()
    await place.report(manager.daemon.name, lambda report: len(report.nodes) == 3)
    assert await place.topology() is None
    receipt = await operations.failover(place.store, PATHS, place.group.master.node, 30.0)
    assert receipt.master == place.group.master.node
    topology: Topology = await place.until(lambda topology: topology.phase is Phase.SERVING)
    assert set(topology.unavailable) == {replica.node for replica in place.group.replicas}
    await eventually(lambda: place.group.master.info()["role"] == "master")
