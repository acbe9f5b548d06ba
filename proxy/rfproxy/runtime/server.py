"""The asyncio shell: sockets and timers around the core. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from typing import cast

from rfprotocol import clock
from rfprotocol.errors import NodeUnreachable
from rfprotocol.network.resolver import Resolver
from rfprotocol.network.tcp_info import TcpInfo
from rfprotocol.topology.topology import Node, Topology
from rfproxy.core.counters import Stats
from rfproxy.core.identity import Duty
from rfproxy.core.memory_budget import Budget
from rfproxy.core.policy import Policy
from rfproxy.core.ports import Log
from rfproxy.health.connect_queue import Opening
from rfproxy.health.server_silence import LISTEN_EVERY, SILENT
from rfproxy.routing.durable_router import create_router
from rfproxy.routing.lease import Lease
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.connections import Client, Upstream, failure, notice_vanished
from rfproxy.session.client_departures import Departures
from rfproxy.upstream.connection import Lane

BACKLOG = 4096
"""Connections that may wait to be accepted, per socket; the kernel's net.core.somaxconn bounds it, too."""
CONNECT_TIMEOUT = 1.0
"""Seconds for a connection to a server; on one that takes longer nobody should wait. Counted from when an address of
it is known: the first look-up of a name has its own limit."""
GREETING_TIMEOUT = 2.0
"""Seconds for a master to answer the first words; for others it is SILENT, as reads need not wait for them."""
REAP_EVERY = 15.0
LOOK_EVERY = 1.0
"""Seconds between looks at clients that are idle, read too slowly, or are not read from."""
TURN = 8 << 20
"""Bytes that are read from clients in one turn of the loop, give or take a packet: some 30 ms of a CPU, with all that
becomes of them. The loop also has to see that the lease is renewed."""
SILENCE = 1.0
"""Seconds after which a client that has to go somewhere else will hardly say something just now."""


class Stage(Enum):
    """What becomes of clients."""

    ADMITTING = "whoever comes is served"
    RETIRING = "nobody comes any more; who is here is served, and parted with at a quiet moment"
    DRAINING = "nobody is served any more; what was said is answered"


class Server:
    """Its listeners, its clients, and the lanes they share."""

    def __init__(
        self,
        policy: Policy,
        *,
        limits: Limits,
        log: Log,
        first_number: int = 1,
        resolver: Resolver | None = None,
    ) -> None:
        self.limits = limits
        self.resolver = resolver or Resolver()
        self.lease = Lease()
        self.stats = Stats(clients_memory_limit=limits.memory)
        self.log = log
        self.router = create_router(policy, self, self.lease, self.stats, log)
        self.on_acknowledge: Callable[[int], None] = lambda epoch: None
        self.on_busy: Callable[[], None] = lambda: None
        self.upstreams: dict[Lane, Upstream] = {}
        """The connections to servers that stand."""
        self._ear: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = clock.now
        """The clock of core and lease; seconds. Not the loop's, which stands still while the machine is suspended."""
        self._listeners: list[asyncio.Server] = []
        self.clients: dict[Client, None] = {}
        """Those from whom much was read last at the end."""
        self.departures = Departures(self._loop.call_soon)
        self.budget: Budget[Client] = Budget(limits.memory)
        self._taken = 0  # bytes read in this turn, of large packets
        self._turn_ends = False  # it has been asked to be told
        self._suspended = False  # nobody is read from before the next turn
        self._changed = False  # who is to be read from, in this turn
        self._relief_due = False
        self._strained: set[Client] = set()
        self._look: asyncio.TimerHandle | None = None
        self._numbers = itertools.count(first_number)
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings: dict[Node, Opening] = {}
        self._asked: set[Node] = set()  # of which connections were asked for in this turn of the loop
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf  # kept here: of an alarm that is due at once uvloop does not know when it is
        self._reaper = self._loop.call_later(REAP_EVERY, self._reap)
        self._emptied = asyncio.Event()
        self._stage = Stage.ADMITTING

    # --- listening

    async def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Accept clients."""
        for sock in sockets:
            self._listeners.append(
                await self._loop.create_server(lambda: cast(asyncio.Protocol, Client(self)), sock=sock, backlog=BACKLOG)
            )

    def _listen_no_more(self) -> None:
        for listener in self._listeners:
            listener.close()

    def retire(self) -> None:
        """No new clients; those that are there are served on, and parted with when they are silent."""
        self._stage = Stage.RETIRING
        self._listen_no_more()
        self.limits = replace(self.limits, idle=min(self.limits.idle or SILENCE, SILENCE))
        self._look_soon()

    @property
    def retiring(self) -> bool:
        """Whether clients are parted with at a quiet moment."""
        return self._stage is Stage.RETIRING

    async def emptied(self) -> None:
        """Return when there are no clients."""
        while self.clients:
            self._emptied.clear()
            await self._emptied.wait()

    async def drain(self, timeout: float) -> int:
        """No new clients; answer what is in flight; close. Returns how many clients `timeout` cut off."""
        self._stage = Stage.DRAINING
        self._listen_no_more()
        for client in list(self.clients):
            client.finish(left=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.emptied()
        cut_off = len(self.clients)
        for client in list(self.clients):
            client.abort()
        self.router.close(self.now())
        self._reaper.cancel()
        if self._look is not None:
            self._look.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._ear is not None:
            self._ear.cancel()
        for task in self._tasks:
            task.cancel()
        self.resolver.follow(self, ())
        await asyncio.sleep(0)  # the loop learns of closed connections in its next turn
        return cut_off

    def apply(self, topology: Topology) -> None:
        """Follow another topology; the addresses of its servers are looked up before they are needed."""
        self.resolver.follow(self, {node.host for node in topology.nodes})
        self.router.apply(topology, self.now())

    # --- what the core asks for (rfproxy.routing.event_loop.Shell)

    def connect(self, lane: Lane) -> None:
        """Open the connection of a lane, when it is its turn."""
        if not self._asked:
            self._loop.call_soon(self._open_asked)  # by then the router has said whose it is
        node = lane.key.node
        opening = self._openings.get(node)
        if opening is None:
            opening = self._openings[node] = Opening(self._begin)
        opening.ask(lane)
        self._asked.add(node)

    def _open_asked(self) -> None:
        asked, self._asked = self._asked, set()
        for node in asked:
            if (opening := self._openings.get(node)) is not None:
                opening.go_on(self.now())

    def _begin(self, lane: Lane) -> None:
        task = self._loop.create_task(self._connect(lane, self._openings[lane.key.node].line(lane)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, lane: Lane, opening: Opening) -> None:
        node = lane.key.node
        try:
            await self.resolver.locate(node.host)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self.resolver.connect(node, lambda: cast(asyncio.Protocol, Upstream(self, lane, opening)))
        except TimeoutError:
            reason = f"no connection within {CONNECT_TIMEOUT:g} s"
            lane.unanswered(self.now(), reason)
        except (OSError, ValueError, NodeUnreachable) as error:
            reason = failure(error)
            lane.lose(self.now(), reason=reason)
        else:
            patience = GREETING_TIMEOUT if lane.duty is Duty.MASTER else SILENT
            self._loop.call_later(patience, lambda: lane.greeting_overdue(self.now()))
            return
        opening.failed(reason, self.now())

    def flush_soon(self) -> None:
        """At the end of this turn of the loop, when all that arrived has been read."""
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.router.flush(self.now())
        self.listen_for_replies()

    def listen_for_replies(self) -> None:
        """Look at what is unanswered until nothing is: one timer for all connections."""
        if self._ear is None:
            self._ear = self._loop.call_later(LISTEN_EVERY, self._listen)

    def _listen(self) -> None:
        self._ear = None
        if self.router.watch.look(self.now()):
            self.listen_for_replies()

    def kernel(self, lane: Lane) -> TcpInfo | None:
        """What the kernel knows of a lane's connection."""
        upstream = self.upstreams.get(lane)
        return upstream.kernel if upstream is not None else None

    def report_busy(self) -> None:
        """Pass it on to the membership."""
        self.on_busy()

    def wake_at(self, when: float) -> None:
        """Keep the earliest alarm."""
        if self._alarm_at <= when:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._loop.call_later(max(0.0, when - self.now()), self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self.router.tick(self.now())

    def acknowledge(self, epoch: int) -> None:
        """Pass it on to the membership."""
        self.on_acknowledge(epoch)

    def _reap(self) -> None:
        self.router.reap(self.now())
        self._openings = {node: opening for node, opening in self._openings.items() if not opening.idle}
        self._reaper = self._loop.call_later(REAP_EVERY, self._reap)

    # --- what clients report

    def admit(self, client: Client) -> int | None:
        """The number of a new client, or None when there are too many."""
        if self._stage is Stage.DRAINING or len(self.clients) >= self.limits.clients:
            self.stats.clients_refused += 1
            if self._stage is not Stage.DRAINING:
                self.log.warning(
                    "client_error",
                    error=f"too many clients ({self._most_clients()}): one was refused",
                    epoch=self.router.epoch,
                )
            return None
        self.clients[client] = None
        self.stats.clients = len(self.clients)
        self.stats.clients_total += 1
        if self.limits.idle:
            self._look_soon()
        return next(self._numbers)

    def _most_clients(self) -> str:
        because = self.limits.clients_because
        return f"{self.limits.clients}: {because}" if because else f"max_clients {self.limits.clients}"

    def gone(self, client: Client) -> None:
        """A client is no more."""
        self.clients.pop(client, None)
        self._strained.discard(client)
        self._forget(client)
        self.stats.clients = len(self.clients)
        if not self.clients:
            self._emptied.set()

    # --- what clients hold

    def took(self, client: Client, size: int) -> None:
        """Much was read from a client."""
        self._taken += size
        self._await_next_turn()
        if client in self.clients:
            del self.clients[client]
            self.clients[client] = None
        if self._taken > TURN and not self._suspended:
            self._suspended = True
            self._look_at_all()

    def weigh(self, client: Client, size: int, *, unread: int, stuck: bool, unfinished: bool) -> None:
        """A client holds so many bytes; see Budget."""
        before = self._pressure
        self.budget.weigh(client, size, self.now(), unread=unread, stuck=stuck, unfinished=unfinished)
        self._weighed(before)

    def stops(self, client: Client, *, unfinished: bool) -> bool:
        """Whether a client is not to be read from."""
        return self._suspended or self.budget.stops(client, unfinished=unfinished)

    def _forget(self, client: Client) -> None:
        before = self._pressure
        self.budget.forget(client, self.now())
        self._weighed(before)

    @property
    def _pressure(self) -> tuple[bool, bool, bool]:
        """Whether nobody is read from, whether some are not, and whether one goes on although it holds much."""
        return self.budget.full, self.budget.over, self.budget.first is not None

    def _weighed(self, before: tuple[bool, bool, bool]) -> None:
        """What clients hold has changed: who is read from depends on that."""
        budget = self.budget
        self.stats.clients_memory = budget.used
        if not (before[1] or budget.over):
            return
        if (budget.full, budget.over) != before[:2] or (before[2] and budget.first is None):
            self._changed = True
            self._await_next_turn()
        if budget.over:
            self._look_soon()
        if budget.flooded and not self._relief_due:
            self._relief_due = True
            self._loop.call_soon(self._relieve)

    def _look_at_all(self) -> None:
        """Some 10 ms for 5,000 clients: not more than twice in a turn of the loop."""
        for client in list(self.clients):
            client.read_or_not()

    def _await_next_turn(self) -> None:
        if not self._turn_ends:
            self._turn_ends = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_ends, self._taken = False, 0
        if self._suspended or self._changed:
            self._suspended = self._changed = False
            self._look_at_all()

    def _relieve(self) -> None:
        """Part with clients that hold much and do nothing about it."""
        self._relief_due = False
        for client in self.budget.to_close(self.now()):
            client.evict()
            self.stats.clients_evicted += 1
            self._forget(client)

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
            client.resume()
        self._relieve()
        if self.limits.idle and self.clients:
            idle = [client for client in self.clients if client.idle(now)]
            for client in idle:
                client.abort()
            if idle:
                self.log.info("idle_closed", clients=len(idle), timeout=self.limits.idle, epoch=self.router.epoch)
            self._look_soon()
        if self._strained:
            self._look_soon()
