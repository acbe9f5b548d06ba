"""Where two plain Redis servers differ from one another: the one table of what is not compared byte for byte."""

from __future__ import annotations

import re
from enum import Enum

from rfprotocol.resp.reply_scanner import split


class Mask(Enum):
    """What is left out of a reply, and why."""

    UNORDERED = "members of a hash table come in an order that hangs on the server's random seed"
    NUMBER = "remaining times, idle times, sizes in memory, the number of a connection, of replicas: any number will do"
    CLOCK = "the server's clock, or an id made from it: any digits will do"
    GREETING = "a connection's number stands in it"
    ADDRESS = "numbers, addresses, ages and buffer sizes of a connection; what the client said of itself is compared"
    """Without the fields that Redis 7.0 did not have: the proxy shows those of 7.0, in front of any server."""


_MEASURED = re.compile(
    rb"\b(id|addr|laddr|fd|age|idle|qbuf|qbuf-free|argv-mem|multi-mem|rbs|rbp|obl|oll|omem|tot-mem|events)=\S*"
)
_LATER = re.compile(rb" (capa|watch|lib-name|lib-ver|io-thread|tot-net-in|tot-net-out|tot-cmds)=[^ \n]*")
"""Fields of CLIENT INFO since Redis 7.2 and Valkey 8."""


def masked(mask: Mask, reply: bytes) -> bytes:
    """A reply without what may differ."""
    if reply.startswith(b"-"):
        return reply
    if mask is Mask.UNORDERED:
        return _sorted(reply)
    if mask is Mask.NUMBER:
        return re.sub(rb":\d+\r\n", b":N\r\n", reply)
    if mask is Mask.CLOCK:
        return re.sub(rb"\d+", b"N", reply)
    if mask is Mask.ADDRESS:
        shown = _LATER.sub(b"", reply.partition(b"\r\n")[2])
        return _MEASURED.sub(rb"\1=N", shown).replace(b" multi=0 ", b" multi=-1 ")  # so Valkey behind an EXEC
    return re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1N", reply)


def _sorted(reply: bytes) -> bytes:
    """The items of an array, set or map, of those within too, in the order of their bytes."""
    if reply[:1] not in b"*~%":
        return reply
    head, _, rest = reply.partition(b"\r\n")
    return head + b"\r\n" + b"".join(sorted(_sorted(item) for item in split(rest)))
