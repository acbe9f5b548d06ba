"""HELLO, read once: what is asked of the server, what the server is sent, and what it does to the session.

    HELLO [protover [AUTH username password] [SETNAME clientname]]

As `helloCommand` in Redis' networking.c reads it: options in any order, the last one of a kind counts, and what follows
AUTH is never an option, whatever it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rfproxy.core.identity import Account, Identity
from rfproxy.semantics.client_syntax import good_name

INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
"""As string2ll in Redis' util.c reads it: no sign, blank or zero too many."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What HELLO asks for; None is for what it leaves as it is."""

    protocol: int | None = None  # of RESP: 2 or 3
    account: Account | None = None
    name: bytes | None = None  # of the client; empty takes its name away

    def identity(self, former: Identity) -> Identity:
        """What a session is to a server afterwards."""
        return replace(former, protocol=self.protocol or former.protocol, account=self.account or former.account)

    def words(self) -> list[bytes]:
        """The command as a server gets it: without the name, as its connection is not the client's."""
        words = [b"HELLO"] if self.protocol is None else [b"HELLO", b"%d" % self.protocol]
        return [*words, b"AUTH", self.account.username, self.account.password] if self.account is not None else words


def parse_hello(args: Sequence[bytes]) -> Hello | str:
    """What these arguments, HELLO the first of them, ask for; or Redis' error, without the dash."""
    hello = Hello()
    if len(args) < 2:
        return hello
    if not INTEGER.fullmatch(args[1]):
        return "ERR Protocol version is not an integer or out of range"
    if args[1] not in (b"2", b"3"):
        return "NOPROTO unsupported protocol version"
    hello = Hello(protocol=int(args[1]))
    place = 2
    while place < len(args):
        option = args[place].partition(b"\0")[0]  # compared as a C string
        behind = args[place + 1 : place + 3]  # no more: there may be a million options
        if option.upper() == b"AUTH" and len(behind) > 1:
            hello = replace(hello, account=Account(behind[0], behind[1]))
            place += 3
        elif option.upper() == b"SETNAME" and behind:
            if not good_name(behind[0]):
                return "ERR Client names cannot contain spaces, newlines or special characters."
            hello = replace(hello, name=behind[0])
            place += 2
        else:
            return f"ERR Syntax error in HELLO option '{option.decode('ascii', 'surrogateescape')}'"
    return hello
