"""The reply to EXEC: one reply per command, cut out and put back without a change."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.errors import ProtocolError
from rfprotocol.resp import resp
from rfprotocol.resp.reply_scanner import ReplyScanner
from rfproxy.semantics.exec_reply import elements, join
from tests.support.redis import RedisServer

plain = st.one_of(
    st.binary().map(resp.bulk),
    st.integers().map(resp.integer),
    st.text("abc ").map(resp.simple),
    st.text("abc ").map(resp.error),
    st.sampled_from([resp.null(2), resp.null(3), resp.null_array(2), b"#t\r\n", b",1.5\r\n", b"=7\r\ntxt:a\r\n\r\n"]),
)
replies = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(resp.array),
        st.lists(st.tuples(inner, inner), max_size=2).map(lambda pairs: resp.map(pairs, 3)),
        st.tuples(inner, inner, inner).map(lambda three: b"|1\r\n" + b"".join(three)),
    ),
    max_leaves=8,
)


@given(st.lists(replies, max_size=5))
def test_taken_apart_and_put_together_it_is_what_it_was(answers: list[bytes]) -> None:
    whole = resp.array(answers)
    found = elements(whole)
    assert found == answers
    assert join(found) == whole


def test_what_is_left_out_or_put_in_counts() -> None:
    found = elements(b"*3\r\n+OK\r\n:1\r\n*1\r\n:2\r\n")
    assert found == [b"+OK\r\n", b":1\r\n", b"*1\r\n:2\r\n"]
    assert join(found[1:]) == b"*2\r\n:1\r\n*1\r\n:2\r\n"
    assert join([*found, b"$-1\r\n"]) == b"*4\r\n+OK\r\n:1\r\n*1\r\n:2\r\n$-1\r\n"
    assert join([]) == b"*0\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        b"*-1\r\n",
        b"_\r\n",
        b"-EXECABORT Transaction discarded because of previous errors.\r\n",
        b"-ERR EXEC without MULTI\r\n",
    ],
)
def test_a_transaction_that_was_not_executed_has_none(reply: bytes) -> None:
    assert elements(reply) is None


@pytest.mark.parametrize("reply", [b"*2\r\n+OK\r\n", b"*1\r\n+OK\r\n+OK\r\n", b"*1\r\n$5\r\nab", b"*1\r\n?\r\n"])
def test_what_is_not_one_whole_reply_is_refused(reply: bytes) -> None:
    with pytest.raises(ProtocolError):
        elements(reply)


@pytest.mark.parametrize(
    "answers",
    [
        [b":1\r\n", b"$3\r\nabc\r\n"] * 50_000,
        [resp.bulk(b"\r\n" * 4_000_000)] * 5,
        [resp.array([b":1\r\n"] * 100_000)] * 5,
    ],
    ids=["many", "large", "long"],
)
def test_it_may_be_of_many_megabytes(answers: list[bytes]) -> None:
    assert elements(join(answers)) == answers


def test_a_real_servers_reply(redis_server: RedisServer) -> None:
    script = b"return {1, {'a', {}}, false, {ok='fine'}, {err='bad'}}"
    commands = [
        [b"SET", b"k", b"v"],
        [b"INCR", b"k"],
        [b"GET", b"none"],
        [b"EVAL", script, b"0"],
        [b"HGETALL", b"none"],
    ]
    block = resp.encode_commands([[b"HELLO", b"3"], [b"MULTI"], *commands, [b"EXEC"]])
    scanner = ReplyScanner()
    seen = 0
    with socket.create_connection((redis_server.node.host, redis_server.node.port), timeout=10) as connection:
        connection.sendall(block)
        while seen < 2 + len(commands):
            scanner.feed(connection.recv(65536))
            seen += scanner.take(2 + len(commands) - seen).count
        while not (exec_reply := scanner.take(1).data):
            scanner.feed(connection.recv(65536))
    assert elements(exec_reply) == [
        b"+OK\r\n",
        b"-ERR value is not an integer or out of range\r\n",
        b"_\r\n",
        b"*5\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n_\r\n+fine\r\n-bad\r\n",
        b"%0\r\n",
    ]
