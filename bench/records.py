"""What was measured, and on what machine: kept as CSV, so that a later version can be compared with it."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Self, TextIO

from bench.peers import program


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load on one system: commands per second, latencies in milliseconds, CPU time in microseconds per command."""

    round: int
    workload: str
    system: str
    rate: float
    p50: float
    p99: float
    proxy: float
    redis: float

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Self:
        """A line of the file."""
        return cls(int(row["round"]), row["workload"], row["system"], *(float(row[name]) for name in FIGURES))


FIGURES = tuple(field.name for field in fields(Measurement))[3:]


class Notebook:
    """Writes a file line by line: what was measured is there when the rest fails. The facts come first, as comments."""

    def __init__(self, file: TextIO, facts: Mapping[str, str]) -> None:
        self._file = file
        file.writelines(f"# {name}: {fact}\n" for name, fact in facts.items())
        self._writer = csv.DictWriter(file, [field.name for field in fields(Measurement)], lineterminator="\n")
        self._writer.writeheader()

    def add(self, seen: Measurement) -> None:
        """Write it down at once."""
        row = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in asdict(seen).items()}
        self._writer.writerow(row)
        self._file.flush()


def save(path: Path, names: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table of another kind, with the surroundings as comments."""
    with path.open("w", newline="") as file:
        file.writelines(f"# {name}: {fact}\n" for name, fact in surroundings().items())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def read(path: Path) -> list[Measurement]:
    """All measurements of a file. Raises OSError, or KeyError when it is another kind of file."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [Measurement.of(row) for row in csv.DictReader(lines)]


def medians(seen: Iterable[Measurement]) -> dict[tuple[str, str], Measurement]:
    """Of each workload and system, in the order in which they came; the round is how many there were."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in seen:
        groups.setdefault((one.workload, one.system), []).append(one)
    return {
        key: Measurement(len(each), *key, *(statistics.median(getattr(one, name) for one in each) for name in FIGURES))
        for key, each in groups.items()
    }


def surroundings() -> dict[str, str]:
    """When and where something is measured, and of what."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    framing = importlib.util.find_spec("rfprotocol.resp.reply_scanner")
    compiled = framing is not None and not str(framing.origin).endswith(".py")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "rfproxy": f"{version('redis-failover-proxy')}, {'compiled' if compiled else 'interpreted'}",
    }


def facts(name: str) -> dict[str, str]:
    """Of this run. Raises ProcessError when a system is not installed."""
    return {
        "name": name,
        **surroundings(),
        "redis": _version("redis-server", "--version"),
        "twemproxy": _version("nutcracker", "--version"),
        "haproxy": _version("haproxy", "-v"),
    }


def _version(command: str, option: str) -> str:
    """The first number with dots in what a program says."""
    done = subprocess.run([program(command), option], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.[\d.]*\d", done.stdout + done.stderr)
    return found[0] if found else "unknown"
