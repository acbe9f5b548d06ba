"""Words, blanks and quotes, as Redis takes them from people at a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.errors import ProtocolError
from tests.fuzz import reference
from tests.fuzz.builds import Build

PIECES = [b" ", b"\t", b"\v", b'"', b"'", b"\\", b"\\x41", b"\\xg", b"\\x", b"n", b"a", b"\r", b"\xff"]


class TestWords:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            (b"", []),
            (b" \t\v\f\r", []),
            (b"PING", [b"PING"]),
            (b"  set \t k  v ", [b"set", b"k", b"v"]),
            (b"\xff\x01", [b"\xff\x01"]),
            (b"a\vb\fc", [b"a\vb\fc"]),
            (b'""', [b""]),
            (b"k ''", [b"k", b""]),
            (b"\"a b\" 'c d'", [b"a b", b"c d"]),
            (b'a"b c"', [b"ab c"]),
            (b'"\\x41\\x0a\\n\\r\\t\\b\\a\\"\\\\\\q"', [b'A\n\n\r\t\b\a"\\q']),
            (b'"\\xZZ\\x4"', [b"xZZx4"]),
            (b"'\\'\\n\\\\ '", [b"'\\n\\\\ "]),
        ],
    )
    def test_words_are_split_at_blanks_and_unquoted(self, build: Build, line: bytes, words: list[bytes]) -> None:
        assert build.split_inline(line) == words

    @pytest.mark.parametrize(
        "line", [b'"', b"'", b'a "b', b"'\\'", b'"\\', b'"\\"', b'"a"b', b"'a'b", b"\"a\"'b'", b"it's"]
    )
    def test_an_open_quote_or_text_right_behind_one_is_an_error(self, build: Build, line: bytes) -> None:
        with pytest.raises(ProtocolError, match=r"^ERR Protocol error: unbalanced quotes in request$"):
            build.split_inline(line)

    @given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
    def test_any_line_is_split_as_the_text_of_redis_says(self, build: Build, line: bytes) -> None:
        assert outcome(build, line.removesuffix(b"\r")) == reference.read(line + b"\n")


def outcome(build: Build, line: bytes) -> tuple[list[list[bytes]], str | None]:
    try:
        words = build.split_inline(line)
    except ProtocolError as error:
        return [], error.reply
    return [words] if words else [], None
