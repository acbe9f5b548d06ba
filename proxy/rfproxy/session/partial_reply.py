"""A long reply of which the client has the beginning when the connection that it comes from dies.

The read is asked again elsewhere, and the reply comes from its beginning. What the client has is left out, provided
that it is the same: its checksum tells. Otherwise the client cannot be given a whole reply any more: it is hung up on.
CRC-32 misses one change in four thousand million, and costs less than the copying; a cryptographic digest cost as much
as all the rest of relaying several times over.
"""

from __future__ import annotations

from zlib import crc32


class Midway:
    """What the client has of one reply, which is that to the oldest command of its session."""

    def __init__(self) -> None:
        self.broken = ""
        """Why the rest cannot be had."""
        self._had = 0
        self._checksum = 0
        self._again = 0
        """Bytes to come that the client has."""
        self._check = 0

    @property
    def advanced(self) -> bool:
        """Whether the client has got something from the server that was asked last."""
        return not self._again

    def again(self) -> None:
        """The reply will come from its beginning."""
        self._again = self._had
        self._check = 0

    def part(self, data: bytes, *, last: bool) -> bytes | None:
        """Take the next bytes of the reply; returns those that are new, or None when it is not the same reply."""
        known = min(self._again, len(data))
        if known:
            self._check = crc32(memoryview(data)[:known], self._check)
            self._again -= known
            data = data[known:]
            if not self._again and self._check != self._checksum:
                return None
        if self._again:
            return None if last else b""
        self._checksum = crc32(data, self._checksum)
        self._had += len(data)
        return data
