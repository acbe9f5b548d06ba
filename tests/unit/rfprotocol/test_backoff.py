"""Backoff: waits double up to a limit, are spread by chance, and end with a success."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.backoff import JITTER, Backoff


def steady(first: float = 1.0, longest: float = 8.0, **options: int) -> Backoff:
    """Without chance."""
    return Backoff(first, longest, chance=lambda: 0.0, **options)


def test_failed__again_and_again__waits_twice_as_long_up_to_the_limit() -> None:
    backoff, now, waits = steady(), 0.0, []
    for _ in range(6):
        due = backoff.failed(now)
        waits.append(due - now)
        now = due
    assert waits == [1, 2, 4, 8, 8, 8]


def test_failed__before_the_next_attempt_was_due__is_the_same_failure() -> None:
    backoff = steady()
    assert backoff.failed(0.0) == backoff.failed(0.5) == 1.0
    assert backoff.failed(1.0) == 3.0


def test_failed__free_failures__are_followed_by_no_wait() -> None:
    backoff = steady(free=2)
    assert backoff.failed(0.0) <= 0.0
    assert backoff.failed(0.0) <= 0.0
    assert backoff.failed(0.0) == 1.0


def test_succeeded__after_failures__begins_anew() -> None:
    backoff = steady()
    backoff.failed(0.0)
    backoff.failed(1.0)
    backoff.succeeded()
    assert backoff.may_begin(1.0)
    assert backoff.failed(1.0) == 2.0


def test_may_begin__while_failing__allows_one_attempt_at_a_time() -> None:
    backoff = steady(at_once=3)
    for _ in range(3):
        assert backoff.may_begin(0.0)
        backoff.begin()
    assert not backoff.may_begin(0.0)
    for _ in range(3):
        backoff.end()
    backoff.failed(0.0)
    assert not backoff.may_begin(0.5)
    assert backoff.may_begin(1.0)
    backoff.begin()
    assert not backoff.may_begin(1.0)


@pytest.mark.parametrize("failures", [1, 5, 40, 2000])
def test_failed__for_a_long_time__stays_within_the_limit(failures: int) -> None:
    backoff, now = Backoff(0.01, 5.0), 0.0
    for _ in range(failures):
        due = backoff.failed(now)
        assert 0 <= due - now <= 5.0
        now = due


@given(st.floats(0, 1))
def test_failed__chance__shortens_the_wait_by_a_bounded_part(chance: float) -> None:
    due = Backoff(1.0, 8.0, chance=lambda: chance).failed(0.0)
    assert 1 - JITTER <= due <= 1
