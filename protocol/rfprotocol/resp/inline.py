"""Commands as people type them: words with blanks between them, some in quotes."""

from __future__ import annotations

import re

from rfprotocol.errors import ProtocolError

_TOKEN = re.compile(
    rb"""[ \t\n\v\f\r]*+ ([^ \t\n\r"']*+)
         (?: "((?:\\.|[^"\\])*+)" (?![^ \t\n\v\f\r]) | '((?:\\'|[^'])*+)' (?![^ \t\n\v\f\r]) | (?!["']) )""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_inline(line: bytes) -> list[bytes]:
    """Split as sdssplitargs of Redis' sds.c does. Raises ProtocolError for an open quote, or text right behind one."""
    args: list[bytes] = []
    pos = 0
    while True:
        match = _TOKEN.match(line, pos)
        if match is None:
            raise ProtocolError("ERR Protocol error: unbalanced quotes in request")
        plain, double, single = match.groups()
        pos = match.end()
        if double is not None:
            args.append(plain + _ESCAPE.sub(_unescape, double))
        elif single is not None:
            args.append(plain + single.replace(b"\\'", b"'"))
        elif plain:
            args.append(plain)
        else:
            return args


def _unescape(match: re.Match[bytes]) -> bytes:
    digits, char = match.groups()
    return bytes.fromhex(digits.decode()) if digits else _ESCAPED.get(char, char)
