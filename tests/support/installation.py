"""A whole installation on this host: Redis servers, managers and proxies as processes, and a view of their topology."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from deploy.processes import Process, free_port
from rfprotocol.errors import StoreUnavailable
from rfprotocol.paths import Paths
from rfprotocol.records import Receipt
from rfprotocol.store import StoreState
from rfprotocol.topology import Topology
from rfprotocol.zkstore import ZkStore
from tests.support.redis import RedisGroup, RedisServer
from tests.support.stores import Changes, States

BIN = Path(sys.executable).parent
QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("RFPROXY_", "RFMANAGER_"))}


class Installation:
    """`async with Installation(group, hosts, folder) as site`: everything serves when the block begins."""

    def __init__(self, group: RedisGroup, zookeeper: str, folder: Path, *, managers: int = 3, proxies: int = 1) -> None:
        self.group = group
        self.zookeeper = zookeeper
        self.ports = [free_port() for _ in range(proxies)]
        self.store = ZkStore(zookeeper, session_timeout=4.0)
        self.paths = Paths()
        self._folder = folder
        self.managers = [self.manager(f"manager-{number}") for number in range(managers)]
        self.proxies = [self._proxy(port) for port in self.ports]

    def manager(self, name: str, env: Mapping[str, str] | None = None) -> Process:
        """A manager, to be started."""
        return Process(
            [
                BIN / "rfmanager",
                *("-n", ",".join(map(str, self.group.nodes)), "-z", self.zookeeper),
                *("--required-node-managers", "2", "--log-format", "json"),
            ],
            self._folder / f"{name}.log",
            {**QUIET, **(env or {})},
        )

    def _proxy(self, port: int) -> Process:
        return Process(
            [
                BIN / "rfproxy",
                *("--zk", self.zookeeper, "--listen", f"127.0.0.1:{port}", "--log-format", "json"),
                *("--state-dir", self._folder / "state"),
            ],
            self._folder / f"proxy-{port}.log",
            QUIET,
        )

    async def __aenter__(self) -> Self:
        states = States(self.store)
        await self.store.start()
        await states.until(StoreState.CONNECTED)
        if self.managers:
            self.managers[0].start()
            await self.primary()  # the first of the list, so that tests know who it is
        for process in (*self.managers[1:], *self.proxies):
            process.start()
        await self.serving(lambda topology: len(topology.replicas) == len(self.group.servers) - 1)
        await self.registered(len(self.proxies))
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in (*self.proxies, *self.managers):
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

    def server(self, topology: Topology) -> RedisServer:
        """The process of the master."""
        assert topology.master is not None
        return self.group[topology.master]

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`rfmanager` with these words."""
        argv = [str(BIN / "rfmanager"), *words, "-z", self.zookeeper]
        return await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False, env=QUIET)

    async def receipts(self) -> list[Receipt]:
        """All receipts, the oldest first."""
        entries = await self.store.read_children(self.paths.history)
        return [Receipt.decode(entries[name].data) for name in sorted(entries)]

    def log(self, process: Process) -> list[dict[str, Any]]:
        """What a process has logged."""
        assert process.log is not None
        return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
