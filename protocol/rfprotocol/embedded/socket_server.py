"""Lets other processes use a store, over a unix socket: the embedded proxy's, for the commands of operators.

Each connection is a session of its own; what it announced vanishes when it ends. A client that says nothing for as long
as a session lives, sends what is not to be understood, or does not read what it asked for, is disconnected: it costs a
connection, and nobody else notices.

Needs asyncio: it serves connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import structlog

from rfprotocol.embedded import socket_protocol
from rfprotocol.embedded.socket_protocol import Message
from rfprotocol.errors import StoreError
from rfprotocol.store.interface import Entry, Fence, TopologyStore

MOST_CLIENTS = 32
"""Connections at a time."""
SILENCE = 10.0
"""Seconds without a whole message after which a session is over, and that a client has to read an answer."""
GREETING = 2.0
"""Seconds for the first message."""
MOST_HELD = 100
"""Watches of a client, and campaigns."""
MOST_UNREAD = 1 << 20
"""Bytes of news that wait for a client to read them."""


def open_socket(path: Path) -> socket.socket:
    """A socket that only this user may connect to, in place of a stale one. Raises OSError.

    To be called by whoever has a claim on the folder: what is there belongs to a process that has ended.
    """
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # chmod would come too late
    try:
        with short(path) as address:
            sock.bind(address)
        sock.listen(MOST_CLIENTS)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """The same path, by a name that fits into an address, which has 108 bytes (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class StoreServer:
    """`new_store` makes a client of the store that is served; `notice` is what operators should know with each answer.

    Serves from `open` to `close`.
    """

    def __init__(self, new_store: Callable[[], TopologyStore], notice: Callable[[], str] = lambda: "") -> None:
        self._new_store = new_store
        self._notice = notice
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self, sock: socket.socket) -> None:
        """Serve whoever connects to it."""
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=1 << 16)

    async def close(self) -> None:
        """Serve nobody any more."""
        if self._server is not None:
            self._server.close()
        for writer in self._clients.values():
            writer.transport.abort()  # asyncio complains of such a task when it is cancelled
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MOST_CLIENTS:
            writer.transport.abort()
            return
        self._clients[task] = writer
        try:
            await self._greet(reader, writer)
        except (OSError, EOFError):  # among them TimeoutError, IncompleteReadError: it has left, or hangs
            pass
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            structlog.get_logger().warning("operator_disconnected", error=f"not to be understood: {error!r}")
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            del self._clients[task]

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(GREETING):
            version = (await _receive(reader))["v"]
        if version != socket_protocol.VERSION:
            await _send(writer, {"v": socket_protocol.VERSION})
            return
        store = self._new_store()
        await store.start()
        connection = _Connection(store, writer)
        try:
            await _send(writer, {"v": socket_protocol.VERSION, "session": store.session, "notice": self._notice()})
            while not connection.ended:
                async with asyncio.timeout(SILENCE):
                    message = await _receive(reader)
                await connection.hear(message)
        finally:
            await connection.close()
            await store.close()


class _Connection:
    """One client's calls, one after the other. A campaign alone, which may wait for ever, does not hold up others."""

    def __init__(self, store: TopologyStore, writer: asyncio.StreamWriter) -> None:
        self.ended = False
        self._store = store
        self._writer = writer
        self._watches: dict[int, Callable[[], None]] = {}
        self._campaigns: dict[int, asyncio.Task[None]] = {}
        self._calls: dict[str, Callable[[Message], Awaitable[object]]] = {
            "read": self._read,
            "read_children": self._read_children,
            "read_some": self._read_some,
            "commit": self._commit,
            "watch": self._watch,
            "end_watch": self._end_watch,
            "announce": self._announce,
            "withdraw": self._withdraw,
            "resign": self._resign,
            "prove_alive": self._prove_alive,
            "cancel": self._cancel,
            "close": self._close,
        }

    async def close(self) -> None:
        """The client has left."""
        campaigns = list(self._campaigns.values())
        for task in campaigns:
            task.cancel()
        for end in self._watches.values():
            end()
        await asyncio.gather(*campaigns, return_exceptions=True)

    async def hear(self, message: Message) -> None:
        """Do what is asked, and answer. Raises ValueError, TypeError, KeyError for what cannot be understood."""
        number, call = int(message["id"]), socket_protocol.word(message["call"])
        if call == "campaign":
            path, name = socket_protocol.word(message["path"]), socket_protocol.word(message["name"])
            _check_room(self._campaigns, number)
            self._campaigns[number] = asyncio.create_task(self._campaign(number, path, name))
            return
        try:
            result = await self._calls[call](message)
        except StoreError as error:
            await self._refuse(number, error)
        else:
            await self._answer(number, result)

    async def _read(self, message: Message) -> object:
        return socket_protocol.plain_entry(await self._store.read(socket_protocol.word(message["path"])))

    async def _read_children(self, message: Message) -> object:
        return _plain_entries(await self._store.read_children(socket_protocol.word(message["path"])))

    async def _read_some(self, message: Message) -> object:
        names = [socket_protocol.word(name) for name in message["names"]]
        return _plain_entries(await self._store.read_some(socket_protocol.word(message["path"]), names))

    async def _commit(self, message: Message) -> None:
        fence = Fence(socket_protocol.word(message["fence"])) if message["fence"] is not None else None
        await self._store.commit(*map(socket_protocol.change, message["changes"]), fence=fence)

    async def _announce(self, message: Message) -> None:
        await self._store.announce(socket_protocol.word(message["path"]), socket_protocol.data(message["data"]))

    async def _withdraw(self, message: Message) -> None:
        await self._store.withdraw(socket_protocol.word(message["path"]))

    async def _resign(self, message: Message) -> None:
        await self._store.resign(Fence(socket_protocol.word(message["path"])))

    async def _prove_alive(self, message: Message) -> None:
        await self._store.prove_alive()

    async def _cancel(self, message: Message) -> None:
        if campaign := self._campaigns.get(int(message["campaign"])):
            campaign.cancel()
            await asyncio.wait([campaign])

    async def _close(self, message: Message) -> None:
        self.ended = True
        await self._store.close()

    async def _watch(self, message: Message) -> None:
        path, key = socket_protocol.word(message["path"]), int(message["key"])
        _check_room(self._watches, key)
        self._watches[key] = self._store.watch_each(path, partial(self._tell, key))

    async def _end_watch(self, message: Message) -> None:
        if end := self._watches.pop(int(message["key"]), None):
            end()

    def _tell(self, key: int, child: str) -> None:
        transport = self._writer.transport
        if transport.get_write_buffer_size() > MOST_UNREAD:
            transport.abort()
        elif not transport.is_closing():
            self._writer.write(socket_protocol.pack({"watch": key, "child": child}, socket_protocol.MOST_ANSWERED))

    async def _campaign(self, number: int, path: str, name: str) -> None:
        try:
            fence = await self._store.campaign(path, name)
        except StoreError as error:
            await self._refuse(number, error)
        else:
            await self._answer(number, fence.path)
        finally:
            del self._campaigns[number]

    async def _answer(self, number: int, result: object) -> None:
        await _send(self._writer, {"id": number, "result": result})

    async def _refuse(self, number: int, error: StoreError) -> None:
        await _send(self._writer, {"id": number, "error": type(error).__name__, "text": str(error)})


def _check_room(held: Mapping[int, object], number: int) -> None:
    if number in held or len(held) >= MOST_HELD:
        raise ValueError(f"number {number} is used already, or {MOST_HELD} are")


def _plain_entries(entries: Mapping[str, Entry]) -> dict[str, object]:
    return {name: socket_protocol.plain_entry(entry) for name, entry in entries.items()}


async def _receive(reader: asyncio.StreamReader) -> Message:
    size = socket_protocol.size_of(await reader.readexactly(socket_protocol.SIZE.size), socket_protocol.MOST_ASKED)
    return socket_protocol.unpack(await reader.readexactly(size))


async def _send(writer: asyncio.StreamWriter, message: Message) -> None:
    writer.write(socket_protocol.pack(message, socket_protocol.MOST_ANSWERED))
    async with asyncio.timeout(SILENCE):
        await writer.drain()
