"""Sessions that stand apart: with a connection of their own, for WATCH, for a blocking command, for a stream.

    watch    `session.watch` and `session.own`: every command goes to the own lane until EXEC, DISCARD, UNWATCH
    block    `session.busy` and `session.own`: nothing else goes anywhere until the reply is there
    stream   `session.stream` and `session.stream_lane`: subscribing commands go there; others wait for their replies

When the own connection dies, a watch breaks (EXEC will answer nil), a blocking command is asked again for the time
that remains, and a stream is subscribed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol import resp
from rfprotocol.commands import Route, arity_error, lookup
from rfproxy.entries import Form, Need, Ready, Resume, Run, Verb
from rfproxy.exclusive import Stream, Watch, WatchState, remaining
from rfproxy.greeting import Refusal
from rfproxy.replay import refused

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
    if session.own is None or not session.own.usable or not session.router.open(now):
        return False
    if isinstance(entry, Run):
        return session.send(entry, session.own, now)
    if entry.command.name in _WATCH_VERBS:
        if not arity_error(entry.command, entry.args):  # else the server refuses it, and stays where it is
            state.sent(entry.command.name)
        return session.send(Run(session, [entry.args], entry.raw, Need.MASTER), session.own, now)
    return not session.outstanding and _refuse_behind_watch(session, entry, state, session.own, now)


def _refuse_behind_watch(session: Session, verb: Verb, state: Watch, lane: Lane, now: float) -> bool:
    name = verb.command.name.replace("|", " ")
    text = (
        verb.command.refusal or f"ERR {name} between WATCH and EXEC is not supported by rfproxy: send it before WATCH"
    )
    session.complain(name, text)
    if state.state is not WatchState.QUEUEING:
        session.client.write(resp.error(text))
        return True
    # The server has to refuse something too, so that it refuses EXEC.
    run = Run(session, [verb.args], _REFUSED_ANYWHERE, Need.MASTER, Form.STAND_IN)
    run.reply = resp.error(text)
    return session.send(run, lane, now)


_REFUSED_ANYWHERE = resp.encode_command([b"GET"])


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
        command = lookup(args)
        if problem := arity_error(command, args):
            session.client.write(resp.error(problem))
            continue
        session.client.write(_pretended(session, command.name, queueing=queueing))
        state.sent(command.name)
    if state.state is WatchState.OVER:
        session.watch = None
    return True


def _pretended(session: Session, name: str, *, queueing: bool) -> bytes:
    if name == "EXEC" and queueing:
        return resp.null_array(session.identity.protocol)
    if name in _WATCH_VERBS:
        return OK
    return QUEUED if queueing else resp.error(f"ERR {name} between WATCH and EXEC is not supported by rfproxy")


def watch_answered(session: Session, args: list[bytes], reply: bytes, state: Watch, need: Need, now: float) -> None:
    """One reply on the watching connection."""
    command = lookup(args)
    failed = reply.startswith(b"-")
    if failed and refused(reply) and session.own is not None:
        queued = state.heard(command.name)
        session.recover(Ready(QUEUED) if queued else session.again(args, need))
        session.router.discard(session.own, now)  # no master any more: what it watches is of no use
        return
    if command.name in _WATCH_VERBS and failed and not reply.startswith(b"-EXECABORT"):
        state.spoilt = True
    if command.name not in _WATCH_VERBS or not arity_error(command, args):
        state.heard(command.name)
    session.client.write(reply)


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
    if session.finished:
        return _nobody_listens(session, now)
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
    """SUBSCRIBE and its kin, PING among them in RESP2, and MONITOR."""
    if session.finished:
        return _nobody_listens(session, now)
    name = verb.command.name
    state = session.stream
    if state is None:
        if name.endswith("UNSUBSCRIBE"):
            session.client.write(_nothing_subscribed(session, verb))
            return True
        state = Stream(monitor=name == "MONITOR")
    lane = session.stream_lane
    if not session.router.open(now) or (lane is not None and not lane.usable):
        return False
    state.asked(verb.args)
    if lane is None:
        return resume_stream(session, state, now)
    session.send_muted(verb.args, lane)
    return True


def resume_stream(session: Session, state: Stream, now: float) -> bool:
    """On a new connection, ask for what was subscribed to and what was not answered yet, when there is a master."""
    lane = session.router.exclusive(session, now)
    if lane is None:
        return False
    lane.stream()
    session.stream, session.stream_lane = state, lane
    for args in state.requests():
        session.send_muted(args, lane)
    return True


def subscribed(session: Session, entry: Run | Verb, now: float) -> bool:
    """A session that is told what others do, in RESP2 or by MONITOR, may do little else (pubsub.c, processCommand)."""
    if isinstance(entry, Verb):
        return _said_in_context(session, entry, now)
    args, *rest = entry.commands
    done = _said_in_context(session, Verb(args, lookup(args), resp.encode_command(args)), now)
    if done and rest:
        session.pending.appendleft(Run(session, rest, resp.encode_commands(rest), entry.need))
    return done


def _said_in_context(session: Session, verb: Verb, now: float) -> bool:
    if verb.command.name == "PING":
        return stream(session, verb, now)
    name = verb.command.name.lower()
    session.client.write(
        resp.error(
            f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
            "are allowed in this context"
        )
    )
    return True


def end_stream(session: Session, now: float) -> None:
    """Nothing is subscribed to any more. The connection is not used again: it may hear what was published before."""
    lane = session.stream_lane
    session.stream = session.stream_lane = None
    if lane is not None:
        lane.guest = None
        session.router.discard(lane, now)


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
    spoilt = session.watch is not None and session.watch.spoilt
    if session.watch is not None and session.watch.state is WatchState.OVER:
        session.watch = None
    if session.watch is None and session.own is not None:
        lane, session.own = session.own, None
        if spoilt:
            lane.guest = None
            session.router.discard(lane, now)
        else:
            session.router.give_back(lane, now)


def stand_down(session: Session, now: float) -> None:
    """Give up everything the session stood apart for."""
    session.watch = session.stream = session.busy = None
    for lane in (session.own, session.stream_lane):
        if lane is not None:
            lane.guest = None
            session.router.discard(lane, now)
    session.own = session.stream_lane = None


def lane_gone(session: Session, lane: Lane, now: float) -> None:
    """A connection of the session's own is closed, and the commands on it have been decided upon."""
    if lane is session.own:
        session.own = None
        if session.watch is not None:
            session.watch.lost()
            if session.watch.state is WatchState.OVER:
                session.watch = None
    elif lane is session.stream_lane and session.stream is not None:
        session.stream_lane = None
        if lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED:
            _denied(session, session.stream, lane.welcome.text)
        else:
            session.pending.appendleft(Resume())


def _denied(session: Session, state: Stream, text: str) -> None:
    """The server does not let this session in any more."""
    session.stream = None
    if state.subscribed:
        session.client.close()  # as Redis does with the connections of a user that it no longer knows
    else:
        session.client.write(resp.error(text) * state.unanswered)


def _nobody_listens(session: Session, now: float) -> bool:
    """The client has closed its side: what waits for others would wait for ever, and take what is not its."""
    session.client.close()
    session.close(now)
    return True


def blocks(verb: Verb) -> bool:
    """Whether a verb is a blocking command, rather than one that waits for the server's consent."""
    return verb.command.route is Route.BLOCKING
