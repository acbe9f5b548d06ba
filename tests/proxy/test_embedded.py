"""The embedded mode: one process that finds the master, fails over, and hides it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr

from rfprotocol.paths import Paths
from rfprotocol.topology import Node, Topology
from rfproxy.cache import TopologyCache
from rfproxy.config import ProxyConfig
from rfproxy.embedded import Embedded
from rfproxy.limits import Limits
from rfproxy.listening import address_of, open_sockets
from rfproxy.membership import Membership
from rfproxy.policy import Policy
from rfproxy.server import Server
from tests.support.playbook import SilentLog
from tests.support.redis import RedisGroup


@pytest.fixture
async def address(redis_group: RedisGroup) -> AsyncIterator[Node]:
    """Where the proxy listens."""
    config = ProxyConfig(nodes=redis_group.nodes)
    async with Embedded(config) as store:
        server = Server(Policy(), limits=Limits(clients=100), log=SilentLog())
        cache = TopologyCache(redis_group.master.folder, "embedded")
        membership = Membership(server, store, Paths(config.znode_path), "me", cache)
        sockets = open_sockets(Node("127.0.0.1", 0))
        address = address_of(sockets[0])
        await server.listen(sockets)
        await membership.start(str(address))
        yield address
        await server.drain(5.0)
        await membership.stop()


async def test_a_killed_master_costs_its_clients_a_wait_and_no_connection(
    address: Node, redis_group: RedisGroup
) -> None:
    async with aioredis.Redis(host=address.host, port=address.port, single_connection_client=True) as client:
        for value in range(10):
            await client.set("k", value)
        redis_group.wait_in_sync()
        redis_group.master.kill()
        assert await client.get("k") == b"9"
        assert await client.set("k", "after")
        assert await client.get("k") in (b"9", b"after"), "a replica may be behind"


async def test_no_acknowledged_write_is_lost_when_the_replicas_had_it(address: Node, redis_group: RedisGroup) -> None:
    async with aioredis.Redis(host=address.host, port=address.port, single_connection_client=True) as client:
        assert [await client.incr("n") for _ in range(100)][-1] == 100
        assert await client.wait(2, 5000) == 2
        redis_group.master.kill()
        assert await client.incr("n") == 101


async def test_nobody_waits_when_nothing_happens(address: Node) -> None:
    async with aioredis.Redis(host=address.host, port=address.port) as client:
        assert await asyncio.gather(*(client.incr("n") for _ in range(20)))


async def test_reloaded_with_a_password_that_no_server_knows_yet__the_manager_says_the_former_one() -> None:
    with RedisGroup(2, requirepass="former", masterauth="former") as group:
        config = ProxyConfig(nodes=group.nodes, password=SecretStr("new"))
        async with Embedded(config, former=("", "former")) as store:
            await store.start()
            topology = None
            while topology is None or topology.master is None or not topology.replicas:
                entry = await store.read(Paths(config.znode_path).nodes)
                topology = Topology.decode(entry.data) if entry else None
                await asyncio.sleep(0.01)
            assert topology.master == group.master.node
            await store.close()
