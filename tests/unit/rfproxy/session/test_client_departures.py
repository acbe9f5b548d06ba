"""Departures: all in order, a bounded number in a turn of the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rfproxy.session.client_departures import AT_ONCE, Departures


class Loop:
    """What is to be called in the next turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def turn(self) -> None:
        soon = self.soon.copy()
        self.soon.clear()
        for call in soon:
            call()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def departures(loop: Loop) -> Departures:
    return Departures(loop.soon.append)


def test_see_off__few__at_once(departures: Departures) -> None:
    gone: list[int] = []
    for number in range(AT_ONCE):
        departures.see_off(lambda number=number: gone.append(number))  # type: ignore[misc]
    assert gone == list(range(AT_ONCE))


def test_see_off__thousands__in_order_and_a_few_in_each_turn(loop: Loop, departures: Departures) -> None:
    gone: list[int] = []
    for number in range(1000):
        departures.see_off(lambda number=number: gone.append(number))  # type: ignore[misc]
    turns = 0
    while loop.soon:
        before = len(gone)
        loop.turn()
        assert len(gone) - before <= AT_ONCE
        turns += 1
        if turns == 3:
            departures.see_off(lambda: gone.append(1000))  # behind those that wait
    assert gone == list(range(1001))


def test_see_off__turns_in_which_nobody_leaves__cost_nothing(loop: Loop, departures: Departures) -> None:
    departures.see_off(lambda: None)
    loop.turn()
    assert not loop.soon
    departures.see_off(lambda: None)
    assert len(loop.soon) == 1


def test_see_off__one_fails__the_others_are_seen_off(loop: Loop, departures: Departures) -> None:
    gone: list[int] = []
    for _ in range(AT_ONCE):
        departures.see_off(lambda: None)

    def fail() -> None:
        raise ValueError("it failed")

    departures.see_off(fail)
    departures.see_off(lambda: gone.append(1))
    with pytest.raises(ValueError, match="it failed"):
        loop.turn()
    while loop.soon:
        loop.turn()
    assert gone == [1]
