"""What a client may send, in whatever pieces it arrives, and what it is told when it may not."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import hiredis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfprotocol import resp
from rfprotocol.resp import RequestReader
from tests.support.redis import RedisServer

PING = b"*1\r\n$4\r\nPING\r\n"

ARGUMENT = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"GET", b"", b"\r\n", b"\r", b"*3\r\n$1\r\n", b"+OK\r\n", b"-5", b"$5", b"*9999", b"a|12345", b"=1"]
    ),
    st.builds(lambda size: b"x" * size, st.integers(0, 3000)),
)
COMMAND = st.lists(ARGUMENT, min_size=1, max_size=6)
PIPELINE = st.lists(COMMAND, max_size=12)


def in_pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return (data[start:end] for start, end in pairwise(places))


def read(chunks: Iterable[bytes], *, authenticated: bool = True) -> tuple[list[list[bytes]], bytes, str | None]:
    """All that a reader makes of these chunks: commands, raw bytes, error."""
    reader = RequestReader(authenticated=authenticated)
    commands: list[list[bytes]] = []
    raw = b""
    for chunk in chunks:
        requests = reader.feed(chunk)
        commands += requests.commands
        raw += requests.raw
        if requests.error is not None:
            return commands, raw, requests.error.reply
    return commands, raw, None


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


class TestPipelines:
    @given(PIPELINE, st.lists(st.integers(0), max_size=8))
    def test_a_pipeline_is_read_alike_in_any_pieces(self, commands: list[list[bytes]], cuts: list[int]) -> None:
        data = b"".join(map(resp.encode_command, commands))
        assert read(in_pieces(data, cuts)) == (commands, data, None)

    @given(st.lists(COMMAND, max_size=3))
    def test_every_single_cut_gives_the_same(self, commands: list[list[bytes]]) -> None:
        data = b"".join(map(resp.encode_command, commands))
        for cut in range(0, len(data), 1 + len(data) // 150):
            assert read([data[:cut], data[cut:]]) == (commands, data, None)
        assert read(byte_by_byte(data)) == (commands, data, None)

    def test_whole_commands_are_passed_on_as_the_very_object_that_arrived(self) -> None:
        data = PING * 3
        assert RequestReader().feed(data).raw is data

    def test_a_chunk_that_ends_within_a_command_still_yields_those_before(self) -> None:
        reader = RequestReader()
        first = reader.feed(PING * 50 + PING[:9])
        assert (len(first.commands), first.raw) == (50, PING * 50)
        assert reader.pending == 9
        assert reader.feed(PING[9:] + PING) == ([[b"PING"]] * 2, PING * 2, None)
        assert reader.pending == 0

    @pytest.mark.parametrize("empty", [b"*0\r\n", b"*-1\r\n", b"*-5\r\n", b"\r\n", b"\n", b"  \r\n"])
    def test_empty_commands_are_dropped(self, empty: bytes) -> None:
        assert read([empty + PING + empty + PING + empty]) == ([[b"PING"]] * 2, PING * 2, None)
        assert read([PING, empty]) == ([[b"PING"]], PING, None)

    def test_what_ends_an_argument_is_not_looked_at_just_as_in_redis(self) -> None:
        data = b"*2\rX$4\r\nECHO??$2\rXhi??"
        assert read([data]) == ([[b"ECHO", b"hi"]], data, None)


HEADERS = [b"*1\r\n", b"*2\r\n", b"*0\r\n", b"*01\r\n", b"*-1\r\n", b"*1\rX", b"*99999\r\n", b"*1\r\n$4\r\nPING"]
LENGTHS = [b"$4\r\n", b"$0\r\n", b"$1\r\n", b"$-1\r\n", b"$3\r\n", b"$04\r\n"]
CONTENTS = [b"PING", b"GET", b"a", b"\r\n", b"\r", b"\n", b"XX", b"\0", b'"', b"PING\r\n", PING]
ALIENS = [b":0\r\n", b":5\r\n", b"+\r\n", b"+foo\r\n", b"-ERR\r\n", b"=7\r\n", b"txt:foo\r\n", b"\r\nt:foo", b"(1\r\n"]
ALIENS += [b"#f\r\n", b",0\r\n", b"_\r\n", b">1\r\n", b"~1\r\n", b"%1\r\n", b"|1\r\n"]
NASTY = st.lists(st.sampled_from([*HEADERS, *LENGTHS, *CONTENTS, *ALIENS]), max_size=14).map(b"".join)


class TestTheFastPath:
    """hiredis reads whole chunks; byte by byte, only the exact scanner is at work. Both must agree on anything."""

    @settings(max_examples=2000)
    @given(NASTY)
    @example(b"*1\r\n$4\r\nPINGXX*1\r\n")
    @example(b"*1\r\n$4\r\nPINGXX:0\r\n")
    @example(b"*2\r\n$3\r\nGETXX=7\r\n\r\nt:foo\r\n")
    @example(b"*1\r\n$4\r\nPINGXX%1\r\n$1\r\na\r\n$1\r\nb\r\n")
    @example(b"*2\r\n$3\r\nGETXX+foo\r\n")
    @example(b"*2\r\n$6\r\na\r\n\r\nbXX+foo\r\n")
    @example(PING + b"~1\r\n$4\r\nPING\r\n")
    @example(b"*1\r\n$4\r\nPING\n\r" + PING)
    def test_it_reads_what_the_exact_scanner_reads(self, data: bytes) -> None:
        for prefix in (b"", PING):
            assert read([prefix + data]) == read(byte_by_byte(prefix + data))

    @given(NASTY, st.lists(st.integers(0), max_size=4))
    def test_garbage_is_read_alike_in_any_pieces(self, data: bytes, cuts: list[int]) -> None:
        assert read(in_pieces(data, cuts)) == read([data])

    @settings(max_examples=300)
    @given(st.binary(max_size=200))
    def test_noise_never_raises(self, data: bytes) -> None:
        assert read([data]) == read(byte_by_byte(data))

    @given(PIPELINE)
    def test_hiredis_alone_would_read_the_same_pipeline(self, commands: list[list[bytes]]) -> None:
        reader = hiredis.Reader()
        reader.feed(b"".join(map(resp.encode_command, commands)))
        assert [reader.gets() for _ in commands] == commands


class TestInlineCommands:
    @pytest.mark.parametrize(
        ("line", "args"),
        [
            (b"PING\r\n", [b"PING"]),
            (b"  set \t k  v\n", [b"set", b"k", b"v"]),
            (b"SET k \"a b\\x41\\n\\\"\" 'c \\' d'\r\n", [b"SET", b"k", b'a bA\n"', b"c ' d"]),
            (b"SET k ''\n", [b"SET", b"k", b""]),
            (b'a"b c"\n', [b"ab c"]),
            (b"a\vb\n", [b"a\vb"]),
        ],
    )
    def test_they_are_split_as_redis_does_and_re_encoded(self, line: bytes, args: list[bytes]) -> None:
        assert read([line]) == ([args], resp.encode_command(args), None)
        assert read(byte_by_byte(line + PING)) == ([args, [b"PING"]], resp.encode_command(args) + PING, None)


LONG = b"1" * 70_000
GARBAGE = [
    b"*abc\r\n",
    b"*+1\r\n",
    b"*01\r\n",
    b"* 1\r\n",
    b"*\r\n",
    b"*4294967295\r\n",
    b"*99999999999999999999\r\n",
    b"*-9223372036854775809\r\n",
    b"*-9223372036854775808\r\n" + PING,
    b"*" + LONG,
    b"*3\0\r\n",
    b"*3\0" + LONG,
    b"*1\r\nPING\r\n",
    b"*1\r\n:5\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n\n\r\n",
    b"*1\r\n\xff\r\n",
    b"*1\r\n\xc3\xa9\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$9223372036854775807\r\n",
    b"*1\r\n$9223372036854775808\r\n",
    b"*1\r\n$" + LONG,
    b"*1\r\n" + LONG,
    b"*1\rX$4\r\nPINGXX" + PING,
    b"*1\r\n$4\r\nPINGXX:0\r\n\r\n",
    b"*0\r\n*-1\r\n\r\n\n   \n" + PING,
    b"PING\r\n" + PING + b"PING\n$",
    b"'PING\r\n",
    b'"PING\r\n',
    b'"PING"x\r\n',
    b'PING "a"b\r\n',
    b'"PI\\x4eG"\r\n',
    b"pi'ng'\r\n",
    b"'PING\\'\r\n",
    b'"\\\r\n',
    b"PING" + b" " * 66_000,
    b"PI\0NG\r\n",
    b"\0" * 66_000,
    b"+OK\r\n'\r\n",
    PING + b"*1\r\n$4\r\nPING\r\n*1\r\n$z\r\n" + PING,
]


def answer(server: RedisServer, data: bytes) -> bytes:
    """All that a server says to these bytes, until it hangs up."""
    with socket.create_connection((server.node.host, server.node.port), timeout=30) as connection:
        received = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass  # it hung up while more was on its way
        return received


class TestErrors:
    def test_garbage_gets_the_words_of_a_real_redis(self, redis_server: RedisServer) -> None:
        for data in GARBAGE:
            commands, _, problem = read([data])
            replies = [_reply(args) for args in commands] + ([resp.error(problem)] if problem else [])
            assert answer(redis_server, data) == b"".join(replies), data[:60]
            assert read(byte_by_byte(data)) == read([data])

    def test_strangers_get_the_words_of_a_real_redis(self) -> None:
        many = b"*11\r\n"
        large = b"*2\r\n$3\r\nGET\r\n$16385\r\n"
        with RedisServer(requirepass="secret") as server:
            for data in (many, large):
                _, _, problem = read([data], authenticated=False)
                assert problem
                assert answer(server, data) == resp.error(problem)

    def test_good_commands_before_a_bad_byte_come_with_the_error(self) -> None:
        requests = RequestReader().feed(PING * 2 + b"*1\r\n!")
        assert requests == ([[b"PING"]] * 2, PING * 2, None)
        requests = RequestReader().feed(PING * 2 + b"*1\r\n!\r\n" + PING)
        assert (requests.commands, requests.raw) == ([[b"PING"]] * 2, PING * 2)
        assert requests.error is not None
        assert requests.error.reply == "ERR Protocol error: expected '$', got '!'"

    def test_after_an_error_nothing_more_is_read(self) -> None:
        reader = RequestReader()
        first = reader.feed(b"*x\r\n")
        again = reader.feed(PING)
        assert first.error is again.error is not None
        assert (again.commands, again.raw, reader.pending) == ([], b"", 0)


def _reply(args: list[bytes]) -> bytes:
    if args[0].upper() == b"PING":
        return b"+PONG\r\n"
    return resp.error(f"ERR unknown command '{args[0].decode()}', with args beginning with: ")


class TestStrangers:
    """Before authentication, only small commands are read."""

    def test_the_limits_of_a_stranger_are_ten_arguments_of_16_kib(self) -> None:
        fits = resp.encode_command([b"x" * 16384] * 10)
        assert read([fits], authenticated=False)[2] is None
        for data in (resp.encode_command([b"x"] * 11), resp.encode_command([b"x" * 16385])):
            assert read([data])[2] is None
            assert read([data], authenticated=False)[2] is not None

    @pytest.mark.parametrize("verb", [b"AUTH", b"hello"])
    def test_what_comes_in_one_packet_with_the_password_is_not_limited(self, verb: bytes) -> None:
        data = resp.encode_command([verb, b"secret"]) + resp.encode_command([b"DEL", *[b"x"] * 20])
        assert read([data], authenticated=False)[2] is None

    def test_a_wrong_password_does_not_open_the_door_to_endless_arguments(self) -> None:
        reader = RequestReader(authenticated=False)
        assert reader.feed(resp.encode_command([b"AUTH", b"x"]) + b"*2\r\n$1\r\na\r\n$500000000\r\n").error is None
        assert any(reader.feed(b"x" * 65536).error is not None for _ in range(8))

    def test_the_limits_end_when_the_session_says_so(self) -> None:
        reader = RequestReader(authenticated=False)
        reader.authenticated = True
        assert reader.feed(resp.encode_command([b"x"] * 11)).error is None


class TestMemory:
    """What is announced costs nothing; only what arrives is kept."""

    @pytest.mark.parametrize(
        "data",
        [
            b"*4294967295\r\n",
            b"*1048576\r\n",
            b"*1\r\n$536870912\r\n",
            b"*1048576\r\n$536870912\r\n",
            b"*2\r\n$1\r\naXX*99999999\r\n",
            b"*2\r\n$1\r\naXX~99999999\r\n",
            b"*2\r\n$1\r\naXX%99999999\r\n",
            b"*2\r\n$1\r\naXX>99999999\r\n",
            b"*2\r\n$1\r\naXX|99999999\r\n",
            b"*999\r\n" * 1500,
            PING + b"*99999999\r\n",
        ],
    )
    def test_announcements_of_a_hundred_clients_allocate_nothing(self, data: bytes) -> None:
        readers = [RequestReader() for _ in range(100)]
        tracemalloc.start()
        try:
            for reader in readers:
                reader.feed(data)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
            assert tracemalloc.get_traced_memory()[0] < 1_000_000 + 100 * len(data)
        finally:
            tracemalloc.stop()

    def test_a_large_argument_is_kept_once_until_it_is_complete(self) -> None:
        reader = RequestReader()
        size = 20_000_000
        chunk = b"x" * 50_000
        tracemalloc.start()
        try:
            reader.feed(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % size)
            for _ in range(size // len(chunk)):
                assert reader.feed(chunk) == ([], b"", None)
            assert tracemalloc.get_traced_memory()[0] < 1.3 * size
        finally:
            tracemalloc.stop()
        requests = reader.feed(b"\r\n")
        assert [len(arg) for arg in requests.commands[0]] == [4, size]
        assert reader.pending == 0

    def test_a_command_in_tiny_packets_costs_no_more_than_its_arguments(self) -> None:
        reader = RequestReader()
        data = b"*1000\r\n" + b"$10\r\n0123456789\r\n" * 999
        tracemalloc.start()
        try:
            for piece in in_pieces(data, range(0, len(data), 2)):
                reader.feed(piece)
            assert tracemalloc.get_traced_memory()[0] < 10 * len(data)
        finally:
            tracemalloc.stop()

    def test_what_is_held_of_one_command_is_bounded(self) -> None:
        reader = RequestReader(query_limit=1000)
        assert reader.feed(b"*1\r\n$5000\r\n" + b"x" * 900).error is None
        requests = reader.feed(b"x" * 200)
        assert requests.error is not None
        assert "query buffer limit" in requests.error.reply
        assert reader.pending == 0


class TestReplies:
    @given(COMMAND)
    def test_commands_are_encoded_exactly(self, args: list[bytes]) -> None:
        expected = b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)
        assert resp.encode_command(args) == expected
        assert resp.encode_commands([args, args]) == expected * 2

    @given(st.text(st.characters(codec="utf-8")), st.binary())
    def test_a_line_stays_a_line_whatever_is_in_it(self, text: str, data: bytes) -> None:
        for encoded in (resp.error(text), resp.simple(text), resp.error(data.decode("utf-8", "surrogateescape"))):
            assert encoded.endswith(b"\r\n")
            assert not {b"\r"[0], b"\n"[0]} & {*encoded[:-2]}

    def test_each_type_has_its_form_in_both_protocols(self) -> None:
        one, two = resp.integer(1), resp.bulk(b"a\r\n")
        assert (one, two) == (b":1\r\n", b"$3\r\na\r\n\r\n")
        assert resp.simple("OK") == b"+OK\r\n"
        assert resp.array([one, two]) == b"*2\r\n" + one + two
        assert resp.map([(one, two)], 3) == b"%1\r\n" + one + two
        assert resp.map([(one, two)], 2) == b"*2\r\n" + one + two
        assert resp.push([one]) == b">1\r\n" + one
        assert (resp.null(2), resp.null(3)) == (b"$-1\r\n", b"_\r\n")
        assert (resp.null_array(2), resp.null_array(3)) == (b"*-1\r\n", b"_\r\n")
