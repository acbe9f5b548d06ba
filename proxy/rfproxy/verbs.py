"""The commands that a session handles itself, in the words of Redis.

A verb is handled alone, when everything before it is answered. Handlers return whether it is dealt with; False
leaves it at the head of the queue until something changes. Verbs that need a connection of the session's own
are in `apart`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rfprotocol import resp
from rfprotocol.commands import Route, arity_error, lookup
from rfproxy import apart
from rfproxy.entries import Form, Need, Run, Verb
from rfproxy.greeting import Account, Identity
from rfproxy.transaction import EXECABORT, Transaction

if TYPE_CHECKING:
    from rfproxy.session import Session

OK = resp.simple("OK")

Handler = Callable[["Session", Verb, float], bool]


def handle(session: Session, verb: Verb, now: float) -> bool:
    """Deal with a verb of a session that stands on shared lanes."""
    name = verb.command.name
    problem = arity_error(verb.command, verb.args)
    if session.transaction is not None and (name not in _EVEN_IN_MULTI or problem):
        return _answer(session, _queued(session, session.transaction, verb, problem))
    if problem:
        return _answer(session, resp.error(problem))
    if verb.command.route is Route.BLOCKING:
        return apart.block(session, verb, now)
    return _HANDLERS.get(name, _refuse)(session, verb, now)


def _refuse(session: Session, verb: Verb, now: float) -> bool:
    text = verb.command.refusal or f"ERR {verb.command.name.replace('|', ' ')} is not supported by rfproxy"
    if "rfproxy" in text:  # what Redis would say itself is not worth a line
        session.complain(verb.command.name, text)
    return _answer(session, resp.error(text))


def _post(session: Session, verb: Verb, now: float) -> bool:
    """Redis hangs up on what looks like HTTP: a browser may be made to send commands to it."""
    session.complain("POST", "this is HTTP: the connection was closed, as Redis does")
    session.client.close()
    session.close(now)
    return True


def _queued(session: Session, transaction: Transaction, verb: Verb, problem: str | None) -> bytes:
    if problem and verb.command.name == "EXEC":  # ends the transaction nevertheless (execCommandAbort)
        session.transaction = None
        return resp.error(f"EXECABORT Transaction discarded because of: {problem.removeprefix('ERR ')}")
    return transaction.add(verb.args, verb.command)


def ends_all(entry: Run | Verb) -> bool:
    """QUIT and RESET are understood in whatever state a session is."""
    return isinstance(entry, Verb) and entry.command.name in ("QUIT", "RESET", "POST")


def queue(session: Session, run: Run, transaction: Transaction) -> bool:
    """Commands behind MULTI."""
    for args in run.commands:
        session.client.write(transaction.add(args, lookup(args)))
    return True


def accepted(session: Session, verb: Verb) -> None:
    """The server takes the session as what it asked to be: AUTH, HELLO, SELECT succeed."""
    wanted = _wanted(session, verb)
    if isinstance(wanted, Identity):
        session.identity = wanted
    if verb.command.name == "HELLO":
        name = _setname(verb.args)
        session.name = session.name if name is None else name
        session.client.write(_hello(session))
    else:
        session.client.write(OK)


def _answer(session: Session, reply: bytes) -> bool:
    session.client.write(reply)
    return True


# --- who the session is


def _identify(session: Session, verb: Verb, now: float) -> bool:
    """AUTH, HELLO, SELECT: the server decides, by whether it greets a lane of that identity."""
    wanted = _wanted(session, verb)
    if isinstance(wanted, str):
        return _answer(session, resp.error(wanted))
    if session.stream is not None and wanted.protocol != session.identity.protocol:
        text = "ERR HELLO with another protocol is not supported by rfproxy while subscribed"
        session.complain(verb.command.name, text)
        return _answer(session, resp.error(text))
    if wanted == session.identity and verb.command.name != "AUTH" and session.router.server_version:
        accepted(session, verb)
        return True
    lane = session.router.lane(session.number, wanted, Need.ANY, now)
    if lane is None:
        return False
    session.busy = verb
    return session.send(Run(session, [verb.args], _PING, Need.ANY, Form.TRIAL), lane, now)


_PING = resp.encode_command([b"PING"])


def _wanted(session: Session, verb: Verb) -> Identity | str:
    """The identity a verb asks for, or the error that it is answered with."""
    name, args = verb.command.name, verb.args
    if name == "SELECT":
        return _selected(session.identity, args[1])
    if name == "AUTH":
        if len(args) > 3:
            return "ERR syntax error"
        username = args[1] if len(args) == 3 else b""
        return replace(session.identity, account=Account(username, args[-1]))
    return _hello_wanted(session.identity, args)


_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
"""As string2ll in Redis' util.c reads it: no sign, blank or zero too many."""


def _selected(identity: Identity, text: bytes) -> Identity | str:
    if not _INTEGER.fullmatch(text) or not -(1 << 31) <= int(text) < 1 << 31:
        return "ERR value is not an integer or out of range"
    return replace(identity, db=int(text)) if int(text) >= 0 else "ERR DB index is out of range"


def _hello_wanted(identity: Identity, args: list[bytes]) -> Identity | str:
    if len(args) == 1:
        return identity
    if not _INTEGER.fullmatch(args[1]):
        return "ERR Protocol version is not an integer or out of range"
    if args[1] not in (b"2", b"3"):
        return "NOPROTO unsupported protocol version"
    wanted = replace(identity, protocol=int(args[1]))
    place = 2
    while place < len(args):
        option = args[place].upper()
        if option == b"AUTH" and place + 2 < len(args):
            wanted = replace(wanted, account=Account(args[place + 1], args[place + 2]))
            place += 3
        elif option == b"SETNAME" and place + 1 < len(args):
            if not _good_name(args[place + 1]):
                return _BAD_NAME
            place += 2
        else:
            return f"ERR Syntax error in HELLO option '{args[place].decode(errors='replace')}'"
    return wanted


def _setname(args: list[bytes]) -> bytes | None:
    for place in range(2, len(args) - 1):
        if args[place].upper() == b"SETNAME":
            return args[place + 1]
    return None


def _hello(session: Session) -> bytes:
    fields: list[tuple[bytes, bytes]] = [
        (resp.bulk(b"server"), resp.bulk(b"redis")),
        (resp.bulk(b"version"), resp.bulk(session.router.server_version.encode())),
        (resp.bulk(b"proto"), resp.integer(session.identity.protocol)),
        (resp.bulk(b"id"), resp.integer(session.number)),
        (resp.bulk(b"mode"), resp.bulk(b"standalone")),
        (resp.bulk(b"role"), resp.bulk(b"master")),
        (resp.bulk(b"modules"), resp.array([])),
    ]
    return resp.map(fields, session.identity.protocol)


# --- CLIENT, as Redis would answer for its own connections

_BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters."


def _good_name(name: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in name)


def _client_setname(session: Session, verb: Verb, now: float) -> bool:
    if not _good_name(verb.args[2]):
        return _answer(session, resp.error(_BAD_NAME))
    session.name = verb.args[2]
    return _answer(session, OK)


def _client_getname(session: Session, verb: Verb, now: float) -> bool:
    return _answer(session, resp.bulk(session.name) if session.name else resp.null(session.identity.protocol))


def _client_id(session: Session, verb: Verb, now: float) -> bool:
    return _answer(session, resp.integer(session.number))


def _ok(session: Session, verb: Verb, now: float) -> bool:
    return _answer(session, OK)


# --- transactions


def _multi(session: Session, verb: Verb, now: float) -> bool:
    if session.transaction is not None:
        return _answer(session, resp.error("ERR MULTI calls can not be nested"))
    session.transaction = Transaction()
    return _answer(session, OK)


def _exec(session: Session, verb: Verb, now: float) -> bool:
    transaction = session.transaction
    if transaction is None:
        return _answer(session, resp.error("ERR EXEC without MULTI"))
    block = transaction.block()
    if block is None:
        session.transaction = None
        return _answer(session, resp.error(EXECABORT))
    lane = session.router.lane(session.number, session.identity, Need.MASTER, now)
    if lane is None:
        return False
    session.transaction = None
    replies = len(transaction.commands) + 2
    return session.send(Run(session, [verb.args], block, Need.MASTER, Form.BLOCK, replies), lane, now)


def _discard(session: Session, verb: Verb, now: float) -> bool:
    if session.transaction is None:
        return _answer(session, resp.error("ERR DISCARD without MULTI"))
    session.transaction = None
    return _answer(session, OK)


def _watch(session: Session, verb: Verb, now: float) -> bool:
    if session.transaction is not None:
        return _answer(session, resp.error("ERR WATCH inside MULTI is not allowed"))
    return apart.watch(session, verb, now)


# --- the end


def _quit(session: Session, verb: Verb, now: float) -> bool:
    session.client.write(OK)
    session.client.close()
    session.close(now)
    return True


def _reset(session: Session, verb: Verb, now: float) -> bool:
    session.transaction = None
    session.identity = Identity(account=session.router.policy.account)
    session.name = b""
    apart.stand_down(session, now)
    return _answer(session, resp.simple("RESET"))


_EVEN_IN_MULTI = frozenset(["MULTI", "EXEC", "DISCARD", "WATCH", "QUIT", "RESET", "POST"])
STREAMING = frozenset(
    ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR"]
)
"""What travels on the connection of a stream."""

_HANDLERS: dict[str, Handler] = {
    "AUTH": _identify,
    "HELLO": _identify,
    "SELECT": _identify,
    "CLIENT|SETNAME": _client_setname,
    "CLIENT|GETNAME": _client_getname,
    "CLIENT|ID": _client_id,
    "CLIENT|SETINFO": _ok,
    "CLIENT|NO-EVICT": _ok,
    "CLIENT|NO-TOUCH": _ok,
    "MULTI": _multi,
    "EXEC": _exec,
    "DISCARD": _discard,
    "WATCH": _watch,
    "UNWATCH": _ok,
    "POST": _post,
    "QUIT": _quit,
    "RESET": _reset,
    **dict.fromkeys(STREAMING, apart.stream),
}
