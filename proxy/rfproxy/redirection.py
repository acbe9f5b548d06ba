"""CLIENT TRACKING ... REDIRECT: what one client tracks, another one is told.

    tracker ── own connection ── "REDIRECT 7001" ──> server ── 7001 ──> own connection ── target

Both need connections of their own, and the target's comes first, since the server has to be given its id. When the
target has another connection the redirection is made anew. In between something may have changed untold, so that the
target is told to forget everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfproxy import tracking
from rfproxy.greeting import Duty
from rfproxy.ties import Ties, bring_back

if TYPE_CHECKING:
    from rfproxy.lane import Lane
    from rfproxy.session import Session

TRACKING = "CLIENT|TRACKING"


def restore(session: Session, ties: Ties, lane: Lane) -> None:
    """Bring a new connection of the session to where the former one was, as far as settings are concerned."""
    for name, commands in ties.settings.items():
        for args in commands:
            number = tracking.redirects_to(args) if name == TRACKING else 0
            if not number:
                bring_back(session, lane, [args], 1)
            elif (place := _place(ties.target)) is not None:
                bring_back(session, lane, [tracking.redirected(args, place)], 1)
            elif session.identity.protocol == 3:
                session.wire_to_client.write(tracking.broken(number))
    ties.target_lane = ties.target.own if ties.target is not None else None


def reached(session: Session, target: Session, now: float) -> bytes | None:
    """The server's id of the one to be told; None until it has a connection of its own whose id is known.

    Whoever waits for that is called back.
    """
    if session.ties is None:
        return None
    if target.ties is None:
        target.ties = Ties()
    session.ties.targets[target] = None
    target.ties.callers[session] = None
    if target is not session and not _is_to_master(target.own):
        target.pump(now)
    own = target.own
    return _place(target) if own is not None and _is_to_master(own) and own.listen() else None


def _is_to_master(lane: Lane | None) -> bool:
    return lane is not None and lane.key.duty is Duty.MASTER


def _place(target: Session | None) -> bytes | None:
    welcome = target.own.welcome if target is not None and target.own is not None else None
    if welcome is None:
        return None
    return b"%d" % welcome.client_id if welcome.client_id else tracking.NOBODY


def followed(session: Session, ties: Ties, lane: Lane, now: float) -> bool:
    """Whether the server knows the connection of the one to be told; tells it when that has changed."""
    if ties.target is None or ties.target.own is ties.target_lane or ties.transaction is not None:
        return True
    if session.outstanding or reached(session, ties.target, now) is None:
        return False
    bring_back(session, lane, [[b"CLIENT", b"TRACKING", b"OFF"]], 1)
    restore(session, ties, lane)
    forget_all(session, ties)
    return True


def forget_all(session: Session, ties: Ties) -> None:
    """What changed meanwhile nobody can tell: all that was tracked is to be forgotten."""
    found = tracking.wanted(ties.settings.get(TRACKING, []))
    told = ties.target or session
    if found is None or (found.redirect and ties.target is None):
        return
    stream = told.ties.stream if told.ties is not None and found.redirect else None
    subscribed = stream is not None and stream.confined(2)
    told.wire_to_client.write(
        tracking.everything(session.identity.protocol, told.identity.protocol, subscribed=subscribed)
    )


def leave(session: Session, ties: Ties, now: float, *, but: Session | None = None) -> None:
    """Nobody is told in the place of this session any more, save that one."""
    for target in [one for one in ties.targets if one is not but]:
        del ties.targets[target]
        if target.ties is None:
            continue
        target.ties.callers.pop(session, None)
        if target is not session and not target.outstanding:
            target.settle(now)
    ties.target = but


def call_back(ties: Ties, now: float) -> None:
    """Something has changed about the connection of a session that others wait to be told by."""
    for caller in list(ties.callers):
        caller.pump(now)


def overheard(session: Session, ties: Ties, frame: bytes) -> bytes:
    """What the client is to hear of something that answers no command."""
    if not tracking.is_broken(frame):
        return frame
    found = tracking.wanted(ties.settings.get(TRACKING, []))
    return tracking.broken(found.redirect) if found is not None and ties.target is None else b""
