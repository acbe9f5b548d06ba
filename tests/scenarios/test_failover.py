"""Failovers seen by unmodified clients: real Redis, real ZooKeeper, three managers, and redis-py without retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.load import Load
from bench.seen import Result
from rfprotocol.topology.topology import Phase, Topology
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer

CONNECTIONS = 16


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers, one proxy."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path) as site:
        yield site


async def start(site: Installation) -> Load:
    load = Load(port=site.ports[0], connections=CONNECTIONS, rate=800.0)
    await asyncio.to_thread(load.start)
    await progress(load)
    return load


async def progress(load: Load, operations: int = 10 * CONNECTIONS) -> None:
    """Return when the clients have had so many more successes."""
    before = len(load.result().operations)
    while len(load.result().operations) < before + operations:  # noqa: ASYNC110 - threads of a load have no event
        await asyncio.sleep(0.01)


async def stop(load: Load) -> Result:
    return await asyncio.to_thread(load.stop)


async def kill_master(site: Installation, topology: Topology) -> Topology:
    """SIGKILL; returns the topology of the next master."""
    site.server_of(topology).kill()
    return await site.serving(lambda later: later.epoch > topology.epoch)


async def revive(site: Installation, server: RedisServer) -> None:
    """Start a killed server again, and wait until it is a replica that may be read."""
    server.restart()
    await site.serving(lambda topology: server.node in topology.replicas)


async def test_a_killed_master_costs_no_read_and_at_most_the_writes_in_flight_twice_in_a_row(
    site: Installation,
) -> None:
    load = await start(site)
    first = await site.serving()
    second = await kill_master(site, first)
    await progress(load)
    await revive(site, site.server_of(first))
    third = await kill_master(site, second)
    await progress(load)
    await revive(site, site.server_of(second))
    result = await stop(load)

    errors = result.errors
    assert not [key for key in errors if key[0] == "GET"], "a read was lost"
    assert {error for _, error in errors} <= {"UNCERTAIN"}
    assert sum(errors.values()) <= 2 * CONNECTIONS
    assert result.ledger is not None
    assert result.ledger.doubled == 0
    assert len({first.master, second.master, third.master}) >= 2
    receipts = await site.receipts()
    assert [receipt.outcome.value for receipt in receipts][-2:] == ["done", "done"]
    assert [receipt.master for receipt in receipts][-2:] == [second.master, third.master]


async def test_a_planned_switchover_costs_nothing(site: Installation) -> None:
    load = await start(site)
    for _ in range(2):
        before = await site.serving(lambda topology: len(topology.replicas) == 2)
        done = await site.command("failover")
        assert done.returncode == 0, done.stderr
        after = await site.serving()
        assert after.epoch > before.epoch
        assert after.master != before.master
        await progress(load)
    result = await stop(load)
    assert result.errors == {}
    assert result.ledger is not None
    assert (result.ledger.lost, result.ledger.uncertain, result.ledger.doubled) == (0, 0, 0)


async def test_a_switchover_to_a_named_server_goes_there(site: Installation) -> None:
    target = site.group.replicas[1].node
    done = await site.command("failover", "--to", str(target))
    assert done.returncode == 0, done.stderr
    assert (await site.serving()).master == target


async def test_a_switchover_to_nowhere_is_refused_with_the_reason(site: Installation) -> None:
    done = await site.command("failover", "--to", "127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stdout + done.stderr
    assert (await site.serving()).master == site.group.master.node


FAILPOINTS = ["after-fence", "after-seal", "after-mark", "after-promote", "before-publish", "after-publish"]


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_a_primary_manager_killed_in_the_middle_of_a_failover_is_succeeded(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path, failpoint: str
) -> None:
    site = Installation(redis_group, zookeeper_hosts, tmp_path, managers=0)
    doomed = site.manager({"RF_FAILPOINT": failpoint})
    site.manager()
    site.manager()
    async with site:
        assert await site.primary() is doomed
        load = await start(site)
        before = await site.serving()
        site.server_of(before).kill()
        await asyncio.to_thread(doomed.wait, 60.0)
        after = await site.serving(lambda topology: topology.epoch > before.epoch and topology.phase is Phase.SERVING)
        await site.serving(lambda topology: len(topology.replicas) == 1)
        await progress(load)
        result = await stop(load)
        assert after.master != before.master
        assert {error for _, error in result.errors} <= {"UNCERTAIN"}
        assert not [key for key in result.errors if key[0] == "GET"]
        roles = [server.info()["role"] for server in site.group.servers if server.alive]
        assert sorted(roles) == ["master", "slave"]


async def test_failover__min_replicas_to_write__no_writer_is_refused(zookeeper_hosts: str, tmp_path: Path) -> None:
    """A new master refuses writes until a replica has reached it (-NOREPLICAS): the proxy waits for that."""
    with RedisGroup(3, min_replicas_to_write=1) as group:
        async with Installation(group, zookeeper_hosts, tmp_path) as site:
            load = await start(site)
            await kill_master(site, await site.serving())
            await progress(load)
            result = await stop(load)
    assert {error for _, error in result.errors} <= {"UNCERTAIN"}
    assert sum(result.errors.values()) <= CONNECTIONS
    assert result.ledger is not None
    assert result.ledger.doubled == 0
