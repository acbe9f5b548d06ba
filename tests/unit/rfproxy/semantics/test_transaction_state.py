"""The states of a transaction: what the server was told, what it has answered, and what is left when it is gone."""

from __future__ import annotations

import pytest

from rfproxy.semantics.transaction_state import ENDED, State, Transaction


def after(*events: str) -> Transaction:
    transaction = Transaction()
    for event in events:
        transaction.sent(event)
        transaction.heard(event)
    return transaction


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ("WATCH", State.WATCHING),
        ("WATCH WATCH", State.WATCHING),
        ("WATCH UNWATCH", State.OVER),
        ("WATCH EXEC", State.WATCHING),
        ("WATCH DISCARD", State.WATCHING),
        ("WATCH MULTI", State.WATCHED_QUEUEING),
        ("WATCH MULTI UNWATCH", State.WATCHED_QUEUEING),
        ("WATCH MULTI EXEC", State.OVER),
        ("WATCH MULTI DISCARD", State.OVER),
        ("MULTI", State.QUEUEING),
        ("MULTI MULTI", State.QUEUEING),
        ("MULTI WATCH", State.QUEUEING),
        ("MULTI EXEC", State.OVER),
        ("MULTI DISCARD", State.OVER),
    ],
)
def test_it_goes_through_the_states_of_the_drawing(events: str, state: State) -> None:
    transaction = after(*events.split())
    assert (transaction.state, transaction.answered) == (state, state)


@pytest.mark.parametrize("events", ["", "WATCH", "MULTI", "WATCH MULTI"])
def test_exec_with_arguments_ends_it_wherever_it_is(events: str) -> None:
    assert after(*events.split(), ENDED).over


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ("", State.OVER),
        ("WATCH", State.BROKEN),
        ("WATCH MULTI", State.BROKEN_QUEUEING),
        ("MULTI", State.QUEUEING),
    ],
)
def test_a_lost_connection_breaks_watches_and_nothing_else(events: str, state: State) -> None:
    transaction = after(*events.split())
    transaction.lost()
    assert (transaction.state, transaction.answered) == (state, state)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ("", State.OVER),
        ("WATCH", State.BROKEN),
        ("WATCH MULTI", State.ABORTED),
        ("MULTI", State.ABORTED),
    ],
)
def test_a_command_that_waited_too_long_aborts_what_is_queued(events: str, state: State) -> None:
    transaction = after(*events.split())
    transaction.gave_up()
    assert transaction.state is state


@pytest.mark.parametrize("events", ["MULTI", "WATCH MULTI"])
def test_what_the_client_heard_fail_stays_failed_when_the_connection_is_lost(events: str) -> None:
    transaction = after(*events.split())
    transaction.failed = True
    transaction.lost()
    assert transaction.state is State.ABORTED


@pytest.mark.parametrize("end", ["EXEC", "DISCARD"])
@pytest.mark.parametrize("events", ["MULTI", "WATCH MULTI"])
def test_an_aborted_transaction_ends_as_any_other(events: str, end: str) -> None:
    transaction = after(*events.split())
    transaction.gave_up()
    transaction.sent(end)
    assert transaction.over


def test_a_broken_watch_is_over_with_unwatch_or_exec() -> None:
    for events in (["UNWATCH"], ["MULTI", "EXEC"], ["MULTI", "DISCARD"]):
        transaction = after("WATCH")
        transaction.lost()
        for event in events:
            assert not transaction.over
            transaction.sent(event)
        assert transaction.over


def test_what_was_sent_and_not_answered_is_forgotten_with_the_connection() -> None:
    transaction = after("WATCH")
    transaction.sent("MULTI")
    assert (transaction.queueing, transaction.answered_queueing) == (True, False)
    transaction.lost()
    assert transaction.state is State.BROKEN


def test_a_verb_that_the_server_refuses_moves_nothing() -> None:
    transaction = after("WATCH")
    transaction.sent("MULTI")
    transaction.undone()
    assert transaction.state is State.WATCHING


def test_a_refused_verb_does_not_take_back_what_was_sent_behind_it() -> None:
    transaction = Transaction()
    transaction.sent("")  # WATCH without a key
    transaction.sent("MULTI")
    transaction.undone()
    assert (transaction.state, transaction.answered) == (State.QUEUEING, State.NONE)
    transaction.heard("MULTI")
    assert transaction.answered is State.QUEUEING


def test_transaction__end_given_back_unsent__goes_on() -> None:
    transaction = Transaction()
    transaction.sent("MULTI")
    transaction.sent("DISCARD")
    transaction.withdrawn()
    assert (transaction.state, transaction.answered) == (State.QUEUEING, State.NONE)
    transaction.heard("MULTI")
    assert (transaction.state, transaction.answered) == (State.QUEUEING, State.QUEUEING)


def test_without_anything_behind_it_a_refused_beginning_is_the_end() -> None:
    transaction = Transaction()
    transaction.sent("WATCH")
    transaction.undone()
    assert transaction.over


@pytest.mark.parametrize(
    ("events", "lost", "needs", "pretends"),
    [
        ("WATCH", False, True, False),
        ("MULTI", False, True, False),
        ("MULTI", True, True, False),
        ("WATCH", True, False, True),
        ("WATCH MULTI", True, False, True),
        ("MULTI EXEC", False, False, False),
    ],
)
def test_it_needs_a_connection_unless_it_only_pretends(events: str, lost: bool, needs: bool, pretends: bool) -> None:
    transaction = after(*events.split())
    if lost:
        transaction.lost()
    assert (transaction.needs_lane, transaction.pretending) == (needs, pretends)
