"""Users with few rights, seen through failovers: they are as safe as any other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.installation import Installation
from tests.support.redis import RedisGroup

USERS = ("app", "nosel")
ACL = """
user app on >pw ~* &* +@all -@dangerous
user nosel on >pw ~* &* +@all -@dangerous -select
"""
WRITERS = 4
"""Of each user."""


@pytest.fixture
async def site(zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers, one proxy, and servers that know these users."""
    file = tmp_path / "users.acl"
    file.write_text(ACL)
    with RedisGroup(3, aclfile=str(file)) as group:
        async with Installation(group, zookeeper_hosts, tmp_path) as site:
            yield site


class Writer:
    """A client that writes one key after the other."""

    def __init__(self, port: int, user: str, number: int) -> None:
        self.acknowledged: list[str] = []
        self.stopped = False  # redis-py may swallow a cancellation
        self._prefix = f"{user}:{number}"
        self._client = aioredis.Redis(port=port, username=user, password="pw", retry=Retry(NoBackoff(), 0))

    async def run(self) -> None:
        """Write until stopped. Any error is one too many, but for the write that was in flight at a lost master."""
        async with self._client as client:
            for number in itertools.count():
                if self.stopped:
                    return
                key = f"{self._prefix}:{number}"
                try:
                    await client.set(key, "")
                except aioredis.ResponseError as error:
                    if not str(error).startswith("UNCERTAIN"):
                        raise
                else:
                    self.acknowledged.append(key)

    async def reaches(self, count: int) -> None:
        """Return when so many writes are acknowledged."""
        while len(self.acknowledged) < count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


async def advance(writers: list[Writer], count: int = 20) -> None:
    """Return when each writer has had so many more writes acknowledged."""
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.reaches(len(writer.acknowledged) + count))


async def restart_master(site: Installation) -> None:
    """SIGKILL, and started again at once without its data; returns when there is a master again."""
    topology = await site.serving(lambda topology: len(topology.replicas) == 2)
    await asyncio.to_thread(site.server_of(topology).restart)
    await site.serving(lambda later: later.epoch > topology.epoch)


async def test_empty_restart__users_without_rights__lose_no_write(site: Installation) -> None:
    writers = [Writer(site.ports[0], user, number) for user in USERS for number in range(WRITERS)]
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run())
        for _ in range(3):
            await advance(writers)
            await restart_master(site)
            await advance(writers)
        for writer in writers:
            writer.stopped = True
    topology = await site.serving()
    master = site.server_of(topology)
    for writer in writers:
        values = await asyncio.to_thread(master.command, "MGET", *writer.acknowledged)
        assert None not in values, [
            key for key, value in zip(writer.acknowledged, values, strict=True) if value is None
        ]
    for server in site.group.servers:
        assert await asyncio.to_thread(server.command, "ACL", "LOG") == []
