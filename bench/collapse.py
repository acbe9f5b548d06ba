"""The harm that one client, or one replica, does to all others: their latency before and meanwhile, direct and proxied.

    python -m bench.collapse --csv bench/results/collapse.csv

A master and two replicas, managers, ZooKeeper and a proxy; 50 connections with a steady load, four reads to one write.
Each disturbance strikes while that load goes to the master itself, and while it goes through the proxy. What counts is
the p99 of the commands under way meanwhile: it may be twice what it was before, and by as much more as the disturbance
adds without a proxy, since that is Redis' own. Of what lasts, the first second is shown and does not count: that a
server is slow is known from late answers only. Prints a table of medians, and which rows hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tabulate import tabulate

from bench import records
from bench.background import Background, Latency
from bench.systems import let_pass, masters
from deploy.processes import ProcessError, RedisGroup, RedisServer
from deploy.site import HOST, Site
from deploy.zookeeper import ZooKeeperServer
from rfprotocol.resp.resp import encode_command
from rfprotocol.topology.topology import Node
from tests.support.relay import Relay

CONNECTIONS = 50
RATE = 2_000.0
CALM = 3.0
"""Seconds before a disturbance."""
ONSET = 1.0
"""Seconds from the begin of a disturbance that lasts that are shown by themselves."""
LASTING = 13.0
"""Seconds of a disturbance that does not end by itself: longer than a slow replica is passed over the first time."""
MISSING = 0.01
"""Part of the load that may be missing, because the process that makes it was kept from running."""
PAUSE = 0.5
"""Seconds of load that are not looked at: at its start, and between two strikes."""
MOST = 2.0
"""What p99 may be meanwhile, in terms of what it was."""

BIG = 200_000_000
MEDIUM = 100_000
"""Bytes of values."""
UNREAD = 1_000
"""Replies of the latter size that a client asks for at once."""
KEYS = 1_000_000
DELAY = 0.05
"""Seconds in each direction: 100 ms from a command to its reply."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The servers, the proxy in front of them, and what delays the last replica."""

    group: RedisGroup
    proxy: Node
    path: SlowPath | None = None


@dataclass(frozen=True, slots=True)
class Disturbance:
    """It lasts until `strike` returns, which is given the address that clients use; `heal` undoes it.

    The first `onset` seconds are shown by themselves. `relayed`: the last replica is reached through a relay.
    """

    title: str
    strike: Callable[[Scene, Node], object]
    prepare: Callable[[RedisServer], object] = lambda master: None
    heal: Callable[[Scene], object] = lambda scene: None
    strikes: int = 1
    onset: float = 0.0
    relayed: bool = False


# --- clients that disturb


def _ask(address: Node, *commands: Sequence[str]) -> socket.socket:
    link = socket.create_connection((address.host, address.port))
    link.sendall(b"".join(encode_command([word.encode() for word in words]) for words in commands))
    return link


def _read(link: socket.socket, size: int) -> None:
    """Read so many bytes, as fast as they come."""
    room = memoryview(bytearray(1 << 20))
    while size > 0 and (count := link.recv_into(room[:size])):
        size -= count


def _set_big(master: RedisServer) -> None:
    master.command("SET", "big", "x" * BIG)


def _get_big(scene: Scene, address: Node) -> None:
    with _ask(address, ["GET", "big"]) as link:
        _read(link, len(f"${BIG}\r\n\r\n") + BIG)


def _set_keys(master: RedisServer) -> None:
    script = "for i = ARGV[1], ARGV[2] do redis.call('SET', string.format('key:%07d', i), '') end"
    for first in range(0, KEYS, KEYS // 20):
        master.command("EVAL", script, 0, first, first + KEYS // 20 - 1)


def _list_keys(scene: Scene, address: Node) -> None:
    with _ask(address, ["KEYS", "key:*"]) as link:
        _read(link, len(f"*{KEYS}\r\n") + KEYS * len("$11\r\nkey:0000000\r\n"))


def _set_medium(master: RedisServer) -> None:
    master.command("SET", "medium", "x" * MEDIUM)


def _read_slowly(scene: Scene, address: Node) -> None:
    """Ask for a lot, and read a little of it now and then."""
    until = time.monotonic() + LASTING
    with _ask(address, *[["GET", "medium"]] * UNREAD) as link:
        while time.monotonic() < until:
            link.recv(1 << 16)
            let_pass(0.05)


# --- replicas that disturb


def _kill_replica(scene: Scene, address: Node) -> None:
    scene.group.replicas[-1].kill()
    let_pass(LASTING)


def _restart_replica(scene: Scene) -> None:
    scene.group.replicas[-1].restart()
    scene.group.wait_in_sync()  # the managers see to it
    let_pass(LASTING)


def _slow_down(scene: Scene, address: Node) -> None:
    _path(scene).delay(DELAY)
    let_pass(LASTING)


def _speed_up(scene: Scene) -> None:
    _path(scene).delay(0.0)


def _path(scene: Scene) -> SlowPath:
    if scene.path is None:
        raise ValueError("nothing stands between the proxy and this replica")
    return scene.path


DISTURBANCES = (
    Disturbance("a client that reads slowly", _read_slowly, _set_medium, onset=ONSET),
    Disturbance("a reply of 200 MB", _get_big, _set_big, strikes=5),
    Disturbance("KEYS on a million keys", _list_keys, _set_keys, strikes=5),
    Disturbance("a dead replica", _kill_replica, heal=_restart_replica, onset=ONSET),
    Disturbance("a replica at 100 ms", _slow_down, heal=_speed_up, onset=ONSET, relayed=True),
)


# --- where it happens


class SlowPath:
    """A relay in front of a server, in a thread of its own. To be entered before the server's address is used."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._relay = Relay(server.bind, server.port)

    def __enter__(self) -> SlowPath:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._relay.mend(), self._loop).result()
        self._server.front = Node(self._relay.host, self._relay.port)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._relay.cut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def delay(self, seconds: float) -> None:
        """Of each direction."""
        self._loop.call_soon_threadsafe(self._relay.delay, seconds)


@contextlib.contextmanager
def scene_of(zookeeper: str, disturbance: Disturbance) -> Iterator[Scene]:
    """An installation of its own for one disturbance."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        group = stack.enter_context(RedisGroup(3))
        disturbance.prepare(group.master)
        group.wait_in_sync()
        path = stack.enter_context(SlowPath(group.replicas[-1])) if disturbance.relayed else None
        site = Site(folder, f"{zookeeper}/{folder.name}", group, "json")
        stack.callback(site.stop)
        for process in (site.manager(), site.manager(), site.proxy()):
            process.start()
        site.wait_until_ready()
        yield Scene(group, Node(HOST, next(iter(site.proxies))), path)


# --- what the others see


@dataclass(frozen=True, slots=True)
class Seen:
    """One load, once: what it was like before, at the onset, and meanwhile; the part of it that is missing."""

    title: str
    through: str
    before: Latency
    onset: Latency
    meanwhile: Latency
    errors: int
    missing: float


def watch(disturbance: Disturbance, scene: Scene, through: str) -> Seen:
    """Let it strike under a load that goes `through` the proxy, or directly to the master."""
    address = scene.proxy if through == PROXY else scene.group.master.node
    with Background(address, connections=CONNECTIONS, rate=RATE) as load:
        let_pass(PAUSE)
        calm = (time.monotonic(), time.monotonic() + CALM)
        let_pass(CALM)
        strikes = []
        for _ in range(disturbance.strikes):
            begun = time.monotonic()
            disturbance.strike(scene, address)
            strikes.append((begun, time.monotonic()))
            let_pass(PAUSE)
        answers = load.finish()
    disturbance.heal(scene)
    if masters(scene.group) != [scene.group.master]:
        raise ProcessError(f"{disturbance.title}: the master was replaced")
    onset = [(begun, begun + disturbance.onset) for begun, _ in strikes] if disturbance.onset else []
    rest = [(begun + disturbance.onset, ended) for begun, ended in strikes]
    asked = RATE * sum(ended - begun for begun, ended in (calm, *onset, *rest))
    return Seen(
        disturbance.title,
        through,
        answers.during(calm),
        answers.during(*onset),
        answers.during(*rest),
        len(answers.errors),
        answers.missing(calm, *onset, *rest) / asked,
    )


DIRECT, PROXY = "direct", "proxy"


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of all rounds of one disturbance."""

    title: str
    before: dict[str, Latency]
    onset: dict[str, Latency]
    meanwhile: dict[str, Latency]
    errors: int
    missing: float

    @property
    def allowed(self) -> float:
        """Seconds that p99 may be through the proxy meanwhile."""
        own = max(0.0, self.meanwhile[DIRECT].p99 - self.before[DIRECT].p99)
        return MOST * self.before[PROXY].p99 + own

    @property
    def holds(self) -> bool:
        """Whether the others are left alone, as far as the load was there to see it."""
        return self.meanwhile[PROXY].p99 <= self.allowed and not self.errors and self.missing <= MISSING

    @property
    def verdict(self) -> str:
        """In words."""
        causes = [f"{self.errors} errors"] * bool(self.errors)
        causes += [f"{self.missing:.1%} of the load is missing"] * (self.missing > MISSING)
        return "holds" if self.holds else " ".join(["DOES NOT HOLD", *(f"({cause})" for cause in causes)])


def rows(seen: Sequence[Seen]) -> list[Row]:
    """A row for each disturbance."""
    found = []
    for title in dict.fromkeys(one.title for one in seen):
        of = {way: [one for one in seen if (one.title, one.through) == (title, way)] for way in (DIRECT, PROXY)}
        found.append(
            Row(
                title,
                {way: _median([one.before for one in of[way]]) for way in of},
                {way: _median([one.onset for one in of[way]]) for way in of},
                {way: _median([one.meanwhile for one in of[way]]) for way in of},
                sum(one.errors for one in (*of[DIRECT], *of[PROXY])),
                max((one.missing for one in (*of[DIRECT], *of[PROXY])), default=0.0),
            )
        )
    return found


def _median(latencies: Sequence[Latency]) -> Latency:
    return Latency(*map(statistics.median, zip(*map(astuple, latencies), strict=True)))


def table(found: Sequence[Row]) -> str:
    """Milliseconds: p50 / p99 / the longest."""
    lines = [
        [
            row.title,
            *(_cell(when[way]) for way in (DIRECT, PROXY) for when in (row.before, row.onset, row.meanwhile)),
            *(f"{row.meanwhile[way].p99 / row.before[way].p99:.1f}" for way in (DIRECT, PROXY)),
            f"{row.allowed * 1e3:.1f}",
            row.verdict,
        ]
        for row in found
    ]
    headers = ["", *(f"{way} {when}" for way in ("DIRECT", "PROXY") for when in ("BEFORE", "ONSET", "MEANWHILE"))]
    headers += ["RATIO DIRECT", "PROXY", "ALLOWED", ""]
    alignment = ["left", *["right"] * 9, "left"]
    return tabulate(lines, headers, tablefmt="plain", disable_numparse=True, colalign=alignment)


def _cell(latency: Latency) -> str:
    if not latency.count:
        return "-"
    return " / ".join(f"{seconds * 1e3:.1f}" for seconds in (latency.p50, latency.p99, latency.most))


def save(path: Path, seen: Sequence[Seen]) -> None:
    """Every round; seconds."""
    names = ["disturbance", "through", "when", *(spec.name for spec in fields(Latency)), "errors", "missing"]
    lines = (
        [one.title, one.through, when, *astuple(latency), one.errors, one.missing]
        for one in seen
        for when, latency in (("before", one.before), ("onset", one.onset), ("meanwhile", one.meanwhile))
    )
    records.save(path, names, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when a row does not hold."""
    options = argparse.ArgumentParser(prog="bench.collapse", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", type=int, nargs="*", metavar="N", help="only these rows, counted from 1")
    options.add_argument("--csv", type=Path, help="write what every round saw to this file")
    arguments = options.parse_args(argv)
    seen: list[Seen] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        zookeeper = stack.enter_context(ZooKeeperServer(folder))
        for number in arguments.only or range(1, len(DISTURBANCES) + 1):
            disturbance = DISTURBANCES[number - 1]
            with scene_of(zookeeper.hosts, disturbance) as scene:
                for _ in range(arguments.rounds):
                    seen += [watch(disturbance, scene, through) for through in (DIRECT, PROXY)]
            print(disturbance.title, file=sys.stderr, flush=True)
    found = rows(seen)
    print(*(f"{name}: {fact}" for name, fact in records.surroundings().items()), "", sep="\n")
    print(f"Milliseconds: p50 / p99 / the longest, of all other clients.\n\n{table(found)}")
    if arguments.csv:
        save(arguments.csv, seen)
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
