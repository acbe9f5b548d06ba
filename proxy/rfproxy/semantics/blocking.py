"""Blocking commands: what is left of their timeouts when they are asked again, and what they say when nothing came."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import block_place

WAITS = frozenset(["WAIT", "WAITAOF"])
"""What waits for replicas, rather than for an element."""

_TIMEOUT_AT = {
    **dict.fromkeys(["BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BZPOPMIN", "BZPOPMAX", *WAITS], -1),
    **dict.fromkeys(["BLMPOP", "BZMPOP"], 1),
    "BLMOVEM": 5,
}
_IN_MILLISECONDS = frozenset(["XREAD", "XREADGROUP", *WAITS])


def remaining(name: str, args: Sequence[bytes], elapsed: float) -> list[bytes] | None:
    """The same blocking command for what is left of its timeout, or None when nothing is left.

    A timeout of 0 means for ever and stays. `elapsed` in seconds. What cannot be read is left to the server.
    """
    place = _timeout_place(name, args)
    try:
        timeout = float(args[place]) if place is not None else 0.0
    except (ValueError, IndexError):
        return list(args)
    if place is None or not 0 < timeout < math.inf or not elapsed:
        return list(args)
    scale = 1000 if name in _IN_MILLISECONDS else 1
    left = timeout - elapsed * scale
    if left <= 0:
        return None
    shorter = list(args)
    shorter[place] = b"%d" % max(1, round(left)) if scale == 1000 else b"%.3f" % max(left, 0.001)
    return shorter


def _timeout_place(name: str, args: Sequence[bytes]) -> int | None:
    if name in ("XREAD", "XREADGROUP"):
        return block_place(args)
    return _TIMEOUT_AT.get(name)


def took(reply: bytes) -> bool:
    """Whether a blocking command that is answered like this had an effect: an error and nil say that it had none."""
    return not reply.startswith(_TOOK_NOTHING)


_TOOK_NOTHING = (b"-", b"*-1\r\n", b"$-1\r\n", b"_")


def nothing(name: str, protocol: int) -> bytes:
    """The reply of a blocking command that timed out."""
    if name in WAITS:
        return resp.integer(0) if name == "WAIT" else resp.array([resp.integer(0), resp.integer(0)])
    return resp.null_array(protocol)
