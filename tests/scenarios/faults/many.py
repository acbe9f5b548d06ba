"""Incident after incident on one installation, chosen by a seed, and each judged by what clients heard.

    python -m tests.scenarios.faults.many --count 200 --write-safety durable
    python -m tests.scenarios.faults.many --count 200 --seed 7

Ends at the first violation, with exit status 1. Writes that a killed master took along are counted as lost with
`--write-safety async`; with `durable` there is no excuse for one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.zookeeper import ZooKeeperServer
from tests.scenarios.faults.incidents import INCIDENTS, Incident, Scene
from tests.scenarios.history import Fate, Kill, Verdict, check
from tests.scenarios.recorder import Recorder, final
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer

CLIENTS = 8
LIMIT = 120.0
"""Seconds after which an incident counts as one that was not survived."""


@dataclass(slots=True)
class Tally:
    """All incidents so far."""

    incidents: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    uncertain: int = 0
    lost: int = 0

    def add(self, incident: Incident, recorder: Recorder, verdict: Verdict) -> None:
        """One more."""
        self.incidents[_title(incident)] += 1
        self.operations += len(recorder.history)
        self.uncertain += recorder.count(Fate.UNCERTAIN)
        self.lost += sum(verdict.lost.values())


async def one(site: Installation, incident: Incident, dice: random.Random, lag: float) -> tuple[Recorder, Verdict]:
    """`lag`: seconds before the incident within which acknowledged writes may be lost. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT):
        recorder = Recorder(site.ports, CLIENTS, dice.randrange(1 << 30), mortal=True)
        async with recorder:
            scene = Scene(site, recorder, dice)
            await scene.begin()
            await incident(scene)
            kill = Kill(scene.at, time.monotonic(), lag)
            master = await in_order(site)
            await recorder.progress(50)
        verdict = check(recorder.history, final(master), [kill], repeats=True)
        await asyncio.to_thread(_begin_anew, master, len(site.group.servers) - 1)
        return recorder, verdict


async def in_order(site: Installation) -> RedisServer:
    """Return the master when everything runs, follows and is registered as at the beginning."""
    topology = await site.serving(lambda topology: len(topology.replicas) == len(site.group.servers) - 1)
    await site.registered(len(site.proxies))
    await site.primary()
    return site.server_of(topology)


def _begin_anew(master: RedisServer, replicas: int) -> None:
    """For up to a second after a full transfer a replica is sent nothing: it has to acknowledge it first, which it does
    once a second (replication.c: replicationCron). Wait for that: an empty database is not to be lost."""
    with master.client() as client:
        client.flushall()
        client.wait(replicas, 0)


async def many(site: Installation, incidents: Sequence[Incident], seed: str, count: int, lag: float) -> Tally | None:
    """`count` in all, a line for each; None when one was not survived."""
    dice, tally = random.Random(seed), Tally()
    async with site:
        for number in range(1, count + 1):
            incident = dice.choice(incidents)
            began = time.monotonic()
            recorder, verdict = await one(site, incident, dice, lag)
            tally.add(incident, recorder, verdict)
            print(
                f"{number:4}  {_title(incident):35} {time.monotonic() - began:5.1f} s  "
                f"{recorder.count(Fate.UNCERTAIN):2} uncertain  {sum(verdict.lost.values()):2} lost",
                flush=True,
            )
            if verdict.violations or recorder.count(Fate.REFUSED):
                refused = [o for o in recorder.history if o.heard.fate is Fate.REFUSED]
                print(*verdict.violations[:20], *refused[:20], sep="\n", flush=True)
                return None
    return tally


def _title(incident: Incident) -> str:
    return getattr(incident, "__name__", "?").replace("_", " ")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when an incident was not survived."""
    options = argparse.ArgumentParser(prog="tests.scenarios.faults.many", description=__doc__.split("\n", 1)[0])
    options.add_argument("--count", type=int, default=20)
    options.add_argument("--seed", default="", help="as an earlier run printed it (default: a new one)")
    options.add_argument("--only", default="", help="words in the names of incidents, separated by commas")
    options.add_argument("--write-safety", choices=["async", "durable"], default="durable")
    options.add_argument("--keep", type=Path, help="a folder for the logs (default: removed)")
    arguments = options.parse_args(argv)
    seed = arguments.seed or str(random.SystemRandom().randrange(1 << 20))
    incidents = [i for i in INCIDENTS if any(word in _title(i) for word in arguments.only.split(","))]
    print(f"--seed {seed} --count {arguments.count} --write-safety {arguments.write_safety}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-many-")))
        (folder / "zookeeper").mkdir(parents=True)
        zookeeper = stack.enter_context(ZooKeeperServer(folder / "zookeeper"))
        # With `replicaof` in the file of each one a master that comes back empty has nothing to offer to its replicas.
        group = stack.enter_context(RedisGroup(3, replicaof="127.0.0.1 1"))
        site = Installation(group, zookeeper.hosts, folder, proxies=2)
        for proxy in site.proxies.values():
            proxy.argv += ["--reads", "master", "--write-safety", arguments.write_safety]
        durable = arguments.write_safety == "durable"
        tally = asyncio.run(many(site, incidents, seed, arguments.count, -math.inf if durable else 1.0))
    if tally is None:
        print(f"not survived, with --seed {seed}")
        return 1
    kinds = ", ".join(f"{count} x {title}" for title, count in tally.incidents.most_common())
    print(
        f"\n{tally.incidents.total()} incidents survived, {tally.operations} operations: {tally.uncertain} uncertain, "
        f"{tally.lost} acknowledged and lost\n{kinds}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
