"""rfproxy beside twemproxy, HAProxy and no proxy at all, in front of the same Redis: CPU time, throughput, latency.

    python -m bench.proxies
    python -m bench.proxies --only 'GET 64 B, 50 conn, *' --rounds 5 --name tried --against bench/results/proxies.csv

In each round the systems take turns with each workload, and another one begins, so that whatever else the machine does
meets all of them. The load is redis-benchmark, for about a second; the CPU time per command, of the proxy and of
Redis, is what the scheduler counted while the middle 80 % of the commands were done, or all of them where most are in
flight at once. Clients share the CPUs with what they measure, so throughput and latency are those of this machine; CPU
time depends less on that, and its ratios least. rfproxy runs as it is meant to, with a manager and a lease from
ZooKeeper. What is judged gets the most rounds.

Prints medians of all rounds and the targets. Writes every measurement to NAME.csv, and pictures to NAME.svg and
NAME-connections.svg. Exit status 0, whether or not the targets hold.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import charts
from bench.meter import Meter
from bench.peers import PEERS
from bench.records import Measurement, Notebook, facts, medians, read
from bench.tables import comparison, judgement, overview
from bench.targets import TARGETS, verdicts
from bench.workloads import WORKLOADS, Workload, fill, get
from deploy.processes import ProcessError, RedisGroup

RESULTS = Path("bench/results")
SMALL = (get(50, 1),)
MANY = 50_000
"""Commands that all connections together send at once: with 4 KB each that is 200 MB."""
STEADINESS = 5
"""How many times as long a load takes whose p99 is judged: the longer, the less does one pause of the machine count."""
_FIRST_TRY = 5000
"""Commands, of a kind that is sent one at a time, from which is seen how many are enough."""


class Contest:
    """All systems in front of one group of servers, and how fast each of them was with each workload."""

    def __init__(self, meters: Sequence[Meter], seconds: float) -> None:
        self._meters = meters
        self._seconds = seconds
        self._rates: dict[tuple[Workload, Meter], float] = {}

    def round(self, workload: Workload, number: int) -> Iterator[Measurement]:
        """One measurement of each system; what fails is left out, and said. Another one begins in the next round."""
        first = number % len(self._meters)
        for meter in (*self._meters[first:], *self._meters[:first]):
            try:
                seen = meter.measure(workload, self._requests(workload, meter), self._lasting(workload), number)
            except ProcessError as error:
                print(f"left out: {meter.peer.name}, {workload.name}: {str(error)[-200:]}", file=sys.stderr)
                continue
            if not workload.third_of:
                self._rates[workload, meter] = seen.rate
            yield seen

    def _lasting(self, workload: Workload) -> float:
        """Seconds that a load should take."""
        return self._seconds * STEADINESS if workload.third_of else self._seconds

    def _requests(self, workload: Workload, meter: Meter) -> int:
        """Enough for the time that a measurement should take, and for each connection to send a few times.

        Of whole pipelines: redis-benchmark counts what it sends beyond the number, and when its timer comes just then,
        says that all clients were disconnected.
        """
        if workload.third_of:
            return int(self._rate(workload.third_of, self._reference) / 3 * self._lasting(workload))
        at_once = workload.connections * workload.pipeline
        fewest = at_once * (1 if at_once > MANY else 4)
        pipelines = int(self._rate(workload, meter) * self._seconds) // workload.pipeline
        return max(pipelines * workload.pipeline, fewest)

    @property
    def _reference(self) -> Meter:
        """Whose maximum counts for all."""
        return next((meter for meter in self._meters if meter.peer.name == "rfproxy"), self._meters[0])

    def _rate(self, workload: Workload, meter: Meter) -> float:
        """Commands per second, as last seen, or from a first try."""
        if (workload, meter) not in self._rates:
            requests = _FIRST_TRY * (1 + workload.pipeline // 4)
            self._rates[workload, meter] = meter.rate(workload.narrowed(500), requests)
        return self._rates[workload, meter]


@contextlib.contextmanager
def contest(servers: int, systems: Sequence[str], seconds: float) -> Iterator[Contest]:
    """Start a master with its replicas, and the systems in front of it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        group = stack.enter_context(RedisGroup(servers))
        fill(group.master)
        group.wait_in_sync()
        peers = [stack.enter_context(PEERS[name](group, folder)) for name in systems]
        yield Contest([stack.enter_context(contextlib.closing(Meter(group, peer))) for peer in peers], seconds)


def rounds_of(workload: Workload) -> int:
    """Most for what is judged, least for what takes long: redis-benchmark needs 4 s to make 5000 connections."""
    if any(target.workload == workload.name for target in TARGETS):
        return 7
    return 1 if workload.connections >= 5000 else 2


def run(
    workloads: Sequence[Workload], systems: Sequence[str], rounds: int | None, seconds: float
) -> Iterator[Measurement]:
    """Everything in turns; those that need as many servers together. Raises ProcessError."""
    for servers in sorted({workload.servers for workload in workloads}):
        chosen = [workload for workload in workloads if workload.servers == servers]
        most = max(rounds or rounds_of(workload) for workload in chosen)
        with contest(servers, systems, seconds) as measured:
            for number in range(1, most + 1):
                for workload in chosen:
                    if number <= (rounds or rounds_of(workload)):
                        print(f"round {number} of {most}: {workload.name}", file=sys.stderr, flush=True)
                        yield from measured.round(workload, number)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    given = _options().parse_args(argv)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    before = read(given.against) if given.against else []
    chosen = [w for w in WORKLOADS if any(fnmatch.fnmatch(w.name, pattern) for pattern in given.only)]
    if given.small:
        chosen, given.rounds, given.seconds = list(SMALL), 1, 0.2
    known = facts(given.name)
    given.results.mkdir(parents=True, exist_ok=True)
    seen = []
    with (given.results / f"{given.name}.csv").open("w") as file:
        notebook = Notebook(file, known)
        for one in run(chosen, given.systems, given.rounds, given.seconds):
            notebook.add(one)
            seen.append(one)
    charts.bars(medians(seen), known, given.results / f"{given.name}.svg")
    charts.lines(medians(seen), known, given.results / f"{given.name}-connections.svg")
    print(
        *(f"{name}: {fact}" for name, fact in known.items()),
        "",
        overview(seen),
        "",
        judgement(verdicts(seen)),
        sep="\n",
    )
    if before:
        print("", f"against {given.against}:", comparison(before, seen), sep="\n")
    return 0


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="bench.proxies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--name", default="proxies", help="of this run and its files")
    options.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help=f"default: {RESULTS}")
    options.add_argument("--against", type=Path, metavar="CSV", help="compare with what another run wrote")
    options.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="workloads, by name")
    options.add_argument("--systems", nargs="+", default=list(PEERS), choices=PEERS, help="default: all")
    options.add_argument(
        "--rounds", type=int, help="for all workloads; default: 7 for what is judged, 2 or 1 for the rest"
    )
    options.add_argument("--seconds", type=float, default=0.8, help="that a measurement takes, about; default: 0.8")
    options.add_argument("--small", action="store_true", help="one workload, one round: shows that all of this works")
    return options


if __name__ == "__main__":
    sys.exit(main())
