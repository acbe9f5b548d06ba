"""What stands in a session's queue, in the order of the client's commands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from rfprotocol.resp.command_table import Command
from rfprotocol.resp.reply_scanner import Taken
from rfprotocol.resp.resp import RequestReader
from rfprotocol.topology.topology import Node
from rfproxy.core.attempts import NEVER_SENT, Attempts, Loss
from rfproxy.core.durability import Shortfall
from rfproxy.core.identity import Identity
from rfproxy.core.ports import UpstreamConnection


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
    LEFTOVER = "leftover"  # replies to be dropped: asked again on another lane (`long_reply_reissue`)


# By name, and final: looking up a member of an enumeration, or a variable of a module, costs several times as much.
ANYWHERE: Final = Need.ANY
NEEDS_MASTER: Final = Need.MASTER
URGENT: Final = Need.URGENT
OWN: Final = Need.OWN
ANY_OWN: Final = Need.ANY_OWN
PLAIN: Final = Form.PLAIN
CURSOR: Final = Form.CURSOR
LEFTOVER: Final = Form.LEFTOVER


class ReplyTarget:
    """What an upstream connection asks of the session that its replies are for.

    It stands here, and not with the other ports, since a run belongs to one, and is what most is asked about.
    """

    def __init__(self, number: int, identity: Identity) -> None:
        self.number = number
        self.identity = identity
        self.outstanding = 0
        """Replies to come."""
        self.choked = False
        """Whether the client has much to read: nothing more is asked for it."""
        self.output_limited = False
        """Whether it is closed when too much waits, so what was asked for is read from servers."""
        self.shortfall: Shortfall | None = None
        """Of the replies that are being delivered."""

    # --- its state

    @property
    @abstractmethod
    def receptive(self) -> bool:
        """Whether to read from the connection that it has for itself."""

    @property
    @abstractmethod
    def blocked(self) -> bool:
        """Whether a blocking command is under way."""

    @property
    @abstractmethod
    def queued_commands(self) -> Iterable[list[bytes]]:
        """The commands that the server has queued behind MULTI."""

    @property
    @abstractmethod
    def answered_queueing(self) -> bool:
        """Whether the next reply is that of a command queued behind MULTI."""

    @abstractmethod
    def exec_replicates(self, *, more_in_flight: bool) -> bool:
        """Whether EXEC may send something to replicas; `more_in_flight` may become part of the transaction."""

    @abstractmethod
    def relays(self, run: Run) -> bool:
        """Whether replies to this run go to the client unseen, so that a long one may go in parts."""

    @abstractmethod
    def waits_only_for(self, replies: int) -> bool:
        """Whether these replies, which are relayed unseen, are all that it waits for."""

    @abstractmethod
    def rests_on(self, connection: UpstreamConnection) -> bool:
        """Whether a planned change need not wait for this connection: it only waits for what others do."""

    # --- replies

    @abstractmethod
    def deliver(self, run: Run, taken: Taken, now: float) -> None:
        """Take replies to the oldest commands outstanding."""

    @abstractmethod
    def confirmed(self, run: Run, frame: bytes) -> bool:
        """Take a confirmation; whether it is the last one that a STREAM gets."""

    @abstractmethod
    def unasked(self, frame: bytes) -> bool:
        """Whether what the server sent on the session's own connection answers no command."""

    @abstractmethod
    def overhears(self, frame: bytes) -> bool:
        """Take what answers no command; False if it does."""

    @abstractmethod
    def pass_on(self, data: bytes) -> None:
        """Take bytes of a tunnel."""

    @abstractmethod
    def was_served(self) -> None:
        """A blocking command has taken what it waited for: it must not be asked again when the connection dies."""

    # --- its commands

    @abstractmethod
    def returned(self, run: Run, connection: UpstreamConnection, loss: Loss) -> None:
        """Take a run back: the connection is closed, or may not be written to. Nothing is sent from here."""

    @abstractmethod
    def reissue(self, run: Run, again: Run, connection: UpstreamConnection) -> None:
        """Wait no more for `run`, and send the same `again` on another connection."""

    @abstractmethod
    def decide_unanswered(self, run: Run, node: Node, now: float, *, oldest: bool) -> None:
        """Decide about a run that a silent server may be about to die of; `oldest` of those of the session."""

    @abstractmethod
    def settle(self, now: float) -> None:
        """Go on: a connection has no more for this session for the moment, or gave something back."""

    @abstractmethod
    def pump(self, now: float) -> None:
        """Let go whatever may go now."""

    # --- its connection

    @abstractmethod
    def lane_ready(self, now: float) -> None:
        """The connection of its own is greeted."""

    @abstractmethod
    def lane_lost(self, connection: UpstreamConnection, now: float) -> None:
        """The connection of its own is closed, and what was on it has been decided upon."""

    # --- defects

    def attend(self, what: Callable[[float], None], now: float) -> None:
        """Do something of this session's for somebody who has others to attend to."""
        try:
            what(now)
        except Exception as error:
            self.fail(error, now)

    @abstractmethod
    def fail(self, error: Exception, now: float) -> None:
        """Close the client: something went wrong that should not be possible."""


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
        session: ReplyTarget,
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
