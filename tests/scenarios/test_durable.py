"""Durable writes on real servers: what is acknowledged is on a replica, and survives the master."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis

from rfmanager.operator import operations
from rfprotocol.topology.topology import Phase
from tests.scenarios.history import Fate, Kill, Rule, Verdict, check
from tests.scenarios.recorder import Recorder, final
from tests.support.embedded import EmbeddedProxy
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer, wait_until
from tests.support.stores import Changes

CLIENTS = 8
UNCERTAIN = "^UNCERTAIN {} was executed by master .* but not replicated to 1 replica within 1 s$"


@pytest.fixture
def proxy(redis_group: RedisGroup, tmp_path: Path) -> Iterator[EmbeddedProxy]:
    with EmbeddedProxy(redis_group, tmp_path, "--write-safety", "durable") as proxy:
        yield proxy
        assert not proxy.defects


@pytest.fixture
def client(proxy: EmbeddedProxy) -> Iterator[Any]:
    """Any: the methods of redis.Redis are not fully typed."""
    with redis.Redis(host=proxy.address.host, port=proxy.address.port, decode_responses=True) as client:
        yield client


def cut_off(group: RedisGroup) -> None:
    """Nothing reaches the replicas any more, also when they go on."""
    for replica in group.replicas:
        replica.freeze()
    group.master.command("CLIENT", "KILL", "TYPE", "replica")


def go_on(group: RedisGroup) -> None:
    for replica in group.replicas:
        replica.thaw()


# --- as on a plain Redis


def test_what_is_acknowledged_is_on_a_replica(redis_group: RedisGroup, client: Any) -> None:
    for number in range(100):
        client.set("k", number)
        assert str(number) in [replica.command("GET", "k") for replica in redis_group.replicas]


def test_a_hundred_commands_at_once(client: Any) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(50):
        pipeline.incr("n").set(f"k{number}", number)
    assert pipeline.execute() == [reply for number in range(50) for reply in (number + 1, True)]


def test_transactions(client: Any) -> None:
    assert client.pipeline().incr("n").get("n").execute() == [1, "1"]
    with client.pipeline() as pipeline:
        pipeline.watch("n")
        assert pipeline.get("n") == "1"
        pipeline.set("beside", 1)
        pipeline.multi()
        assert pipeline.incr("n").execute() == [2]
    with client.pipeline() as pipeline:
        pipeline.watch("n")
        client.incr("n")
        pipeline.multi()
        with pytest.raises(redis.WatchError):
            pipeline.incr("n").execute()


def test_scripts(client: Any) -> None:
    assert client.eval("return redis.call('INCR', KEYS[1])", 1, "n") == 1
    assert client.register_script("return redis.call('INCR', KEYS[1])")(keys=["n"]) == 2


@pytest.fixture
def blocked(redis_group: RedisGroup, proxy: EmbeddedProxy) -> Iterator[Any]:
    """A connection on which BLPOP waits."""
    with redis.Redis(port=proxy.address.port, decode_responses=True, single_connection_client=True) as client:
        assert client.connection is not None
        client.connection.send_command("BLPOP", "l", 0)
        wait_until(lambda: redis_group.master.info("clients")["blocked_clients"] == 1, "blocked")
        yield client.connection


def test_what_blocks(client: Any, blocked: Any) -> None:
    assert client.rpush("l", "x") == 1
    assert blocked.read_response() == ["l", "x"]


def test_what_was_taken_after_it_blocked_is_uncertain_when_no_replica_knows(
    redis_group: RedisGroup, blocked: Any
) -> None:
    offset = redis_group.master.info()["master_repl_offset"]
    wait_until(lambda: redis_group.master.info()["slave0"]["offset"] >= offset, "all before it is confirmed")
    for replica in redis_group.replicas:
        replica.freeze()
    redis_group.master.command("RPUSH", "l", "x")
    with pytest.raises(redis.ResponseError, match=UNCERTAIN.format("BLPOP")):
        blocked.read_response()


# --- when replicas are away


def test_without_replicas_writes_are_uncertain_and_reads_go_on(redis_group: RedisGroup, client: Any) -> None:
    client.set("k", "before")
    cut_off(redis_group)
    with pytest.raises(redis.ResponseError, match=UNCERTAIN.format("SET")):
        client.set("k", "meanwhile")
    assert client.get("k") == "meanwhile"
    with pytest.raises(redis.ResponseError, match=UNCERTAIN.format("EVAL")):
        client.eval("return redis.call('INCR', 'n')", 0)
    with pytest.raises(redis.ResponseError, match=UNCERTAIN.format("EXEC")):
        client.pipeline().incr("n").get("n").execute()
    answers = client.pipeline(transaction=False).incr("n").get("n").execute(raise_on_error=False)
    assert isinstance(answers[0], redis.ResponseError)
    assert answers[1] == "3"
    go_on(redis_group)
    wait_until(lambda: redis_group.master.info()["connected_slaves"] == 2, "replicas")
    redis_group.wait_in_sync()
    assert client.set("k", "after")


def busy(server: RedisServer) -> bool:
    try:
        server.command("PING")
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


async def test_a_script_is_killed_while_a_write_waits_for_replicas(
    redis_group: RedisGroup, proxy: EmbeddedProxy
) -> None:
    """Redis answers no WAIT before the script has ended, whatever the time limit of that."""
    master = redis_group.master
    master.command("CONFIG", "SET", "busy-reply-threshold", "10")
    cut_off(redis_group)
    async with (
        aioredis.Redis(port=proxy.address.port, socket_timeout=30) as writer,
        aioredis.Redis(port=proxy.address.port, socket_timeout=30) as killer,
        aioredis.Redis(port=master.port, socket_timeout=30) as beside,
    ):
        write = asyncio.ensure_future(writer.set("k", "v"))
        await eventually(lambda: master.command("GET", "k"))
        script = asyncio.ensure_future(beside.eval("while true do end", 0))
        await eventually(lambda: busy(master))
        await killer.script_kill()
        with pytest.raises(redis.ResponseError, match="Script killed by user"):
            await script
        with pytest.raises(redis.ResponseError, match="UNCERTAIN SET"):
            await write


async def test_reads_do_not_wait_behind_writes_that_wait_for_replicas(
    redis_group: RedisGroup, proxy: EmbeddedProxy
) -> None:
    cut_off(redis_group)
    async with aioredis.Redis(port=proxy.address.port, socket_timeout=30) as client:
        with pytest.raises(redis.ResponseError, match="UNCERTAIN"):
            await client.set("k", "v")
        while (await client.info("proxy"))["proxy_replicas"]:
            await client.get("k")
        writes = [asyncio.ensure_future(client.set("k", number)) for number in range(20)]
        await asyncio.sleep(0)
        reads = 0
        while not any(write.done() for write in writes):
            await client.get("k")
            reads += 1
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert reads > 20
    assert all(isinstance(outcome, redis.ResponseError) for outcome in outcomes)


# --- when the master is lost


@pytest.fixture
async def site(
    request: pytest.FixtureRequest, redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> AsyncIterator[Installation]:
    """Three managers and two proxies that acknowledge writes as the test says."""
    site = Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2)
    for proxy in site.proxies.values():
        proxy.argv += ["--reads", "master", "--write-safety", request.param]
    async with site:
        yield site


async def unlinked(site: Installation) -> None:
    """Return when the managers have written down that no replica has a link."""
    changes = Changes(site.store, site.paths.last_known)
    while True:
        known = (await operations.status(site.store, site.paths)).known
        if known is not None and not any(member.linked for member in known.members.values()):
            changes.end()
            return
        await changes.next()


async def clients_of(site: Installation) -> tuple[Recorder, Verdict]:
    """What they hear while they write what no replica is sent, and the master is killed; nothing excuses a loss.

    The replicas had no link any more, so an operator has to name one: that with the most data.
    """
    async with Recorder(site.ports, CLIENTS) as recorder:
        await recorder.progress(300)
        before = await site.serving()
        await asyncio.to_thread(cut_off, site.group)
        answered = len(recorder.history)
        await eventually(lambda: len(recorder.history) > answered + 5 * CLIENTS)
        await unlinked(site)
        killed = time.monotonic()
        site.server_of(before).kill()
        go_on(site.group)
        await site.until(lambda topology: topology.phase is Phase.FENCING)
        await eventually(lambda: all(replica.info().get("master_port") == 0 for replica in site.group.replicas))
        most = max(site.group.replicas, key=lambda replica: int(replica.info()["slave_repl_offset"]))
        await operations.failover(site.store, site.paths, most.node, 30.0)
        after = await site.serving(lambda topology: topology.epoch > before.epoch)
        kill = Kill(killed, time.monotonic(), lag=-math.inf)
        await recorder.progress(300)
    return recorder, check(recorder.history, final(site.server_of(after)), [kill], repeats=True)


@pytest.mark.parametrize("site", ["durable"], indirect=True)
async def test_a_master_that_dies_takes_no_acknowledged_write_along(site: Installation) -> None:
    recorder, verdict = await clients_of(site)
    assert (verdict.violations, verdict.lost) == ([], {})
    assert recorder.count(Fate.REFUSED) == 0
    assert any("not replicated" in str(operation.heard.reply) for operation in recorder.history)


@pytest.mark.parametrize("site", ["async"], indirect=True)
async def test_which_it_does_when_nobody_waits_for_replicas(site: Installation) -> None:
    _, verdict = await clients_of(site)
    assert Rule.MISSING in {violation.rule for violation in verdict.violations}
