"""SUBSCRIBE and its kin, and MONITOR, on a session's own connection; and what a subscriber may still say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import arity_error, existence_error, lookup
from rfproxy.core.work_items import Form, Need, Run, Verb
from rfproxy.pinned import pinning
from rfproxy.semantics.subscriptions import Stream

if TYPE_CHECKING:
    from rfproxy.session.session import Session


def stream(session: Session, verb: Verb, now: float) -> bool:
    """SUBSCRIBE and its kin, and MONITOR."""
    if session.finished and not verb.command.name.endswith("UNSUBSCRIBE"):
        return pinning.nobody_listens(session, now)
    ties = pinning.tie(session, now)
    if ties is None or session.own is None:
        return False
    if ties.stream is None:
        ties.stream = Stream()
        session.own.listen()
        pinning.introduce(session, session.own)
    ties.stream.asked += 1
    return session.send(Run(session, [list(verb.args)], verb.raw, Need.MASTER, Form.STREAM, 1), session.own)


def confined(session: Session, entry: Run | Verb, now: float) -> bool:
    """A subscriber in RESP2 may do little else (processCommand in server.c)."""
    commands = entry.commands if isinstance(entry, Run) else [entry.args]
    args, *rest = commands
    command = lookup(args)
    if command.name == "PING":
        if session.own is None or not session.own.usable or not session.router.open(now):
            return False
        session.send(Run(session, [args], resp.encode_command(args), Need.MASTER), session.own)
    elif session.outstanding:
        return False
    else:
        session.client.write(resp.error(_out_of_context(args, session.router.server_version)))
    if rest:
        session.pending.extendleft(reversed([session.entry(one) for one in rest]))
    return True


def _out_of_context(args: list[bytes], version: str) -> str:
    command = lookup(args)
    code = "EXECABORT Transaction discarded because of:" if command.name == "EXEC" else "ERR"
    return (
        existence_error(args, version)
        or arity_error(command, args, version)
        or f"{code} Can't execute '{command.spelling}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
        "are allowed in this context"
    )
