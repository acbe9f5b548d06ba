"""Bytes to try: what clients and servers may say, built by grammar, and then damaged. All of it follows from a seed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import NamedTuple

from rfprotocol.resp.resp import encode_command

TOKENS = [b"\r\n", b"\r", b"\n", b"\0", b"*", b"$", b"*1\r\n", b"*0\r\n", b"*-1\r\n", b"$-1\r\n", b"$0\r\n", b"$4\r\n"]
TOKENS += [
    b"%1\r\n",
    b"~2\r\n",
    b">1\r\n",
    b"|1\r\n",
    b"=7\r\ntxt:",
    b"_\r\n",
    b"#t\r\n",
    b",",
    b"(",
    b"!3\r\n",
    b":1\r\n",
]
TOKENS += [
    b"+OK\r\n",
    b"-ERR\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"PING\r\n",
    b'"',
    b"'",
    b"\\",
    b"\\x41",
    b" ",
    b"\v",
    b"0",
]
TOKENS += [b"-", b"9", b"2147483648", b"2147483647", b"1048577", b"536870913", b"9223372036854775808", b"?", b";", b"."]

CONTENTS = [b"", b"a", b"\r\n", b"\r", b"\n", b"hello world", b"*2\r\n$1\r\na", b"$4\r\nPING", b"\0\xff", b"-5", b"=1"]
CONTENTS += [b"x" * 600, b"+OK\r\n", b"a|12345", b">1\r\n+a\r\n"]


def content(rng: Random) -> bytes:
    """What stands in an argument or a string."""
    return rng.choice(CONTENTS) if rng.random() < 0.7 else rng.randbytes(rng.randrange(40))


def cuts(rng: Random, data: bytes) -> list[bytes]:
    """The same bytes in a few pieces, in many, or one by one."""
    how = rng.randrange(4)
    if how == 0:
        return [data[place : place + 1] for place in range(len(data))]
    some = min(len(data), rng.randrange(1, 4) if how < 3 else rng.randrange(1, 30))
    places = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(some))})
    return [data[start:end] for start, end in pairwise(places)]


def mutate(rng: Random, data: bytes) -> bytes:
    """Damage some of it, in up to four places."""
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice([1, 1, 2, 5, 20]))
        change = rng.randrange(6)
        if change == 0:
            data = data[:place] + data[end:]
        elif change == 1:
            data = data[:place] + rng.choice(TOKENS) + data[place:]
        elif change == 2:
            data = data[:place] + rng.choice(TOKENS) + data[end:]
        elif change == 3:
            data = data[:end] + data[place:end] + data[end:]
        elif change == 4:
            data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        else:
            data = data[:place]
    return data


# -- requests


def _command(rng: Random) -> bytes:
    args = [content(rng) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 12]))]
    name = rng.choice([b"PING", b"ECHO", b"EXISTS", b"nosuch", b"EVAL"])
    return encode_command([name, b"return ARGV", b"0", *args] if name == b"EVAL" else [name, *args])


def _word(rng: Random) -> bytes:
    plain = rng.choice([b"PING", b"a", b"\xff", b"a\vb", b"x\\y", b""])
    inside = rng.choice([b"", b"a b", b"\\x41\\x0", b"\\n\\t\\b\\a\\r", b"\\'", b'\\"', b"\\\\", b"\\q"])
    return plain + rng.choice([b"", b"", b'"' + inside + b'"', b"'" + inside + b"'"])


def _inline(rng: Random) -> bytes:
    blank = rng.choice([b" ", b"\t", b"  ", b" \v\f"])
    return blank.join(_word(rng) for _ in range(rng.randrange(5))) + rng.choice([b"\r\n", b"\n", b" \r\n"])


def _login(rng: Random) -> bytes:
    return rng.choice(
        [encode_command([b"AUTH", b"x"]), b"hello\r\n", b"auth a b\n", encode_command([b"x"] * 11), _large(rng)]
    )


def _large(rng: Random) -> bytes:
    return encode_command([b"ECHO", b"l" * rng.choice([16384, 16385, 65536, 65537, 70000])])


_REQUESTS: list[Callable[[Random], bytes]] = [_command, _command, _command, _inline, lambda rng: rng.choice(TOKENS)]


def requests(rng: Random, *, logins: bool = False) -> bytes:
    """What a client sends, most of it good. With `logins` also what matters to strangers."""
    kinds = [*_REQUESTS, _login, _login] if logins else _REQUESTS
    data = b"".join(rng.choice(kinds)(rng) for _ in range(rng.randrange(1, 7)))
    return mutate(rng, data) if rng.random() < 0.6 else data


# -- replies

_LINES = [b"+OK\r\n", b"+\r\n", b":0\r\n", b":-12\r\n", b"$-1\r\n", b"*-1\r\n", b"-ERR no\r\n"]
_LINES_3 = [
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b",1.5\r\n",
    b",inf\r\n",
    b",-inf\r\n",
    b"(3492890328409238509324850943850\r\n",
]


def _string(rng: Random, kind: bytes = b"$", before: bytes = b"") -> bytes:
    inside = before + content(rng)
    return b"%b%d\r\n%b\r\n" % (kind, len(inside), inside)


def value(rng: Random, protocol: int, depth: int = 0) -> bytes:
    """One value of any type, with others in it down to the depth that hiredis reads."""
    choice = rng.random()
    if choice < 0.4 or depth > 4:
        return _string(rng)
    if choice < 0.7:
        return rng.choice(_LINES + _LINES_3 if protocol == 3 else _LINES)
    if protocol == 3 and choice < 0.78:
        return _string(rng, b"=", b"txt:") if choice < 0.74 else _string(rng, b"!")
    return aggregate(rng, rng.choice([b"*", b"~", b"%"]) if protocol == 3 else b"*", protocol, depth)


def aggregate(rng: Random, kind: bytes, protocol: int, depth: int = 0) -> bytes:
    """A list, set, map, push or attribute of up to four values, or pairs."""
    count = rng.randrange(5)
    pairs = kind in (b"%", b"|")
    items = [(_string(rng) if pairs else b"") + value(rng, protocol, depth + 1) for _ in range(count)]
    return b"%b%d\r\n%b" % (kind, count, b"".join(items))


class Item(NamedTuple):
    """What a server sends: a reply, or a push between replies."""

    data: bytes
    push: bool = False
    error: bool = False


def reply(rng: Random, protocol: int) -> Item:
    """One reply or, in RESP3, sometimes a push; sometimes described by an attribute."""
    chance = rng.random() if protocol == 3 else 1.0
    if chance < 0.15:
        return Item(aggregate(rng, b">", protocol), push=True)
    described = aggregate(rng, b"|", protocol) if chance < 0.25 else b""
    plain = value(rng, protocol)
    return Item(described + plain, error=plain.startswith((b"-", b"!")))
