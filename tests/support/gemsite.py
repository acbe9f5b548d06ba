"""An installation beside the gem's managers: who runs when is up to the test, and so is what ZooKeeper holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import redis.asyncio as aioredis
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError, NotEmptyError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deploy.processes import Process
from rfprotocol.errors import RecordError, StoreConflict
from rfprotocol.store.interface import Delete, Entry, Put, StoreState
from rfprotocol.topology.records import Outcome, Receipt
from rfprotocol.topology.topology import Node, Topology
from tests.support.eventually import eventually
from tests.support.gem import QUICK, Settings, gem_manager
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer
from tests.support.stores import Changes, States, patiently


class GemSite(Installation):
    """`async with GemSite(group, hosts, folder) as site`: only the servers run when the block begins."""

    def __init__(
        self,
        group: RedisGroup,
        zookeeper: str,
        folder: Path,
        *,
        managers: int = 2,
        proxies: int = 1,
        settings: Settings = QUICK,
    ) -> None:
        super().__init__(group, zookeeper, folder, managers=managers, proxies=proxies)
        self.gems: list[Process] = []
        self._settings = settings

    async def __aenter__(self) -> Self:
        states = States(self.store)
        await self.store.start()
        await states.until(StoreState.CONNECTED)
        return self

    async def __aexit__(self, *failure: object) -> None:
        for gem in self.gems:
            gem.kill()
        await super().__aexit__(*failure)

    # --- programs

    async def start_managers(self) -> None:
        """Start ours, one behind the other, so that the first one leads unless the gem does."""
        for manager in self.managers:
            manager.start()
            await self.reports(manager)

    async def stop_managers(self) -> None:
        """End all of ours in an orderly way."""
        for manager in self.managers:
            await asyncio.to_thread(manager.stop)

    async def reports(self, manager: Process) -> None:
        """Return when a manager of either kind says what it sees."""
        await self.children(self.paths.managers, lambda names: any(f"-{manager.pid}" in name for name in names))

    async def start_proxies(self) -> None:
        """Start all; return when reads and writes are answered."""
        for proxy in self.proxies.values():
            proxy.start()
        await asyncio.to_thread(self.wait_until_ready)

    async def start_gem(self, *, leads: bool = True, nodes: Sequence[Node] | None = None) -> Process:
        """Start a manager of the gem; return when it leads, or stands in line."""
        log = self.folder / f"gem{len(self.gems) + 1}.log"
        gem = gem_manager(self.zookeeper, nodes or self.group.nodes, log, self._settings)
        self.gems.append(gem)
        gem.start()
        await self.reports(gem)
        if leads:
            await self.said(gem, "leads")
        return gem

    async def stop_gems(self) -> None:
        """End all of them in an orderly way."""
        for gem in self.gems:
            await asyncio.to_thread(gem.stop)

    # --- ZooKeeper

    async def has(self, path: str) -> Entry | None:
        """The record, if there is one."""
        return await patiently(self.store, lambda: self.store.read(path))

    async def put(self, path: str, data: bytes) -> None:
        """Write a record whatever is there."""
        while True:
            entry = await self.has(path)
            with suppress(StoreConflict):
                await self.store.commit(Put(path, data, entry.version if entry else None))
                return

    async def delete(self, path: str) -> None:
        """Remove a record, which is there."""
        await self.store.commit(Delete(path))

    async def put_gems(self, master: RedisServer | None, *slaves: RedisServer) -> None:
        """A record as the gem writes it."""
        await self.put(self.paths.nodes, gems_record(master, *slaves))

    async def gone(self, path: str) -> None:
        """Return when there is no such record any more."""
        changes = Changes(self.store, path)
        while await self.has(path) is not None:
            await changes.next()
        changes.end()

    async def wipe(self) -> None:
        """Forget all that ZooKeeper holds, sessions excepted."""
        await asyncio.to_thread(_wipe, self.zookeeper)

    async def refusal(self) -> Receipt:
        """The first receipt of what was refused."""

        def refused(entries: dict[str, Entry]) -> list[Receipt]:
            receipts = [Receipt.decode(entry.data) for entry in entries.values()]
            return [receipt for receipt in receipts if receipt.outcome is Outcome.REFUSED]

        entries = await self.children(self.paths.history, lambda entries: refused(dict(entries)))
        return refused(dict(entries))[0]

    # --- what is said

    def warnings(self, process: Process) -> list[dict[str, Any]]:
        """The lines of a log at this level or above."""
        return [line for line in self.log(process) if line.get("level") in ("warning", "error")]

    async def warned_of_gem(self, manager: Process) -> None:
        """Return when one of our managers has said that the gem's are there."""
        await eventually(lambda: any("redis_node_manager" in line["event"] for line in self.warnings(manager)))

    def client(self) -> aioredis.Redis:
        """Of the first proxy: no retries, text, a minute of patience."""
        return aioredis.Redis(
            port=self.ports[0],
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=60,
            decode_responses=True,
        )


class Epochs:
    """`async with Epochs(site) as epochs`: those of the records while the block runs, in order, without repetitions."""

    def __init__(self, site: GemSite) -> None:
        self.seen: list[int] = []
        self._site = site
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        changes = Changes(self._site.store, self._site.paths.nodes)
        while True:
            await changes.next()
            entry = await self._site.has(self._site.paths.nodes)
            if entry is not None:
                with suppress(RecordError):
                    epoch = Topology.decode(entry.data).epoch
                    if self.seen[-1:] != [epoch]:
                        self.seen.append(epoch)


def gems_record(master: RedisServer | None, *slaves: RedisServer) -> bytes:
    """As the gem writes it."""
    plain = {"master": str(master.node) if master else None, "slaves": [str(s.node) for s in slaves]}
    return json.dumps({**plain, "unavailable": []}).encode()


def _wipe(hosts: str) -> None:
    zookeeper = KazooClient(hosts)
    zookeeper.start()
    try:
        # Once: what managers and proxies make anew at the same time is not to be deleted again and again.
        for path in _below(zookeeper, "/"):
            with suppress(NotEmptyError, NoNodeError):
                zookeeper.delete(path)
    finally:
        zookeeper.stop()
        zookeeper.close()


def _below(zookeeper: KazooClient, path: str) -> list[str]:
    """All records below a path, children before their parents."""
    found = []
    for child in zookeeper.get_children(path):
        below = f"{path.rstrip('/')}/{child}"
        found += [*_below(zookeeper, below), below]
    return found
