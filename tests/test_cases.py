"""The table of cases in tests/README.md: every case names tests, and they are there."""

from __future__ import annotations

import re

import pytest

from tests.test_readme import ROOT, names

CASES = (
    *("A1", "A2", "A3", "A5", "A6", "A7", "A8", "A9", "A10", "A11", "A12", "A death"),
    *(f"B{number}" for number in range(1, 17)),
    *(f"C{number}" for number in range(1, 10)),
    *(f"D{number}" for number in range(1, 20)),
    *(f"G{number}" for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11)),
    *("GA", "G migration"),
    *(f"GC{number}" for number in range(1, 16)),
)

TABLE = {
    cells[0]: cells[-1]
    for line in (ROOT / "tests" / "README.md").read_text().partition("## Cases")[2].splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 3
}


@pytest.mark.parametrize("case", CASES)
def test_case__in_the_table__names_tests_that_exist(case: str) -> None:
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE[case])
    assert tests
    for file, name in tests:
        assert name in names(ROOT / "tests" / file), f"{file}::{name}"
