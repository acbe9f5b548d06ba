"""A steady load of unmodified Redis clients, and what they saw: errors, gaps, latency, and lost writes.

    python bench/load.py --port 6380 --connections 16 --rate 200 --seconds 10

Each connection is a redis-py client that tries nothing twice, in a thread of its own, and alternates SET, INCR and
GET on two keys of its own. What it was told about its writes is remembered and compared with what the server
says in the end: an acknowledged write that is missing is counted as lost, whatever happened in between.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

WRITES = ("SET", "INCR")
COMMANDS = ("SET", "INCR", "GET")
KINDS = {"reads": ("GET",), "writes": WRITES}


@dataclass(frozen=True, slots=True)
class Operation:
    """One command of one connection; times are of the monotonic clock, in seconds."""

    command: str
    begun: float
    ended: float
    error: str = ""  # the error's code or class; empty when the command succeeded
    detail: str = ""

    @property
    def seconds(self) -> float:
        """How long the client waited."""
        return self.ended - self.begun


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without a success of any connection."""

    seconds: float = 0.0
    begun: float = 0.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Acknowledged and uncertain writes of one or several connections, compared with the server's data."""

    acknowledged: int = 0
    uncertain: int = 0  # answered with an error: they may have been applied, or not
    lost: int = 0  # acknowledged, but the data is older
    doubled: int = 0  # the counter is further than all attempts together can have moved it

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.acknowledged + other.acknowledged,
            self.uncertain + other.uncertain,
            self.lost + other.lost,
            self.doubled + other.doubled,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What all connections saw between `since` and `until`."""

    since: float
    until: float
    operations: Sequence[Operation] = field(repr=False)
    ledger: Ledger | None = None  # None: not compared yet

    @property
    def errors(self) -> Counter[tuple[str, str]]:
        """How often each (command, error) came."""
        return Counter((operation.command, operation.error) for operation in self.operations if operation.error)

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.operations) / (self.until - self.since) if self.until > self.since else 0.0

    def gap(self, commands: Iterable[str]) -> Gap:
        """The longest time without a success among these commands, edges included."""
        wanted = frozenset(commands)
        ends = sorted(o.ended for o in self.operations if not o.error and o.command in wanted)
        moments = [self.since, *ends, self.until]
        return max((Gap(later - earlier, earlier) for earlier, later in itertools.pairwise(moments)), key=_seconds)

    def slowest(self, commands: Iterable[str] = COMMANDS) -> float:
        """The longest that one client waited for one answer."""
        wanted = frozenset(commands)
        return max((operation.seconds for operation in self.operations if operation.command in wanted), default=0.0)

    def percentile(self, share: float) -> float:
        """Latency that this share (0 to 1) of the successful operations did not exceed."""
        latencies = sorted(operation.seconds for operation in self.operations if not operation.error)
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else 0.0

    def between(self, since: float, until: float) -> Result:
        """The part that ended in this time."""
        part = [operation for operation in self.operations if since <= operation.ended <= until]
        return Result(max(since, self.since), min(until, self.until), part)


def _seconds(gap: Gap) -> float:
    return gap.seconds


class Load:
    """The clients. `rate` is operations per second of all connections together; a late client skips, it never hurries.

    Connections take turns with the ports, if there are several; `connect` makes clients of another kind, from the
    number of the connection. `prefix` is that of the keys, which are set to 0 at the start.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | Sequence[int] = 6380,
        *,
        connections: int = 16,
        rate: float = 200.0,
        prefix: str = "",
        connect: Callable[[int], Any] | None = None,
    ) -> None:
        ports = [port] if isinstance(port, int) else port
        connect = connect or (lambda number: _direct(host, ports[number % len(ports)]))
        self._clients = [
            _Client(connect(number), f"{prefix}load:{number}", connections / rate, number)
            for number in range(connections)
        ]
        self._since = 0.0
        self._until = 0.0

    def start(self) -> None:
        """Begin. Raises redis.RedisError when the first write is refused."""
        for client in self._clients:
            client.prepare()
        self._since = time.monotonic()
        for client in self._clients:
            client.start(self._since, of=len(self._clients))

    def stop(self) -> Result:
        """End, after the commands in flight, and compare what was written with what is there."""
        for client in self._clients:
            client.stopping.set()
        for client in self._clients:
            client.join()
        self._until = time.monotonic()
        ledger = sum((client.audit() for client in self._clients), Ledger())
        for client in self._clients:
            client.close()
        return Result(self._since, self._until, self._operations(), ledger)

    def result(self) -> Result:
        """What was seen until now."""
        return Result(self._since, time.monotonic(), self._operations())

    def _operations(self) -> list[Operation]:
        found = [operation for client in self._clients for operation in tuple(client.operations)]
        return sorted(found, key=lambda operation: operation.ended)


def _direct(host: str, port: int) -> redis.Redis:
    return redis.Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), decode_responses=True, socket_timeout=60.0)


class _Client:
    """One connection and the account of its writes."""

    def __init__(self, client: Any, key: str, interval: float, number: int) -> None:
        self.operations: list[Operation] = []
        self.stopping = threading.Event()
        self._value, self._counter = f"{key}:value", f"{key}:counter"
        self._interval = interval
        self._number = number
        self._redis = client  # Any: the methods of redis.Redis are not fully typed
        self._thread: threading.Thread | None = None
        self._written = 0  # the last value that SET tried
        self._books = {"SET": Book(), "INCR": Book()}

    def prepare(self) -> None:
        self._redis.mset({self._value: 0, self._counter: 0})

    def start(self, at: float, of: int) -> None:
        # Spread over the interval, and over the commands: otherwise all would read, then all write.
        due = at + self._interval * self._number / of
        self._thread = threading.Thread(target=self._run, args=(due, self._number % len(COMMANDS)), daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        self._redis.close()

    def _run(self, due: float, first: int) -> None:
        for command in itertools.islice(itertools.cycle(COMMANDS), first, None):
            if self.stopping.wait(max(0.0, due - time.monotonic())):
                return
            begun = time.monotonic()
            error, detail = self._perform(command)
            self.operations.append(Operation(command, begun, time.monotonic(), error, detail))
            due = max(due + self._interval, begun)

    def _perform(self, command: str) -> tuple[str, str]:
        try:
            match command:
                case "SET":
                    self._written += 1
                    self._redis.set(self._value, self._written)
                    self._books["SET"].acknowledged(self._written)
                case "INCR":
                    self._books["INCR"].acknowledged(int(self._redis.incr(self._counter)))
                case _:
                    self._redis.get(self._value)
        except redis.RedisError as problem:
            if command in WRITES:
                self._books[command].uncertain()
            return _code(problem), str(problem)
        return "", ""

    def audit(self) -> Ledger:
        """INCRBY 0 changes nothing, and being a write it is answered by the master, not by a lagging replica."""
        return self._books["SET"].close(int(self._redis.incrby(self._value, 0)), self._written) + self._books[
            "INCR"
        ].close(int(self._redis.incrby(self._counter, 0)))


class Book:
    """Writes of growing values to one key. The server's value lies between the last one that was acknowledged and
    that plus all later attempts; less is a loss, more is a write that was applied twice."""

    def __init__(self) -> None:
        self._least = 0  # the server has at least this
        self._open = 0  # attempts since then whose outcome is unknown
        self._ledger = Ledger()

    def uncertain(self) -> None:
        self._open += 1
        self._ledger += Ledger(uncertain=1)

    def acknowledged(self, value: int) -> None:
        self._ledger += Ledger(acknowledged=1) + self._compare(value, self._least + 1, self._least + 1 + self._open)
        self._least, self._open = value, 0

    def close(self, value: int, most: int | None = None) -> Ledger:
        """Compare with what is there in the end; `most` is the last value that was tried, where that is known."""
        return self._ledger + self._compare(value, self._least, self._least + self._open if most is None else most)

    def _compare(self, value: int, least: int, most: int) -> Ledger:
        return Ledger(lost=max(0, least - value), doubled=max(0, value - most))


def _code(problem: redis.RedisError) -> str:
    """The code of an error reply where redis-py keeps it; else the class of the exception."""
    word = str(problem).split(" ", 1)[0]
    return word if word.isupper() and word.isalpha() else type(problem).__name__


def describe(result: Result) -> str:
    """The result in lines."""
    lines = [f"operations  {len(result.operations)} ({result.rate:.0f}/s)"]
    lines += [f"errors      {count} x {command} {error}" for (command, error), count in sorted(result.errors.items())]
    if not result.errors:
        lines.append("errors      none")
    for name, commands in KINDS.items():
        gap, slowest = result.gap(commands), result.slowest(commands)
        lines.append(f"{name:<10}  longest gap {_ms(gap.seconds)}, longest wait of one client {_ms(slowest)}")
    shares = ", ".join(f"p{share * 100:g} {_ms(result.percentile(share))}" for share in (0.5, 0.99, 0.999))
    lines.append(f"latency     {shares}")
    if ledger := result.ledger:
        lines.append(
            f"data        {ledger.acknowledged} acknowledged writes, {ledger.lost} of them lost; "
            f"{ledger.uncertain} uncertain, {ledger.doubled} applied twice"
        )
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when there was an error or a write was lost."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=6380)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--rate", type=float, default=200.0, help="operations per second, of all connections together")
    options.add_argument("--seconds", type=float, default=10.0, help="then stop; Ctrl-C stops earlier")
    arguments = options.parse_args(argv)
    load = Load(arguments.host, arguments.port, connections=arguments.connections, rate=arguments.rate)
    try:
        load.start()
        threading.Event().wait(arguments.seconds)
    except redis.RedisError as error:
        print(f"load: {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    result = load.stop()
    print(describe(result))
    return 1 if result.errors or (result.ledger and result.ledger.lost) else 0


if __name__ == "__main__":
    sys.exit(main())
