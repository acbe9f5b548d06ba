"""Cursors of SCAN, HSCAN, SSCAN and ZSCAN, marked with the server process that they come from.

A cursor is a position among the buckets of a hash table (dictScan in dict.c of Redis): a bucket number, counted up from
its highest bit, so that the position stays good while the table grows and shrinks. Which bucket an element is in is
decided by a hash with a random seed of the process. So a cursor is good for the process that gave it out, for ever,
and for any other one it is a position in another order, behind which elements would be missed in silence.

What SCAN promises is that an element which is there from the beginning of an iteration to its end is returned, once or
more often. A cursor that another process gave out is therefore replaced by 0: the iteration begins again, ends like any
other, and its last, complete round keeps the promise. It may repeat elements, it never misses one.

The mark stands above the 36 bits that a bucket number has at most (a table of 2**36 buckets takes 512 GiB without
anything in it), and the whole stays below 2**53: clients that keep numbers as doubles read it unharmed. Two processes
share a mark once in 65,534 times; then the old cursor goes through as if there were no marks.

Cursors that scripts return are not marked: nothing tells them from other numbers.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

_BITS: Final = 36
_MARKS: Final = 2**16 - 2
_MOST_DIGITS: Final = 16  # of a number below 2**53
_REPLY = re.compile(rb"\*2\r\n\$[0-9]{1,2}\r\n([0-9]{1,20})\r\n")


class Cursors:
    """Marks and unmarks the cursors of one server process.

    `process` tells it from every other one, and is the same string in each proxy that a client may talk to.
    """

    def __init__(self, process: str) -> None:
        digest = blake2b(process.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        self.mark = 1 + int.from_bytes(digest, "big") % _MARKS
        """The number that cursors of this process carry; never 0."""

    def incoming(self, args: list[bytes]) -> list[bytes]:
        """A command of the SCAN family as the process is to get it.

        Its own cursor without the mark, the cursor of another process replaced by 0. Any other cursor, also one that
        is missing or no number, is for the server to judge: the same list is returned.
        """
        place = 1 if args[0].upper() == b"SCAN" else 2
        cursor = args[place] if len(args) > place else b""
        if not cursor.isdigit() or len(cursor) > _MOST_DIGITS:
            return args
        mark, position = divmod(int(cursor), 2**_BITS)
        if not 1 <= mark <= _MARKS:
            return args
        return [*args[:place], b"%d" % (position if mark == self.mark else 0), *args[place + 1 :]]

    def outgoing(self, reply: bytes) -> bytes:
        """The reply to such a command of this process as the client is to get it."""
        return marked(reply, self.mark)


def marked(reply: bytes, mark: int) -> bytes:
    """The reply of a process with this mark as the client is to get it: with a marked cursor.

    Unchanged is what carries no cursor (errors, nulls, +QUEUED), the cursor 0, which ends an iteration, and a
    cursor of 2**36 or more, which no table gives out that fits into memory.
    """
    match = _REPLY.match(reply)
    cursor = int(match[1]) if match else 0
    if match is None or not 0 < cursor < 2**_BITS:
        return reply
    given = b"%d" % (mark << _BITS | cursor)
    return b"".join([b"*2\r\n$%d\r\n%b\r\n" % (len(given), given), memoryview(reply)[match.end() :]])
