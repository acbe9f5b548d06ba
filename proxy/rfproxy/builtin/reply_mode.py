"""CLIENT REPLY: whether a client wants to hear anything."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from rfproxy.core.work_items import Entry, Run

if TYPE_CHECKING:
    from rfproxy.session.session import Session


class ClientWriter(Protocol):
    """The client's end, as the shell offers it."""

    def write(self, data: bytes) -> None:
        """Send to the client; silently dropped once it is gone."""

    def close(self) -> None:
        """Close when everything written has been sent."""

    def abort(self) -> None:
        """Close at once."""

    def resume(self) -> None:
        """What the session holds has become less, or it may be read from although it holds much."""

    @property
    def fd(self) -> int:
        """The number of the socket; -1 once it is gone."""

    @property
    def unread(self) -> int:
        """Bytes that wait for the client to read them."""


class Replies(Enum):
    """Which replies a client gets."""

    ON = "on"
    OFF = "off"
    SKIP_NEXT = "not the next one"
    SKIP = "not the one that is under way"


class Muted:
    """A client's end that replies do not reach."""

    def __init__(self, client: ClientWriter) -> None:
        self._client = client

    def write(self, data: bytes) -> None:
        """Drop it."""

    def close(self) -> None:
        """Close when everything written has been sent."""
        self._client.close()

    def abort(self) -> None:
        """Close at once."""
        self._client.abort()

    def resume(self) -> None:
        """What the session holds has become less, or it may be read from although it holds much."""
        self._client.resume()

    @property
    def fd(self) -> int:
        """The number of the socket."""
        return self._client.fd

    @property
    def unread(self) -> int:
        """Bytes that wait for the client to read them."""
        return self._client.unread


def say(session: Session, replies: Replies) -> None:
    """What the client wants to hear from now on."""
    session.replies = replies
    session.client = session.wire_to_client if replies is Replies.ON else Muted(session.wire_to_client)


def push(session: Session, frame: bytes) -> None:
    """Messages and confirmations of subscriptions pass CLIENT REPLY OFF (CLIENT_PUSHING in networking.c)."""
    (session.wire_to_client if frame[:1] in (b">", b"*") else session.client).write(frame)


def first(session: Session) -> Entry:
    """Take the head of the queue: one command alone, if only one is not to be answered."""
    entry = session.pending.popleft()
    if session.replies is not Replies.SKIP_NEXT or not isinstance(entry, Run) or entry.count == 1:
        return entry
    alone, *rest = [session.entry(args) for args in entry.commands]
    session.pending.extendleft(reversed(rest))
    return alone


def act(session: Session, entry: Entry, now: float) -> bool:
    """Act on an entry; False when it has to wait.

    One that is not to be answered travels alone: only so it is clear, whatever becomes of it, whose reply is whose.
    """
    replies = session.replies
    if replies is not Replies.OFF and session.outstanding:
        return False
    if replies is Replies.SKIP:
        say(session, Replies.ON)
    gone = session.act(entry, now)
    if gone and replies is session.replies is Replies.SKIP_NEXT:
        session.replies = Replies.SKIP
    return gone
