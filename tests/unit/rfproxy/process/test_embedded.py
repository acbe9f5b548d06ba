"""The embedded mode: one process that finds the master, fails over, and hides it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr
from structlog.testing import capture_logs

from rfprotocol.embedded.record_file import TreeFile
from rfprotocol.errors import ConfigError
from rfprotocol.store.interface import Change, Delete, Entry, Put
from rfprotocol.store.memory import TreeState
from rfprotocol.topology.records import ManualRequest
from rfprotocol.topology.topology import Node, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from rfproxy.core.policy import Policy
from rfproxy.process import embedded as module
from rfproxy.process.embedded import embedded
from rfproxy.process.listen_sockets import address_of, open_sockets
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.registration import Membership
from rfproxy.runtime.server import Server
from rfproxy.settings import ProxyConfig
from tests.support.playbook import SilentLog
from tests.support.redis import RedisGroup


@pytest.fixture
async def address(redis_group: RedisGroup) -> AsyncIterator[Node]:
    """Where the proxy listens."""
    config = ProxyConfig(nodes=redis_group.nodes, state_dir=redis_group.folder / "state")
    async with embedded(config) as (store, _):
        server = Server(Policy(), limits=Limits(clients=100), log=SilentLog())
        membership = Membership(server, store, Paths(config.znode_path), "me", None)
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


PATHS = Paths()
WITHDRAWN = Put(PATHS.nodes, Topology(2, Phase.FENCING, unavailable=(Node("a", 1),)).encode(), 0)
PUBLISHED = Put(PATHS.nodes, Topology(3, Phase.SERVING, Node("a", 1)).encode(), 1)
NOTED = Put(PATHS.last_known, b"{}", 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([WITHDRAWN], True),
        ([WITHDRAWN, NOTED], True),
        ([NOTED], True),
        ([PUBLISHED], False),
        ([PUBLISHED, NOTED], False),
        ([WITHDRAWN, Put(PATHS.receipt(2), b"{}")], False),
        ([WITHDRAWN, Delete(PATHS.manual_failover, 0)], False),
        ([Put(PATHS.manual_failover, ManualRequest(None).encode())], False),
        ([Put(PATHS.paused, b"")], False),
        ([Delete(PATHS.nodes)], False),
        ([Put(PATHS.nodes, b"not to be read")], False),
    ],
)
def test_change__forgotten__is_one_that_is_made_again(changes: list[Change], expected: bool) -> None:
    assert module._may_be_forgotten(PATHS, tuple(changes)) is expected


async def test_state_directory__its_process_is_about_to_leave__is_waited_for(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    claim = TreeFile(tmp_path).claim()
    assert claim is not None
    asyncio.get_running_loop().call_later(0.1, os.close, claim)
    async with embedded(ProxyConfig(nodes=redis_group.nodes, state_dir=tmp_path)):
        assert TreeFile(tmp_path).claim() is None


async def test_state_directory__of_another_process__is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVING", 0.1)
    claim = TreeFile(tmp_path).claim()
    assert claim is not None
    with pytest.raises(ConfigError, match="another rfproxy in embedded mode uses"):
        async with embedded(ProxyConfig(nodes=(Node("a", 1),), state_dir=tmp_path)):
            pass
    os.close(claim)
    assert os.listdir(tmp_path) == ["embedded.lock"]


async def test_socket__cannot_be_made__is_named_and_clients_are_served(redis_group: RedisGroup, tmp_path: Path) -> None:
    (tmp_path / "rfmanager.sock" / "in the way").mkdir(parents=True)
    with capture_logs() as lines:
        async with embedded(ProxyConfig(nodes=redis_group.nodes, state_dir=tmp_path)) as (store, _):
            await store.start()
            assert await store.read_children("/") is not None
            await store.close()
    assert [line["error"] for line in lines if line["event"] == "operators_not_served"] == [
        "rfmanager's commands do not reach it: Is a directory"
    ]


async def test_end__leaves_the_record_and_no_socket(redis_group: RedisGroup, tmp_path: Path) -> None:
    config = ProxyConfig(nodes=redis_group.nodes, state_dir=tmp_path)
    async with embedded(config) as (store, _):
        found = asyncio.Event()
        store.watch(PATHS.nodes, found.set)
        await store.start()
        while await store.read(PATHS.nodes) is None:
            found.clear()
            await found.wait()
        assert "rfmanager.sock" in os.listdir(tmp_path)
        await store.close()
    assert sorted(os.listdir(tmp_path)) == ["embedded.json", "embedded.lock"]
    state = module.recall(config)
    assert state is not None
    assert Topology.decode(state.records[PATHS.nodes].data).master == redis_group.master.node


def test_record__a_server_is_added_or_removed__is_still_the_groups(tmp_path: Path) -> None:
    topology = Topology(3, Phase.SERVING, Node("a", 1), (Node("b", 1),))
    records = {PATHS.root: Entry(b"", 0, 1, 0), PATHS.nodes: Entry(topology.encode(), 0, 2, 0)}
    TreeFile(tmp_path).save(TreeState(2, records))
    for nodes in ((Node("a", 1), Node("b", 1), Node("new", 1)), (Node("b", 1),)):
        assert module.recall(ProxyConfig(nodes=nodes, state_dir=tmp_path)) == TreeState(2, records)
    with pytest.raises(ConfigError, match=r"is about other servers \(a:1, b:1\)"):
        module.recall(ProxyConfig(nodes=(Node("new", 1),), state_dir=tmp_path))


async def test_reloaded_with_a_password_that_no_server_knows_yet__the_manager_says_the_former_one(
    tmp_path: Path,
) -> None:
    with RedisGroup(2, requirepass="former", masterauth="former") as group:
        config = ProxyConfig(nodes=group.nodes, password=SecretStr("new"), state_dir=tmp_path)
        async with embedded(config, former=("", "former")) as (store, _):
            await store.start()
            topology = None
            while topology is None or topology.master is None or not topology.replicas:
                entry = await store.read(Paths(config.znode_path).nodes)
                topology = Topology.decode(entry.data) if entry else None
                await asyncio.sleep(0.01)
            assert topology.master == group.master.node
            await store.close()
