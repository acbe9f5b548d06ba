"""Sessions that stand apart: with a connection of their own, for WATCH, for a blocking command, for a stream.

    watch    `session.watch` and `session.own`: every command goes to the own lane until EXEC, DISCARD, UNWATCH
    block    `session.busy` and `session.own`: nothing else goes anywhere until the reply is there
    stream   `session.stream` and `session.stream_lane`: in RESP2 every command goes there, in RESP3 it stands beside

When the own connection dies, a watch breaks (EXEC will answer nil), a blocking command is asked again for the time
that remains, and a stream is subscribed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol import resp
from rfprotocol.commands import Route, lookup
from rfproxy.entries import Form, Need, Ready, Run, Verb
from rfproxy.exclusive import Stream, Watch, WatchState, remaining

if TYPE_CHECKING:
    from rfproxy.lane import Lane
    from rfproxy.session import Session

OK = resp.simple("OK")
QUEUED = resp.simple("QUEUED")

# --- WATCH

_WATCH_VERBS = frozenset(["WATCH", "UNWATCH", "MULTI", "EXEC", "DISCARD"])


def watch(session: Session, verb: Verb, now: float) -> bool:
    """WATCH outside of everything: from now on the session stands apart."""
    lane = session.router.exclusive(session, now)
    if lane is None:
        return False
    session.own = lane
    session.watch = Watch()
    return session.send(Run(session, [verb.args], verb.raw, Need.MASTER), lane, now)


def watched(session: Session, entry: Run | Verb, state: Watch, now: float) -> bool:
    """Any command while keys are watched."""
    if state.state is WatchState.OVER:
        return False  # until the last replies are in; then the session stands down
    if state.broken:
        return _broken(session, entry, state, now)
    if isinstance(entry, Verb) and entry.command.name not in _WATCH_VERBS:
        if session.outstanding:
            return False
        name = entry.command.name.replace("|", " ")
        text = f"ERR {name} between WATCH and EXEC is not supported by rfproxy: send it before WATCH"
        session.complain(name, text)
        session.client.write(resp.error(text))
        return True
    if session.own is None or not session.own.usable or not session.router.open(now):
        return False
    run = entry if isinstance(entry, Run) else Run(session, [entry.args], entry.raw, Need.MASTER)
    for args in run.commands:
        state.sent(lookup(args).name)
    return session.send(run, session.own, now)


def _broken(session: Session, entry: Run | Verb, state: Watch, now: float) -> bool:
    """The connection that watched is gone: pretend until EXEC, which says that a key was touched."""
    queueing = state.state is WatchState.BROKEN_QUEUEING
    if isinstance(entry, Run) and not queueing:
        lane = session.choose(entry.need, now)
        return lane is not None and session.send(entry, lane, now)
    if session.outstanding:
        return False
    commands = entry.commands if isinstance(entry, Run) else [entry.args]
    for args in commands:
        session.client.write(_pretended(session, lookup(args).name, queueing=queueing))
        state.sent(lookup(args).name)
    if state.state is WatchState.OVER:
        session.watch = None
    return True


def _pretended(session: Session, name: str, *, queueing: bool) -> bytes:
    if name == "EXEC" and queueing:
        return resp.null_array(session.identity.protocol)
    if name in _WATCH_VERBS:
        return OK
    return QUEUED if queueing else resp.error(f"ERR {name} between WATCH and EXEC is not supported by rfproxy")


def watch_returned(session: Session, run: Run, state: Watch, lane: Lane, *, sent: bool) -> None:
    """The watching connection died with these commands unanswered: answer them as far as that can be known."""
    for args in run.unanswered():
        name = lookup(args).name
        queued = state.heard(name)
        if name == "EXEC" and queued and sent:
            session.recover(session.uncertain(args, lane))
        elif name in _WATCH_VERBS or queued:
            session.recover(Ready(_pretended(session, name, queueing=queued)))
        elif sent:
            session.recover(session.decide(args, run.need, lane))
        else:
            session.recover(session.again(args, run.need))


# --- blocking commands


def block(session: Session, verb: Verb, now: float) -> bool:
    """A command that may take as long as it likes."""
    name = verb.command.name
    since = now if verb.blocked_since is None else verb.blocked_since
    args = remaining(name, verb.args, now - since)
    if args is None:
        session.client.write(_nothing(name, session.identity.protocol))
        return True
    lane = session.router.exclusive(session, now)
    if lane is None:
        return False
    session.own = lane
    session.busy = Verb(verb.args, verb.command, verb.raw, since)
    raw = resp.encode_command(args)
    if name in ("WAIT", "WAITAOF"):
        # A server waits for the offset at the end of the connection's last command, so one has to come first.
        return session.send(Run(session, [verb.args], _PING + raw, Need.MASTER, Form.BLOCK, 2), lane, now)
    return session.send(Run(session, [verb.args], raw, Need.MASTER), lane, now)


_PING = resp.encode_command([b"PING"])


def _nothing(name: str, protocol: int) -> bytes:
    """The reply of a blocking command that timed out."""
    if name in ("WAIT", "WAITAOF"):
        return resp.integer(0) if name == "WAIT" else resp.array([resp.integer(0), resp.integer(0)])
    if name in ("BRPOPLPUSH", "BLMOVE"):
        return resp.null(protocol)
    return resp.null_array(protocol)


# --- subscriptions and MONITOR


def stream(session: Session, verb: Verb, now: float) -> bool:
    """SUBSCRIBE and its kin, and MONITOR, from a session that may or may not have a stream already."""
    if session.stream is None:
        if verb.command.name.endswith("UNSUBSCRIBE"):
            session.client.write(_nothing_subscribed(session, verb))
            return True
        session.stream = Stream(monitor=verb.command.name == "MONITOR")
    return streamed(session, verb, session.stream, now)


def streamed(session: Session, entry: Run | Verb, state: Stream, now: float) -> bool:
    """A command of a session that is streamed to: it goes where the stream comes from."""
    if not session.router.open(now):
        return False
    if session.stream_lane is None and not resume_stream(session, state, now):
        return False
    lane = session.stream_lane
    if lane is None or not lane.usable:
        return False
    commands = entry.commands if isinstance(entry, Run) else [entry.args]
    for args in commands:
        state.asked(args)
    session.send_muted(commands, lane, now)
    return True


def resume_stream(session: Session, state: Stream, now: float) -> bool:
    """Subscribe again on a new connection, when there is a master."""
    lane = session.router.exclusive(session, now)
    if lane is None:
        return False
    lane.streaming = session.identity.protocol == 2
    session.stream_lane = lane
    for args in state.requests():
        session.send_muted([args], lane, now)
    return True


def _nothing_subscribed(session: Session, verb: Verb) -> bytes:
    """Redis confirms each channel, or once for none (pubsub.c)."""
    kind = resp.bulk(verb.args[0].lower())
    names = [resp.bulk(name) for name in verb.args[1:]] or [resp.null(session.identity.protocol)]
    wrap = resp.push if session.identity.protocol == 3 else resp.array
    return b"".join(wrap([kind, name, resp.integer(0)]) for name in names)


# --- back to shared lanes


def settled(session: Session, now: float) -> None:
    """Nothing is outstanding: whoever stood apart for something that is over goes back to the shared lanes."""
    session.busy = None
    if session.watch is not None and session.watch.state is WatchState.OVER:
        session.watch = None
    if session.watch is None and session.own is not None:
        lane, session.own = session.own, None
        session.router.give_back(lane, now)


def stand_down(session: Session, now: float) -> None:
    """Give up everything the session stood apart for."""
    session.watch = session.stream = session.busy = None
    for lane in (session.own, session.stream_lane):
        if lane is not None:
            lane.lose(now)
    session.own = session.stream_lane = None


def lane_gone(session: Session, lane: Lane, now: float) -> None:
    """A connection of the session's own is closed, and the commands on it have been decided upon."""
    if lane is session.own:
        session.own = None
        if session.watch is not None:
            session.watch.lost()
            if session.watch.state is WatchState.OVER:
                session.watch = None
    elif lane is session.stream_lane:
        session.stream_lane = None


def blocks(verb: Verb) -> bool:
    """Whether a verb is a blocking command, rather than one that waits for the server's consent."""
    return verb.command.route is Route.BLOCKING
