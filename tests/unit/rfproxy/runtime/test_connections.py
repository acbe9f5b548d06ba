"""Clients on real sockets: they come, misbehave, do not read, fall silent, vanish; the proxy and the others stay."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import resource
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import redis.asyncio as aioredis
import uvloop

from rfprotocol.resp.resp import encode_command
from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.core import memory_budget as budget_module
from rfproxy.pinned.session_registry import sessions_of
from rfproxy.runtime import server as server_module
from rfproxy.runtime.client_limits import Limits, OutputLimit, OutputLimits
from rfproxy.runtime.connections import Client, failure
from rfproxy.session import client_departures as departures_module
from rfproxy.session.session import Session
from tests.support.eventually import eventually
from tests.support.front import Front, fronting
from tests.support.redis import RedisServer

MIB = 1 << 20
NewLoop = Callable[[], asyncio.AbstractEventLoop]


on_both_loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
"""For what depends on the loop: that of the standard library, on which the other tests run, and that of the program."""


def run(new_loop: NewLoop, scenario: Coroutine[None, None, None]) -> None:
    """Play a scenario on a loop of that kind."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario)


@pytest.fixture
async def front(redis_server: RedisServer) -> AsyncIterator[Front]:
    """A proxy with the limits that are the default."""
    async with fronting(redis_server.node) as front:
        yield front


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the clients come every few milliseconds."""
    monkeypatch.setattr(server_module, "LOOK_EVERY", 0.005)


def vanish(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a killed process does whose socket holds unread bytes."""
    sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What is still read before the connection ends, in good order or not."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(MIB):
            data += piece
    return data


async def ping(front: Front) -> None:
    """Another client is served."""
    reader, writer = await front.connect()
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    writer.close()


def client_of(front: Front, writer: asyncio.StreamWriter) -> Client:
    """The proxy's end of a connection."""
    port = writer.get_extra_info("sockname")[1]
    for client in front.server.clients:
        with socket.socket(fileno=os.dup(client.fd)) as sock:
            if sock.getpeername()[1] == port:
                return client
    raise LookupError(port)


# --- what every client may do


async def test_an_unmodified_client_works(front: Front) -> None:
    for protocol in (2, 3):
        async with aioredis.Redis(host=front.address.host, port=front.address.port, protocol=protocol) as client:
            await client.set("k", "v")
            assert await client.get("k") == b"v"
            async with client.pipeline(transaction=True) as pipe:
                pipe.incr("n")
                pipe.get("n")
                assert await pipe.execute() == [protocol - 1, str(protocol - 1).encode()]


async def test_a_hundred_impossible_headers_cost_no_memory_and_disturb_nobody(front: Front) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    readers = []
    for _ in range(100):
        reader, writer = await front.connect()
        writer.write(b"*4294967295\r\n")
        readers.append((reader, writer))
    for reader, writer in readers:
        assert await reader.read() == b"-ERR Protocol error: invalid multibulk length\r\n"
        writer.close()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 50_000, "kilobytes"
    await ping(front)


async def test_a_client_that_says_no_more_still_gets_its_answers(front: Front) -> None:
    reader, writer = await front.connect()
    writer.write(b"SET k v\r\nGET k\r\n")
    writer.write_eof()
    assert await reader.read() == b"+OK\r\n$1\r\nv\r\n"
    writer.close()


# --- clients that do not read


@pytest.mark.usefixtures("watchful")
async def test_a_client_that_does_not_read_is_watched_and_gets_everything_later(front: Front) -> None:
    reader, writer = await front.connect()
    writer.write(b"SET big %b\r\n" % (b"x" * 60_000) + b"GET big\r\n" * 500)
    writer.write_eof()
    await eventually(lambda: any(client.strained for client in front.server.clients))
    await ping(front)
    assert await reader.readline() == b"+OK\r\n"
    for _ in range(500):
        assert await reader.readline() == b"$60000\r\n"
        assert await reader.readexactly(60_002) == b"x" * 60_000 + b"\r\n"
    assert await reader.read() == b""
    writer.close()


@on_both_loops
@pytest.mark.parametrize(
    ("command", "reply", "count"),
    [
        (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$256\r\n%b\r\n" % (b"v" * 256), 100_000),
        (b"GET k\r\n", b"$256\r\n%b\r\n" % (b"v" * 256), 50_000),
    ],
)
def test_pipeline__written_before_reading__completes(
    redis_server: RedisServer, new_loop: NewLoop, command: bytes, reply: bytes, count: int
) -> None:
    async def scenario() -> None:
        async with fronting(redis_server.node) as front:
            reader, writer = await front.connect()
            writer.write(b"SET k %b\r\n" % (b"v" * 256))
            assert await reader.readline() == b"+OK\r\n"
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # as who writes all before it reads
            writer.transport.set_write_buffer_limits(0)
            for _ in range(100):
                writer.write(command * (count // 100))
                await writer.drain()
            await ping(front)
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                expected = reply * (count // 100)
                assert await reader.readexactly(len(expected)) == expected
            writer.close()

    run(new_loop, scenario())


@on_both_loops
def test_above_the_hard_limit_a_client_is_closed_and_the_log_says_which_and_why(
    redis_server: RedisServer, new_loop: NewLoop
) -> None:
    async def scenario() -> None:
        limits = Limits(output=OutputLimits(normal=OutputLimit(hard=8 * MIB)))
        async with fronting(redis_server.node, limits) as front:
            _, writer = await front.connect()
            host, port = writer.get_extra_info("sockname")
            writer.write(b"SET big %b\r\n" % (b"x" * 60_000) + b"GET big\r\n" * 500)
            await eventually(lambda: front.log.events("client_closed"))
            (line,) = front.log.events("client_closed")
            assert (line["client"], line["kind"], line["limit"]) == (f"{host}:{port}", "normal", f"hard {8 * MIB}")
            assert isinstance(line["bytes"], int)
            assert line["bytes"] >= 8 * MIB
            await eventually(lambda: not front.server.clients)
            await ping(front)
            writer.close()

    run(new_loop, scenario())


@pytest.mark.parametrize(
    ("limit", "named"),
    [(OutputLimit(hard=4 * MIB), f"hard {4 * MIB}"), (OutputLimit(0, 2 * MIB, 0), f"soft {2 * MIB} for 0 s")],
)
@pytest.mark.usefixtures("watchful")
async def test_who_listens_has_limits_of_its_own(redis_server: RedisServer, limit: OutputLimit, named: str) -> None:
    async with fronting(redis_server.node, Limits(output=OutputLimits(pubsub=limit))) as front:
        reader, writer = await front.connect()
        writer.write(b"SUBSCRIBE news\r\n")
        assert await reader.readuntil(b":1\r\n") == b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
        silent_reader, silent = await front.connect()
        silent.write(b"SET big %b\r\n" % (b"x" * 60_000) + b"GET big\r\n" * 500)
        other_reader, other = await front.connect()
        for _ in range(500):
            if front.log.events("client_closed"):
                break
            other.write(b"PUBLISH news %b\r\n" % (b"x" * 60_000))
            await other_reader.readline()
        (line,) = front.log.events("client_closed")
        assert (line["kind"], line["limit"]) == ("pubsub", named)
        await eventually(lambda: len(front.server.clients) == 2)
        assert await silent_reader.readline() == b"+OK\r\n"
        for each in (writer, silent, other):
            each.close()


async def test_a_limit_below_the_mark_at_which_reading_stops_counts_too(redis_server: RedisServer) -> None:
    limits = Limits(output=OutputLimits(normal=OutputLimit(hard=100_000)))
    async with fronting(redis_server.node, limits) as front:
        _, writer = await front.connect()
        writer.write(b"SET big %b\r\n" % (b"x" * 60_000) + b"GET big\r\n" * 500)
        await eventually(lambda: front.log.events("client_closed"))
        (line,) = front.log.events("client_closed")
        assert line["limit"] == "hard 100000"
        assert isinstance(line["bytes"], int)
        assert line["bytes"] < MIB
        writer.close()


# --- what all clients hold together


async def asks_and_does_not_read(front: Front, command: bytes, count: int) -> asyncio.StreamWriter:
    """One more client, which reads nothing."""
    reader, writer = await front.connect()
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(command * count)
    return writer


@pytest.mark.usefixtures("watchful")
@on_both_loops
def test_budget__clients_do_not_read__largest_is_closed(
    redis_server: RedisServer, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_module, "PATIENCE", 0.05)

    async def scenario() -> None:
        limited = OutputLimits(normal=OutputLimit(hard=1 << 30))  # so that what was asked for is read from the server
        async with fronting(redis_server.node, Limits(memory=8 * MIB, output=limited)) as front:
            reader, writer = await front.connect()
            writer.write(b"SET big %b\r\n" % (b"x" * 60_000))
            assert await reader.readline() == b"+OK\r\n"
            few = await asks_and_does_not_read(front, b"GET big\r\n", 100)
            many = await asks_and_does_not_read(front, b"GET big\r\n", 400)
            host, port = many.get_extra_info("sockname")
            await eventually(lambda: front.log.events("client_closed"))
            (line,) = front.log.events("client_closed")
            assert line["client"] == f"{host}:{port}"
            assert "maxmemory-clients" in str(line["error"])
            assert front.server.stats.clients_evicted == 1
            await eventually(lambda: len(front.server.clients) == 2)
            await ping(front)
            for each in (few, many, writer):
                each.close()

    run(new_loop, scenario())


@pytest.mark.usefixtures("watchful")
@on_both_loops
def test_budget__many_half_commands__all_are_finished(redis_server: RedisServer, new_loop: NewLoop) -> None:
    async def scenario() -> None:
        async with fronting(redis_server.node, Limits(memory=4 * MIB)) as front:
            clients = [await front.connect() for _ in range(10)]
            for _, writer in clients:
                writer.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (2 * MIB) + b"x" * MIB)
            await eventually(lambda: front.server.budget.over)
            await ping(front)
            for _, writer in clients:
                writer.write(b"x" * MIB + b"\r\n")
            for reader, writer in clients:
                assert await reader.readline() == b"+OK\r\n"
                writer.close()
            assert not front.log.events("client_closed")
            await eventually(lambda: not front.server.clients)
            assert (front.server.budget.used, front.server.stats.clients_stopped) == (0, 0)

    run(new_loop, scenario())


@pytest.mark.usefixtures("watchful")
@on_both_loops
def test_budget__more_than_a_turn_takes__all_is_answered(
    redis_server: RedisServer, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "TURN", MIB)

    async def scenario() -> None:
        async with fronting(redis_server.node, Limits(memory=4 * MIB)) as front:
            clients = [await front.connect() for _ in range(50)]
            for _, writer in clients:
                writer.write(b"SET k %b\r\n" % (b"x" * 10_000) * 60)
            for reader, writer in clients:
                assert await reader.readexactly(5 * 60) == b"+OK\r\n" * 60
                writer.close()
            await eventually(lambda: not front.server.clients)
            assert (front.server.budget.used, front.server.stats.clients_stopped) == (0, 0)

    run(new_loop, scenario())


# --- clients that say too much, or nothing


async def test_a_command_above_the_query_limit_ends_the_connection(redis_server: RedisServer) -> None:
    async with fronting(redis_server.node, Limits(query=MIB)) as front:
        reader, writer = await front.connect()
        writer.write(b"*2\r\n$4\r\nECHO\r\n$2000000\r\n" + b"x" * 1_999_999)
        await ended(reader)
        await eventually(lambda: not front.server.clients)
        await ping(front)
        writer.close()


@pytest.mark.usefixtures("watchful")
async def test_idle_clients_are_closed_and_those_who_wait_are_not(redis_server: RedisServer) -> None:
    async with fronting(redis_server.node, Limits(idle=0.1)) as front:
        waiting = {}
        for command in (b"BLPOP list 0", b"SUBSCRIBE news", b"MONITOR"):
            waiting[command] = await front.connect()
            waiting[command][1].write(command + b"\r\n")
        held_reader, held = await front.connect()
        held.write(b"SET k v\r\n")
        assert await held_reader.readline() == b"+OK\r\n"
        await waiting[b"SUBSCRIBE news"][0].readline()
        await waiting[b"MONITOR"][0].readline()
        redis_server.freeze()
        held.write(b"GET k\r\n")
        for _ in range(2):  # the second one outlives all who would have been taken for idle with the first
            idle_reader, idle = await front.connect()
            assert await idle_reader.read() == b""
            idle.close()
        redis_server.thaw()
        assert await held_reader.readline() == b"$1\r\n"
        other_reader, other = await front.connect()
        other.write(b"RPUSH list x\r\nPUBLISH news x\r\n")
        assert await other_reader.readline() == b":1\r\n"
        for reader, _ in waiting.values():
            assert await reader.readline()
        for _, writer in [*waiting.values(), (None, held), (None, other)]:
            writer.close()
        assert front.log.events("idle_closed")


@pytest.mark.usefixtures("watchful")
async def test_the_time_of_an_idle_client_counts_from_its_last_answer(redis_server: RedisServer) -> None:
    async with fronting(redis_server.node, Limits(idle=0.2)) as front:
        reader, writer = await front.connect()
        loop = asyncio.get_running_loop()
        writer.write(b"BLPOP nothing 0.5\r\n")
        assert await reader.readline() == b"*-1\r\n"
        answered = loop.time()
        assert await reader.read() == b""
        assert loop.time() - answered > 0.15
        writer.close()


async def test_without_strain_and_timeout_nobody_is_looked_at(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr(server_module, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(server_module, "notice_vanished", looks.append)
    for _ in range(10):
        await ping(front)
    assert not looks


# --- clients that vanish


async def test_clients_that_vanish_leave_nothing_behind(front: Front) -> None:
    for _ in range(50):
        _, writer = await front.connect()
        writer.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf of it")
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await eventually(lambda: front.server.stats.clients_total == 50 and front.server.stats.clients == 0)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Session)]


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.usefixtures("watchful")
@on_both_loops
def test_a_blocked_client_that_has_more_to_say_is_missed_when_it_vanishes(
    redis_server: RedisServer, new_loop: NewLoop, how: str
) -> None:
    async def scenario() -> None:
        async with fronting(redis_server.node) as front:
            _, writer = await front.connect()
            writer.write(b"BLPOP nothing 0\r\n" + b"SET k %b\r\n" % (b"x" * 1000) * 2000)
            await writer.drain()
            await eventually(
                lambda: any(one.unprocessed > 2_000_000 for one in sessions_of(front.server.router).values())
            )
            if how == "reset":
                vanish(writer)
            else:
                writer.close()
            await eventually(lambda: not front.server.clients)

    run(new_loop, scenario())


@pytest.mark.usefixtures("watchful")
@on_both_loops
def test_a_client_whose_commands_are_held_is_missed_when_it_vanishes(
    redis_server: RedisServer, new_loop: NewLoop
) -> None:
    async def scenario() -> None:
        async with fronting(redis_server.node) as front:
            redis_server.freeze()
            _, writer = await front.connect()
            writer.write(b"SET k %b\r\n" % (b"x" * 1000) * 4000)
            await eventually(lambda: any(client.strained for client in front.server.clients))
            vanish(writer)
            await eventually(lambda: not front.server.clients)
            redis_server.thaw()

    run(new_loop, scenario())


# --- what the session and the kernel are told


@pytest.mark.parametrize(("seconds", "options"), [(0, None), (90, (90, 30, 3)), (2, (2, 1, 3))])
async def test_the_kernel_asks_after_silent_clients_as_redis_has_it_ask(
    redis_server: RedisServer, seconds: int, options: tuple[int, int, int] | None
) -> None:
    async with fronting(redis_server.node, Limits(keepalive=seconds)) as front:
        _, writer = await front.connect()
        await eventually(lambda: front.server.clients)
        with socket.socket(fileno=os.dup(client_of(front, writer).fd)) as sock:
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            asked = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            assert asked is (options is not None)
            assert options is None or tuple(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names) == options
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0, "it would end who does not read"
        writer.close()


@on_both_loops
def test_a_client_knows_its_socket_and_what_waits_for_it_and_can_be_closed_at_once(
    redis_server: RedisServer, new_loop: NewLoop
) -> None:
    async def scenario() -> None:
        async with fronting(redis_server.node) as front:
            reader, writer = await front.connect()
            writer.write(b"SET big %b\r\n" % (b"x" * 60_000) + b"GET big\r\n" * 500)
            await eventually(lambda: front.server.clients)
            client = client_of(front, writer)
            await eventually(lambda: client.unread > MIB)
            client.abort()
            assert client.fd == -1
            assert len(await ended(reader)) < 500 * 60_000
            assert client.unread == 0
            writer.close()

    run(new_loop, scenario())


class Listener:
    """A server whose receive window is small; it greets as a master does, and then reads when it is told to."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)

    @property
    def node(self) -> Node:
        return Node(*self.listener.getsockname())

    async def accept(self) -> socket.socket:
        """A connection, with its greeting answered."""
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(self.listener)
        assert b"ROLE" in await loop.sock_recv(sock, 4096)
        await loop.sock_sendall(sock, b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n$-1\r\n:7\r\n")
        return sock


def closed(sock: socket.socket) -> bool:
    """Whether the kernel has been told by the other one that the connection is no more (TCP_CLOSE)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7


def waiting(sock: socket.socket) -> int:
    """Bytes that the kernel holds for a socket's reader."""
    size = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return int.from_bytes(size, sys.byteorder)


@on_both_loops
def test_upstream__aborted__nothing_arrives_later(new_loop: NewLoop) -> None:
    """The peer reads when the proxy has acknowledged another epoch: only what it had, and a reset."""

    async def scenario() -> None:
        peer = Listener()
        async with fronting(peer.node) as front:
            _, writer = await front.connect()
            writer.write(encode_command([b"SET", b"k", bytes(900_000)]))
            sock = await peer.accept()
            await eventually(lambda: any(lane.in_flight for lane in front.server.router.lanes))
            acknowledged: list[int] = []
            front.server.on_acknowledge = acknowledged.append
            await eventually(lambda: waiting(sock))
            front.server.router.apply(Topology(2, Phase.FENCING), front.server.now())
            assert acknowledged == [2]
            await eventually(lambda: closed(sock))
            had = waiting(sock)
            assert len(sock.recv(1 << 20)) == had
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            sock.close()
            writer.close()
        peer.listener.close()

    run(new_loop, scenario())


def test_failure__limit_of_this_host__is_named() -> None:
    assert "ulimit -n" in failure(OSError(errno.EMFILE, "Too many open files"))
    assert "ip_local_port_range" in failure(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"))
    assert failure(ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")) == "Connection refused"
    assert failure(socket.gaierror(-2, "Name or service not known")) == (
        "its name cannot be looked up: Name or service not known"
    )
    assert failure(UnicodeError("label empty or too long")) == "label empty or too long"


async def test_client_leaves__it_waits_for_an_element__its_connection_to_the_server_goes_at_once(
    front: Front, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server popped for it in the meantime would be lost."""
    monkeypatch.setattr(departures_module, "AT_ONCE", 1)
    address = front.address
    clients = [await asyncio.open_connection(address.host, address.port) for _ in range(40)]
    for _, writer in clients:
        writer.write(b"BLPOP q 0\r\n")
    await eventually(lambda: redis_server.info("clients")["blocked_clients"] == 40)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    for _, blocked in clients:
        blocked.transport.abort()
    for command, reply in (
        (b"SET k v", b"+OK"),
        (b"RPUSH q 1", b":1"),
    ):  # SET: the ends have arrived
        writer.write(command + b"\r\n")
        assert await reader.readline() == reply + b"\r\n"
    assert redis_server.command("LLEN", "q") == 1
    writer.close()


async def test_client_leaves__not_among_many__nothing_waits_for_it(front: Front, redis_server: RedisServer) -> None:
    """Else each blocked client that leaves would hold up the scripts of all others."""
    _, writer = await asyncio.open_connection(front.address.host, front.address.port)
    writer.write(b"BLPOP q 0\r\n")
    await eventually(lambda: redis_server.info("clients")["blocked_clients"] == 1)
    writer.transport.abort()
    await eventually(lambda: front.server.stats.clients == 0)
    assert not front.server.router.leaving


async def test_departure__something_is_wrong_with_it__the_client_is_gone_all_the_same(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Session, now: float, *, left: bool = True) -> None:
        raise ValueError("something is wrong")

    monkeypatch.setattr(Session, "finish", fail)
    _, writer = await asyncio.open_connection(front.address.host, front.address.port)
    await eventually(lambda: front.server.stats.clients == 1)
    writer.write_eof()
    await eventually(lambda: front.server.stats.clients == 0)
    writer.close()
