"""Replies are cut where they end, whatever the chunks; checked against how they were built and against hiredis."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import hiredis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfprotocol.errors import ProtocolError
from rfprotocol.framing import ReplyScanner, split


class Item(NamedTuple):
    """What a server sends: a reply, or a push between replies."""

    data: bytes
    push: bool = False
    error: bool = False


def aggregate(kind: bytes, items: list[bytes], each: int = 1) -> bytes:
    return b"%b%d\r\n%b" % (kind, len(items) // each, b"".join(items))


LINE = st.binary(max_size=12).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b""))
CONTENT = st.one_of(st.binary(max_size=30), st.sampled_from([b"\r\n", b"x" * 5000, b">1\r\n", b"-ERR"]))
BULK = CONTENT.map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data))
NUMBER = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.one_of(
    BULK,
    LINE.map(lambda text: b"+" + text + b"\r\n"),
    NUMBER.map(lambda value: b":%d\r\n" % value),
    st.sampled_from(
        [b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n", b",1.5\r\n", b",inf\r\n", b"(12345678901\r\n"]
    ),
    st.just(b"=7\r\ntxt:foo\r\n"),
)
ERROR = LINE.map(lambda text: b"-ERR " + text + b"\r\n")
BLOB_ERROR = LINE.map(lambda text: b"!%d\r\n%b\r\n" % (len(text), text))


def grown(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    items = st.lists(values, max_size=5)
    pairs = st.lists(st.tuples(BULK, values).map(b"".join), max_size=3)
    return st.one_of(
        items.map(lambda found: aggregate(b"*", found)),
        items.map(lambda found: aggregate(b"~", found)),
        pairs.map(lambda found: b"%%%d\r\n%b" % (len(found), b"".join(found))),
    )


VALUE = st.recursive(st.one_of(PLAIN, ERROR), grown, max_leaves=12)
ATTRIBUTE = st.lists(st.tuples(BULK, VALUE).map(b"".join), max_size=2).map(
    lambda found: b"|%d\r\n%b" % (len(found), b"".join(found))
)
NESTED_ATTRIBUTE = st.tuples(ATTRIBUTE, BULK).map(lambda found: b"*2\r\n+a\r\n" + found[0] + found[1])

REPLY = st.one_of(
    VALUE.map(lambda data: Item(data, error=data.startswith(b"-"))),
    ERROR.map(lambda data: Item(data, error=True)),
    BLOB_ERROR.map(lambda data: Item(data, error=True)),
    st.tuples(ATTRIBUTE, VALUE).map(lambda found: Item(b"".join(found), error=found[1].startswith(b"-"))),
    NESTED_ATTRIBUTE.map(Item),
)
PUSH = st.lists(VALUE, min_size=1, max_size=3).map(lambda items: Item(aggregate(b">", items), push=True))
TRAFFIC = st.lists(st.one_of(REPLY, REPLY, PUSH), max_size=8)


def in_pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return (data[start:end] for start, end in pairwise(places))


def drain(chunks: Iterable[bytes], most: int = 1 << 30) -> tuple[bytes, int, bool, list[bytes]]:
    """All that comes of these chunks: replies, their count, whether there was an error, pushes."""
    scanner = ReplyScanner()
    data, count, has_error = b"", 0, False
    for chunk in chunks:
        scanner.feed(chunk)
        while (taken := scanner.take(most)).count:
            assert taken.count <= most
            data += taken.data
            count += taken.count
            has_error = has_error or taken.has_error
        assert taken == (b"", 0, False)
    return data, count, has_error, scanner.pushes


def expected(traffic: list[Item]) -> tuple[bytes, int, bool, list[bytes]]:
    replies = [item for item in traffic if not item.push]
    pushes = [item.data for item in traffic if item.push]
    return b"".join(item.data for item in replies), len(replies), any(item.error for item in replies), pushes


class TestTraffic:
    @settings(max_examples=400)
    @given(TRAFFIC, st.lists(st.integers(0), max_size=6), st.sampled_from([1, 2, 3, 1 << 30]))
    def test_replies_are_counted_and_pushes_set_aside_in_any_pieces(
        self, traffic: list[Item], cuts: list[int], most: int
    ) -> None:
        data = b"".join(item.data for item in traffic)
        assert drain(in_pieces(data, cuts), most) == expected(traffic)

    @given(st.lists(st.one_of(REPLY, PUSH), max_size=3))
    def test_every_single_cut_gives_the_same(self, traffic: list[Item]) -> None:
        data = b"".join(item.data for item in traffic)
        for cut in range(0, len(data), 1 + len(data) // 200):
            assert drain([data[:cut], data[cut:]]) == expected(traffic)

    @given(TRAFFIC)
    def test_bytes_may_come_one_by_one(self, traffic: list[Item]) -> None:
        data = b"".join(item.data for item in traffic if len(item.data) < 500)
        assert drain(data[place : place + 1] for place in range(len(data))) == drain([data])

    @given(TRAFFIC)
    def test_a_run_is_split_into_single_replies_and_pushes(self, traffic: list[Item]) -> None:
        assert split(b"".join(item.data for item in traffic)) == [item.data for item in traffic]

    @given(st.lists(VALUE, max_size=8))
    def test_hiredis_finds_the_same_ends(self, values: list[bytes]) -> None:
        reader = hiredis.Reader(notEnoughData=self)
        for single in split(b"".join(values)):
            reader.feed(single)
            assert reader.gets() is not self
            assert not reader.has_data()


class TestTake:
    def test_a_chunk_that_holds_just_the_replies_expected_is_passed_on_as_it_is(self) -> None:
        for data in (
            b"+OK\r\n",
            b"$1\r\na\r\n" * 3,
            b"*1\r\n:1\r\n" * 2 + b":2\r\n",
            b"$5000\r\n" + b"x" * 5000 + b"\r\n",
        ):
            scanner = ReplyScanner()
            scanner.feed(data)
            assert scanner.take(len(split(data))).data is data

    def test_no_more_are_taken_than_asked_for(self) -> None:
        scanner = ReplyScanner()
        scanner.feed(b":1\r\n*1\r\n:2\r\n:3\r\n:4\r\n")
        assert scanner.take(0) == (b"", 0, False)
        assert scanner.take(2) == (b":1\r\n*1\r\n:2\r\n", 2, False)
        assert scanner.take(1) == (b":3\r\n", 1, False)
        scanner.feed(b"-ERR\r\n")
        assert scanner.take(5) == (b":4\r\n-ERR\r\n", 2, True)

    def test_what_is_complete_is_given_before_the_rest_has_come(self) -> None:
        scanner = ReplyScanner()
        scanner.feed(b"+a\r\n+b\r\n$3\r\nab")
        assert scanner.take(3) == (b"+a\r\n+b\r\n", 2, False)
        scanner.feed(b"c\r\n+d\r\n")
        assert scanner.take(1) == (b"$3\r\nabc\r\n", 1, False)
        assert scanner.take(1) == (b"+d\r\n", 1, False)

    def test_an_error_within_a_reply_is_no_error(self) -> None:
        scanner = ReplyScanner()
        scanner.feed(b"*2\r\n+OK\r\n-ERR no\r\n")
        assert not scanner.take(1).has_error

    def test_an_error_in_two_pieces_is_reported_with_its_end(self) -> None:
        scanner = ReplyScanner()
        scanner.feed(b"+OK\r\n-ERR n")
        assert scanner.take(2) == (b"+OK\r\n", 1, False)
        scanner.feed(b"o\r")
        assert scanner.take(1) == (b"", 0, False)
        scanner.feed(b"\n")
        assert scanner.take(1) == (b"-ERR no\r\n", 1, True)

    def test_a_push_is_found_even_when_no_reply_is_expected(self) -> None:
        scanner = ReplyScanner()
        push = b">2\r\n+a\r\n$1\r\nb\r\n"
        scanner.feed(push + push[:7])
        assert scanner.pushes == [push]
        scanner.feed(push[7:] + b"+OK\r\n" + push)
        assert scanner.pushes == [push, push]
        assert scanner.take(1) == (b"+OK\r\n", 1, False)
        assert scanner.pushes == [push, push, push]


NO_REPLIES = [b"x", b"+OK\r\n\r\n", b"$x\r\n", b"$-2\r\n", b"*-2\r\n", b"$\r\n", b"*1.5\r\n", b"$" + b"1" * 40]
NO_REPLIES += [b"$?\r\n", b"*?\r\n", b".\r\n", b"*1\r\n?", b"*2\r\n:1\r\n;"]


class TestBrokenServers:
    @pytest.mark.parametrize("data", NO_REPLIES)
    def test_what_is_not_resp_is_said_to_be_so(self, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            drain([data])
        with pytest.raises(ProtocolError):
            drain(data[place : place + 1] for place in range(len(data)))

    @pytest.mark.parametrize("data", [b"$5\r\nab", b"*2\r\n:1\r\n", b"+OK", b"+OK\r\n$"])
    def test_half_a_reply_cannot_be_split(self, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            split(data)

    @settings(max_examples=500)
    @given(st.one_of(st.binary(max_size=100), st.lists(st.sampled_from([*b"*$+-:_#~>%|=!(,\r\n0129?.;"])).map(bytes)))
    @example(b"*99999999999\r\n*99999999999\r\n$99999999999\r\n")
    def test_noise_is_either_framed_or_refused(self, data: bytes) -> None:
        outcomes = []
        for chunks in ([data], [data[place : place + 1] for place in range(len(data))]):
            try:
                outcomes.append(drain(chunks)[:2])
            except ProtocolError:
                outcomes.append((b"refused", 0))
        assert outcomes[0] == outcomes[1]


class TestCost:
    def test_announcements_allocate_nothing(self) -> None:
        tracemalloc.start()
        try:
            for data in (b"*99999999999\r\n", b"$99999999999\r\n", b"%99999999999\r\n"):
                assert drain([data])[1] == 0
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()

    def test_a_long_reply_in_many_chunks_comes_out_whole(self) -> None:
        scanner = ReplyScanner()
        elements = 100_000
        scanner.feed(b"*%d\r\n" % elements)
        for _ in range(elements // 100):
            assert scanner.take(1).count == 0
            scanner.feed(b":1\r\n" * 100)
        assert scanner.take(1).count == 1
        scanner.feed(b"$100000000\r\n")
        chunk = b"x" * 100_000
        for _ in range(1000):
            assert scanner.take(1).count == 0
            scanner.feed(chunk)
        scanner.feed(b"\r\n")
        assert len(scanner.take(1).data) == 100_000_014
