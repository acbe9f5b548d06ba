"""Fixtures of the tests of the shared library."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from rfprotocol.embedded.socket_client import RemoteStore
from rfprotocol.embedded.socket_protocol import SOCKET
from rfprotocol.embedded.socket_server import StoreServer, open_socket
from rfprotocol.store.interface import StoreState, TopologyStore
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.store.zookeeper import ZkStore
from tests.fuzz.conftest import build
from tests.support.stores import States

__all__ = ["build"]

NewStore = Callable[[], TopologyStore]
Connect = Callable[[], Awaitable[TopologyStore]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of a server with a tree in memory."""
    tree = MemTree(asyncio.Event)
    server = StoreServer(lambda: MemStore(tree))
    await server.open(open_socket(tmp_path / SOCKET))
    yield tmp_path / SOCKET
    await server.close()


@pytest.fixture(params=["memory", "zookeeper", "remote"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """Makes one more client of the same tree, not started."""
    if request.param == "memory":
        tree = MemTree(asyncio.Event)
        return lambda: MemStore(tree, session_timeout=4)
    if request.param == "remote":
        socket: Path = request.getfixturevalue("served")
        return lambda: RemoteStore(socket, session_timeout=4)
    hosts = request.getfixturevalue("zookeeper_hosts")
    return lambda: ZkStore(hosts, session_timeout=4)


@pytest.fixture
async def connect(new_store: NewStore) -> AsyncIterator[Connect]:
    """Makes one more client of the same tree, connected; all are closed in the end."""
    stores = []

    async def connect() -> TopologyStore:
        stores.append(store := new_store())
        states = States(store)
        await store.start()
        await states.until(StoreState.CONNECTED)
        return store

    yield connect
    for store in stores:
        await store.close()
