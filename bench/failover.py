"""How long clients wait when a master is killed, and when it is moved on request.

    python -m bench.failover --runs 5 --plot bench/results/failover.svg

Three Redis servers, one ZooKeeper, three managers (two must agree), one proxy, and 16 redis-py connections that try
nothing twice, each alternating SET, INCR and GET. Each run kills the master with SIGKILL, starts it again, and moves
the role with `rfmanager failover`. Prints a line for each event and the medians; `--plot` draws one run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from bench.load import WRITES, Load, Result
from deploy.processes import RedisGroup, wait_until
from deploy.site import HOST, Site, is_replica
from deploy.zookeeper import ZooKeeperServer

CONNECTIONS = 16
PAUSE = 2.5
"""Seconds of undisturbed load around each event."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was done at a moment of the monotonic clock, and what clients saw until the next one."""

    title: str
    at: float
    seen: Result

    @property
    def row(self) -> list[str]:
        """For the table."""
        errors = ", ".join(f"{n} {command} {error}" for (command, error), n in sorted(self.seen.errors.items()))
        return [self.title, _ms(self.writes_resumed), _ms(self.read_gap), _ms(self.seen.slowest()), errors or "none"]

    @property
    def writes_resumed(self) -> float:
        """Seconds without a successful write of any client."""
        return self.seen.gap(WRITES).seconds

    @property
    def read_gap(self) -> float:
        """Seconds without a successful read of any client."""
        return self.seen.gap(["GET"]).seconds


def one_run(site: Site, rate: float) -> tuple[list[Event], Result]:
    """Kill, revive, move; with load all the time."""
    load = Load(HOST, list(site.proxies), connections=CONNECTIONS, rate=rate)
    load.start()
    moments: list[tuple[str, float]] = []
    try:
        _let_pass(PAUSE)
        killed = site.master()
        moments.append(("master killed (SIGKILL)", time.monotonic()))
        killed.kill()
        _let_pass(PAUSE)
        killed.restart()
        wait_until(lambda: is_replica(killed), f"{killed.node} is a replica again")
        _let_pass(PAUSE)
        moments.append(("planned switchover", time.monotonic()))
        done = site.manage("failover")
        if done.returncode != 0:
            raise SystemExit(f"bench.failover: {done.stdout}{done.stderr}")
        _let_pass(PAUSE)
    finally:
        result = load.stop()
    return [Event(title, at, result.between(at, at + PAUSE)) for title, at in moments], result


def _let_pass(seconds: float) -> None:
    threading.Event().wait(seconds)


def plot(events: Sequence[Event], result: Result, path: Path) -> None:
    """Draw successes per 50 ms, and mark the events."""
    from matplotlib import pyplot  # noqa: PLC0415 - only whoever draws needs it

    start, bucket = events[0].at - PAUSE / 2, 0.05
    count = int((events[-1].at + PAUSE - start) / bucket)
    figure, axes = pyplot.subplots(figsize=(10, 3.2), layout="constrained")
    for label, commands, color in (("reads", ("GET",), "#4c9f70"), ("writes", WRITES, "#2f6db5")):
        buckets = [0] * count
        for operation in result.operations:
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
    axes.set(xlabel="seconds", ylabel="successes per second", ylim=(0, 1.3 * result.rate), xlim=(0, count * bucket))
    axes.legend(loc="lower right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _count(event: Event) -> str:
    errors = event.seen.errors.total()
    return "no error" if not errors else f"{errors} of {len(event.seen.operations)} commands uncertain"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when a switchover was not done."""
    options = argparse.ArgumentParser(prog="bench.failover", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--rate", type=float, default=3200.0, help="operations per second, in total (default: 3200)")
    options.add_argument("--plot", type=Path, help="draw the last run to this file")
    arguments = options.parse_args(argv)
    events: list[Event] = []
    with tempfile.TemporaryDirectory(prefix="rf-bench-") as name:
        folder = Path(name)
        (folder / "zookeeper").mkdir()
        with ZooKeeperServer(folder / "zookeeper") as zookeeper, RedisGroup(3) as group:
            site = Site(folder, zookeeper.hosts, group, "json")
            for process in [*(site.manager() for _ in range(3)), site.proxy()]:
                process.start()
            site.wait_until_ready()
            lost = uncertain = 0
            for number in range(arguments.runs):
                part, result = one_run(site, arguments.rate)
                events += part
                ledger = result.ledger
                lost += ledger.lost if ledger else 0
                uncertain += ledger.uncertain if ledger else 0
                for event in part:
                    print(f"run {number + 1}: {', '.join(event.row)}  ({result.rate:.0f}/s)", flush=True)
            if arguments.plot:
                plot(part, result, arguments.plot)
            site.stop()
    rows = []
    for title in dict.fromkeys(event.title for event in events):
        seen = [event for event in events if event.title == title]
        medians = [statistics.median(value) for value in (
            [event.writes_resumed for event in seen], [event.read_gap for event in seen])]  # fmt: skip
        worst = max(event.writes_resumed for event in seen)
        rows.append([title, *map(_ms, medians), _ms(worst), sum(event.seen.errors.total() for event in seen)])
    headers = ["", "NO WRITE FOR (MEDIAN)", "NO READ FOR (MEDIAN)", "NO WRITE FOR (WORST)", "ERRORS IN ALL RUNS"]
    print(f"\n{tabulate(rows, headers, tablefmt='plain', disable_numparse=True)}")
    print(f"\n{lost} acknowledged writes lost, {uncertain} uncertain")
    return 0


if __name__ == "__main__":
    sys.exit(main())
