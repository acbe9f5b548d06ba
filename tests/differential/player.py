"""Plays a case against one address, and writes down what its connections hear."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from rfprotocol.errors import ProtocolError
from rfprotocol.resp.reply_scanner import ReplyScanner
from rfprotocol.topology.topology import Node
from tests.differential.case import Burst, Case

MARKER = b"*1\r\n$5\r\nRESET\r\n*2\r\n$4\r\nECHO\r\n$11\r\nthat is all\r\n"
"""Brings a connection out of any state, so that what is heard before its replies is all there was to hear."""
REPLIES_TO_MARKER = 2
_LAST = b"$11\r\nthat is all\r\n"


@dataclass(slots=True)
class Heard:
    """What the connections of a case heard, and what went wrong if something did."""

    by: dict[int, bytes] = field(default_factory=dict)
    stuck: str = ""  # why the case was not played to its end
    rounds: int = 0  # played to their end


class Connection:
    """One client, on a blocking socket."""

    def __init__(self, address: Node, timeout: float) -> None:
        self.heard = bytearray()
        self.expected = 0
        self.values = 0
        self.closed = False
        self._socket = socket.create_connection((address.host, address.port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._scanner = ReplyScanner(pushes_apart=False)

    def say(self, packets: list[bytes]) -> None:
        """Send; a connection that was closed says nothing."""
        for packet in packets:
            if not self.closed:
                self._socket.sendall(packet)

    def hear(self) -> None:
        """Return when all values that are expected are there, or the connection is closed. Raises TimeoutError."""
        while self.values < self.expected and not self.closed:
            self._receive()

    def hear_the_end(self) -> None:
        """Return when the connection is closed. Raises TimeoutError."""
        while not self.closed:
            self._receive()

    def finish(self) -> None:
        """Hear all that is to be heard, and close. Raises TimeoutError."""
        if not self.closed:
            self._socket.sendall(MARKER)
            while not self.closed and not self.heard.endswith(_LAST):
                self._receive()
        if not self.closed:
            self._socket.shutdown(socket.SHUT_WR)
            self.hear_the_end()

    def close(self) -> None:
        """At once."""
        self._socket.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        self.heard += data
        self._scanner.feed(data)
        self.values += self._scanner.take(_ALL).count


_ALL = 1 << 30


def play(case: Case, address: Node, *, timeout: float, between: Callable[[], None] | None = None) -> Heard:
    """Play a case; `between` is called behind every round. `timeout`: seconds for each reply."""
    heard = Heard()
    connections = {number: Connection(address, timeout) for number in case.connections}
    try:
        for turn in case.rounds:
            for burst in turn:
                connections[burst.connection].expected += burst.replies
                connections[burst.connection].say(burst.packets)
            for burst in turn:
                _await(burst, connections[burst.connection])
            heard.rounds += 1
            if between is not None:
                between()
        for connection in connections.values():
            connection.finish()
    except TimeoutError:
        heard.stuck = f"no more was heard in round {heard.rounds + 1}"
    except (OSError, ProtocolError) as error:
        heard.stuck = f"round {heard.rounds + 1}: {error}"
    finally:
        for number, connection in connections.items():
            heard.by[number] = bytes(connection.heard)
            connection.close()
    return heard


def _await(burst: Burst, connection: Connection) -> None:
    if burst.closes:
        connection.hear_the_end()
    else:
        connection.hear()
