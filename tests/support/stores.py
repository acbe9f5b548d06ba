"""Waiting for a topology store to get somewhere, by its own callbacks."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rfprotocol.errors import StoreUnavailable
from rfprotocol.store.interface import StoreState, TopologyStore
from rfprotocol.store.zookeeper import ZkStore
from tests.support.zookeeper import ZooKeeperServer

Answer = TypeVar("Answer")


async def patiently(store: ZkStore, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """What `ask()` returns once ZooKeeper can be asked; for what may be done twice."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await store.reachable()


class States:
    """Every state that a store has reported, in order."""

    def __init__(self, store: TopologyStore) -> None:
        self.seen: list[StoreState] = []
        self.sessions: list[int] = []
        self._store = store
        self._changed = asyncio.Event()
        store.subscribe(self._note)

    async def until(self, state: StoreState) -> None:
        """Return when the store is in `state`."""
        while self._store.state is not state:
            self._changed.clear()
            await self._changed.wait()

    async def until_session_other_than(self, session: int) -> None:
        """Return when the store is connected in a session that is neither this one nor none."""
        while self._store.state is not StoreState.CONNECTED or self._store.session == session:
            self._changed.clear()
            await self._changed.wait()

    def _note(self, state: StoreState) -> None:
        self.seen.append(state)
        self.sessions.append(self._store.session)
        self._changed.set()


class Changes:
    """A watch that can be waited for, any number of times."""

    def __init__(self, store: TopologyStore, path: str) -> None:
        self.count = 0
        self.end: Callable[[], None] = store.watch(path, self._note)
        self._changed = asyncio.Event()

    async def next(self) -> None:
        """Return at a change that was not waited for yet."""
        await self._changed.wait()
        self._changed.clear()

    def forget(self) -> None:
        """Wait for later changes only."""
        self._changed.clear()

    def _note(self) -> None:
        self.count += 1
        self._changed.set()


async def settled(changes: Changes, store: TopologyStore) -> None:
    """Return when nothing more is to be heard of what happened so far, and forget what was heard."""
    for _ in range(3):  # a watch on a new child takes one round trip, its event another
        await store.prove_alive()
        await asyncio.sleep(0)
    changes.forget()


def freeze(server: ZooKeeperServer) -> None:
    """Freeze a server for certain: its threads run on for a moment after the signal was sent."""
    server.freeze()
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)


def end_session(server: ZooKeeperServer, session: int, password: bytes) -> None:
    """Have ZooKeeper end somebody's session, in the one way it offers: take it over and close it.

    Both requests go out in one piece, so the owner cannot come in between.
    """
    handshake = struct.pack("!iqiqi", 0, 0, 4000, session, len(password)) + password + b"\0"
    close = struct.pack("!ii", 1, -11)
    with socket.create_connection((server.address, server.port), timeout=10) as link:
        link.sendall(b"".join(struct.pack("!i", len(frame)) + frame for frame in (handshake, close)))
        while link.recv(4096):
            pass
