"""The asyncio shell: sockets and timers around the core. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import math
import os
from collections.abc import Callable

from rfprotocol.errors import ConfigError
from rfprotocol.topology import Node
from rfproxy.connections import Client, Upstream, notice_vanished
from rfproxy.lane import Lane
from rfproxy.lease import Lease
from rfproxy.limits import Limits
from rfproxy.rotation import create_router
from rfproxy.router import Log, Policy
from rfproxy.stats import Stats

CONNECT_TIMEOUT = 1.0
"""Seconds for a connection to a server; on one that takes longer nobody should wait."""
GREETING_TIMEOUT = 2.0
"""Seconds for a server to answer the first words."""
REAP_EVERY = 15.0
LOOK_EVERY = 1.0
"""Seconds between looks at clients that are idle, read too slowly, or are not read from."""


class Server:
    """One listener, its clients, and the lanes they share."""

    def __init__(self, policy: Policy, *, limits: Limits, log: Log) -> None:
        self.limits = limits
        self.lease = Lease()
        self.stats = Stats()
        self.log = log
        self.router = create_router(policy, self, self.lease, self.stats, log)
        self.on_acknowledge: Callable[[int], None] = lambda epoch: None
        self._loop = asyncio.get_running_loop()
        self._listener: asyncio.Server | None = None
        self.clients: set[Client] = set()
        self._strained: set[Client] = set()
        self._look: asyncio.TimerHandle | None = None
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
        for client in list(self.clients):
            client.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.clients:
                    self._emptied.clear()
                    await self._emptied.wait()
        cut_off = len(self.clients)
        for client in list(self.clients):
            client.abort()
        self.router.close(self.now())
        self._reaper.cancel()
        if self._look is not None:
            self._look.cancel()
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
        if self._draining or len(self.clients) >= self.limits.clients:
            self.stats.clients_refused += 1
            if not self._draining:
                self.log.warning(
                    "client_error",
                    error=f"too many clients (max_clients {self.limits.clients}): one was refused",
                    epoch=self.router.epoch,
                )
            return None
        self.clients.add(client)
        self.stats.clients = len(self.clients)
        self.stats.clients_total += 1
        if self.limits.idle:
            self._look_soon()
        return next(self._numbers)

    def gone(self, client: Client) -> None:
        """A client is no more."""
        self.clients.discard(client)
        self._strained.discard(client)
        self.stats.clients = len(self.clients)
        if not self.clients:
            self._emptied.set()

    # --- what has to be looked at from time to time

    def strained(self, client: Client) -> None:
        """Keep an eye on a client that is not read from, until it is again."""
        self._strained.add(client)
        self._look_soon()

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = self._loop.call_later(LOOK_EVERY, self._look_around)

    def _look_around(self) -> None:
        """The one timer for all clients; it only runs while there is something to look at."""
        now, self._look = self.now(), None
        self._strained = {client for client in self._strained if client.strained}
        notice_vanished(self._strained)
        for client in list(self._strained):
            client.check_output(now)
        if self.limits.idle and self.clients:
            idle = [client for client in self.clients if client.idle(now)]
            for client in idle:
                client.abort()
            if idle:
                self.log.info("idle_closed", clients=len(idle), timeout=self.limits.idle, epoch=self.router.epoch)
            self._look_soon()
        if self._strained:
            self._look_soon()
