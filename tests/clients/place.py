"""The installation that all clients are on, and what happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis

from rfmanager.operator import operations
from rfprotocol.topology.topology import Topology
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup


class Place(Installation):
    """Two proxies: the reads of one go to the master, so that clients see what they wrote; one has the defaults."""

    def __init__(self, group: RedisGroup, zookeeper: str, folder: Path) -> None:
        super().__init__(group, zookeeper, folder, proxies=2)
        self.unhurried()
        first = self.proxies[self.ports[0]]
        first.env = {**(first.env or {}), "RFPROXY_READS": "master"}

    @property
    def port(self) -> int:
        """Of the proxy whose reads go to the master."""
        return self.ports[0]

    @property
    def default_port(self) -> int:
        """Of the proxy whose reads go to replicas."""
        return self.ports[1]

    async def heal(self) -> Topology:
        """Start the servers that were killed; returns the topology with all of them."""
        for server in self.group.servers:
            if not server.alive:
                server.restart()
        return await self.serving(lambda topology: len(topology.replicas) == len(self.group.servers) - 1)

    async def kill_master(self) -> None:
        """SIGKILL; returns when there is another master."""
        before = await self.serving()
        self.server_of(before).kill()
        await self.serving(lambda topology: topology.epoch > before.epoch)

    async def switch_over(self) -> None:
        """Move the master role as `rfmanager failover` does."""
        await operations.failover(self.store, self.paths, None, timeout=60.0)

    async def in_sync(self) -> None:
        """Return when every replica has what the master has."""
        master = self.server_of(await self.serving())
        with master.client() as client:
            assert await asyncio.to_thread(client.wait, 2, 10_000) == 2

    async def publish(self, channel: str, text: str) -> None:
        """Publish at the master, which passes it on to the replicas."""
        with self.server_of(await self.serving()).client() as client:
            client.publish(channel, text)

    async def blocked(self, count: int) -> None:
        """Return when so many clients of the master wait for an element, and the proxies know it.

        A proxy knows it when the master has replied to something that was sent later.
        """
        with self.server_of(await self.serving()).client() as client:
            await eventually(lambda: client.info("clients")["blocked_clients"] >= count)
        for port in self.ports:
            with redis.Redis(port=port) as client:
                await asyncio.to_thread(client.touch, "nothing")


Change = Callable[[Place], Awaitable[None]]
"""How the master changes."""
