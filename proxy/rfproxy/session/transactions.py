"""WATCH, MULTI, EXEC on a connection of the session's own.

Every command goes there as it comes, so that the server itself says what it thinks of it when it is queued. What the
proxy answers for the server (CLIENT ID and its like, cursors) is put right in EXEC's reply. How a transaction
survives the death of its connection is described in `transaction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Command, Route, arity_error, lookup
from rfproxy.builtin import dispatch, worker_queries
from rfproxy.core.attempts import Attempts, Loss
from rfproxy.core.ports import UpstreamConnection
from rfproxy.core.work_items import Entry, Form, Need, Ready, Run, Verb
from rfproxy.pinned import pinning
from rfproxy.semantics.blocking import WAITS, nothing
from rfproxy.semantics.exec_reply import elements, join
from rfproxy.semantics.retry_policy import may_have_changed
from rfproxy.semantics.subscriptions import Stream
from rfproxy.semantics.transaction_state import ENDED, VERBS, State, Transaction
from rfproxy.session import outcome
from rfproxy.upstream import durable_connection
from rfproxy.upstream.replication_barrier import counts_writes_only

if TYPE_CHECKING:
    from rfproxy.session.session import Session
    from rfproxy.upstream.connection import Lane

OK = resp.simple("OK")
QUEUED = resp.simple("QUEUED")
EXECABORT = resp.error("EXECABORT Transaction discarded because of previous errors.")


def begin(session: Session, verb: Verb, now: float) -> bool:
    """The first WATCH or MULTI."""
    if session.router.scripts.loading(session.home):
        return False  # what it will call is not known to the server yet
    ties = pinning.tie(session, now)
    if ties is None or session.own is None:
        return False
    ties.transaction = Transaction()
    pinning.introduce(session, session.own)
    pinning.load_scripts(session, session.own)
    return _send_verb(session, verb, ties.transaction, session.own)


def goes(session: Session, entry: Run | Verb, transaction: Transaction, now: float) -> bool:
    """Any command since then."""
    if isinstance(entry, Run) and (answer := _barred(session, entry, transaction)) is not None:
        return session.act(answer, now)
    if transaction.pretending:
        return _pretend(session, entry, transaction, now)
    lane = session.own
    if transaction.over or lane is None or not lane.usable or not session.router.open(now):
        return False  # when it is over: until the last replies are in, and it is forgotten
    if isinstance(entry, Run):
        return session.send(_as_queued(session, entry), lane) if transaction.queueing else session.dispatch(entry, lane)
    return _verb_goes(session, entry, transaction, lane, now)


def _verb_goes(session: Session, verb: Verb, transaction: Transaction, lane: Lane, now: float) -> bool:
    if verb.command.name in VERBS:
        return _send_verb(session, verb, transaction, lane)
    if transaction.queueing:
        return _queue_verb(session, verb, transaction, lane)
    return not session.outstanding and dispatch.handle(session, verb, now)


def _barred(session: Session, run: Run, transaction: Transaction) -> Ready | Run | None:
    """The answer to what would be executed in front of the transaction, and may not be sent to this master."""
    in_front = not transaction.queueing or (transaction.pretending and _in_front_of_multi(run))
    return outcome.barred(session, run) if in_front and run.attempts.sent else None


def _send_verb(session: Session, verb: Verb, transaction: Transaction, lane: Lane) -> bool:
    transaction.sent(_event(verb.command, verb.args))
    return session.send(Run(session, [verb.args], verb.raw, Need.MASTER), lane)


def _event(command: Command, args: list[bytes]) -> str:
    """What one of VERBS does to a transaction: nothing, if it has a wrong number of arguments; but EXEC ends it."""
    if not arity_error(command, args):
        return command.name
    return ENDED if command.name == "EXEC" else ""


def _as_queued(session: Session, run: Run) -> Run:
    """Behind MULTI the reply is QUEUED, whatever the command; its own one comes within EXEC's."""
    if run.form is not Form.CURSOR:
        return run
    wire = [session.wire(args) for args in run.commands]
    return Run(session, run.commands, resp.encode_commands(wire), Need.MASTER)


def _queue_verb(session: Session, verb: Verb, transaction: Transaction, lane: Lane) -> bool:
    """A command that the proxy has a say in: queued in a form that does no harm, and answered at EXEC."""
    command = verb.command
    if _about_one_channel(verb.args):
        if session.outstanding:
            return False
        _listen(session, lane)
    elif not (command.route is Route.BLOCKING or command.name == "MONITOR" or dispatch.known_at_exec(command)):
        return _refuse(session, verb, lane)
    elif command.name == "CLIENT|LIST" and not worker_queries.known_ahead(transaction, session, verb):
        if session.outstanding:
            return False
        worker_queries.ask_ahead(transaction, session, verb)
        return True
    raw = resp.encode_command(session.wire(verb.args))
    return session.send(Run(session, [verb.args], raw, Need.MASTER), lane)


def _about_one_channel(args: list[bytes]) -> bool:
    """SUBSCRIBE and its kin. With several channels, Redis answers EXEC with more elements than it announces."""
    name = lookup(args).name
    return name in dispatch.STREAMING and name != "MONITOR" and len(args) == 2


def _listen(session: Session, lane: Lane) -> None:
    """Be ready for what EXEC may subscribe to."""
    if session.ties is not None and session.ties.stream is None:
        session.ties.stream = Stream()
        lane.listen()


def _refuse(session: Session, verb: Verb, lane: Lane) -> bool:
    """The server has to refuse something too, so that it refuses EXEC."""
    name = verb.command.name.replace("|", " ")
    text = verb.command.refusal or f"ERR {name} inside MULTI is not supported by rfproxy: send it before MULTI"
    session.complain(name, text)
    run = Run(session, [verb.args], _REFUSED_ANYWHERE, Need.MASTER, Form.STAND_IN)
    run.reply = resp.error(text)
    return session.send(run, lane)


_REFUSED_ANYWHERE = resp.encode_command([b"GET"])


def _pretend(session: Session, entry: Run | Verb, transaction: Transaction, now: float) -> bool:
    """No server knows of the transaction any more: answer in its stead until EXEC."""
    if isinstance(entry, Run) and (not transaction.queueing or _in_front_of_multi(entry)):
        lane = session.choose(entry.need, now, entry.attempts)
        return lane is not None and session.dispatch(entry, lane)
    if session.outstanding:
        return False
    if isinstance(entry, Verb) and not transaction.queueing and entry.command.name not in VERBS:
        return dispatch.handle(session, entry, now)
    for args in entry.commands if isinstance(entry, Run) else [entry.args]:
        session.client.write(_pretended(session, args, transaction))
        if lookup(args).name in VERBS:
            event = _event(lookup(args), args)
            transaction.sent(event)
            transaction.heard(event)
    pinning.loosen(session, now)
    return True


def _in_front_of_multi(run: Run) -> bool:
    """Whether it was lost together with MULTI, which is answered. Behind MULTI nothing is sent again, but doubted."""
    return run.attempts.sent and run.form is not Form.DOUBT


def _pretended(session: Session, args: list[bytes], transaction: Transaction) -> bytes:
    """What the server would say to one of VERBS, or to what is queued behind MULTI."""
    command = lookup(args)
    if problem := arity_error(command, args):
        transaction.failed = transaction.failed or transaction.answered_queueing
        return resp.error(problem)
    if transaction.answered_queueing:
        return _pretended_queueing(session, command.name, transaction)
    return resp.error(f"ERR {command.name} without MULTI") if command.name in ("EXEC", "DISCARD") else OK


def _pretended_queueing(session: Session, name: str, transaction: Transaction) -> bytes:
    if name == "EXEC":
        aborted = transaction.failed or transaction.answered is State.ABORTED
        return EXECABORT if aborted else resp.null_array(session.identity.protocol)
    if name in _NOT_QUEUED:
        return _NOT_QUEUED[name]
    return OK if name == "DISCARD" else QUEUED


_NOT_QUEUED = {
    "MULTI": resp.error("ERR MULTI calls can not be nested"),
    "WATCH": resp.error("ERR WATCH inside MULTI is not allowed"),
}
"""What the server refuses behind MULTI without giving up the transaction."""


def give_up(session: Session, transaction: Transaction, now: float) -> None:
    """All that waits is answered with an error: the transaction must not be executed without it."""
    transaction.gave_up()
    verbs_waiting = [entry.command.name for entry in session.pending if isinstance(entry, Verb)]
    if "EXEC" in verbs_waiting or "DISCARD" in verbs_waiting:  # for the client it is over, whatever the answer
        transaction.sent(ENDED)
        transaction.heard(ENDED)
    pinning.loosen(session, now)


# --- replies


def behind_multi(session: Session, transaction: Transaction) -> bool:
    """Whether the next reply is that of a command behind MULTI, also of a MULTI that is to be sent again."""
    for entry, said in reversed(session.recovered or ()):
        if isinstance(entry, Verb) and entry.command.name in VERBS:
            return entry.command.name == "MULTI" and said == OK
    return transaction.answered_queueing


def answered(
    session: Session, transaction: Transaction, args: list[bytes], reply: bytes, need: Need, now: float
) -> None:
    """One reply on the connection of the transaction."""
    command = lookup(args)
    queueing = transaction.answered_queueing
    if command.name == "EXEC" and session.adrift and _executed(session, transaction, reply):
        session.let_stand()
        session.recover(Ready(_verb_answered(session, transaction, args, reply, now)))
        return
    is_refused = session.router.refused(reply, now)
    if session.adrift or is_refused:
        pinning.drift(session, now)
        again = queueing or reply == QUEUED or command.name in VERBS or command.reads_only or is_refused
        if again:
            session.recover(outcome.again(session, args, need), reply)
            return
        if may_have_changed(command, reply):
            session.let_stand()
        session.recover(Ready(_told(session, args, reply)))
        return
    if queueing and reply == QUEUED:
        transaction.took(args)
        if transaction.size > session.query_limit:
            session.complain("MULTI", f"closed: more than {session.query_limit} bytes (client_query_buffer_limit)")
            session.client.abort()  # as Redis does
    elif command.name in VERBS:
        reply = _verb_answered(session, transaction, args, reply, now)
    elif queueing:
        transaction.failed = True
    else:
        reply = _told(session, args, reply)
    session.client.write(reply)


def _executed(session: Session, transaction: Transaction, reply: bytes) -> bool:
    """Whether this is EXEC's answer to what may have an effect, behind something that was refused.

    The server has become a master since. Then what it said to the commands of the transaction counts.
    """
    answered = [(entry, said) for entry, said in session.recovered or () if said and isinstance(entry, Run | Verb)]
    queued = [_words(entry) for entry, said in answered if said == QUEUED]
    if reply[:1] != b"*" or reply[1:2] == b"-" or not any(lookup(args).may_have_effect for args in queued):
        return False
    for entry, said in answered:
        if said == QUEUED:
            transaction.took(_words(entry))
        elif isinstance(entry, Verb) and said == OK:
            transaction.heard(_event(entry.command, entry.args))
    return True


def _words(entry: Run | Verb) -> list[bytes]:
    return entry.args if isinstance(entry, Verb) else entry.commands[0]


def _told(session: Session, args: list[bytes], reply: bytes) -> bytes:
    if session.shortfall is None:
        return reply
    return durable_connection.told(session.shortfall, session.router.stats, args, reply)


def _verb_answered(session: Session, transaction: Transaction, args: list[bytes], reply: bytes, now: float) -> bytes:
    command = lookup(args)
    event = _event(command, args)
    failed = reply.startswith(b"-")
    if failed and session.own is not None and not reply.startswith(b"-EXECABORT"):
        session.own.spoilt = True  # a command that should have moved the state was refused: it may stand elsewhere
    if failed and command.name != "EXEC":
        transaction.failed = transaction.failed or (transaction.answered_queueing and reply not in _NOT_QUEUED.values())
        transaction.undone()
        return reply
    if event == "EXEC":
        scripts = session.router.scripts
        for executed in transaction.queued if reply[:1] == b"*" and reply[1:2] != b"-" else ():
            scripts.executed(executed, scripts.flushes, now, session.identity.account)
        reply = durable_connection.told_of_exec(
            session.shortfall, session.router.stats, transaction.queued, _put_right(session, reply, transaction, now)
        )
    transaction.heard(event)
    return reply


def stood_in(session: Session, run: Run) -> None:
    """The server has refused something in the place of a command that the proxy refuses."""
    transaction = session.ties.transaction if session.ties is not None else None
    if session.adrift:
        session.recover(outcome.again(session, run.commands[0], run.need))
        return
    if transaction is not None:
        transaction.failed = True
    session.client.write(run.reply)


def _put_right(session: Session, reply: bytes, transaction: Transaction, now: float) -> bytes:
    """EXEC's reply, with the answers that are the proxy's to give."""
    special = [
        (place, args)
        for place, args in enumerate(transaction.queued)
        if dispatch.known_at_exec(lookup(args))
        or lookup(args).route is Route.CURSOR
        or lookup(args).name in WAITS
        or _about_one_channel(args)
    ]
    parts = elements(reply) if special else None
    if parts is None or len(parts) != len(transaction.queued):
        return reply
    for place, args in special:
        command = lookup(args)
        if command.route is Route.CURSOR:
            parts[place] = session.router.cursors.outgoing(parts[place])
        elif command.name in WAITS:
            parts[place] = _waited_inside(session, command.name, parts[place])
        elif _about_one_channel(args):
            if session.ties is not None and session.ties.stream is not None:
                session.ties.stream.confirms(list(args), parts[place])
        elif not parts[place].startswith(b"-"):
            parts[place] = dispatch.done_at_exec(session, Verb(args, command, b""), parts[place], now)
    return join(parts)


def _waited_inside(session: Session, name: str, reply: bytes) -> bytes:
    """WAIT inside of a transaction waits for nothing, and asks about the connection's last write before MULTI.

    That was somebody else's, or none, so what it counts says nothing: that no replica is known to have the client's
    writes is always true. Servers that remember the last command asked about MULTI, which is right.
    """
    version = session.router.version_of(session.own) if session.own is not None else ""
    return reply if reply.startswith(b"-") or not counts_writes_only(version) else nothing(name, 2)


def returned(session: Session, run: Run, transaction: Transaction, lane: UpstreamConnection, loss: Loss) -> None:
    """The connection died with these commands unanswered: answer them as far as that can be known."""
    for args in run.unanswered():
        if loss is Loss.UNSENT and _begins_at_a_busy_server(args, transaction, lane):
            transaction.heard("MULTI")
            transaction.failed = True
            session.unsent.append(Ready(OK))
        elif loss is Loss.UNSENT:
            if lookup(args).name in VERBS:
                transaction.withdrawn()
            session.unsent.append(outcome.again(session, args, run.need, run.attempts))
        elif run.form is Form.STAND_IN and not session.adrift:
            transaction.failed = True
            session.recover(Ready(run.reply))
        else:
            attempts = outcome.after_loss(session, run, [args], lane, loss)
            session.recover(_fate(session, transaction, args, run.need, lane, attempts))


def _begins_at_a_busy_server(args: list[bytes], transaction: Transaction, lane: UpstreamConnection) -> bool:
    """Whether this is MULTI for a server that greets nobody while a script runs.

    It takes MULTI on connections that stand, refuses what is to be queued, and aborts EXEC. A client that sends one
    command after the other is told the same: if MULTI waited, and failed in the end, what follows would be executed.
    """
    begins = transaction.answered is State.NONE and lookup(args).name == "MULTI" and len(args) == 1
    return begins and lane.refused_as_busy


def _fate(
    session: Session,
    transaction: Transaction,
    args: list[bytes],
    need: Need,
    lane: UpstreamConnection,
    attempts: Attempts,
) -> Entry:
    """What becomes of a command that was sent."""
    command = lookup(args)
    queueing = transaction.answered_queueing
    if not queueing and command.name not in VERBS:
        return outcome.decide(session, args, need, lane, attempts)
    if session.adrift:  # behind a command that was refused: nothing was executed, and that one comes first
        return outcome.again(session, args, need)
    if command.name == "EXEC" and queueing and not transaction.failed and not arity_error(command, args):
        transaction.heard("EXEC")
        return outcome.uncertain(session, args, outcome.why_missing(lane))
    reply = _pretended(session, args, transaction)
    if reply == QUEUED and transaction.answered is State.QUEUEING:
        transaction.took(args)
    if command.name in VERBS:
        transaction.heard(_event(command, args))
    return Ready(reply)
