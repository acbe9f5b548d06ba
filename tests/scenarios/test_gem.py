"""What Ruby's redis_failover (the gem) leaves behind, or does beside us, on the way to rfmanager: nothing is lost.

The stand-in of `tests/support/gem` plays the gem. Servers, ZooKeeper, managers and proxies are real.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deploy.processes import Process
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.eventually import eventually
from tests.support.gem import QUICK, GemClient
from tests.support.gemsite import Epochs, GemSite, gems_record
from tests.support.redis import RedisGroup, RedisServer
from tests.support.zookeeper import ZooKeeperServer

PATHS = Paths()
ON_DISK: dict[str, Any] = {"shutdown_timeout": 0, "save": '"3600 1000000"'}
"""What a server is stopped with, it has when it is started again."""
KEYS = {f"key:{number}": str(number) for number in range(1000)}
MORE = {f"more:{number}": str(number) for number in range(500)}
GRACE = 5.0
"""Seconds after which managers have done what they were about to do, for tests in which nothing must happen."""


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[GemSite]:
    """Two managers and a proxy, none of which runs."""
    async with GemSite(redis_group, zookeeper_hosts, tmp_path) as site:
        yield site


@pytest.fixture
def group_on_disk() -> Iterator[RedisGroup]:
    with RedisGroup(3, **ON_DISK) as group:
        yield group


@pytest.fixture
async def site_on_disk(group_on_disk: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[GemSite]:
    """As `site`, with servers that keep their data."""
    async with GemSite(group_on_disk, zookeeper_hosts, tmp_path) as site:
        yield site


def write(server: RedisServer, values: dict[str, str]) -> None:
    with server.client() as client:
        client.mset(values)


def size(server: RedisServer) -> int:
    return int(server.command("DBSIZE"))


def follow(replica: RedisServer, master: RedisServer) -> None:
    replica.command("REPLICAOF", master.node.host, master.node.port)


def forget_commands(server: RedisServer) -> None:
    server.command("CONFIG", "RESETSTAT")


def moved(server: RedisServer) -> bool:
    """Whether it was told since then whose replica it is."""
    return any(name in ("cmdstat_replicaof", "cmdstat_slaveof") for name in server.info("commandstats"))


async def all_have(site: GemSite, count: int) -> None:
    """Return when every server holds so many keys at least."""
    await eventually(lambda: all(size(server) >= count for server in site.group.servers))


# --- D1: the record is renewed


@pytest.fixture
def own_zookeeper(tmp_path: Path) -> Iterator[ZooKeeperServer]:
    (tmp_path / "zookeeper").mkdir()
    with ZooKeeperServer(tmp_path / "zookeeper") as server:
        yield server


async def long_after_the_last_change(site: GemSite) -> None:
    """So long that a client in safe mode asks ZooKeeper for each command, unless the record was renewed."""
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    await asyncio.sleep(10.5)  # there is nothing to await: what is examined is what happens when nothing does
    assert await site.serving() == before


async def test_gem_client__safe_mode_and_nothing_changes__its_reads_cost_zookeeper_nothing(
    redis_group: RedisGroup, own_zookeeper: ZooKeeperServer, tmp_path: Path
) -> None:
    async with GemSite(redis_group, own_zookeeper.hosts, tmp_path) as site:
        await site.start_managers()
        await site.serving()
        with GemClient(own_zookeeper.hosts) as client:
            await long_after_the_last_change(site)

            def read() -> int:
                before = own_zookeeper.received(client.session)
                for _ in range(2000):
                    client.command("GET", "k")
                return own_zookeeper.received(client.session) - before

            assert await asyncio.to_thread(read) < 50


async def test_gem_client__zookeeper_freezes_for_a_while__its_reads_go_on(
    redis_group: RedisGroup, own_zookeeper: ZooKeeperServer, tmp_path: Path
) -> None:
    async with GemSite(redis_group, own_zookeeper.hosts, tmp_path) as site:
        await site.start_managers()
        await site.serving()
        with GemClient(own_zookeeper.hosts) as client:
            await long_after_the_last_change(site)

            def read() -> float:
                longest, last, until = 0.0, time.monotonic(), time.monotonic() + 3.5
                while last < until:
                    client.command("GET", "k")
                    longest = max(longest, time.monotonic() - last)
                    last = time.monotonic()
                return longest

            own_zookeeper.freeze()
            try:
                longest = await asyncio.to_thread(read)
            finally:
                own_zookeeper.thaw()
            assert longest < 1.5, "a read has waited for ZooKeeper"


# --- D2: a manual_failover that the gem has obeyed long ago


async def test_request__left_by_the_gem_before_all_servers_went_down__is_refused_and_costs_no_data(
    site_on_disk: GemSite,
) -> None:
    site, servers = site_on_disk, site_on_disk.group.servers
    await site.start_gem()
    await site.serving()
    write(servers[0], KEYS)
    with GemClient(site.zookeeper) as client:
        client.manual_failover(str(servers[2].node))
        await site.serving(lambda topology: topology.master == servers[2].node and len(topology.replicas) == 2)
    await all_have(site, len(KEYS))
    await asyncio.to_thread(servers[2].stop)
    after = await site.serving(lambda topology: topology.master != servers[2].node and topology.replicas)
    master = site.server_of(after)
    write(master, MORE)
    others = [server for server in servers[:2] if server is not master]
    await eventually(lambda: all(size(server) == len(KEYS) + len(MORE) for server in others))
    for server in (*others, master):
        await asyncio.to_thread(server.stop)
    await site.until(lambda topology: topology.master is None)
    await site.stop_gems()
    for server in servers:
        await asyncio.to_thread(server.restart)

    await site.start_managers()
    await refused_and_removed(site)
    assert size(master) == len(KEYS) + len(MORE)
    assert not moved(master)
    named = await site.command("failover", "--to", str(master.node))
    assert named.returncode == 0, named.stderr
    # The server that the request named has data of its own by now: it is not overwritten before that is allowed.
    await eventually(lambda: any(site.times_said(manager, "left alone") for manager in site.managers))
    assert size(servers[2]) == len(KEYS)
    adopted = await site.command("adopt", str(servers[2].node))
    assert adopted.returncode == 0, adopted.stderr
    await all_have(site, len(KEYS) + len(MORE))


async def test_request__left_by_the_gem_and_no_record__is_refused_and_costs_no_data(site: GemSite) -> None:
    full, *empty = await three_masters(site)
    await site.put(PATHS.manual_failover, str(empty[1].node).encode())
    await site.start_managers()
    await refused_and_removed(site)
    await waits_and_keeps_the_data(site, full)


async def test_managers__no_request_and_several_masters__wait_and_keep_the_data(site: GemSite) -> None:
    full, *_ = await three_masters(site)
    await site.start_managers()
    await waits_and_keeps_the_data(site, full)


async def three_masters(site: GemSite) -> list[RedisServer]:
    """The first one has keys, the others were started empty; there is no record."""
    full, *others = site.group.servers
    for server in others:
        await asyncio.to_thread(server.restart)
    write(full, KEYS)
    forget_commands(full)
    return site.group.servers


async def refused_and_removed(site: GemSite) -> None:
    await site.gone(PATHS.manual_failover)
    receipt = await site.refusal()
    assert "before" in receipt.cause or "older" in receipt.cause or "left" in receipt.cause, receipt.cause
    status = await site.command("status")
    assert "under way" not in status.stdout


async def waits_and_keeps_the_data(site: GemSite, full: RedisServer) -> None:
    await eventually(lambda: any(site.times_said(manager, "several masters") for manager in site.managers))
    assert size(full) == len(KEYS)
    assert not moved(full)
    named = await site.command("failover", "--to", str(full.node))
    assert named.returncode == 0, named.stderr
    await all_have(site, len(KEYS))


# --- D3: the first start, with servers down


async def lone_empty_master(site: GemSite) -> tuple[RedisServer, RedisServer]:
    """There is no record. The server with the data is down, and so is a third; one is up, a master and empty."""
    full, lone, third = site.group.servers
    write(full, KEYS)
    for server in (third, lone, full):
        await asyncio.to_thread(server.stop)
    (lone.folder / "dump.rdb").unlink(missing_ok=True)
    await asyncio.to_thread(lone.restart)
    assert (size(lone), lone.info()["role"]) == (0, "master")
    return full, lone


async def test_first_start__a_lone_empty_master_and_others_down__nobody_is_adopted_before_they_are_up(
    site_on_disk: GemSite,
) -> None:
    site = site_on_disk
    full, _ = await lone_empty_master(site)
    await site.start_managers()
    await asyncio.sleep(GRACE)  # nothing must happen
    found = await site.has(PATHS.nodes)
    assert found is None or Topology.decode(found.data).master is None
    for server in (full, site.group.servers[2]):
        await asyncio.to_thread(server.restart)
    await eventually(lambda: any(site.times_said(manager, "several masters") for manager in site.managers))
    assert size(full) == len(KEYS)
    named = await site.command("failover", "--to", str(full.node))
    assert named.returncode == 0, named.stderr
    await all_have(site, len(KEYS))


async def test_first_start__a_lone_empty_master_that_an_operator_names__is_adopted(site_on_disk: GemSite) -> None:
    site = site_on_disk
    _, lone = await lone_empty_master(site)
    await site.start_managers()
    named = await site.command("failover", "--to", str(lone.node))
    assert named.returncode == 0, named.stderr
    assert (await site.serving()).master == lone.node


# --- D4: both kinds of managers


async def test_gem_manager__started_beside_ours__only_ours_act_and_epochs_go_on(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    async with GemSite(redis_group, zookeeper_hosts, tmp_path, managers=3) as site, Epochs(site) as epochs:
        await site.start_managers()
        before = await site.serving(lambda topology: len(topology.replicas) == 2)
        await site.start_proxies()
        gem = await site.start_gem(leads=False)
        async with site.client() as client:
            await client.set("k", "before")
            redis_group.wait_in_sync()
            redis_group.master.kill()
            await client.set("k", "after")
            after = await site.serving(lambda topology: topology.master != before.master and topology.replicas)
            await asyncio.sleep(8 * QUICK.nap * QUICK.max_failures + 2 * QUICK.interval)  # nor later
            assert await client.get("k") == "after"
            assert await client.incr("n") == 1
        assert (await site.serving()).master == after.master
        roles = [server.info()["role"] for server in redis_group.servers if server.alive]
        assert sorted(roles) == ["master", "slave"]
        assert [site.times_said(gem, word) for word in ("leads", "promoted")] == [0, 0]
        assert epochs.seen == sorted(epochs.seen)
        assert 0 not in epochs.seen


async def test_our_managers__started_while_the_gem_leads__do_nothing_and_say_so_until_it_ends(site: GemSite) -> None:
    gem = await site.start_gem()
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    await site.start_proxies()
    await site.start_managers()
    for manager in site.managers:
        await site.warned_of_gem(manager)
    async with site.client() as client:
        await client.set("k", "before")
        site.group.wait_in_sync()
        site.group.master.kill()
        await client.set("k", "after")
        after = await site.serving(lambda topology: topology.master != before.master)
        assert after.epoch == 0
        assert site.times_said(gem, "promoted") == 1
        assert await site.records(PATHS.history) == {}, "ours have acted"
        await asyncio.to_thread(gem.stop)
        ours = await site.serving(lambda topology: topology.epoch > 0)
        assert ours.master == after.master
        await client.set("k", "later")
        assert site.server_of(ours).command("GET", "k") == "later"


@pytest.mark.parametrize("retreat", ["set", "deleted and made anew", "older", "all deleted"])
async def test_record__went_back__is_published_anew_and_the_proxy_writes(site: GemSite, retreat: str) -> None:
    first, before = await moved_on(site)
    master = site.server_of(before)
    others = [server for server in site.group.servers if server is not master]
    match retreat:
        case "set":
            await site.put_gems(master, *others)
        case "deleted and made anew":
            await site.delete(PATHS.nodes)
            await site.put_gems(master, *others)
        case "older":
            await site.put(PATHS.nodes, first.encode())
        case "all deleted":
            await site.wipe()
    await healed(site, before)


async def test_zookeeper__wiped__the_record_is_published_anew_and_the_proxy_writes(
    redis_group: RedisGroup, own_zookeeper: ZooKeeperServer, tmp_path: Path
) -> None:
    async with GemSite(redis_group, own_zookeeper.hosts, tmp_path) as site:
        _, before = await moved_on(site)
        await asyncio.to_thread(own_zookeeper.kill)
        own_zookeeper.wipe()
        await asyncio.to_thread(own_zookeeper.start)
        await healed(site, before)


async def moved_on(site: GemSite) -> tuple[Topology, Topology]:
    """Ours manage, and have moved the master: what was in force at first, and what is."""
    await site.start_managers()
    first = await site.serving(lambda topology: len(topology.replicas) == 2)
    await site.start_proxies()
    await switch(site)
    before = await site.serving(lambda topology: topology.epoch > first.epoch and len(topology.replicas) == 2)
    await site.registered(1)
    return first, before


async def healed(site: GemSite, before: Topology) -> None:
    """Return when there is the same master in a later epoch, which the proxy acts upon."""
    after = await site.serving(lambda topology: topology.epoch > before.epoch)
    await site.registered(1)
    async with site.client() as client:
        await client.set("k", "v")
    assert after.master == before.master
    assert site.server_of(after).command("GET", "k") == "v"


# --- D5: a record of the gem that is out of date


async def led_by_hand(site: GemSite) -> RedisServer:
    """The second server is the master of the others, which the record does not know."""
    former, master, other = site.group.servers
    await site.put_gems(former, master, other)
    master.command("REPLICAOF", "NO", "ONE")
    follow(other, master)
    follow(former, master)
    await eventually(lambda: all(s.info().get("master_link_status") == "up" for s in (former, other)))
    forget_commands(master)
    return master


@pytest.mark.parametrize("former_is", ["a replica", "down"])
async def test_gems_record__out_of_date__the_healthy_group_is_adopted_as_it_is(site: GemSite, former_is: str) -> None:
    master = await led_by_hand(site)
    former = site.group.master
    if former_is == "down":
        former.kill()
    write(master, KEYS)
    with master.client() as client:
        history = client.info("replication")["master_replid"]
        await site.start_managers()
        topology = await site.serving(lambda topology: topology.epoch > 0)
        client.set("k", "v")  # fails on a server that was sealed
        assert client.info("replication")["master_replid"] == history
    assert topology.master == master.node
    assert not moved(master)
    if former_is == "down":
        assert former.node in topology.unavailable
        await asyncio.to_thread(former.restart)
    await site.serving(lambda topology: len(topology.replicas) == 2)
    await all_have(site, len(KEYS))


async def test_gems_record__its_master_has_died_since__a_replica_is_promoted_with_all_keys(site: GemSite) -> None:
    await site.start_gem()
    await site.serving(lambda topology: len(topology.replicas) == 2)
    write(site.group.master, KEYS)
    site.group.wait_in_sync()
    await site.stop_gems()
    site.group.master.kill()
    await site.start_managers()
    topology = await site.serving(lambda topology: topology.epoch > 0 and len(topology.replicas) == 1)
    assert topology.master in {replica.node for replica in site.group.replicas}
    assert all(size(replica) >= len(KEYS) for replica in site.group.replicas)


# --- D6: a request that a client of the gem began and never filled


async def test_failover__there_is_an_empty_request__is_done(site: GemSite) -> None:
    await site.start_managers()
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    await site.put(PATHS.manual_failover, b"")
    done = await site.command("failover")
    assert done.returncode == 0, done.stderr
    assert (await site.serving()).master != before.master


# --- D7: the gem's patience, by a file of the gem


def with_gems_file(site: GemSite) -> None:
    """The managers read what the gem's managers would."""
    nodes = "".join(f"  - :host: {node.host}\n    :port: {node.port}\n" for node in site.group.nodes)
    file = site.folder / "redis_failover.yml"
    zookeeper, _, chroot = site.zookeeper.partition("/")
    file.write_text(f":max_failures: 3\n:chroot: /{chroot}\n:nodes:\n{nodes}:zkservers:\n  - {zookeeper}\n")
    for manager in site.managers:
        manager.argv[1:] = ["-C", str(file), "--log-format", "json"]


async def test_gems_file__master_busy_for_three_seconds__is_no_failover(zookeeper_hosts: str, tmp_path: Path) -> None:
    with RedisGroup(3, enable_debug_command="yes") as group:
        async with GemSite(group, zookeeper_hosts, tmp_path) as site:
            with_gems_file(site)
            await site.start_managers()
            before = await site.serving(lambda topology: len(topology.replicas) == 2)
            await asyncio.to_thread(group.master.command, "DEBUG", "SLEEP", 3)
            after = await site.serving()
            assert (after.master, after.epoch) == (before.master, before.epoch)
            assert await site.receipts() == []


# --- D8: back to the gem and forth again


async def test_rollback__to_the_gem_and_back__epochs_go_on_and_receipts_stay_in_order(site: GemSite) -> None:
    await site.start_managers()
    await site.serving(lambda topology: len(topology.replicas) == 2)
    await switch(site)
    await switch(site)
    first = await site.serving(lambda topology: len(topology.replicas) == 2)
    old = await site.receipts()
    await site.stop_managers()
    await site.start_gem()
    await site.until(lambda topology: topology.is_gems)
    await site.stop_gems()
    await site.start_managers()
    second = await site.serving(lambda topology: topology.epoch > 0 and len(topology.replicas) == 2)
    assert second.epoch > first.epoch
    await switch(site)
    receipts = await site.receipts()
    assert receipts[: len(old)] == old
    assert len(receipts) > len(old)
    begun = [receipt.steps[0][1] for receipt in receipts if receipt.steps]
    assert begun == sorted(begun)
    assert receipts[-1].outcome is Outcome.DONE
    assert receipts[-1].epoch == (await site.serving()).epoch


async def switch(site: GemSite) -> None:
    await site.serving(lambda topology: len(topology.replicas) == 2)
    done = await site.command("failover")
    assert done.returncode == 0, done.stderr


async def test_proxy__gems_record_deleted__holds_writes_until_it_is_made_anew(site: GemSite) -> None:
    master, *replicas = site.group.servers
    await site.put_gems(master, *replicas)
    await site.start_proxies()
    await site.delete(PATHS.nodes)
    async with site.client() as client:
        held = await held_write(client)
        count = master.command("GET", "n")
        await asyncio.sleep(1.0)  # nor later
        assert master.command("GET", "n") == count
        await site.put_gems(master, *replicas)
        assert await held == int(count or 0) + 1


async def held_write(client: redis.asyncio.Redis) -> asyncio.Future[int]:
    """The first increment of `n` that is not answered."""
    while True:
        held: asyncio.Future[int] = asyncio.ensure_future(client.incr("n"))
        done, _ = await asyncio.wait([held], timeout=1.0)
        if not done:
            return held
        held.result()


# --- D9: a renewed record is no news


@pytest.mark.parametrize("whose", ["gems", "ours"])
async def test_proxy__record_renewed_ten_times__logs_no_topology(site: GemSite, whose: str) -> None:
    master, *replicas = site.group.servers
    nodes = tuple(replica.node for replica in replicas)
    ours = Topology(3, Phase.SERVING, master.node, nodes, run_id=str(master.info("server")["run_id"]))
    same = gems_record(master, *replicas) if whose == "gems" else ours.encode()
    await site.put(PATHS.nodes, same)
    await site.start_proxies()
    (proxy,) = site.proxies.values()
    before = topologies(site, proxy)
    for _ in range(10):
        await site.put(PATHS.nodes, same)
        await site.store.prove_alive()
    other = json.loads(same)
    other["slaves"] = [str(nodes[0])]
    await site.put(PATHS.nodes, json.dumps(other).encode())
    await eventually(lambda: topologies(site, proxy) > before)
    assert topologies(site, proxy) == before + 1


def topologies(site: GemSite, proxy: Process) -> int:
    return sum(line["event"] == "topology" for line in site.log(proxy))
