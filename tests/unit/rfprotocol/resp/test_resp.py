"""What a client may send, in whatever pieces it arrives, and what it is told when it may not.

All that concerns requests holds for the module as it is and compiled.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import hiredis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfprotocol.resp import resp
from tests.fuzz import reference
from tests.fuzz.builds import Build
from tests.fuzz.checks import answer, read
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


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


class TestPipelines:
    @given(PIPELINE, st.lists(st.integers(0), max_size=8))
    def test_a_pipeline_is_read_alike_in_any_pieces(
        self, build: Build, commands: list[list[bytes]], cuts: list[int]
    ) -> None:
        data = b"".join(map(resp.encode_command, commands))
        assert read(build, in_pieces(data, cuts)) == (commands, data, None)

    @given(st.lists(COMMAND, max_size=3))
    def test_every_single_cut_gives_the_same(self, build: Build, commands: list[list[bytes]]) -> None:
        data = b"".join(map(resp.encode_command, commands))
        for cut in range(0, len(data), 1 + len(data) // 150):
            assert read(build, [data[:cut], data[cut:]]) == (commands, data, None)
        assert read(build, byte_by_byte(data)) == (commands, data, None)

    def test_whole_commands_are_passed_on_as_the_very_object_that_arrived(self, build: Build) -> None:
        data = PING * 3
        assert build.RequestReader().feed(data).raw is data

    def test_a_chunk_that_ends_within_a_command_still_yields_those_before(self, build: Build) -> None:
        reader = build.RequestReader()
        first = reader.feed(PING * 50 + PING[:9])
        assert (len(first.commands), first.raw) == (50, PING * 50)
        assert reader.pending == 9
        assert reader.feed(PING[9:] + PING) == ([[b"PING"]] * 2, PING * 2, None)
        assert reader.pending == 0

    @pytest.mark.parametrize("empty", [b"*0\r\n", b"*-1\r\n", b"*-5\r\n", b"\r\n", b"\n", b"  \r\n"])
    def test_empty_commands_are_dropped(self, build: Build, empty: bytes) -> None:
        assert read(build, [empty + PING + empty + PING + empty]) == ([[b"PING"]] * 2, PING * 2, None)
        assert read(build, [PING, empty]) == ([[b"PING"]], PING, None)

    def test_what_ends_an_argument_is_not_looked_at_just_as_in_redis(self, build: Build) -> None:
        data = b"*2\rX$4\r\nECHO??$2\rXhi??"
        assert read(build, [data]) == ([[b"ECHO", b"hi"]], data, None)


FORMS: dict[str, tuple[bytes, list[list[bytes]], str | None]] = {
    "a list": (b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", [[b"ECHO", b"hi"]], None),
    "an empty argument": (b"*1\r\n$0\r\n\r\n", [[b""]], None),
    "line ends in an argument": (b"*1\r\n$6\r\n\r\n*1\r\n\r\n", [[b"\r\n*1\r\n"]], None),
    "an empty list": (b"*0\r\n", [], None),
    "a null list": (b"*-1\r\n", [], None),
    "an empty line": (b"\r\n", [], None),
    "a line feed": (b"\n", [], None),
    "blanks": (b" \t \r\n", [], None),
    "a line": (b"PING  a\r\n", [[b"PING", b"a"]], None),
    "a short line end": (b"PING\n", [[b"PING"]], None),
    "double quotes": (b'ECHO "a \\x41\\"b"\r\n', [[b"ECHO", b'a A"b']], None),
    "single quotes": (b"ECHO 'a \\'b'\n", [[b"ECHO", b"a 'b"]], None),
    "empty quotes": (b"''\n", [[b""]], None),
    "an open quote": (b"ECHO 'a\n", [], "unbalanced quotes in request"),
    "text behind a quote": (b'"a"b\r\n', [], "unbalanced quotes in request"),
    "no count": (b"*\r\n", [], "invalid multibulk length"),
    "a word as count": (b"*one\r\n", [], "invalid multibulk length"),
    "a zero before the count": (b"*01\r\n", [], "invalid multibulk length"),
    "too many arguments": (b"*2147483648\r\n", [], "invalid multibulk length"),
    "an argument that is no string": (b"*1\r\n:1\r\n", [], "expected '$', got ':'"),
    "a list within a list": (b"*1\r\n*1\r\n", [], "expected '$', got '*'"),
    "no length": (b"*1\r\n$\r\n", [], "invalid bulk length"),
    "a null argument": (b"*1\r\n$-1\r\n", [], "invalid bulk length"),
    "a length too large": (b"*1\r\n$536870913\r\n", [], "invalid bulk length"),
}


class TestEveryForm:
    """Every form of a request, cut everywhere: alone, and with others before and behind."""

    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_read_alike_at_every_cut(self, build: Build, form: str) -> None:
        data, commands, problem = FORMS[form]
        error = problem and f"ERR Protocol error: {problem}"
        ping = [] if problem else [[b"PING"]]
        for before, behind in ((b"", b""), (PING, PING), (b"PING\r\n", b"PING\n")):
            whole = before + data + behind
            expected = ([[b"PING"]] * bool(before) + commands + ping * bool(behind), error)
            assert reference.read(whole) == expected
            for cut in range(len(whole) + 1):
                found = read(build, [whole[:cut], whole[cut:]])
                assert (found.commands, found.error) == expected
            found = read(build, byte_by_byte(whole))
            assert (found.commands, found.error) == expected

    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_read_alike_in_any_three_pieces(self, build: Build, form: str) -> None:
        data = FORMS[form][0] + PING
        whole = read(build, [data])
        for second in range(len(data) + 1):
            for first in range(second):
                assert read(build, [data[:first], data[first:second], data[second:]]) == whole

    @pytest.mark.parametrize("form", FORMS)
    def test_a_beginning_waits_for_the_rest(self, build: Build, form: str) -> None:
        data = FORMS[form][0]
        for end in range(len(data)):
            reader = build.RequestReader()
            assert reader.feed(data[:end]) == ([], b"", None)
            assert reader.pending == end


HEADERS = [b"*1\r\n", b"*2\r\n", b"*0\r\n", b"*01\r\n", b"*-1\r\n", b"*1\rX", b"*99999\r\n", b"*1\r\n$4\r\nPING"]
LENGTHS = [b"$4\r\n", b"$0\r\n", b"$1\r\n", b"$-1\r\n", b"$3\r\n", b"$04\r\n"]
CONTENTS = [b"PING", b"GET", b"a", b"\r\n", b"\r", b"\n", b"XX", b"\0", b'"', b"PING\r\n", PING]
ALIENS = [b":0\r\n", b":5\r\n", b"+\r\n", b"+foo\r\n", b"-ERR\r\n", b"=7\r\n", b"txt:foo\r\n", b"\r\nt:foo", b"(1\r\n"]
ALIENS += [b"#f\r\n", b",0\r\n", b"_\r\n", b">1\r\n", b"~1\r\n", b"%1\r\n", b"|1\r\n"]
NASTY = st.lists(st.sampled_from([*HEADERS, *LENGTHS, *CONTENTS, *ALIENS]), max_size=14).map(b"".join)


class TestTheFastPath:
    """hiredis reads whole chunks; byte by byte, only the exact scanner is at work. Both must agree on anything."""

    @settings(max_examples=1000)
    @given(NASTY)
    @example(b"*1\r\n$4\r\nPINGXX*1\r\n")
    @example(b"*1\r\n$4\r\nPINGXX:0\r\n")
    @example(b"*2\r\n$3\r\nGETXX=7\r\n\r\nt:foo\r\n")
    @example(b"*1\r\n$4\r\nPINGXX%1\r\n$1\r\na\r\n$1\r\nb\r\n")
    @example(b"*2\r\n$3\r\nGETXX+foo\r\n")
    @example(b"*2\r\n$6\r\na\r\n\r\nbXX+foo\r\n")
    @example(PING + b"~1\r\n$4\r\nPING\r\n")
    @example(b"*1\r\n$4\r\nPING\n\r" + PING)
    def test_it_reads_what_the_exact_scanner_reads(self, build: Build, data: bytes) -> None:
        for prefix in (b"", PING):
            assert read(build, [prefix + data]) == read(build, byte_by_byte(prefix + data))

    @given(NASTY, st.lists(st.integers(0), max_size=4))
    def test_garbage_is_read_alike_in_any_pieces(self, build: Build, data: bytes, cuts: list[int]) -> None:
        assert read(build, in_pieces(data, cuts)) == read(build, [data])

    @settings(max_examples=300)
    @given(st.binary(max_size=200))
    def test_noise_never_raises(self, build: Build, data: bytes) -> None:
        assert read(build, [data]) == read(build, byte_by_byte(data))

    @given(PIPELINE)
    def test_hiredis_alone_would_read_the_same_pipeline(self, build: Build, commands: list[list[bytes]]) -> None:
        reader = hiredis.Reader()
        reader.feed(b"".join(map(resp.encode_command, commands)))
        assert [reader.gets() for _ in commands] == commands


class TestInlineCommands:
    @pytest.mark.parametrize(
        ("line", "args"),
        [
            (b"PING\r\n", [b"PING"]),
            (b"  set \t k  v\n", [b"set", b"k", b"v"]),
            (b"SET k \"a b\\x41\\n\" 'c \\' d'\r\n", [b"SET", b"k", b"a bA\n", b"c ' d"]),
        ],
    )
    def test_they_are_passed_on_as_lists(self, build: Build, line: bytes, args: list[bytes]) -> None:
        assert read(build, [line]) == ([args], resp.encode_command(args), None)
        assert read(build, byte_by_byte(line + PING)) == ([args, [b"PING"]], resp.encode_command(args) + PING, None)


LONG = b"1" * 70_000
GARBAGE = [
    b"*abc\r\n",
    b"*+1\r\n",
    b"*01\r\n",
    b"* 1\r\n",
    b"*\r\n",
    b"*2147483647\r\n$4\r\nPING\r\n",
    b"*2147483648\r\n",
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


class TestErrors:
    def test_garbage_gets_the_words_of_a_real_redis(self, build: Build, redis_server: RedisServer) -> None:
        for data in GARBAGE:
            commands, _, problem = read(build, [data])
            replies = [_reply(args) for args in commands] + ([resp.error(problem)] if problem else [])
            assert answer(redis_server.node, data) == b"".join(replies), data[:60]
            assert read(build, byte_by_byte(data)) == read(build, [data])

    def test_good_commands_before_a_bad_byte_come_with_the_error(self, build: Build) -> None:
        requests = build.RequestReader().feed(PING * 2 + b"*1\r\n!")
        assert requests == ([[b"PING"]] * 2, PING * 2, None)
        requests = build.RequestReader().feed(PING * 2 + b"*1\r\n!\r\n" + PING)
        assert (requests.commands, requests.raw) == ([[b"PING"]] * 2, PING * 2)
        assert requests.error is not None
        assert requests.error.reply == "ERR Protocol error: expected '$', got '!'"

    def test_after_an_error_nothing_more_is_read(self, build: Build) -> None:
        reader = build.RequestReader()
        first = reader.feed(b"*x\r\n")
        again = reader.feed(PING)
        assert first.error is again.error is not None
        assert (again.commands, again.raw, reader.pending) == ([], b"", 0)


def _reply(args: list[bytes]) -> bytes:
    if args[0].upper() == b"PING":
        return b"+PONG\r\n"
    return resp.error(f"ERR unknown command '{args[0].decode()}', with args beginning with: ")


TEN = resp.encode_command([b"x" * 16384] * 10)
ELEVEN = resp.encode_command([b"x"] * 11)
LARGE = resp.encode_command([b"x" * 16385])
AUTH = resp.encode_command([b"AUTH", b"secret"])
TOO_MANY = "ERR Protocol error: unauthenticated multibulk length"
TOO_LARGE = "ERR Protocol error: unauthenticated bulk length"


class TestStrangers:
    """Before authentication, only small commands are read."""

    @pytest.mark.parametrize(("data", "problem"), [(TEN, None), (ELEVEN, TOO_MANY), (LARGE, TOO_LARGE)])
    def test_the_limits_are_ten_arguments_of_16_kib(self, build: Build, data: bytes, problem: str | None) -> None:
        assert read(build, [data]).error is None
        assert read(build, [data], logins=[]).error == problem
        assert read(build, byte_by_byte(data), logins=[]).error == problem

    @pytest.mark.parametrize("first", [b"AUTH wrong\r\n", b"*2\r\n$4\r\nauth\r\n$1\r\nx\r\n", b"HELLO 3\n"])
    def test_they_are_told_so_in_the_words_of_a_real_redis(self, build: Build, first: bytes) -> None:
        with RedisServer(requirepass="secret") as server:
            for data in (ELEVEN, LARGE[:20], first + ELEVEN, first + LARGE[:20]):
                problem = read(build, [data], logins=[False]).error
                assert problem
                assert answer(server.node, data).endswith(resp.error(problem))

    @pytest.mark.parametrize("login", [AUTH, b"auth secret\r\n", b"*1\r\n$5\r\nhello\r\n"])
    def test_what_follows_a_login_is_kept_until_that_is_answered(self, build: Build, login: bytes) -> None:
        reader = build.RequestReader(authenticated=False)
        for cut in range(len(login) + 1, len(login + ELEVEN)):
            data = login + ELEVEN
            reader = build.RequestReader(authenticated=False)
            assert len(reader.feed(data[:cut]).commands) == 1
            assert reader.awaits_login
            assert reader.feed(data[cut:]) == ([], b"", None)
            assert reader.login_answered(authenticated=True) == ([[b"x"] * 11], ELEVEN, None)
            assert not reader.awaits_login

    def test_a_failed_login_leaves_the_limits_as_they_are(self, build: Build) -> None:
        assert read(build, [AUTH + PING + ELEVEN], logins=[False]).error == TOO_MANY
        assert read(build, [AUTH + PING + AUTH + ELEVEN + PING], logins=[False, True]).error is None

    def test_the_limits_end_when_the_session_says_so(self, build: Build) -> None:
        reader = build.RequestReader(authenticated=False)
        assert reader.feed(ELEVEN[:3]).error is None
        reader.authenticated = True
        assert reader.feed(ELEVEN[3:]).commands == [[b"x"] * 11]
        assert reader.login_answered(authenticated=False) == ([], b"", None)
        assert reader.feed(ELEVEN).error is not None

    def test_a_login_of_who_is_known_keeps_nothing_back(self, build: Build) -> None:
        assert len(build.RequestReader().feed(AUTH + ELEVEN).commands) == 2

    def test_what_is_kept_is_bounded(self, build: Build) -> None:
        reader = build.RequestReader(authenticated=False, query_limit=1 << 20)
        reader.feed(AUTH)
        assert reader.feed(bytes(1 << 20)).error is None
        error = reader.feed(b"x").error
        assert error is not None
        assert error.reply == ""
        assert reader.pending == 0
        assert reader.login_answered(authenticated=True).error is error


class TestMemory:
    """What is announced costs nothing; only what arrives is kept."""

    @pytest.mark.parametrize(
        "data",
        [
            b"*4294967295\r\n",
            b"*2147483647\r\n",
            b"*1\r\n$536870912\r\n",
            b"*2147483647\r\n$536870912\r\n",
            b"*2\r\n$1\r\naXX*99999999\r\n",
            b"*2\r\n$1\r\naXX~99999999\r\n",
            b"*2\r\n$1\r\naXX%99999999\r\n",
            b"*2\r\n$1\r\naXX>99999999\r\n",
            b"*2\r\n$1\r\naXX|99999999\r\n",
            b"*999\r\n" * 1500,
            PING + b"*99999999\r\n",
        ],
    )
    def test_announcements_of_a_hundred_clients_allocate_nothing(self, build: Build, data: bytes) -> None:
        readers = [build.RequestReader() for _ in range(100)]
        tracemalloc.start()
        try:
            for reader in readers:
                reader.feed(data)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
            assert tracemalloc.get_traced_memory()[0] < 1_000_000 + 100 * len(data)
        finally:
            tracemalloc.stop()

    def test_a_large_argument_is_kept_once_until_it_is_complete(self, build: Build) -> None:
        reader = build.RequestReader()
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

    def test_a_command_in_tiny_packets_costs_no_more_than_its_arguments(self, build: Build) -> None:
        reader = build.RequestReader()
        data = b"*1000\r\n" + b"$10\r\n0123456789\r\n" * 999
        tracemalloc.start()
        try:
            for piece in in_pieces(data, range(0, len(data), 2)):
                reader.feed(piece)
            assert tracemalloc.get_traced_memory()[0] < 10 * len(data)
        finally:
            tracemalloc.stop()

    def test_an_argument_that_takes_its_time_is_copied_twice(self, build: Build) -> None:
        size, chunk = 20_000_000, b"x" * 100_000
        reader = build.RequestReader()
        tracemalloc.start()
        try:
            reader.feed(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % size)
            for _ in range(size // len(chunk)):
                reader.feed(chunk)
            requests = reader.feed(b"\r\n" + PING)
            assert tracemalloc.get_traced_memory()[1] < 2.3 * size
        finally:
            tracemalloc.stop()
        assert [len(arg) for arg in requests.commands[0]] == [4, size]
        assert requests.commands[1:] == [[b"PING"]]
        assert requests.raw == resp.encode_command([b"ECHO", b"x" * size]) + PING

    @given(st.lists(st.sampled_from([0, 5, 65536, 65537, 70_000, 200_000]), min_size=1, max_size=4), st.data())
    def test_large_arguments_are_read_like_others(self, build: Build, sizes: list[int], data: st.DataObject) -> None:
        command = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
        packed = PING + resp.encode_command(command)
        ends = [data.draw(st.integers(0, len(packed))) for _ in range(3)]
        expected = ([[b"PING"], command, [b"PING"]], packed + PING, None)
        assert read(build, in_pieces(packed + PING, ends)) == expected
        assert read(build, in_pieces(packed + PING, range(0, len(packed), 1000))) == expected

    @pytest.mark.parametrize("size", [1048573, 1048574, 1048575, 1048576])
    def test_one_argument_is_bounded_as_in_redis(self, build: Build, redis_server: RedisServer, size: int) -> None:
        assert answer(redis_server.node, b"CONFIG SET client-query-buffer-limit 1mb\n") == b"+OK\r\n"
        data = resp.encode_command([b"ECHO", b"x" * size])
        said = answer(redis_server.node, data)
        for pieces in ([data], [data[:30], data[30:]], in_pieces(data, range(0, len(data), 65536))):
            reader = build.RequestReader(query_limit=1 << 20)
            error = [reader.feed(piece) for piece in pieces][-1].error
            assert (error is not None) == (said == b"")
            assert error is None or (error.reply, str(error), reader.pending) == ("", "query buffer limit exceeded", 0)

    def test_a_command_of_many_arguments_is_not(self, build: Build) -> None:
        data = resp.encode_command([b"x" * 700_000] * 3)
        reader = build.RequestReader(query_limit=1 << 20)
        assert [reader.feed(piece) for piece in in_pieces(data, range(0, len(data), 65536))][-1].raw == data


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
