"""Connections by name, whatever the name service does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog
import uvloop

from rfprotocol.errors import Failure, NodeUnreachable
from rfprotocol.network import resolver as resolver_module
from rfprotocol.network.resolver import Resolver, look_up
from rfprotocol.topology.topology import Node
from tests.support.eventually import eventually
from tests.support.hosts import Network
from tests.support.names import LookUps


@pytest.fixture
def names() -> Iterator[LookUps]:
    names = LookUps()
    yield names
    names.speaks.set()


@pytest.fixture
def resolver(names: LookUps) -> Iterator[Resolver]:
    resolver = Resolver(look_up=names.look_up)
    yield resolver
    resolver.close()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that answers nothing at all."""
    with Network() as network:
        host = network.host()
        network.drop_to(host)
        yield host.address


@contextlib.asynccontextmanager
async def listening(*hosts: str) -> AsyncIterator[tuple[int, list[str]]]:
    """A port where these addresses are listened at, and those that were connected to."""
    reached: list[str] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer.get_extra_info("sockname")[0])
        writer.close()

    servers = [await asyncio.start_server(accept, hosts[0], 0)]
    port = servers[0].sockets[0].getsockname()[1]
    servers += [await asyncio.start_server(accept, host, port) for host in hosts[1:]]
    yield port, reached
    for server in servers:
        server.close()


async def reach(resolver: Resolver, host: str, port: int) -> str:
    """The address that was connected to."""
    transport, _ = await resolver.connect(Node(host, port), asyncio.Protocol)
    peer: str = transport.get_extra_info("peername")[0]
    transport.close()
    return peer


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_connect__name_service_silent__last_known_address_at_once(
    loop: Callable[[], asyncio.AbstractEventLoop], names: LookUps, resolver: Resolver
) -> None:
    async def trial() -> None:
        names.says["db"] = ["127.0.0.1"]
        async with listening("127.0.0.1") as (port, _):
            assert await reach(resolver, "db", port) == "127.0.0.1"
            names.speaks.clear()
            resolver.doubt("db")
            await eventually(lambda: len(names.asked) == 2)
            assert await reach(resolver, "db", port) == "127.0.0.1"
            sock = await resolver.open(Node("db", port))
            assert sock.getpeername()[0] == "127.0.0.1"
            sock.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(trial())


async def test_followed_names__nobody_connects__looked_up_ahead(names: LookUps, resolver: Resolver) -> None:
    names.says |= {"a": ["127.0.0.1"], "b": ["127.0.0.2"]}
    resolver.follow("me", ["a", "b", "10.0.0.1"])
    await eventually(lambda: resolver.knows("a") and resolver.knows("b"))
    assert sorted(names.asked) == ["a", "b"]
    names.says["a"] = ["127.0.0.3"]
    await eventually(lambda: len(names.asked) >= 4)
    await eventually(lambda: resolver.known["a"] == ("127.0.0.3",))


async def test_connect__nobody_listens_there_any_more__name_looked_up_again(names: LookUps, resolver: Resolver) -> None:
    names.says["db"] = ["127.0.0.1"]
    async with listening("127.0.0.2") as (port, _):
        with pytest.raises(ConnectionRefusedError):
            await reach(resolver, "db", port)
        names.says["db"] = ["127.0.0.2"]
        async with asyncio.timeout(2.0):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    assert await reach(resolver, "db", port) == "127.0.0.2"
                    break
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        UnicodeError("label empty or too long"),
        ValueError("embedded null character"),
        OSError("no more files"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_locate__look_up_fails__unresolved_in_its_words(
    error: Exception, names: LookUps, resolver: Resolver
) -> None:
    names.says["db"] = error
    with pytest.raises(NodeUnreachable, match=f"its name cannot be looked up: {error.args[-1]}") as unresolved:
        await resolver.locate("db")
    assert unresolved.value.reason is Failure.UNRESOLVED
    assert not resolver.knows("db")


async def test_locate__silent_from_the_beginning__unresolved_in_time_and_then_found(
    names: LookUps, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfprotocol.network.address_cache.PATIENCE", 0.1)
    names.says["db"] = ["127.0.0.1"]
    names.speaks.clear()
    with pytest.raises(NodeUnreachable, match="has not answered"):
        await resolver.locate("db")
    names.speaks.set()
    await eventually(lambda: resolver.knows("db"))
    assert await resolver.locate("db") == ("127.0.0.1",)
    assert names.asked == ["db"], "what takes long is not asked again meanwhile"


async def test_locate__many_at_once_and_some_leave__one_look_up(names: LookUps, resolver: Resolver) -> None:
    names.says["db"] = ["127.0.0.1"]
    names.speaks.clear()
    waiting = [asyncio.ensure_future(resolver.locate("db")) for _ in range(20)]
    await eventually(lambda: names.asked)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.sleep(0)
    names.speaks.set()
    assert await asyncio.gather(*waiting[1::2]) == [("127.0.0.1",)] * 10
    assert names.asked == ["db"]


async def test_look_up__fails_when_nobody_waits_any_more__nothing_is_complained_of(
    names: LookUps, resolver: Resolver
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    names.says["db"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    names.speaks.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await resolver.connect(Node("db", 1), asyncio.Protocol)
    names.speaks.set()
    with pytest.raises(NodeUnreachable):
        await resolver.locate("db")
    assert complaints == []


async def test_connect__first_family_leads_nowhere__next_one_in_time_and_first_from_then_on(
    names: LookUps, resolver: Resolver, black_hole: str
) -> None:
    async with listening("127.0.0.1") as (port, _):
        names.says["db"] = [black_hole, "127.0.0.1"]
        async with asyncio.timeout(0.4):
            assert await reach(resolver, "db", port) == "127.0.0.1"
        assert list(await resolver.locate("db")) == ["127.0.0.1", black_hole]


async def test_connect__many_lead_nowhere__the_last_one_in_time(
    names: LookUps, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name that stands for many hosts, most of which are gone."""
    attempt = resolver_module._attempt  # of 30 hosts that say nothing, as far as this can tell

    async def silent(address: str, port: int) -> socket.socket:
        if address.startswith("192.0.2."):
            await asyncio.Event().wait()
        return await attempt(address, port)

    monkeypatch.setattr(resolver_module, "_attempt", silent)
    async with listening("127.0.0.1") as (port, _):
        names.says["db"] = [*(f"192.0.2.{number}" for number in range(1, 31)), "127.0.0.1"]
        async with asyncio.timeout(1.0):
            assert await reach(resolver, "db", port) == "127.0.0.1"


async def test_connect__one_refuses_and_one_leads_nowhere__refused_in_time(
    names: LookUps, resolver: Resolver, black_hole: str
) -> None:
    async with listening("127.0.0.1") as (port, _):
        pass
    for addresses in ([black_hole, "127.0.0.1"], ["127.0.0.1", black_hole]):
        names.says["db"] = addresses
        with pytest.raises(ConnectionRefusedError):
            async with asyncio.timeout(0.4):
                await resolver.connect(Node("db", port), asyncio.Protocol)


async def test_connect__first_refuses__next_one(names: LookUps, resolver: Resolver) -> None:
    async with listening("127.0.0.2", "127.0.0.3") as (port, reached):
        names.says["db"] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        assert await reach(resolver, "db", port) == "127.0.0.2"
        await eventually(lambda: reached)
        assert reached == ["127.0.0.2"]


async def test_connect__nothing_comes_of_it_within_a_moment__name_looked_up_again(
    names: LookUps, resolver: Resolver, black_hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have moved, and nobody refuses at its former address."""
    monkeypatch.setattr("rfprotocol.network.address_cache.REFRESH", 600.0)
    names.says["db"] = [black_hole]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await resolver.connect(Node("db", 1), asyncio.Protocol)
    assert len(names.asked) > 1


async def test_log__what_the_name_service_does__once_for_each_change(names: LookUps, resolver: Resolver) -> None:
    with structlog.testing.capture_logs() as lines:
        resolver = Resolver(look_up=names.look_up)
        steps: list[Sequence[str] | Exception] = [
            ["127.0.0.1"],
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
            ["127.0.0.1"],
            ["127.0.0.2"],
        ]
        for step in steps:
            names.says["db"] = step
            names.asked.clear()
            resolver.doubt("db")
            await resolver.locate("db")
            await eventually(lambda: names.asked and not resolver._cache._names["db"].under_way)
    resolver.close()
    assert [(line["event"], line["host"]) for line in lines] == [
        ("name_unresolved", "db"),
        ("name_resolved", "db"),
        ("name_moved", "db"),
    ]
    assert lines[0]["last_known"] == "127.0.0.1"


async def test_log__slow_answer__said(names: LookUps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "SLOW_LOOKUP", 0.0)
    names.says["db"] = ["127.0.0.1"]
    with structlog.testing.capture_logs() as lines:
        resolver = Resolver(look_up=names.look_up)
        await resolver.locate("db")
    resolver.close()
    assert [line["event"] for line in lines] == ["name_service_slow"]


async def test_subscribe__addresses_change__told_all(names: LookUps, resolver: Resolver) -> None:
    told: list[dict[str, Sequence[str]]] = []
    resolver.subscribe(lambda known: told.append(dict(known)))
    names.says |= {"a": ["127.0.0.1"], "b": ["127.0.0.2"]}
    await resolver.locate("a")
    await resolver.locate("b")
    assert told == [{"a": ("127.0.0.1",)}, {"a": ("127.0.0.1",), "b": ("127.0.0.2",)}]


def test_end_of_the_process__name_service_silent__not_held_up() -> None:
    """The event loops' own getaddrinfo holds it up for as long as the resolver of the system is patient."""
    code = """
import asyncio, threading, uvloop
from rfprotocol.network.resolver import Resolver

async def main():
    resolver = Resolver(look_up=lambda host: threading.Event().wait())
    resolver.follow("me", [f"db{n}" for n in range(10)])
    await asyncio.sleep(0.1)
    assert threading.active_count() == 11

uvloop.run(main())
print("ended")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate(timeout=20.0)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    assert said == "ended\n"


def test_follow__outside_of_an_event_loop__noted(names: LookUps, resolver: Resolver) -> None:
    names.says["db"] = ["127.0.0.1"]
    resolver.follow("me", ["db"])
    assert names.asked == []
    assert asyncio.run(resolver.locate("db")) == ("127.0.0.1",)


def test_look_up__of_the_system__finds_this_host_and_refuses_what_is_none() -> None:
    assert set(look_up("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(UnicodeError):
        look_up("db..example")
