"""The connection on which a client is told what others track: one of its own, to the master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfproxy.core.identity import Duty
from rfproxy.pinned.pin_state import Ties
from rfproxy.semantics import tracking

if TYPE_CHECKING:
    from rfproxy.session.session import Session
    from rfproxy.upstream.connection import Lane


def ties_of(session: Session) -> Ties:
    """Its ties, empty ones if it has none."""
    if session.ties is None:
        session.ties = Ties()
    return session.ties


def reach(target: Session, now: float) -> bytes | None:
    """The server's id of that connection; None until it is open and its id known.

    The caller is among `target.ties.callers`, so that the connection is kept, and is called back when it changes.
    """
    ties_of(target)
    if not _is_to_master(target.own):
        target.pump(now)
    own = target.own
    return place(target) if own is not None and _is_to_master(own) and own.listen() else None


def reach_self(session: Session) -> bytes | None:
    """The same for a client that is told itself, and asks for it just now."""
    own = session.own
    return place(session) if own is not None and _is_to_master(own) and own.listen() else None


def _is_to_master(lane: Lane | None) -> bool:
    return lane is not None and lane.key.duty is Duty.MASTER


def place(target: Session | None) -> bytes | None:
    """The server's id of a client's own connection, NOBODY if the server does not tell; None: it is not known yet."""
    welcome = target.own.welcome if target is not None and target.own is not None else None
    if welcome is None:
        return None
    return b"%d" % welcome.client_id if welcome.client_id else tracking.NOBODY


def forget_all(target: Session, protocol: int) -> None:
    """Any key may have changed that a client with this `protocol` tracks: tell so the client that is told."""
    stream = target.ties.stream if target.ties is not None else None
    subscribed = stream is not None and stream.confined(2)
    target.wire_to_client.write(tracking.everything(protocol, target.identity.protocol, subscribed=subscribed))
