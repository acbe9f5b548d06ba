"""The client of a store in another process, beyond the contract of `test_store`: that process is replaced, or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rfprotocol.embedded import socket_client, socket_protocol
from rfprotocol.embedded.socket_client import RemoteStore
from rfprotocol.embedded.socket_server import StoreServer, open_socket
from rfprotocol.errors import StoreConflict, StoreUnavailable
from rfprotocol.store.interface import Put, StoreState
from rfprotocol.store.memory import MemStore, MemTree
from tests.support.eventually import eventually
from tests.support.stores import Changes, States


@contextlib.asynccontextmanager
async def serving(path: Path, tree: MemTree) -> AsyncIterator[StoreServer]:
    server = StoreServer(lambda: MemStore(tree))
    await server.open(open_socket(path))
    yield server
    await server.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / socket_protocol.SOCKET


@pytest.fixture
def tree() -> MemTree:
    return MemTree(asyncio.Event)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[RemoteStore]:
    """Started."""
    store = RemoteStore(path)
    await store.start()
    yield store
    await store.close()


async def troubled(store: RemoteStore) -> str:
    """Why it cannot connect."""
    await eventually(lambda: store.trouble)
    return store.trouble


async def test_nobody_serves__is_a_state_with_a_reason(store: RemoteStore) -> None:
    assert await troubled(store) == "No such file or directory"
    assert store.state is StoreState.LOST
    with pytest.raises(StoreUnavailable, match="No such file or directory"):
        await store.read("/a")


async def test_socket_of_a_killed_process__is_named(path: Path, store: RemoteStore) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    await eventually(lambda: store.trouble == "Connection refused")


async def test_server_comes_later_and_is_replaced__new_session_and_watches_are_told(
    path: Path, tree: MemTree, store: RemoteStore
) -> None:
    states, changes = States(store), Changes(store, "/a")
    async with serving(path, tree):
        await states.until(StoreState.CONNECTED)
        await changes.next()
        await store.announce("/p", b"")
        session = store.session
    await states.until(StoreState.LOST)
    with pytest.raises(StoreUnavailable):
        await store.read("/a")
    async with serving(path, tree):
        await changes.next()
        assert store.session != session
        assert await store.read("/p") is None
        await store.commit(Put("/a", b""))
        await changes.next()
    await states.until(StoreState.LOST)
    assert states.seen == [StoreState.CONNECTED, StoreState.LOST] * 2


async def test_campaign__server_is_replaced__goes_on(path: Path, store: RemoteStore) -> None:
    campaign = asyncio.create_task(store.campaign("/lock", "waiting"))
    tree = MemTree(asyncio.Event)
    leader = MemStore(tree)
    await leader.start()
    await leader.campaign("/lock", "leader")
    async with serving(path, tree):
        await eventually(lambda: len(tree.children("/lock")) == 2)
    async with serving(path, MemTree(asyncio.Event)):
        fence = await campaign
        await store.commit(Put("/nodes", b""), fence=fence)


async def test_campaign__cancelled__withdraws(path: Path, tree: MemTree, store: RemoteStore) -> None:
    async with serving(path, tree):
        leader = MemStore(tree)
        await leader.start()
        await leader.campaign("/lock", "leader")
        campaign = asyncio.create_task(store.campaign("/lock", "waiting"))
        await eventually(lambda: len(tree.children("/lock")) == 2)
        campaign.cancel()
        with pytest.raises(asyncio.CancelledError):
            await campaign
        assert len(tree.children("/lock")) == 1


async def test_campaign__store_is_closed__ends(store: RemoteStore) -> None:
    campaign = asyncio.create_task(store.campaign("/lock", "waiting"))
    await troubled(store)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await campaign


async def test_server_hangs__calls_end_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(socket_protocol.pack({"v": socket_protocol.VERSION, "session": 1, "notice": ""}, 100))
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_unix_server(hang, sock=open_socket(path))
    store = RemoteStore(path, request_timeout=0.05)
    states = States(store)
    await store.start()
    await states.until(StoreState.CONNECTED)
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0.05 s"):
        await store.read("/a")
    await store.close()
    server.close()


async def test_server_says_nothing__is_named(path: Path) -> None:
    with open_socket(path):
        store = RemoteStore(path, request_timeout=0.05)
        await store.start()
        assert await troubled(store) == "it does not answer"
        await store.close()


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        (
            socket_protocol.pack({"v": socket_protocol.VERSION + 1}, 100),
            "it is of another release: restart rfproxy, or use its own rfmanager",
        ),
        (b"\xff\xff\xff\xff", "a message of 4294967295 bytes, more than 67108864"),
        (b"", "it closed the connection"),
    ],
)
async def test_server__not_to_be_understood__is_named(path: Path, said: bytes, trouble: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=open_socket(path))
    store = RemoteStore(path)
    await store.start()
    assert await troubled(store) == trouble
    await store.close()
    server.close()


async def test_silent_client__is_kept_by_signs_of_life(
    path: Path, tree: MemTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "ALIVE", 0.0)
    proofs = 0

    class Counting(MemStore):
        async def prove_alive(self) -> None:
            nonlocal proofs
            proofs += 1

    server = StoreServer(lambda: Counting(tree))
    await server.open(open_socket(path))
    store = RemoteStore(path)
    await store.start()
    await eventually(lambda: proofs >= 3)
    await store.close()
    await server.close()


async def test_change__larger_than_a_message__is_refused(path: Path, tree: MemTree, store: RemoteStore) -> None:
    states = States(store)
    async with serving(path, tree):
        await states.until(StoreState.CONNECTED)
        with pytest.raises(StoreConflict, match="more than 1048576"):
            await store.commit(Put("/a", b"x" * socket_protocol.MOST_ASKED))
        await store.prove_alive()
