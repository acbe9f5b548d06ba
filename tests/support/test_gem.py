"""The stand-in for the gem does on the znodes what the gem does, as far as is known of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError

from deploy.processes import Process
from tests.support.eventually import eventually
from tests.support.gem import QUICK, GemClient, NoMaster, gem_manager
from tests.support.gem.lock import Lock, LockLost, number
from tests.support.redis import RedisGroup
from tests.support.zookeeper import ZooKeeperServer

ROOT = "/redis_failover"
NODES = f"{ROOT}/nodes"
REQUEST = f"{ROOT}/manual_failover"
REPORTS = f"{ROOT}/manager_node_state"
LOCK = "/_zklocking/__redis_failover__master_redis_node_manager_lock"


@pytest.fixture
def tree(zookeeper: ZooKeeperServer, zookeeper_hosts: str) -> Iterator[KazooClient]:
    """What is in ZooKeeper, seen from the test's chroot."""
    root = KazooClient(zookeeper.hosts)
    root.start()
    root.ensure_path("/" + zookeeper_hosts.partition("/")[2])
    root.stop()
    root.close()
    tree = KazooClient(zookeeper_hosts)
    tree.start()
    yield tree
    tree.stop()
    tree.close()


def record(master: str | None, *slaves: str) -> bytes:
    return json.dumps({"master": master, "slaves": slaves, "unavailable": []}).encode()


def read(tree: KazooClient, path: str) -> Any:
    try:
        return json.loads(tree.get(path)[0])
    except NoNodeError:
        return None


def publish(tree: KazooClient, group: RedisGroup) -> None:
    """A record of this group, as the gem writes it."""
    tree.ensure_path(ROOT)
    data = record(str(group.master.node), *(str(replica.node) for replica in group.replicas))
    try:
        tree.create(NODES, data)
    except NodeExistsError:
        tree.set(NODES, data)


@asynccontextmanager
async def running(hosts: str, group: RedisGroup, folder: Path, count: int = 1) -> AsyncIterator[list[Process]]:
    """Managers, the first of which leads."""
    managers = [gem_manager(hosts, group.nodes, folder / f"gem{number}.log") for number in range(count)]
    try:
        for number, manager in enumerate(managers):
            manager.start()
            if number == 0:
                await said(manager, "leads")
        yield managers
    finally:
        for manager in managers:
            manager.kill()


async def said(manager: Process, text: str) -> None:
    log = manager.log
    assert log is not None
    await eventually(lambda: manager.exit_status is not None or (log.exists() and text in log.read_text()))
    assert manager.alive, manager.last_words()


# --- the client


def test_client__record_of_a_group__reads_a_slave_and_writes_the_master(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup
) -> None:
    publish(tree, redis_group)
    with GemClient(zookeeper_hosts) as client:
        client.command("SET", "k", "v")
        redis_group.wait_in_sync()
        assert client.command("GET", "k") == "v"
        assert client.current_master == str(redis_group.master.node)
        assert sorted(client.current_slaves) == sorted(str(replica.node) for replica in redis_group.replicas)
    assert "cmdstat_get" not in redis_group.master.info("commandstats")


def test_client__no_record__fails_at_once(tree: KazooClient, zookeeper_hosts: str) -> None:
    with pytest.raises(NoNodeError):
        GemClient(zookeeper_hosts)


@pytest.mark.parametrize(("safe_mode", "commands", "least", "most"), [(True, 300, 300, 400), (False, 300, 0, 50)])
async def test_client__long_without_an_event__in_safe_mode_each_command_asks_zookeeper(
    tree: KazooClient,
    zookeeper: ZooKeeperServer,
    zookeeper_hosts: str,
    redis_group: RedisGroup,
    safe_mode: bool,
    commands: int,
    least: int,
    most: int,
) -> None:
    publish(tree, redis_group)
    with GemClient(zookeeper_hosts, safe_mode=safe_mode, update_timeout=0.2) as client:
        await eventually(lambda: client.silent_for > 0.2)
        before = zookeeper.received(client.session)
        for _ in range(commands):
            client.command("GET", "k")
        assert least <= zookeeper.received(client.session) - before <= most


async def test_client__record_renewed_all_the_time__reads_without_zookeeper(
    tree: KazooClient, zookeeper: ZooKeeperServer, zookeeper_hosts: str, redis_group: RedisGroup
) -> None:
    publish(tree, redis_group)
    with GemClient(zookeeper_hosts, update_timeout=60.0) as client:
        before = zookeeper.received(client.session)
        for _ in range(300):
            client.command("GET", "k")
        assert zookeeper.received(client.session) - before < 50
        moment = client.silent_for
        publish(tree, redis_group)
        await eventually(lambda: client.silent_for < moment)


async def test_client__record_deleted_and_made_anew__forgets_the_servers_and_learns_them_again(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup
) -> None:
    publish(tree, redis_group)
    told: list[str | None] = []
    with GemClient(
        zookeeper_hosts, max_retries=0, retry_wait=0, on_node_change=lambda master, _: told.append(master)
    ) as client:
        tree.delete(NODES)
        await eventually(lambda: client.current_master is None)
        with pytest.raises(NoMaster):
            client.command("SET", "k", "v")
        anew = record(str(redis_group.replicas[0].node))
        tree.create(NODES, anew)
        # The gem's managers write it again and again, too: an event may come before the next watch is there.
        await eventually(lambda: tree.set(NODES, anew) and client.current_master == str(redis_group.replicas[0].node))
        assert told == [str(redis_group.master.node), str(redis_group.replicas[0].node)]


async def test_client__server_of_another_role__tries_again_until_the_record_is_right(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup
) -> None:
    tree.ensure_path(ROOT)
    tree.create(NODES, record(str(redis_group.replicas[0].node)))
    with GemClient(zookeeper_hosts, max_retries=1000, retry_wait=0.02) as client:
        writing = asyncio.create_task(asyncio.to_thread(client.command, "SET", "k", "v"))
        await eventually(lambda: client.retries > 2)
        publish(tree, redis_group)
        await writing
    assert redis_group.master.command("GET", "k") == "v"


async def test_client__master_gone__waits_between_two_attempts_and_gives_up_after_the_last(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup
) -> None:
    publish(tree, redis_group)
    redis_group.master.kill()
    with GemClient(zookeeper_hosts, max_retries=3, retry_wait=0.1) as client:
        begun = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            client.command("SET", "k", "v")
        assert time.monotonic() - begun >= 0.3
        assert client.retries == 3


def test_client__manual_failover__the_request_is_made_empty_and_filled_then(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup
) -> None:
    publish(tree, redis_group)
    with GemClient(zookeeper_hosts) as client:
        client.manual_failover()
        value, stat = tree.get(REQUEST)
        assert (value, stat.version) == (b"ANY_SLAVE", 1)
        client.manual_failover("127.0.0.1:1")
        assert tree.get(REQUEST)[0] == b"127.0.0.1:1"


# --- the lock


@pytest.mark.parametrize(("seat", "digits"), [("ex0000000007", 7), (f"ex{'a1' * 16}_0000000012", 12), ("ex", 0)])
def test_lock__seats_of_several_kinds__count_by_the_digits_at_their_end(seat: str, digits: int) -> None:
    assert number(seat) == digits


def test_lock__a_lower_seat_of_somebody_else__is_waited_for(tree: KazooClient) -> None:
    tree.ensure_path(LOCK)
    first = tree.create(f"{LOCK}/ex{'ab' * 16}_", b"rfmanager", ephemeral=True, sequence=True)
    lock, stopping, done = Lock(tree, f"{ROOT}/master_redis_node_manager_lock"), threading.Event(), threading.Event()

    def wait() -> None:
        if lock.acquire(stopping):
            done.set()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert not done.wait(0.5)
    assert [len(tree.get(f"{LOCK}/{seat}")[0]) for seat in sorted(tree.get_children(LOCK), key=number)] == [9, 0]
    tree.delete(first)
    assert done.wait(10)
    lock.check()
    lock.release()
    assert tree.exists(LOCK) is None


def test_lock__folder_made_anew__is_lost(tree: KazooClient) -> None:
    lock = Lock(tree, f"{ROOT}/master_redis_node_manager_lock")
    assert lock.acquire(threading.Event())
    tree.delete(LOCK, recursive=True)
    with pytest.raises(LockLost):
        lock.check()


# --- the manager


async def test_manager__fresh_tree__writes_the_gems_fields_and_no_other_again_and_again(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    async with running(zookeeper_hosts, redis_group, tmp_path):
        await eventually(lambda: (found := tree.exists(NODES)) is not None and found.version > 2)
        found = read(tree, NODES)
        assert found.keys() == {"master", "slaves", "unavailable"}
        assert found["master"] == str(redis_group.master.node)
        assert sorted(found["slaves"]) == sorted(str(replica.node) for replica in redis_group.replicas)
        (reporter,) = tree.get_children(REPORTS)
        report = read(tree, f"{REPORTS}/{reporter}")
        assert report.keys() == {"available", "unavailable"}
        assert report["available"].keys() == {str(node) for node in redis_group.nodes}
        assert tree.get_children(LOCK) == ["ex0000000000"]
        assert tree.get(f"{LOCK}/ex0000000000")[0] == b""


async def test_manager__a_server_down_and_no_record__waits_until_it_is_up(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    redis_group.replicas[0].kill()
    async with running(zookeeper_hosts, redis_group, tmp_path) as (manager,):
        await said(manager, "cannot tell")
        assert read(tree, NODES) is None
        await asyncio.to_thread(redis_group.replicas[0].restart)  # a master now, as the other one is
        redis_group.replicas[0].command("REPLICAOF", *str(redis_group.master.node).split(":"))
        await eventually(lambda: read(tree, NODES) is not None)
        assert read(tree, NODES)["master"] == str(redis_group.master.node)


async def test_manager__record_whose_master_is_a_slave__touches_nothing(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    tree.ensure_path(ROOT)
    tree.create(NODES, record(str(redis_group.replicas[0].node)))
    async with running(zookeeper_hosts, redis_group, tmp_path) as (manager,):
        await said(manager, "should be the master, but is a slave")
        assert tree.get(NODES)[1].version == 0
        assert [server.info()["role"] for server in redis_group.servers] == ["master", "slave", "slave"]


async def test_manager__record_of_rfmanager__takes_its_master_and_drops_the_other_fields(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    tree.ensure_path(ROOT)
    ours = {**json.loads(record(str(redis_group.master.node))), "epoch": 7, "phase": "serving", "format": 1}
    tree.create(NODES, json.dumps(ours).encode())
    async with running(zookeeper_hosts, redis_group, tmp_path):
        await eventually(lambda: "epoch" not in read(tree, NODES))
        assert read(tree, NODES)["master"] == str(redis_group.master.node)


async def test_manager__master_killed__deletes_the_record_promotes_and_makes_it_anew(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    events: list[str] = []

    def note(event: Any) -> None:
        events.append(event.type)
        tree.exists_async(NODES, watch=note)

    async with running(zookeeper_hosts, redis_group, tmp_path):
        await eventually(lambda: read(tree, NODES) is not None)
        made = tree.get(NODES)[1].czxid
        tree.exists(NODES, watch=note)
        redis_group.master.kill()
        await eventually(lambda: (found := read(tree, NODES)) and found["master"] != str(redis_group.master.node))
        await eventually(lambda: "DELETED" in events)
        assert tree.get(NODES)[1].czxid != made
        await eventually(lambda: read(tree, NODES)["unavailable"] == [str(redis_group.master.node)])
        former = redis_group.master
        await asyncio.to_thread(former.restart)
        await eventually(lambda: str(former.node) in read(tree, NODES)["slaves"])
        await eventually(lambda: former.info()["role"] == "slave")


async def test_manager__all_killed__writes_that_there_is_none_and_promotes_the_first_that_is_back(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    async with running(zookeeper_hosts, redis_group, tmp_path):
        await eventually(lambda: read(tree, NODES) is not None)
        for server in redis_group.servers:
            server.kill()
        await eventually(lambda: (found := read(tree, NODES)) is not None and found["master"] is None)
        await asyncio.to_thread(redis_group.replicas[1].restart)
        await eventually(lambda: (found := read(tree, NODES)) and found["master"] == str(redis_group.replicas[1].node))


@pytest.mark.parametrize("filled", [b"ANY_SLAVE", b"2"])
async def test_manager__manual_failover__is_obeyed_and_stays(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path, filled: bytes
) -> None:
    wanted = filled if filled == b"ANY_SLAVE" else str(redis_group.servers[2].node).encode()
    async with running(zookeeper_hosts, redis_group, tmp_path) as (manager,):
        await eventually(lambda: (found := read(tree, NODES)) and len(found["slaves"]) == 2)
        with GemClient(zookeeper_hosts) as client:
            client.manual_failover(wanted.decode())
        await said(manager, f"asked for {wanted.decode()}")
        if filled != b"ANY_SLAVE":  # which may be the master itself
            await eventually(lambda: (found := read(tree, NODES)) and found["master"] == wanted.decode())
            await eventually(lambda: [s.info()["role"] for s in redis_group.servers] == ["slave", "slave", "master"])
        assert tree.get(REQUEST)[0] == wanted


async def test_manager__the_one_with_the_lock_ends__the_next_one_leads(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    async with running(zookeeper_hosts, redis_group, tmp_path, count=2) as (first, second):
        await eventually(lambda: len(tree.get_children(LOCK)) == 2)
        await asyncio.to_thread(first.stop)
        await said(second, "leads")
        await said(second, f"master {redis_group.master.node}")


async def test_manager__a_pause_shorter_than_the_gems_patience__changes_nothing(
    tree: KazooClient, zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    async with running(zookeeper_hosts, redis_group, tmp_path) as (manager,):
        await eventually(lambda: read(tree, NODES) is not None)
        version = tree.get(NODES)[1].version
        redis_group.master.freeze()
        await asyncio.sleep(QUICK.patience * 1.5)
        redis_group.master.thaw()
        await eventually(lambda: tree.get(NODES)[1].version > version + 4)
        assert read(tree, NODES)["master"] == str(redis_group.master.node)
        assert "lost" not in manager.last_words()
