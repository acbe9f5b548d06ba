"""What a client has sent and nobody has read yet: its bytes as they came, until the commands before them are under way.

A command that was read costs several objects, often ten times its own bytes. So when a client sends more than can go
now, the rest is kept unread. It costs its bytes and about a hundredth more.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_SMALL: Final = 16 * 1024
"""Bytes: shorter pieces are put together, since each object has a cost of its own."""


class Inbox:
    """Bytes in the order in which they came, taken out in pieces of any length."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes inside."""
        self._pieces: deque[bytes] = deque()
        self._small = bytearray()
        self._refused = 0  # pieces in front whose commands are not to be executed
        self._refusal = ""

    def put(self, data: bytes) -> None:
        """Add what arrived."""
        self.size += len(data)
        if len(data) < _SMALL:
            self._small += data
            if len(self._small) < _SMALL:
                return
            data, self._small = bytes(self._small), bytearray()
        else:
            self._end_small()
        self._pieces.append(data)

    def take(self) -> tuple[bytes, str]:
        """The next bytes, and with what error their commands are to be answered, or nothing. No error when empty."""
        if not self._pieces:
            self._end_small()
        data = self._pieces.popleft()
        self.size -= len(data)
        if not self._refused:
            return data, ""
        self._refused -= 1
        return data, self._refusal

    def refuse(self, error: str) -> None:
        """The commands in all that is inside are to be answered with this error: those before them waited in vain."""
        self._end_small()
        self._refused, self._refusal = len(self._pieces), error

    def rest(self) -> bytes:
        """All bytes, taken out."""
        self._end_small()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return data

    def _end_small(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small = bytearray()
