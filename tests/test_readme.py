"""docs/compatibility.md says what works, differs and is refused: each row names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "compatibility.md").read_text()
ROWS = [line for line in DOCUMENT.splitlines() if line.startswith("| ") and not line.startswith("| What |")]


def names(path: Path) -> set[str]:
    """The functions and classes of a test file."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"[^a-zA-Z ]", "", row)[1:40])
def test_each_row_is_backed_by_a_test(row: str) -> None:
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert tests
    for file, name in tests:
        assert name in names(ROOT / "tests" / file)


def test_there_are_rows_of_every_kind() -> None:
    assert len(ROWS) >= 47
