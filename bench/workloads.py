"""What clients do to the systems that are compared: the loads of redis-benchmark, as data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deploy.processes import RedisServer

KEYS = 10_000
"""Of each size of values; every command takes one at random."""
SIZES = {"64 B": 64, "4 KB": 4096}
CONNECTIONS = (1, 50, 500, 5000)
PIPELINES = (1, 16, 64)
_RANDOM = "__rand_int__"
"""What redis-benchmark replaces by a number of twelve digits."""
_LIST = "list"
_FILL = """
local length, keys = ARGV[1], ARGV[2]
for number = 0, keys - 1 do
  redis.call("SET", string.format("%d:%012d", length, number), string.rep("x", length))
end
"""


@dataclass(frozen=True, slots=True)
class Stream:
    """What one redis-benchmark sends."""

    command: tuple[str, ...]
    connections: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Streams that run at the same time, each command being one of `pipeline` that a connection sends at once.

    As fast as the system can; or, as a `third_of` another workload, at a third of the commands per second that rfproxy
    reaches with that one.
    """

    title: str
    streams: tuple[Stream, ...]
    pipeline: int = 1
    servers: int = 1
    third_of: Workload | None = None

    @property
    def name(self) -> str:
        """Title, connections and pipeline: different for each workload."""
        return f"{self.title}, {self.connections} conn, P={self.pipeline}"

    @property
    def connections(self) -> int:
        """Of all streams."""
        return sum(stream.connections for stream in self.streams)

    def narrowed(self, connections: int) -> Workload:
        """The same with at most so many connections in each stream."""
        streams = (replace(stream, connections=min(connections, stream.connections)) for stream in self.streams)
        return replace(self, streams=tuple(streams))


def get(connections: int, pipeline: int) -> Workload:
    """GET of 64 bytes."""
    return _one("GET 64 B", "GET", f"64:{_RANDOM}", connections=connections, pipeline=pipeline)


def _one(title: str, *command: str, connections: int = 50, pipeline: int = 1) -> Workload:
    return Workload(title, (Stream(command, connections),), pipeline)


def _matrix() -> Iterator[Workload]:
    for pipeline, connections, (size, length) in itertools.product(PIPELINES, CONNECTIONS, SIZES.items()):
        key = f"{length}:{_RANDOM}"
        yield _one(f"GET {size}", "GET", key, connections=connections, pipeline=pipeline)
        yield _one(f"SET {size}", "SET", key, "x" * length, connections=connections, pipeline=pipeline)


def _mix() -> Workload:
    """Four reads for a write, as many as each has connections. rfproxy alone sends the reads to the replicas."""
    reads, writes = Stream(("GET", f"64:{_RANDOM}"), 40), Stream(("SET", f"64:{_RANDOM}", "x" * 64), 10)
    return Workload("80 % reads, 2 replicas", (reads, writes), servers=3)


STEADY = replace(get(50, 1), title="GET 64 B at a third of the load", third_of=get(50, 1))
WORKLOADS = (
    *_matrix(),
    _one("MGET of 10", "MGET", *[f"64:{_RANDOM}"] * 10),
    _one("LRANGE of 100", "LRANGE", _LIST, "0", "99"),
    _mix(),
    STEADY,
)


def fill(server: RedisServer) -> None:
    """Everything that is read by the workloads."""
    with server.client(socket_timeout=60.0) as client:
        for length in SIZES.values():
            client.eval(_FILL, 0, str(length), str(KEYS))
        client.rpush(_LIST, *(f"element-{number:02}" for number in range(100)))
