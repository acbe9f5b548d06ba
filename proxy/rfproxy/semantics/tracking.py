"""CLIENT TRACKING as the server is to hear it, and what it sends because of it.

Invalidations may go to another client (REDIRECT id). Clients know each other by the proxy's ids, the server knows them
by those of their connections: on the way to it, and back, one takes the place of the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rfprotocol.resp import resp
from rfproxy.semantics.client_syntax import Tracking, parse_tracking

NOBODY = b"9223372036854775807"
"""An id that no connection will ever have."""

_NUMBER = re.compile(rb"[1-9][0-9]{0,18}")
_BROKEN = re.compile(rb">2\r\n\$21\r\ntracking-redir-broken\r\n:[0-9]+\r\n")
_REDIRECT = re.compile(rb"(\$8\r\nredirect\r\n):[1-9][0-9]*\r\n")
_CHANNEL = resp.bulk(b"__redis__:invalidate")


def wanted(commands: Sequence[Sequence[bytes]]) -> Tracking | None:
    """What is in force after these commands, none of which the server has refused."""
    tracking = parse_tracking(commands[-1]) if commands else None
    return tracking if isinstance(tracking, Tracking) else None


def redirects_to(args: Sequence[bytes]) -> int:
    """The client that a command names first as the one to be told; 0 when that is for the server to judge."""
    place = _place(args)
    return int(args[place]) if place and _NUMBER.fullmatch(args[place]) else 0


def redirected(args: Sequence[bytes], number: bytes) -> list[bytes]:
    """The same command, with the server's own id of that client."""
    place = _place(args)
    return [*args[:place], number, *args[place + 1 :]] if place else list(args)


def in_force(former: Sequence[Sequence[bytes]], args: Sequence[bytes]) -> list[list[bytes]]:
    """The commands that lead to the same state as all before and this one: prefixes of broadcasts add up."""
    tracking = wanted([args])
    if tracking is None or "BCAST" not in tracking.options:
        return [list(args)]
    added = [command for command in former if any(arg.upper() == b"PREFIX" for arg in command)]
    return [*map(_without_redirection, added), list(args)]


def everything(tracker: int, listener: int, *, subscribed: bool) -> bytes:
    """What says that any key may have changed, as after FLUSHALL; empty when it cannot be said (tracking.c).

    `tracker` and `listener` are the protocols of who tracks and who is told; `subscribed` if that is another one that
    has subscribed to something.
    """
    if listener == 3:
        return resp.push([resp.bulk(b"invalidate"), resp.null(tracker)])
    return resp.array([resp.bulk(b"message"), _CHANNEL, resp.null(tracker)]) if subscribed else b""


def broken(number: int) -> bytes:
    """What a client of RESP3 is told when the one that was to be told is gone."""
    return resp.push([resp.bulk(b"tracking-redir-broken"), resp.integer(number)])


def is_broken(frame: bytes) -> bool:
    """Whether the server says just that."""
    return _BROKEN.fullmatch(frame) is not None


def info(reply: bytes, number: int) -> bytes:
    """The reply to CLIENT TRACKINGINFO with the proxy's id of the client that is told."""
    return _REDIRECT.sub(rb"\g<1>:%d\r\n" % number, reply, count=1)


def _place(args: Sequence[bytes]) -> int:
    """Where the first client to be redirected to is named; 0 if none is. What precedes it are options or prefixes."""
    place = 3
    while place + 1 < len(args):
        option = args[place].partition(b"\0")[0].upper()  # compared as a C string
        if option == b"REDIRECT":
            return place + 1
        place += 2 if option == b"PREFIX" else 1
    return 0


def _without_redirection(args: Sequence[bytes]) -> list[bytes]:
    place = _place(args)
    return [*args[: place - 1], *args[place + 1 :]] if place else list(args)
