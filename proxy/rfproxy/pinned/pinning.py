"""Sessions that stand apart: everything they say travels on one connection of their own, `session.own`.

    for a moment       a blocking command (`session.busy`), or a run that needs a lane where nobody waits behind it
    until it is over   what `session.ties` names: a transaction, subscriptions, client tracking

The server keeps their replies and messages in order, as on a plain connection. When the connection dies, a blocking
command is asked again for the time that remains, and the ties are restored on the next connection, as soon as there is
a master: settings, then subscriptions, then MULTI with what was queued. Watched keys cannot be restored:
their transaction is broken (EXEC will answer nil).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Route, lookup
from rfproxy.core.ports import UpstreamConnection
from rfproxy.core.work_items import Form, Need, Run, Verb
from rfproxy.pinned import tracking_redirect
from rfproxy.pinned.pin_state import Ties, bring_back
from rfproxy.semantics import tracking
from rfproxy.semantics.blocking import WAITS, nothing, remaining
from rfproxy.semantics.client_syntax import parse_tracking
from rfproxy.upstream.replication_barrier import replication_barrier

if TYPE_CHECKING:
    from rfproxy.session.session import Session
    from rfproxy.upstream.connection import Lane


# --- the connection


def attached(session: Session, now: float) -> bool:
    """Whether the connection that the session's ties need is there; opens and restores it when it can."""
    ties = session.ties
    if ties is None or not ties.needs_lane:
        return ties is None or not ties.adrift
    if session.own is not None and not session.own.writes:  # reads that travelled alone
        if session.outstanding:
            return False
        session.router.give_back(session.own, now)
        session.own = None
    if session.own is None:
        lane = None if session.outstanding else session.router.exclusive(session, now)
        if lane is None:
            return False
        session.own = lane
        ties.restored = False
        if ties.listening:
            lane.listen()
        introduce(session, lane)
    if not ties.restored:
        ties.restored = _restored(session, ties, session.own, now)
    return ties.restored and not ties.adrift and tracking_redirect.followed(session, ties, session.own, now)


def _restored(session: Session, ties: Ties, lane: Lane, now: float) -> bool:
    """Restore everything on a new connection; False when it cannot be done yet."""
    if ties.target is not None and tracking_redirect.reached(session, ties.target, now) is None:
        return False
    transaction = ties.transaction
    queueing = transaction is not None and transaction.needs_lane and transaction.queueing
    if queueing and session.router.scripts.loading(session.home):
        return False
    tracking_redirect.restore(session, ties, lane)
    for command in ties.stream.requests() if ties.stream else []:
        bring_back(session, lane, [command], max(1, len(command) - 1))
    if transaction is not None and queueing:
        commands = [session.wire(args) for args in transaction.queued]
        load_scripts(session, lane)
        bring_back(session, lane, [[b"MULTI"], *commands], 1 + len(commands))
    return True


def introduce(session: Session, lane: Lane) -> None:
    """Let the server know the client's name, for its SLOWLOG and CLIENT LIST, before what the client says there.

    Only a name that the server has accepted from this user is said. A durable lane keeps its own: what it sends is cut
    into batches by what is in them.
    """
    if lane.named != session.name and session.router.policy.durable is None:
        lane.named = session.name
        bring_back(session, lane, [[b"CLIENT", b"SETNAME", session.name]], 1)


def load_scripts(session: Session, lane: Lane) -> None:
    """Before MULTI: SCRIPT LOAD behind it would be part of the transaction. Others wait until all are there."""
    _load(session, lane, session.router.scripts.load_all(session.home, lane))


def provide_scripts(session: Session, run: Run, lane: Lane) -> None:
    """Send the scripts ahead that `run` calls by their names and this master does not know yet."""
    scripts = session.router.scripts
    _load(session, lane, scripts.needed(run.commands, session.home))
    run.flushes = scripts.flushes


def _load(session: Session, lane: Lane, bodies: list[bytes]) -> None:
    for body in bodies:
        bring_back(session, lane, [[b"SCRIPT", b"LOAD", body]], 1).home = session.home


def restored(session: Session, run: Run, reply: bytes, now: float) -> None:
    """A reply to what only restored the connection."""
    if run.home and session.lane is not None and session.router.scripts.answered(run.home, session.lane):
        session.router.wake_at(now)  # others wait for that
    if session.router.refused(reply, now):
        drift(session, now)
        return
    if run.home and not reply.startswith(b"-BUSY"):
        session.router.scripts.loaded(run.commands[0][2], run.home)
    if not reply.startswith(b"-") or run.home or run.commands[0][:1] == [b"MULTI"] or run.commands[0][:2] == _SETNAME:
        return
    if tracking_redirect.is_outdated(session, run.commands[0], reply):
        return
    # As Redis does with the connections of a user who may not do any more what they were opened for.
    session.complain(run.commands[0][0].decode(), f"closed: {reply[1:].decode(errors='replace').strip()}")
    session.client.close()
    session.close(now)


def drift(session: Session, now: float) -> None:
    """The server behind the own lane refuses what only a master does."""
    if session.ties is not None and session.own is not None and not session.ties.adrift:
        session.ties.adrift = True
        session.router.rest(session.own, now)


def tie(session: Session, now: float) -> Ties | None:
    """The session's ties, with a connection to hold them, or None when there is none at the moment."""
    if session.own is None:
        lane = session.router.exclusive(session, now)
        if lane is None:
            return None
        session.own = lane
    if session.ties is None:
        session.ties = Ties()
    return session.ties if session.own.usable and session.router.open(now) else None


def lane_lost(session: Session, lane: UpstreamConnection, now: float) -> None:
    """The own connection is closed, and the commands on it have been decided upon."""
    if lane is not session.own:
        return
    session.own = None
    ties = session.ties
    if ties is None:
        return
    ties.adrift = False
    if ties.transaction is not None:
        ties.transaction.lost()
    if ties.stream is not None:
        ties.stream.asked = 0
    tracking_redirect.forget_all(session, ties)
    loosen(session, now)
    if session.ties is not None and (denial := lane.denial) is not None:
        session.complain("?", f"closed: {denial}")
        session.client.close()
        session.close(now)


def settled(session: Session, now: float) -> None:
    """Nothing is outstanding: whoever stood apart for something that is over goes back to the shared lanes."""
    session.busy = None
    if session.own is not None and (session.adrift or session.router.lingers(session.own)):
        session.router.discard(session.own, now)
        return
    loosen(session, now)
    if session.own is not None and (session.ties is None or not session.ties.needs_lane):
        lane, session.own = session.own, None
        session.router.give_back(lane, now)
    elif session.ties is not None:
        tracking_redirect.call_back(session.ties, now)


def loosen(session: Session, now: float) -> None:
    """Drop the ties when nothing is left of them."""
    if session.ties is not None and session.ties.loosen():
        tracking_redirect.leave(session, session.ties, now)
        session.ties = None


def stand_down(session: Session, now: float) -> None:
    """Give up everything the session stood apart for."""
    ties, session.ties, session.busy = session.ties, None, None
    if ties is not None:
        tracking_redirect.leave(session, ties, now)
    lane, session.own = session.own, None
    if lane is not None:
        lane.guest = None
        session.router.discard(lane, now)
    if ties is None or not ties.callers:
        return
    if session.router.sessions.get(session.number) is session:
        session.ties = Ties()
        session.ties.callers = ties.callers
    else:
        tracking_redirect.forsake(session, ties)
    tracking_redirect.call_back(ties, now)


_SETNAME = [b"CLIENT", b"SETNAME"]


# --- blocking commands


def block(session: Session, verb: Verb, now: float) -> bool:
    """A command that may take as long as it likes."""
    if session.finished:
        return nobody_listens(session, now)
    name = verb.command.name
    since = now if verb.blocked_since is None else verb.blocked_since
    args = remaining(name, verb.args, now - since)
    if args is None:
        session.client.write(nothing(name, session.identity.protocol))
        return True
    lane = session.choose(Need.OWN, now, ends=False)
    if lane is None:
        return False
    introduce(session, lane)
    session.busy = replace(verb, blocked_since=since)
    raw = resp.encode_command(args)
    if name in WAITS:
        barrier = replication_barrier(session.router.version_of(lane))
        return session.send(Run(session, [verb.args], barrier + raw, Need.OWN, Form.LAST, 2), lane)
    run = Run(session, [verb.args], raw, Need.OWN)
    run.attempts = verb.attempts
    return session.send(run, lane)


def blocks(verb: Verb) -> bool:
    """Whether a verb is a blocking command that nothing has come for, rather than one that waits for consent."""
    return verb.command.route is Route.BLOCKING and not verb.served


def nobody_listens(session: Session, now: float) -> bool:
    """True; the client has closed its side: what waits for others would wait for ever, and take what is not its."""
    session.client.close()
    session.close(now)
    return True


# --- settings of the connection


def setting(session: Session, verb: Verb, now: float) -> bool:
    """CLIENT TRACKING and NO-TOUCH: the server keeps them, and what they do, on the session's own connection."""
    ties = tie(session, now)
    if ties is None or session.own is None or not session.own.listen():
        return False
    args = verb.args
    if number := tracking.redirects_to(args):
        problem = parse_tracking(args)
        target = tracking_redirect.find(session, number)
        if target is not None and isinstance(problem, str):
            session.client.write(resp.error(problem))
            return True
        place = tracking.NOBODY if target is None else tracking_redirect.reached(session, target, now)
        if place is None:
            return False
        args = tracking.redirected(args, place)
        ties.told_of = tracking_redirect.connection(target) if target is not None else ties.told_of
    session.own.spoilt = True
    session.busy = verb
    run = Run(session, [verb.args], resp.encode_command(args), Need.MASTER, Form.CONSENT)
    return session.send(run, session.own)


def set_or_unset(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    """The server has taken a setting."""
    ties, name = session.ties, lookup(args).name
    if ties is None:
        return reply
    if name == tracking_redirect.TRACKING:
        number = tracking.redirects_to(args) if args[2].upper() == b"ON" else 0
        target = tracking_redirect.find(session, number) if number else None
        tracking_redirect.leave(session, ties, now, but=target)
    if args[2].upper() != b"ON":
        ties.settings.pop(name, None)
    elif name == tracking_redirect.TRACKING:
        ties.settings[name] = tracking.in_force(ties.settings.get(name, []), args)
    else:
        ties.settings[name] = [args]
    return reply


# --- what only an administrator may do


def tunnel(session: Session, verb: Verb, now: float) -> bool:
    """SYNC and what belongs to it: from now on the client talks to the master itself."""
    lane = session.choose(Need.OWN, now, ends=False)
    if lane is None:
        return False
    lane.tunnel()
    session.tunnel = lane
    behind = [entry.raw for entry in session.pending if isinstance(entry, Run | Verb)]
    session.pending.clear()
    inbox, session.inbox = session.inbox, None
    for raw in (verb.raw, *behind, session.reader.held, inbox.rest() if inbox is not None else b""):
        pass_through(session, lane, raw)
    return True


def pass_through(session: Session, lane: Lane, data: bytes) -> None:
    """Bytes of a client that talks to the master itself."""
    session.send(Run(session, [], data, Need.OWN, Form.RESTORE, 0), lane)
