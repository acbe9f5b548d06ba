"""One hostile neighbour after the other: what it needs of the servers, and how far its harm may go."""

from __future__ import annotations

import contextlib
import itertools
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.processes import wait_until
from tests.scenarios.hostile.neighbours import BIG, LARGE, LIST
from tests.support.redis import RedisServer

BIG_SIZE = 100_000_000
SPARE = 150_000_000
"""Bytes that a server may still ask the system for: less than its neighbour makes it need."""
OUTPUT_LIMIT = 20_000_000
LIST_SIZE = 2_000_000
"""Elements that take Redis one to three seconds to sort: less than the patience with a busy server."""
KEYS = 1_000_000
MAX_CLIENTS = 60

Servers = Sequence[RedisServer]
"""The first one is the master."""
Setting = Callable[[Servers], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Stage:
    """`neighbour` is its name; for how many `seconds` it works, if it does not end by itself."""

    neighbour: str
    setting: Setting
    seconds: float = 5.0
    fatal: bool = False
    """Whether servers may truly die of it: two at most."""
    answered: str = ""
    """How the answer to the neighbour begins."""

    @property
    def title(self) -> str:
        """For people."""
        return self.neighbour.replace("_", " ")


# --- what servers are like


@contextlib.contextmanager
def as_they_are(servers: Servers) -> Iterator[None]:
    """Nothing is prepared."""
    yield


@contextlib.contextmanager
def configured(servers: Servers, name: str, value: str | int) -> Iterator[None]:
    """CONFIG SET, for as long as the block takes, by connections that are there before."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client(single_connection_client=True)) for server in servers]
        before = [client.config_get(name)[name] for client in clients]
        for client in clients:
            client.config_set(name, value)
        yield
        for client, was in zip(clients, before, strict=True):
            client.config_set(name, was)


@contextlib.contextmanager
def little_memory(servers: Servers) -> Iterator[None]:
    """As `prlimit --as`. Lifted for a server that lives on. One that dies has no memory to write a report."""
    for server in servers:
        server.command("CONFIG", "SET", "crash-log-enabled", "no")
        limit = _address_space(server) + SPARE
        resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    yield
    for server in servers:
        if server.alive:
            resource.prlimit(server.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _address_space(server: RedisServer) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def with_big(servers: Servers) -> Iterator[None]:
    """A value of 100 MB, on all of them."""
    servers[0].command("SETRANGE", BIG.decode(), BIG_SIZE - 1, "x")
    _all_have(servers, BIG)
    yield


@contextlib.contextmanager
def big_and_little_memory(servers: Servers) -> Iterator[None]:
    """Too little to send the big value several times."""
    with with_big(servers), little_memory(servers):
        yield


@contextlib.contextmanager
def big_and_output_limit(servers: Servers) -> Iterator[None]:
    """Redis closes a connection with so much to send."""
    with with_big(servers), configured(servers, "client-output-buffer-limit", f"normal {OUTPUT_LIMIT} 0 0"):
        yield


@contextlib.contextmanager
def with_large(servers: Servers) -> Iterator[None]:
    """A value of 1 MB."""
    servers[0].command("SETRANGE", LARGE.decode(), 1_000_000, "x")
    _all_have(servers, LARGE)
    yield


@contextlib.contextmanager
def with_list(servers: Servers) -> Iterator[None]:
    """A list that is long to sort."""
    numbers = (f"{number * 7919 % 1_000_003:07d}" for number in itertools.count())
    with servers[0].client() as client:
        for _ in range(LIST_SIZE // 10_000):
            client.rpush(LIST, *itertools.islice(numbers, 10_000))
    _all_have(servers, LIST)
    yield


@contextlib.contextmanager
def with_many_keys(servers: Servers) -> Iterator[None]:
    """A million of them in a database of their own."""
    with servers[0].client(db=1) as client:
        for first in range(0, KEYS, 10_000):
            client.mset({f"key:{number}": 1 for number in range(first, first + 10_000)})
        client.set("complete", 1)
    for server in servers:
        with server.client(db=1) as client:
            wait_until(lambda client=client: bool(client.exists("complete")), "a million keys everywhere")  # type: ignore[misc]
    yield


@contextlib.contextmanager
def few_clients(servers: Servers) -> Iterator[None]:
    """`maxclients` is below what the neighbour wants."""
    with configured(servers, "maxclients", MAX_CLIENTS):
        yield


def _all_have(servers: Servers, key: bytes) -> None:
    for server in servers:
        wait_until(lambda server=server: bool(server.command("EXISTS", key.decode())), f"{key!r} everywhere")  # type: ignore[misc]


STAGES = (
    Stage("set_range", little_memory, fatal=True, answered="-UNCERTAIN SETRANGE"),
    Stage("many_large", big_and_little_memory, fatal=True, answered="-ERR"),
    Stage("big_reply", big_and_output_limit, answered="-ERR"),
    Stage("slow_read", with_list, answered="*1"),
    Stage("flush", with_many_keys, answered="+OK"),
    Stage("pipeline", as_they_are, answered="completed"),
    Stage("scripts", as_they_are),
    Stage("blocked", as_they_are, answered="nothing"),
    Stage("pops", few_clients, seconds=10.0),
    Stage("short_pops", as_they_are),
    Stage("slow_readers", with_large),
    Stage("connections", as_they_are),
    Stage("scans", as_they_are),
)
QUICK = [stage for stage in STAGES if stage.neighbour in ("big_reply", "scripts", "scans")]
"""Those of the ordinary test."""
