"""What stands in a session's queue, in the order of the client's commands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from rfprotocol.commands import Command

if TYPE_CHECKING:
    from rfproxy.session import Session


class Need(Enum):
    """Where a run may go."""

    ANY = "any"  # reads: a replica, or whoever is there
    MASTER = "master"


class Form(Enum):
    """How the replies of a run reach the client."""

    PLAIN = "plain"  # one reply per command, relayed as they come
    BLOCK = "block"  # only the last reply is relayed: MULTI, the commands, EXEC
    TRIAL = "trial"  # nothing is relayed: that it is answered at all shows that the server takes the session
    STAND_IN = "stand-in"  # the server's reply is replaced by `reply`
    MUTE = "mute"  # answered by pushes, or by a stream: no replies to count


class Run:
    """Consecutive commands that travel together: as the bytes they came in, and parsed, in case they go elsewhere."""

    __slots__ = ("commands", "form", "left", "need", "raw", "reply", "session")

    def __init__(
        self,
        session: Session,
        commands: list[list[bytes]],
        raw: bytes,
        need: Need,
        form: Form = Form.PLAIN,
        replies: int | None = None,
    ) -> None:
        """`replies`: how many the server will give, when that is not one for each command."""
        self.session = session
        self.commands = commands
        self.raw = raw
        self.need = need
        self.form = form
        self.left = len(commands) if replies is None else replies
        """Replies still to come."""
        self.reply = b""
        """Of a BLOCK: the replies so far. Of a STAND_IN: what the client gets."""

    def unanswered(self) -> list[list[bytes]]:
        """The commands whose replies have not been relayed."""
        return self.commands[len(self.commands) - self.left :] if self.form is Form.PLAIN else self.commands


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that is known already and waits for its turn."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that the session handles itself, alone, when all before it is answered."""

    args: list[bytes]
    command: Command
    raw: bytes
    blocked_since: float | None = None
    """When a blocking command was first sent: it is asked again for the time that remains."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """The last words to a client."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Resume:
    """Subscribe again: the connection that the stream came from is gone."""


Entry = Run | Ready | Verb | Hangup | Resume
