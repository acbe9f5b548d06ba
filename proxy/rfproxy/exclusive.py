"""What a session needs a connection of its own for, and what becomes of that when the connection dies.

    Watching   WATCH until EXEC, DISCARD or UNWATCH: every command of the session goes there
    Blocking   one blocking command: nothing else of the session is sent meanwhile
    Streaming  subscriptions and MONITOR: what the server sends is passed on as it comes

The connection is an exclusive `Lane`. These objects hold the state that must survive it.
"""

from __future__ import annotations

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
    if place is None or timeout <= 0 or not elapsed:
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


_KINDS = {b"subscribe": b"SUBSCRIBE", b"psubscribe": b"PSUBSCRIBE", b"ssubscribe": b"SSUBSCRIBE"}
_ENDS = {b"unsubscribe": b"SUBSCRIBE", b"punsubscribe": b"PSUBSCRIBE", b"sunsubscribe": b"SSUBSCRIBE"}
_MESSAGES = (b"message", b"pmessage", b"smessage")


class Stream:
    """What a session has subscribed to: learnt from what it asks for and from what the server confirms."""

    def __init__(self, *, monitor: bool = False) -> None:
        self._monitor = monitor
        self._wanted: dict[tuple[bytes, bytes], bool] = {}  # (command, channel): whether it was confirmed
        self._swallow: set[tuple[bytes, bytes]] = set()
        self._swallow_ok = False
        self._plain = 0  # replies to come that are neither message nor confirmation
        self._left = 1  # subscriptions, as the server counts them

    @property
    def over(self) -> bool:
        """Whether nothing is subscribed to, and nothing is to come any more."""
        return not self._monitor and not self._left and not self._plain and not self._wanted

    def asked(self, args: Sequence[bytes]) -> None:
        """A command goes out on the stream's connection."""
        name = args[0].upper()
        if name in _KINDS.values():
            for channel in args[1:]:
                self._wanted.setdefault((name, channel), False)
        elif not self._monitor and not name.endswith(b"UNSUBSCRIBE"):
            self._plain += 1

    def requests(self) -> list[list[bytes]]:
        """The commands that bring a new connection to the same state; what was confirmed once is not shown twice."""
        self._swallow = {key for key, confirmed in self._wanted.items() if confirmed}
        self._plain = 0
        if self._monitor:
            self._swallow_ok = True
            return [[b"MONITOR"]]
        kinds = dict.fromkeys(kind for kind, _ in self._wanted)
        return [[kind, *(channel for k, channel in self._wanted if k == kind)] for kind in kinds]

    def pass_on(self, data: bytes) -> bytes:
        """Take whole frames from the server and return those that the client is due."""
        if self._monitor and not self._swallow_ok:
            return data
        return b"".join(frame for frame in split(data) if self._due(frame))

    def _due(self, frame: bytes) -> bool:
        if self._monitor:
            due, self._swallow_ok = not self._swallow_ok, False
            return due
        kind, channel, count = _confirmation(frame)
        if kind in _KINDS:
            key = (_KINDS[kind], channel)
            self._wanted[key] = True
            self._left = count
            if key in self._swallow:
                self._swallow.discard(key)
                return False
        elif kind in _ENDS:
            self._wanted.pop((_ENDS[kind], channel), None)
            self._left = count
        elif kind not in _MESSAGES:
            self._plain = max(0, self._plain - 1)
        return True


def _confirmation(frame: bytes) -> tuple[bytes, bytes, int]:
    """`(kind, channel, subscriptions left)`; only the kind of what is not a confirmation."""
    if frame[:1] not in (b"*", b">"):
        return b"", b"", 0
    reader = hiredis.Reader()
    reader.feed(b"*" + frame[1:])
    parts = reader.gets()
    kind = bytes(parts[0])
    if kind not in _KINDS and kind not in _ENDS:
        return kind, b"", 0
    return kind, parts[1] or b"", int(parts[2])
