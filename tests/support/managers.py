"""Managers over real Redis servers and a store in memory, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from rfmanager.daemon.daemon import Daemon, Settings
from rfprotocol.errors import ManagerFailed
from rfprotocol.store.interface import Put
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.records import ManualRequest, ProxyRecord, Receipt
from rfprotocol.topology.topology import ManagerReport, Node, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.redis import RedisGroup

PATHS = Paths()


class Death(Exception):
    """A manager was killed at a failpoint."""


class Manager:
    """One manager with its session."""

    def __init__(
        self, tree: MemTree, settings: Settings, name: str, dies_at: str, at: Mapping[str, Callable[[], None]]
    ) -> None:
        self.store = MemStore(tree)
        self._dies_at = dies_at
        self._at = at
        self.daemon = Daemon(settings, self.store, name, failpoint=self._failpoint)
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run it."""
        await self.store.start()
        self.task = asyncio.create_task(self.daemon.run())

    async def stop(self) -> None:
        """End it as SIGTERM does, if it lives."""
        if self.task is not None and not self.task.done():
            await self.daemon.stop()
        if self.task is not None:
            with contextlib.suppress(ManagerFailed):
                await self.task
        await self.store.close()

    def _failpoint(self, name: str) -> None:
        if name in self._at:
            self._at[name]()
        if name == self._dies_at:
            self.store.suspend()  # a dead process says no goodbye
            raise Death(name)

    async def bury(self) -> None:
        """Wait for its death at the failpoint, then let the store notice."""
        assert self.task is not None
        with contextlib.suppress(ManagerFailed):
            await self.task
        self.store.expire()


class Site:
    """Servers, the store, and who looks at them."""

    def __init__(self, group: RedisGroup) -> None:
        self.group = group
        self.tree = MemTree(asyncio.Event)
        self.store = MemStore(self.tree)
        self.managers: list[Manager] = []

    async def manager(
        self, dies_at: str = "", at: Mapping[str, Callable[[], None]] | None = None, **settings: Any
    ) -> Manager:
        """Start another manager; `at` says what happens to others at its failpoints."""
        name = f"manager{len(self.managers)}"
        manager = Manager(self.tree, Settings(**{"nodes": self.group.nodes, **settings}), name, dies_at, at or {})
        self.managers.append(manager)
        await manager.start()
        return manager

    async def topology(self) -> Topology | None:
        """The record now."""
        entry = await self.store.read(PATHS.nodes)
        return Topology.decode(entry.data) if entry else None

    async def until(self, satisfied: Callable[[Topology], bool]) -> Topology:
        """The first record that satisfies."""
        changed = asyncio.Event()
        end = self.store.watch(PATHS.nodes, changed.set)
        try:
            while True:
                changed.clear()
                topology = await self.topology()
                if topology is not None and satisfied(topology):
                    return topology
                await changed.wait()
        finally:
            end()

    async def until_serving(self, replicas: int, *, other_than: Node | None = None) -> Topology:
        """Wait for a master and so many readable replicas."""
        return await self.until(
            lambda t: t.phase is Phase.SERVING and t.master != other_than and len(t.replicas) >= replicas
        )

    async def report(self, name: str, satisfied: Callable[[ManagerReport], bool]) -> ManagerReport:
        """The first report of a manager that satisfies."""
        changed = asyncio.Event()
        end = self.store.watch(PATHS.managers, changed.set)
        try:
            while True:
                changed.clear()
                entry = await self.store.read(PATHS.manager(name))
                if entry is not None and satisfied(report := ManagerReport.decode(name, entry.data)):
                    return report
                await changed.wait()
        finally:
            end()

    async def ask(self, target: Node | None) -> Receipt:
        """Request a switchover and return its receipt."""
        settled = asyncio.Event()
        end = self.store.watch(PATHS.manual_failover, settled.set)
        await self.store.commit(Put(PATHS.manual_failover, ManualRequest(target).encode()))
        while await self.store.read(PATHS.manual_failover) is not None:
            settled.clear()
            await settled.wait()
        end()
        return (await self.receipts())[-1]

    async def requested(self) -> None:
        """Wait until there is an operator's request."""
        made = asyncio.Event()
        end = self.store.watch(PATHS.manual_failover, made.set)
        while await self.store.read(PATHS.manual_failover) is None:
            made.clear()
            await made.wait()
        end()

    async def receipts(self) -> list[Receipt]:
        """All, oldest first."""
        entries = await self.store.read_children(PATHS.history)
        return [Receipt.decode(entries[name].data) for name in sorted(entries)]

    async def acknowledge(self, epoch: int, name: str = "proxy") -> None:
        """A proxy says that it acts upon this epoch."""
        await self.store.announce(PATHS.proxy(name), ProxyRecord(epoch).encode())


@contextlib.asynccontextmanager
async def site(group: RedisGroup) -> AsyncIterator[Site]:
    """The servers with an empty store; managers are stopped in the end."""
    place = Site(group)
    await place.store.start()
    try:
        yield place
    finally:
        for manager in place.managers:
            await manager.stop()
        await place.store.close()
