"""CLIENT TRACKING ... REDIRECT: what one client tracks, another one is told.

    tracker ── own connection ── "REDIRECT 7001" ──> server ── 7001 ──> own connection ── target

Both need connections of their own, and the target's comes first, since the server has to be given its id. When the
target has another connection the redirection is made anew. In between something may have changed untold, so that the
target is told to forget everything. The target may be a client of another worker (`remote_redirect`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfproxy.core.work_items import Place
from rfproxy.pinned import redirect_connection, remote_redirect
from rfproxy.pinned.pin_state import Ties, bring_back
from rfproxy.pinned.remote_redirect import FarCaller, FarTarget
from rfproxy.pinned.session_registry import sessions_of
from rfproxy.semantics import tracking

if TYPE_CHECKING:
    from rfproxy.session.session import Session
    from rfproxy.upstream.connection import Lane

TRACKING = "CLIENT|TRACKING"


def find(session: Session, number: int) -> Session | FarTarget | None:
    """The client with that id: this worker's or another one's."""
    target = sessions_of(session.router).get(number)
    return target if target is not None else remote_redirect.find(session, number)


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
    ties.told_of = connection(ties.target)


def reached(session: Session, target: Session | FarTarget, now: float) -> bytes | None:
    """The server's id of the one to be told; None until it has a connection of its own whose id is known.

    Whoever waits for that is called back.
    """
    if session.ties is None:
        return None
    session.ties.targets[target] = None
    if isinstance(target, FarTarget):
        return target.reach(session, now)
    redirect_connection.ties_of(target).callers[session] = None
    return redirect_connection.reach_self(session) if target is session else redirect_connection.reach(target, now)


def connection(target: Session | FarTarget | None) -> Lane | Place | None:
    """The connection on which it is told."""
    if isinstance(target, FarTarget):
        return target.place
    return target.own if target is not None else None


def _place(target: Session | FarTarget | None) -> bytes | None:
    if isinstance(target, FarTarget):
        return target.place.number if target.place is not None else None
    return redirect_connection.place(target)


def followed(session: Session, ties: Ties, lane: Lane, now: float) -> bool:
    """Whether the server knows the connection of the one to be told; tells it when that has changed."""
    if ties.target is None or connection(ties.target) == ties.told_of or ties.transaction is not None:
        return True
    if session.outstanding or reached(session, ties.target, now) is None:
        return False
    bring_back(session, lane, [[b"CLIENT", b"TRACKING", b"OFF"]], 1)
    restore(session, ties, lane)
    forget_all(session, ties)
    return True


def is_outdated(session: Session, args: list[bytes], reply: bytes) -> bool:
    """Whether the server refuses these because a client of another worker has another connection by now, or has left.

    Then that worker is asked, and the redirection made anew, or broken.
    """
    target = session.ties.target if session.ties is not None else None
    if session.ties is None or not isinstance(target, FarTarget) or not tracking.redirects_to(args):
        return False
    if reply != _NO_SUCH_CLIENT or not target.has_moved(session):
        return False
    session.ties.told_of = None
    return True


_NO_SUCH_CLIENT = resp.error("ERR The client ID you want redirect to does not exist")


def forget_all(session: Session, ties: Ties) -> None:
    """What changed meanwhile nobody can tell: all that was tracked is to be forgotten."""
    found = tracking.wanted(ties.settings.get(TRACKING, []))
    if found is None or (found.redirect and ties.target is None):
        return
    told = ties.target or session
    if isinstance(told, FarTarget):
        told.forget_all(session.identity.protocol)
    elif found.redirect:
        redirect_connection.forget_all(told, session.identity.protocol)
    else:
        session.wire_to_client.write(
            tracking.everything(session.identity.protocol, session.identity.protocol, subscribed=False)
        )


def leave(session: Session, ties: Ties, now: float, *, but: Session | FarTarget | None = None) -> None:
    """Nobody is told in the place of this session any more, save that one."""
    for target in [one for one in ties.targets if one is not but]:
        del ties.targets[target]
        if isinstance(target, FarTarget):
            target.release(session)
            continue
        if target.ties is None:
            continue
        target.ties.callers.pop(session, None)
        if target is not session and not target.outstanding:
            target.settle(now)
    ties.target = but


def refused(session: Session, now: float) -> None:
    """The server did not take a setting: whoever was to be told needs no connection for it."""
    if session.ties is not None and session.ties.targets:
        leave(session, session.ties, now, but=session.ties.target)


def call_back(ties: Ties, now: float) -> None:
    """Something has changed about the connection of a session that others wait to be told by."""
    for caller in list(ties.callers):
        caller.pump(now)


def forsake(session: Session, ties: Ties) -> None:
    """A client is gone that others were told by."""
    for caller in ties.callers:
        if isinstance(caller, FarCaller):
            caller.forsaken()
        elif caller.ties is not None and caller.ties.target is session:
            caller.ties.target = None
    ties.callers = {caller: None for caller in ties.callers if not isinstance(caller, FarCaller)}


def overheard(session: Session, ties: Ties, frame: bytes) -> bytes:
    """What the client is to hear of something that answers no command."""
    if not tracking.is_broken(frame):
        return frame
    if isinstance(ties.target, FarTarget):
        ties.target.said_broken(session)
    found = tracking.wanted(ties.settings.get(TRACKING, []))
    return tracking.broken(found.redirect) if found is not None and ties.target is None else b""
