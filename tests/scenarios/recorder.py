"""Clients that write down what they ask and hear, for `history.check`: redis-py without retries."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Sequence
from typing import Self

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.scenarios.history import END, Fate, Final, Invocation, Kind, Operation, Outcome
from tests.support.eventually import eventually
from tests.support.redis import RedisServer

PAUSE = 0.01
"""Seconds between two commands of a client, on average."""

KEYS = {
    "register:1": (Kind.SET, Kind.GET),
    "register:2": (Kind.SET, Kind.GET),
    "counter": (Kind.INCR,),
    "string": (Kind.APPEND,),
    "list": (Kind.PUSH,),
}
CHOICES = [(key, kind) for key, kinds in KEYS.items() for kind in kinds]


class Recorder:
    """`async with Recorder(ports, clients) as recorder`: clients work all the time, and have ended after the block.

    Clients take the proxies on these ports in turn. Only an error reply is an outcome: a connection that is closed, or
    no answer within 30 seconds, ends the block with that exception. `mortal`: proxies may die, and their clients come
    back when they do; what they had asked is uncertain.
    """

    def __init__(self, ports: Sequence[int], clients: int, seed: int = 1, *, mortal: bool = False) -> None:
        self._mortal = mortal
        self.history: list[Operation] = []
        self.waiting = 0  # clients that have asked and not heard
        self._ports = [ports[number % len(ports)] for number in range(clients)]
        self._seed = seed
        self._ending = False
        self._sessions = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._sessions.__aenter__()
        self._tasks = [self._sessions.create_task(self._session(n, port)) for n, port in enumerate(self._ports)]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._ending = True
        await self._sessions.__aexit__(*exception)  # type: ignore[arg-type]

    async def stop(self) -> None:
        """Return when every client has heard its last answer."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    def cut_short(self) -> None:
        """End now: the answers that clients wait for are not of interest any more."""
        for task in self._tasks:
            task.cancel()

    def count(self, fate: Fate) -> int:
        """Of the operations so far."""
        return sum(operation.heard.fate is fate for operation in self.history)

    async def progress(self, operations: int) -> None:
        """Return when so many more were sent and acknowledged."""
        start, before = time.monotonic(), len(self.history)
        await eventually(lambda: sum(_done_since(o, start) for o in self.history[before:]) >= operations)

    async def _session(self, session: int, port: int) -> None:
        dice = random.Random(f"{self._seed} {session}")
        client = aioredis.Redis(
            port=port,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=30,
            decode_responses=True,
        )
        async with client:
            number = 0
            while not self._ending:
                number += 1
                key, kind = dice.choice(CHOICES)
                value = f"{session}.{number}{END}" if kind in (Kind.SET, Kind.APPEND, Kind.PUSH) else ""
                asked = Invocation(session, kind, key, value, time.monotonic())
                await self._ask(client, asked)
                await asyncio.sleep(dice.uniform(0, 2 * PAUSE))

    async def _ask(self, client: aioredis.Redis, asked: Invocation) -> None:
        words = [word for word in (asked.kind.value, asked.key, asked.value) if word]
        reply: Awaitable[object] = client.execute_command(*words)  # type: ignore[no-untyped-call]
        self.waiting += 1
        try:
            self.history.append(Operation(asked, await _outcome(reply)))
        except redis.ConnectionError as error:
            if not self._mortal:
                raise
            self.history.append(Operation(asked, Outcome(Fate.UNCERTAIN, time.monotonic(), str(error))))
            await self._connected(client)
        self.waiting -= 1

    async def _connected(self, client: aioredis.Redis) -> None:
        """Return when there is somebody to talk to again."""
        while not self._ending:
            with contextlib.suppress(redis.ConnectionError):
                await client.ping()
                return
            await asyncio.sleep(PAUSE)


async def _outcome(reply: Awaitable[object]) -> Outcome:
    """Raises redis.ConnectionError and redis.TimeoutError."""
    try:
        heard = await reply
    except (redis.ConnectionError, redis.TimeoutError):
        raise
    except redis.ResponseError as error:
        uncertain = str(error).startswith("UNCERTAIN ")
        return Outcome(Fate.UNCERTAIN if uncertain else Fate.REFUSED, time.monotonic(), str(error))
    said = heard if isinstance(heard, str | int) and not isinstance(heard, bool) else None
    return Outcome(Fate.DONE, time.monotonic(), said)


def _done_since(operation: Operation, start: float) -> bool:
    return operation.heard.fate is Fate.DONE and operation.asked.at >= start


def final(server: RedisServer) -> Final:
    """What the keys of the clients hold on a server."""
    with server.client() as client:
        return {
            key: client.lrange(key, 0, -1) if Kind.PUSH in kinds else client.get(key) for key, kinds in KEYS.items()
        }
