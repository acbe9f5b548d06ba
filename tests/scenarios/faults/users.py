"""Clients that use more of Redis than single commands, so that it shows what is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import redis.asyncio as aioredis

from tests.support.eventually import eventually

PAUSE = 0.01
"""Seconds between two rounds of a user."""
ADD = "return redis.call('incrby', KEYS[1], ARGV[1])"

Connect = Callable[[], aioredis.Redis]
Work = Callable[[aioredis.Redis, int], Coroutine[None, None, None]]


class Users:
    """`async with users.at_work():` each works on a connection of its own; any error reply ends the block with it."""

    def __init__(self, connect: Connect) -> None:
        self.rounds: Counter[str] = Counter()
        self._connect = connect
        self._sources = (self._produces, self._publishes)
        self._others = (
            self._consumes,
            self._listens,
            self._pipelines,
            self._transactions,
            self._scripts,
            self._loaded_scripts,
        )
        self._work = (*self._sources, *self._others)
        self._ending: set[Work] = set()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They work for as long as the block takes."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._session(source))
            others = [group.create_task(self._session(work)) for work in self._others]
            await self.progress()
            yield
            self._ending.update(self._others)
            await asyncio.wait(others)
            self._ending.update(self._sources)

    async def progress(self, rounds: int = 10) -> None:
        """Return when each has done so many more."""
        before = self.rounds.copy()
        await eventually(
            lambda: all(self.rounds[work.__name__] >= before[work.__name__] + rounds for work in self._work)
        )

    async def _session(self, work: Work) -> None:
        async with self._connect() as client:
            while work not in self._ending:
                await work(client, self.rounds[work.__name__] + 1)
                self.rounds[work.__name__] += 1

    async def _pipelines(self, client: aioredis.Redis, turn: int) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(10):
                pipeline.incr("users:pipelined")
            assert await pipeline.execute() == list(range(10 * turn - 9, 10 * turn + 1))
        await asyncio.sleep(PAUSE)

    async def _transactions(self, client: aioredis.Redis, turn: int) -> None:
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.incr("users:one")
            pipeline.incr("users:other")
            assert await pipeline.execute() == [turn, turn]
        await asyncio.sleep(PAUSE)

    async def _scripts(self, client: aioredis.Redis, turn: int) -> None:
        assert await client.eval(ADD, 1, "users:script", 1) == turn
        await asyncio.sleep(PAUSE)

    async def _loaded_scripts(self, client: aioredis.Redis, turn: int) -> None:
        if turn == 1:
            self._script = await client.script_load(ADD)
        assert await client.evalsha(self._script, 1, "users:loaded", 1) == turn
        await asyncio.sleep(PAUSE)

    async def _produces(self, client: aioredis.Redis, turn: int) -> None:
        await client.rpush("users:queue", turn)
        await asyncio.sleep(PAUSE)

    async def _consumes(self, client: aioredis.Redis, turn: int) -> None:
        assert await client.blpop(["users:queue"]) == ("users:queue", str(turn))

    async def _publishes(self, client: aioredis.Redis, turn: int) -> None:
        await client.publish("users:news", turn)
        await asyncio.sleep(PAUSE)

    async def _listens(self, client: aioredis.Redis, turn: int) -> None:
        """Redis promises no delivery: what is heard is heard once, and in order."""
        if turn == 1:
            self._subscriber, self._last = client.pubsub(), 0
            await self._subscriber.subscribe("users:news")
        while (message := await self._subscriber.get_message(ignore_subscribe_messages=True, timeout=None)) is None:
            pass
        assert int(message["data"]) > self._last
        self._last = int(message["data"])
