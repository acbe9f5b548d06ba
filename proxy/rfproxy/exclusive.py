"""What a session needs a connection of its own for, and what becomes of that when the connection dies.

    Watching   WATCH until EXEC, DISCARD or UNWATCH: every command of the session goes there
    Blocking   one blocking command: nothing else of the session is sent meanwhile
    Streaming  subscriptions and MONITOR: what the server sends is passed on as it comes

The connection is an exclusive `Lane`. These objects hold the state that must survive it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import Enum

import hiredis

from rfprotocol.framing import split

LOST = "connection lost"


class WatchState(Enum):
    """Where a session stands that has watched keys. BROKEN: the watched keys may have changed unseen."""

    WATCHING = "watching"
    QUEUEING = "queueing"
    BROKEN = "broken"
    BROKEN_QUEUEING = "broken, queueing"
    OVER = "over"


_WATCH_TABLE = {
    (WatchState.WATCHING, "MULTI"): WatchState.QUEUEING,
    (WatchState.WATCHING, "UNWATCH"): WatchState.OVER,
    (WatchState.WATCHING, LOST): WatchState.BROKEN,
    (WatchState.QUEUEING, "EXEC"): WatchState.OVER,
    (WatchState.QUEUEING, "DISCARD"): WatchState.OVER,
    (WatchState.QUEUEING, LOST): WatchState.BROKEN_QUEUEING,
    (WatchState.BROKEN, "MULTI"): WatchState.BROKEN_QUEUEING,
    (WatchState.BROKEN, "UNWATCH"): WatchState.OVER,
    (WatchState.BROKEN_QUEUEING, "EXEC"): WatchState.OVER,
    (WatchState.BROKEN_QUEUEING, "DISCARD"): WatchState.OVER,
}


class Watch:
    """The state of one WATCH, as of the last command sent and as of the last one answered.

    What the table does not list leaves a state where it is.
    """

    def __init__(self) -> None:
        self.state = WatchState.WATCHING
        self.answered = WatchState.WATCHING
        self.spoilt = False
        """A command that should have moved the state was refused: the server may stand elsewhere."""

    def sent(self, name: str) -> None:
        """The command `name` went out, or was answered by the proxy itself."""
        self.state = _WATCH_TABLE.get((self.state, name), self.state)

    def heard(self, name: str) -> bool:
        """The next command is accounted for; returns whether it was merely queued behind MULTI."""
        queued = self.answered in (WatchState.QUEUEING, WatchState.BROKEN_QUEUEING)
        self.answered = _WATCH_TABLE.get((self.answered, name), self.answered)
        return queued

    def lost(self) -> None:
        """The connection died and everything sent on it was accounted for."""
        self.state = self.answered = _WATCH_TABLE.get((self.answered, LOST), self.answered)

    @property
    def broken(self) -> bool:
        """Whether EXEC must answer nil."""
        return self.state in (WatchState.BROKEN, WatchState.BROKEN_QUEUEING)


_TIMEOUT_AT = {
    **dict.fromkeys(["BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BZPOPMIN", "BZPOPMAX", "WAIT", "WAITAOF"], -1),
    **dict.fromkeys(["BLMPOP", "BZMPOP"], 1),
}
_IN_MILLISECONDS = frozenset(["XREAD", "XREADGROUP", "WAIT", "WAITAOF"])


def remaining(name: str, args: Sequence[bytes], elapsed: float) -> list[bytes] | None:
    """The same blocking command for what is left of its timeout, or None when nothing is left.

    A timeout of 0 means for ever and stays. `elapsed` in seconds. What cannot be read is left to the server.
    """
    place = _timeout_place(name, args)
    try:
        timeout = float(args[place]) if place is not None else 0.0
    except (ValueError, IndexError):
        return list(args)
    if place is None or not 0 < timeout < math.inf or not elapsed:
        return list(args)
    scale = 1000 if name in _IN_MILLISECONDS else 1
    left = timeout - elapsed * scale
    if left <= 0:
        return None
    shorter = list(args)
    shorter[place] = b"%d" % max(1, round(left)) if scale == 1000 else b"%.3f" % max(left, 0.001)
    return shorter


def _timeout_place(name: str, args: Sequence[bytes]) -> int | None:
    if name in ("XREAD", "XREADGROUP"):
        options = [arg.upper() for arg in args]
        return options.index(b"BLOCK") + 1 if b"BLOCK" in options else None
    return _TIMEOUT_AT.get(name)


_SUBSCRIBE = {b"subscribe": b"SUBSCRIBE", b"psubscribe": b"PSUBSCRIBE", b"ssubscribe": b"SSUBSCRIBE"}
_UNSUBSCRIBE = {b"unsubscribe": b"SUBSCRIBE", b"punsubscribe": b"PSUBSCRIBE", b"sunsubscribe": b"SSUBSCRIBE"}
_MESSAGES = frozenset([b"message", b"pmessage", b"smessage"])


class Stream:
    """What a session is subscribed to, and which commands on the stream's connection are still to be answered.

    Only subscribing commands, PING and MONITOR travel there. Each channel that is named gets a confirmation, an
    UNSUBSCRIBE without names one for each subscription (at least one); an error answers the whole command.
    """

    def __init__(self, *, monitor: bool = False) -> None:
        self._monitor = monitor
        self._subscribed: dict[tuple[bytes, bytes], None] = {}  # (command, channel), as confirmed
        self._unanswered: deque[list[bytes]] = deque()  # without the channels that were confirmed already
        self._swallow: deque[int] = deque()  # confirmations to come that the client has had, per command

    @property
    def waiting(self) -> bool:
        """Whether a reply is to come."""
        return bool(self._unanswered)

    @property
    def subscribed(self) -> bool:
        """Whether the session may do nothing but subscribe (in RESP2)."""
        return self._monitor or bool(self._subscribed)

    def beside(self, protocol: int) -> bool:
        """Whether replies can be told from the stream."""
        return protocol == 3 and not self._monitor

    @property
    def unanswered(self) -> int:
        """Commands without a reply."""
        return len(self._unanswered)

    def asked(self, args: Sequence[bytes]) -> None:
        """A command goes out on the stream's connection."""
        self._unanswered.append([args[0].upper(), *args[1:]])

    def requests(self) -> list[list[bytes]]:
        """The commands that bring a new connection to the same state; what was confirmed once is not shown twice."""
        kinds = dict.fromkeys(kind for kind, _ in self._subscribed)
        again = [[kind, *(channel for of, channel in self._subscribed if of == kind)] for kind in kinds]
        if self._monitor and not self._unanswered:
            again.append([b"MONITOR"])
        self._swallow = deque(max(1, len(command) - 1) for command in again)
        return [*again, *map(list, self._unanswered)]

    def pass_on(self, data: bytes) -> bytes:
        """Take whole frames from the server and return those that the client is due."""
        if not self._swallow and not self._unanswered:
            return data
        return b"".join(frame for frame in split(data) if self._due(frame))

    def _due(self, frame: bytes) -> bool:
        kind, channel = _head(frame)
        if kind in _MESSAGES:
            return True
        if self._swallow:
            self._swallow[0] -= 1
            if not self._swallow[0] or kind not in _SUBSCRIBE:
                self._swallow.popleft()
            return False
        if kind in _SUBSCRIBE:
            self._subscribed[(_SUBSCRIBE[kind], channel)] = None
        elif kind in _UNSUBSCRIBE:
            self._subscribed.pop((_UNSUBSCRIBE[kind], channel), None)
        if self._unanswered and self._answers(kind, channel):
            self._unanswered.popleft()
        return True

    def _answers(self, kind: bytes, channel: bytes) -> bool:
        """Whether this confirmation, or other reply, is the last one for the oldest command."""
        command = self._unanswered[0]
        if kind in _UNSUBSCRIBE and len(command) == 1:
            return not any(of == _UNSUBSCRIBE[kind] for of, _ in self._subscribed)
        if channel in command[1:]:
            del command[command.index(channel, 1)]
            return len(command) == 1
        return True


def _head(frame: bytes) -> tuple[bytes, bytes]:
    """`(kind, channel)` of a confirmation or message; two empty strings for any other frame."""
    if frame[:1] not in (b"*", b">") or not frame[1:2].isdigit():
        return b"", b""
    reader = hiredis.Reader()
    reader.feed(b"*" + frame[1:])
    parts = reader.gets()
    if not isinstance(parts, list) or len(parts) < 2 or not isinstance(parts[0], bytes):
        return b"", b""
    return parts[0], parts[1] if isinstance(parts[1], bytes) else b""
