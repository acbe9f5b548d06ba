"""Decides for each command that was sent and not answered: send it once more, or answer what is known.

A command that is sent once more may have been executed already. If the second attempt fails, too, its client is not
told that nothing has happened: `Attempts` remembers. How often a command is sent, and to which servers, is bounded
there as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Command, Route, keys, lookup, tells_all_keys
from rfprotocol.topology.topology import Node
from rfproxy.core.attempts import JUST_SENT, MOST_BLAMED, NEVER_SENT, Attempts, Loss
from rfproxy.core.ports import UpstreamConnection
from rfproxy.core.work_items import Entry, Form, Need, Ready, Run, Verb, alone
from rfproxy.semantics.retry_policy import may_resend

if TYPE_CHECKING:
    from rfproxy.session.session import Session


def after_loss(
    session: Session, run: Run, commands: list[list[bytes]], lane: UpstreamConnection, loss: Loss
) -> Attempts:
    """The record of commands of `run`, which was on `lane`, which is over.

    A server may die of the oldest run in flight, so the time since that was sent counts. How long a client has waited
    is a matter of its own run.
    """
    attempts = run.attempts
    if loss is not Loss.UNSENT and not attempts.sent:
        attempts = replace(attempts, first_sent=run.sent)
    if attempts.sent and session.busy is None:  # a command that blocks waits for others
        session.router.disturbed().waited(lane.closed_at - attempts.first_sent)
    if loss is not Loss.UNSENT and all(_spares_servers(lookup(args)) for args in commands):
        loss = Loss.WITHDRAWN
    process = session.router.process if lane.writes else ""
    deadly = any(_may_kill(args) for args in commands)
    return attempts.after(loss, lane.key.node, lane.sent_head, lane.closed_at, process, deadly=deadly)


_LARGE = 64 << 10
"""Bytes of a command that are no small change to a server."""
_GROWS = frozenset(["SETRANGE", "SETBIT", "BITFIELD", "ARSET", "ARMSET"])
"""What may allocate far more than it brings."""


def _may_kill(args: list[bytes]) -> bool:
    """Whether a server may die of a command: of its time, of what it allocates, of its size."""
    command = lookup(args)
    return command.takes_long or command.name in _GROWS or sum(map(len, args)) > _LARGE


def _spares_servers(command: Command) -> bool:
    """Whether no server can fail of it: it costs little, whatever the data are."""
    if command.group == "connection":
        return True
    return command.group in ("pubsub", "transactions") and command.reads_only


def decide(session: Session, args: list[bytes], need: Need, lane: UpstreamConnection, attempts: Attempts) -> Entry:
    """For a command that was on `lane`, which is over; `attempts` says how it ended."""
    command, missing = lookup(args), why_missing(lane)
    harmless = command.reads_only or command.name == "EXEC"  # without MULTI; with one, `transactions` decides
    if not harmless and not may_resend(command, args, session.router.policy.retry_writes):
        return uncertain(session, args, missing)
    if not harmless:
        attempts = replace(attempts, lost_on=missing)
    if (answer := exhausted(session, args, attempts, lane.closed_at)) is not None:
        return answer
    return again(session, args, need, attempts)


def of_busy(session: Session, run: Run, verb: Verb, lane: UpstreamConnection, loss: Loss) -> Entry:
    """For a blocking command, or one that waits for the server's consent, that was on `lane`, which is over."""
    if loss is Loss.UNSENT:
        return verb
    missing = why_missing(lane)
    if verb.served:
        return uncertain(session, verb.args, missing)
    waited = lane.took_nothing or session.router.answered_since(lane.key.node, lane.sent_head)
    run.attempts = verb.attempts
    attempts = after_loss(session, run, [verb.args], lane, Loss.WITHDRAWN if waited else loss)
    if verb.command.may_have_effect:
        if loss is Loss.AT_HEAD and not waited and lane.closed_at - lane.sent_head <= JUST_SENT:
            return uncertain(session, verb.args, missing)  # it may have been served
        attempts = replace(attempts, lost_on=missing)
    waits = verb.command.route is Route.BLOCKING  # for others, as long as it was told: that is no attempt that failed
    answer = exhausted(session, verb.args, attempts, lane.closed_at) if attempts.spent or not waits else None
    return replace(verb, attempts=replace(attempts, fatal_to="")) if answer is None else answer


def exhausted(session: Session, args: list[bytes], attempts: Attempts, now: float) -> Ready | None:
    """The answer to a command that is not sent again: it cost connections enough, or its time is over."""
    if not attempts.spent and not attempts.expired(now, session.router.policy.hold_timeout):
        return None
    if attempts.spent:
        _share(session)
    if attempts.lost_on:
        return uncertain(session, args, attempts.lost_on)
    name = lookup(args).name.replace("|", " ")
    text = (
        f"ERR rfproxy: {name} was sent to {MOST_BLAMED} servers, and each ended the connection before it replied, "
        f"{attempts.suspect_at} last (output limit, out of memory, a crash?): it is not sent again"
        if attempts.spent
        else f"ERR rfproxy: {name} was not answered within {session.router.policy.hold_timeout:g} s by any server"
    )
    session.complain(name, text)
    return Ready(resp.error(text))


def by_silent_server(session: Session, run: Run, node: Node, now: float, *, oldest: bool) -> None:
    """What becomes of reads that were sent to a server that is silent about one of them, or dies of it."""
    loss = Loss.AT_HEAD if oldest else Loss.BESIDE
    for args in run.unanswered():
        attempts = run.attempts.after(loss, node, run.sent, now)
        answer = exhausted(session, args, attempts, now)
        session.recover(answer or again(session, args, run.need, attempts))
        loss = Loss.BESIDE


def _share(session: Session) -> None:
    """What was sent behind a command that is not sent again is not either: nobody knows which of them it was.

    Those behind one that is spent were marked with it, or will be when its turn comes, and what was never sent is
    behind all that was: so each command is looked at once, however long the pipeline.
    """
    for entry in session.pending:
        if isinstance(entry, Run):
            if entry.attempts.spent or entry.attempts is NEVER_SENT:
                return
            if entry.attempts.own:
                entry.attempts = replace(entry.attempts, own=MOST_BLAMED)


def barred(session: Session, run: Run) -> Ready | Run | None:
    """The answer to a run that may not be sent any more, or not to the master there is now, which may die of it; or the
    question that has to be asked first."""
    attempts, router = run.attempts, session.router
    if attempts.spent and (answer := exhausted(session, run.commands[-1], attempts, attempts.first_sent)) is not None:
        return answer_of(session, run, answer)
    served = router.topology is not None and router.topology.master is not None
    if not attempts.fatal_to or not served or router.process == attempts.fatal_to or run.form is Form.SIZE:
        return None
    if attempts.lost_on:
        return answer_of(session, run, uncertain(session, run.commands[-1], attempts.lost_on))
    if run.need is Need.ANY_OWN and router.may_read_elsewhere(attempts):
        return None
    return _size(session, run) or answer_of(session, run, fatal(session, run))


def fatal(session: Session, run: Run) -> Ready:
    """The answer to a read of which another master may die."""
    name = lookup(run.commands[-1]).name.replace("|", " ")
    text = (
        f"ERR rfproxy: {name} was in execution when master {run.attempts.suspect_at} ended the connection, and that "
        "server is no master any more: it is not sent to another one"
    )
    session.complain(name, text)
    return Ready(resp.error(text))


_SMALL = 1 << 20
"""Bytes of a value that a server reads at once, and without need of memory that it may not have."""
_VALUES = frozenset(["string", "bitmap", "hash", "list", "set", "sorted-set", "stream", "geo", "generic"])
"""Groups of commands of which a read of one key costs what that key is large. Scripts do what they like."""


def _size(session: Session, run: Run) -> Run | None:
    """The question how large the key is that a read is about: that of a small one kills nobody."""
    args = run.commands[-1]
    command = lookup(args)
    named = keys(args) if run.form is Form.PLAIN and command.group in _VALUES and tells_all_keys(command) else ()
    if len(named) != 1 or session.ties is not None:  # LCS costs the product of two sizes
        return None
    size = Run(session, [args], resp.encode_command([b"MEMORY", b"USAGE", named[0]]), Need.OWN, Form.SIZE)
    size.attempts = run.attempts
    return size


def sized(session: Session, run: Run, reply: bytes) -> Entry:
    """What becomes of a read when the master has said how large its key is; nil: there is none."""
    small = reply.startswith((b"$-1", b"_")) or (reply.startswith(b":") and int(reply[1:]) <= _SMALL)
    attempts = replace(run.attempts, fatal_to="")
    return again(session, run.commands[0], Need.ANY_OWN, attempts) if small else fatal(session, run)


def answer_of(session: Session, run: Run, answer: Ready) -> Ready:
    """The answer to the last command of a run, in the form that the whole run is answered in."""
    if run.form is not Form.BLOCK:
        return answer
    return Ready(resp.simple("OK") + resp.simple("QUEUED") * (len(run.commands) - 2) + answer.reply)


def why_missing(lane: UpstreamConnection) -> str:
    """Why there is no reply to what was in flight on a lane to a master, which is over."""
    if lane.lapsed:
        return (
            f"this proxy's lease lapsed (no word from ZooKeeper) before a reply of master {lane.key.node} was believed"
        )
    return f"master {lane.key.node} was lost before it replied"


def uncertain(session: Session, args: list[bytes], missing: str) -> Ready:
    """The answer for a command of which nobody can know whether a server executed it; `missing`: see `why_missing`."""
    session.router.disturbed().uncertain += 1
    name = lookup(args).name.replace("|", " ")
    text = f"UNCERTAIN {name} may or may not have been applied: {missing}"
    session.complain(name, text)
    return Ready(resp.error(text))


def again(session: Session, args: list[bytes], need: Need, attempts: Attempts = NEVER_SENT) -> Entry:
    """A command to be sent once more."""
    session.router.disturbed().replayed += 1
    entry = session.busy or session.entry(args)
    return resumed(entry, attempts)


def resumed(entry: Entry, attempts: Attempts) -> Entry:
    """The same entry with the record of its earlier sendings, on a connection of its own if that is called for."""
    if isinstance(entry, Run):
        entry.attempts = attempts
        if attempts.alone:
            entry.need = alone(entry.need)
    elif isinstance(entry, Verb) and attempts is not NEVER_SENT:
        return replace(entry, attempts=attempts)
    return entry
