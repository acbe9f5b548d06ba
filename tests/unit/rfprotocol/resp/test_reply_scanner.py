"""Replies are cut where they end, whatever the chunks; checked against how they were built and against hiredis.

All of it holds for the module as it is and compiled.
"""

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
from rfprotocol.resp.reply_scanner import LONG
from tests.fuzz.builds import Build
from tests.fuzz.checks import Framed, frame, told


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


def expected(traffic: list[Item]) -> Framed:
    replies = [item for item in traffic if not item.push]
    pushes = [item.data for item in traffic if item.push]
    return Framed(b"".join(item.data for item in replies), len(replies), any(item.error for item in replies), pushes)


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


FORMS = {
    "a simple string": b"+OK\r\n",
    "an empty line": b"+\r\n",
    "an error": b"-ERR no\r\n",
    "a number": b":-12\r\n",
    "a string": b"$5\r\nhello\r\n",
    "an empty string": b"$0\r\n\r\n",
    "a string of line ends": b"$6\r\n\r\n\r\n\r\n\r\n",
    "a null string": b"$-1\r\n",
    "a list": b"*2\r\n$1\r\na\r\n:1\r\n",
    "an empty list": b"*0\r\n",
    "a null list": b"*-1\r\n",
    "a nested list": b"*3\r\n*0\r\n*2\r\n*-1\r\n*1\r\n+a\r\n-ERR in\r\n",
    "null": b"_\r\n",
    "true": b"#t\r\n",
    "a double": b",-1.5e10\r\n",
    "infinity": b",inf\r\n",
    "a big number": b"(3492890328409238509324850943850943825024385\r\n",
    "a long error": b"!8\r\nERR a\r\nb\r\n",
    "a verbatim string": b"=7\r\ntxt:a\r\n\r\n",
    "a set": b"~2\r\n$1\r\na\r\n#f\r\n",
    "a map": b"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n*0\r\n",
    "an attribute": b"|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n",
    "two attributes": b"|1\r\n+a\r\n:1\r\n|0\r\n*1\r\n:2\r\n",
    "an attribute of an error": b"|1\r\n+a\r\n:1\r\n-ERR\r\n",
    "an attribute inside": b"*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n:2\r\n:3\r\n",
    "a push": b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    "an empty push": b">0\r\n",
}
FAILED = {"an error", "a long error", "an attribute of an error"}
PARTS = [0, 1, 20]
"""Lengths from which on replies are taken in parts; 0 = never."""


class TestEveryForm:
    """Every form of a reply, cut everywhere, alone and between others, whole and in parts."""

    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_found_at_every_cut(self, build: Build, form: str) -> None:
        item = Item(FORMS[form], push=FORMS[form].startswith(b">"), error=form in FAILED)
        for traffic in ([item], [item, item], [Item(b"+a\r\n"), item, Item(b"*1\r\n+b\r\n"), item]):
            data = b"".join(found.data for found in traffic)
            for long in PARTS:
                assert frame(build, byte_by_byte(data), long=long) == expected(traffic)
                for cut in range(len(data) + 1):
                    assert frame(build, [data[:cut], data[cut:]], long=long) == expected(traffic)

    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_found_in_any_three_pieces(self, build: Build, form: str) -> None:
        data = FORMS[form]
        whole = frame(build, [data])
        for second in range(len(data) + 1):
            for first in range(second):
                assert frame(build, [data[:first], data[first:second], data[second:]], long=1) == whole

    @pytest.mark.parametrize("form", FORMS)
    def test_a_beginning_is_not_taken_for_the_whole(self, build: Build, form: str) -> None:
        data = FORMS[form]
        for end in range(len(data)):
            assert frame(build, [data[:end]]) == (b"", 0, False, [], False)
            with pytest.raises(ProtocolError):
                build.split(data[:end] or b"*")


class TestTraffic:
    @settings(max_examples=400)
    @given(TRAFFIC, st.lists(st.integers(0), max_size=6), st.sampled_from([1, 2, 3, 1 << 30]), st.sampled_from(PARTS))
    def test_replies_are_counted_and_pushes_set_aside_in_any_pieces(
        self, build: Build, traffic: list[Item], cuts: list[int], most: int, long: int
    ) -> None:
        data = b"".join(item.data for item in traffic)
        assert frame(build, in_pieces(data, cuts), most, long=long) == expected(traffic)

    @given(st.lists(st.one_of(REPLY, PUSH), max_size=3))
    def test_every_single_cut_gives_the_same(self, build: Build, traffic: list[Item]) -> None:
        data = b"".join(item.data for item in traffic)
        for cut in range(0, len(data), 1 + len(data) // 200):
            assert frame(build, [data[:cut], data[cut:]]) == expected(traffic)

    @given(TRAFFIC, st.sampled_from(PARTS))
    def test_bytes_may_come_one_by_one(self, build: Build, traffic: list[Item], long: int) -> None:
        some = [item for item in traffic if len(item.data) < 500]
        assert frame(build, byte_by_byte(b"".join(item.data for item in some)), long=long) == expected(some)

    @given(TRAFFIC)
    def test_a_run_is_split_into_single_replies_and_pushes(self, build: Build, traffic: list[Item]) -> None:
        assert build.split(b"".join(item.data for item in traffic)) == [item.data for item in traffic]

    @given(st.lists(VALUE, max_size=8))
    def test_hiredis_finds_the_same_ends(self, build: Build, values: list[bytes]) -> None:
        reader = hiredis.Reader(notEnoughData=self)
        for single in build.split(b"".join(values)):
            reader.feed(single)
            assert reader.gets() is not self
            assert not reader.has_data()


class TestTake:
    def test_a_chunk_that_holds_just_the_replies_expected_is_passed_on_as_it_is(self, build: Build) -> None:
        for data in (
            b"+OK\r\n",
            b"$1\r\na\r\n" * 3,
            b"*1\r\n:1\r\n" * 2 + b":2\r\n",
            b"$5000\r\n" + b"x" * 5000 + b"\r\n",
        ):
            scanner = build.ReplyScanner()
            scanner.feed(data)
            assert scanner.take(len(build.split(data))).data is data

    def test_no_more_are_taken_than_asked_for(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        scanner.feed(b":1\r\n*1\r\n:2\r\n:3\r\n:4\r\n")
        assert told(scanner.take(0)) == (b"", 0, False, False)
        assert told(scanner.take(2)) == (b":1\r\n*1\r\n:2\r\n", 2, False, False)
        assert told(scanner.take(1)) == (b":3\r\n", 1, False, False)
        scanner.feed(b"-ERR\r\n")
        assert told(scanner.take(5)) == (b":4\r\n-ERR\r\n", 2, True, False)

    def test_count_pushes__half_of_a_reply_is_here__it_is_kept(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        scanner.feed(b">1\r\n:1\r\n+O")
        assert told(scanner.take(1)) == (b"", 0, False, False)
        assert scanner.pushes == [b">1\r\n:1\r\n"]
        scanner.count_pushes()
        scanner.feed(b"K\r\n>1\r\n:2\r\n")
        assert told(scanner.take(2)) == (b"+OK\r\n>1\r\n:2\r\n", 2, False, False)

    def test_what_is_complete_is_given_before_the_rest_has_come(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        scanner.feed(b"+a\r\n+b\r\n$3\r\nab")
        assert told(scanner.take(3)) == (b"+a\r\n+b\r\n", 2, False, False)
        scanner.feed(b"c\r\n+d\r\n")
        assert told(scanner.take(1)) == (b"$3\r\nabc\r\n", 1, False, False)
        assert told(scanner.take(1)) == (b"+d\r\n", 1, False, False)

    def test_an_error_within_a_reply_is_no_error(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        scanner.feed(b"*2\r\n+OK\r\n-ERR no\r\n")
        assert not scanner.take(1).has_error

    def test_an_error_in_two_pieces_is_reported_with_its_end(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        scanner.feed(b"+OK\r\n-ERR n")
        assert told(scanner.take(2)) == (b"+OK\r\n", 1, False, False)
        scanner.feed(b"o\r")
        assert told(scanner.take(1)) == (b"", 0, False, False)
        scanner.feed(b"\n")
        assert told(scanner.take(1)) == (b"-ERR no\r\n", 1, True, False)

    def test_a_push_is_found_even_when_no_reply_is_expected(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        push = b">2\r\n+a\r\n$1\r\nb\r\n"
        scanner.feed(push + push[:7])
        assert scanner.pushes == [push]
        scanner.feed(push[7:] + b"+OK\r\n" + push)
        assert scanner.pushes == [push, push]
        assert told(scanner.take(1)) == (b"+OK\r\n", 1, False, False)
        assert scanner.pushes == [push, push, push]


class TestParts:
    """A long reply need not be held as a whole: its parts are passed on as they come."""

    def test_a_long_reply_is_given_out_as_it_comes(self, build: Build) -> None:
        scanner = build.ReplyScanner(long=10)
        scanner.feed(b"$20\r\n0123456789")
        assert told(scanner.take(1, parts=True)) == (b"$20\r\n0123456789", 0, False, True)
        assert told(scanner.take(1, parts=True)) == (b"", 0, False, False)
        chunk = b"012345678"
        scanner.feed(chunk)
        part = scanner.take(1, parts=True)
        assert told(part) == (chunk, 0, False, True)
        assert part.data is chunk
        scanner.feed(b"9\r\n+OK\r\n")
        assert told(scanner.take(2, parts=True)) == (b"9\r\n", 1, False, True)
        assert told(scanner.take(1, parts=True)) == (b"+OK\r\n", 1, False, False)

    def test_a_part_never_comes_with_whole_replies(self, build: Build) -> None:
        scanner = build.ReplyScanner(long=4)
        scanner.feed(b"+a\r\n-b\r\n*2\r\n$3\r\nabc\r\n")
        assert told(scanner.take(3, parts=True)) == (b"+a\r\n-b\r\n", 2, True, False)
        assert told(scanner.take(1, parts=True)) == (b"*2\r\n$3\r\nabc\r\n", 0, False, True)

    def test_up_to_the_limit_it_is_held(self, build: Build) -> None:
        scanner = build.ReplyScanner()
        scanner.feed(b"$%d\r\n" % (2 * LONG))
        scanner.feed(bytes(LONG - 20))
        assert not scanner.take(1, parts=True).data
        scanner.feed(bytes(20))
        assert len(scanner.take(1, parts=True).data) == LONG + 10

    def test_who_does_not_ask_for_parts_gets_it_whole(self, build: Build) -> None:
        scanner = build.ReplyScanner(long=1)
        scanner.feed(b"$5\r\nhe")
        assert told(scanner.take(1)) == (b"", 0, False, False)
        scanner.feed(b"llo\r\n")
        assert told(scanner.take(1, parts=True)) == (b"$5\r\nhello\r\n", 1, False, False)

    def test_what_was_begun_in_parts_goes_on_in_parts(self, build: Build) -> None:
        scanner = build.ReplyScanner(long=1)
        scanner.feed(b"$5\r\nhe")
        assert scanner.take(1, parts=True).partial
        scanner.feed(b"l")
        assert told(scanner.take(0)) == (b"", 0, False, False)
        assert told(scanner.take(1)) == (b"l", 0, False, True)
        scanner.feed(b"lo\r\n")
        assert told(scanner.take(1)) == (b"lo\r\n", 1, False, True)

    @pytest.mark.parametrize("start", [b"-ERR ", b"!100\r\nERR ", b"|1\r\n+a\r\n:1\r\n-ERR ", b"|2\r\n+a\r\n:1"])
    def test_errors_are_never_given_out_in_parts(self, build: Build, start: bytes) -> None:
        scanner = build.ReplyScanner(long=1)
        scanner.feed(start)
        scanner.feed(b"x")
        assert told(scanner.take(1, parts=True)) == (b"", 0, False, False)

    def test_neither_are_pushes(self, build: Build) -> None:
        scanner = build.ReplyScanner(long=1)
        scanner.feed(b">2\r\n+a\r\n")
        assert told(scanner.take(1, parts=True)) == (b"", 0, False, False)
        scanner.feed(b"+b\r\n")
        assert scanner.pushes == [b">2\r\n+a\r\n+b\r\n"]

    def test_a_push_behind_the_last_part_is_found_with_it(self, build: Build) -> None:
        scanner = build.ReplyScanner(long=1)
        scanner.feed(b"$5\r\nhe")
        assert scanner.take(1, parts=True).partial
        scanner.feed(b"llo\r\n>1\r\n+a\r\n")
        assert told(scanner.take(1, parts=True)) == (b"llo\r\n", 1, False, True)
        assert scanner.pushes == [b">1\r\n+a\r\n"]


NO_REPLIES = [b"x", b"+OK\r\n\r\n", b"$x\r\n", b"$-2\r\n", b"*-2\r\n", b"$\r\n", b"*1.5\r\n", b"$" + b"1" * 40]
NO_REPLIES += [b"$?\r\n", b"*?\r\n", b".\r\n", b"*1\r\n?", b"*2\r\n:1\r\n;"]


class TestBrokenServers:
    @pytest.mark.parametrize("data", NO_REPLIES)
    def test_what_is_not_resp_is_said_to_be_so_at_every_cut(self, build: Build, data: bytes) -> None:
        assert frame(build, byte_by_byte(data)).refused
        for cut in range(len(data) + 1):
            assert frame(build, [data[:cut], data[cut:]]).refused
            assert frame(build, [data[:cut], data[cut:]], long=1).refused

    def test_a_length_is_short_whatever_its_digits(self, build: Build) -> None:
        for zeros in range(40):
            data = b"$" + b"0" * zeros + b"1\r\na\r\n"
            assert frame(build, [data]) == frame(build, byte_by_byte(data))

    @pytest.mark.parametrize("data", [b"$5\r\nab", b"*2\r\n:1\r\n", b"+OK", b"+OK\r\n$"])
    def test_half_a_reply_cannot_be_split(self, build: Build, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            build.split(data)

    @settings(max_examples=500)
    @given(st.one_of(st.binary(max_size=100), st.lists(st.sampled_from([*b"*$+-:_#~>%|=!(,\r\n0129?.;"])).map(bytes)))
    @example(b"*99999999999\r\n*99999999999\r\n$99999999999\r\n")
    def test_noise_is_either_framed_or_refused(self, build: Build, data: bytes) -> None:
        whole, single = frame(build, [data]), frame(build, byte_by_byte(data))
        assert whole.refused == single.refused
        assert whole.refused or whole == single


class TestCost:
    def test_announcements_allocate_nothing(self, build: Build) -> None:
        tracemalloc.start()
        try:
            for data in (b"*99999999999\r\n", b"$99999999999\r\n", b"%99999999999\r\n"):
                assert frame(build, [data]).count == 0
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()

    def test_a_long_reply_in_many_chunks_comes_out_whole(self, build: Build) -> None:
        scanner = build.ReplyScanner()
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

    def test_in_parts_a_reply_of_any_length_costs_no_memory(self, build: Build) -> None:
        for header, chunk in (
            (b"$209715200\r\n", bytes(100 * 1024)),
            (b"*10000000\r\n", (b"+" + b"x" * 97 + b"\r\n") * 1000),
        ):
            scanner = build.ReplyScanner()
            tracemalloc.start()
            try:
                scanner.feed(header)
                for _ in range(100):
                    scanner.feed(chunk)
                    scanner.take(1, parts=True)
                assert tracemalloc.get_traced_memory()[1] < 4 * LONG
            finally:
                tracemalloc.stop()
