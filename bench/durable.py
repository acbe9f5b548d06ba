"""What durable writes cost: throughput, latency, and the proxy's CPU time, beside the same proxy without them.

    python -m bench.durable --rounds 7

Two groups of a master and two replicas, each behind a proxy in embedded mode: one acknowledges a write when the master
has it, the other one when a replica has it, too. redis-benchmark writes with 50 connections, one command at a time and
16 at a time, to both in turns, so that whatever else the machine does meets both. Prints medians of all rounds;
the ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from deploy.embedded import EmbeddedProxy
from deploy.processes import RedisGroup

CONNECTIONS = 50
VALUE = 64
"""Bytes of each value."""
KEYS = 10_000
LOADS = {1: 20_000, 16: 160_000}
"""Commands that a connection sends at once: how many all send in a round."""
SAFETIES = ("async", "durable")


@dataclass(frozen=True, slots=True)
class Round:
    """What one run of redis-benchmark saw; latencies in milliseconds, CPU time in microseconds per command."""

    rate: float
    median: float
    p99: float
    proxy: float
    master: float

    @property
    def figures(self) -> tuple[float, ...]:
        """In the order of the table."""
        return (self.rate, self.median, self.p99, self.proxy, self.master)


class Site:
    """A group behind a proxy; ends with the stack."""

    def __init__(self, safety: str, folder: Path, stack: contextlib.ExitStack) -> None:
        folder.mkdir()
        self.group = stack.enter_context(RedisGroup(3))
        self.proxy = stack.enter_context(EmbeddedProxy(self.group, folder, "--write-safety", safety))

    def write(self, at_once: int) -> Round:
        """Run redis-benchmark. Raises subprocess.CalledProcessError when a write is refused."""
        count = LOADS[at_once]
        address = self.proxy.address
        words = ["redis-benchmark", "-h", address.host, "-p", str(address.port), "-t", "set", "--csv", "-e"]
        words += ["-c", str(CONNECTIONS), "-P", str(at_once), "-n", str(count), "-d", str(VALUE), "-r", str(KEYS)]
        pids = (self.proxy.process.workers[0], self.group.master.pid)
        before = [cpu_time(pid) for pid in pids]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        spent = [(cpu_time(pid) - earlier) / count * 1e6 for pid, earlier in zip(pids, before, strict=True)]
        (row,) = csv.DictReader(done.stdout.splitlines())
        return Round(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]), *spent)


def cpu_time(pid: int) -> float:
    """Seconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rounds: int) -> dict[tuple[int, str], list[Round]]:
    """All rounds, by load and safety. Each round begins with another one of the two."""
    found: dict[tuple[int, str], list[Round]] = {(load, safety): [] for load in LOADS for safety in SAFETIES}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-bench-")))
        sites = {safety: Site(safety, folder / safety, stack) for safety in SAFETIES}
        for number in range(rounds + 1):
            for load in LOADS:
                for safety in SAFETIES if number % 2 else reversed(SAFETIES):
                    seen = sites[safety].write(load)
                    if number:  # the first one only warms up
                        found[load, safety].append(seen)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return found


def table(found: dict[tuple[int, str], list[Round]]) -> str:
    """Medians, and behind each pair its ratio."""
    rows: list[list[str]] = []
    for load in LOADS:
        pairs = zip(found[load, "async"], found[load, "durable"], strict=True)
        ratios = [[b / a for a, b in zip(one.figures, other.figures, strict=True) if a] for one, other in pairs]
        for safety in SAFETIES:
            rate, *rest = _medians([seen.figures for seen in found[load, safety]])
            rows.append([f"P={load}", safety, f"{rate:,.0f}", *(f"{value:.2f}" for value in rest)])
        rows.append(["", "ratio", *(f"{value:.2f}" for value in _medians(ratios))])
    headers = ["SET", "", "COMMANDS/S", "MEDIAN (ms)", "P99 (ms)", "PROXY (us CPU)", "MASTER (us CPU)"]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=["left"] * 2 + ["right"] * 5)


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    options = argparse.ArgumentParser(prog="bench.durable", description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--rounds", type=int, default=7)
    print(table(measure(options.parse_args(argv).rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
