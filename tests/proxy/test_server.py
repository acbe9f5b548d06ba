"""The shell on real sockets and real Redis: clients come, misbehave, leave; the proxy stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis
import uvloop

from deploy.processes import free_port
from rfprotocol.errors import ConfigError
from rfprotocol.topology import Node, Phase, Topology
from rfproxy.router import Policy
from rfproxy.server import Server
from rfproxy.session import Session
from tests.support.eventually import eventually
from tests.support.playbook import SilentLog
from tests.support.redis import RedisServer


@pytest.fixture
async def server(redis_server: RedisServer) -> AsyncIterator[Server]:
    """A proxy in front of one master, whose word it takes for ever."""
    server = Server(Policy(), max_clients=150, log=SilentLog())
    server.lease.renew(server.now(), 1e9)
    server.router.apply(Topology(1, Phase.SERVING, redis_server.node), server.now())
    yield server
    await server.drain(5.0)


@pytest.fixture
async def address(server: Server) -> Node:
    return await server.listen(Node("127.0.0.1", 0))


async def connect(address: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address.host, address.port)


async def test_an_unmodified_client_works(address: Node) -> None:
    for protocol in (2, 3):
        async with aioredis.Redis(host=address.host, port=address.port, protocol=protocol) as client:
            await client.set("k", "v")
            assert await client.get("k") == b"v"
            async with client.pipeline(transaction=True) as pipe:
                pipe.incr("n")
                pipe.get("n")
                assert await pipe.execute() == [protocol - 1, str(protocol - 1).encode()]


async def test_a_hundred_impossible_headers_cost_no_memory_and_disturb_nobody(address: Node) -> None:
    good_reader, good = await connect(address)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    readers = []
    for _ in range(100):
        reader, writer = await connect(address)
        writer.write(b"*4294967295\r\n")
        readers.append((reader, writer))
    for reader, writer in readers:
        assert await reader.read() == b"-ERR Protocol error: invalid multibulk length\r\n"
        writer.close()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 50_000, "kilobytes"
    good.write(b"PING\r\n")
    assert await good_reader.readline() == b"+PONG\r\n"
    good.close()


async def test_one_client_too_many_is_told_so(server: Server, address: Node) -> None:
    clients = [await connect(address) for _ in range(150)]
    await eventually(lambda: server.stats.clients == 150)
    reader, writer = await connect(address)
    assert await reader.read() == b"-ERR max number of clients reached\r\n"
    for _, open_writer in [*clients, (reader, writer)]:
        open_writer.close()
    await eventually(lambda: server.stats.clients == 0)
    assert server.stats.clients_refused == 1


async def test_a_client_that_says_no_more_still_gets_its_answers(address: Node) -> None:
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\nGET k\r\n")
    writer.write_eof()
    assert await reader.read() == b"+OK\r\n$1\r\nv\r\n"
    writer.close()


async def test_a_client_that_does_not_read_is_not_read_from_and_gets_everything_later(address: Node) -> None:
    reader, writer = await connect(address)
    writer.write(b"SET big %b\r\n" % (b"x" * 60_000) + b"GET big\r\n" * 500)
    other_reader, other = await connect(address)
    other.write(b"PING\r\n")
    assert await other_reader.readline() == b"+PONG\r\n"
    other.close()
    assert await reader.readline() == b"+OK\r\n"
    for _ in range(500):
        assert await reader.readline() == b"$60000\r\n"
        assert await reader.readexactly(60_002) == b"x" * 60_000 + b"\r\n"
    writer.close()


async def test_clients_that_vanish_leave_nothing_behind(server: Server, address: Node) -> None:
    for _ in range(50):
        _, writer = await connect(address)
        writer.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf of it")
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await eventually(lambda: server.stats.clients_total == 50 and server.stats.clients == 0)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Session)]


async def test_draining_answers_what_is_in_flight_and_refuses_newcomers(
    server: Server, address: Node, redis_server: RedisServer
) -> None:
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    assert await reader.readline() == b"+OK\r\n"
    redis_server.freeze()
    writer.write(b"GET k\r\n")
    await eventually(lambda: any(not lane.idle for lane in server.router.lanes))
    draining = asyncio.ensure_future(server.drain(60.0))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await connect(address)
    redis_server.thaw()
    assert await reader.read() == b"$1\r\nv\r\n"
    assert await draining == 0
    writer.close()


async def test_a_port_that_is_taken_is_one_clear_line(server: Server, address: Node) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on {address}"):
        await server.listen(address)


async def test_a_server_that_is_not_there_is_tried_again(server: Server, address: Node) -> None:
    port = free_port()
    server.router.apply(Topology(2, Phase.SERVING, Node("127.0.0.1", port)), server.now())
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    with RedisServer(port=port):
        assert await reader.readline() == b"+OK\r\n"
    writer.close()


def test_an_alarm_that_is_overdue_rings_and_others_after_it_on_the_loop_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        server = Server(Policy(), max_clients=1, log=SilentLog())
        rung: list[float] = []
        monkeypatch.setattr(server.router, "tick", rung.append)
        server.wake_at(server.now() - 1.0)
        server.wake_at(server.now() + 0.001)
        await eventually(lambda: rung)
        server.wake_at(server.now() + 0.001)
        await eventually(lambda: len(rung) == 2)
        await server.drain(0.0)

    uvloop.run(main())


async def test_ipv6_addresses_are_listened_on(server: Server) -> None:
    address = await server.listen(Node("::1", 0))
    reader, writer = await connect(address)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    writer.close()
