"""ZooKeeper away: at the start, in the middle, and with a record that nobody can read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from deploy.processes import Process
from rfprotocol.store.interface import Put
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers and two proxies, all on one host."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2) as site:
        yield site


def client(site: Installation, proxy: int = 0) -> aioredis.Redis:
    return aioredis.Redis(port=site.ports[proxy], single_connection_client=True)


async def said(site: Installation, process: Process, text: str) -> None:
    """Return when a process has logged something that contains `text`."""
    await eventually(lambda: any(text in json.dumps(line) for line in site.log(process)))


async def test_without_zookeeper_reads_go_on_writes_wait_and_all_heals(redis_group: RedisGroup, tmp_path: Path) -> None:
    (tmp_path / "zk").mkdir()
    with ZooKeeperServer(tmp_path / "zk") as zookeeper:
        async with Installation(redis_group, zookeeper.hosts, tmp_path) as site:
            async with client(site) as reader, client(site) as writer:
                await writer.set("k", "before")
                redis_group.wait_in_sync()
                await asyncio.to_thread(zookeeper.kill)
                await said(site, site.processes[-1], "lease_lapsed")
                waiting = asyncio.ensure_future(writer.incr("n"))
                assert await reader.get("k") == b"before"
                assert not waiting.done()
                await asyncio.to_thread(zookeeper.start)
                assert await waiting == 1
            assert (await site.serving()).epoch == 1, "an absence of ZooKeeper is no reason for a failover"


async def test_programs_started_before_zookeeper_wait_and_say_so(redis_group: RedisGroup, tmp_path: Path) -> None:
    (tmp_path / "zk").mkdir()
    zookeeper = ZooKeeperServer(tmp_path / "zk")
    site = Installation(redis_group, zookeeper.hosts, tmp_path, managers=2)
    processes = site.processes
    try:
        for process in processes:
            process.start()
        for process in processes:
            await said(site, process, "waiting for ZooKeeper")
            assert process.alive
        await asyncio.to_thread(zookeeper.start)
        async with client(site) as user:
            assert await user.incr("n") == 1
    finally:
        for process in processes:
            process.kill()
        zookeeper.stop()


async def test_a_proxy_starts_from_the_servers_it_knew_and_serves_reads(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    (tmp_path / "zk").mkdir()
    with ZooKeeperServer(tmp_path / "zk") as zookeeper:
        async with Installation(redis_group, zookeeper.hosts, tmp_path) as site:
            async with client(site) as user:
                await user.set("k", "v")
            redis_group.wait_in_sync()
            await asyncio.to_thread(zookeeper.kill)
            site.processes[-1].kill()
            site.processes[-1].start()
            await said(site, site.processes[-1], "topology_from_cache")
            async with client(site) as user:
                assert await user.get("k") == b"v"


async def test_a_record_that_nobody_can_read_is_said_and_kept_and_the_last_good_one_stays_in_force(
    site: Installation,
) -> None:
    entry = await site.store.read(site.paths.nodes)
    assert entry is not None
    bad_records = {b"{broken": "is not JSON", b'{"format": 2, "master": "other:1"}': "has format 2"}
    for bad, problem in bad_records.items():
        now = await site.store.read(site.paths.nodes)
        assert now is not None
        await site.store.commit(Put(site.paths.nodes, bad, now.version))
        await asyncio.gather(*(said(site, process, problem) for process in site.proxies.values()))
        async with client(site) as user:
            assert await user.incr("n")
        kept = await site.store.read(site.paths.nodes)
        assert kept is not None
        assert kept.data == bad
        assert "unreadable" in (await site.command("status")).stdout
    now = await site.store.read(site.paths.nodes)
    assert now is not None
    await site.store.commit(Put(site.paths.nodes, entry.data, now.version))
    done = await site.command("failover")
    assert done.returncode == 0, done.stderr


async def test_two_proxies_on_one_host_serve_the_same_group_through_a_switchover(site: Installation) -> None:
    async with client(site, 0) as first, client(site, 1) as second:
        assert await first.incr("n") == 1
        assert (await site.command("failover")).returncode == 0
        assert await second.incr("n") == 2
        assert await first.incr("n") == 3


async def test_pausing_keeps_the_managers_hands_off_until_they_may_again(site: Installation) -> None:
    assert (await site.command("pause")).returncode == 0
    refused = await site.command("failover")
    assert refused.returncode == 1
    assert "paused" in refused.stdout + refused.stderr
    before = await site.serving()
    assert (await site.command("resume")).returncode == 0
    assert (await site.command("failover")).returncode == 0
    assert (await site.serving()).master != before.master


async def test_answers_that_are_no_deaths_are_told_in_status_and_change_nothing(site: Installation) -> None:
    replica = site.group.replicas[0]
    with replica.client() as operator:
        operator.config_set("requirepass", "secret")
        operator.client_kill_filter(_type="normal", skipme=True)
    text = ""
    while "noauth" not in text.lower():
        text = (await site.command("status")).stdout
    topology = await site.serving()
    assert topology.epoch == 1
    assert topology.master == site.group.master.node
