"""An open load: so many commands per second, whether those before them were answered or not.

    python -m bench.openloop 127.0.0.1 6380 --connections 50 --rate 20000 --requests 40000 GET 64:__rand_int__

redis-benchmark sends a command when the one before it was answered: it slows down with the server, and the commands
that would have waited are never sent. Here they come at random moments, as from many clients that know nothing of each
other (a Poisson process, the same one each time), and latency counts from the moment at which a command was due. Prints
what `redis-benchmark --csv` prints.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import random
import select
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

import hiredis

from rfprotocol.resp.resp import encode_command

_KEYS = 10_000
_IDLE = 1.0
"""Seconds to wait at most for what is still to be answered when all is sent."""


class _Link:
    """A connection and the commands that it waits for."""

    def __init__(self, link: socket.socket) -> None:
        self.socket = link
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due: deque[float] = deque()
        self._replies = hiredis.Reader()

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def warm_up(self, request: bytes) -> None:
        """Wait for one answer: who is to answer has accepted the connection, and opened what it needs for that."""
        self.send(request, time.monotonic())
        while self.due:
            list(self.receive())

    def send(self, request: bytes, due: float) -> None:
        self.due.append(due)
        self.socket.sendall(request)

    def receive(self) -> Iterator[float]:
        """The latencies of what was answered, in seconds. Raises SystemExit when it was an error."""
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise SystemExit("openloop: the connection was closed")
        self._replies.feed(chunk)
        now = time.monotonic()
        while (reply := self._replies.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                raise SystemExit(f"openloop: {reply}")
            yield now - self.due.popleft()


def run(host: str, port: int, connections: int, rate: float, requests: int, command: Sequence[str]) -> list[float]:
    """Latencies in seconds. Each connection has had an answer before the clock starts.

    `select` because it wakes at the microsecond; epoll would sleep a whole millisecond and send what came due in a
    burst. It knows no descriptors above 1023.
    """
    chance = random.Random(1)
    packed = [_packed(command, chance) for _ in range(1000)]
    seen: list[float] = []
    with contextlib.ExitStack() as stack:
        links = [_Link(stack.enter_context(socket.create_connection((host, port)))) for _ in range(connections)]
        for link in links:
            link.warm_up(packed[0])
        sent, due = 0, time.monotonic()
        while len(seen) < requests:
            now = time.monotonic()
            while sent < requests and due <= now:
                links[sent % connections].send(packed[sent % len(packed)], due)
                sent += 1
                due += chance.expovariate(rate)
            patience = max(0.0, due - time.monotonic()) if sent < requests else _IDLE
            for link in select.select(links, (), (), patience)[0]:
                seen += link.receive()
    return seen


def _packed(command: Sequence[str], chance: random.Random) -> bytes:
    return encode_command([word.replace("__rand_int__", f"{chance.randrange(_KEYS):012}").encode() for word in command])


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    options = argparse.ArgumentParser(prog="bench.openloop", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("host")
    options.add_argument("port", type=int)
    options.add_argument("--connections", type=int, default=50)
    options.add_argument("--rate", type=float, default=10_000.0, help="commands per second, of all connections")
    options.add_argument("--requests", type=int, default=10_000, help="commands in all")
    options.add_argument("command", nargs="+")
    given = options.parse_args(argv)
    gc.disable()  # it would stop all connections now and then
    begun = time.monotonic()
    seen = run(given.host, given.port, given.connections, given.rate, given.requests, given.command)
    rate = len(seen) / (time.monotonic() - begun)
    hundredths = statistics.quantiles(seen, n=100)
    print('"test","rps","p50_latency_ms","p99_latency_ms"')
    print(f'"{given.command[0]}","{rate:.2f}","{hundredths[49] * 1e3:.3f}","{hundredths[98] * 1e3:.3f}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
