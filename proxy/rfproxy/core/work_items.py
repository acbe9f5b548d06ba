"""What stands in a session's queue, in the order of the client's commands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from rfprotocol.resp.command_table import Command
from rfprotocol.resp.resp import RequestReader
from rfproxy.core.attempts import NEVER_SENT, Attempts

if TYPE_CHECKING:
    from rfproxy.session.session import Session


class Need(Enum):
    """Where a run may go."""

    ANY = "any"  # reads: a replica, or whoever is there
    MASTER = "master"
    URGENT = "urgent"  # the master, on a lane that stands, and where no write waits for replicas
    OWN = "own"  # the master, on a lane where nobody else waits behind it
    ANY_OWN = "any, own"  # reads, on such a lane


class Form(Enum):
    """How the replies of a run reach the client."""

    PLAIN = "plain"  # one reply per command, relayed as they come
    CURSOR = "cursor"  # the same for one command, and the cursor in its reply is marked with the server it belongs to
    BLOCK = "block"  # MULTI, the commands, EXEC: relayed together when the last one is in
    LAST = "last"  # only the last one is relayed
    CONSENT = "consent"  # an error is relayed; else the session does what it was asked for, with the server's consent
    DOUBT = "doubt"  # that it is answered at all shows that the server is a master: the client gets `reply`
    SIZE = "size"  # not relayed: the size of the key of a read, which decides whether that is sent
    STAND_IN = "stand-in"  # replaced by `reply`
    STREAM = "stream"  # one command of SUBSCRIBE and its kin: answered by a confirmation for each channel
    RESTORE = "restore"  # not relayed: it brings a new connection to where the former one was
    LEFTOVER = "leftover"  # replies that are dropped: the session has asked again on another lane (`overtaking`)


# By name, and final: looking up a member of an enumeration, or a variable of a module, costs several times as much.
ANYWHERE: Final = Need.ANY
NEEDS_MASTER: Final = Need.MASTER
URGENT: Final = Need.URGENT
OWN: Final = Need.OWN
ANY_OWN: Final = Need.ANY_OWN
PLAIN: Final = Form.PLAIN
CURSOR: Final = Form.CURSOR
LEFTOVER: Final = Form.LEFTOVER


class Run:
    """Consecutive commands that travel together: as the bytes they came in, and parsed, in case they go elsewhere."""

    __slots__ = (
        "_commands",
        "asked_before",
        "attempts",
        "count",
        "flushes",
        "form",
        "home",
        "left",
        "mark",
        "need",
        "raw",
        "reply",
        "sent",
        "session",
    )

    def __init__(
        self,
        session: Session,
        commands: list[list[bytes]] | int,
        raw: bytes,
        need: Need,
        form: Form = PLAIN,
        replies: int | None = None,
    ) -> None:
        """`commands`: only their number, when nobody has read them yet. `replies`: how many the server will give, when
        that is not one for each command."""
        self.session = session
        self._commands = None if isinstance(commands, int) else commands
        self.count = commands if isinstance(commands, int) else len(commands)
        self.raw = raw
        self.need = need
        self.form = form
        self.left = self.count if replies is None else replies
        """Replies still to come; a STREAM counts as one until its last confirmation."""
        self.reply = b""
        """Of a BLOCK or LAST: the replies so far. Of a STAND_IN or DOUBT: what the client gets."""
        self.mark = 0
        """Of a CURSOR: the mark of the server process that it was sent to, see `Cursors`."""
        self.flushes = 0
        """Of one that needs a lane of its own: see Scripts.executed."""
        self.sent = 0.0
        """When it was handed to the connection; seconds."""
        self.attempts: Attempts = NEVER_SENT
        """The earlier sendings of these commands."""
        self.asked_before = False
        """Whether it has overtaken a long reply."""
        self.home = ""
        """Of scripts that are loaded: where they were sent to."""

    @property
    def lost_on(self) -> str:
        """Of a write that is sent once more, and may have been executed: why there was no reply, in words."""
        return self.attempts.lost_on

    @property
    def commands(self) -> list[list[bytes]]:
        """The commands, read when they are asked for."""
        if self._commands is None:
            self._commands = RequestReader().feed(self.raw).commands
        return self._commands

    def leftover(self) -> Run:
        """What takes its place on a lane when it is asked for on another one."""
        left = Run(self.session, self.count, b"", self.need, Form.LEFTOVER, self.left)
        left.sent = self.sent
        return left

    def unanswered(self) -> list[list[bytes]]:
        """The commands whose replies have not been relayed."""
        return self.commands[self.count - self.left :] if self.form is PLAIN else self.commands


def alone(need: Need) -> Need:
    """The same need, on a connection that carries nothing else."""
    return Need.ANY_OWN if need is Need.ANY or need is Need.ANY_OWN else Need.OWN


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that is known already and waits for its turn."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client of another worker is found: the server's process, and the id there of its connection."""

    process: str
    number: bytes


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that the session handles itself, alone, when all before it is answered."""

    args: list[bytes]
    command: Command
    raw: bytes
    blocked_since: float | None = None
    """When a blocking command was first sent: it is asked again for the time that remains."""
    served: bool = False
    """Whether a blocking command has taken something: then it blocks no more, and may not be asked again. Its reply is
    kept until replicas have what it did (`durable`)."""
    attempts: Attempts = NEVER_SENT
    """As of a Run."""
    place: Place | None = None
    """Of CLIENT UNBLOCK: the client that it is about, when that is another worker's."""

    @property
    def lost_on(self) -> str:
        """As of a Run: a blocking command may have taken something from the server that was lost."""
        return self.attempts.lost_on


@dataclass(frozen=True, slots=True)
class Hangup:
    """The last words to a client."""

    reply: bytes


Entry = Run | Ready | Verb | Hangup
