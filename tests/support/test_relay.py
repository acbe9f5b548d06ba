"""What tests rely upon when a path between two processes misbehaves."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Self

import pytest

from tests.support.relay import Relay

BIG = b"x" * 10_000_000


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


class Client:
    """A connection that is made when the block begins."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self._relay.host, self._relay.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def hears(self, said: bytes) -> bool:
        self.writer.write(said)
        return await self.reader.readexactly(len(said)) == said


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """In front of a server that says what it hears."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as relay:
        yield relay


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[Client]:
    async with Client(relay) as client:
        yield client


async def test_everything_passes_in_order(client: Client) -> None:
    assert await client.hears(b"hello")
    assert await client.hears(BIG)


async def test_the_end_of_one_side_is_told_to_the_other(client: Client) -> None:
    client.writer.write(b"the rest")
    client.writer.write_eof()
    assert await client.reader.read() == b"the rest"


async def test_a_delay_concerns_each_direction_and_not_the_rate(relay: Relay, client: Client) -> None:
    assert await client.hears(b"first")
    relay.delay(0.05)
    begun = time.monotonic()
    for number in range(20):
        client.writer.write(b"%02d" % number)
        await asyncio.sleep(0)
    assert await client.reader.readexactly(40) == b"".join(b"%02d" % number for number in range(20))
    assert 0.1 <= time.monotonic() - begun < 1.0


async def test_what_is_stalled_arrives_afterwards(relay: Relay, client: Client) -> None:
    relay.back.stall()
    answer = asyncio.ensure_future(client.hears(b"late"))
    async with Client(relay) as newcomer:
        newcomer.writer.write(b"later")
        await asyncio.sleep(0.02)
        assert not answer.done()
        relay.flow()
        assert await answer
        assert await newcomer.reader.readexactly(5) == b"later"


async def test_a_stalled_connection_can_be_cut(relay: Relay, client: Client) -> None:
    relay.stall()
    client.writer.write(b"lost")
    await relay.cut()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.reader.readexactly(1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(relay.host, relay.port)
    relay.flow()
    await relay.mend()
    async with Client(relay) as another:
        assert await another.hears(b"again")


async def test_a_reset_is_heard_as_such_and_the_next_connection_is_well(relay: Relay, client: Client) -> None:
    assert await client.hears(b"hello")
    await relay.reset()
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    async with Client(relay) as another:
        assert await another.hears(b"again")


async def test_what_breaks_on_one_side_is_closed_on_the_other(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what tests before this one have left behind
    caplog.clear()

    def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    async with server, Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as relay, Client(relay) as client:
        assert await client.reader.read() == b""
    gc.collect()
    assert caplog.records == []


async def test_a_connection_is_closed_when_there_is_nobody_behind_the_relay() -> None:
    async with Relay("127.0.0.1", 1) as relay, Client(relay) as client:
        assert await client.reader.read() == b""
