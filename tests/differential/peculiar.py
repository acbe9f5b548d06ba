"""What single releases of the servers do wrong themselves: it is looked for, and left out of what is compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rfprotocol.topology.topology import Node
from tests.differential.case import Burst, Case
from tests.support.rawclient import RawClient


@dataclass(frozen=True, slots=True)
class Peculiarity:
    """Shown by a server that does not answer `heard` when this is `said`, and then QUIT."""

    what: str
    said: bytes
    heard: bytes
    commands: re.Pattern[bytes]
    """Those that are left out then."""

    def shown_by(self, node: Node) -> bool:
        """Ask the server."""
        with RawClient(node) as client:
            client.say(self.said + b"QUIT\r\n")
            return client.hear_all() != self.heard


PECULIARITIES = (
    Peculiarity(
        "a refused AUTH has no answer behind other replies (Redis and Valkey since 7.2, not Valkey 9)",
        b"PING\r\nAUTH nobody x\r\n",
        b"+PONG\r\n-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n",
        re.compile(rb"(?is).*\bauth\b.*\b(nobody|wrong)\b"),
    ),
    Peculiarity(
        "a blank line turns the request behind it into lines (Valkey 8)",
        b"  \r\n*1\r\n$4\r\nPING\r\n",
        b"+PONG\r\n+OK\r\n",
        re.compile(rb"\s+\Z"),
    ),
    Peculiarity(
        "words may go on behind a quotation mark (Valkey 9)",
        b'ECHO "a"b\r\n',
        b"-ERR Protocol error: unbalanced quotes in request\r\n",
        re.compile(rb'GET "a"b'),
    ),
)


def fit(node: Node) -> Callable[[Case], Case]:
    """What makes of a case one that can be played with this server."""
    found = [each.commands for each in PECULIARITIES if each.shown_by(node)]
    return lambda case: without(case, found)


def without(case: Case, commands: Sequence[re.Pattern[bytes]]) -> Case:
    """The case without these commands; where some have gone, nothing is cut into packets."""
    rounds = (tuple(_thinned(burst, commands) for burst in turn) for turn in case.rounds)
    return Case(tuple(turn for each in rounds if (turn := tuple(burst for burst in each if burst.commands))))


def _thinned(burst: Burst, commands: Sequence[re.Pattern[bytes]]) -> Burst:
    kept = tuple(each for each in burst.commands if not any(pattern.match(each.raw) for pattern in commands))
    return burst if kept == burst.commands else replace(burst, commands=kept, cuts=())
