"""Plain commands at a glance: how many there are in a packet and where they may go, without reading their arguments.

Nearly all that clients say is plain: whole commands, each with short headers, that need nothing but a shared lane.
Their bytes are passed on as they came, so nobody asks for their arguments unless something goes wrong. Whatever is not
plain, or not whole, is left to `resp.RequestReader`, which reads all that Redis reads.

Worth while when it is compiled: then a command costs about as much as one of hiredis' allocations. Interpreted, hiredis
is several times faster than any loop over bytes: `COMPILED` tells.
"""

from __future__ import annotations

from typing import Final

from rfprotocol.resp.command_table import Command, Route, commands

COMPILED: Final = not __file__.endswith(".py")
"""Whether this module, and so the whole core, was compiled by mypyc."""
MOST: Final = 512
LARGE: Final = 1 << 20
"""Commands, and bytes, that came together: more is not plain, and travels where nobody waits behind it."""

_STAR: Final = 0x2A
_DOLLAR: Final = 0x24
_CR: Final = 0x0D
_LF: Final = 0x0A
_ZERO: Final = 0x30
_NINE: Final = 0x39


def _plain() -> dict[bytes, Command]:
    table: dict[bytes, Command] = {}
    for command in commands():
        plain = (command.route is Route.REPLICA and not command.not_everywhere) or command.route is Route.MASTER
        if plain and "|" not in command.name and not command.subcommands and command.variant is None:
            name = command.name.encode()
            table[name] = table[name.lower()] = command
    return table


_PLAIN: Final = _plain()
_READS: Final = frozenset(name for name, command in _PLAIN.items() if command.route is Route.REPLICA)


class Glance:
    """What was seen: `count` commands that end at `end`, the `last` of them, and whether all only read."""

    __slots__ = ("count", "end", "last", "reads")

    def __init__(self, count: int, end: int, last: Command, reads: bool) -> None:
        self.count = count
        self.end = end
        self.last = last
        self.reads = reads


def glance(data: bytes) -> Glance | None:
    """The plain commands that `data` begins with; None when there are none. `data` begins where a command does."""
    size = len(data)
    if size > LARGE:
        return None
    pos = end = count = 0
    reads = True
    name = b""
    while pos < size and data[pos] == _STAR:
        if count == MOST:
            return None
        arguments, pos = _length(data, pos + 1, size)
        if arguments <= 0:
            break
        first = b""
        left = arguments
        while left:
            if pos >= size or data[pos] != _DOLLAR:
                break
            length, pos = _length(data, pos + 1, size)
            behind = pos + length + 2
            if length < 0 or behind > size or data[behind - 2] != _CR or data[behind - 1] != _LF:
                break
            if left == arguments:
                first = data[pos : pos + length]
            pos = behind
            left -= 1
        if left or first not in _PLAIN:
            break
        name = first
        reads = reads and first in _READS
        end = pos
        count += 1
    return Glance(count, end, _PLAIN[name], reads) if count else None


def _length(data: bytes, pos: int, size: int) -> tuple[int, int]:
    """The number at `pos`, of up to seven digits without a leading zero, and where the line behind it begins; or -1."""
    start = pos
    number = 0
    last = min(size, pos + 8)
    while pos < last and _ZERO <= data[pos] <= _NINE:
        number = number * 10 + data[pos] - _ZERO
        pos += 1
    digits = pos - start
    if not digits or digits > 7 or (digits > 1 and data[start] == _ZERO) or pos + 1 >= size:
        return -1, pos
    return (number, pos + 2) if data[pos] == _CR and data[pos + 1] == _LF else (-1, pos)
