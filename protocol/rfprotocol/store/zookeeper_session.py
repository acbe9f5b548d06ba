"""A session with ZooKeeper, safe to build leases and leaderships upon; the only module that imports kazoo.

kazoo runs a thread for the connection and two for callbacks. Everything here runs on the event loop, save the few
lines marked otherwise, which only hand over to it (`_hop`). What kazoo does differently from what is needed:

* While cut off it queues calls and sends them after the reconnection, however late that is. Here a call is refused
  unless connected, and each has a time limit.
* It says LOST only after it has reached a server again. Here a session counts as lost when nothing was heard for
  the session timeout, by a timer of our own.
* It takes requests for heartbeats, so a busy client never notices that the server is frozen. Here the connection
  is cut when a call ran out of time and nothing at all was heard meanwhile.
* It waits for a dead host as long as a session lives, as long (divided by the hosts) for the handshake with a frozen
  or just starting one, and backs off for up to an hour. Here it gets sockets of ours, and no pause is longer than a
  second.
* It does not tell a server that is away from one that accepts a connection and closes it again, because it has no
  quorum or because this address has connections enough (`maxClientCnxns`). Here both are named; and who is `patient`
  leaves a place that comes free to others for a while: a proxy goes on with what it knows, a manager cannot.
* It hides the session timeout that the server granted. Here it is read from the handshake.
* It insists on a server that knows all it has seen, also when the servers have lost that (their data was removed, or an
  old backup restored). Here it insists no more when its session counts as lost, because all is read anew then.
* It makes an epoll object for each look at a socket, five times per request. Here it polls.
* It has a thread for answers and one for events of watches, so that they overtake each other. Here they share one.
* Its connection thread can die of an answer it does not understand. Here a new client takes over.
* A refused transaction is a successful call to it, with an error per operation. Here errors are outcomes throughout.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Protocol

import structlog
from kazoo import exceptions as zk
from kazoo.client import KazooClient
from kazoo.handlers.threading import AsyncResult, SequentialThreadingHandler
from kazoo.protocol.states import Callback, EventType, KazooState, WatchedEvent
from kazoo.retry import KazooRetry

from rfprotocol import clock
from rfprotocol.backoff import Backoff
from rfprotocol.errors import ConfigError, StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store.interface import StoreState
from rfprotocol.store.zookeeper_watches import Watched

Outcome = Any
"""What became of a request: its value, or a StoreError, returned and not raised."""

Client = KazooClient
Answer = AsyncResult
Request = Callable[[Client], Answer]

_TICK = 0.5  # seconds between two looks at the connection
_LONGEST_REST = 5.0  # seconds at most until kazoo is started again after one of its threads has ended
_CROWD = 0.3  # seconds that a server is given to close a connection it has accepted, before it is asked for anything
_MEMORY = 15.0  # seconds for which that explains why there is no connection
_FIRST_REST, _LONGEST_LEAVE = 1.0, 10.0  # seconds between attempts of who is patient while there is no place
_YIELD = (
    5.0  # seconds that such a one leaves a place free that it has found, for others to take: a program starts in less
)
_HASTE = 0.25  # the part of kazoo's pauses, 0.7 s at most, that others make then
_SWITCH = 0.0005  # seconds that kazoo's threads wait for a busy loop: an answer passes through three, and 5 ms is usual

_CONSUMED = {
    EventType.CREATED: (Watched.RECORD, Watched.CHILDREN),
    EventType.DELETED: (Watched.RECORD, Watched.CHILDREN),
    EventType.CHANGED: (Watched.RECORD,),
    EventType.CHILD: (Watched.CHILDREN,),
}


class NoRecord(StoreConflict):
    """There is no such record, or no parent to create it below."""


class RolledBack(StoreConflict):
    """Nothing was wrong with this operation, but with another one of its transaction."""


_ERRORS: tuple[tuple[tuple[type[Exception], ...], type[StoreError], str], ...] = (
    ((zk.NoNodeError,), NoRecord, "there is no such record"),
    ((zk.RolledBackError, zk.RuntimeInconsistency), RolledBack, "another operation of the transaction failed"),
    ((zk.NodeExistsError,), StoreConflict, "the record exists already"),
    ((zk.BadVersionError,), StoreConflict, "the record has another version"),
    ((zk.NotEmptyError,), StoreConflict, "the record is not empty"),
    ((zk.NoChildrenForEphemeralsError,), StoreConflict, "the parent lives with a session and can hold nothing"),
    (
        (
            zk.ConnectionLoss,
            zk.SessionExpiredError,
            zk.SessionMovedError,
            zk.OperationTimeoutError,
            zk.RequestTimeoutError,
            zk.ThrottledOpError,
        ),
        StoreUnavailable,
        "the connection with ZooKeeper broke",
    ),
    ((zk.ZookeeperError,), StoreError, "ZooKeeper refused"),
    ((Exception,), StoreUnavailable, "the answer of ZooKeeper was not understood"),
)


class _Phase(Enum):
    """The life of a link."""

    IDLE = "not started"
    CONNECTED = "connected"
    SUSPENDED = "cut off"
    LOST = "not connected"
    CLOSED = "closed"


_STATES = {_Phase.CONNECTED: StoreState.CONNECTED, _Phase.SUSPENDED: StoreState.SUSPENDED}


class Link:
    """One session after the other with the ensemble at `servers` (`host:port,host:port`), until it is closed.

    `moved` is called on every change of the state or session, `fired` with each event of a watch. Times are in seconds.
    `patient`: while ZooKeeper takes no more connections from this address, others go first.
    Raises ConfigError when `servers` cannot be read.
    """

    def __init__(
        self,
        servers: str,
        *,
        session_timeout: float,
        request_timeout: float,
        moved: Callable[[StoreState], None],
        fired: Callable[[str, tuple[Watched, ...]], None],
        patient: bool = False,
    ) -> None:
        self.session = 0
        self._patient = patient
        self.session_timeout = session_timeout
        self._servers = servers
        self._asked_timeout = session_timeout
        self._request_timeout = request_timeout
        self._on_move = moved
        self._on_event = fired
        self._phase = _Phase.IDLE
        self._phase_changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._restarts = Backoff(_TICK, _LONGEST_REST)  # of kazoo, after one of its threads has ended
        self._log = structlog.get_logger().bind(zookeeper=servers)
        self._client = self._new_client()
        self._loop: asyncio.AbstractEventLoop

    @property
    def state(self) -> StoreState:
        """The state now."""
        return _STATES.get(self._phase, StoreState.LOST)

    @property
    def trouble(self) -> str:
        """Why there is no connection, as a predicate to ZooKeeper; empty when there is one, or nothing is known."""
        return "" if self._phase is _Phase.CONNECTED else self._client.wire.trouble

    @property
    def is_closed(self) -> bool:
        """It was closed and will not connect again."""
        return self._phase is _Phase.CLOSED

    def start(self) -> None:
        """Begin to connect, on the running loop."""
        if self._phase is _Phase.IDLE:
            self._loop = asyncio.get_running_loop()
            sys.setswitchinterval(min(_SWITCH, sys.getswitchinterval()))
            self._move(_Phase.LOST)
            self._client.start_async()
            self._tick()

    async def close(self) -> None:
        """End the session. Takes no longer than a request may, also when ZooKeeper does not answer."""
        before, client = self._phase, self._client
        self._move(_Phase.CLOSED)
        if before in (_Phase.IDLE, _Phase.CLOSED):
            return
        if self._timer:
            self._timer.cancel()
        ended = asyncio.Event()
        self._dispose(client, ended.set)
        try:
            async with asyncio.timeout(self._request_timeout):
                await ended.wait()
        except TimeoutError:
            client.wire.cut()  # kazoo's thread ends by itself then; the session ends by its timeout

    async def ask(self, *requests: Request) -> list[Outcome]:
        """Send the requests, in one go and in order, and return what became of each.

        Raises StoreUnavailable when not connected (nothing was sent) or when an outcome is unknown.
        """
        if self._phase is not _Phase.CONNECTED or not self._client.connected:
            raise StoreUnavailable(self._complaint())
        sent, wire = clock.now(), self._client.wire
        futures = [self.post(request) for request in requests]
        _, pending = await asyncio.wait(futures, timeout=self._request_timeout)
        if pending:
            if wire.heard < sent:
                wire.cut()
            raise StoreUnavailable(f"ZooKeeper at {self._servers} did not answer within {self._request_timeout:g} s")
        outcomes = [future.result() for future in futures]
        for outcome in outcomes:
            if isinstance(outcome, StoreUnavailable):
                raise outcome
        return outcomes

    def post(self, request: Request) -> asyncio.Future[Outcome]:
        """Send a request without a time limit: it ends with the connection at the latest."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def settle(result: AsyncResult) -> None:  # in kazoo's completion thread
            self._hop(_settle, future, result.value if result.successful() else result.exception)

        request(self._client).rawlink(settle)
        return future

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back in a moment, so that an error of the callback stays its own."""
        self._loop.call_soon(callback, *args)

    async def reachable(self) -> None:
        """Return when connected, but not at once: whoever asks has just failed. Raises StoreUnavailable when closed."""
        await asyncio.sleep(min(0.1, self._request_timeout))
        while self._phase is not _Phase.CONNECTED:
            if self._phase is _Phase.CLOSED:
                raise StoreUnavailable(self._complaint())
            self._phase_changed.clear()
            await self._phase_changed.wait()

    def watcher(self, event: WatchedEvent) -> None:
        """What to give kazoo as a watch. In kazoo's callback thread."""
        if event.path is not None and event.type in _CONSUMED:  # not so: the watch ended with the connection
            self._hop(self._on_event, event.path, _CONSUMED[event.type])

    def _new_client(self) -> _Client:
        try:
            client = _Client(self._servers, self._asked_timeout, patient=self._patient)
        except ValueError as error:
            raise ConfigError(f"{self._servers!r} is not a list of ZooKeeper's host:port: {error}") from None

        def moved(state: str) -> None:  # in kazoo's connection thread
            session = client.client_id[0] if client.client_id else 0
            self._hop(self._follow, client, state, session, client.wire.granted_timeout)

        client.add_listener(moved)
        return client

    def _follow(self, client: _Client, state: str, session: int, timeout: float) -> None:
        """kazoo's view has changed."""
        if client is not self._client or self._phase is _Phase.CLOSED:
            return
        if state == KazooState.CONNECTED and session:
            self.session, self.session_timeout = session, timeout
            self._move(_Phase.CONNECTED)
        elif state == KazooState.SUSPENDED:
            if self._phase is _Phase.CONNECTED:
                self._move(_Phase.SUSPENDED)
        elif state == KazooState.LOST:
            self._move(_Phase.LOST)

    def _move(self, phase: _Phase) -> None:
        """The only place where the phase changes."""
        if self._phase in (phase, _Phase.CLOSED):
            return
        before, self._phase = self.state, phase
        self._client.wire.has_session = phase in (_Phase.CONNECTED, _Phase.SUSPENDED)
        self._phase_changed.set()
        if self.state is before:
            return
        if phase is _Phase.CONNECTED:
            self._client.journal.reason = ""
            self._restarts.succeeded()
            self._log.info("connected to ZooKeeper", session=f"{self.session:#x}", timeout=self.session_timeout)
            if self.session_timeout < self._asked_timeout:
                self._log.warning(
                    f"ZooKeeper grants sessions of {self.session_timeout:g} s instead of {self._asked_timeout:g} s: "
                    "ask for less, or raise its maxSessionTimeout"
                )
        elif phase is not _Phase.CLOSED:
            self._log.warning(self._complaint(), session=f"{self.session:#x}")
        self._on_move(self.state)

    def _tick(self) -> None:
        """Find out what kazoo does not: that the session must be over, a handshake stuck, its thread dead."""
        rest = _TICK
        if self._client.wire.handshake_age() > self._request_timeout:
            self._client.wire.cut()
        if self._phase is _Phase.LOST:
            self._client.last_zxid = 0
        if self._phase in (_Phase.CONNECTED, _Phase.SUSPENDED):
            rest = self._client.wire.heard + self.session_timeout - clock.now()
            if rest <= 0:
                # Also after this process itself was frozen: then kazoo still believes to be connected.
                self._client.wire.cut()
                self._move(_Phase.LOST)
        if not self._client.wire.is_alive() and clock.now() >= self._restarts.due:
            self._restarts.failed(clock.now())
            self._dispose(self._client)
            self._client = self._new_client()
            self._move(_Phase.LOST)
            self._client.start_async()
        self._timer = self._loop.call_later(rest if 0 < rest < _TICK else _TICK, self._tick)

    def _dispose(self, client: _Client, done: Callable[[], None] = lambda: None) -> None:
        """Close a client in a thread of its own, because kazoo waits in `stop` until the server has answered."""

        def end() -> None:
            with contextlib.suppress(Exception):  # there is nobody who could do anything about it
                client.stop()
                client.close()
            self._hop(done)

        threading.Thread(target=end, name="zookeeper-close", daemon=True).start()

    def _complaint(self) -> str:
        why = (self._client.journal.reason, self.trouble and f"it {self.trouble}")
        reason = f" ({said})" if (said := "; ".join(filter(None, why))) else ""
        return f"ZooKeeper at {self._servers} is {self._phase.value}{reason}"

    def _hop(self, callback: Callable[..., object], *args: Any) -> None:
        """Let the loop call back. The only method here that another thread may call."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to tell
            self._loop.call_soon_threadsafe(callback, *args)


class _Pollable(Protocol):
    """A socket of ours, or of kazoo's."""

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""


class _Client(KazooClient):
    """A kazoo client with our sockets, our pauses and our idea of what to log."""

    def __init__(self, servers: str, timeout: float, *, patient: bool) -> None:
        self.journal = _Journal(logging.getLogger("kazoo"), {})
        self.wire = _Wire(timeout / (servers.count(",") + 1), yields=patient)
        # kazoo jitters a pause by up to 40 % beyond its maximum.
        pauses = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.7, sleep_func=self.wire.sleep_func)
        super().__init__(servers, timeout, handler=self.wire, connection_retry=pauses, logger=self.journal)


class _TurnedAway(Enum):
    """What a server that accepts connections does with them, as a predicate."""

    CROWDED = "accepts and closes at once: its maxClientCnxns (60 by default) may be reached by this address"
    YIELDED = "has room again, which is left to others for a moment"
    NOT_SERVING = (
        "accepts and closes without an answer: it has no quorum, or its maxClientCnxns (60 by default) is reached"
    )


class _Wire(SequentialThreadingHandler):
    """kazoo's threads and sockets. `patience` (seconds) is how long a host may take to accept a connection.

    `yields`: while servers are crowded, and there is no session to be kept, others go first.
    """

    def __init__(self, patience: float, *, yields: bool = False) -> None:
        super().__init__()
        self.heard = clock.now()
        self.has_session = False  # the loop's word: it may be over
        self._patience = patience
        self._yields = yields
        self._tried: list[_TurnedAway | None] = []  # what became of the attempts since the last pause
        self._turned_away: tuple[_TurnedAway, float] | None = None  # when last
        self._hastens = False
        self._rests = Backoff(_FIRST_REST, _LONGEST_LEAVE)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socket: _Socket | None = None
        self._opened = 0.0

    @property
    def granted_timeout(self) -> float:
        """Seconds, as in the server's answer to the latest handshake."""
        return self._socket.granted_timeout if self._socket else 0.0

    @property
    def trouble(self) -> str:
        """Why there is no connection, in words; empty when the servers do not even accept one."""
        if self._turned_away is None or clock.now() - self._turned_away[1] > _MEMORY:
            return ""
        return self._turned_away[0].value

    def handshake_age(self) -> float:
        """Seconds that the latest connection has been open without an answer to the handshake; else 0."""
        waiting = self._socket is not None and not self._socket.granted_timeout
        return clock.now() - self._opened if waiting else 0.0

    def is_alive(self) -> bool:
        """No thread of kazoo's has ended."""
        return all(thread.is_alive() for thread in self._threads)

    def cut(self) -> None:
        """End the connection, so that kazoo makes another."""
        with contextlib.suppress(OSError):
            if self._socket:
                self._socket.was_cut = True
                self._socket.shutdown(socket.SHUT_RDWR)

    def start(self) -> None:
        """Called by kazoo."""
        self._ended.clear()
        super().start()

    def stop(self) -> None:
        """Called by kazoo at its end, and once before it starts."""
        self._ended.set()
        super().stop()

    def sleep_func(self, seconds: float) -> None:
        """Called by kazoo between two rounds of attempts, in its connection thread: a pause, in pieces."""
        tried, self._tried = self._tried, []
        if tried:
            crowded = all(how in (_TurnedAway.CROWDED, _TurnedAway.YIELDED) for how in tried)
            self._hastens = crowded and not self._is_polite
            if crowded and self._is_polite:
                now = clock.now()
                self._ended.wait(_YIELD if _TurnedAway.YIELDED in tried else self._rests.failed(now) - now)
        self._ended.wait(seconds * _HASTE if self._hastens else seconds)

    def spawn(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        """Called by kazoo to start a thread."""
        thread = super().spawn(func, *args, **kwargs)
        self._threads.append(thread)
        return thread

    def dispatch_callback(self, callback: Callback) -> None:
        """Called by kazoo with each event of a watch: what ZooKeeper says first is to be heard first."""
        self.completion_queue.put(lambda: callback.func(*callback.args))

    def create_connection(
        self, address: tuple[str, int], hostname: str | None = None, timeout: float | None = None, **options: Any
    ) -> socket.socket:
        """Called by kazoo in its connection thread."""
        patience = min(self._patience, timeout or self._patience)
        self._tried.append(None)
        plain = super().create_connection(address, hostname, patience, **options)
        before = self._turned_away[0] if self._turned_away is not None and not self.has_session else None
        crowded = before is not None and _is_closed(plain, _CROWD)
        if before is _TurnedAway.CROWDED and not crowded and self._is_polite:
            plain.close()
            self._turn_away(_TurnedAway.YIELDED)
            raise ConnectionRefusedError(_TurnedAway.YIELDED.value)
        self._opened = clock.now()
        self._socket = _Socket(plain, self._listen, self._turn_away, crowded=crowded)
        return self._socket

    @property
    def _is_polite(self) -> bool:
        """Others need a place more than this one, which has no session to lose."""
        return self._yields and not self.has_session

    def _turn_away(self, how: _TurnedAway) -> None:
        self._turned_away = how, clock.now()
        self._tried[-1:] = [how]

    def select(
        self, reads: Sequence[_Pollable], writes: Sequence[_Pollable], _: object, timeout: float | None = None
    ) -> tuple[list[_Pollable], list[_Pollable], list[_Pollable]]:
        """Called by kazoo: `select.select`, for descriptors of any number. Raises ValueError for a closed one."""
        poll = select.poll()
        for pollable in reads:
            poll.register(pollable, select.POLLIN)
        for pollable in writes:
            poll.register(pollable, select.POLLOUT)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else math.ceil(timeout * 1000))}
        return [r for r in reads if r.fileno() in ready], [w for w in writes if w.fileno() in ready], []

    def _listen(self) -> None:
        self.heard = clock.now()
        if self._turned_away is not None and self.granted_timeout:
            self._turned_away = None
            self._rests.succeeded()


def _is_closed(connection: socket.socket, patience: float) -> bool:
    """Whether the server ends it within `patience` seconds though nothing was said yet."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(math.ceil(patience * 1000)))


class _Socket(socket.socket):
    """A connection that notes when something was heard, what timeout the server grants in the handshake, and how it
    ends before that."""

    def __init__(
        self,
        plain: socket.socket,
        heard: Callable[[], None],
        turned_away: Callable[[_TurnedAway], None],
        *,
        crowded: bool,
    ) -> None:
        patience = plain.gettimeout()
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self.settimeout(patience)
        self.was_cut = False
        self._heard = heard
        self._turned_away = turned_away
        self._crowded = crowded
        self._greeting = b""

    @property
    def granted_timeout(self) -> float:
        """Seconds; ConnectResponse is an int of length, an int of version, the timeout as an int of milliseconds."""
        return int.from_bytes(self._greeting[8:12], "big") / 1000

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As `socket.recv`."""
        with self._noting_the_end():
            data = super().recv(size, flags)
        if not data:
            self._end()
        if len(self._greeting) < 12:
            self._greeting += data
        if data:
            self._heard()
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """As `socket.send`."""
        with self._noting_the_end():
            return super().send(data, flags)

    @contextlib.contextmanager
    def _noting_the_end(self) -> Iterator[None]:
        try:
            yield
        except ConnectionError:
            self._end()
            raise

    def _end(self) -> None:
        if not self._greeting and not self.was_cut:
            self._turned_away(_TurnedAway.CROWDED if self._crowded else _TurnedAway.NOT_SERVING)


class _Journal(logging.LoggerAdapter[logging.Logger]):
    """kazoo's running commentary. Errors are logged; of the rest the latest trouble is kept for our own messages."""

    reason = ""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `Logger.log`."""
        if level == logging.WARNING and not str(msg).startswith("Transition"):
            self.reason = str(msg) % args
        if level >= logging.ERROR:
            super().log(level, msg, *args, **kwargs)


def _settle(future: asyncio.Future[Outcome], outcome: object) -> None:
    if not future.done():
        future.set_result(_in_our_words(outcome))


def _in_our_words(outcome: object) -> Outcome:
    """Errors of kazoo's become ours, also among the results of a transaction."""
    if isinstance(outcome, list):
        return [_in_our_words(item) for item in outcome]
    if not isinstance(outcome, Exception):
        return outcome
    detail = f"{type(outcome).__name__} {outcome}".strip()
    return next(ours(f"{meaning} ({detail})") for theirs, ours, meaning in _ERRORS if isinstance(outcome, theirs))
