"""Seats in the gem's lock."""

from __future__ import annotations

import pytest

from rfmanager.evidence.gem_lock import lowest, of_the_gem, trouble

OURS = "ex0123456789abcdef0123456789abcdef_0000000003"


def test_seats__of_both_kinds_of_managers__are_told_apart() -> None:
    assert of_the_gem([OURS, "ex0000000004", "ex0000000001", "other"]) == ["ex0000000004", "ex0000000001"]


@pytest.mark.parametrize(
    ("seats", "said"),
    [
        ([], ""),
        ([OURS], ""),
        ([OURS, "ex0000000002"], "lead"),
        ([OURS, "ex0000000004"], "waits in line"),
    ],
)
def test_trouble__seats_of_the_gem__says_whether_it_leads(seats: list[str], said: str) -> None:
    assert said in trouble(seats)
    assert bool(said) == bool(trouble(seats))


def test_lowest__names_without_a_number__are_passed_over() -> None:
    assert lowest(["x", OURS, "ex0000000002"]) == "ex0000000002"
    assert lowest(["x"]) == ""
