"""What survives the connection: watches break, timeouts shrink, subscriptions come back."""

from __future__ import annotations

import pytest

from rfproxy.exclusive import Stream, Watch, WatchState, remaining


def watch(*events: str) -> Watch:
    watch = Watch()
    for event in events:
        watch.sent(event)
        watch.heard(event)
    return watch


def test_a_watch_ends_with_exec_discard_or_unwatch() -> None:
    assert watch("MULTI", "SET", "EXEC").state is WatchState.OVER
    assert watch("MULTI", "DISCARD").state is WatchState.OVER
    assert watch("GET", "UNWATCH").state is WatchState.OVER


def test_unwatch_behind_multi_is_only_queued() -> None:
    assert watch("MULTI", "UNWATCH").state is WatchState.QUEUEING


def test_a_lost_connection_breaks_the_watch_where_it_stood() -> None:
    before, behind = watch("GET"), watch("MULTI", "SET")
    before.lost()
    behind.lost()
    assert before.state is WatchState.BROKEN
    assert behind.state is WatchState.BROKEN_QUEUEING
    assert before.broken
    assert behind.broken


def test_what_was_sent_and_not_answered_does_not_count_when_the_connection_is_lost() -> None:
    state = watch("GET")
    state.sent("MULTI")
    assert state.heard("GET") is False
    state.lost()
    assert state.state is WatchState.BROKEN


def test_commands_behind_multi_are_merely_queued() -> None:
    state = watch("MULTI")
    assert state.heard("SET") is True


def words(text: str) -> list[bytes]:
    return text.encode().split()


@pytest.mark.parametrize(
    ("asked", "elapsed", "again"),
    [
        ("BLPOP k 10", 4, "BLPOP k 6.000"),
        ("BRPOPLPUSH a b 1.5", 1, "BRPOPLPUSH a b 0.500"),
        ("BLMPOP 10 1 k LEFT", 4, "BLMPOP 6.000 1 k LEFT"),
        ("XREAD COUNT 1 BLOCK 5000 STREAMS s $", 2, "XREAD COUNT 1 BLOCK 3000 STREAMS s $"),
        ("WAIT 1 500", 0.2, "WAIT 1 300"),
        ("BLPOP k 0", 100, "BLPOP k 0"),
        ("BLPOP k nonsense", 100, "BLPOP k nonsense"),
    ],
)
def test_a_blocking_command_is_asked_again_for_the_time_that_remains(asked: str, elapsed: float, again: str) -> None:
    assert remaining(asked.split(maxsplit=1)[0], words(asked), elapsed) == words(again)


def test_a_blocking_command_whose_time_is_over_is_not_asked_again() -> None:
    assert remaining("BLPOP", words("BLPOP k 1"), 1.0) is None


def confirmation(kind: str, channel: str, left: int) -> bytes:
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:%d\r\n" % (len(kind), kind.encode(), len(channel), channel.encode(), left)


def message(channel: str, text: str) -> bytes:
    parts = [b"message", channel.encode(), text.encode()]
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def test_a_stream_subscribes_again_to_what_was_confirmed_and_asks_again_for_what_was_not() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a b"))
    stream.asked(words("PSUBSCRIBE p*"))
    first = confirmation("subscribe", "a", 1)
    assert stream.pass_on(first) == first
    assert stream.requests() == [words("SUBSCRIBE a"), words("SUBSCRIBE b"), words("PSUBSCRIBE p*")]
    again = confirmation("subscribe", "a", 1)
    new = confirmation("subscribe", "b", 2) + confirmation("psubscribe", "p*", 3)
    assert stream.pass_on(again + message("a", "x") + new) == message("a", "x") + new
    assert not stream.waiting
    assert stream.pass_on(again) == again, "asked for a second time by the client itself"


def test_what_was_unsubscribed_from_does_not_come_back() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a b"))
    stream.pass_on(confirmation("subscribe", "a", 1) + confirmation("subscribe", "b", 2))
    stream.asked(words("UNSUBSCRIBE a"))
    stream.pass_on(confirmation("unsubscribe", "a", 1))
    assert stream.requests() == [words("SUBSCRIBE b")]
    assert stream.subscribed


def test_unsubscribing_from_everything_is_answered_once_for_each_subscription() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a b"))
    stream.asked(words("UNSUBSCRIBE"))
    stream.asked(words("PUNSUBSCRIBE"))
    stream.pass_on(confirmation("subscribe", "a", 1) + confirmation("subscribe", "b", 2))
    stream.pass_on(confirmation("unsubscribe", "a", 1))
    assert stream.unanswered == 2
    stream.pass_on(confirmation("unsubscribe", "b", 0))
    assert stream.unanswered == 1
    stream.pass_on(b"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n")
    assert not stream.waiting
    assert not stream.subscribed


def test_an_error_answers_a_whole_command() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a b"))
    assert stream.pass_on(b"-NOPERM no\r\n") == b"-NOPERM no\r\n"
    assert not stream.waiting
    assert not stream.subscribed


def test_a_ping_is_answered_by_its_pong_and_asked_again_when_it_is_lost() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a"))
    stream.pass_on(confirmation("subscribe", "a", 1))
    stream.asked(words("PING x"))
    assert stream.requests() == [words("SUBSCRIBE a"), words("PING x")]
    pong = b"*2\r\n$4\r\npong\r\n$1\r\nx\r\n"
    assert stream.pass_on(confirmation("subscribe", "a", 1) + pong) == pong
    assert not stream.waiting


def test_a_monitor_is_resumed_without_a_second_ok() -> None:
    stream = Stream(monitor=True)
    assert stream.requests() == [[b"MONITOR"]]
    stream = Stream(monitor=True)
    stream.asked([b"MONITOR"])
    assert stream.pass_on(b"+OK\r\n+line\r\n") == b"+OK\r\n+line\r\n"
    assert stream.requests() == [[b"MONITOR"]]
    assert stream.pass_on(b"+OK\r\n+line\r\n") == b"+line\r\n"


@pytest.mark.parametrize(
    "frame", [b"*0\r\n", b"*-1\r\n", b"*1\r\n:9999999999\r\n", b"*2\r\n*0\r\n$1\r\na\r\n", b"_\r\n"]
)
def test_no_frame_is_too_odd(frame: bytes) -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a"))
    assert stream.pass_on(frame) == frame
