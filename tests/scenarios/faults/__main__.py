"""Runs the faults and prints a table: one line for each row, and how many of them were survived."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tabulate import tabulate

ROWS = (*range(1, 30), 31, 38)
"""Numbers in between are not reproduced yet."""
FIGURES = ("no write for", "uncertain", "lost", "operations", "changes")


@dataclass(slots=True)
class Row:
    """What became of one fault."""

    title: str
    survived: bool
    seconds: float
    figures: dict[str, object] = field(default_factory=dict)


class Results:
    """A plugin of pytest that remembers how each row ended."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after set-up, call and tear-down of each test."""
        name = report.nodeid.partition("::test_")[2].partition("[")[0]
        number, _, title = name.partition("_")
        if not number.isdigit():
            return
        row = self.rows.setdefault(int(number), Row(title.replace("_", " "), survived=True, seconds=0.0))
        row.survived = row.survived and report.passed
        row.seconds += report.duration
        row.figures |= dict(report.user_properties)

    def survived(self) -> int:
        """How many rows."""
        return sum(row.survived for row in self.rows.values())

    def table(self) -> str:
        """A line for each row."""
        lines = [
            [number, row.title, "survived" if row.survived else "FAILED", f"{row.seconds:.0f} s"]
            + [row.figures.get(name, "") for name in FIGURES]
            for number, row in sorted(self.rows.items())
        ]
        headers = ["", "FAULT", "", "TOOK", *(name.upper() for name in FIGURES)]
        return tabulate(lines, headers, tablefmt="plain", disable_numparse=True)


def run(rows: Sequence[int]) -> Results:
    """All of `rows`, one after another."""
    results = Results()
    wanted = " or ".join(f"test_{row:02}_" for row in rows)
    # An expression of its own for -m: the default leaves the elaborate ones out.
    pytest.main([str(Path(__file__).parent), "-m", "fault", "-k", wanted, "-p", "no:cacheprovider"], plugins=[results])
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when a row was not survived, or was not there."""
    options = argparse.ArgumentParser(prog="tests.scenarios.faults", description=__doc__)
    options.add_argument("--rows", default="", help="numbers, separated by commas (default: all)")
    options.add_argument("--times", type=int, default=1, help="how often, one after another")
    arguments = options.parse_args(argv)
    rows = [int(number) for number in arguments.rows.split(",") if number] or list(ROWS)
    failures = 0
    for turn in range(arguments.times):
        results = run(rows)
        print(f"\n{results.table()}\n\n{turn + 1}: {results.survived()} of {len(rows)}", flush=True)
        failures += results.survived() != len(rows)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
