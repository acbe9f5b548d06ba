"""The matrix: what counts as passed, which servers a part gets, and what is said to be left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.processes import PROGRAMS
from tests.matrix.__main__ import MIXED, PARTS, Group, Part, groups, left_out, run
from tests.support.servers import Server, only

QUICK = ("tests/deploy/test_processes.py", "-k")


@pytest.mark.parametrize("server", [only("Redis 8"), only("Valkey 9")])
def test_run__other_server__tests_have_it(server: Server, tmp_path: Path) -> None:
    outcome = run(Part("", (*QUICK, "wrong_option")), Group("", (server,)).environment, tmp_path / "log")
    assert outcome.passed
    assert outcome.said.startswith("1 passed, ")


def test_run__program_that_is_no_server__failed(tmp_path: Path) -> None:
    outcome = run(Part("", (*QUICK, "answers_as_soon")), {**os.environ, PROGRAMS: "false"}, tmp_path / "log")
    assert not outcome.passed
    assert str(tmp_path / "log") in outcome.said


def test_run__no_such_test__is_no_success(tmp_path: Path) -> None:
    assert not run(Part("", (*QUICK, "no_such_test")), dict(os.environ), tmp_path / "log").passed


@pytest.mark.parametrize(("old", "new"), [only(*MIXED[0])])
def test_groups__two_versions__old_one_leads(old: Server, new: Server) -> None:
    (*single, mixed) = groups(MIXED[0])
    assert [group.servers for group in single] == [(old,), (new,)]
    assert mixed.servers == (old, new)
    assert mixed.environment[PROGRAMS].split(os.pathsep) == [str(old.program), str(new.program)]


def test_left_out__server_that_cannot_be_had_and_parts__are_named() -> None:
    said = left_out({"Redis 9": "nobody has it"})
    assert "Redis 9: nobody has it" in said
    for part in PARTS:
        assert part.mixed or any(part.title in line for line in said)
