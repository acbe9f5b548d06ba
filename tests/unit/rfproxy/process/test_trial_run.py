"""The trial run of a reload: what the program has against its options, in one line."""

from __future__ import annotations

import os
import sys

import pytest

from rfproxy.process import trial_run
from rfproxy.process.trial_run import TIMEOUT, Trial


def run(code: str, now: float = 0.0) -> str:
    """Try a program that is this code."""
    tried = Trial([sys.executable, "-c", code], os.environ, 0.0)
    _, status = os.waitpid(tried.pid, 0)
    return tried.problem(os.waitstatus_to_exitcode(status), now)


def test_trial__ended_well__no_problem() -> None:
    assert run("import sys; print('a warning', file=sys.stderr)") == ""


def test_trial__refused__its_last_words() -> None:
    assert run("import sys; print('a warning', file=sys.stderr); sys.exit('listen: no port')") == "listen: no port"


def test_trial__no_words__exit_status_or_signal() -> None:
    assert run("raise SystemExit(3)") == "exit status 3"
    assert run("import os; os.kill(os.getpid(), 6)") == "SIGABRT"


def test_trial__overdue__says_so_when_killed() -> None:
    tried = Trial([sys.executable, "-c", "input()"], os.environ, 100.0)
    assert tried.time_left(100.0) == TIMEOUT
    assert tried.time_left(100.0 + TIMEOUT) == 0.0
    tried.kill()
    _, status = os.waitpid(tried.pid, 0)
    said = tried.problem(os.waitstatus_to_exitcode(status), 100.0 + TIMEOUT)
    assert said == f"the trial run did not end within {trial_run.TIMEOUT:g} s"


def test_trial__no_such_program__oserror() -> None:
    with pytest.raises(FileNotFoundError):
        Trial(["/nowhere/python"], os.environ, 0.0)
