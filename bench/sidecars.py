"""Many proxies in one process, each with a session in ZooKeeper, lanes and a client of its own.

The programs' own parts, from the client's connection to the lease; only the process is shared. As soon as a
proxy is told that there is no master, its client sends a write. The answer to that is the moment when the
proxy acts on the next master.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import uvloop

from deploy.site import HOST
from rfprotocol.resp.resp import encode_command
from rfprotocol.store.interface import TopologyStore
from rfprotocol.topology.topology import Node
from rfprotocol.topology.znode_paths import Paths
from rfproxy.core.policy import Policy
from rfproxy.process.listen_sockets import address_of, open_sockets
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.registration import Membership
from rfproxy.runtime.server import Server
from rfproxy.runtime.topology_cache import TopologyCache

SWITCH = 0.0005
"""Seconds that a thread may keep the interpreter from others: each proxy has three threads of kazoo's."""


@dataclass(frozen=True, slots=True)
class Act:
    """When a proxy was told of the master of this epoch, and when that had answered a write; wall clock, in seconds."""

    epoch: int
    told: float
    acted: float


class Sidecars:
    """`with Sidecars(...)`: all of them serve when the block begins. `store` makes the way to ZooKeeper for each."""

    def __init__(self, count: int, store: Callable[[], TopologyStore], folder: Path, name: str) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, count, store, folder, name), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    @property
    def pid(self) -> int:
        """Of the process that they share."""
        return self._process.pid or 0

    def acts(self) -> list[Act]:
        """What all of them did since the last time, when none has a write that waits."""
        self._here.send(None)
        return cast(list[Act], self._here.recv())


# --- in the process of its own


def _work(parent: Connection, count: int, store: Callable[[], TopologyStore], folder: Path, name: str) -> None:
    sys.setswitchinterval(SWITCH)
    uvloop.run(_serve(parent, [_Sidecar(f"{name}-{number}", store, folder) for number in range(count)]))


async def _serve(parent: Connection, sidecars: list[_Sidecar]) -> None:
    await asyncio.gather(*(sidecar.start() for sidecar in sidecars))
    parent.send(None)
    while True:
        await asyncio.to_thread(parent.recv)
        await asyncio.gather(*(sidecar.idle.wait() for sidecar in sidecars))
        parent.send([act for sidecar in sidecars for act in sidecar.acts])
        for sidecar in sidecars:
            sidecar.acts.clear()


class _Sidecar(asyncio.Protocol):
    """A proxy's log, which hears of each topology, and at the same time the proxy's client."""

    def __init__(self, name: str, store: Callable[[], TopologyStore], folder: Path) -> None:
        self.acts: list[Act] = []
        self.idle = asyncio.Event()
        self.idle.set()
        self._name = name
        self._store = store
        self._cache = TopologyCache(folder, name)
        self._transport: asyncio.Transport | None = None
        self._told = (0, 0.0)

    async def start(self) -> None:
        """Return when a first write is answered."""
        self._server = Server(Policy(), limits=Limits(), log=self)
        sockets = open_sockets(Node(HOST, 0))
        address = address_of(sockets[0])
        await self._server.listen(sockets)
        self._membership = Membership(self._server, self._store(), Paths(), self._name, self._cache)
        await self._membership.start(str(address))
        await asyncio.get_running_loop().create_connection(lambda: self, address.host, address.port)
        self._write()
        await self.idle.wait()

    def _write(self) -> None:
        if self._transport is not None and self.idle.is_set():
            self.idle.clear()
            self._told = (0, 0.0)
            self._transport.write(encode_command([b"SET", self._name.encode(), b"x"]))

    # --- as the proxy's log

    def info(self, event: str, **fields: object) -> None:
        """Notes the first word of a master while the client waits for one."""
        if event != "topology":
            return
        if fields["master"] is None:
            self._write()
        elif not self.idle.is_set() and not self._told[0]:
            self._told = (cast(int, fields["epoch"]), time.time())

    def warning(self, event: str, **fields: object) -> None:
        """Nobody reads it."""

    # --- as the client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It may write."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """The answer to the one write."""
        epoch, told = self._told
        if epoch and data.startswith(b"+"):
            self.acts.append(Act(epoch, told, time.time()))
        self.idle.set()
