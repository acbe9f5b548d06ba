"""Groups that come back: in whatever order servers were stopped and start again, none that lacks writes leads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import permutations
from typing import Any

import pytest
import redis

from rfmanager.operator import operations
from rfmanager.operator.snapshot import Snapshot
from rfprotocol.topology.topology import Phase, Topology
from tests.support.eventually import eventually
from tests.support.managers import PATHS, Site, site
from tests.support.redis import RedisGroup, RedisServer
from tests.support.stores import Changes

PERSISTENCE: dict[str, dict[str, Any]] = {
    "rdb": {"shutdown_timeout": 0, "save": '"3600 1000000"'},  # saves when it is stopped by SIGTERM
    "aof": {"shutdown_timeout": 0, "save": '""', "appendonly": "yes", "appendfsync": "always"},
}
LATE = {f"late:{number}": str(number) for number in range(200)}


@pytest.fixture(params=PERSISTENCE)
def group(request: pytest.FixtureRequest) -> Iterator[RedisGroup]:
    with RedisGroup(3, **PERSISTENCE[request.param]) as group:
        yield group


@pytest.fixture
async def place(group: RedisGroup) -> AsyncIterator[Site]:
    async with site(group) as place:
        yield place


async def known(place: Site, *linked: bool) -> None:
    """Return when the managers have written down which replicas have a link."""

    async def written() -> bool:
        snapshot = await operations.status(place.store, PATHS)
        if snapshot.known is None:
            return False
        members = [snapshot.known.members.get(server.node) for server in place.group.replicas]
        return [member is not None and member.linked for member in members] == list(linked)

    changes = Changes(place.store, PATHS.last_known)
    while not await written():
        await changes.next()
    changes.end()


async def status(place: Site) -> Snapshot:
    return await operations.status(place.store, PATHS)


def has_all(server: RedisServer) -> bool:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        return bool(client.mget(LATE) == list(LATE.values()))


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_group__replicas_stopped_before_the_last_writes__comes_back_with_these_writes(
    place: Site, order: tuple[int, ...]
) -> None:
    await place.manager()
    await place.until(lambda topology: len(topology.replicas) == 2)
    await known(place, True, True)
    for replica in place.group.replicas:
        await asyncio.to_thread(replica.stop)
    await known(place, False, False)
    with place.group.master.client() as client:
        client.mset(LATE)
    await asyncio.to_thread(place.group.master.stop)
    await place.until(lambda topology: topology.phase is Phase.FENCING)
    for number in order:
        await asyncio.to_thread(place.group.servers[number].restart)
    await serves_again(place)


@pytest.mark.parametrize("order", [(1, 2, 0), (1, 0, 2), (0, 1, 2)], ids=str)
async def test_group__managers_stopped_before_all_servers__comes_back_with_the_last_writes(
    place: Site, order: tuple[int, ...]
) -> None:
    first = await place.manager()
    await known(place, True, True)
    await first.stop()
    for replica in place.group.replicas:
        await asyncio.to_thread(replica.stop)
    with place.group.master.client() as client:
        client.mset(LATE)
    await asyncio.to_thread(place.group.master.stop)
    await asyncio.to_thread(place.group.servers[order[0]].restart)
    await place.manager()
    await place.until(lambda topology: topology.phase is Phase.FENCING)
    for number in order[1:]:
        await asyncio.to_thread(place.group.servers[number].restart)
    await serves_again(place)


async def test_group__only_a_replica_that_was_left_behind_is_up__status_says_what_it_lacks_and_an_operator_decides(
    place: Site,
) -> None:
    await place.manager()
    await known(place, True, True)
    left_behind = place.group.replicas[0]
    for replica in place.group.replicas:
        await asyncio.to_thread(replica.stop)
    await known(place, False, False)
    with place.group.master.client() as client:
        client.mset(LATE)
    await asyncio.to_thread(place.group.master.stop)
    await place.until(lambda topology: topology.phase is Phase.FENCING)
    await asyncio.to_thread(left_behind.restart)
    await eventually(lambda: left_behind.info()["role"] == "slave")
    receipt = await operations.failover(place.store, PATHS, left_behind.node, 30.0)
    assert receipt.master == left_behind.node
    assert "although" in receipt.cause


async def test_group__killed_in_the_same_order__comes_back_with_what_the_master_has_on_its_disk(place: Site) -> None:
    await place.manager()
    await known(place, True, True)
    for replica in place.group.replicas:
        replica.command("SAVE")
        replica.kill()
    await known(place, False, False)
    with place.group.master.client() as client:
        client.mset(LATE)
        client.save()
    place.group.master.kill()
    await place.until(lambda topology: topology.phase is Phase.FENCING)
    for server in (*place.group.replicas, place.group.master):
        await asyncio.to_thread(server.restart)
    await serves_again(place)


async def test_group__nothing_is_on_any_disk__no_server_is_promoted_before_an_operator_names_it(
    redis_group: RedisGroup,
) -> None:
    async with site(redis_group) as place:
        await place.manager()
        await known(place, True, True)
        for server in (*place.group.replicas, place.group.master):
            server.kill()
        await place.until(lambda topology: topology.phase is Phase.FENCING)
        for server in place.group.servers:
            await asyncio.to_thread(server.restart)
        await eventually(lambda: all(server.info()["role"] == "slave" for server in place.group.servers))
        assert (await topology(place)).master is None
        await operations.failover(place.store, PATHS, place.group.master.node, 30.0)
        await place.until_serving(2)


async def serves_again(place: Site) -> None:
    """The group serves with all that it had; from an append-only file alone the managers cannot tell, and are told."""
    master = place.group.master
    if place.group.master.options["appendonly"] == "yes":
        await eventually(lambda: all(server.info()["role"] == "slave" for server in place.group.servers))
        assert (await topology(place)).master is None, "a server was promoted whose history is not known"
        await operations.failover(place.store, PATHS, master.node, 30.0)
    await place.until(lambda topology: topology.master is not None and len(topology.replicas) == 2)
    assert all(has_all(server) for server in place.group.servers)


async def topology(place: Site) -> Topology:
    found = (await status(place)).topology
    assert found is not None
    return found
