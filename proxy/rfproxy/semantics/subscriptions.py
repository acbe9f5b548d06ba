"""What a session is subscribed to, and which frames on its connection are messages rather than replies.

SUBSCRIBE and its kin are answered by a confirmation for each channel that is named; UNSUBSCRIBE without names by
one for each subscription, at least one; an error answers the whole command. Messages come at any time in between
(pubsub.c). RESP3 marks both as pushes; in RESP2 a subscribed client may say nothing else, so that messages can be told
from replies. MONITOR's lines are told from other status replies by the time they begin with.
"""

from __future__ import annotations

import hiredis

_SUBSCRIBE = {b"subscribe": b"SUBSCRIBE", b"psubscribe": b"PSUBSCRIBE", b"ssubscribe": b"SSUBSCRIBE"}
_UNSUBSCRIBE = {b"unsubscribe": b"SUBSCRIBE", b"punsubscribe": b"PSUBSCRIBE", b"sunsubscribe": b"SSUBSCRIBE"}
_MESSAGES = frozenset([b"message", b"pmessage", b"smessage"])


class Stream:
    """The subscriptions of one session, as confirmed, and the commands about them that are under way."""

    def __init__(self) -> None:
        self.asked = 0
        """Commands without their last confirmation."""
        self.monitor = False
        self._subscribed: dict[tuple[bytes, bytes], None] = {}  # (command, channel)
        self._counts: dict[bytes, int] = {}  # of these, by command

    @property
    def subscribed(self) -> bool:
        """Whether messages may come."""
        return self.monitor or bool(self._subscribed)

    @property
    def over(self) -> bool:
        """Whether nothing is subscribed to, and nothing is about to be."""
        return not self.asked and not self.subscribed

    def confined(self, protocol: int) -> bool:
        """Whether the session may do nothing but listen: RESP3 has room for replies beside the messages."""
        return protocol == 2 and bool(self._subscribed)

    def count(self, command: bytes) -> int:
        """How many channels, or patterns, are subscribed to with SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE."""
        return self._counts.get(command, 0)

    def _set(self, command: bytes, channel: bytes, *, subscribed: bool) -> None:
        if subscribed is ((command, channel) in self._subscribed):
            return
        if subscribed:
            self._subscribed[command, channel] = None
        else:
            del self._subscribed[command, channel]
        self._counts[command] = self.count(command) + (1 if subscribed else -1)

    def requests(self) -> list[list[bytes]]:
        """The commands that bring a new connection to the same state. Each channel is confirmed."""
        kinds = dict.fromkeys(kind for kind, _ in self._subscribed)
        again = [[kind, *(channel for of, channel in self._subscribed if of == kind)] for kind in kinds]
        return [*again, [b"MONITOR"]] if self.monitor else again

    def unasked(self, frame: bytes, protocol: int) -> bool:
        """Whether a frame is a message, or another push, rather than a reply."""
        if frame[:1] == b">":
            return _head(frame)[0] not in _CONFIRMATIONS
        if self.monitor and frame[:1] == b"+":
            return frame[1:2].isdigit()
        return protocol == 2 and bool(self._subscribed) and frame[:1] == b"*" and _head(frame)[0] in _MESSAGES

    def confirms(self, command: list[bytes], frame: bytes) -> bool:
        """Take a reply to `command`, from which the channel is removed; whether it is the last one."""
        kind, channel = _head(frame)
        if kind in _SUBSCRIBE:
            self._set(_SUBSCRIBE[kind], channel, subscribed=True)
        elif kind in _UNSUBSCRIBE:
            self._set(_UNSUBSCRIBE[kind], channel, subscribed=False)
        else:
            self.monitor = self.monitor or (command[0].upper() == b"MONITOR" and frame == b"+OK\r\n")
            return True
        if kind in _UNSUBSCRIBE and len(command) == 1:
            return not self.count(_UNSUBSCRIBE[kind])
        try:
            del command[command.index(channel, 1)]  # as a rule the first one
        except ValueError:
            return True
        return len(command) == 1


_CONFIRMATIONS = _SUBSCRIBE.keys() | _UNSUBSCRIBE.keys()


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
