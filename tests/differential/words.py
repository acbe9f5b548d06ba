"""From lines of the vocabulary to commands: `{s}` becomes the name of a string, and so on."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from functools import partial

from rfprotocol.resp.resp import encode_command
from tests.differential.case import Command
from tests.differential.masks import Mask

SCRIPTS = {
    "set": b"return redis.call('SET', KEYS[1], ARGV[1])",
    "get": b"return redis.call('GET', KEYS[1])",
    "types": b"redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], ARGV, 1.9, true, redis.status_reply('FINE')}",
}
ODD_SCRIPTS = (
    b"return redis.error_reply('My very own')",
    b"return redis.pcall('NOSUCH')",
    b"return redis.call('GET')",
    b"return {1, 2, {3, 'four', nil, 5}}",
    b"redis.setresp(3); return redis.call('HGETALL', 'none')",
    b"return {double=3.25}",
    b"error('thrown')",
    b"this is no lua",
    b"return nonexistent",
    b"redis.call('SELECT', 3); return redis.call('DBSIZE') >= 0",
    b"return redis.sha1hex('x') .. '\\r\\n' .. tostring(cjson.encode({1, 2}))",
    b"return redis.call('SUBSCRIBE', 'x')",
)
LIBRARY = (
    b"#!lua name=lib\n"
    b"redis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)\n"
    b"redis.register_function{function_name='fetch', flags={'no-writes'},"
    b" callback=function(keys, args) return redis.call('GET', keys[1]) end}\n"
)
VALUES = (
    b"a",
    b"b",
    b"hello",
    b"",
    b"12",
    b"-7",
    b"3.25",
    b"\x00\xff\r\n\x80",
    b"two words",
    b"{}",
    b"%s",
    b'"',
    b"x" * 60,
)
NUMBERS = (b"0", b"5", b"-1", b"9223372036854775807", b"1e3", b"007", b"3.0")
KEYS = {
    "s": "str",
    "n_key": "num",
    "h": "hash",
    "l": "list",
    "i": "ints",
    "w": "words",
    "z": "zset",
    "x": "stream",
    "g": "geo",
    "p": "hll",
    "big": "big",
    "biglist": "biglist",
    "clocked": "clocked",
    "mortal": "mortal",
}
"""Families of keys. Only `words` are sets of anything but integers, whose order is fixed. Only PF commands read `hll`:
PFCOUNT writes into it, on whichever server it runs. `clocked` and `mortal` hold a time that is the server's."""
MISTAKABLE = ("str", "hash", "list", "zset", "stream")
_NEVER_ANOTHER = frozenset(["hll", "num", "words", "clocked", "mortal"])
_HOLE = re.compile(r"\{(\w+)\}")


class Words:
    """Commands at random on keys that begin with `prefix`."""

    def __init__(self, chance: random.Random, prefix: bytes) -> None:
        self.chance = chance
        self.prefix = prefix
        self._entry = 0
        self._holes: dict[str, Callable[[], bytes]] = {
            "v": lambda: chance.choice(VALUES),
            "n": lambda: chance.choice(NUMBERS),
            "int": lambda: b"%d" % chance.randint(-4, 6),
            "small": lambda: b"%d" % chance.randint(0, 9),
            "small_db": lambda: b"%d" % chance.randint(0, 2),
            "f": lambda: chance.choice((b"f1", b"f2", b"f3", b"num", b"\xfe\x00")),
            "m": lambda: chance.choice((b"a", b"b", b"c", b"m", b"z", b"\xfe\x00")),
            "id": self._stream_id,
            "short": lambda: b"0.01",
            "empty": lambda: b"",
            "bad_name": lambda: chance.choice((b"two words", b"new\nline", b"\xff")),
            "bigvalue": lambda: bytes([chance.randrange(256)]) * chance.randint(60_000, 140_000),
            "odd": lambda: chance.choice(ODD_SCRIPTS),
            "script": lambda: chance.choice(tuple(SCRIPTS.values())),
            "sha": lambda: hashlib.sha1(chance.choice(tuple(SCRIPTS.values()))).hexdigest().encode(),
            "get_sha": lambda: hashlib.sha1(SCRIPTS["get"]).hexdigest().encode(),
            "library": lambda: LIBRARY,
            "any": lambda: self.key(chance.choice(("str", "num", "hash", "list", "ints", "words", "zset", "stream"))),
            **{name: partial(SCRIPTS.__getitem__, name) for name in SCRIPTS},
        }

    def key(self, family: str) -> bytes:
        """The name of a key; sometimes one of another type than is asked for."""
        if family not in _NEVER_ANOTHER and self.chance.random() < 0.03:
            family = self.chance.choice(MISTAKABLE)
        name = b"%b%b" % (family.encode(), self.chance.choice((b"1", b"2", b"\x00\r\n\xff")))
        return self.prefix + name

    def args(self, line: str) -> list[bytes]:
        """The arguments of a line."""
        return [self._fill(word) for word in line.split()]

    def command(self, line: str, *, plain: bool = False) -> Command:
        """A command from a line, in any of the forms that Redis takes; as it is if `plain`."""
        mask = None
        first, _, rest = line.partition(" ")
        if first in Mask.__members__:
            mask, line = Mask[first], rest
        args = self.args(line)
        if plain:
            return Command(encode_command(args), mask=mask)
        if self.chance.random() < 0.1:
            args[0] = self.chance.choice((args[0].lower(), args[0].capitalize()))
        if mask is None and args[0].upper() not in _NOT_SPOILT and self.chance.random() < 0.02:
            args = self._spoil(args)
        inline = self.chance.random() < 0.04
        return Command(_inline(args) if inline and sum(map(len, args)) < 500 else encode_command(args), mask=mask)

    def _fill(self, word: str) -> bytes:
        return b"".join(
            self._hole(part) if index % 2 else part.encode() for index, part in enumerate(_HOLE.split(word))
        )

    def _hole(self, name: str) -> bytes:
        family = KEYS.get(name)
        return self._holes[name]() if family is None else self.key(family)

    def _stream_id(self) -> bytes:
        self._entry += 1
        return b"%d-1" % self._entry

    def _spoil(self, args: list[bytes]) -> list[bytes]:
        way = self.chance.randrange(3)
        if way == 0 and len(args) > 1:
            return args[:-1]
        if way == 1:
            return [*args, b"extra"]
        return [b"NO" + args[0], *args[1:]]


_NOT_SPOILT = frozenset(
    b"""
    ACL BLPOP BRPOP CLIENT COMMAND CONFIG DEBUG DISCARD EXEC FLUSHALL FUNCTION HELLO HSCAN KEYS LATENCY LOLWUT
    MEMORY MODULE MONITOR MULTI PSUBSCRIBE PUNSUBSCRIBE QUIT RANDOMKEY RESET SADD SCAN SDIFF SINTER SLOWLOG
    SORT SPOP SRANDMEMBER SSCAN SSUBSCRIBE SUBSCRIBE SUNION SUNIONSTORE SUNSUBSCRIBE TIME UNSUBSCRIBE WAIT XADD
    XINFO ZSCAN
    """.split()
)
"""With one argument more or less they would stop waiting, answer in any order, or say more than one thing."""


def _inline(args: list[bytes]) -> bytes:
    """As somebody would type it."""
    return b" ".join(arg if re.fullmatch(rb"[\w*]+", arg) else _quoted(arg) for arg in args) + b"\r\n"


def _quoted(arg: bytes) -> bytes:
    return (
        b'"'
        + b"".join(b"\\x%02x" % byte if byte in b'\\"' or not 32 <= byte < 127 else bytes([byte]) for byte in arg)
        + b'"'
    )


def lines(text: str) -> tuple[str, ...]:
    """The single lines of a vocabulary."""
    return tuple(line.strip() for row in text.strip().splitlines() for line in row.split(" | ") if line.strip())
