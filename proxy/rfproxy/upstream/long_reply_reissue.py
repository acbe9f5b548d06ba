"""Reads that wait behind a very long reply, or one that nobody reads, are asked once more, on another lane to the same
server.

The server executes them where they are, too, and what it replies there is dropped: that is why the long reply has to be
worth it, and why nobody is asked for more than twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rfprotocol.resp import resp
from rfproxy.core.attempts import Loss
from rfproxy.core.work_items import Form, Need, ReplyTarget, Run
from rfproxy.upstream.connection import Lane, LaneState

WORTH: Final = 8 << 20
"""Bytes still to come of a reply that is overtaken: some ten milliseconds of a CPU."""


def worth_while(lane: Lane) -> bool:
    """Whether what is behind the head of a lane would wait for long."""
    return lane.to_come >= WORTH or lane.stalled


def overtake(parked: Iterable[Lane], lane: Lane, now: float) -> None:
    """From lanes with long replies to one that stands, where they have the same key."""
    for other in parked:
        under_way = other.parked and other.state is LaneState.READY and other.in_flight
        if under_way and other.key == lane.key and worth_while(other):
            _overtake(other, lane, now)


def _overtake(parked: Lane, lane: Lane, now: float) -> None:
    behind: dict[ReplyTarget, list[Run]] = {}
    for run in parked.in_flight:
        behind.setdefault(run.session, []).append(run)
    behind.pop(parked.in_flight[0].session)  # the client has a part of the reply, and what it asked for next comes next
    moving = {session: runs for session, runs in behind.items() if may_go(session, runs)}
    parked.leave_behind({run for runs in moving.values() for run in runs})
    for session, runs in moving.items():
        for run in runs:
            session.reissue(run, once_more(run, parked, now), lane)
    for session in moving:
        session.attend(session.pump, now)


def may_go(session: ReplyTarget, runs: list[Run]) -> bool:
    """Whether these are all that a client waits for, and reads, of which none has been asked for twice."""
    simple = all(run.form is Form.PLAIN and run.need is Need.ANY and not run.asked_before for run in runs)
    return simple and session.waits_only_for(sum(run.left for run in runs))


def once_more(run: Run, lane: Lane, now: float) -> Run:
    """What is unanswered of a run that is in flight on `lane`, to be sent on another one."""
    whole = run.left == run.count
    commands: list[list[bytes]] | int = run.count if whole else run.unanswered()
    raw = run.raw if isinstance(commands, int) else resp.encode_commands(commands)
    again = Run(run.session, commands, raw, run.need)
    again.asked_before = True
    again.attempts = run.attempts.after(Loss.WITHDRAWN, lane.key.node, run.sent, now)
    return again
