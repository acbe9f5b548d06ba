"""The roles of tests/clients, played by redis-py's asyncio client."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import redis
import redis.asyncio

LARGE = bytes(range(256)) * (5 * 1024 * 4)
BINARY = b"\xff\x00\r\n$-1\r\n"
STORE = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
COUNT = "return redis.call('INCR', KEYS[1])"


def say(line: str) -> None:
    print(line, flush=True)


async def told() -> None:
    """Wait for the word on the standard input."""
    await asyncio.to_thread(sys.stdin.readline)


def connect(port: int, protocol: int, **settings: Any) -> Any:
    """A client as the user `app`; untyped, since redis-py has no types for pipelines that are written as chains."""
    settings = {"decode_responses": True, **settings}
    return redis.asyncio.Redis(port=port, protocol=protocol, username="app", password="secret", **settings)


class Player:
    """The role `play`: everything but the optimistic loop and the other database runs on one connection."""

    def __init__(self, port: int, name: str, protocol: int) -> None:
        self.name = name
        self.client = connect(port, protocol, client_name="player", single_connection_client=True)
        self.binary = connect(port, protocol, decode_responses=False)
        self.other = connect(port, protocol)
        self.elsewhere = connect(port, protocol, db=3, single_connection_client=True)
        self.store = self.client.register_script(STORE)
        self.count = self.client.register_script(COUNT)
        self.counter = f"{name}:counter"
        self.rounds = 0
        self.acknowledged = 0
        self.errors: list[str] = []

    async def play(self) -> dict[str, Any]:
        before = await self.features(f"{self.name}:before")
        identity = await self.client.client_id()
        await self.elsewhere.set(f"{self.name}:kept", "kept")
        loaded = await self.client.script_load("return 'loaded'")
        await self.client.publish(self.name, "before")
        watcher = self.client.pipeline()
        await watcher.watch(f"{self.name}:watched")
        await self.during()
        try:
            watcher.multi()
            watched = await watcher.set(f"{self.name}:watched", 1).execute()
        except redis.WatchError:
            watched = None
        await self.client.rpush(f"{self.name}:queue", "element")
        await self.client.publish(self.name, "after")
        return {
            "before": before,
            "after": await self.features(f"{self.name}:after"),
            "across": {
                "watched": watched,
                "same connection": await self.client.client_id() == identity,
                "database": await self.elsewhere.get(f"{self.name}:kept"),
                "script": await self.client.evalsha(loaded, 0),
            },
            "rounds": self.rounds,
            "acknowledged": self.acknowledged,
            "counted": int(await self.client.get(self.counter) or 0),
            "errors": self.errors,
        }

    async def during(self) -> None:
        """Write and read without a pause from before the failover until after it."""
        for _ in range(20):
            await self.round()
        say("ready")
        going_on = asyncio.create_task(told())
        while not going_on.done():
            await self.round()
        for _ in range(20):
            await self.round()

    async def round(self) -> None:
        """Four increments, each with a way of its own, among commands that may be repeated."""
        self.rounds += 1
        own = f"{self.name}:round"
        await self.client.set(own, self.rounds)
        assert await self.client.get(own) == str(self.rounds)
        plain = self.client.pipeline(transaction=False).hset(f"{own}:hash", "field", self.rounds).incr(self.counter)
        transaction = self.client.pipeline().incr(self.counter).rpush(f"{own}:list", self.rounds)
        for attempt in (
            lambda: self.client.incr(self.counter),
            plain.execute,
            transaction.execute,
            lambda: self.count(keys=[self.counter]),
        ):
            try:
                await attempt()
                self.acknowledged += 1
            except redis.ResponseError as error:
                self.errors.append(str(error))

    async def features(self, name: str) -> dict[str, Any]:
        client = self.client
        await client.set(f"{name}:string", "value")
        await client.mset({f"{name}:one": 1, f"{name}:two": 2})
        await client.hset(f"{name}:hash", mapping={"field": 1, "other": 2})
        await client.rpush(f"{name}:list", "a", "b", "c")
        await client.set(f"{name}:large", LARGE)
        await self.binary.set(f"{name}:\0\r\n".encode() + b"\xff", BINARY)
        await self.elsewhere.set(f"{name}:database", "three")
        pipe = client.pipeline(transaction=False)
        multi = client.pipeline()
        for queue, key in ((pipe, f"{name}:pipe"), (multi, f"{name}:multi")):
            queue.incr(key).incrby(key, 5).get(key)
        identity, found = await client.client_id(), await client.client_list()
        return {
            "string": await client.get(f"{name}:string"),
            "many": await client.mget(f"{name}:one", f"{name}:two", f"{name}:none"),
            "hash": await client.hgetall(f"{name}:hash"),
            "list": await client.lrange(f"{name}:list", 0, -1),
            "pipeline": await pipe.execute(),
            "transaction": await multi.execute(),
            "optimistic": await self.optimistic(f"{name}:optimistic"),
            "eval": await client.eval("return {1, ARGV[1], {2}}", 0, "x"),
            "script": await self.store(keys=[f"{name}:script"], args=["lua"]),
            "large": await self.binary.get(f"{name}:large") == LARGE,
            "binary": (await self.binary.get(f"{name}:\0\r\n".encode() + b"\xff")).hex(),
            "database": [await self.elsewhere.get(f"{name}:database"), await client.get(f"{name}:database")],
            "name": await client.client_getname(),
            "listed": [entry["name"] for entry in found if int(entry["id"]) == identity],
            "user": await client.acl_whoami(),
        }

    async def optimistic(self, key: str) -> list[Any]:
        """Add one with WATCH, while somebody else writes the first time; the attempts, and the value in the end."""
        await self.client.set(key, 1)
        async with self.client.pipeline() as pipe:
            for attempt in itertools.count(1):
                await pipe.watch(key)
                value = int(await pipe.get(key) or 0)
                if attempt == 1:
                    await self.other.set(key, 10)
                pipe.multi()
                pipe.set(key, value + 1)
                try:
                    await pipe.execute()
                    break
                except redis.WatchError:
                    continue
        return [attempt, await self.client.get(key)]


async def listen(port: int, name: str, protocol: int) -> dict[str, Any]:
    messages = []
    async with connect(port, protocol).pubsub() as channel:
        await channel.subscribe(name)
        async for event in channel.listen():
            if event["type"] == "message":
                messages.append(event["data"])
                say(f"message {event['data']}")
            if event["data"] == "end":
                break
    return {"messages": messages}


async def pop(port: int, name: str, protocol: int) -> dict[str, Any]:
    client = connect(port, protocol, socket_timeout=None)
    say("ready")
    return {"popped": await client.blpop([f"{name}:queue"], timeout=30)}


async def scan(port: int, name: str, protocol: int) -> dict[str, Any]:
    client = connect(port, protocol, single_connection_client=True)
    iterators: dict[str, AsyncIterator[Any]] = {
        "keys": client.scan_iter(match=f"{name}:scan:*", count=10),
        "fields": client.hscan_iter(f"{name}:fields", count=10),
    }
    found = {what: {await anext(iterator) for _ in range(150)} for what, iterator in iterators.items()}
    say("ready")
    await told()
    for what, iterator in iterators.items():
        async for item in iterator:
            found[what].add(item)
    return {what: len(items) for what, items in found.items()}


async def main() -> None:
    port, role, name, protocol = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    if role == "play":
        outcome = await Player(port, name, protocol).play()
    else:
        outcome = await {"listen": listen, "pop": pop, "scan": scan}[role](port, name, protocol)
    say(json.dumps(outcome))


if __name__ == "__main__":
    asyncio.run(main())
