"""The listener, the timers and the end of the proxy, on real sockets and real Redis."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from deploy.processes import free_port
from rfprotocol.network.resolver import Resolver
from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.core.policy import Policy
from rfproxy.health import connect_queue as opening_module
from rfproxy.runtime import server as server_module
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.connections import Transport, Upstream
from rfproxy.runtime.server import BACKLOG, Server
from rfproxy.upstream.connection import LaneState
from tests.support.eventually import eventually
from tests.support.front import Front, fronting
from tests.support.names import LookUps
from tests.support.playbook import SilentLog
from tests.support.redis import RedisServer

SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())


@pytest.fixture
async def front(redis_server: RedisServer) -> AsyncIterator[Front]:
    """A proxy for few clients."""
    async with fronting(redis_server.node, Limits(clients=150)) as front:
        yield front


@pytest.fixture
def server(front: Front) -> Server:
    return front.server


@pytest.fixture
def address(front: Front) -> Node:
    return front.address


async def connect(address: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address.host, address.port)


async def test_one_client_too_many_is_told_so(server: Server, address: Node) -> None:
    clients = [await connect(address) for _ in range(150)]
    await eventually(lambda: server.stats.clients == 150)
    reader, writer = await connect(address)
    assert await reader.read() == b"-ERR max number of clients reached\r\n"
    for _, open_writer in [*clients, (reader, writer)]:
        open_writer.close()
    await eventually(lambda: server.stats.clients == 0)
    assert server.stats.clients_refused == 1


async def test_server__fewer_clients_than_asked_for__says_which_limit(redis_server: RedisServer) -> None:
    async with fronting(redis_server.node, Limits(clients=1, clients_because="the limit of open files, 300")) as front:
        _, first = await front.connect()
        await eventually(lambda: front.server.stats.clients == 1)
        reader, second = await front.connect()
        assert await reader.read() == b"-ERR max number of clients reached\r\n"
        (line,) = front.log.events("client_error")
        assert line["error"] == "too many clients (1: the limit of open files, 300): one was refused"
        first.close()
        second.close()


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


async def test_who_retires_refuses_newcomers_and_parts_with_clients_when_they_are_silent(
    server: Server, address: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(server_module, "SILENCE", 0.05)
    silent, subscribed, tied = [await connect(address) for _ in range(3)]
    for (reader, writer), words in ((silent, b"PING"), (subscribed, b"SUBSCRIBE c"), (tied, b"MULTI")):
        writer.write(words + b"\r\n")
        await reader.readline()
    server.retire()
    with pytest.raises(ConnectionError):
        await connect(address)
    assert await silent[0].read() == b""
    tied[1].write(b"EXEC\r\n")
    assert await tied[0].readline() == b"*0\r\n"
    assert await tied[0].read() == b""
    assert server.stats.clients == 1
    for _, writer in (silent, subscribed, tied):
        writer.close()
    await server.emptied()


async def test_a_server_that_is_not_there_is_tried_again(front: Front, server: Server, address: Node) -> None:
    port = free_port()
    server.router.apply(Topology(2, Phase.SERVING, Node("127.0.0.1", port)), server.now())
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    await eventually(lambda: front.log.events("lane_lost"))
    assert front.log.events("lane_lost")[0]["reason"] == "Connection refused"
    with RedisServer(port=port):
        assert await reader.readline() == b"+OK\r\n"
    writer.close()


async def test_connect__name_service_silent__last_known_address_and_no_time_of_the_connect_lost(
    front: Front, server: Server, address: Node, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECT_TIMEOUT", 0.1)
    names = LookUps({"redis": ["127.0.0.1"]})
    server.resolver = Resolver(look_up=names.look_up)
    names.speaks.clear()
    server.apply(Topology(2, Phase.SERVING, Node("redis", redis_server.port)))
    await eventually(lambda: names.asked)
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    await asyncio.sleep(0.15)  # longer than a connect may take
    assert not front.log.events("lane_lost")
    names.speaks.set()
    assert await reader.readline() == b"+OK\r\n"
    names.speaks.clear()
    server.resolver.doubt("redis")
    await eventually(lambda: len(names.asked) == 2)
    writer.write(b"SELECT 1\r\nSET k v\r\n")  # another connection
    assert [await reader.readline() for _ in range(2)] == [b"+OK\r\n"] * 2
    assert not front.log.events("lane_lost")
    names.speaks.set()
    writer.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_connect__name_has_several_addresses__reaches_the_one_that_accepts(
    loop: Callable[[], asyncio.AbstractEventLoop], redis_server: RedisServer
) -> None:
    """By a socket of our own, of which the kernel is asked as of any other."""

    async def trial() -> None:
        async with fronting(Node("redis", redis_server.port)) as front:
            server = front.server
            server.resolver = Resolver(look_up=LookUps({"redis": ["::1", "127.0.0.9", "127.0.0.1"]}).look_up)
            reader, writer = await connect(front.address)
            writer.write(b"SET k v\r\n")
            assert await reader.readline() == b"+OK\r\n"
            (lane,) = server.router.lanes
            info = server.kernel(lane)
            assert info is not None
            assert info.unacked == 0
            lane.lose(server.now())
            await eventually(lambda: server.kernel(lane) is None)
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(trial())


async def test_connect__name_unknown__said_and_tried_until_it_is_known(
    front: Front, server: Server, address: Node, redis_server: RedisServer
) -> None:
    names = LookUps({"redis": socket.gaierror(socket.EAI_NONAME, "Name or service not known")})
    server.resolver = Resolver(look_up=names.look_up)
    server.apply(Topology(2, Phase.SERVING, Node("redis", redis_server.port)))
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    await eventually(lambda: front.log.events("lane_lost"))
    reason = "its name cannot be looked up: Name or service not known"
    assert front.log.events("lane_lost")[0]["reason"] == reason
    names.says["redis"] = ["127.0.0.1"]
    assert await reader.readline() == b"+OK\r\n"
    writer.close()


def test_an_alarm_that_is_overdue_rings_and_others_after_it_on_the_loop_of_the_program() -> None:
    rung: list[float] = []

    class Ringing(Server):
        def _ring(self) -> None:
            rung.append(self.now())
            super()._ring()

    async def main() -> None:
        server = Ringing(Policy(), limits=Limits(clients=1), log=SilentLog())
        server.wake_at(server.now() - 1.0)
        server.wake_at(server.now() + 0.001)
        await eventually(lambda: rung)
        server.wake_at(server.now() + 0.001)
        await eventually(lambda: len(rung) == 2)
        await server.drain(0.0)

    uvloop.run(main())


async def test_connect__hundreds_of_blocked_clients__few_openings_at_once(
    server: Server, address: Node, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server accepts one after the other, and few may wait for that."""
    monkeypatch.setattr(opening_module, "AT_ONCE", 8)
    most = 0
    begin = Upstream.connection_made

    def counting(upstream: Upstream, transport: Transport) -> None:
        nonlocal most
        most = max(most, sum(lane.state is LaneState.GREETING for lane in server.router.lanes))
        begin(upstream, transport)

    monkeypatch.setattr(Upstream, "connection_made", counting)
    clients = [await connect(address) for _ in range(140)]
    for _, writer in clients:
        writer.write(b"BLPOP q 0\r\n")
    await eventually(lambda: redis_server.info("clients")["blocked_clients"] == 140)
    assert 0 < most <= 8
    for _, writer in clients:
        writer.close()


async def test_as_many_may_wait_to_be_accepted_as_the_system_allows(server: Server, address: Node) -> None:
    assert queue_of(address.port) == min(BACKLOG, SOMAXCONN)


def queue_of(port: int) -> int:
    """How many connections may wait, as the system has it."""
    said = subprocess.run(["ss", "-lnt", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return int(said.splitlines()[1].split()[2])


async def test_ipv6_addresses_are_listened_on(redis_server: RedisServer) -> None:
    async with fronting(redis_server.node, listen=Node("::1", 0)) as front:
        reader, writer = await front.connect()
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        writer.close()


async def test_server__lane_stands__kernel_knows_it(server: Server, address: Node) -> None:
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    assert await reader.readline() == b"+OK\r\n"
    (lane,) = server.router.lanes
    info = server.kernel(lane)
    assert info is not None
    assert info.unacked == 0
    lane.lose(server.now())
    await eventually(lambda: server.kernel(lane) is None)
    writer.close()


async def test_server__redis_silent_over_flushall__reported(
    server: Server, address: Node, redis_server: RedisServer
) -> None:
    told: list[list[str]] = []
    server.on_busy = lambda: told.append([what.command for what in server.router.watch.busy.values()])
    reader, writer = await connect(address)
    writer.write(b"SET k v\r\n")
    assert await reader.readline() == b"+OK\r\n"
    redis_server.freeze()
    writer.write(b"FLUSHALL\r\n")
    await eventually(lambda: told == [["FLUSHALL"]])
    redis_server.thaw()
    assert await reader.readline() == b"+OK\r\n"
    await eventually(lambda: told == [["FLUSHALL"], []])
    writer.close()
