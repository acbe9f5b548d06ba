"""Clients that connect, use, and vanish, again and again: what does that leave behind in the proxy?

    python -m bench.soak --connections 20000

prints, every so many connections, the memory and the descriptors of the proxy and the connections at the Redis servers.
They have to stay where they were when every behaviour had been seen a few times.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import EmbeddedProxy
from deploy.processes import RedisGroup, wait_until
from rfproxy.routing.dedicated_pool import MOST_SPARES

OPEN = 60
"""Connections open at a time: the oldest one goes when the next one comes."""
LEVEL = ("--spare-connections", str(MOST_SPARES))
"""So many connections are held ready from the start: else their number doubles whenever many clients need one at once,
which would look like growth."""
TALKS = (
    b"",
    b"SET k v\r\nGET k\r\nINCR n\r\n",
    b"PING\r\nQUIT\r\n",
    b"HELLO 3\r\nCLIENT SETNAME soak\r\nSELECT 3\r\nSET k v\r\n",
    b"MULTI\r\nSET k v\r\n",
    b"MULTI\r\nSET k v\r\nINCR n\r\nEXEC\r\n",
    b"WATCH k\r\nGET k\r\n",
    b"WATCH k\r\nMULTI\r\nSET k v\r\n",
    b"SUBSCRIBE channel\r\nPSUBSCRIBE c*\r\n",
    b"HELLO 3\r\nSUBSCRIBE channel\r\nGET k\r\n",
    b"BLPOP nothing 0\r\n",
    b"BLPOP nothing 0.01\r\nGET k\r\n",
    b"BZPOPMIN nothing 0\r\nXREAD BLOCK 0 STREAMS x $\r\n",
    b"MONITOR\r\n",
    b"SET k v\r\n" * 500 + b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + b"half" * 10_000,
    b"*2\r\n$3\r\nGET\r\n$1",
    b"AUTH wrong\r\nAUTH nobody wrong\r\nGET k\r\n",
    b"HELLO 3\r\nCLIENT TRACKING ON\r\nGET k\r\n",
    b"CLIENT REPLY OFF\r\nSET k v\r\n",
    b"GET big\r\n" * 1000,  # and nobody reads the 10 MB
    b"LRANGE list 0 -1\r\n" * 100,
    b"EVAL 'return redis.call(\"GET\", KEYS[1])' 1 k\r\nEVALSHA ffffffffffffffffffffffffffffffffffffffff 0\r\n",
    b"*abc\r\n",
    b"NONSENSE\r\nGET\r\n",
    b"PUBLISH channel hello\r\n",
    b"SCAN 0 COUNT 1\r\n",
    b"DEBUG SLEEP 0\r\nKEYS none*\r\n",
)
"""What clients say before they vanish."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What is in use after so many connections; memory in bytes, connections of each server."""

    connections: int
    memory: int
    descriptors: int
    at_servers: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.connections:>8} connections: {self.memory / (1 << 20):7.1f} MiB, "
            f"{self.descriptors:>4} descriptors, at the servers {', '.join(map(str, self.at_servers))}"
        )


MEMORY = 8 << 20
DESCRIPTORS = 8
"""What one third of a soak may have more than the one before: lanes come and go, and so does free memory."""


class Soak:
    """Many short lives of clients of one proxy in front of `group`."""

    def __init__(self, group: RedisGroup, proxy: EmbeddedProxy) -> None:
        self._group = group
        self._proxy = proxy
        self._clients: deque[socket.socket] = deque()
        with group.master.client() as client:
            client.set("big", "x" * 10_000)
            client.rpush("list", *range(1000))

    def run(self, connections: int, every: int) -> Iterator[Figures]:
        """Yield the figures at the start, then every so many connections. Nobody is connected when they are taken."""
        yield self.figures(0)
        for number in range(1, connections + 1):
            self._one(number)
            if number % every == 0:
                while self._clients:
                    self._leave(number)
                yield self.figures(number)

    def _one(self, number: int) -> None:
        client = socket.create_connection((self._proxy.address.host, self._proxy.address.port), 30)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client.send(TALKS[number % len(TALKS)])
        self._clients.append(client)
        if len(self._clients) > OPEN:
            self._leave(number)

    def _leave(self, number: int) -> None:
        """The oldest client goes: with a word, without one, or when it has read what is there."""
        client = self._clients.popleft()
        way = number % 7
        with contextlib.suppress(OSError):
            if way < 3:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif way < 5:
                client.recv(1 << 16)
            elif way == 5:
                client.shutdown(socket.SHUT_WR)
        client.close()

    def figures(self, number: int) -> Figures:
        """What is in use, once all clients that left are gone."""
        wait_until(lambda: not self._proxy.clients, "clients that are gone")
        wait_until(self._settled, "servers without clients that wait")
        return Figures(number, self._proxy.memory, self._proxy.descriptors, self._at_servers())

    def _settled(self) -> bool:
        return all(server.info("clients")["blocked_clients"] == 0 for server in self._group.servers)

    def _at_servers(self) -> tuple[int, ...]:
        return tuple(server.info("clients")["connected_clients"] for server in self._group.servers)


def growth(figures: list[Figures]) -> Figures:
    """What the last third has more than the second one, at most of each."""
    third = len(figures) // 3
    before, after = figures[third : 2 * third], figures[2 * third :]
    return Figures(
        figures[-1].connections - figures[2 * third - 1].connections,
        max(f.memory for f in after) - max(f.memory for f in before),
        max(f.descriptors for f in after) - max(f.descriptors for f in before),
        tuple(
            max(numbers) - max(earlier)
            for numbers, earlier in zip(
                zip(*(f.at_servers for f in after), strict=True),
                zip(*(f.at_servers for f in before), strict=True),
                strict=True,
            )
        ),
    )


def flat(figures: list[Figures]) -> bool:
    """Whether nothing grows."""
    grown = growth(figures)
    return grown.memory <= MEMORY and max(grown.descriptors, *grown.at_servers) <= DESCRIPTORS


def main() -> int:
    """The command line; exit status 1 when something grew."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=1000, help="connections between two lines")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="rf-") as folder,
        RedisGroup(3) as group,
        EmbeddedProxy(group, Path(folder), "--log-level", "error", *LEVEL) as proxy,
    ):
        seen: list[Figures] = []
        for figures in Soak(group, proxy).run(options.connections, options.every):
            print(figures, flush=True)
            seen.append(figures)
        if proxy.defects:
            print(*proxy.defects, sep="\n")
            return 1
    grown = growth(seen)
    print(f"the last third over the second one:\n{grown}")
    return 0 if flat(seen) else 1


if __name__ == "__main__":
    sys.exit(main())
