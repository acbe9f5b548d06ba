"""Ids of clients tell which worker they belong to."""

from __future__ import annotations

from rfproxy.core.peers import first_number, owner


def test_owner__id_of_a_process__is_that_process() -> None:
    largest = 1 << 22  # of a process, on Linux
    for process in (1, 2, largest - 1):
        assert owner(first_number(process)) == process
        assert owner(first_number(process + 1) - 2) == process


def test_first_number__largest_process__is_exact_in_every_language() -> None:
    assert 1 << 22 << 31 == 1 << 53, "the largest process id, and the numbers that JavaScript has"
    assert first_number((1 << 22) - 1) < 1 << 53
