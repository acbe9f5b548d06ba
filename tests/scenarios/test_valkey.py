"""Groups of later servers than Debian's Redis 7.0: what WAIT counts, durable writes, and a failover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
from redis.exceptions import NoPermissionError

from rfproxy.upstream.replication_barrier import counts_writes_only
from tests.support.embedded import EmbeddedProxy
from tests.support.installation import Installation
from tests.support.logged import logged
from tests.support.rawclient import RawClient
from tests.support.redis import RedisGroup
from tests.support.servers import Server, chosen


@pytest.fixture(params=chosen("Redis 8", "Valkey 9"))
def group(request: pytest.FixtureRequest) -> Iterator[RedisGroup]:
    """A master and two replicas in sync, which keep append-only files."""
    server: Server | None = request.param
    with RedisGroup(3, program=server.program if server else None, appendonly="yes", appendfsync="everysec") as group:
        yield group


def of_writes(group: RedisGroup) -> bool:
    """Whether WAIT asks about the last write of its connection, and WAITAOF exists: both since 7.2."""
    return counts_writes_only(group.master.info("server")["redis_version"])


@pytest.fixture
def client(group: RedisGroup, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of a proxy with these options. Any: the methods of redis.Redis are not fully typed."""
    with EmbeddedProxy(group, tmp_path, *getattr(request, "param", ())) as proxy:
        with redis.Redis(host=proxy.address.host, port=proxy.address.port, decode_responses=True) as client:
            yield client
        assert not proxy.defects


def freeze(group: RedisGroup) -> None:
    """Nothing reaches the replicas any more, also when they go on."""
    for replica in group.replicas:
        replica.freeze()


def go_on(group: RedisGroup) -> None:
    for replica in group.replicas:
        replica.thaw()


def test_wait__replicas_frozen__counts_none(group: RedisGroup, client: Any) -> None:
    client.set("k", 1)
    assert client.wait(2, 20_000) == 2
    freeze(group)
    client.set("k", 2)
    assert client.wait(1, 300) == 0
    if of_writes(group):
        assert client.execute_command("WAITAOF", 1, 1, 300)[1] == 0
    assert client.pipeline(transaction=False).set("k", 3).execute_command("WAIT", 1, 100).execute() == [True, 0]
    assert client.pipeline().incr("n").execute() == [1]
    assert client.wait(1, 100) == 0
    go_on(group)
    assert client.wait(2, 20_000) == 2
    if of_writes(group):
        assert client.execute_command("WAITAOF", 1, 2, 20_000) == [1, 2]


def test_wait__user_without_the_channel__error(group: RedisGroup, client: Any) -> None:
    for server in group.servers:
        server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "resetchannels", "+@all")
    client.execute_command("AUTH", "app", "secret")
    client.set("k", 1)
    if not of_writes(group):
        assert client.wait(2, 20_000) == 2
        return
    with pytest.raises(NoPermissionError, match="SPUBLISH on the channel rfproxy:durable"):
        client.wait(1, 100)


def test_auth__wrong_password__is_refused_and_no_server_blamed(group: RedisGroup, tmp_path: Path) -> None:
    """Since 7.2 a server does not answer a refused AUTH behind other commands, as in the greeting of a connection."""
    with EmbeddedProxy(group, tmp_path) as proxy, RawClient(proxy.address) as client:
        for _ in range(3):
            assert client.ask(b"AUTH nobody wrong\r\n").startswith(b"-WRONGPASS ")
        assert client.ask(b"SET k v\r\n") == b"+OK\r\n"
        assert proxy.process.log is not None
        assert not {line["event"] for line in logged(proxy.process.log)} & {"lane_lost", "replica_silent"}


@pytest.mark.parametrize("command", ["READONLY", "READWRITE"])
def test_readonly__outside_a_cluster__is_answered_as_by_the_server(
    group: RedisGroup, client: Any, command: str
) -> None:
    def answer(ask: Callable[[str], object]) -> str:
        try:
            return str(ask(command))
        except redis.ResponseError as error:
            return str(error)

    assert answer(client.execute_command) == answer(group.master.command)


@pytest.mark.parametrize("client", [("--write-safety", "durable")], indirect=True)
def test_durable__replicas_frozen__uncertain(group: RedisGroup, client: Any) -> None:
    for number in range(20):
        client.set("k", number)
        assert str(number) in [replica.command("GET", "k") for replica in group.replicas]
    freeze(group)
    with pytest.raises(redis.ResponseError, match=r"^UNCERTAIN INCRBY was executed by master .* but not replicated"):
        client.incr("n")
    go_on(group)
    assert client.incr("n") == 2


async def test_failover__master_killed__nothing_acknowledged_lost(
    group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    async with Installation(group, zookeeper_hosts, tmp_path) as site:
        client = aioredis.Redis(port=site.ports[0], decode_responses=True)
        async with client:
            await client.set("k", 1)
            assert await client.wait(2, 20_000) == 2
            topology = await site.serving()
            site.server_of(topology).kill()
            await client.set("k", 2)
            await site.serving(lambda later: later.epoch > topology.epoch)
            assert await client.get("k") in ("1", "2")
            assert await client.incr("n") == 1
            site.server_of(topology).restart()
            await site.serving(lambda later: topology.master in later.replicas)

            assert await client.incr("n") == 2
            while await client.wait(2, 1000) != 2:
                pass  # the former master takes up what it has missed
