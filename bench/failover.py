"""How long clients wait when a master is killed, when it is frozen, and when it is moved on request.

    python -m bench.failover --runs 10 --sentinel --plot bench/results/failover.svg

Three Redis servers, one ZooKeeper, three managers (two must agree), two proxies, and 16 redis-py connections that try
nothing twice: half of them alternate SET and INCR, the others GET, each 200 times a second. Each run

* kills the master with SIGKILL and starts it again,
* freezes the master with SIGSTOP and lets it go on,
* kills the master and the primary manager in the same moment and starts both again,
* moves the role with `rfmanager failover`.

`--sentinel` does the same to a group of its own under Redis Sentinel, in turns, with the same load; a Sentinel dies in
place of the manager. Prints a line for each event, a table of all, and where the managers' receipts say that the time
went; `--plot` draws the last run. Exit status 1 when a client of the proxies was told anything that it should not have
been told.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.event import KINDS, Event, Kind, Scene, faults
from bench.figures import breakdown, plot, table
from bench.sentinel import SentinelSite
from bench.systems import ProxySite, System, let_pass, masters, wait_until_in_order, wait_until_replaced
from deploy.processes import RedisGroup
from deploy.zookeeper import ZooKeeperServer

CONNECTIONS = 16
PAUSE = 2.5
"""Seconds of load before each event, from it to undoing what was done, and when all is in order again."""


def one_event(system: System, kind: Kind, rate: float) -> Event:
    """Do it and undo it, with load all the time. Raises ProcessError when the group does not recover."""
    system.wait_until_ready()
    scene = Scene(system, masters(system.group)[0], system.leader())
    load = system.load(CONNECTIONS, rate)
    load.start()
    try:
        let_pass(PAUSE)
        at = time.monotonic()
        kind.strike(scene)
        let_pass(PAUSE)
        wait_until_replaced(system.group, scene.master)
        kind.heal(scene)
        wait_until_in_order(system.group)
        let_pass(PAUSE)
    finally:
        result = load.stop()
    return Event(system.name, kind, at, result, system.receipt())


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when there is a fault, or a switchover was not done."""
    options = argparse.ArgumentParser(prog="bench.failover", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--runs", type=int, default=10)
    options.add_argument("--rate", type=float, default=3200.0, help="operations per second, in total (default: 3200)")
    options.add_argument("--sentinel", action="store_true", help="do the same under Redis Sentinel, in turns")
    options.add_argument("--plot", type=Path, help="draw the last run to this file")
    options.add_argument("--only", type=int, nargs="*", metavar="N", help="only these kinds of events, counted from 1")
    arguments = options.parse_args(argv)
    kinds = [KINDS[number - 1] for number in arguments.only or range(1, len(KINDS) + 1)]
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        systems: list[System] = [_proxied(folder, stack)]
        if arguments.sentinel:
            systems.append(stack.enter_context(SentinelSite(folder, stack.enter_context(RedisGroup(3)))))
        for number in range(arguments.runs):
            for system in systems:
                for kind in kinds:
                    event = one_event(system, kind, arguments.rate)
                    events.append(event)
                    print(f"run {number + 1}: {event}", flush=True)
    print(f"\n{table(events)}\n\nLOST are acknowledged writes, in all runs; so are the errors.")
    print(
        f"\nWhere the time went, by the receipts (medians, milliseconds after the step before):\n\n{breakdown(events)}"
    )
    if arguments.plot:
        plot(events[-len(kinds) * len(systems) :], arguments.plot)
    wrong = [
        f"{event.kind.title}: {fault}" for event in events if event.system == ProxySite.name for fault in faults(event)
    ]
    for line in wrong:
        print(f"bench.failover: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _proxied(folder: Path, stack: contextlib.ExitStack) -> ProxySite:
    """A whole installation that ends with the stack."""
    (folder / "zookeeper").mkdir()
    zookeeper = stack.enter_context(ZooKeeperServer(folder / "zookeeper"))
    site = ProxySite(folder, zookeeper.hosts, stack.enter_context(RedisGroup(3)), "json")
    stack.callback(site.stop)
    site.launch()
    return site


if __name__ == "__main__":
    sys.exit(main())
