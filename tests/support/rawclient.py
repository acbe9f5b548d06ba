"""A client that is no library: bytes out, bytes in, and bad manners."""

from __future__ import annotations

import socket
import struct
from typing import Self

from rfprotocol.topology.topology import Node

PATIENCE = 120.0
"""Seconds that a client waits for bytes."""


class RawClient:
    """One connection, blocking; `with` closes it."""

    def __init__(self, address: Node) -> None:
        self.socket = socket.create_connection((address.host, address.port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, data: bytes) -> None:
        """Send all of it. Raises TimeoutError when nobody reads it."""
        self.socket.sendall(data)

    def hear(self, size: int) -> bytes:
        """So many bytes. Raises EOFError when the connection is closed before."""
        data = bytearray(size)
        view, have = memoryview(data), 0
        while have < size:
            count = self.socket.recv_into(view[have:])
            if not count:
                raise EOFError(bytes(data[:have]))
            have += count
        return bytes(data)

    def hears(self, data: bytes) -> None:
        """These bytes come next."""
        heard = self.hear(len(data))
        assert heard == data, f"{heard[:200]!r}"

    def ask(self, data: bytes) -> bytes:
        """Send, and return one line of answer."""
        self.say(data)
        line = b""
        while not line.endswith(b"\r\n"):
            line += self.hear(1)
        return line

    def hear_all(self) -> bytes:
        """Everything until the connection is closed."""
        data = bytearray()
        while piece := self.socket.recv(1 << 20):
            data += piece
        return bytes(data)

    def hang_up(self) -> None:
        """Say that nothing more is to come, and go on listening."""
        self.socket.shutdown(socket.SHUT_WR)

    def vanish(self) -> None:
        """Break the connection (RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
