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


def test_a_stream_subscribes_again_to_what_was_asked_for_and_shows_no_confirmation_twice() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a b"))
    stream.asked(words("PSUBSCRIBE p*"))
    first = confirmation("subscribe", "a", 1)
    assert stream.pass_on(first) == first
    assert stream.requests() == [words("SUBSCRIBE a b"), words("PSUBSCRIBE p*")]
    again = confirmation("subscribe", "a", 1)
    new = confirmation("subscribe", "b", 2) + confirmation("psubscribe", "p*", 3)
    assert stream.pass_on(again + message("a", "x") + new) == message("a", "x") + new
    assert stream.pass_on(again) == again, "asked for a second time by the client itself"


def test_what_was_unsubscribed_from_does_not_come_back_and_the_last_one_ends_the_stream() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a b"))
    stream.pass_on(confirmation("subscribe", "a", 1) + confirmation("subscribe", "b", 2))
    stream.asked(words("UNSUBSCRIBE a"))
    stream.pass_on(confirmation("unsubscribe", "a", 1))
    assert stream.requests() == [words("SUBSCRIBE b")]
    assert not stream.over
    stream.pass_on(confirmation("unsubscribe", "b", 0))
    assert stream.over


def test_a_stream_is_not_over_while_a_reply_is_to_come() -> None:
    stream = Stream()
    stream.asked(words("SUBSCRIBE a"))
    stream.pass_on(confirmation("subscribe", "a", 1))
    stream.asked(words("PING"))
    stream.pass_on(confirmation("unsubscribe", "a", 0))
    assert not stream.over
    assert stream.pass_on(b"+PONG\r\n") == b"+PONG\r\n"
    assert stream.over


def test_a_monitor_is_resumed_without_a_second_ok() -> None:
    stream = Stream(monitor=True)
    stream.asked([b"MONITOR"])
    assert stream.pass_on(b"+OK\r\n+line\r\n") == b"+OK\r\n+line\r\n"
    assert stream.requests() == [[b"MONITOR"]]
    assert stream.pass_on(b"+OK\r\n+line\r\n") == b"+line\r\n"
