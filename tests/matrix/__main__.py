"""`make matrix`: the system tests with each version of the servers that runs here, and with groups of two versions.

Prints what ran, a line for each group of servers, and what was left out and why; exit status 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from deploy.processes import PROGRAMS
from deploy.servers import LINES, Server, fetch, installed, the

ROOT = Path(__file__).parents[2]
MIXED = (("Redis 7.0", "Redis 8"), ("Redis 7.0", "Valkey 9"))
"""An old master with new replicas; who is started again comes back as the new version."""
PLAIN = ("-m", "not elaborate")


@dataclass(frozen=True, slots=True)
class Part:
    """What is run with each group: words for pytest, or for another module of the tests."""

    title: str
    words: tuple[str, ...]
    module: str = "pytest"
    mixed: bool = True
    """Whether it can be run with servers of two versions."""


PARTS = (
    Part(
        "failovers",
        (
            *(
                "tests/scenarios/test_failover.py",
                "tests/scenarios/test_recorder.py",
                "tests/unit/rfproxy/process/test_embedded.py",
            ),
            *(*PLAIN, "-k", "not (after-seal or after-mark or before-publish or after-publish)"),
        ),
    ),
    Part("durable writes", ("tests/scenarios/test_durable.py", *PLAIN)),
    Part("WAIT", ("tests/scenarios/test_valkey.py", *PLAIN)),
    Part(
        "scripts, transactions",
        (
            *("tests/scenarios/faults/test_switchovers.py", "tests/clients/test_libraries.py"),
            *("tests/scenarios/test_odd.py", "tests/unit/rfproxy/maintenance/test_script_cache.py"),
            *(*PLAIN, "-k", "pipelines_MULTI or redis-py or multi__ or real_server"),
        ),
    ),
    Part(
        "users, probes",
        (
            "tests/unit/rfproxy/upstream/test_handshake_policy.py",
            "tests/unit/rfmanager/monitoring/test_redis_admin.py",
            *PLAIN,
        ),
    ),
    Part("as one server", ("--seed", "1", "--commands", "20000"), "tests.differential"),
    Part(
        "as one, reads on replicas",
        ("--seed", "1", "--commands", "10000", "--reads", "replica"),
        "tests.differential",
        mixed=False,
    ),
)
UPGRADE = Part("rolling upgrade", ("tests/scenarios/test_upgrade.py", "-m", ""))


@dataclass(frozen=True, slots=True)
class Group:
    """The servers of a run: the first one is the master at the start."""

    title: str
    servers: tuple[Server, ...]

    @property
    def environment(self) -> dict[str, str]:
        """For the processes of the tests."""
        return {**os.environ, PROGRAMS: os.pathsep.join(str(server.program) for server in self.servers)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one part with one group."""

    passed: bool
    said: str


def groups(wanted: Sequence[str]) -> Iterator[Group]:
    """Those that can be run here; `wanted`: with these lines alone, or any if there are none."""
    for line, server in installed().items():
        if not wanted or str(line) in wanted:
            yield Group(str(server), (server,))
    for names in MIXED:
        mixed = tuple(found for name in names if (found := the(name)) is not None)
        if len(mixed) == len(names) and (not wanted or set(names) <= set(wanted)):
            yield Group(" with ".join(map(str, mixed)), mixed)


def left_out(reasons: dict[str, str]) -> list[str]:
    """What is not run, and why."""
    lines = [f"{name}: {reason}" for name, reason in reasons.items()]
    lines += [
        f"{' with '.join(names)}: {' and '.join(missing)} cannot be run here"
        for names in MIXED
        if (missing := [name for name in names if the(name) is None])
    ]
    lines += [
        f"'{part.title}' with two versions: replicas of another version may know other commands"
        for part in PARTS
        if not part.mixed
    ]
    return [*lines, "four of six points at which a primary manager is killed: `make test` has them, with Redis 7.0"]


def run(part: Part, environment: dict[str, str], log: Path) -> Outcome:
    """One part; everything it says goes to the log."""
    command = [sys.executable, "-m", part.module, *part.words]
    if part.module == "pytest":
        command += ["-p", "no:cacheprovider", "-o", "addopts=-q --strict-markers -p no:valkey"]
    began = time.monotonic()
    with log.open("w") as output:
        status = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    passed = re.search(r"(\d+) (passed|commands)\b", log.read_text())
    count = f"{passed[1]} {passed[2]}" if passed else "nothing"
    seconds = time.monotonic() - began
    good = status == 0 and passed is not None
    return Outcome(good, f"{count}, {seconds:.0f} s" if good else f"FAILED: {log}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    options = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    options.add_argument("--servers", default="", help="lines such as 'Redis 8,Valkey 9' (default: all that run here)")
    options.add_argument("--parts", default="", help=f"of: {', '.join(part.title for part in (*PARTS, UPGRADE))}")
    arguments = options.parse_args(argv)
    wanted = [name for name in arguments.servers.split(",") if name]
    titles = arguments.parts or ",".join(part.title for part in (*PARTS, UPGRADE))

    reasons = {str(line): reason for line, reason in fetch(line for line in LINES if line not in installed()).items()}
    installed.cache_clear()
    folder = ROOT / "build" / "matrix"
    folder.mkdir(parents=True, exist_ok=True)
    table, good = [], True
    for group in groups(wanted):
        cells = [group.title]
        for part in PARTS:
            if part.title not in titles or (len(group.servers) > 1 and not part.mixed):
                cells.append("")
                continue
            outcome = run(part, group.environment, folder / f"{group.title}, {part.title}.log")
            print(f"{group.title}, {part.title}: {outcome.said}", flush=True)
            cells.append(outcome.said)
            good = good and outcome.passed
        table.append(cells)
    print("\n" + tabulate(table, ["SERVERS", *(part.title.upper() for part in PARTS)], tablefmt="plain"))
    if UPGRADE.title in titles:
        outcome = run(UPGRADE, dict(os.environ), folder / f"{UPGRADE.title}.log")
        good = good and outcome.passed
        print(f"\nRolling upgrades, server by server under load: {outcome.said}")
    print("\nLeft out:", *(left_out(reasons)), sep="\n  ")
    return 0 if good and table else 1


if __name__ == "__main__":
    sys.exit(main())
