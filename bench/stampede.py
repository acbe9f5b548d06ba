"""Many proxies on one ZooKeeper ensemble: what they cost it at rest, and how soon all of them act on a new master.

    python -m bench.stampede --counts 30 100 300 --csv bench/results/stampede

Three ZooKeeper servers (ticks of 2 s, all writes on the same disk), three managers, three Redis servers, and more and
more proxies: real ones in processes that they share (`bench.sidecars`), and a few `rfproxy` as they are, to
compare. For each number of proxies it prints, at rest, the writes per second that ZooKeeper commits, the CPU time of
its servers and of the primary manager, and how long a write of somebody else takes; and for changes of master, planned
and not, when the last proxy had acknowledged, and from the publication on, when proxies had heard of it and served
writes again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from functools import partial
from pathlib import Path

from tabulate import tabulate

from bench import records
from bench.accounting import cpu_time
from bench.background import latency
from bench.event import KINDS, Kind, Scene
from bench.sidecars import Sidecars
from bench.systems import ProxySite, let_pass, masters, wait_until_in_order, wait_until_replaced
from deploy.processes import Process, ProcessError, RedisGroup
from deploy.zookeeper import ZooKeeperEnsemble
from rfprotocol.settings import logging_setup
from rfprotocol.store.zookeeper import ZkStore
from rfproxy.runtime import registration

SESSION_TIMEOUT = 4.0
"""Seconds, the default of `rfproxy`."""
TOGETHER = 30
"""Proxies in one process, at most."""
SETTLE = 3.0
"""Seconds before and after what is measured."""
PROBE = 0.05
"""Seconds between two writes whose latency is measured."""
PATIENT = {"RFMANAGER_CATCH_UP_TIMEOUT": "30"}
"""What managers are told: hundreds of proxies on a few CPUs take longer than a switchover waits for them otherwise."""
EVENTS = (KINDS[3], KINDS[0])
"""A planned switchover, a killed master."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What so many proxies cost at rest. CPU times are seconds per second, of the leader and the mean of the others."""

    proxies: int
    writes: float
    leader: float
    followers: float
    manager: float
    p50: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Change:
    """One change of master under so many proxies.

    Seconds from withdrawing the old master until all had acknowledged that; from the publication of the new one until
    half of the proxies and all of them had heard of it, until all had a write answered by it, and until the `rfproxy`
    programs had heard of it; and of all that the change took. Then CPU seconds of all servers, managers and proxies.
    """

    proxies: int
    kind: str
    acknowledged: float
    heard: float
    heard_by_all: float
    acted_by_all: float
    heard_by_programs: float
    whole: float
    zookeeper: float
    managers: float
    sidecars: float


# --- at rest


def rest(proxies: int, site: ProxySite, ensemble: ZooKeeperEnsemble, seconds: float) -> Rest:
    """Look on for a while."""
    let_pass(SETTLE)
    leader, followers = ensemble.leader(), ensemble.followers()
    processes = [leader.process, *(server.process for server in followers), site.leader()]
    opened, first = time.monotonic(), leader.last_transaction()
    before = [cpu_time(process.pid) for process in processes]
    waits = asyncio.run(_probe(ensemble.hosts, seconds))
    took = time.monotonic() - opened
    spent = [(cpu_time(process.pid) - was) / took for process, was in zip(processes, before, strict=True)]
    writes = (leader.last_transaction() - first - len(waits)) / took
    seen = latency(waits)
    return Rest(proxies, writes, spent[0], statistics.mean(spent[1:-1]), spent[-1], seen.p50, seen.p99, seen.most)


async def _probe(hosts: str, seconds: float) -> list[float]:
    """How long writes take, one after the other."""
    store, waits = ZkStore(hosts), list[float]()
    await store.start()
    await store.reachable()
    until = time.monotonic() + seconds
    path = f"/probe-{time.monotonic_ns()}"
    await store.announce(path, b"")
    while (now := time.monotonic()) < until:
        await store.announce(path, b"")
        waits.append(time.monotonic() - now)
        await asyncio.sleep(PROBE)
    await store.close()
    return waits


# --- changes of master


def change(kind: Kind, site: ProxySite, ensemble: ZooKeeperEnsemble, crowd: Sequence[Sidecars], proxies: int) -> Change:
    """Let it happen, undo it, and ask everyone."""
    scene = Scene(site, masters(site.group)[0], site.leader())
    payers = (
        [server.process.pid for server in ensemble.servers],
        [manager.pid for manager in site.managers],
        [some.pid for some in crowd],
    )
    before = [sum(map(cpu_time, pids)) for pids in payers]
    kind.strike(scene)
    wait_until_replaced(site.group, scene.master)
    let_pass(SETTLE)
    spent = [sum(map(cpu_time, pids)) - was for pids, was in zip(payers, before, strict=True)]
    acts = [act for some in crowd for act in some.acts()]
    receipt = site.receipt()
    if receipt is None:
        raise ProcessError("there is no receipt of a change of master")
    kind.heal(scene)
    wait_until_in_order(site.group)
    own = [act for act in acts if act.epoch == receipt.epoch]
    if len(own) != proxies:
        raise ProcessError(f"{len(own)} of {proxies} proxies have acted on epoch {receipt.epoch}")
    steps = dict(receipt.steps)
    heard, acted = sorted(act.told for act in own), max(act.acted for act in own)
    programs = [_heard(process, receipt.epoch) for process in site.proxies.values()]
    published = min(steps["published"], heard[0], *programs)  # the manager notes when it knows that it was done
    return Change(
        proxies,
        kind.title,
        steps["acknowledged"] - steps.get("fenced", steps.get("draining", published)),
        statistics.median(heard) - published,
        heard[-1] - published,
        acted - published,
        max(programs) - published,
        published - receipt.steps[0][1],
        *spent,
    )


def _heard(process: Process, epoch: int) -> float:
    """When a proxy's log says that it was told of the master of this epoch; wall clock."""
    for line in (process.log.read_text() if process.log else "").splitlines():
        said = json.loads(line)
        if said["event"] == "topology" and said["epoch"] == epoch and said["master"]:
            return datetime.fromisoformat(said["timestamp"]).timestamp()
    raise ProcessError(f"a proxy never heard of epoch {epoch}")


# --- tables


def rest_table(found: Sequence[Rest]) -> str:
    """Per cent of a CPU, milliseconds."""
    rows = [
        [
            f"{seen.proxies}",
            f"{seen.writes:.0f}",
            *(f"{100 * part:.1f}" for part in (seen.leader, seen.followers, seen.manager)),
            *(f"{1e3 * wait:.1f}" for wait in (seen.p50, seen.p99, seen.most)),
        ]
        for seen in found
    ]
    headers = [
        "PROXIES",
        "WRITES/S",
        "LEADER (% CPU)",
        "FOLLOWERS",
        "MANAGER",
        "A WRITE TAKES (MEDIAN, ms)",
        "P99",
        "MOST",
    ]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=["right"] * len(headers))


def change_table(found: Sequence[Change]) -> str:
    """Medians of the changes of each kind, in milliseconds."""
    rows = []
    for proxies, kind in dict.fromkeys((seen.proxies, seen.kind) for seen in found):
        own = [astuple(seen)[2:] for seen in found if (seen.proxies, seen.kind) == (proxies, kind)]
        rows.append(
            [str(proxies), kind, *(f"{1e3 * statistics.median(column):.0f}" for column in zip(*own, strict=True))]
        )
    headers = ["PROXIES", "", "ACKNOWLEDGED BY ALL", "HEARD BY HALF", "BY ALL", "ACTED BY ALL", "HEARD BY PROGRAMS"]
    headers += ["WHOLE CHANGE", "CPU OF ZOOKEEPER", "OF MANAGERS", "OF PROXIES"]
    alignment = ["right", "left", *["right"] * 9]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=alignment)


def save(path: Path, found: Sequence[Rest] | Sequence[Change]) -> None:
    """Every single measurement."""
    records.save(path, (spec.name for spec in fields(found[0])), map(astuple, found))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    options = argparse.ArgumentParser(prog="bench.stampede", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--counts", type=int, nargs="+", default=(30, 100, 300), metavar="N", help="proxies")
    options.add_argument("--proofs", type=int, help="proofs of life of a proxy per session timeout, if not as it is")
    options.add_argument("--seconds", type=float, default=10.0, help="to look on at rest")
    options.add_argument("--rounds", type=int, default=3, help="changes of each kind")
    options.add_argument(
        "--csv", type=Path, metavar="STEM", help="write every measurement to STEM-rest.csv, STEM-change.csv"
    )
    arguments = options.parse_args(argv)
    logging_setup.configure("json", "error")
    registration.PROOFS = arguments.proofs or registration.PROOFS
    resting: list[Rest] = []
    changes: list[Change] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        ensemble = stack.enter_context(ZooKeeperEnsemble(3, folder, tick=2000, durable=True))
        site = ProxySite(folder, ensemble.hosts, stack.enter_context(RedisGroup(3)), "json")
        stack.callback(site.stop)
        site.launch(PATIENT)
        crowd: list[Sidecars] = []
        proxies = 0
        for count in (0, *arguments.counts):
            while proxies < count:
                more = min(TOGETHER, count - proxies)
                store = partial(ZkStore, ensemble.hosts, session_timeout=SESSION_TIMEOUT)
                crowd.append(stack.enter_context(Sidecars(more, store, folder, f"sidecars-{len(crowd)}")))
                proxies += more
            resting.append(rest(proxies, site, ensemble, arguments.seconds))
            for kind in EVENTS if proxies else ():
                changes += [change(kind, site, ensemble, crowd, proxies) for _ in range(arguments.rounds)]
            print(f"{proxies} proxies", file=sys.stderr, flush=True)
    print(*(f"{name}: {fact}" for name, fact in records.surroundings().items()), "", sep="\n")
    print(f"At rest, besides {len(site.proxies)} proxies as programs of their own:\n\n{rest_table(resting)}\n")
    print(f"Changes of master, milliseconds (medians of {arguments.rounds}):\n\n{change_table(changes)}")
    if arguments.csv:
        save(Path(f"{arguments.csv}-rest.csv"), resting)
        save(Path(f"{arguments.csv}-change.csv"), changes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
