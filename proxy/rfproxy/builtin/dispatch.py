"""The commands that a session handles itself, alone, when everything before them is answered.

What is about the client's connection is the proxy's to answer, but not before the server was asked whether this user
may do it: it is sent a question that does no harm there, its error is relayed, and anything else is the consent
to the effect that is listed here.

Handlers return whether a verb is dealt with; False leaves it at the head of the queue until something changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Command, Route, arity_error, existence_error
from rfproxy.builtin import client_command, reply_mode, worker_queries
from rfproxy.builtin.reply_mode import Replies
from rfproxy.core.identity import Account, Identity
from rfproxy.core.work_items import Form, Need, Run, Verb
from rfproxy.pinned import pinning, pubsub
from rfproxy.semantics import client_auth
from rfproxy.semantics.client_auth import NOAUTH
from rfproxy.semantics.hello_command import INTEGER, Hello, parse_hello
from rfproxy.upstream.connection import Lane

if TYPE_CHECKING:
    from rfproxy.session.session import Session

OK = resp.simple("OK")

Handler = Callable[["Session", Verb, float], bool]
Effect = Callable[["Session", list[bytes], bytes, float], bytes]
"""Does what the verb with these arguments asks for, now that the server has given that reply; returns the client's."""


def handle(session: Session, verb: Verb, now: float) -> bool:
    """Deal with a verb outside of MULTI."""
    name = verb.command.name
    if name == "POST":
        return _post(session, verb, now)
    version = session.router.server_version
    if problem := existence_error(verb.args, version) or arity_error(verb.command, verb.args, version):
        session.client.write(resp.error(problem))
        return True
    if verb.command.route is Route.BLOCKING:
        return pinning.block(session, verb, now)
    if handler := _HANDLERS.get(name):
        return handler(session, verb, now)
    return _ask(session, verb, now) if name in _EFFECTS else _refuse(session, verb, now)


def ends_all(entry: Run | Verb) -> bool:
    """QUIT and RESET are understood in whatever state a session is."""
    return isinstance(entry, Verb) and entry.command.name in ("QUIT", "RESET", "POST")


def granted(session: Session, verb: Verb, reply: bytes, now: float) -> None:
    """The server has nothing against a verb: it takes effect."""
    session.latest = verb.command
    if not worker_queries.granted(session, verb, reply, now):
        session.client.write(_EFFECTS[verb.command.name](session, verb.args, reply, now))


def known_at_exec(command: Command) -> bool:
    """Whether a verb may be queued behind MULTI and answered when EXEC is."""
    return command.route is Route.SESSION and command.name in _AT_EXEC


def done_at_exec(session: Session, verb: Verb, reply: bytes, now: float) -> bytes:
    """A verb behind MULTI was executed, in the form that `question` gives it; returns the client's reply."""
    if session.own is not None:
        session.own.spoilt = True
    session.latest = verb.command
    gathered = worker_queries.done_at_exec(session, verb, reply, now)
    return _EFFECTS[verb.command.name](session, verb.args, reply, now) if gathered is None else gathered


def question(session: Session, name: str, args: list[bytes]) -> list[bytes]:
    """What the server is asked in the place of a verb: the verb itself where that does no harm, or is an error."""
    ask = _QUESTIONS.get(name)
    return (ask(session, args) or args) if ask is not None else args


def _ask(session: Session, verb: Verb, now: float) -> bool:
    name = verb.command.name
    lane = session.choose(_NEEDS.get(name, Need.ANY), now)
    if name in client_command.KNOWN_HERE and (lane is None or _cannot_be_reached(session, lane)):
        return _answer_alone(session, verb, now)
    if lane is None:
        return False
    session.busy = verb
    asked = question(session, name, verb.args)
    if verb.place is not None:
        asked[2] = verb.place.number
    return session.send(Run(session, [verb.args], resp.encode_command(asked), Need.ANY, Form.CONSENT), lane)


def _cannot_be_reached(session: Session, lane: Lane) -> bool:
    return not lane.serving and bool(session.router.outage(lane.key.node))


def _answer_alone(session: Session, verb: Verb, now: float) -> bool:
    """No server can be asked for its consent, and none is needed for the answer: operators need it just then."""
    nobody = session.identity.account is None and session.router.policy.account is None
    if nobody and session.router.strangers:
        session.client.write(resp.error(NOAUTH))
    else:
        granted(session, verb, OK, now)
    return True


def _unblock(session: Session, verb: Verb, now: float) -> bool:
    """The client may be another worker's."""
    return _ask(session, verb, now) if worker_queries.located(session, verb) else True


def _forward(session: Session, verb: Verb, now: float) -> bool:
    """The server says what it thinks of it, which can only be an error, or nothing to do."""
    lane = session.choose(Need.MASTER, now)
    return lane is not None and session.send(Run(session, [verb.args], verb.raw, Need.MASTER), lane)


def _refuse(session: Session, verb: Verb, now: float) -> bool:
    text = verb.command.refusal or f"ERR {verb.command.name.replace('|', ' ')} is not supported by rfproxy"
    if "rfproxy" not in text:  # Redis says so itself
        session.client.write(resp.error(text))
        return True
    if session.router.policy.allow_admin:
        return _administer(session, verb, now)
    session.complain(verb.command.name, text)
    session.client.write(resp.error(text))
    return True


def _administer(session: Session, verb: Verb, now: float) -> bool:
    if verb.command.name in ("SYNC", "PSYNC", "REPLCONF"):
        return pinning.tunnel(session, verb, now)
    lane = session.choose(Need.OWN, now)
    if lane is None:
        return False
    lane.spoilt = True
    return session.send(Run(session, [verb.args], verb.raw, Need.OWN), lane)


def _post(session: Session, verb: Verb, now: float) -> bool:
    """Redis hangs up on what looks like HTTP: a browser may be made to send commands to it."""
    session.complain("POST", "this is HTTP: the connection was closed, as Redis does")
    session.client.close()
    session.close(now)
    return True


def _quit(session: Session, verb: Verb, now: float) -> bool:
    session.client.write(OK)
    session.client.close()
    session.close(now)
    return True


def _reset(session: Session, verb: Verb, now: float) -> bool:
    session.become(client_auth.newcomer(session.router.policy))
    session.screen()
    session.name = b""
    reply_mode.say(session, Replies.ON)
    pinning.stand_down(session, now)
    session.client.write(resp.simple("RESET"))
    return True


# --- who the session is


def _identify(session: Session, verb: Verb, now: float) -> bool:
    """AUTH, HELLO, SELECT: the server decides, by whether it greets a lane of that identity."""
    name = verb.command.name
    wanted = _wanted(session, name, verb.args)
    if isinstance(wanted, str):
        session.client.write(resp.error(wanted))
        return True
    raw = verb.raw
    if session.ties is not None and session.ties.needs_lane:
        lane = session.choose(Need.MASTER, now)
        if lane is not None:
            lane.spoilt = True
    else:
        # Said on the lane, too, although it was greeted like that: the password may have been changed since.
        hello = parse_hello(verb.args) if name == "HELLO" else ""
        if isinstance(hello, Hello):
            raw = resp.encode_command(hello.words())
        lane = _judge_of(session, name, wanted, now)
    if lane is None:
        return False
    session.busy = verb
    return session.send(Run(session, [verb.args], raw, Need.ANY, Form.CONSENT), lane)


def _judge_of(session: Session, name: str, wanted: Identity, now: float) -> Lane | None:
    """The lane on which a server decides. A user is the master's to know: ACL SETUSER does not reach replicas."""
    find, number = session.router.find, session.number
    authenticates = name == "AUTH" or wanted.account != session.identity.account
    master = find(number, wanted, Need.URGENT, now) if authenticates else None
    return master or find(number, wanted, Need.ANY, now)


def _wanted(session: Session, name: str, args: list[bytes]) -> Identity | str:
    """The identity a verb asks for, or the error that it is answered with."""
    if name == "SELECT":
        return _selected(session.identity, args[1])
    if name == "AUTH":
        if len(args) > 3:
            return "ERR syntax error"
        username = args[1] if len(args) == 3 else b""
        return replace(session.identity, account=Account(username, args[-1]))
    hello = parse_hello(args)
    return hello if isinstance(hello, str) else hello.identity(session.identity)


def _selected(identity: Identity, text: bytes) -> Identity | str:
    if not INTEGER.fullmatch(text) or not -(1 << 63) <= int(text) < 1 << 63:
        return "ERR value is not an integer or out of range"
    if not -(1 << 31) <= int(text) < 1 << 31:
        return "ERR value is out of range, value must between -2147483648 and 2147483647"
    return replace(identity, db=int(text)) if int(text) >= 0 else "ERR DB index is out of range"


def _selected_or_authenticated(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    _become(session, args)
    return OK


def _greeted(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    _become(session, args)
    hello = parse_hello(args)
    if isinstance(hello, Hello) and hello.name is not None:
        session.name = hello.name
    reply = _ID.sub(b"$2\r\nid\r\n:%d\r\n" % session.number, reply, count=1)
    return reply.replace(b"$4\r\nrole\r\n$7\r\nreplica\r\n", b"$4\r\nrole\r\n$6\r\nmaster\r\n", 1)


_ID = re.compile(rb"\$2\r\nid\r\n:[0-9]+\r\n")


def _become(session: Session, args: list[bytes]) -> None:
    wanted = _wanted(session, args[0].decode("ascii", "replace").upper(), args)
    if isinstance(wanted, Identity):
        session.become(wanted)


_IDENTITY = frozenset(["AUTH", "HELLO", "SELECT"])
_AT_EXEC = _IDENTITY | client_command.AT_EXEC

_EFFECTS: dict[str, Effect] = {
    "AUTH": _selected_or_authenticated,
    "SELECT": _selected_or_authenticated,
    "HELLO": _greeted,
    "CLIENT|TRACKING": pinning.set_or_unset,
    "CLIENT|NO-TOUCH": pinning.set_or_unset,
    **client_command.EFFECTS,
}
_QUESTIONS = client_command.QUESTIONS
_NEEDS = {"CLIENT|PAUSE": Need.MASTER, "CLIENT|UNBLOCK": Need.MASTER, "CLIENT|UNPAUSE": Need.OWN}

_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_IDENTITY, _identify),
    **dict.fromkeys(["CLIENT|TRACKING", "CLIENT|NO-TOUCH"], pinning.setting),
    **dict.fromkeys(["EXEC", "DISCARD", "UNWATCH"], _forward),
    **dict.fromkeys(["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"], pubsub.stream),
    **dict.fromkeys(["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"], pubsub.stream),
    "CLIENT|UNBLOCK": _unblock,
    "QUIT": _quit,
    "RESET": _reset,
}
STREAMING = frozenset(name for name, handler in _HANDLERS.items() if handler is pubsub.stream)
"""What is about subscriptions."""
