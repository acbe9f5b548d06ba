"""Whether a client that has not authenticated may act as the proxy's own user (`--client-auth`).

    proxy-user   it may: the proxy's password is that of its clients, which need none
    required     it may not: until AUTH or HELLO with AUTH has succeeded, everything that needs a user is answered
                 -NOAUTH here, as by a server with a password, and nothing is sent to a server on its behalf

What is let through says who the client is, or ends the connection: AUTH, HELLO, RESET and QUIT, which Redis' command
table marks `no_auth`. Whether name and password are right is decided by a server.

A client that has authenticated is never looked at again: RequestReader reads what is said before that on a path of its
own, since other limits hold for it, and `screen` is called there.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable
from typing import Final

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import arity_error, existence_error, lookup
from rfproxy.core.identity import Account, Identity
from rfproxy.core.policy import ClientAuth, Policy
from rfproxy.core.work_items import Entry, Ready, Run, Verb
from rfproxy.semantics.hello_command import parse_hello

NOAUTH = "NOAUTH Authentication required."
"""shared.noautherr in server.c."""
_HELLO_FIRST = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)
"""helloCommand in networking.c."""
_LET_THROUGH: Final = frozenset(["AUTH", "HELLO", "RESET", "QUIT", "POST"])
"""POST stands for HTTP, on which the connection is closed."""


def default_of(account: Account | None, hosts: Iterable[str]) -> ClientAuth:
    """What holds when operators do not say: a password that other hosts could use without knowing it is not lent."""
    exposed = account is not None and any(beyond_loopback(host) for host in hosts)
    return ClientAuth.REQUIRED if exposed else ClientAuth.PROXY_USER


def beyond_loopback(host: str) -> bool:
    """Whether clients on other hosts may reach a listener at this address."""
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return True  # a name, which may stand for any address


def newcomer(policy: Policy) -> Identity:
    """Who a client is that has said nothing yet, or RESET."""
    return Identity(account=None if policy.client_auth is ClientAuth.REQUIRED else policy.account)


def outside(identity: Identity, policy: Policy) -> bool:
    """Whether this client has to authenticate before anything is done for it."""
    return identity.account is None and policy.client_auth is ClientAuth.REQUIRED


def screen(pending: deque[Entry], version: str) -> None:
    """Answer what a client may not ask before it has authenticated, in its place in its queue.

    What is behind a command that may authenticate it is left until that is answered. `version` is the server's.
    """
    screened: deque[Entry] = deque()
    while pending:
        entry = pending.popleft()
        screened.extend(_screened(entry, version))
        if isinstance(entry, Verb) and entry.command.name in ("AUTH", "HELLO") and screened[-1] is entry:
            break
    pending.extendleft(reversed(screened))


def _screened(entry: Entry, version: str) -> list[Entry]:
    if isinstance(entry, Run):
        return [Ready(b"".join(resp.error(_refusal(args, version)) for args in entry.commands))]
    if not isinstance(entry, Verb):
        return [entry]
    if entry.command.name not in _LET_THROUGH:
        return [Ready(resp.error(_refusal(entry.args, version)))]
    if entry.command.name == "HELLO" and not _authenticates(entry.args):
        return [Ready(resp.error(_HELLO_FIRST))]
    return [entry]


def _refusal(args: list[bytes], version: str) -> str:
    """Redis looks at a command before it looks at the client (processCommand in server.c)."""
    return existence_error(args, version) or arity_error(lookup(args), args, version) or NOAUTH


def _authenticates(args: list[bytes]) -> bool:
    """Whether HELLO asks to be authenticated, or is wrong in a way that is told without a server."""
    hello = parse_hello(args)
    return isinstance(hello, str) or hello.account is not None
