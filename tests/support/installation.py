"""A whole installation on this host: Redis servers, managers and proxies as processes, and a view of their topology."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from deploy.processes import Process
from deploy.site import Site
from rfmanager.operator.snapshot import leader
from rfprotocol.store.interface import Entry, StoreState
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.topology.records import Receipt
from rfprotocol.topology.topology import Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.eventually import eventually
from tests.support.logged import logged
from tests.support.redis import RedisGroup, RedisServer
from tests.support.stores import Changes, States, patiently

PATIENCE = 10.0
"""Seconds that the test itself does without ZooKeeper: longer than what it examines."""
CATCH_UP = 30.0
"""Seconds that a switchover may take on a machine that is busy with other things."""


class Installation(Site):
    """`async with Installation(group, hosts, folder) as site`: everything serves when the block begins."""

    def __init__(
        self,
        group: RedisGroup,
        zookeeper: str,
        folder: Path,
        *,
        managers: int = 3,
        proxies: int = 1,
        workers: int = 1,
    ) -> None:
        super().__init__(folder, zookeeper, group, "json")
        self.store = ZkStore(zookeeper, session_timeout=PATIENCE, request_timeout=PATIENCE)
        self.paths = Paths()
        for _ in range(managers):
            self.manager().argv += ["--catch-up-timeout", str(CATCH_UP)]
        for _ in range(proxies):
            self.proxy("--workers", str(workers))
        self._workers = workers

    def unhurried(self) -> None:
        """Call no process dead because it is slow: for tests in which none freezes. To be called before the start."""
        for process in self.processes:
            process.argv += ["--session-timeout", str(2 * PATIENCE)]
        for manager in self.managers:
            manager.argv += ["--probe-timeout", str(PATIENCE / 2)]

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
        await self.registered(len(self.proxies) * self._workers)
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
                entry = await patiently(self.store, lambda: self.store.read(self.paths.nodes))
                if entry is not None and good(topology := Topology.decode(entry.data)):
                    return topology
                await changes.next()
        finally:
            changes.end()

    async def serving(self, good: Callable[[Topology], object] = lambda topology: True) -> Topology:
        """Return the first topology with a master that is `good`."""
        return await self.until(lambda topology: topology.master is not None and good(topology))

    async def registered(self, count: int) -> None:
        """Return when that many workers of proxies have acknowledged the epoch in force."""
        changes = Changes(self.store, self.paths.proxies)
        while True:
            topology = await self.serving()
            records = await self.records(self.paths.proxies)
            current = [r for r in records.values() if json.loads(r.data)["epoch"] == topology.epoch]
            if len(current) == count:
                changes.end()
                return
            await changes.next()

    async def children(
        self, path: str, good: Callable[[Mapping[str, Entry]], object] = lambda entries: True
    ) -> Mapping[str, Entry]:
        """Return the first set of records below `path` that is `good`."""
        changes = Changes(self.store, path)
        try:
            while True:
                if good(entries := await self.records(path)):
                    return entries
                await changes.next()
        finally:
            changes.end()

    async def records(self, path: str) -> Mapping[str, Entry]:
        """The records below `path`, as soon as ZooKeeper can be asked."""
        return await patiently(self.store, lambda: self.store.read_children(path))

    async def line(self) -> list[Process]:
        """The primary manager, and those that stand behind it."""
        await self.children(self.paths.lock, leader)  # one leads
        seats = await self.children(self.paths.gem_lock, leader)
        names = [seats[seat].data.decode() for seat in sorted(seats, key=lambda seat: seat[-10:])]
        return [manager for name in names for manager in self.managers if _is_of(name, manager)]

    async def primary(self) -> Process:
        """The process of the primary manager."""
        return (await self.line())[0]

    async def stands(self, manager: Process) -> None:
        """Return when a manager leads or waits to, and says what it sees of the servers."""
        await self.children(
            self.paths.gem_lock, lambda seats: any(_is_of(s.data.decode(), manager) for s in seats.values())
        )
        await self.children(self.paths.managers, lambda reports: any(_is_of(name, manager) for name in reports))

    def arm(self, manager: Process, failpoint: str) -> None:
        """From its next start on a manager has this failpoint; empty: none."""
        manager.env = {**(manager.env or {}), "RF_FAILPOINT": failpoint}

    async def frozen(self, process: Process) -> None:
        """Return when a process has stopped in its tracks."""
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    async def renew(self, manager: Process, failpoint: str = "") -> None:
        """Start a manager anew, with a failpoint if there is one; it stands behind the others then."""
        await asyncio.to_thread(manager.stop)
        self.arm(manager, failpoint)
        manager.start()
        await self.stands(manager)

    def server_of(self, topology: Topology) -> RedisServer:
        """The process of the master."""
        assert topology.master is not None
        return self.group[topology.master]

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`rfmanager` with these words, while the test goes on."""
        return await asyncio.to_thread(self.manage, *words)

    async def receipts(self) -> list[Receipt]:
        """All receipts, the oldest first."""
        entries = await self.records(self.paths.history)
        return [Receipt.decode(entries[name].data) for name in sorted(entries)]

    async def said(self, process: Process, text: str, times: int = 1) -> None:
        """Return when a process has logged `text` so often."""
        await eventually(lambda: self.times_said(process, text) >= times)

    def times_said(self, process: Process, text: str) -> int:
        """How often a process has logged `text` by now."""
        assert process.log is not None
        return process.log.read_text().count(text)

    def log(self, process: Process) -> list[dict[str, Any]]:
        """What a process has logged."""
        assert process.log is not None
        return logged(process.log)


def _is_of(name: str, manager: Process) -> bool:
    """Whether a manager of this name runs in that process."""
    started = manager.alive or manager.exit_status is not None
    return started and f"-{manager.pid}-" in f"-{name}-"
