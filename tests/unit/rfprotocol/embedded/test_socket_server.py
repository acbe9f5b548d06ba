"""A store that other processes use: whatever a client does, it costs a connection, and others do not notice.

That it is a store like any other is the contract of `test_store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rfprotocol.embedded import socket_protocol, socket_server
from rfprotocol.embedded.socket_client import RemoteStore
from rfprotocol.embedded.socket_server import MOST_CLIENTS, MOST_HELD, StoreServer, open_socket
from rfprotocol.store.interface import Put, StoreState
from rfprotocol.store.memory import MemStore, MemTree
from tests.support.stores import States


@pytest.fixture
def tree() -> MemTree:
    return MemTree(asyncio.Event)


@pytest.fixture
async def server(tree: MemTree, tmp_path: Path) -> AsyncIterator[Path]:
    """Where it listens."""
    server = StoreServer(lambda: MemStore(tree))
    await server.open(open_socket(tmp_path / socket_protocol.SOCKET))
    yield tmp_path / socket_protocol.SOCKET
    await server.close()


@contextlib.asynccontextmanager
async def another(path: Path) -> AsyncIterator[RemoteStore]:
    """Somebody else, who does as he should."""
    store = RemoteStore(path)
    states = States(store)
    await store.start()
    await states.until(StoreState.CONNECTED)
    yield store
    await store.close()


class Raw:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, message: object) -> None:
        """One message."""
        data = json.dumps(message).encode()
        self.writer.write(struct.pack("!I", len(data)) + data)

    async def hear(self) -> object:
        """The next message."""
        (size,) = struct.unpack("!I", await self.reader.readexactly(4))
        return json.loads(await self.reader.readexactly(size))

    async def is_hung_up(self) -> bool:
        """Return when the server has closed the connection."""
        with contextlib.suppress(ConnectionResetError):
            await self.reader.read()
        return self.reader.at_eof() or self.reader.exception() is not None


@contextlib.asynccontextmanager
async def raw(path: Path, *, greets: bool = True) -> AsyncIterator[Raw]:
    client = Raw(*await asyncio.open_unix_connection(path))
    if greets:
        client.send({"v": socket_protocol.VERSION})
        assert isinstance(await client.hear(), dict)
    yield client
    client.writer.close()
    with contextlib.suppress(OSError):
        await client.writer.wait_closed()


def test_socket__anybody_else__may_not_connect(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with open_socket(tmp_path / socket_protocol.SOCKET):
            assert stat.S_IMODE((tmp_path / socket_protocol.SOCKET).stat().st_mode) == 0o600
    finally:
        assert os.umask(mask) == 0


async def test_socket__left_by_a_killed_process__is_replaced(tmp_path: Path, tree: MemTree) -> None:
    path = tmp_path / socket_protocol.SOCKET
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = StoreServer(lambda: MemStore(tree))
    await server.open(open_socket(path))
    async with another(path) as store:
        await store.prove_alive()
    await server.close()


async def test_socket__path_too_long_for_an_address__serves(tmp_path: Path, tree: MemTree) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    server = StoreServer(lambda: MemStore(tree))
    await server.open(open_socket(folder / socket_protocol.SOCKET))
    async with another(folder / socket_protocol.SOCKET) as store:
        await store.prove_alive()
    await server.close()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff\xff\xff\xff",  # 4 GiB
        struct.pack("!I", socket_protocol.MOST_ASKED + 1),
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x04\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!I", 100_000) + b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("greets", [False, True])
async def test_rubbish__is_disconnected_and_others_are_served(server: Path, rubbish: bytes, greets: bool) -> None:
    async with another(server) as store:
        async with raw(server, greets=greets) as client:
            with capture_logs() as lines:
                client.writer.write(rubbish)
                assert await client.is_hung_up()
        await store.prove_alive()
    assert [line["event"] for line in lines] == ["operator_disconnected"]


@pytest.mark.parametrize(
    "call",
    [
        {"call": "read", "path": "/a"},
        {"id": 1},
        {"id": 1, "call": "_do", "path": "/a"},
        {"id": 1, "call": ["read"], "path": "/a"},
        {"id": 1, "call": "read"},
        {"id": 1, "call": "read", "path": 7},
        {"id": "x", "call": "read", "path": "/a"},
        {"id": 1, "call": "commit", "changes": 7, "fence": None},
        {"id": 1, "call": "commit", "changes": [["put", "/a"]], "fence": None},
        {"id": 1, "call": "announce", "path": "/a", "data": "\u20ac"},
        {"id": 1, "call": "watch", "path": "/a", "key": None},
    ],
)
async def test_call__not_to_be_understood__is_disconnected(server: Path, tree: MemTree, call: object) -> None:
    async with raw(server) as client:
        client.send(call)
        assert await client.is_hung_up()
    assert tree.get("/a") is None
    assert tree.sessions == set()


async def test_client__of_a_later_release__is_told(server: Path) -> None:
    async with raw(server, greets=False) as client:
        client.send({"v": socket_protocol.VERSION + 1})
        assert await client.hear() == {"v": socket_protocol.VERSION}
        assert await client.is_hung_up()


@pytest.mark.parametrize("begun", [b"", b"\x00\x00", b"\x00\x00\x00\x20{"])
@pytest.mark.parametrize(("patience", "greets"), [("GREETING", False), ("SILENCE", True)])
async def test_client__hangs__is_disconnected_and_its_session_ends(
    server: Path, tree: MemTree, begun: bytes, patience: str, greets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, patience, 0.05)
    async with raw(server, greets=greets) as client:
        client.writer.write(begun)
        assert await client.is_hung_up()
    assert tree.sessions == set()


async def test_client__reads_nothing__is_disconnected_and_others_are_served(
    server: Path, tree: MemTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "SILENCE", 0.3)
    async with another(server) as store:
        await store.commit(Put("/big", b"x" * 900_000))
        async with raw(server) as client:
            assert len(tree.sessions) == 2
            for number in range(8):
                client.send({"id": number, "call": "read", "path": "/big"})
            while len(tree.sessions) == 2:
                await store.prove_alive()
        await store.prove_alive()


async def test_client__reads_no_news__is_disconnected(
    server: Path, tree: MemTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "MOST_UNREAD", 1000)
    async with another(server) as store, raw(server) as client:
        client.send({"id": 1, "call": "watch", "path": "/" + "a" * 2000, "key": 1})
        await client.hear()
        await store.commit(Put("/" + "a" * 2000, b""))
        while len(tree.sessions) == 2:  # until the buffers of the kernel are full, too
            for _ in range(100):
                await store.commit(Put("/" + "a" * 2000 + "/" + "b" * 4000, b""))
                await store.withdraw("/" + "a" * 2000 + "/" + "b" * 4000)


async def test_clients__too_many__no_more_are_served_until_one_leaves(server: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw(server)) for _ in range(MOST_CLIENTS)]
        refused = await stack.enter_async_context(raw(server, greets=False))
        assert await refused.is_hung_up()
        clients[0].writer.close()
        async with another(server) as store:  # it tries again
            await store.prove_alive()


@pytest.mark.parametrize("call", [{"call": "watch", "path": "/a"}, {"call": "campaign", "path": "/l", "name": "n"}])
async def test_client__holds_too_much__is_disconnected(server: Path, tree: MemTree, call: dict[str, object]) -> None:
    async with raw(server) as client:
        for number in range(MOST_HELD + 1):
            client.send({"id": number, "key": number, **call})
        assert await client.is_hung_up()
    assert tree.sessions == set()
    assert tree.children("/l") == {}


async def test_client__leaves_while_it_stands_for_election__is_no_contender_any_more(
    server: Path, tree: MemTree
) -> None:
    async with another(server) as store:
        await store.campaign("/lock", "first")
        async with raw(server) as client:
            client.send({"id": 1, "call": "campaign", "path": "/lock", "name": "second"})
            client.send({"id": 2, "call": "prove_alive"})
            await client.hear()
            assert len(tree.children("/lock")) == 2
        while len(tree.children("/lock")) == 2:
            await store.prove_alive()


async def test_clients_that_have_left__leave_nothing_behind(server: Path, tree: MemTree) -> None:
    for _ in range(3):
        async with another(server) as store:
            store.watch("/a", lambda: None)
            await store.announce("/a", b"")
    assert tree.sessions == set()
    assert tree.get("/a") is None
    assert tree._listeners == []


async def test_notice__of_the_server__reaches_its_clients(tmp_path: Path, tree: MemTree) -> None:
    server = StoreServer(lambda: MemStore(tree), lambda: "the disk is full")
    await server.open(open_socket(tmp_path / socket_protocol.SOCKET))
    async with another(tmp_path / socket_protocol.SOCKET) as store:
        assert store.notice == "the disk is full"
    await server.close()
