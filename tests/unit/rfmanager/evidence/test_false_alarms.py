"""Brake: false alarms, and changes that follow each other, give a silent master more time; it is bounded, and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfmanager.evidence.false_alarms import LIMIT, MANY, NO_BRAKE, QUIET, WINDOW, Brake
from rfprotocol.topology.records import Outcome, Receipt
from rfprotocol.topology.topology import Kind, Node

A, B = Node("a", 1), Node("b", 1)


def change(at: float, *, false_alarm: bool = False) -> Receipt:
    """A failover that ended at this time."""
    returned = 0.5 if false_alarm else None
    steps = (("noticed", at - 1.5), ("published", at))
    return Receipt(
        1, Kind.FAILOVER, Outcome.DONE, "it was silent", A, B, steps=steps, lost="timeout", returned=returned
    )


def test_brake__nothing_happened__is_off() -> None:
    assert Brake.of([], 1000.0) == NO_BRAKE
    assert not NO_BRAKE.on


def test_brake__one_change__is_off() -> None:
    assert not Brake.of([change(1000.0)], 1001.0).on


def test_brake__a_false_alarm__doubles_the_time_until_it_is_quiet() -> None:
    brake = Brake.of([change(1000.0, false_alarm=True)], 1001.0)
    assert (brake.factor, brake.until, brake.false_alarms) == (2, 1000.0 + QUIET, 1)
    assert brake.reason == "1 false alarm"


def test_brake__each_false_alarm__doubles_again_up_to_the_limit() -> None:
    alarms = [change(1000.0 + 100 * n, false_alarm=True) for n in range(5)]
    assert [Brake.of(alarms[:n], 1500.0).factor for n in range(6)] == [1, 2, 4, 8, 8, 8]
    assert LIMIT == 8
    assert not Brake.of(alarms, 1500.0, limit=1).on


def test_brake__three_changes_within_a_minute__doubles_the_time() -> None:
    changes = [change(1000.0 + 20 * n) for n in range(3)]
    assert not Brake.of(changes[:2], 1030.0).on
    brake = Brake.of(changes, 1041.0)
    assert (brake.factor, brake.recent) == (2, MANY)
    assert brake.reason == "3 changes of master within a minute"


def test_brake__three_changes_in_a_longer_time__is_off() -> None:
    assert not Brake.of([change(1000.0 + (WINDOW / 2 + 1) * n) for n in range(6)], 1300.0).on


def test_brake__quiet_for_long__is_off_and_forgets() -> None:
    alarm = change(1000.0, false_alarm=True)
    assert Brake.of([alarm], 1000.0 + QUIET - 1).on
    assert Brake.of([alarm], 1000.0 + QUIET) == NO_BRAKE
    later = 1000.0 + QUIET
    assert Brake.of([alarm, change(later, false_alarm=True)], later + 1).factor == 2


@pytest.mark.parametrize("other", [{"kind": Kind.SWITCHOVER}, {"outcome": Outcome.REFUSED}, {"steps": ()}])
def test_brake__what_an_operator_did_or_nobody_did__does_not_count(other: dict[str, object]) -> None:
    assert Brake.of([replace(change(1000.0, false_alarm=True), **other)], 1001.0) == NO_BRAKE  # type: ignore[arg-type]  # names of fields


def test_brake__a_receipt_of_the_future__is_one_of_now() -> None:
    """Its manager's clock is ahead by a day: the brake must not stay on for so long."""
    assert Brake.of([change(90_000.0, false_alarm=True)], 1000.0).until == 1000.0 + QUIET


@given(st.lists(st.tuples(st.floats(0, 5000), st.booleans())), st.floats(0, 6000))
def test_brake__any_history__is_bounded(changes: list[tuple[float, bool]], wall: float) -> None:
    brake = Brake.of([change(at, false_alarm=alarm) for at, alarm in changes], wall)
    assert 1 <= brake.factor <= LIMIT
    assert brake.until <= wall + QUIET
    assert not brake.on or brake.until > wall
