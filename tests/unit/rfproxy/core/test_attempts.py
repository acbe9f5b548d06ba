"""Attempts: a command is blamed for connections that ended with it at their head, and is sent twice at most."""

from __future__ import annotations

import pytest

from rfprotocol.topology.topology import Node
from rfproxy.core.attempts import FATAL, MOST_BESIDE, NEVER_SENT, Loss

A, B = Node("a", 1), Node("b", 1)


def test_after__unsent__changes_nothing() -> None:
    assert NEVER_SENT.after(Loss.UNSENT, A, 1.0, 2.0) is NEVER_SENT
    assert not NEVER_SENT.sent


def test_after__withdrawn__was_sent_and_is_not_blamed() -> None:
    attempts = NEVER_SENT.after(Loss.WITHDRAWN, A, 1.0, 2.0, "process")
    assert attempts.sent
    assert not attempts.alone
    assert not attempts.fatal_to


def test_after__at_head__travels_alone_and_avoids_that_server() -> None:
    attempts = NEVER_SENT.after(Loss.AT_HEAD, A, 1.0, 2.0)
    assert (attempts.alone, attempts.spent, attempts.suspect_at) == (True, False, A)


def test_after__at_head_twice__is_spent() -> None:
    attempts = NEVER_SENT.after(Loss.AT_HEAD, A, 1.0, 2.0).after(Loss.AT_HEAD, B, 3.0, 4.0)
    assert (attempts.spent, attempts.suspect_at, attempts.first_sent) == (True, B, 1.0)


def test_after__beside_others_again_and_again__travels_alone_and_is_never_spent() -> None:
    attempts = NEVER_SENT
    for _ in range(MOST_BESIDE):
        assert not attempts.alone
        attempts = attempts.after(Loss.BESIDE, A, 1.0, 2.0)
    assert attempts.alone
    for _ in range(10):
        attempts = attempts.after(Loss.BESIDE, A, 1.0, 2.0)
    assert not attempts.spent


@pytest.mark.parametrize(("later", "process"), [(FATAL, "first"), (FATAL + 0.1, "")])
def test_after__master_ended_soon__is_fatal_to_it(later: float, process: str) -> None:
    assert NEVER_SENT.after(Loss.AT_HEAD, A, 10.0, 10.0 + later, "first").fatal_to == process


def test_after__second_loss_at_another_master__keeps_the_first_one() -> None:
    attempts = NEVER_SENT.after(Loss.AT_HEAD, A, 10.0, 10.0, "first").after(Loss.AT_HEAD, B, 11.0, 11.0, "second")
    assert attempts.fatal_to == "first"


def test_after__beside_others_at_two_masters__is_fatal_to_both() -> None:
    once = NEVER_SENT.after(Loss.BESIDE, A, 10.0, 10.0, "first")
    assert not once.fatal_to
    assert not once.after(Loss.BESIDE, A, 11.0, 11.0, "first").fatal_to
    assert not once.after(Loss.BESIDE, B, 11.0, 11.1 + FATAL, "second").fatal_to
    twice = once.after(Loss.BESIDE, B, 11.0, 11.0, "second")
    assert (twice.fatal_to, twice.suspect_at) == ("second", B)


def test_expired__counts_from_the_first_sending() -> None:
    attempts = NEVER_SENT.after(Loss.WITHDRAWN, A, 10.0, 20.0).after(Loss.BESIDE, A, 25.0, 26.0)
    assert not attempts.expired(40.0, 30.0)
    assert attempts.expired(40.1, 30.0)
    assert not NEVER_SENT.expired(40.0, 30.0)
