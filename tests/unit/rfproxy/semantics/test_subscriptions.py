"""What is subscribed to, and which frames are messages rather than replies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rfproxy.semantics.subscriptions import Stream


def words(text: str) -> list[bytes]:
    return text.encode().split()


def confirmation(kind: str, channel: str | None, left: int, sign: bytes = b"*") -> bytes:
    name = b"$-1\r\n" if channel is None else b"$%d\r\n%b\r\n" % (len(channel), channel.encode())
    return b"%b3\r\n$%d\r\n%b\r\n%b:%d\r\n" % (sign, len(kind), kind.encode(), name, left)


def message(*parts: str, sign: bytes = b"*") -> bytes:
    return sign + b"%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part.encode()) for part in parts)


def subscribed(*commands: str) -> Stream:
    stream = Stream()
    for text in commands:
        command = words(text)
        for channel in command[1:]:
            stream.confirms(command, confirmation(command[0].decode().lower(), channel.decode(), 1))
    return stream


def test_a_command_is_answered_by_a_confirmation_for_each_channel() -> None:
    stream, command = Stream(), words("SUBSCRIBE a b")
    assert not stream.confirms(command, confirmation("subscribe", "a", 1))
    assert command == words("SUBSCRIBE b"), "what is left to ask for on another connection"
    assert stream.confirms(command, confirmation("subscribe", "b", 2))


def test_a_channel_that_is_named_twice_is_confirmed_twice() -> None:
    stream, command = Stream(), words("SUBSCRIBE a a")
    assert not stream.confirms(command, confirmation("subscribe", "a", 1))
    assert stream.confirms(command, confirmation("subscribe", "a", 1))


def test_a_new_connection_is_subscribed_to_what_was_confirmed_one_command_for_each_kind() -> None:
    stream = subscribed("SUBSCRIBE a b", "PSUBSCRIBE p*", "SSUBSCRIBE s")
    assert stream.requests() == [words("SUBSCRIBE a b"), words("PSUBSCRIBE p*"), words("SSUBSCRIBE s")]


def test_what_was_unsubscribed_from_does_not_come_back() -> None:
    stream = subscribed("SUBSCRIBE a b")
    assert stream.confirms(words("UNSUBSCRIBE a"), confirmation("unsubscribe", "a", 1))
    assert stream.requests() == [words("SUBSCRIBE b")]
    assert stream.subscribed


def test_unsubscribing_from_everything_is_answered_once_for_each_subscription() -> None:
    stream, command = subscribed("SUBSCRIBE a b"), words("UNSUBSCRIBE")
    assert not stream.confirms(command, confirmation("unsubscribe", "b", 1))
    assert stream.confirms(command, confirmation("unsubscribe", "a", 0))
    assert stream.over


def test_unsubscribing_from_everything_is_answered_once_when_there_is_nothing() -> None:
    assert Stream().confirms(words("PUNSUBSCRIBE"), confirmation("punsubscribe", None, 0))


@pytest.mark.parametrize("kind", ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"])
def test_subscriptions_are_counted_by_kind(kind: str) -> None:
    stream = subscribed("SUBSCRIBE a b", "PSUBSCRIBE p q", "SSUBSCRIBE s t")
    assert stream.count(kind.encode()) == 2


def test_an_error_answers_a_whole_command() -> None:
    stream = Stream()
    assert stream.confirms(words("SUBSCRIBE a b"), b"-NOPERM no\r\n")
    assert not stream.subscribed


def test_it_is_over_when_nothing_is_subscribed_to_and_nothing_asked() -> None:
    stream = Stream()
    stream.asked = 1
    assert not stream.over
    stream.asked = 0
    assert stream.over
    assert not subscribed("SUBSCRIBE a").over


def test_only_subscribers_in_resp2_are_confined() -> None:
    assert subscribed("SUBSCRIBE a").confined(2)
    assert not subscribed("SUBSCRIBE a").confined(3)
    assert not Stream().confined(2)


# --- what the server says unasked


@pytest.mark.parametrize("kind", ["message", "smessage"])
def test_messages_of_a_subscriber_in_resp2_answer_no_command(kind: str) -> None:
    frame = message(kind, "a", "hello")
    assert subscribed("SUBSCRIBE a").unasked(frame, 2)
    assert not Stream().unasked(frame, 2), "it is the reply to LRANGE or the like"


def test_messages_of_patterns_answer_no_command() -> None:
    assert subscribed("PSUBSCRIBE p*").unasked(message("pmessage", "p*", "pa", "hello"), 2)


@pytest.mark.parametrize("parts", [("message", "a", "hello"), ("invalidate", "k")])
def test_pushes_answer_no_command(parts: tuple[str, ...]) -> None:
    assert Stream().unasked(message(*parts, sign=b">"), 2)


@pytest.mark.parametrize("sign", [b"*", b">"])
@pytest.mark.parametrize(
    "kind", ["subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"]
)
def test_confirmations_answer_a_command_whatever_their_type(kind: str, sign: bytes) -> None:
    assert not subscribed("SUBSCRIBE a").unasked(confirmation(kind, "a", 1, sign), 2)


def test_the_pong_of_a_subscriber_is_a_reply() -> None:
    assert not subscribed("SUBSCRIBE a").unasked(message("pong", ""), 2)


# --- MONITOR


def monitoring() -> Stream:
    stream = Stream()
    stream.confirms(words("monitor"), b"+OK\r\n")
    return stream


def test_monitor_is_confirmed_by_ok() -> None:
    assert monitoring().monitor
    assert monitoring().requests() == [[b"MONITOR"]]
    refused = Stream()
    assert refused.confirms(words("MONITOR"), b"-NOPERM no\r\n")
    assert not refused.monitor


def test_lines_of_monitor_begin_with_the_time() -> None:
    assert monitoring().unasked(b'+1669000000.123456 [0 1.2.3.4:5] "ping"\r\n', 2)
    assert not monitoring().unasked(b"+OK\r\n", 2)
    assert not Stream().unasked(b"+1669000000.123456 x\r\n", 2)


@pytest.mark.parametrize(
    "frame", [b"*0\r\n", b"*-1\r\n", b"*1\r\n:9999999999\r\n", b"*2\r\n*0\r\n$1\r\na\r\n", b"_\r\n", b">0\r\n"]
)
def test_no_frame_is_too_odd(frame: bytes) -> None:
    stream = subscribed("SUBSCRIBE a")
    stream.unasked(frame, 2)
    assert stream.confirms(words("SUBSCRIBE b"), frame)
    assert stream.requests() == [words("SUBSCRIBE a")]


class Compared(bytes):
    """A channel that counts how often channels are compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return bytes(self) == other

    def __hash__(self) -> int:
        return hash(bytes(self))


class Unlisted(dict[tuple[bytes, bytes], None]):
    """What nobody may go through."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        pytest.fail("all channels were listed")


def test_confirms__very_many_channels__each_is_looked_at_a_few_times() -> None:
    stream = Stream()
    stream._subscribed = Unlisted()
    channels = [Compared(b"c%d" % number) for number in range(500)]
    command: list[bytes] = [b"SUBSCRIBE", *channels]
    for number, channel in enumerate(channels):
        frame = b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)
        assert stream.confirms(command, frame) is (number == 499)
    assert stream.count(b"SUBSCRIBE") == 500
    for number, channel in enumerate(channels):
        frame = b"*3\r\n$11\r\nunsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)
        assert stream.confirms([b"UNSUBSCRIBE"], frame) is (number == 499)
    assert stream.count(b"SUBSCRIBE") == 0
    assert Compared.times <= 4 * len(channels)
