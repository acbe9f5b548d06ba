"""What ties a session to a connection of its own, and how the next connection is brought to the same state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfproxy.core.work_items import Form, Need, Place, Run
from rfproxy.semantics.subscriptions import Stream
from rfproxy.semantics.transaction_state import Transaction

if TYPE_CHECKING:
    from rfproxy.pinned.remote_redirect import FarCaller, FarTarget
    from rfproxy.session.session import Session
    from rfproxy.upstream.connection import Lane


class Ties:
    """A transaction, subscriptions, settings of the connection: as long as one is left, the session stands apart."""

    def __init__(self) -> None:
        self.transaction: Transaction | None = None
        self.stream: Stream | None = None
        self.settings: dict[str, list[list[bytes]]] = {}
        """CLIENT subcommand: the commands that set it, for settings that are kept by the server."""
        self.target: Session | FarTarget | None = None
        """Who is told what CLIENT TRACKING finds, when that is another one (REDIRECT) and still there."""
        self.told_of: Lane | Place | None = None
        """The connection of the target that the server knows of."""
        self.targets: dict[Session | FarTarget, None] = {}
        """Those that have a connection of their own for the sake of this session, to be told, or to be in a moment."""
        self.callers: dict[Session | FarCaller, None] = {}
        """The sessions that this one is a target of."""
        self.restored = True
        """Whether the connection has been brought to where the former one was."""
        self.adrift = False
        """The server behind the connection refuses what only a master does: it is left when all is answered."""

    @property
    def needs_lane(self) -> bool:
        """Whether there is something that only a connection can hold."""
        held = self.transaction is not None and self.transaction.needs_lane
        return held or self.listening

    @property
    def listening(self) -> bool:
        """Whether the server may speak without having been asked."""
        return self.stream is not None or bool(self.settings) or bool(self.callers)

    def unasked(self, frame: bytes, protocol: int) -> bool:
        """Whether a frame answers no command."""
        if self.stream is not None:
            return self.stream.unasked(frame, protocol)
        return frame[:1] == b">"

    def loosen(self) -> bool:
        """Drop what is over; whether nothing is left."""
        if self.transaction is not None and self.transaction.over:
            self.transaction = None
        if self.stream is not None and self.stream.over and self.transaction is None:  # EXEC may subscribe, too
            self.stream = None
        return self.transaction is None and not self.listening


def bring_back(session: Session, lane: Lane, commands: list[list[bytes]], replies: int) -> Run:
    """Say on a new connection what the client must not hear of; so many replies will come."""
    run = Run(session, commands, resp.encode_commands(commands), Need.MASTER, Form.RESTORE, replies)
    session.send(run, lane)
    return run
