"""A rolling upgrade under load, server by server: replicas first, then a switchover, then the former master."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from bench.load import Load
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Topology
from tests.scenarios.faults.trial import Findings, Trial
from tests.scenarios.faults.users import Users
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer
from tests.support.servers import Server, only

OLD, NEW = "Redis 7.0", "Redis 8"
MATRIX = (pytest.mark.elaborate,)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        only(OLD, NEW),
        only(OLD, "Valkey 8", marks=MATRIX),
        only(OLD, "Valkey 9", marks=MATRIX),
        only("Valkey 8", "Valkey 9", marks=MATRIX),
    ],
)
async def test_upgrade__server_by_server_under_load__no_error_and_nothing_lost(
    old: Server, new: Server, zookeeper_hosts: str, tmp_path: Path, record_property: Findings
) -> None:
    """What is told by clients of every kind: a history, users of scripts and transactions, and durable writers."""
    with RedisGroup(3, program=old.program, appendonly="yes") as group:
        site = Installation(group, zookeeper_hosts, tmp_path, proxies=2)
        trial = Trial(site, record_property)
        site.proxy("--write-safety", "durable")
        site.unhurried()
        async with trial:
            users = Users(trial.client)
            load = Load(port=site.ports[-1], connections=8, rate=400.0)
            await asyncio.to_thread(load.start)
            async with users.at_work():
                for replica in group.replicas:
                    await _upgrade(site, replica, new)
                    await users.progress()
                await _switch_over(site, group.replicas[0])
                await users.progress()
                await _upgrade(site, group.master, new)
                await users.progress()
                await _switch_over(site, group.master)
                await users.progress()
            result = await asyncio.to_thread(load.stop)
            assert [receipt.outcome for receipt in await site.receipts()] == [Outcome.DONE] * 2
        assert trial.uncertain() == []
        assert {_version(server) for server in group.servers} == {new.version}
    assert result.errors == {}
    assert result.ledger is not None
    assert (result.ledger.lost, result.ledger.uncertain, result.ledger.doubled) == (0, 0, 0)
    assert len(result.operations) > 100


@pytest.mark.elaborate
@pytest.mark.parametrize(("old", "new"), [only(OLD, NEW), only(OLD, "Valkey 9")])
async def test_upgrade__old_server_has_to_copy_from_a_new_one__is_not_read_until_it_is_upgraded(
    old: Server, new: Server, zookeeper_hosts: str, tmp_path: Path
) -> None:
    """It cannot read the new format, and stays empty: managers and proxies do without it."""
    with RedisGroup(3, program=old.program) as group:
        async with Installation(group, zookeeper_hosts, tmp_path) as site:
            for replica in group.replicas:
                await _upgrade(site, replica, new)
            await _switch_over(site, group.replicas[0])
            async with aioredis.Redis(port=site.ports[0], decode_responses=True) as client:
                await client.set("k", "v")
                group.master.restart()
                await eventually(lambda: "format version" in group.master.process.last_words())
                topology = await site.serving(lambda topology: group.master.node not in topology.replicas)
                assert topology.master == group.replicas[0].node
                assert {await client.get("k") for _ in range(50)} == {"v"}
                await _upgrade(site, group.master, new)
                assert group.master.command("GET", "k") == "v"


async def _upgrade(site: Installation, server: RedisServer, new: Server) -> None:
    """As an operator does it: stop, install, start; the next one when this one may be read again."""
    await asyncio.to_thread(server.stop)
    await site.serving(lambda topology: server.node not in topology.replicas)
    server.upgrade(new.program)
    server.restart()
    await site.serving(_whole)


async def _switch_over(site: Installation, to: RedisServer) -> None:
    """The former master follows the new one."""
    done = await site.command("failover", "--to", str(to.node))
    assert done.returncode == 0, done.stderr
    await site.serving(lambda topology: topology.master == to.node and _whole(topology))


def _whole(topology: Topology) -> bool:
    return len(topology.replicas) == 2


def _version(server: RedisServer) -> str:
    info = server.info("server")
    return str(info.get("valkey_version", info["redis_version"]))
