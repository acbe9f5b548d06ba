"""The asyncio shell: sockets and timers around the core. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import math
import os
import socket
from collections.abc import Callable
from typing import cast

from rfprotocol import resp
from rfprotocol.errors import ConfigError
from rfprotocol.topology import Node
from rfproxy.lane import Lane
from rfproxy.lease import Lease
from rfproxy.router import Log, Policy, Router
from rfproxy.session import Session
from rfproxy.stats import Stats

CONNECT_TIMEOUT = 1.0
"""Seconds for a connection to a server; on one that takes longer nobody should wait."""
GREETING_TIMEOUT = 2.0
"""Seconds for a server to answer the first words."""
OUTPUT_HIGH = 1 << 20
OUTPUT_HARD = 1 << 30
"""Bytes that may wait for a client to read them: above the first it is not read from, above the second it is closed."""
CLIENT_SILENCE = 300
UPSTREAM_SILENCE = 5
"""Seconds without a packet after which the kernel asks whether the peer is still there (Redis: tcp-keepalive)."""
REAP_EVERY = 15.0


class Server:
    """One listener, its clients, and the lanes they share."""

    def __init__(self, policy: Policy, *, max_clients: int, log: Log) -> None:
        self.lease = Lease()
        self.stats = Stats()
        self.log = log
        self.router = Router(policy, self, self.lease, self.stats, log)
        self.on_acknowledge: Callable[[int], None] = lambda epoch: None
        self._max_clients = max_clients
        self._loop = asyncio.get_running_loop()
        self._listener: asyncio.Server | None = None
        self._clients: set[Client] = set()
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf  # kept here: of an alarm that is due at once uvloop does not know when it is
        self._reaper = self._loop.call_later(REAP_EVERY, self._reap)
        self._emptied = asyncio.Event()
        self._draining = False

    # --- listening

    async def listen(self, address: Node) -> Node:
        """Accept clients; returns the address, with the port that the system chose if it was 0. Raises ConfigError."""
        try:
            self._listener = await self._loop.create_server(
                lambda: Client(self), address.host, address.port, backlog=4096, reuse_address=True
            )
        except OSError as error:
            hint = "; is another proxy running?" if error.errno == errno.EADDRINUSE else ""
            raise ConfigError(f"--listen: cannot listen on {address}: {os.strerror(error.errno or 0)}{hint}") from None
        bound = self._listener.sockets[0].getsockname()
        return Node(bound[0], bound[1])

    async def drain(self, timeout: float) -> int:
        """No new clients; answer what is in flight; close. Returns how many clients `timeout` cut off."""
        self._draining = True
        if self._listener is not None:
            self._listener.close()
        for client in list(self._clients):
            client.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._clients:
                    self._emptied.clear()
                    await self._emptied.wait()
        cut_off = len(self._clients)
        for client in list(self._clients):
            client.abort()
        self.router.close(self.now())
        self._reaper.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)  # the loop learns of closed connections in its next turn
        return cut_off

    def now(self) -> float:
        """The monotonic clock that the core is given."""
        return self._loop.time()

    # --- what the core asks for (rfproxy.router.Shell)

    def connect(self, lane: Lane) -> None:
        """Open the connection of a lane."""
        task = self._loop.create_task(self._connect(lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, lane: Lane) -> None:
        node = lane.key.node
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._loop.create_connection(lambda: Upstream(self, lane), node.host, node.port)
        except (OSError, TimeoutError, UnicodeError):
            lane.lose(self.now())
        else:
            self._loop.call_later(GREETING_TIMEOUT, lambda: lane.greeting_overdue(self.now()))

    def flush_soon(self) -> None:
        """At the end of this turn of the loop, when all that arrived has been read."""
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.router.flush(self._loop.time())

    def wake_at(self, when: float) -> None:
        """Keep the earliest alarm."""
        if self._alarm_at <= when:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self.router.tick(self.now())

    def acknowledge(self, epoch: int) -> None:
        """Pass it on to the membership."""
        self.on_acknowledge(epoch)

    def _reap(self) -> None:
        self.router.reap(self.now())
        self._reaper = self._loop.call_later(REAP_EVERY, self._reap)

    # --- what clients report

    def admit(self, client: Client) -> int | None:
        """The number of a new client, or None when there are too many."""
        if self._draining or len(self._clients) >= self._max_clients:
            self.stats.clients_refused += 1
            if not self._draining:
                self.log.warning(
                    "client_error",
                    error=f"too many clients (max_clients {self._max_clients}): one was refused",
                    epoch=self.router.epoch,
                )
            return None
        self._clients.add(client)
        self.stats.clients = len(self._clients)
        self.stats.clients_total += 1
        return next(self._numbers)

    def gone(self, client: Client) -> None:
        """A client is no more."""
        self._clients.discard(client)
        self.stats.clients = len(self._clients)
        if not self._clients:
            self._emptied.set()


class Client(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._time = server.now
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._output_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the client, or refuse it as Redis does."""
        self._transport = cast(asyncio.Transport, transport)
        number = self._server.admit(self)
        if number is None:
            self._transport.write(resp.error("ERR max number of clients reached"))
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=OUTPUT_HIGH)
        _keep_alive(transport, idle=CLIENT_SILENCE)
        peer = transport.get_extra_info("peername")
        address = str(Node(peer[0], peer[1])) if isinstance(peer, tuple) else str(peer)
        self._session = Session(number, address, self, self._server.router)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        session = self._session
        if session is not None:
            session.feed(data, self._time())
            if session.backlogged:
                self._read_or_not()

    def eof_received(self) -> bool:
        """The client says no more; it still gets the answers to what it said."""
        return self.finish()

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._transport = None
        if self._session is not None:
            self._session.close(self._time())
            self._session = None
        self._server.gone(self)

    def pause_writing(self) -> None:
        """The client does not read: do not read from it either."""
        self._output_full = True
        self._read_or_not()

    def resume_writing(self) -> None:
        """The client has read."""
        self._output_full = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._session is None:
            return
        if self._output_full or self._session.backlogged:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # --- what the session asks for (rfproxy.session.ClientWriter)

    def write(self, data: bytes) -> None:
        """Send to the client."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if self._output_full and transport.get_write_buffer_size() > OUTPUT_HARD:
            self._server.log.warning(
                "client_error",
                error=f"closed: it left {transport.get_write_buffer_size()} bytes of replies unread",
                epoch=self._server.router.epoch,
            )
            transport.abort()

    def close(self) -> None:
        """Close when everything written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def resume(self) -> None:
        """The session has caught up."""
        self._read_or_not()

    def finish(self) -> bool:
        """Close when everything asked has been answered; True, to keep the connection open till then."""
        if self._session is not None:
            self._session.finish(self._time())
        return True

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


class Upstream(asyncio.Protocol):
    """The connection of one lane."""

    def __init__(self, server: Server, lane: Lane) -> None:
        self._time = server.now
        self._lane = lane

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server accepted."""
        _keep_alive(transport, idle=UPSTREAM_SILENCE)
        self._lane.connected(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        self._lane.feed(data, self._time())

    def connection_lost(self, error: Exception | None) -> None:
        """The server is gone, or the lane was closed."""
        self._lane.lose(self._time())


def _keep_alive(transport: asyncio.BaseTransport, *, idle: int) -> None:
    """Let the kernel find out when the other host is gone without a word; three unanswered questions are enough."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    interval = max(1, idle // 3)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    # Keep-alive is silent while data waits for its acknowledgement: the same bound for that, in milliseconds.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (idle + 3 * interval))
