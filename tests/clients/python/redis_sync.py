"""The roles of tests/clients, played by redis-py's blocking client."""

from __future__ import annotations

import itertools
import json
import select
import sys
from collections.abc import Iterable
from typing import Any

import redis

LARGE = bytes(range(256)) * (5 * 1024 * 4)
BINARY = b"\xff\x00\r\n$-1\r\n"
STORE = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
COUNT = "return redis.call('INCR', KEYS[1])"


def say(line: str) -> None:
    print(line, flush=True)


def connect(port: int, protocol: int, **settings: Any) -> Any:
    """A client as the user `app`; untyped, since redis-py has no types for pipelines that are written as chains."""
    settings = {"decode_responses": True, **settings}
    return redis.Redis(port=port, protocol=protocol, username="app", password="secret", **settings)


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

    def play(self) -> dict[str, Any]:
        before = self.features(f"{self.name}:before")
        identity = self.client.client_id()
        self.elsewhere.set(f"{self.name}:kept", "kept")
        loaded = self.client.script_load("return 'loaded'")
        self.client.publish(self.name, "before")
        watcher = self.client.pipeline()
        watcher.watch(f"{self.name}:watched")
        self.during()
        try:
            watcher.multi()
            watched = watcher.set(f"{self.name}:watched", 1).execute()
        except redis.WatchError:
            watched = None
        self.client.rpush(f"{self.name}:queue", "element")
        self.client.publish(self.name, "after")
        return {
            "before": before,
            "after": self.features(f"{self.name}:after"),
            "across": {
                "watched": watched,
                "same connection": self.client.client_id() == identity,
                "database": self.elsewhere.get(f"{self.name}:kept"),
                "script": self.client.evalsha(loaded, 0),
            },
            "rounds": self.rounds,
            "acknowledged": self.acknowledged,
            "counted": int(self.client.get(self.counter) or 0),
            "errors": self.errors,
        }

    def during(self) -> None:
        """Write and read without a pause from before the failover until after it."""
        for _ in range(20):
            self.round()
        say("ready")
        while not select.select([sys.stdin], [], [], 0)[0]:
            self.round()
        for _ in range(20):
            self.round()

    def round(self) -> None:
        """Four increments, each with a way of its own, among commands that may be repeated."""
        self.rounds += 1
        own = f"{self.name}:round"
        self.client.set(own, self.rounds)
        assert self.client.get(own) == str(self.rounds)
        plain = self.client.pipeline(transaction=False).hset(f"{own}:hash", "field", self.rounds).incr(self.counter)
        transaction = self.client.pipeline().incr(self.counter).rpush(f"{own}:list", self.rounds)
        for attempt in (
            lambda: self.client.incr(self.counter),
            plain.execute,
            transaction.execute,
            lambda: self.count(keys=[self.counter]),
        ):
            try:
                attempt()
                self.acknowledged += 1
            except redis.ResponseError as error:
                self.errors.append(str(error))

    def features(self, name: str) -> dict[str, Any]:
        client = self.client
        client.set(f"{name}:string", "value")
        client.mset({f"{name}:one": 1, f"{name}:two": 2})
        client.hset(f"{name}:hash", mapping={"field": 1, "other": 2})
        client.rpush(f"{name}:list", "a", "b", "c")
        client.set(f"{name}:large", LARGE)
        self.binary.set(f"{name}:\0\r\n".encode() + b"\xff", BINARY)
        self.elsewhere.set(f"{name}:database", "three")
        pipe = client.pipeline(transaction=False)
        multi = client.pipeline()
        for queue, key in ((pipe, f"{name}:pipe"), (multi, f"{name}:multi")):
            queue.incr(key).incrby(key, 5).get(key)
        identity, found = client.client_id(), client.client_list()
        return {
            "string": client.get(f"{name}:string"),
            "many": client.mget(f"{name}:one", f"{name}:two", f"{name}:none"),
            "hash": client.hgetall(f"{name}:hash"),
            "list": client.lrange(f"{name}:list", 0, -1),
            "pipeline": pipe.execute(),
            "transaction": multi.execute(),
            "optimistic": self.optimistic(f"{name}:optimistic"),
            "eval": client.eval("return {1, ARGV[1], {2}}", 0, "x"),
            "script": self.store(keys=[f"{name}:script"], args=["lua"]),
            "large": self.binary.get(f"{name}:large") == LARGE,
            "binary": self.binary.get(f"{name}:\0\r\n".encode() + b"\xff").hex(),
            "database": [self.elsewhere.get(f"{name}:database"), client.get(f"{name}:database")],
            "name": client.client_getname(),
            "listed": [entry["name"] for entry in found if int(entry["id"]) == identity],
            "user": client.acl_whoami(),
        }

    def optimistic(self, key: str) -> list[Any]:
        """Add one with WATCH, while somebody else writes the first time; the attempts, and the value in the end."""
        self.client.set(key, 1)
        with self.client.pipeline() as pipe:
            for attempt in itertools.count(1):
                pipe.watch(key)
                value = int(pipe.get(key) or 0)
                if attempt == 1:
                    self.other.set(key, 10)
                pipe.multi()
                pipe.set(key, value + 1)
                try:
                    pipe.execute()
                    break
                except redis.WatchError:
                    continue
        return [attempt, self.client.get(key)]


def listen(port: int, name: str, protocol: int) -> dict[str, Any]:
    messages = []
    with connect(port, protocol).pubsub() as channel:
        channel.subscribe(name)
        for event in channel.listen():
            if event["type"] == "message":
                messages.append(event["data"])
                say(f"message {event['data']}")
            if event["data"] == "end":
                break
    return {"messages": messages}


def pop(port: int, name: str, protocol: int) -> dict[str, Any]:
    client = connect(port, protocol, socket_timeout=None)
    say("ready")
    return {"popped": client.blpop([f"{name}:queue"], timeout=30)}


def scan(port: int, name: str, protocol: int) -> dict[str, Any]:
    client = connect(port, protocol, single_connection_client=True)
    iterators: dict[str, Iterable[Any]] = {
        "keys": client.scan_iter(match=f"{name}:scan:*", count=10),
        "fields": client.hscan_iter(f"{name}:fields", count=10),
    }
    found = {what: set(itertools.islice(iterator, 150)) for what, iterator in iterators.items()}
    say("ready")
    sys.stdin.readline()
    return {what: len(found[what] | set(iterator)) for what, iterator in iterators.items()}


def main() -> None:
    port, role, name, protocol = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    if role == "play":
        outcome = Player(port, name, protocol).play()
    else:
        outcome = {"listen": listen, "pop": pop, "scan": scan}[role](port, name, protocol)
    say(json.dumps(outcome))


if __name__ == "__main__":
    main()
