"""What becomes of a command that was sent and not answered: it is sent once more, or nobody will ever know.

One that is sent once more may have been executed already. If the second attempt fails, too, its client is not told that
nothing has happened: `Run.lost_on` remembers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rfprotocol import resp
from rfprotocol.commands import lookup
from rfproxy.entries import Entry, Need, Ready, Run, Verb
from rfproxy.replay import may_resend

if TYPE_CHECKING:
    from rfproxy.lane import Lane
    from rfproxy.session import Session


def decide(session: Session, args: list[bytes], need: Need, lane: Lane) -> Entry:
    """For a command that was on a lane that is lost."""
    command, node = lookup(args), str(lane.key.node)
    harmless = command.reads_only or command.name == "EXEC"  # without MULTI; with one, `pledge` decides
    if not harmless and not may_resend(command, args, session.router.policy.retry_writes):
        return uncertain(session, args, node)
    return again(session, args, need, "" if harmless else node)


def of_busy(session: Session, verb: Verb, node: str, *, sent: bool) -> Entry:
    """For a blocking command, or one that waits for the server's consent, that was on a lane to `node` that is lost."""
    if verb.served:
        return uncertain(session, verb.args, node)
    return replace(verb, lost_on=node) if sent and verb.command.is_write else verb


def uncertain(session: Session, args: list[bytes], node: str) -> Ready:
    """The answer for a command of which nobody can know whether the server `node` executed it."""
    session.router.disturbed().uncertain += 1
    name = lookup(args).name.replace("|", " ")
    text = f"UNCERTAIN {name} may or may not have been applied: master {node} was lost before it replied"
    session.complain(name, text)
    return Ready(resp.error(text))


def again(session: Session, args: list[bytes], need: Need, lost_on: str = "") -> Entry:
    """A command to be sent once more; what it did at the server `lost_on`, if there is one, nobody knows."""
    session.router.disturbed().replayed += 1
    entry = session.busy or session.entry(args)
    if isinstance(entry, Run):
        entry.lost_on = lost_on
    return entry
