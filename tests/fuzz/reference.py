"""What a Redis 7.0 server reads in a client's bytes, written down as plainly as can be: slow, and from one piece.

It follows the text of networking.c and sds.c step by step, and shares nothing with the reader that it checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

_LIMIT = 64 * 1024
_BLANKS = b" \t\n\v\f\r"
_LETTERS = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


class Outcome(NamedTuple):
    """The commands, and the error behind them, if any; `None` while more bytes could follow."""

    commands: list[list[bytes]]
    error: str | None


class _Incomplete(Exception):
    """More bytes are needed."""


class _Refused(Exception):
    """The client is told so, and thrown out."""


def read(data: bytes, *, logins: Iterator[bool] | None = None) -> Outcome:
    """Read all that is there. `logins`: of a stranger, whether each AUTH or HELLO succeeds."""
    commands: list[list[bytes]] = []
    stranger = logins is not None
    pos = 0
    try:
        while pos < len(data):
            one = _multibulk if data[pos : pos + 1] == b"*" else _inline
            pos, args = one(data, pos, stranger)
            if args:
                commands.append(args)
                if stranger and logins is not None and args[0].upper() in (b"AUTH", b"HELLO"):
                    stranger = not next(logins)
    except _Incomplete:
        return Outcome(commands, None)
    except _Refused as refused:
        return Outcome(commands, f"ERR Protocol error: {refused}")
    return Outcome(commands, None)


def _find(data: bytes, pos: int, end: bytes, too_big: str) -> int:
    for place in range(pos, min(len(data), pos + _LIMIT + 1)):
        byte = data[place : place + 1]
        if byte == end:
            return place
        if byte == b"\0":
            break
    if len(data) - pos > _LIMIT:
        raise _Refused(too_big)
    raise _Incomplete


def _header(data: bytes, pos: int, what: str) -> tuple[int, bytes]:
    end = _find(data, pos, b"\r", f"too big {what} count string")
    if end + 2 > len(data):
        raise _Incomplete
    return end + 2, data[pos:end]


def _number(digits: bytes) -> int | None:
    """A 64 bit number in the only form that string2ll of util.c takes."""
    try:
        value = int(digits.decode("ascii"))
    except ValueError:
        return None
    return value if str(value).encode() == digits and -(2**63) <= value < 2**63 else None


def _multibulk(data: bytes, pos: int, stranger: bool) -> tuple[int, list[bytes]]:
    pos, header = _header(data, pos, "mbulk")
    count = _number(header[1:])
    if count is None or count > 2**31 - 1:
        raise _Refused("invalid multibulk length")
    if stranger and count > 10:
        raise _Refused("unauthenticated multibulk length")
    args: list[bytes] = []
    while len(args) < count:
        start = pos
        pos, header = _header(data, pos, "bulk")
        if not header.startswith(b"$"):
            got = data[start : start + 1].decode("utf-8", "surrogateescape")
            raise _Refused(f"expected '$', got '{got}'")
        length = _number(header[1:])
        if length is None or not 0 <= length <= 512 * 1024 * 1024:
            raise _Refused("invalid bulk length")
        if stranger and length > 16384:
            raise _Refused("unauthenticated bulk length")
        if len(data) < pos + length + 2:
            raise _Incomplete
        args.append(data[pos : pos + length])
        pos += length + 2
    return pos, args


def _inline(data: bytes, pos: int, _stranger: bool) -> tuple[int, list[bytes]]:
    end = _find(data, pos, b"\n", "too big inline request")
    line = data[pos:end]
    return end + 1, _words(line[:-1] if line.endswith(b"\r") else line)


def _words(line: bytes) -> list[bytes]:
    """The words of an inline command. Raises _Refused when its quotes are not balanced."""
    found: list[bytes] = []
    pos = 0
    while True:
        while pos < len(line) and line[pos] in _BLANKS:
            pos += 1
        if pos == len(line):
            return found
        word = bytearray()
        quoted: Callable[[bytes, int, bytearray], int] | None = None
        while pos < len(line) and line[pos] not in b" \n\r\t":
            byte = line[pos]
            pos += 1
            if byte in b"\"'":
                quoted = _double if byte == ord('"') else _single
                break
            word.append(byte)
        if quoted is not None:
            pos = quoted(line, pos, word)
            if pos < len(line) and line[pos] not in _BLANKS:
                raise _Refused("unbalanced quotes in request")
        found.append(bytes(word))


def _double(line: bytes, pos: int, word: bytearray) -> int:
    while pos < len(line):
        byte = line[pos]
        if byte == ord('"'):
            return pos + 1
        digits = line[pos + 2 : pos + 4]
        if byte == ord("\\") and line[pos + 1 : pos + 2] == b"x" and len(digits) == 2 and _hexadecimal(digits):
            word.append(int(digits, 16))
            pos += 4
        elif byte == ord("\\") and pos + 1 < len(line):
            word.append(_LETTERS.get(line[pos + 1], line[pos + 1]))
            pos += 2
        else:
            word.append(byte)
            pos += 1
    raise _Refused("unbalanced quotes in request")


def _hexadecimal(digits: bytes) -> bool:
    return all(digit in b"0123456789abcdefABCDEF" for digit in digits)


def _single(line: bytes, pos: int, word: bytearray) -> int:
    while pos < len(line):
        if line.startswith(b"\\'", pos):
            word.append(ord("'"))
            pos += 2
        elif line[pos] == ord("'"):
            return pos + 1
        else:
            word.append(line[pos])
            pos += 1
    raise _Refused("unbalanced quotes in request")
