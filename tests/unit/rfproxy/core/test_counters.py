"""Counting: a change of master begins with its first sign, and each one has figures of its own."""

from __future__ import annotations

from rfproxy.core.counters import Stats


def test_what_clients_notice_before_the_fence_belongs_to_the_change() -> None:
    stats = Stats()
    stats.disturbed(1, serving=True).uncertain += 1
    stats.disturbed(2, serving=False).held += 3
    stats.change.waited(0.2)
    assert (stats.change.since, stats.change.uncertain, stats.change.held) == (1, 1, 3)


def test_the_next_change_is_counted_anew_and_totals_go_on() -> None:
    stats = Stats()
    stats.errors += 1
    stats.disturbed(1, serving=True).uncertain += 1
    stats.disturbed(3, serving=True).held += 1
    assert (stats.change.since, stats.change.uncertain, stats.change.held) == (3, 0, 1)
    assert stats.errors == 1


def test_the_longest_wait_is_kept() -> None:
    stats = Stats()
    for seconds in (0.1, 0.3, 0.2):
        stats.change.waited(seconds)
    assert stats.change.longest_wait == 0.3
