"""A TCP relay between two processes, which does to their connections what bad networks do.

    async with Relay("127.0.0.1", server.port) as relay:
        connect(relay.port)
        relay.delay(0.2)

Every fault concerns the connections that are open and those to come, until it is undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Self

_CHUNK = 64 * 1024
_UNDER_WAY = 256
"""Chunks that are read ahead of their time; whoever sends more has to wait."""
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST."""


class Way:
    """One direction of all connections."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds
        self._open = asyncio.Event()
        self._open.set()

    def stall(self) -> None:
        """Nothing arrives any more, and nothing is lost."""
        self._open.clear()

    def flow(self) -> None:
        """What was held arrives."""
        self._open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the sender has closed and everything has arrived. Raises OSError."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)
        await _both(self._take(reader, under_way), self._deliver(under_way, writer))

    async def _take(self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        now = asyncio.get_running_loop().time
        while chunk := await reader.read(_CHUNK):
            await under_way.put((now() + self.delay, chunk))
        await under_way.put((now() + self.delay, b""))

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, chunk = await under_way.get()
            await asyncio.sleep(due - now())
            await self._open.wait()
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()


class Relay:
    """Listens on `host`:`port` and connects to `target_host`:`target_port` for everyone who comes."""

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port  # 0 until the block begins: any
        self.there = Way()
        self.back = Way()
        self._target = (target_host, target_port)
        self._listener: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    def delay(self, seconds: float) -> None:
        """Whatever is sent arrives later by so much, in each direction."""
        self.there.delay = self.back.delay = seconds

    def stall(self) -> None:
        """Connections are open, are also accepted, and silent in both directions."""
        self.there.stall()
        self.back.stall()

    def flow(self) -> None:
        """Go on after `stall`."""
        self.there.flow()
        self.back.flow()

    async def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._end_all()

    async def mend(self) -> None:
        """Accept connections after `cut`."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, self.host, self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def reset(self) -> None:
        """Both ends of all connections hear RST; new ones are accepted."""
        for end in self._ends:
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        await self._end_all()

    async def _end_all(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        for end in self._ends:  # of links that were cancelled before they began
            end.transport.abort()
        self._ends.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        link = asyncio.get_running_loop().create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        try:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                ends.add(far_writer)
                self._ends.add(far_writer)
                await _both(self.there.carry(reader, far_writer), self.back.carry(far_reader, writer))
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()


async def _both(one: Coroutine[None, None, None], other: Coroutine[None, None, None]) -> None:
    """Until both have ended, or one has failed: then the other is cancelled. Raises OSError."""
    broken: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(one)
            group.create_task(other)
    except* OSError as errors:
        broken = errors
    if broken is not None:
        raise OSError(str(broken)) from None
