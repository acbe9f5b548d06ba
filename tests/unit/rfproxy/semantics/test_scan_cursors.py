"""Cursors: good for the process that gave them out, the beginning again for any other one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.resp.resp import array, bulk
from rfproxy.semantics.scan_cursors import Cursors
from tests.support.redis import RedisServer

ONE = Cursors("run-id-of-one")
OTHER = Cursors("run-id-of-another")
PAGE = array([bulk(b"a"), bulk(b"b")])

positions = st.integers(min_value=1, max_value=2**36 - 1)


def reply(cursor: int, page: bytes = PAGE) -> bytes:
    return array([bulk(b"%d" % cursor), page])


def marked(cursors: Cursors, position: int) -> bytes:
    """What the client sees of a cursor."""
    length, cursor, page = cursors.outgoing(reply(position)).removeprefix(b"*2\r\n$").split(b"\r\n", 2)
    assert len(cursor) == int(length)
    assert page == PAGE
    return cursor


@given(st.text(), positions)
def test_the_process_gets_its_own_cursor_back(process: str, position: int) -> None:
    cursor = marked(Cursors(process), position)
    assert Cursors(process).incoming([b"SCAN", cursor]) == [b"SCAN", b"%d" % position]


@given(positions)
def test_with_any_other_process_the_iteration_begins_again(position: int) -> None:
    assert OTHER.incoming([b"SCAN", marked(ONE, position)]) == [b"SCAN", b"0"]


@given(st.text(), positions)
def test_clients_that_keep_numbers_as_doubles_read_it_unharmed(process: str, position: int) -> None:
    cursor = marked(Cursors(process), position)
    assert int(cursor) < 2**53
    assert b"%d" % float(cursor) == cursor


def test_a_mark_is_the_same_in_every_proxy_process() -> None:
    assert marked(Cursors("abc"), 5) == b"392250773209093"


def test_each_command_of_the_family_has_its_cursor_where_it_has_it() -> None:
    cursor = marked(ONE, 44)
    assert ONE.incoming([b"scan", cursor, b"COUNT", b"10"]) == [b"scan", b"44", b"COUNT", b"10"]
    for name in (b"HSCAN", b"SSCAN", b"zscan"):
        assert ONE.incoming([name, b"key", cursor, b"MATCH", b"*"]) == [name, b"key", b"44", b"MATCH", b"*"]
    assert ONE.incoming([b"HSCAN", cursor, b"0"]) == [b"HSCAN", cursor, b"0"]


@pytest.mark.parametrize(
    "args",
    [
        [b"SCAN"],
        [b"HSCAN", b"key"],
        *([b"SCAN", cursor] for cursor in (b"0", b"17", b"68719476735", b"", b"-1", b"x", b" 1", b"1" * 10_000)),
        [b"SCAN", b"%d" % (2**52)],
        [b"SCAN", b"%d" % (2**64 - 1)],
    ],
    ids=lambda args: b" ".join(args)[:30].decode(),
)
def test_what_no_proxy_has_marked_is_left_to_the_server(args: list[bytes]) -> None:
    assert ONE.incoming(args) is args


@pytest.mark.parametrize(
    "answer",
    [
        reply(0),
        reply(2**36),
        b"-ERR invalid cursor\r\n",
        b"+QUEUED\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"*2\r\n$1\r\nx\r\n*0\r\n",
        b"*1\r\n$1\r\n5\r\n",
        b"",
    ],
)
def test_what_carries_no_cursor_to_go_on_with_is_passed_on_as_it_is(answer: bytes) -> None:
    assert ONE.outgoing(answer) is answer


def test_what_is_behind_the_cursor_is_not_touched() -> None:
    page = array([bulk(b"\r\n*2\r\n" * 1000)] * 100)
    assert ONE.outgoing(reply(7, page)).endswith(b"\r\n" + page)


def iterate(servers: list[tuple[RedisServer, Cursors]]) -> tuple[set[str], int]:
    """One iteration as a client makes it, five rounds per server and the rest on the last one: keys and rounds."""
    seen: set[str] = set()
    cursor = b"0"
    for rounds in range(1, 1000):
        server, cursors = servers[min((rounds - 1) // 5, len(servers) - 1)]
        upstream, page = server.command(*(arg.decode() for arg in cursors.incoming([b"SCAN", cursor])))
        seen.update(page)
        if not int(upstream):
            return seen, rounds
        cursor = marked(cursors, int(upstream))
    raise AssertionError("the iteration does not end")


def test_an_iteration_that_changes_servers_misses_nothing() -> None:
    with RedisServer() as first, RedisServer() as second:
        names = {f"key:{n}" for n in range(500)}
        for server in (first, second):
            with server.client() as client:
                client.mset(dict.fromkeys(names, ""))
        whole, rounds = iterate([(first, ONE)])
        moved, more_rounds = iterate([(first, ONE), (second, OTHER)])
        unmarked, _ = iterate([(first, ONE), (second, ONE)])
    assert whole == moved == names
    assert more_rounds > rounds > 10
    assert unmarked < names, "cursors of the one would do for the other"
