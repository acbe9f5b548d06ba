"""What connections cost the proxy: memory when they are idle, CPU time per command when many share one load.

    python -m bench.connections --csv bench/results/connections.csv

One proxy of an installation with managers and ZooKeeper. 10, 100, 1,000 and 10,000 connections take turns; all of
them together send the same number of commands per second, so that what differs between the lines is their number. Every
connection has said something before it is idle. Prints a table of medians and which targets hold.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tabulate import tabulate

from bench import records
from bench.accounting import cpu_time
from bench.background import Background
from bench.systems import let_pass
from deploy.processes import ProcessError, RedisGroup
from deploy.site import HOST, Site
from deploy.zookeeper import ZooKeeperServer
from rfprotocol.topology.topology import Node

COUNTS = (10, 100, 1_000, 10_000)
RATE = 4_000.0
"""Commands per second of all connections together."""
WARM_UP = 1.0
"""Seconds of load before the accounts are opened."""

RESIDENT = 45_000_000
PER_CONNECTION = 12_000
GROWTH = 1.5
"""Targets: bytes of an idle proxy, bytes per idle connection, dearest by cheapest CPU time per command."""
SHARE = 0.95
"""Part of the rate that has to be reached: CPU time per command depends on how many commands there are to share it."""


@dataclass(frozen=True, slots=True)
class Line:
    """So many connections at this rate: CPU in seconds per command, latencies in seconds, memory in bytes."""

    connections: int
    rate: float
    cpu: float
    p50: float
    p99: float
    errors: int
    memory: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Bytes in memory of a proxy without clients, with so many that are idle, and when they are gone."""

    connections: int
    alone: int
    crowded: int
    after: int

    @property
    def each(self) -> float:
        """Bytes per connection."""
        return (self.crowded - self.alone) / self.connections


@dataclass(frozen=True, slots=True)
class Proxy:
    """The one that is looked at: `pid` is that of its worker, who has the connections."""

    pid: int
    address: Node

    @property
    def memory(self) -> int:
        """Bytes in memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) << 10 if found else 0


@contextlib.contextmanager
def installation() -> Iterator[Proxy]:
    """Three servers, two managers, a ZooKeeper and one proxy that serves."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        (folder / "zookeeper").mkdir()
        zookeeper = stack.enter_context(ZooKeeperServer(folder / "zookeeper"))
        site = Site(folder, zookeeper.hosts, stack.enter_context(RedisGroup(3)), "json")
        stack.callback(site.stop)
        for process in (site.manager(), site.manager(), site.proxy()):
            process.start()
        site.wait_until_ready()
        ((port, process),) = site.proxies.items()
        yield Proxy(process.workers[0], Node(HOST, port))


def idle(proxy: Proxy, connections: int) -> Idle:
    """Open them, let each say one thing, and look. To be done before there was any load."""
    alone = proxy.memory
    with Background(proxy.address, connections=connections, rate=0) as load:
        crowded = proxy.memory
        if errors := load.finish().errors:
            raise ProcessError(f"{len(errors)} of {connections} connections are not served: {errors[0]}")
    let_pass(WARM_UP)
    return Idle(connections, alone, crowded, proxy.memory)


def busy(proxy: Proxy, connections: int, rate: float, seconds: float) -> Line:
    """Let them send `rate` commands per second, all together."""
    with Background(proxy.address, connections=connections, rate=rate) as load:
        let_pass(WARM_UP)
        opened, spent = time.monotonic(), cpu_time(proxy.pid)
        let_pass(seconds)
        closed, spent, memory = time.monotonic(), cpu_time(proxy.pid) - spent, proxy.memory
        answers = load.finish()
    seen = answers.during((opened, closed))
    cpu = spent / max(1, seen.count)
    return Line(connections, seen.count / (closed - opened), cpu, seen.p50, seen.p99, len(answers.errors), memory)


def medians(lines: Sequence[Line]) -> list[Line]:
    """One line for each number of connections."""
    found = []
    for count in dict.fromkeys(line.connections for line in lines):
        columns = zip(*(astuple(line) for line in lines if line.connections == count), strict=True)
        found.append(Line(*map(statistics.median, columns)))
    return found


def growth(lines: Sequence[Line]) -> float:
    """CPU time per command with that number of connections that makes it dearest, by the one that makes it cheapest."""
    prices = [line.cpu for line in medians(lines)]
    return max(prices) / min(prices)


def table(lines: Sequence[Line]) -> str:
    """For people: microseconds, milliseconds, MiB."""
    rows = [
        [
            f"{line.connections:,.0f}",
            f"{line.rate:,.0f}",
            f"{line.cpu * 1e6:.1f}",
            f"{line.p50 * 1e3:.2f}",
            f"{line.p99 * 1e3:.2f}",
            f"{line.errors:g}",
            f"{line.memory / (1 << 20):.1f}",
        ]
        for line in medians(lines)
    ]
    headers = ["CONNECTIONS", "COMMANDS/S", "PROXY (us CPU)", "MEDIAN (ms)", "P99 (ms)", "ERRORS", "MEMORY (MiB)"]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=["right"] * len(headers))


def verdicts(seen: Idle, lines: Sequence[Line], rate: float) -> list[tuple[str, bool]]:
    """Each target with what was measured, and whether it holds."""
    grown = growth(lines)
    least, errors = min(line.rate for line in lines), sum(line.errors for line in lines)
    return [
        (f"idle proxy: {seen.alone / 1e6:.1f} MB, at most {RESIDENT / 1e6:.1f}", seen.alone <= RESIDENT),
        (
            f"memory per idle connection ({seen.connections:,}): {seen.each:,.0f} bytes, at most {PER_CONNECTION:,}",
            seen.each <= PER_CONNECTION,
        ),
        (f"CPU per command, dearest by cheapest: {grown:.2f}, at most {GROWTH}", grown <= GROWTH),
        (f"commands per second, at least {SHARE:.0%} of {rate:,.0f}: {least:,.0f}", least >= SHARE * rate),
        (f"errors: {errors}, none allowed", not errors),
    ]


def save(path: Path, lines: Sequence[Line]) -> None:
    """Every single measurement."""
    records.save(path, (spec.name for spec in fields(Line)), map(astuple, lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    options = argparse.ArgumentParser(prog="bench.connections", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--counts", type=int, nargs="+", default=COUNTS, metavar="N", help="connections")
    options.add_argument("--rate", type=float, default=RATE, help="commands per second (default: %(default)g)")
    options.add_argument("--seconds", type=float, default=5.0, help="for each number of connections in each round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--csv", type=Path, help="write every measurement to this file")
    arguments = options.parse_args(argv)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with installation() as proxy:
        still = idle(proxy, max(arguments.counts))
        lines: list[Line] = []
        for number in range(arguments.rounds):
            lines += [busy(proxy, count, arguments.rate, arguments.seconds) for count in arguments.counts]
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    print(*(f"{name}: {fact}" for name, fact in records.surroundings().items()), "", sep="\n")
    print(f"{table(lines)}\n\nWhen {still.connections:,} connections have gone: {still.after / 1e6:.1f} MB\n")
    for text, holds in verdicts(still, lines, arguments.rate):
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")
    if arguments.csv:
        save(arguments.csv, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
