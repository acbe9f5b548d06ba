"""From replies to what the client hears, and from lost replies to what becomes of their commands.

Replies that need no look go from the lane to the client at once (`Session.deliver`). Here are the others: errors, which
may say that a command was not executed, replies that belong together, and the commands of a connection that died.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol import resp
from rfprotocol.commands import lookup
from rfprotocol.framing import Taken, split
from rfproxy import apart, muting, pledge, verbs
from rfproxy.entries import Entry, Form, Need, Ready, Run
from rfproxy.greeting import Refusal
from rfproxy.replay import may_resend, refused

if TYPE_CHECKING:
    from rfproxy.lane import Lane
    from rfproxy.session import Session


# --- replies


def deliver(session: Session, run: Run, taken: Taken, now: float) -> None:
    """Replies that may not simply be passed on."""
    if run.form is Form.PLAIN or run.form is Form.CURSOR:
        first = len(run.commands) - run.left - taken.count
        for args, reply in zip(run.commands[first:], split(taken.data), strict=False):
            if run.need is Need.OWN and not reply.startswith(b"-") and reply != pledge.QUEUED:
                session.router.scripts.executed(args, run.flushes)
            _judge(session, args, run.cursors.outgoing(reply) if run.cursors else reply, run.need, now)
    elif run.form in (Form.BLOCK, Form.LAST):
        run.reply += taken.data
        if not run.left:
            _deliver_together(session, run, now)
    elif run.form is Form.CONSENT or run.form is Form.ADMISSION:
        _deliver_consent(session, run, taken, now)
    elif run.form is Form.STAND_IN:
        pledge.stood_in(session, run)
    elif run.form is Form.RESTORE:
        for reply in split(taken.data):
            apart.restored(session, run, reply, now)
    else:
        muting.push(session, taken.data)


def _judge(session: Session, args: list[bytes], reply: bytes, need: Need, now: float) -> None:
    """Relay one reply, or see that its command is sent again."""
    transaction = session.ties.transaction if session.ties is not None else None
    if transaction is not None and not transaction.pretending:
        pledge.answered(session, transaction, args, reply, need, now)
    elif refused(reply):
        _refused(session, reply, now)
        session.recover(session.again(args, need))
    elif session.recovered is None:
        session.client.write(reply)
    elif lookup(args).reads_only:  # beside something that was not executed: read again behind it
        session.recover(session.again(args, need))
    else:
        session.recover(Ready(reply))


def _deliver_together(session: Session, run: Run, now: float) -> None:
    replies = split(run.reply)
    executed = run.commands[-1][0].upper() == b"EXEC" and not replies[-1].startswith(b"-")
    refusal = next((reply for reply in replies if refused(reply)), None)
    if refusal is not None and not executed:
        _refused(session, refusal, now)
        session.recover(_fresh(session, run))
        return
    if executed and run.need is Need.OWN:
        for args in run.commands:
            session.router.scripts.executed(args, run.flushes)
    reply = replies[-1] if run.form is Form.LAST else run.reply
    if session.recovered is None:
        session.client.write(reply)
    else:
        session.recover(Ready(reply))


def _deliver_consent(session: Session, run: Run, taken: Taken, now: float) -> None:
    verb, session.busy = session.busy, None
    if verb is None:
        return
    if refused(taken.data):
        _refused(session, taken.data, now)
        session.recover(verb)
    elif taken.has_error and run.form is Form.CONSENT:
        session.client.write(taken.data)
    else:
        verbs.granted(session, verb, taken.data, now)


def _refused(session: Session, reply: bytes, now: float) -> None:
    text = reply[:60].decode(errors="replace").strip()
    session.router.log.info("refused", reply=text, epoch=session.router.epoch)
    if session.lane is not None:
        session.router.rest(session.lane, now)


# --- replies that do not come


def returned(session: Session, run: Run, lane: Lane, *, sent: bool) -> None:
    """A lane gives a run back: decide what becomes of it."""
    if run.form is Form.RESTORE:  # the ties know what has to be restored
        return
    transaction = session.ties.transaction if session.ties is not None else None
    if lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED:
        count = len(run.unanswered()) if run.form in (Form.PLAIN, Form.BLOCK) else 1
        session.recover(Ready(resp.error(lane.welcome.text) * count))
    elif session.busy is not None:
        session.recover(session.busy)
    elif transaction is not None and lane is session.own and not lane.usable and run.form is not Form.STREAM:
        pledge.returned(session, run, transaction, lane, sent=sent)
    elif not sent:
        session.unsent.append(_fresh(session, run))
    elif run.form is Form.BLOCK:
        session.recover(_decide_block(session, run, lane))
    else:
        for args in run.unanswered():
            session.recover(session.decide(args, run.need, lane))


def _decide_block(session: Session, run: Run, lane: Lane) -> Entry:
    """A transaction that was sent as a whole is one write.

    One of reads alone may be repeated, and one of writes alone of which each may be. Reads beside writes would see
    what the first execution wrote. If a command was refused when it was queued, nothing was or will be executed.
    """
    _, *inside, last = run.commands
    policy = session.router.policy.retry_writes
    reads = all(lookup(args).reads_only for args in inside)
    writes = all(lookup(args).is_write and may_resend(lookup(args), args, policy) for args in inside)
    aborted = last[0].upper() == b"DISCARD" or any(reply.startswith(b"-") for reply in split(run.reply))
    if reads or writes or aborted:
        session.router.disturbed().replayed += 1
        return _fresh(session, run)
    return Ready(pledge.OK + pledge.QUEUED * len(inside) + session.uncertain(last, lane).reply)


def _fresh(session: Session, run: Run) -> Entry:
    """The same run as it was before it was sent."""
    if session.busy is not None:
        return session.busy
    if run.form is Form.STREAM:
        return session.entry(run.commands[0])  # without the channels that were confirmed
    if run.form is Form.PLAIN:
        return Run(session, run.commands, run.raw, run.need)
    return Run(session, run.commands, run.raw, run.need, run.form)
