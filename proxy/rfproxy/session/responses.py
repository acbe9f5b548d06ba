"""From replies to what the client hears, and from lost replies to what becomes of their commands.

Replies that need no look go from the lane to the client at once (`Session.deliver`). Here are the others: errors, which
may say that a command was not executed, replies that belong together, and the commands of a connection that died.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Route, keys, lookup
from rfprotocol.resp.reply_scanner import Taken, split
from rfproxy.builtin import dispatch, reply_mode
from rfproxy.core.attempts import Loss
from rfproxy.core.identity import REPLICA
from rfproxy.core.ports import UpstreamConnection
from rfproxy.core.work_items import Entry, Form, Hangup, Need, Ready, Run, Verb
from rfproxy.pinned import pinning, tracking_redirect
from rfproxy.semantics.retry_policy import lacks_replicas, may_have_changed, may_resend
from rfproxy.semantics.scan_cursors import marked
from rfproxy.session import outcome, transactions
from rfproxy.session.partial_reply import Midway
from rfproxy.upstream import durable_connection, replication_barrier

if TYPE_CHECKING:
    from rfproxy.session.session import Session


# --- replies


def deliver(session: Session, run: Run, taken: Taken, now: float) -> None:
    """Replies that may not simply be passed on."""
    if run.attempts.sent and session.busy is None:
        session.router.stats.change.waited(now - run.attempts.first_sent)
    if taken.partial or (session.midway is not None and not session.router.refused(taken.data, now)):
        _deliver_part(session, run, taken, now)
    elif run.form is Form.STAND_IN:
        transactions.stood_in(session, run)
    elif run.form is Form.RESTORE:
        for reply in split(taken.data):
            pinning.restored(session, run, reply, now)
    elif run.form is Form.STREAM:
        reply_mode.push(session, taken.data)
    else:
        _BY_FORM[run.form](session, run, taken, now)
    if session.recovered is None and run.form is not Form.RESTORE:
        session.waits_since = None


def _deliver_each(session: Session, run: Run, taken: Taken, now: float) -> None:
    first = run.count - run.left - taken.count
    for args, reply in zip(run.commands[first:], split(taken.data), strict=False):
        if run.need is Need.OWN and not reply.startswith(b"-") and reply != transactions.QUEUED:
            session.router.scripts.executed(args, run.flushes, now, session.identity.account)
        _judge(session, run, args, marked(reply, run.mark) if run.mark else reply, now)


def _deliver_part(session: Session, run: Run, taken: Taken, now: float) -> None:
    midway = session.midway or Midway()
    session.midway = None if taken.count else midway
    data = midway.part(taken.data, last=bool(taken.count))
    if data is None:
        break_off(session, f"{lookup(run.commands[0]).name} is answered differently by another server", now)
    else:
        session.client.write(data)


def break_off(session: Session, reason: str, now: float) -> None:
    """The client has the beginning of a reply, and there is no way to give it the rest."""
    session.complain("?", f"closed half-way through a reply: {reason}")
    session.client.abort()
    session.close(now)


def _judge(session: Session, run: Run, args: list[bytes], reply: bytes, now: float) -> None:
    """Relay one reply, or see that its command is sent again."""
    need = run.need
    transaction = session.ties.transaction if session.ties is not None else None
    queueing = transaction is not None and transactions.behind_multi(session, transaction)
    if session.router.refused(reply, now) and lookup(args).route is Route.OWN and not queueing:
        session.recover(_doubt(session, run, args, reply))
    elif transaction is not None and not transaction.pretending:
        transactions.answered(session, transaction, args, reply, need, now)
    elif session.router.refused(reply, now):
        _refused(session, reply, now)
        session.recover(
            outcome.again(session, args, need, run.attempts.refused(run.sent)), b"" if run.lost_on else reply
        )
    elif run.lost_on and reply.startswith(b"-") and not reply.startswith(_SAME_ANYWHERE):
        session.recover(outcome.uncertain(session, args, run.lost_on))
    elif reply.startswith(_UNKNOWN) and session.lane is not None and session.lane.duty is REPLICA:
        session.recover(_at_the_master(session, args))
    elif session.recovered is None:
        session.client.write(reply if session.shortfall is None else _told(session, args, reply))
    elif lookup(args).reads_only:  # beside something that was not executed: read again behind it
        session.recover(outcome.again(session, args, need), reply)
    else:
        if may_have_changed(lookup(args), reply):
            session.let_stand()
        session.recover(Ready(reply if session.shortfall is None else _told(session, args, reply)))


_SAME_ANYWHERE = (b"-ERR ", b"-WRONGTYPE ")
"""How errors begin that speak of the command or of the data. Others are about the server, and the lost one may have
executed what this one refuses."""


_UNKNOWN = (b"-ERR unknown command ", b"-ERR unknown subcommand ", b"-ERR Unknown subcommand ")
"""How a server begins that does not have a command (server.c: commandCheckExistence)."""


def _at_the_master(session: Session, args: list[bytes]) -> Entry:
    """A read that a replica of an older version does not know: what exists is for the master to say."""
    entry = session.entry(args)
    if isinstance(entry, Run):
        entry.need = Need.MASTER
    return entry


def _doubt(session: Session, doubted: Run, args: list[bytes], reply: bytes) -> Run:
    """A script may make up a refusal, after it had effects. Whether the server refused it will show on another lane:
    if that is greeted as one to a master, the reply is the script's. Whether a master lacks replicas shows when it
    is asked for a write that changes nothing."""
    if session.ties is not None:
        session.ties.adrift = True
    if session.own is not None:
        session.own.spoilt = True
    probe = _harmless_write(args) if lacks_replicas(reply) else _PING
    run = Run(session, [args], probe, Need.OWN, Form.DOUBT)
    run.reply, run.attempts = reply, doubted.attempts.refused(doubted.sent)
    return run


_PING = resp.encode_command([b"PING"])


def _harmless_write(args: list[bytes]) -> bytes:
    """A write to a key of these commands that changes nothing, whatever is there; users have rights to keys."""
    key = next(iter(keys(args)), b"rfproxy:nothing")
    return resp.encode_command([b"SETRANGE", key, b"0", b""])


def _deliver_doubt(session: Session, run: Run, taken: Taken, now: float) -> None:
    if session.router.refused(taken.data, now):  # it is still loading
        _refused(session, taken.data, now)
        session.recover(outcome.again(session, run.commands[0], run.need, run.attempts))
    elif run.lost_on:
        session.recover(_uncertain(session, run))
    else:
        session.client.write(run.reply)


def _deliver_size(session: Session, run: Run, taken: Taken, now: float) -> None:
    if session.router.refused(taken.data, now):
        _refused(session, taken.data, now)
        session.recover(outcome.again(session, run.commands[0], run.need, run.attempts))
    else:
        session.recover(outcome.sized(session, run, taken.data))


def _deliver_together(session: Session, run: Run, taken: Taken, now: float) -> None:
    run.reply += taken.data
    if run.left:
        return
    replies = split(run.reply)
    executed = run.commands[-1][0].upper() == b"EXEC" and not replies[-1].startswith(b"-")
    refusal = next((reply for reply in replies if session.router.refused(reply, now)), None)
    began = run.form is Form.LAST or replies[0] == transactions.OK  # else the commands were executed each on its own
    if refusal is not None and not executed and began:
        _refused(session, refusal, now)
        said = replies[-1] if run.form is Form.LAST else run.reply
        run.attempts = run.attempts.refused(run.sent)
        session.recover(_fresh(session, run), b"" if run.lost_on else said)
        return
    if executed and run.need is Need.OWN:
        for args in run.commands:
            session.router.scripts.executed(args, run.flushes, now, session.identity.account)
    if run.lost_on and replies[-1].startswith(b"-"):
        session.recover(_uncertain(session, run))
        return
    if session.shortfall is not None and run.form is Form.BLOCK:
        run.reply = _told_of_block(session, run, replies, began=began)
    reply = replication_barrier.answer(lookup(run.commands[0]).name, replies) if run.form is Form.LAST else run.reply
    if session.recovered is None:
        session.client.write(reply)
    else:
        if executed and any(lookup(args).may_have_effect for args in run.commands[1:-1]):
            session.let_stand()
        session.recover(Ready(reply))


def _told_of_block(session: Session, run: Run, replies: list[bytes], *, began: bool) -> bytes:
    """What the client hears of a transaction that too few replicas have: EXEC's reply stands for all of it."""
    if began:
        told = durable_connection.told_of_exec(session.shortfall, session.router.stats, run.commands, replies[-1])
        return b"".join([*replies[:-1], told])
    return b"".join(_told(session, args, reply) for args, reply in zip(run.commands, replies, strict=True))


def _told(session: Session, args: list[bytes], reply: bytes) -> bytes:
    if session.shortfall is None:
        return reply
    return durable_connection.told(session.shortfall, session.router.stats, args, reply)


def _deliver_consent(session: Session, run: Run, taken: Taken, now: float) -> None:
    verb, session.busy = session.busy, None
    if verb is None:
        return
    if session.router.refused(taken.data, now):
        _refused(session, taken.data, now)
        session.recover(verb)
    elif taken.has_error:
        session.client.write(taken.data)
        tracking_redirect.refused(session, now)
        session.screen()  # if it was AUTH: what came behind it was left until now
    else:
        dispatch.granted(session, verb, taken.data, now)


_BY_FORM = {
    Form.PLAIN: _deliver_each,
    Form.CURSOR: _deliver_each,
    Form.BLOCK: _deliver_together,
    Form.LAST: _deliver_together,
    Form.CONSENT: _deliver_consent,
    Form.DOUBT: _deliver_doubt,
    Form.SIZE: _deliver_size,
}


def _refused(session: Session, reply: bytes, now: float) -> None:
    text = reply[:60].decode(errors="replace").strip()
    session.router.log.info("refused", reply=text, epoch=session.router.epoch)
    if session.lane is not None:
        session.router.rest(session.lane, now)


# --- replies that do not come


def answer_all_pending(session: Session, text: str) -> None:
    """Nobody will do what waits. What is behind the first came later, but who pipelines has one patience for all."""
    for _ in range(len(session.pending)):
        entry = session.pending.popleft()
        if isinstance(entry, Run | Verb):
            entry = _given_up(session, entry, text)
        session.pending.append(entry)


def _given_up(session: Session, entry: Run | Verb, text: str) -> Ready:
    """The answer to commands whose time is over. That they were not sent is only said where it is true."""
    if entry.lost_on:
        return _uncertain(session, entry)
    if isinstance(entry, Run) and entry.attempts.sent and lookup(entry.commands[0]).route is Route.OWN:
        return _refused_in_doubt(session, entry)
    count = entry.count if isinstance(entry, Run) else 1
    session.router.stats.errors += count
    return Ready(resp.error(text) * count)


def _refused_in_doubt(session: Session, run: Run) -> Ready:
    """The answer to a script that was answered like a refusal, which the script itself may have made up."""
    session.router.disturbed().uncertain += 1
    name = lookup(run.commands[0]).name
    text = (
        f"UNCERTAIN {name} may or may not have been applied: it was refused in words that a script can make up, and "
        "could not be sent again"
    )
    session.complain(name, text)
    return Ready(resp.error(text))


def returned(session: Session, run: Run, lane: UpstreamConnection, loss: Loss) -> None:
    """A lane gives a run back: decide what becomes of it."""
    first = session.recovered is None and loss is not Loss.UNSENT and run.form is not Form.RESTORE
    if session.midway is not None and first:
        if session.midway.advanced:  # it was being answered: its time begins anew
            run.attempts = replace(run.attempts, first_sent=lane.closed_at)
        session.midway.again()
        attempts = outcome.after_loss(session, run, run.commands, lane, loss)
        over = attempts.spent or attempts.expired(lane.closed_at, session.router.policy.hold_timeout)
        if over or not lookup(run.unanswered()[0]).reads_only:
            session.midway.broken = f"{lane.key.node} was lost"
    transaction = session.ties.transaction if session.ties is not None else None
    if transaction is not None and transaction.pretending:
        transaction = None  # no connection holds it: the own one is that of a command that travels alone
    if run.form is Form.RESTORE:
        pass  # the ties know what has to be restored
    elif (denial := lane.denial) is not None:
        _denied(session, run, lane, denial)
    elif session.busy is not None:
        session.recover(outcome.of_busy(session, run, session.busy, lane, loss))
    elif transaction is not None and lane is session.own and not lane.usable and run.form is not Form.STREAM:
        transactions.returned(session, run, transaction, lane, loss)
    elif loss is Loss.UNSENT:
        session.unsent.append(_fresh(session, run))
    else:
        _returned_unanswered(session, run, lane, loss)


def _denied(session: Session, run: Run, lane: UpstreamConnection, text: str) -> None:
    """The server does not accept who speaks. A replica may only not have heard of the user: others are asked.

    Redis asks for a password when a connection begins. So whoever was accepted before, and has used a password that was
    changed since, is parted with: a pool then comes back with the new one.
    """
    if session.midway is not None:
        session.midway.broken = text
    asks = session.busy is not None and lane.key.identity != session.identity
    if run.lost_on:
        session.recover(_uncertain(session, run))
    elif asks or not session.router.served(session):
        count = len(run.unanswered()) if run.form in (Form.PLAIN, Form.BLOCK) else 1
        session.recover(Ready(resp.error(text) * count))
    elif not any(isinstance(entry, Hangup) for entry, _ in session.recovered or ()):
        session.complain("?", f"closed, as {lane.key.node} does not accept its user any more: {text}")
        session.recover(Hangup(b""))


def _returned_unanswered(session: Session, run: Run, lane: UpstreamConnection, loss: Loss) -> None:
    if run.form is Form.BLOCK:
        run.attempts = outcome.after_loss(session, run, run.commands[1:-1], lane, loss)
        session.recover(_decide_block(session, run, lane))
    elif run.form is Form.DOUBT:  # the server was no master: the script was refused
        session.recover(outcome.again(session, run.commands[0], run.need, run.attempts))
    elif run.form is Form.SIZE:  # asked again, for as long as the read itself has
        over = outcome.exhausted(session, run.commands[0], run.attempts, lane.closed_at)
        session.recover(over or outcome.again(session, run.commands[0], run.need, run.attempts))
    else:
        for args in run.unanswered():
            attempts = outcome.after_loss(session, run, [args], lane, loss)
            session.recover(outcome.decide(session, args, run.need, lane, attempts))
            if loss is Loss.AT_HEAD:  # which is the first of them
                loss = Loss.BEHIND_OWN


def _decide_block(session: Session, run: Run, lane: UpstreamConnection) -> Entry:
    """A transaction that was sent as a whole is one write.

    One of reads alone may be repeated, and one of writes alone of which each may be. Reads beside writes would see
    what the first execution wrote. If a command was refused when it was queued, nothing was or will be executed.
    """
    inside = run.commands[1:-1]
    policy = session.router.policy.retry_writes
    reads = all(lookup(args).reads_only for args in inside)
    writes = all(lookup(args).may_have_effect and may_resend(lookup(args), args, policy) for args in inside)
    replies = split(run.reply)
    aborted = replies[:1] == [transactions.OK] and any(reply.startswith(b"-") for reply in replies)
    if not reads and not aborted:
        run.attempts = replace(run.attempts, lost_on=outcome.why_missing(lane))
    if not reads and not writes and not aborted:
        return _uncertain(session, run)
    if (answer := outcome.exhausted(session, run.commands[-1], run.attempts, lane.closed_at)) is not None:
        return outcome.answer_of(session, run, answer)
    session.router.disturbed().replayed += 1
    return _fresh(session, run)


def as_it_stands(session: Session, entry: Entry, said: bytes) -> Entry:
    """The answer to what was refused, when something later was executed; `said`: the refusal, if it tells the truth.

    If its first server was lost, that may have executed it, whatever this one said.
    """
    if said:
        return Ready(said)
    if isinstance(entry, Run | Verb) and entry.lost_on:
        return _uncertain(session, entry)
    return Ready(entry.reply) if isinstance(entry, Run) and entry.form is Form.DOUBT else entry


def _uncertain(session: Session, entry: Run | Verb) -> Ready:
    """The answer to a write, or a transaction, of which nobody will know what the server did that was lost."""
    commands = entry.commands if isinstance(entry, Run) else [entry.args]
    answer = outcome.uncertain(session, commands[-1], entry.lost_on)
    return answer if isinstance(entry, Verb) else outcome.answer_of(session, entry, answer)


def _fresh(session: Session, run: Run) -> Entry:
    """The same run as it was before it was sent."""
    if session.busy is not None:
        return session.busy
    again = run.form in (Form.STREAM, Form.DOUBT, Form.SIZE)  # a stream without the channels that were confirmed
    fresh = session.entry(run.commands[0]) if again else Run(session, run.commands, run.raw, run.need, run.form)
    if isinstance(fresh, Run):
        fresh.asked_before = run.asked_before
    return outcome.resumed(fresh, run.attempts)
