"""Counting: each change of master has figures of its own, totals go on."""

from __future__ import annotations

from rfproxy.stats import Stats


def test_each_change_is_counted_anew_and_totals_go_on() -> None:
    stats = Stats()
    stats.errors += 1
    stats.change.uncertain += 1
    stats.begin_change()
    assert stats.change.uncertain == 0
    assert stats.errors == 1


def test_the_longest_wait_is_kept() -> None:
    stats = Stats()
    for seconds in (0.1, 0.3, 0.2):
        stats.change.waited(seconds)
    assert stats.change.longest_wait == 0.3
