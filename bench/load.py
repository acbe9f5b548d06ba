"""A steady load of unmodified Redis clients, and what they saw: errors, gaps, latency, and lost writes.

    python -m bench.load --port 6380 --connections 16 --rate 200 --seconds 10

Each connection is a redis-py client that tries nothing twice, in a thread of its own, and alternates SET, INCR and
GET on two keys of its own, or what its duty is. What it was told about its writes is remembered and compared with what
the server says in the end: an acknowledged write that is missing is counted as lost, whatever happened in between.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bench.seen import COMMANDS, WRITES, Book, Ledger, Operation, Result, describe


class Load:
    """The clients. `rate` is operations per second of all connections together; a late client skips, it never hurries.

    Connections take turns with the ports, if there are several, and with the `duties`: what each one repeats.
    `connect` makes clients of another kind, from the number of the connection; `numbers` are the connections that
    this process has, if not all. `prefix` is that of the keys, which are set to 0 at the start.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | Sequence[int] = 6380,
        *,
        connections: int = 16,
        rate: float = 200.0,
        prefix: str = "",
        duties: Sequence[Sequence[str]] = (COMMANDS,),
        connect: Callable[[int], Any] | None = None,
        numbers: Iterable[int] | None = None,
    ) -> None:
        ports = [port] if isinstance(port, int) else port
        # By as many as there are duties: otherwise all writers could be at one port, and all readers at the other.
        connect = connect or (lambda number: _direct(host, ports[number // len(duties) % len(ports)]))
        self._clients = [
            _Client(
                connect(number), f"{prefix}load:{number}", _turned(duties, number), connections / rate, number / rate
            )
            for number in (range(connections) if numbers is None else numbers)
        ]
        self._since = 0.0
        self._until = 0.0

    def prepare(self) -> None:
        """Connect and set the keys. Raises redis.RedisError when that is refused."""
        for client in self._clients:
            client.prepare()

    def start(self, at: float | None = None) -> None:
        """Begin, at this time of the monotonic clock when it was prepared before. Raises as `prepare`."""
        if at is None:
            self.prepare()
        self._since = time.monotonic() if at is None else at
        for client in self._clients:
            client.start(self._since)

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


def _turned(duties: Sequence[Sequence[str]], number: int) -> Sequence[str]:
    """The duty of a connection. Each begins at another command: otherwise all would set, then all increment."""
    turn, kind = divmod(number, len(duties))
    duty = duties[kind]
    first = turn % len(duty)
    return (*duty[first:], *duty[:first])


def _direct(host: str, port: int) -> redis.Redis:
    return redis.Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), decode_responses=True, socket_timeout=60.0)


class _Client:
    """One connection and the account of its writes. It begins `delay` seconds after the start of the load."""

    def __init__(self, client: Any, key: str, commands: Sequence[str], interval: float, delay: float) -> None:
        self.operations: list[Operation] = []
        self.stopping = threading.Event()
        self._value, self._counter = f"{key}:value", f"{key}:counter"
        self._commands = commands
        self._interval = interval
        self._delay = delay
        self._redis = client  # Any: the methods of redis.Redis are not fully typed
        self._thread: threading.Thread | None = None
        self._written = 0  # the last value that SET tried
        self._books = {"SET": Book(), "INCR": Book()}

    def prepare(self) -> None:
        self._redis.mset({self._value: 0, self._counter: 0})

    def start(self, at: float) -> None:
        self._thread = threading.Thread(target=self._run, args=(at + self._delay,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        self._redis.close()

    def _run(self, due: float) -> None:
        for command in itertools.cycle(self._commands):
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


def _code(problem: redis.RedisError) -> str:
    """The code of an error reply where redis-py keeps it; else the class of the exception."""
    word = str(problem).split(" ", 1)[0]
    return word if word.isupper() and word.isalpha() else type(problem).__name__


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
