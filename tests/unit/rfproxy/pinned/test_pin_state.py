"""What ties a session to a connection of its own, and when it is free again."""

from __future__ import annotations

from rfproxy.pinned.pin_state import Ties
from rfproxy.semantics.subscriptions import Stream
from rfproxy.semantics.transaction_state import Transaction

PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
TRACKING = [b"CLIENT", b"TRACKING", b"ON"]


def transaction(*events: str) -> Transaction:
    one = Transaction()
    for event in events:
        one.sent(event)
        one.heard(event)
    return one


def stream() -> Stream:
    one = Stream()
    one.confirms([b"SUBSCRIBE", b"c"], b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    return one


def test_nothing_ties_a_session_in_the_beginning() -> None:
    assert not Ties().needs_lane
    assert Ties().loosen()


def test_each_tie_needs_a_connection() -> None:
    watching, listening, tracking = Ties(), Ties(), Ties()
    watching.transaction = transaction("WATCH")
    listening.stream = stream()
    tracking.settings["CLIENT|TRACKING"] = [TRACKING]
    for ties in (watching, listening, tracking):
        assert ties.needs_lane
        assert not ties.loosen()


def test_a_broken_watch_needs_none_and_is_not_over() -> None:
    ties = Ties()
    ties.transaction = transaction("WATCH")
    ties.transaction.lost()
    assert not ties.needs_lane
    assert not ties.loosen()


def test_what_is_over_is_dropped_and_the_rest_stays() -> None:
    ties = Ties()
    ties.transaction, ties.stream = transaction("MULTI", "EXEC"), stream()
    assert not ties.loosen()
    assert ties.transaction is None
    assert ties.stream is not None
    ties.stream.confirms([b"UNSUBSCRIBE", b"c"], b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n")
    assert ties.loosen()
    assert ties.stream is None


def test_a_stream_stays_as_long_as_a_transaction_may_subscribe() -> None:
    ties = Ties()
    ties.transaction, ties.stream = transaction("MULTI"), Stream()
    assert not ties.loosen()
    assert ties.listening
    ties.transaction.sent("EXEC")
    assert ties.loosen()


def test_a_transaction_alone_expects_nothing_unasked() -> None:
    ties = Ties()
    ties.transaction = transaction("MULTI")
    assert not ties.listening


def test_pushes_come_unasked_to_who_tracks() -> None:
    ties = Ties()
    ties.settings["CLIENT|TRACKING"] = [TRACKING]
    assert ties.listening
    assert ties.unasked(PUSH, 2)
    assert not ties.unasked(b"+OK\r\n", 2)


def test_a_subscriber_knows_messages_from_replies() -> None:
    ties = Ties()
    ties.stream = stream()
    assert ties.listening
    assert ties.unasked(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n", 2)
    assert not ties.unasked(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:2\r\n", 2)
