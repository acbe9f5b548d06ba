"""How long clients wait when a master is killed, when it is frozen, and when it is moved on request.

    python -m bench.failover --runs 5 --plot bench/results/failover.svg
    python -m bench.failover --runs 5 --sentinel

Three Redis servers, one ZooKeeper, three managers (two must agree), one proxy, and 16 redis-py connections that try
nothing twice, each alternating SET, INCR and GET. Each run kills the master with SIGKILL and starts it again, freezes
one with SIGSTOP and lets it go on, and moves the role with `rfmanager failover`. `--sentinel` does the same to a group
of its own under Redis Sentinel, in turns. Prints a line for each event and a table of all; `--plot` draws one run.

A connection does one thing at a time: while the proxy holds its write it does not read either, which counts as time
without a read. Sentinel's client gets an error at once and goes on to its next read.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import redis
from tabulate import tabulate

from bench.load import WRITES, Ledger, Load, Result
from bench.sentinel import SentinelSite
from deploy.processes import RedisGroup, RedisServer, wait_until
from deploy.site import HOST, Site, is_replica
from deploy.zookeeper import ZooKeeperServer

CONNECTIONS = 16
PAUSE = 2.5
"""Seconds of load before each event, from another master to undoing what was done, and when all is in order again."""
RECOVERY = 60.0
"""Seconds within which there has to be another master, and then the old one a replica of it."""


class System(Protocol):
    """A group of Redis servers, what moves the master role among them, and clients that can follow."""

    @property
    def name(self) -> str:
        """For the table."""

    @property
    def group(self) -> RedisGroup:
        """The servers."""

    def load(self, connections: int, rate: float) -> Load:
        """Clients of this system."""

    def switch_over(self) -> None:
        """Ask for another master; need not wait for it."""

    def wait_until_ready(self) -> None:
        """Return when the system can take the next event."""


class ProxySite(Site):
    """Managers and a proxy."""

    name = "rfproxy"

    def load(self, connections: int, rate: float) -> Load:
        """Clients of the proxies."""
        return Load(HOST, list(self.proxies), connections=connections, rate=rate)

    def switch_over(self) -> None:
        """Returns when there is another master."""
        done = self.manage("failover")
        if done.returncode != 0:
            raise SystemExit(f"bench.failover: {done.stdout}{done.stderr}")


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that happens to a master, and how that is undone."""

    title: str
    strike: Callable[[System, RedisServer], object]
    heal: Callable[[RedisServer], object]


KINDS = (
    Kind("master killed (SIGKILL)", lambda _, master: master.kill(), RedisServer.restart),
    Kind("master frozen (SIGSTOP)", lambda _, master: master.freeze(), RedisServer.thaw),
    Kind("planned switchover", lambda system, _: system.switch_over(), lambda _: None),
)


@dataclass(frozen=True, slots=True)
class Event:
    """What was done at a moment of the monotonic clock, and what clients saw around it."""

    system: str
    title: str
    at: float
    whole: Result  # with the undisturbed load before it

    @property
    def seen(self) -> Result:
        """What clients saw from then on until everything had been in order for a while."""
        return self.whole.between(self.at, self.whole.until)

    @property
    def ledger(self) -> Ledger:
        """Of all writes of this load."""
        return self.whole.ledger or Ledger()

    @property
    def writes_resumed(self) -> float:
        """Seconds without a successful write of any client."""
        return self.seen.gap(WRITES).seconds

    @property
    def read_gap(self) -> float:
        """Seconds without a successful read of any client."""
        return self.seen.gap(["GET"]).seconds

    @property
    def errors(self) -> Counter[str]:
        """How often each error came."""
        kinds: Counter[str] = Counter()
        for (_, error), count in self.seen.errors.items():
            kinds[error] += count
        return kinds

    def __str__(self) -> str:
        return (
            f"{self.system}, {self.title}: no write for {_ms(self.writes_resumed)}, no read for {_ms(self.read_gap)}, "
            f"one client waited {_ms(self.seen.slowest())}, {self.ledger.lost} lost, "
            f"errors: {_listed(self.errors)}  ({self.whole.rate:.0f}/s)"
        )


def one_event(system: System, kind: Kind, rate: float) -> Event:
    """Do it and undo it, with load all the time. Raises ProcessError when the group does not recover."""
    system.wait_until_ready()
    master = masters(system.group)[0]
    load = system.load(CONNECTIONS, rate)
    load.start()
    try:
        _let_pass(PAUSE)
        at = time.monotonic()
        kind.strike(system, master)
        wait_until(lambda: bool(masters(system.group, but=master)), "another master", RECOVERY)
        _let_pass(PAUSE)
        kind.heal(master)
        wait_until(partial(_in_order, system.group), "one master and its replicas", RECOVERY)
        _let_pass(PAUSE)
    finally:
        result = load.stop()
    return Event(system.name, kind.title, at, result)


def masters(group: RedisGroup, but: RedisServer | None = None) -> list[RedisServer]:
    """All that say they are. The one that is left out is not asked: it may be frozen."""
    found = []
    for server in group.servers:
        with contextlib.suppress(redis.RedisError):
            if server is not but and server.info()["role"] == "master":
                found.append(server)
    return found


def _in_order(group: RedisGroup) -> bool:
    """Whether all servers but one are replicas; who asks may be cut off by a server that becomes one."""
    try:
        return [is_replica(server) for server in group.servers].count(False) == 1 == len(masters(group))
    except redis.RedisError:
        return False


def _let_pass(seconds: float) -> None:
    threading.Event().wait(seconds)


def plot(events: Sequence[Event], path: Path) -> None:
    """Draw successes per 50 ms of one run, and mark the events."""
    from matplotlib import pyplot  # noqa: PLC0415 - only whoever draws needs it

    start, bucket = events[0].at - PAUSE / 2, 0.05
    count = int((events[-1].at + PAUSE - start) / bucket)
    operations = [operation for event in events for operation in event.whole.operations]
    figure, axes = pyplot.subplots(figsize=(10, 3.2), layout="constrained")
    for label, commands, color in (("reads", ("GET",), "#4c9f70"), ("writes", WRITES, "#2f6db5")):
        buckets = [0] * count
        for operation in operations:
            place = int((operation.ended - start) / bucket)
            if not operation.error and operation.command in commands and 0 <= place < count:
                buckets[place] += 1
        axes.step([bucket * i for i in range(count)], [n / bucket for n in buckets], label=label, color=color, lw=1)
    for event in events:
        at = event.at - start
        axes.axvline(at, color="#c0392b", lw=1, ls="--")
        text = f"{event.title}\nno write for {_ms(event.writes_resumed)}, {_count(event)}"
        axes.annotate(text, (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -4), va="top", fontsize=8,
                      textcoords="offset points")  # fmt: skip
    axes.set(
        xlabel="seconds", ylabel="successes per second", ylim=(0, 1.3 * events[0].whole.rate), xlim=(0, count * bucket)
    )
    axes.legend(loc="lower right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _count(event: Event) -> str:
    errors = event.seen.errors.total()
    return "no error" if not errors else f"{errors} of {len(event.seen.operations)} commands uncertain"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _listed(errors: Counter[str]) -> str:
    return ", ".join(f"{count} {error}" for error, count in errors.most_common()) or "none"


def table(events: Sequence[Event]) -> str:
    """A line for each kind of event and each system."""
    rows = []
    for title, system in dict.fromkeys((kind.title, event.system) for kind in KINDS for event in events):
        seen = [event for event in events if (event.title, event.system) == (title, system)]
        if not seen:
            continue
        writes, reads = [event.writes_resumed for event in seen], [event.read_gap for event in seen]
        errors = sum((event.errors for event in seen), Counter[str]())
        times = (statistics.median(writes), max(writes), statistics.median(reads), max(reads))
        rows.append([title, system, *map(_ms, times), sum(event.ledger.lost for event in seen), _listed(errors)])
    headers = ["", "", "NO WRITE FOR (MEDIAN)", "(WORST)", "NO READ FOR (MEDIAN)", "(WORST)", "LOST", "ERRORS"]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=[*["left"] * 2, *["right"] * 5])


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when a switchover was not done."""
    options = argparse.ArgumentParser(prog="bench.failover", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--rate", type=float, default=3200.0, help="operations per second, in total (default: 3200)")
    options.add_argument("--sentinel", action="store_true", help="do the same under Redis Sentinel, in turns")
    options.add_argument("--plot", type=Path, help="draw the last run of the proxy to this file")
    arguments = options.parse_args(argv)
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        systems: list[System] = [_proxied(folder, stack)]
        if arguments.sentinel:
            systems.append(stack.enter_context(SentinelSite(folder, stack.enter_context(RedisGroup(3)))))
        for number in range(arguments.runs):
            for system in systems:
                for kind in KINDS:
                    event = one_event(system, kind, arguments.rate)
                    events.append(event)
                    print(f"run {number + 1}: {event}", flush=True)
    print(f"\n{table(events)}\n\nLOST are acknowledged writes, in all runs; so are the errors.")
    if arguments.plot:
        plot([event for event in events if event.system == ProxySite.name][-len(KINDS) :], arguments.plot)
    return 0


def _proxied(folder: Path, stack: contextlib.ExitStack) -> ProxySite:
    """A whole installation that ends with the stack."""
    (folder / "zookeeper").mkdir()
    zookeeper = stack.enter_context(ZooKeeperServer(folder / "zookeeper"))
    site = ProxySite(folder, zookeeper.hosts, stack.enter_context(RedisGroup(3)), "json")
    stack.callback(site.stop)
    for process in [*(site.manager() for _ in range(3)), site.proxy()]:
        process.start()
    site.wait_until_ready()
    return site


if __name__ == "__main__":
    sys.exit(main())
