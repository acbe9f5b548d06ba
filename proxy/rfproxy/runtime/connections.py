"""Connections of the asyncio shell: one of a client, one of a lane. They hand bytes to the core and do as it asks.

A client that has much to read is asked for nothing more, but read from: it may have more to say before it reads. One
that has said more than can be dealt with is not read from, as long as that will be answered without its doing. Both are
*strained*, and the server keeps an eye on them: on their limits, and on whether they are there at all, because the loop
only hears of that from reading or writing.

They have the methods of asyncio.Protocol, by whose names the loop calls them, and do not inherit from it: a compiled
class cannot.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from rfprotocol.network.tcp_info import HasOptions, TcpInfo, look
from rfprotocol.resp import resp
from rfprotocol.topology.topology import Node
from rfproxy.core.counters import Stats
from rfproxy.core.memory_budget import NOTED
from rfproxy.core.ports import Log
from rfproxy.health.connect_queue import Opening
from rfproxy.routing.router import Router
from rfproxy.runtime.client_limits import Limits, OutputLimit
from rfproxy.session.client_departures import Departures
from rfproxy.session.session import Session
from rfproxy.upstream.connection import Lane, LaneState

OUTPUT_NOTED: Final = NOTED
"""Bytes that may wait for a client to read them without being counted."""
OUTPUT_HIGH: Final = 1 << 20
"""Bytes that may wait for a client to read them: above, nothing more is asked for it."""
UPSTREAM_SILENCE = 5
"""Seconds without a packet after which the kernel asks whether the server is still there."""
UPSTREAM_UNACKNOWLEDGED = 8
"""Seconds that data may wait for the server's kernel to acknowledge it."""


class Transport(Protocol):
    """The half of a connection that the loop keeps, as asyncio has it."""

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent."""

    def close(self) -> None:
        """Close when everything written has been sent."""

    def abort(self) -> None:
        """Close at once."""

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""

    def pause_reading(self) -> None:
        """Let what the other end sends wait."""

    def resume_reading(self) -> None:
        """Read again; harmless when it was not paused."""

    def get_extra_info(self, name: str) -> Any:
        """What there is to know: socket, sockname, peername."""

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""

    def set_write_buffer_limits(self, high: int) -> None:
        """From how many bytes on `pause_writing` is called."""


class ConnectionHost(Protocol):
    """What connections ask of the server that they belong to. A protocol, since the server is not compiled."""

    limits: Limits
    stats: Stats
    log: Log
    router: Router
    now: Callable[[], float]
    """The time in seconds, monotonic."""
    departures: Departures
    upstreams: dict[Lane, Upstream]
    """The connections to servers that stand."""

    @property
    def retiring(self) -> bool:
        """Whether clients are parted with at a quiet moment."""

    def admit(self, client: Client) -> int | None:
        """The number of a new client, or None when there are too many."""

    def gone(self, client: Client) -> None:
        """A client is no more."""

    def took(self, client: Client, size: int) -> None:
        """Much was read from a client."""

    def weigh(self, client: Client, size: int, *, unread: int, stuck: bool, unfinished: bool) -> None:
        """A client holds so many bytes; see Budget."""

    def stops(self, client: Client, *, unfinished: bool) -> bool:
        """Whether a client is not to be read from."""

    def strained(self, client: Client) -> None:
        """Keep an eye on a client that is not read from, until it is again."""

    def listen_for_replies(self) -> None:
        """Look at what is unanswered until nothing is."""


class Client:
    """The connection of one client."""

    __slots__ = (
        "_aborted",
        "_above_since",
        "_active_at",
        "_choked",
        "_closing",
        "_output_waits",
        "_paused",
        "_server",
        "_session",
        "_time",
        "_transport",
        "_unread_before",
        "_wrote",
    )

    def __init__(self, server: ConnectionHost) -> None:
        self._server = server
        self._time = server.now
        self._session: Session | None = None
        self._transport: Transport | None = None
        self._closing = False  # nothing more is to be sent
        self._aborted = False  # nor what waits to be sent
        self._output_waits = False  # more than OUTPUT_NOTED, or than the least of the limits
        self._choked = False  # more than OUTPUT_HIGH
        self._paused = False  # not read from
        self._above_since: float | None = None  # of the soft limit
        self._active_at = 0.0  # when a look last found that the client had been written to, or had read
        self._wrote = False  # since the last look
        self._unread_before = 0  # at the last look

    def connection_made(self, transport: Transport) -> None:
        """Admit the client, or refuse it as Redis does."""
        self._transport = transport
        number = self._server.admit(self)
        if number is None:
            self._transport.write(resp.error("ERR max number of clients reached"))
            self._transport.close()
            return
        limits = self._server.limits
        self._transport.set_write_buffer_limits(high=limits.output.least(OUTPUT_NOTED + 1) - 1)
        if limits.keepalive:
            keep_alive(transport, idle=limits.keepalive)
        self._session = Session(
            number,
            _address(transport.get_extra_info("peername")),
            self,
            self._server.router,
            local=sys.intern(_address(transport.get_extra_info("sockname"))),  # the same for most of them
            query_limit=limits.query,
            now=self._time(),
        )
        self._session.output_limited = limits.output.normal != OutputLimit()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        session = self._session
        if session is not None:
            session.feed(data, self._time())
            if len(data) > NOTED or session.weighty:
                self._server.took(self, len(data))
                self.resume()

    def eof_received(self) -> bool:
        """The client says no more; it still gets the answers to what it said."""
        self._see_off(self.finish)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._transport = None
        self._see_off(self._gone)

    def _see_off(self, departure: Callable[[], None]) -> None:
        """In one of the next turns of the loop, if many leave at once, unless something could still be done for it."""
        session, departures = self._session, self._server.departures
        if departures.crowded and session is not None and not session.depart(self._time()):
            departure()
        else:
            departures.see_off(departure)

    def _gone(self) -> None:
        self._server.stats.clients_stopped -= self._paused
        if self._session is not None:
            self._session.close(self._time())
            self._session = None
        self._server.gone(self)

    def pause_writing(self) -> None:
        """The client has not read all."""
        self._output_waits = True
        if self._session is not None:
            self._server.strained(self)
            self.check_output(self._time())

    def resume_writing(self) -> None:
        """The client has read."""
        self._output_waits = False
        self._above_since = None
        if self._choked:
            self._choke(full=False)
        self.resume()

    def _choke(self, *, full: bool) -> None:
        self._choked = full
        if self._session is not None:
            self._session.choke(self._time(), full=full)

    def read_or_not(self) -> None:
        """Read from the client, or let what it says wait."""
        transport, session = self._transport, self._session
        if transport is None or session is None or transport.is_closing():
            return
        pause = session.backlogged or self._server.stops(self, unfinished=session.unfinished)
        if pause is self._paused:
            return
        self._paused = pause
        self._server.stats.clients_stopped += 1 if pause else -1
        if pause:
            transport.pause_reading()
            self._server.strained(self)
        else:
            transport.resume_reading()

    # --- what the session asks for (rfproxy.builtin.reply_mode.ClientWriter)

    def write(self, data: bytes) -> None:
        """Send to the client."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._wrote = True
        transport.write(data)
        if self._output_waits:
            self.check_output(self._time())

    def close(self) -> None:
        """Close when everything written has been sent."""
        self._closing = True
        self._server.departures.see_off(self._close)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def resume(self) -> None:
        """What the client holds has changed."""
        session = self._session
        if session is not None and not self._aborted:
            unread, unfinished = self.unread, session.unfinished
            stuck = (session.stuck or self._closing) and session.evictable
            size = session.unprocessed + unread
            self._server.weigh(self, size, unread=unread, stuck=stuck, unfinished=unfinished)
            self.read_or_not()

    def abort(self) -> None:
        """Close at once."""
        self._closing = self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def fd(self) -> int:
        """The number of the socket; -1 when it is gone."""
        if self._transport is None or self._transport.is_closing():
            return -1
        return int(self._transport.get_extra_info("socket").fileno())

    @property
    def unread(self) -> int:
        """Bytes that wait for the client to read them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # --- what the server asks for

    def finish(self, *, left: bool = True) -> None:
        """Close when everything asked has been answered. `left`: the client has closed its side."""
        if (session := self._session) is not None:
            session.attend(lambda now: session.finish(now, left=left), self._time())

    @property
    def strained(self) -> bool:
        """Whether the client does not read, or is not read from."""
        return self._output_waits or self._paused

    @property
    def blocked(self) -> bool:
        """Whether it waits for what may never come."""
        return self._session is not None and self._session.blocked

    def check_output(self, now: float) -> None:
        """Close a client that reads too slowly, as Redis does."""
        session = self._session
        if session is None or not self._output_waits:
            return
        if self.unread > OUTPUT_HIGH and not self._choked:
            self._choke(full=True)
        self.resume()
        limits = self._server.limits.output
        kind, limit = ("pubsub", limits.pubsub) if session.subscriber else ("normal", limits.normal)
        unread = self.unread
        self._above_since = limit.above_since(unread, self._above_since, now)
        if passed := limit.passed(unread, self._above_since, now):
            self._server.log.warning(
                "client_closed",
                error="it does not read what it asked for (client-output-buffer-limit)",
                client=session.address,
                kind=kind,
                bytes=unread,
                limit=passed,
                epoch=self._server.router.epoch,
            )
            self.abort()

    def evict(self) -> None:
        """Close a client because of what it holds."""
        session = self._session
        if session is not None:
            self._server.log.warning(
                "client_closed",
                error="clients hold more than maxmemory-clients, and this one neither reads nor ends its command",
                client=session.address,
                bytes=session.unprocessed + self.unread,
                limit=self._server.limits.memory,
                epoch=self._server.router.epoch,
            )
        self.abort()

    def idle(self, now: float) -> bool:
        """Whether the client neither said, read nor waits for anything for too long. To be asked at every look."""
        session = self._session
        if session is None:
            return False
        if self._wrote:
            self._wrote, self._active_at = False, now
        if now - session.seen <= self._server.limits.idle or now - self._active_at <= self._server.limits.idle:
            return False
        waits = session.listener or session.blocked or session.tunnel is not None
        tied = self._server.retiring and session.ties is not None  # Redis' timeout ends transactions, a reload does not
        if waits or tied or session.outstanding or session.pending or self.unread != self._unread_before:
            self._active_at, self._unread_before = now, self.unread
            return False
        return True


class Upstream:
    """The connection of one lane."""

    def __init__(self, server: ConnectionHost, lane: Lane, opening: Opening) -> None:
        self._server = server
        self._time = server.now
        self._lane = lane
        self._opening: Opening | None = opening  # until the server has answered
        self._socket: HasOptions | None = None

    @property
    def kernel(self) -> TcpInfo | None:
        """What the kernel knows of the connection; None when there is none, or it is not TCP."""
        return look(self._socket) if self._socket is not None else None

    def connection_made(self, transport: Transport) -> None:
        """The kernel of the server accepted."""
        reset_when_aborted(transport)
        self._socket = transport.get_extra_info("socket")
        self._server.upstreams[self._lane] = self
        self._server.listen_for_replies()
        keep_alive(transport, idle=UPSTREAM_SILENCE, unacknowledged=UPSTREAM_UNACKNOWLEDGED)
        self._lane.connected(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        now = self._time()
        self._lane.feed(data, now)
        if self._opening is not None:
            opening, self._opening = self._opening, None
            opening.answered(now)

    def eof_received(self) -> bool:
        """The server says no more: it is of no use."""
        return False

    def pause_writing(self) -> None:
        """The server does not read: who may send to it is bounded by what its sessions wait for."""

    def resume_writing(self) -> None:
        """The server has read."""

    def connection_lost(self, error: Exception | None) -> None:
        """The server is gone, or the lane was closed."""
        self._socket = None
        self._server.upstreams.pop(self._lane, None)
        now, reason = self._time(), "it closed the connection" if error is None else failure(error)
        opening, self._opening = self._opening, None
        needless = self._lane.state is LaneState.CLOSED and not self._lane.lost_because
        self._lane.lose(now, reason=reason)
        if opening is not None and needless:
            opening.given_up(now)
        elif opening is not None:
            opening.failed(self._lane.lost_because, now)


def failure(error: Exception) -> str:
    """Why a connection failed, in words: those of the system, and for what a limit of this host caused, the limit."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):  # its numbers are those of the resolver
        return f"its name cannot be looked up: {error.strerror or error}"
    if number in (errno.EMFILE, errno.ENFILE):
        return f"{os.strerror(number)}: the limit of open files of this proxy is reached (ulimit -n)"
    if number == errno.EADDRNOTAVAIL:
        return f"{os.strerror(number)}: this host has no local port left for it (net.ipv4.ip_local_port_range)"
    return os.strerror(number) if number else str(error) or type(error).__name__


def _address(name: object) -> str:
    """`host:port` of one end of a connection."""
    return str(Node(name[0], name[1])) if isinstance(name, tuple) else str(name)


def notice_vanished(clients: Collection[Client]) -> None:
    """Part with those whose connection broke, and with those who left while they were blocked."""
    poll = select.poll()
    by_fd = {client.fd: client for client in clients}
    by_fd.pop(-1, None)
    for fd, client in by_fd.items():
        poll.register(fd, select.POLLRDHUP if client.blocked else 0)
    for fd, event in poll.poll(0):
        if event & (select.POLLHUP | select.POLLERR):
            by_fd[fd].abort()
        else:
            by_fd[fd].finish()


def reset_when_aborted(transport: Transport) -> None:
    """Let `abort` be a reset: what the other kernel does not have by then is discarded, and never arrives.

    Without this the kernel goes on to send what the socket still holds, for about a hundred seconds. A write that was
    given up here, and repeated on another master, would then take effect on a server that may be the master again.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # on, for 0 s


def keep_alive(transport: Transport, *, idle: int, unacknowledged: int = 0) -> None:
    """Let the kernel find out when the other host is gone without a word; three unanswered questions are enough.

    They are not asked while data waits for its acknowledgement. A bound for that, in seconds, also ends a
    connection whose other end is well and does not read: clients may do that for as long as they like.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle // 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    if unacknowledged:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * unacknowledged)
