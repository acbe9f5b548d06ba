"""What is seen at a glance is what would be read: as many commands, that may go where they are said to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.resp.command_table import Route, lookup
from rfprotocol.resp.fast_path import LARGE, MOST, Glance, glance
from rfprotocol.resp.resp import RequestReader, encode_command, encode_commands

GET = encode_command([b"GET", b"k"])
SET = encode_command([b"set", b"k", b"v"])


def seen(data: bytes) -> Glance:
    found = glance(data)
    assert found is not None
    return found


def test_reads_may_go_anywhere() -> None:
    found = seen(GET * 3)
    assert (found.count, found.end, found.reads, found.last.name) == (3, 3 * len(GET), True, "GET")


def test_one_write_among_them_needs_the_master() -> None:
    found = seen(GET + SET + GET)
    assert (found.count, found.reads) == (3, False)


@pytest.mark.parametrize(
    "command",
    ["MULTI", "SELECT 1", "BLPOP l 0", "EVAL x 0", "SCAN 0", "CLIENT ID", "XREAD STREAMS s 0", "MODULE.X", "get"],
)
def test_what_needs_more_than_a_shared_lane_is_left_to_who_reads_it(command: str) -> None:
    data = encode_command([word.encode() for word in command.split()])
    found = glance(SET + data + GET)
    plain = command == "get"
    assert found is not None
    assert found.end == len(SET + data + GET if plain else SET)
    assert (glance(data) is None) is not plain


@pytest.mark.parametrize("cut", range(len(SET)))
def test_a_command_that_is_not_whole_is_left(cut: int) -> None:
    found = glance(GET + SET[:cut])
    assert found is not None
    assert found.end == len(GET)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET k\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*02\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$03\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$3\r\nGETxx$1\r\nk\r\n",
        b"*2\r\n$-1\r\n$1\r\nk\r\n",
        b"*2\r\n+GET\r\n$1\r\nk\r\n",
        b"*2\n$3\nGET\n$1\nk\n",
        b"*99999999\r\n$3\r\nGET\r\n",
        b"*2\r\n$3\r\nGE\x00\r\n$1\r\nk\r\n",
    ],
)
def test_what_is_not_as_clients_write_it_is_left(data: bytes) -> None:
    assert glance(data) is None


def test_much_that_comes_together_is_left_because_it_may_not_hold_up_others() -> None:
    assert glance(GET * (MOST + 1)) is None
    assert glance(encode_command([b"SET", b"k", b"v" * LARGE])) is None
    assert seen(GET * MOST).count == MOST


@pytest.mark.parametrize("begin", [b"*", b"*2\r\n$", b"*1\r\n$3\r\nGET\r\n*"])
def test_a_number_that_never_ends_is_not_read_to_its_end(begin: bytes) -> None:
    assert glance(begin + b"1" * LARGE) is None  # else this takes minutes when compiled


WORDS = st.sampled_from(
    [b"GET", b"SET", b"incr", b"MULTI", b"EXEC", b"BLPOP", b"k", b"", b"\r\n", b"*1\r\n", b"x" * 300]
)
COMMANDS = st.lists(st.lists(WORDS, min_size=1, max_size=4), max_size=6)


@given(COMMANDS, st.binary(max_size=6), st.data())
def test_whatever_comes_what_is_seen_is_what_would_be_read(
    commands: list[list[bytes]], noise: bytes, data: st.DataObject
) -> None:
    clean = encode_commands(commands)
    place = data.draw(st.integers(0, len(clean)))
    dirty = clean[:place] + noise + clean[data.draw(st.integers(place, len(clean))) :]
    for whole in (clean, dirty):
        found = glance(whole)
        if found is None:
            continue
        read = RequestReader().feed(whole[: found.end])
        assert (read.raw, read.error) == (whole[: found.end], None)
        assert len(read.commands) == found.count
        routes = {lookup(args).route for args in read.commands}
        assert routes <= ({Route.REPLICA} if found.reads else {Route.REPLICA, Route.MASTER})
        assert lookup(read.commands[-1]) is found.last


def test_glance__read_that_not_every_server_has__not_plain() -> None:
    assert glance(encode_command([b"EXPIRETIME", b"k"])) is None
    assert glance(encode_command([b"TTL", b"k"])) is not None
