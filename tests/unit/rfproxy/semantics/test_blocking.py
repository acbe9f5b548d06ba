"""Blocking commands: for how long they are asked again, and what is said when their time is over."""

from __future__ import annotations

import pytest

from rfproxy.semantics.blocking import nothing, remaining, took


def words(text: str) -> list[bytes]:
    return text.encode().split()


@pytest.mark.parametrize(
    ("command", "shorter"),
    [
        ("BLPOP q r 10", "BLPOP q r 7.500"),
        ("BRPOP q 10", "BRPOP q 7.500"),
        ("BRPOPLPUSH q r 10", "BRPOPLPUSH q r 7.500"),
        ("BLMOVE q r LEFT RIGHT 10", "BLMOVE q r LEFT RIGHT 7.500"),
        ("BZPOPMIN z 10", "BZPOPMIN z 7.500"),
        ("BZPOPMAX z 10", "BZPOPMAX z 7.500"),
        ("BLMPOP 10 1 q LEFT", "BLMPOP 7.500 1 q LEFT"),
        ("BZMPOP 10 1 z MIN", "BZMPOP 7.500 1 z MIN"),
        ("WAIT 1 10000", "WAIT 1 7500"),
        ("WAITAOF 1 0 10000", "WAITAOF 1 0 7500"),
        ("XREAD COUNT 2 BLOCK 10000 STREAMS s $", "XREAD COUNT 2 BLOCK 7500 STREAMS s $"),
        ("XREADGROUP GROUP BLOCK 5 BLOCK 10000 STREAMS s >", "XREADGROUP GROUP BLOCK 5 BLOCK 7500 STREAMS s >"),
        ("XREADGROUP GROUP g c block 10000 STREAMS s >", "XREADGROUP GROUP g c block 7500 STREAMS s >"),
    ],
)
def test_what_has_passed_is_taken_off_the_timeout_wherever_it_stands(command: str, shorter: str) -> None:
    args = words(command)
    assert remaining(args[0].decode(), args, 2.5) == words(shorter)
    assert args == words(command), "the client's own words stay as they are"


def test_a_timeout_that_was_never_touched_goes_out_as_it_came() -> None:
    assert remaining("BLPOP", words("BLPOP q 1e1"), 0.0) == words("BLPOP q 1e1")


@pytest.mark.parametrize("command", ["BLPOP q 2.5", "WAIT 1 2500", "XREAD BLOCK 2500 STREAMS s $"])
def test_when_its_time_is_over_nothing_is_left_to_ask(command: str) -> None:
    args = words(command)
    assert remaining(args[0].decode(), args, 2.5) is None


@pytest.mark.parametrize("command", ["BLPOP q 0", "WAIT 1 0", "XREAD BLOCK 0 STREAMS s $"])
def test_zero_means_for_ever_and_stays(command: str) -> None:
    args = words(command)
    assert remaining(args[0].decode(), args, 1e6) == args


@pytest.mark.parametrize(
    "command", ["BLPOP q x", "BLPOP q -1", "BLPOP q inf", "BLPOP q nan", "BLMPOP", "XREAD BLOCK", "SCRIPT KILL"]
)
def test_what_is_no_timeout_is_left_to_the_server(command: str) -> None:
    args = words(command)
    assert remaining(args[0].decode(), args, 5.0) == args


def test_a_moment_is_never_rounded_to_for_ever() -> None:
    assert remaining("BLPOP", words("BLPOP q 1"), 0.99999) == words("BLPOP q 0.001")
    assert remaining("WAIT", words("WAIT 1 1000"), 0.9999) == words("WAIT 1 1")


@pytest.mark.parametrize(
    ("name", "resp2", "resp3"),
    [
        ("BLPOP", b"*-1\r\n", b"_\r\n"),
        ("BZPOPMIN", b"*-1\r\n", b"_\r\n"),
        ("BLMPOP", b"*-1\r\n", b"_\r\n"),
        ("XREAD", b"*-1\r\n", b"_\r\n"),
        ("BLMOVE", b"*-1\r\n", b"_\r\n"),
        ("BRPOPLPUSH", b"*-1\r\n", b"_\r\n"),
        ("WAIT", b":0\r\n", b":0\r\n"),
        ("WAITAOF", b"*2\r\n:0\r\n:0\r\n", b"*2\r\n:0\r\n:0\r\n"),
    ],
)
def test_each_says_in_its_own_way_that_nothing_came(name: str, resp2: bytes, resp3: bytes) -> None:
    assert (nothing(name, 2), nothing(name, 3)) == (resp2, resp3)


@pytest.mark.parametrize("reply", [b"*2\r\n$1\r\nl\r\n$1\r\nx\r\n", b"$1\r\nx\r\n", b"%1\r\n+s\r\n*0\r\n"])
def test_a_value_was_taken_from_somewhere(reply: bytes) -> None:
    assert took(reply)


@pytest.mark.parametrize("reply", [nothing("BLPOP", 2), nothing("BLPOP", 3), b"$-1\r\n", b"-WRONGTYPE not a list\r\n"])
def test_nil_and_errors_were_not(reply: bytes) -> None:
    assert not took(reply)
