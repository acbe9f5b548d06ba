"""Ordinary clients with an account of what they were told: SET, INCR, GET, and a queue from which BLPOP takes.

    async with Bystanders(port) as bystanders:
        ...
    seen = await bystanders.audit(master)

Each has keys of its own and tries nothing twice. Values grow, so that the account tells in the end how many
acknowledged writes are lost, and whether one was applied twice (`bench.seen.Book`). An element of a queue that was
acknowledged is popped once, or is there in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bench.background import Latency, latency
from bench.seen import Book, Ledger
from tests.support.redis import RedisServer

CLIENTS = 20
PAUSE = 0.1
"""Seconds between two commands of a client."""
CYCLE = ("SET", "INCR", "GET")
QUEUES = 4
"""Pairs of clients of which one pushes and one pops."""
LAST = "last"
"""The element that ends a queue."""


@dataclass(slots=True)
class Seen:
    """Errors by command and text; how long answers took, those of BLPOP left out; the account of writes."""

    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def latency(self) -> Latency:
        """Of all that was answered."""
        return latency(self.waits)

    def unexpected(
        self, allowed: Callable[[str, str], bool] = lambda command, text: False
    ) -> dict[tuple[str, str], int]:
        """Errors that nothing excuses."""
        return {error: count for error, count in self.errors.items() if not allowed(*error)}


class Bystanders:
    """See the head of this module. A connection that is closed is an error of its command; its client makes another."""

    def __init__(self, port: int, clients: int = CLIENTS, prefix: str = "bystander") -> None:
        self.seen = Seen()
        self._port = port
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._plain = [_Plain(self, f"{prefix}:{number}", number) for number in range(clients - 2 * QUEUES)]
        self._queues = [_Queue(self, f"{prefix}:queue:{number}") for number in range(QUEUES)]

    async def __aenter__(self) -> Self:
        works: list[Callable[[], Awaitable[None]]] = [plain.work for plain in self._plain]
        for queue in self._queues:
            works += [queue.push, queue.pop]
        self._tasks = [asyncio.ensure_future(work()) for work in works]
        await self.progress()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.set()
        for task in self._tasks if kind is not None else []:
            task.cancel()  # clients that wait for what will not come must not hide what went wrong
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    async def progress(self, operations: int = 3 * CLIENTS) -> None:
        """Return when so many more commands were answered. Raises what a client died of."""
        before = len(self.seen.waits)
        while len(self.seen.waits) < before + operations:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    def audit(self, master: RedisServer) -> Seen:
        """Compare the account with what a server has when all clients have ended."""
        with master.client() as client:
            for plain in self._plain:
                self.seen.ledger += plain.close(client)
            for queue in self._queues:
                self.seen.ledger += queue.close(client)
        return self.seen

    @property
    def ending(self) -> bool:
        """Whether clients are to come to an end."""
        return self._ending.is_set()

    def connect(self) -> aioredis.Redis:
        """One client."""
        return aioredis.Redis(
            port=self._port,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=60,
            decode_responses=True,
        )

    async def ask(self, client: aioredis.Redis, *words: str | int, timed: bool = True) -> tuple[bool, Any]:
        """Whether it was answered without an error, and what."""
        asked: Awaitable[object] = client.execute_command(*words)  # type: ignore[no-untyped-call]
        begun = time.monotonic()
        try:
            reply = await asked
        except redis.RedisError as error:
            self.seen.errors[str(words[0]), str(error)] += 1
            return False, None
        finally:
            if timed:
                self.seen.waits.append(time.monotonic() - begun)
        return True, reply

    async def pause(self) -> None:
        """Until the next command is due, or the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), PAUSE)


class _Plain:
    """SET, INCR and GET of two keys."""

    def __init__(self, all_of_them: Bystanders, key: str, turn: int) -> None:
        self._all = all_of_them
        self._value, self._counter = f"{key}:value", f"{key}:counter"
        self._turn = turn
        self._books = {"SET": Book(), "INCR": Book()}
        self._written = 0

    async def work(self) -> None:
        async with self._all.connect() as client:
            await asyncio.sleep(PAUSE * self._turn / CLIENTS)
            for command in itertools.islice(itertools.cycle(CYCLE), self._turn % 3, None):
                if self._all.ending:
                    return
                await self._perform(client, command)
                await self._all.pause()

    async def _perform(self, client: aioredis.Redis, command: str) -> None:
        if command == "GET":
            await self._all.ask(client, "GET", self._value)
            return
        self._written += command == "SET"
        words = ("SET", self._value, self._written) if command == "SET" else ("INCR", self._counter)
        done, reply = await self._all.ask(client, *words)
        if done:
            self._books[command].acknowledged(self._written if command == "SET" else int(reply))
        else:
            self._books[command].uncertain()

    def close(self, client: redis.Redis) -> Ledger:
        value, counter = (int(str(client.get(key) or 0)) for key in (self._value, self._counter))
        return self._books["SET"].close(value, self._written) + self._books["INCR"].close(counter)


class _Queue:
    """One client that pushes numbers, and one that pops them."""

    def __init__(self, all_of_them: Bystanders, key: str) -> None:
        self._all = all_of_them
        self._key = key
        self._pushed: list[str] = []  # acknowledged
        self._uncertain: set[str] = set()
        self._popped: Counter[str] = Counter()
        self._lost_replies = 0  # of BLPOP: it may have taken one each time

    async def push(self) -> None:
        async with self._all.connect() as client:
            for number in itertools.count(1):
                await self._push(client, str(number))
                await self._all.pause()
                if self._all.ending:
                    break
            while not await self._push(client, LAST):
                pass

    async def _push(self, client: aioredis.Redis, element: str) -> bool:
        done, _ = await self._all.ask(client, "RPUSH", self._key, element)
        if done:
            self._pushed.append(element)
        else:
            self._uncertain.add(element)
        return done

    async def pop(self) -> None:
        async with self._all.connect() as client:
            while not (self._all.ending and LAST in self._popped):
                done, reply = await self._all.ask(client, "BLPOP", self._key, 5, timed=False)
                if done and reply is not None:
                    self._popped[reply[1]] += 1
                elif not done:
                    self._lost_replies += 1
                elif self._all.ending:
                    return  # the last element is lost

    def close(self, client: redis.Redis) -> Ledger:
        left = Counter(str(element) for element in client.lrange(self._key, 0, -1))
        there = self._popped + left
        missing = sum((Counter(self._pushed) - there).values())
        uncertain = len(self._uncertain) + self._lost_replies
        twice = sum((there - Counter(self._pushed) - Counter(self._uncertain)).values())
        return Ledger(len(self._pushed), uncertain, max(0, missing - self._lost_replies), twice)
