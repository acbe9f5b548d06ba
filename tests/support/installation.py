"""A whole installation on this host: Redis servers, managers and proxies as processes, and a view of their topology."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from deploy.processes import Process
from deploy.site import Site
from rfprotocol.errors import StoreUnavailable
from rfprotocol.paths import Paths
from rfprotocol.records import Receipt
from rfprotocol.store import StoreState
from rfprotocol.topology import Topology
from rfprotocol.zkstore import ZkStore
from tests.support.redis import RedisGroup, RedisServer
from tests.support.stores import Changes, States


class Installation(Site):
    """`async with Installation(group, hosts, folder) as site`: everything serves when the block begins."""

    def __init__(self, group: RedisGroup, zookeeper: str, folder: Path, *, managers: int = 3, proxies: int = 1) -> None:
        super().__init__(folder, zookeeper, group, "json")
        self.store = ZkStore(zookeeper, session_timeout=4.0)
        self.paths = Paths()
        for _ in range(managers):
            self.manager()
        for _ in range(proxies):
            self.proxy()

    @property
    def ports(self) -> list[int]:
        """Of the proxies."""
        return list(self.proxies)

    @property
    def processes(self) -> list[Process]:
        """Managers and proxies, in the order in which they start."""
        return [*self.managers, *self.proxies.values()]

    async def __aenter__(self) -> Self:
        states = States(self.store)
        await self.store.start()
        await states.until(StoreState.CONNECTED)
        for process in self.processes:
            process.start()
            await self.primary()  # the first of the list, so that tests know who it is
        await self.serving(lambda topology: len(topology.replicas) == len(self.group.servers) - 1)
        await self.registered(len(self.proxies))
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        await self.store.close()

    async def until(self, good: Callable[[Topology], object]) -> Topology:
        """Return the first topology that is `good`."""
        changes = Changes(self.store, self.paths.nodes)
        try:
            while True:
                with contextlib.suppress(StoreUnavailable):  # watches are called when it is back
                    entry = await self.store.read(self.paths.nodes)
                    if entry is not None and good(topology := Topology.decode(entry.data)):
                        return topology
                await changes.next()
        finally:
            changes.end()

    async def serving(self, good: Callable[[Topology], object] = lambda topology: True) -> Topology:
        """Return the first topology with a master that is `good`."""
        return await self.until(lambda topology: topology.master is not None and good(topology))

    async def registered(self, count: int) -> None:
        """Return when that many proxies have acknowledged the epoch in force."""
        changes = Changes(self.store, self.paths.proxies)
        while True:
            topology = await self.serving()
            records = await self.store.read_children(self.paths.proxies)
            current = [r for r in records.values() if json.loads(r.data)["epoch"] == topology.epoch]
            if len(current) == count:
                changes.end()
                return
            await changes.next()

    async def primary(self) -> Process:
        """The process of the primary manager."""
        seats = Changes(self.store, self.paths.lock)
        while not (entries := await self.store.read_children(self.paths.lock)):
            await seats.next()
        seats.end()
        name = entries[min(entries, key=lambda seat: seat[-10:])].data.decode()
        return next(process for process in self.managers if f"-{process.pid}-" in f"-{name}-")

    def server_of(self, topology: Topology) -> RedisServer:
        """The process of the master."""
        assert topology.master is not None
        return self.group[topology.master]

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`rfmanager` with these words, while the test goes on."""
        return await asyncio.to_thread(self.manage, *words)

    async def receipts(self) -> list[Receipt]:
        """All receipts, the oldest first."""
        entries = await self.store.read_children(self.paths.history)
        return [Receipt.decode(entries[name].data) for name in sorted(entries)]

    def log(self, process: Process) -> list[dict[str, Any]]:
        """What a process has logged."""
        assert process.log is not None
        return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
