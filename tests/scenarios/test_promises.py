"""What a client was promised by one server, the group keeps: scripts, keys that are read, notifications, versions."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis

from deploy.processes import Process
from rfprotocol.store.interface import Entry
from rfprotocol.topology.topology import ManagerReport, Topology
from tests.support.embedded import EmbeddedProxy
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer
from tests.support.servers import Server, only

BODY = "return redis.call('INCR', KEYS[1])"
HOT = 300
COLD = 9000
VALUE = "x" * 1000


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers, two proxies."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2) as site:
        yield site


def client_of(site: Installation, proxy: int) -> Any:
    return aioredis.Redis(port=site.ports[proxy], decode_responses=True)


async def fail_over(site: Installation, before: Topology) -> Topology:
    """The master is killed; returns when there is another one."""
    site.server_of(before).kill()
    return await site.serving(lambda topology: topology.epoch > before.epoch)


def knows(server: RedisServer, digest: str) -> bool:
    return bool(server.command("SCRIPT", "EXISTS", digest)[0])


async def have(servers: list[RedisServer], digest: str) -> None:
    """Return when these servers know the script."""
    for server in servers:
        await eventually(partial(knows, server, digest))


async def lose_all(site: Installation, replica: RedisServer) -> None:
    """A replica is killed and started again, empty; returns when it is read from again."""
    replica.kill()
    await site.serving(lambda topology: replica.node not in topology.replicas)
    replica.restart()
    await site.serving(lambda topology: replica.node in topology.replicas)


async def reload(proxy: Process) -> None:
    """Returns when all workers are new ones."""
    before = set(proxy.workers)
    proxy.signal(signal.SIGHUP)
    await eventually(lambda: proxy.workers and not before & set(proxy.workers))


# --- scripts


async def test_script__loaded_through_one_proxy__known_through_the_other_after_a_failover(site: Installation) -> None:
    async with client_of(site, 0) as here, client_of(site, 1) as there:
        digest = await here.script_load(BODY)
        await have(site.group.replicas, digest)
        await fail_over(site, await site.serving())
        assert await there.evalsha(digest, 1, "n") == 1
        pipe = there.pipeline(transaction=True)
        assert await pipe.incr("n").evalsha(digest, 1, "n").execute() == [2, 3]


async def test_script__replica_started_again_empty_and_promoted__known(site: Installation) -> None:
    first, second = site.group.replicas
    async with client_of(site, 0) as here, client_of(site, 1) as there:
        digest = await here.script_load(BODY)
        await have(site.group.replicas, digest)
        before = await site.serving()
        for replica in (first, second):
            await lose_all(site, replica)
        await have(site.group.replicas, digest)
        await fail_over(site, before)
        assert await there.evalsha(digest, 1, "n") == 1


async def test_script__after_reloads_and_a_replica_that_lost_it__known(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    """The workers that have seen it are gone; those that came after them have been told."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path, workers=2) as site:
        (proxy,) = site.proxies.values()
        async with client_of(site, 0) as client:
            digest = await client.script_load(BODY)
        await have(redis_group.replicas, digest)
        for _ in range(2):
            await reload(proxy)
        before = await site.serving()
        for replica in redis_group.replicas:
            await lose_all(site, replica)
        await have(redis_group.replicas, digest)
        await fail_over(site, before)
        async with client_of(site, 0) as client:
            assert await client.evalsha(digest, 1, "n") == 1


async def test_script__flushed__unknown_everywhere(site: Installation) -> None:
    async with client_of(site, 0) as here, client_of(site, 1) as there:
        digest = await here.script_load(BODY)
        await have(site.group.replicas, digest)
        await here.script_flush()
        await eventually(lambda: not any(knows(replica, digest) for replica in site.group.replicas))
        await fail_over(site, await site.serving())
        with pytest.raises(redis.exceptions.NoScriptError):
            await there.evalsha(digest, 1, "n")


async def test_scripts__loaded_right_after_a_flush_at_another_worker__known_to_all_replicas(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    async with Installation(redis_group, zookeeper_hosts, tmp_path, workers=2) as site, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(site, 0)) for _ in range(8)]
        for turn in range(3):
            await clients[0].script_flush()
            digests = [await client.script_load(f"return {turn} + {n}") for n, client in enumerate(clients)]
            for digest in digests:
                await have(redis_group.replicas, digest)
        await fail_over(site, await site.serving())
        for digest in digests:
            for client in clients:
                await client.evalsha(digest, 0)


async def test_scripts__another_one_with_each_call__replicas_get_a_bounded_number(site: Installation) -> None:
    async with client_of(site, 0) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(2000):
            pipe.eval(f"return {number}", 0)
        assert len(await pipe.execute()) == 2000
        digest = await client.script_load(BODY)
        await have(site.group.replicas, digest)
    for replica in site.group.replicas:
        assert int(replica.info("memory")["number_of_cached_scripts"]) <= 501


# --- reads that count


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu"])
def test_keys__read_on_replicas__survive_at_a_master_that_evicts(policy: str, tmp_path: Path) -> None:
    with RedisGroup(2, maxmemory="6mb", maxmemory_policy=policy) as group, EmbeddedProxy(group, tmp_path) as proxy:
        with redis.Redis(port=proxy.address.port) as client, redis.Redis(port=proxy.address.port) as reader:
            written = client.pipeline(transaction=False)
            for number in range(HOT):
                written.set(f"hot{number}", VALUE)
            written.execute()
            read = reader.pipeline(transaction=False)
            for packet in range(60):
                for number in range(HOT):
                    read.get(f"hot{number}")
                read.execute()
                for number in range(COLD // 60):
                    written.set(f"cold{packet}-{number}", VALUE)
                written.execute()
                time.sleep(0.1)  # LRU clocks are in seconds: the trial is as long as it is
        evicted = int(group.master.info("stats")["evicted_keys"])
        with group.master.client() as master:
            survived = sum(master.exists(f"hot{number}") for number in range(HOT))
    assert evicted > COLD / 3, "there was no pressure"
    assert survived > HOT / 2, "as of keys that nobody reads: without the proxy's word next to none survive"


# --- settings


@pytest.mark.parametrize("planned", [True, False])
async def test_notifications__switched_on_through_the_proxy__hold_after_a_change(
    site: Installation, planned: bool
) -> None:
    async with client_of(site, 0) as client:
        await client.config_set("notify-keyspace-events", "Ex")
        await all_report(site, site.group.master, "xE")
        before = await site.serving()
        if planned:
            assert (await site.command("failover")).returncode == 0
            after = await site.serving()
        else:
            after = await fail_over(site, before)
        assert after.master != before.master
        events = client.pubsub(ignore_subscribe_messages=True)
        await events.psubscribe("__keyevent@*__:expired")
        await events.get_message(timeout=1.0)
        await client.set("k", "v", px=1)
        message = await eventually_message(events)
        assert (message["channel"], message["data"]) == ("__keyevent@0__:expired", "k")


async def all_report(site: Installation, server: RedisServer, events: str) -> None:
    """Return when all managers have seen this setting."""

    def seen(entries: Mapping[str, Entry]) -> bool:
        reports = [ManagerReport.decode(name, entry.data) for name, entry in entries.items()]
        found = [node.events for report in reports for node in report.nodes if node.node == server.node]
        return found == [events] * len(site.managers)

    await site.children(site.paths.managers, seen)


async def eventually_message(events: Any) -> dict[str, Any]:
    while (message := await events.get_message(timeout=5.0)) is None:
        pass
    return dict(message)


# --- versions

UPGRADES = [only("Redis 7.0", "Redis 8"), only("Redis 7.0", "Valkey 9")]


def mixed(group: RedisGroup, new: Server) -> tuple[RedisServer, RedisServer]:
    """The first replica is of a newer version now; returns it and the other one."""
    newer, older = group.replicas
    newer.upgrade(new.program)
    newer.restart()
    newer.command("REPLICAOF", group.master.bind, group.master.port)
    group.wait_in_sync()
    return newer, older


@pytest.mark.parametrize(("old", "new"), UPGRADES)
async def test_switchover__to_a_newer_server__is_warned_of_and_explained(
    old: Server, new: Server, zookeeper_hosts: str, tmp_path: Path
) -> None:
    with RedisGroup(3, program=old.program) as group:
        newer, older = mixed(group, new)
        async with Installation(group, zookeeper_hosts, tmp_path) as site:
            shown = (await site.command("status")).stdout
            assert "VERSION" in shown
            assert old.version in shown
            assert new.version in shown
            done = await site.command("failover", "--to", str(newer.node))
            assert done.returncode == 0, done.stderr
            assert f"warning: cannot copy from {newer.node}" in done.stderr
            assert f"{older.node} (Redis {old.version})" in done.stdout, "the receipt says so, too"
            older.restart()
            expected = "its master is probably too new to copy from"
            await eventually(lambda: expected in site.manage("status").stdout)


@pytest.mark.parametrize(("old", "new"), UPGRADES)
async def test_switchover__to_any_replica__prefers_one_that_the_others_can_copy(
    old: Server, new: Server, zookeeper_hosts: str, tmp_path: Path
) -> None:
    with RedisGroup(3, program=old.program) as group:
        _, older = mixed(group, new)
        async with Installation(group, zookeeper_hosts, tmp_path) as site:
            done = await site.command("failover")
            assert done.returncode == 0, done.stderr
            assert (await site.serving()).master == older.node
            assert "warning" not in done.stdout + done.stderr
