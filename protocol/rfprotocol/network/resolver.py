"""Connects to servers by name, without waiting for the name service: one object per process.

What is known, and when to look up, is decided by `address_cache`; here are the look-ups, the timer between them and the
sockets. Each look-up has a thread of its own, which ends with the process at the latest. With the event loop's own
`getaddrinfo` a silent name service holds up all other look-ups (uvloop has two threads for them) and the end of the
process: 20 s were measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog

from rfprotocol import clock
from rfprotocol.network.address_cache import AddressCache, News, is_address
from rfprotocol.topology.topology import Node

STAGGER = 0.1
"""Seconds that an address is given before the next one of the same name is tried beside it. RFC 8305 recommends 0.25
and allows 0.1; a probe of a manager takes 0.45 at most."""
ALL_WITHIN = 0.3
"""Seconds within which the last of many addresses is tried, too: then they follow each other faster."""
SLOW_CONNECT = 0.25
"""Seconds without a connection after which the name is looked up again: it may have moved."""
SLOW_LOOKUP = 1.0
"""Seconds after which a look-up is worth a line in the log."""

TELL_EVERY = 600.0
"""Seconds after which it is said again which addresses are known, though they are the same."""

LookUp = Callable[[str], Sequence[str]]
"""Finds the addresses of a host name. It may take as long as it likes. Raises OSError, UnicodeError, ValueError."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


def look_up(host: str) -> Sequence[str]:
    """As the system does it: hosts file, name service, and the order of RFC 6724."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else str(where[0]) for *_, where in found]


class Resolver:
    """The addresses of all servers that this process connects to. It needs a running event loop once it is used."""

    def __init__(self, *, now: Callable[[], float] = clock.now, look_up: LookUp = look_up) -> None:
        self._cache = AddressCache()
        self._now = now
        self._look_up = look_up
        self._log = structlog.get_logger()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closed = False
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._told_at = -math.inf
        self._slow: set[str] = set()  # whose last look-up was
        self._listeners: list[Callable[[Mapping[str, Sequence[str]]], None]] = []

    def subscribe(self, listener: Callable[[Mapping[str, Sequence[str]]], None]) -> None:
        """Call `listener` with the addresses of all names when those of one have changed, and from time to time."""
        self._listeners.append(listener)

    @property
    def known(self) -> Mapping[str, Sequence[str]]:
        """The last good addresses of all names."""
        return self._cache.known()

    def follow(self, owner: object, hosts: Iterable[str]) -> None:
        """Look these up ahead, and again every few seconds, until `owner` says otherwise, or names none.

        Outside of an event loop this is only noted.
        """
        self._cache.follow(owner, hosts, self._now())
        self._go_on()

    def remember(self, known: Mapping[str, Iterable[str]]) -> None:
        """Addresses of an earlier run, to be used while the name service is slow or fails."""
        self._cache.remember(known, self._now())
        self._go_on()

    def close(self) -> None:
        """Look up nothing any more. What is under way ends by itself, and nobody hears of it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def knows(self, host: str) -> bool:
        """Whether there is an address to connect to."""
        return self._cache.knows(host, self._now())

    async def locate(self, host: str) -> Sequence[str]:
        """The addresses of a host. Waits only for the first look-up of a name, for a few seconds.

        Raises NodeUnreachable (UNRESOLVED).
        """
        if is_address(host):
            return (host,)
        while not (addresses := self._cache.find(host, self._now())):
            self._go_on()
            await self._look_up_ended(host, self._cache.patience(host, self._now()))
        return addresses

    async def connect(self, node: Node, protocol: Callable[[], _P]) -> tuple[asyncio.BaseTransport, _P]:
        """A connection to a server, at the address that answers first. Not bounded in time, save for the look-up.

        Raises NodeUnreachable (UNRESOLVED), OSError.
        """
        loop = asyncio.get_running_loop()
        addresses = await self.locate(node.host)
        with self._doubting(node.host):
            if len(addresses) == 1:
                return await loop.create_connection(protocol, addresses[0], node.port)
            sock = await self._open(node, addresses)
        return await loop.create_connection(protocol, sock=sock)

    async def open(self, node: Node) -> socket.socket:
        """As `connect`, for those who make a stream of the socket."""
        addresses = await self.locate(node.host)
        with self._doubting(node.host):
            return await self._open(node, addresses)

    async def _open(self, node: Node, addresses: Sequence[str]) -> socket.socket:
        address, sock = await _first_to_accept(addresses, node.port)
        self._cache.connected(node.host, address)
        return sock

    @contextlib.contextmanager
    def _doubting(self, host: str) -> Iterator[None]:
        """Look up the name again if connecting to it takes long or fails."""
        if is_address(host):
            yield
            return
        slow = asyncio.get_running_loop().call_later(SLOW_CONNECT, self.doubt, host)
        try:
            yield
        except OSError:
            self.doubt(host)
            raise
        finally:
            slow.cancel()

    def doubt(self, host: str) -> None:
        """A server cannot be connected to: its name may have moved."""
        self._cache.hurry(host)
        self._go_on()

    # --- look-ups

    def _go_on(self) -> None:
        """Begin the look-ups that are due, and wait for the next ones."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._closed:
            return
        for host in self._cache.begin(self._now()):
            self._begin(host, loop)
        due = self._cache.next_due()
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = loop.call_later(max(0.0, due - self._now()), self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._go_on()

    def _begin(self, host: str, loop: asyncio.AbstractEventLoop) -> None:
        began = self._now()

        def work() -> None:
            addresses: Sequence[str] = ()
            why, unknown = "it has no address", True
            try:
                addresses = self._look_up(host)
            except socket.gaierror as error:
                why, unknown = error.strerror or str(error), error.errno in _UNKNOWN
            except (OSError, UnicodeError, ValueError) as error:
                why, unknown = str(error), isinstance(error, ValueError)  # UnicodeError is one
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
                loop.call_soon_threadsafe(self._ended, host, began, addresses, why, unknown)

        try:
            threading.Thread(target=work, name=f"look up {host}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started
            loop.call_soon(self._ended, host, began, (), str(error), False)

    def _ended(self, host: str, began: float, addresses: Sequence[str], why: str, unknown: bool) -> None:
        if self._closed:
            return
        now = self._now()
        before = self.known.get(host, ())
        if addresses:
            news = self._cache.found(host, addresses, now)
        else:
            news = self._cache.failed(host, why, now, unknown=unknown)
        self._tell(host, news, before, why, now - began)
        if news.changed or (addresses and now - self._told_at > TELL_EVERY):
            self._told_at = now
            for listener in self._listeners:
                listener(self.known)
        for waiter in self._waiting.pop(host, ()):
            if not waiter.done():
                waiter.set_result(None)
        self._go_on()

    def _tell(self, host: str, news: News, before: Sequence[str], why: str, seconds: float) -> None:
        after = self.known.get(host, ())
        if news.failing:
            using = ", ".join(after) if self._cache.knows(host, self._now()) else "none: it cannot be connected to"
            self._log.warning("name_unresolved", host=host, error=why, last_known=using)
        if news.recovered:
            self._log.info("name_resolved", host=host, addresses=after)
        if news.changed and before:
            self._log.info("name_moved", host=host, before=before, addresses=after)
        was_slow, is_slow = host in self._slow, seconds > SLOW_LOOKUP
        (self._slow.add if is_slow else self._slow.discard)(host)
        if is_slow and not was_slow and not news.failing:
            self._log.warning("name_service_slow", host=host, seconds=round(seconds, 1), last_known=before or "none")

    async def _look_up_ended(self, host: str, patience: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, []).append(waiter)
        await asyncio.wait([waiter], timeout=max(0.0, patience))


_UNKNOWN = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


async def _first_to_accept(addresses: Sequence[str], port: int) -> tuple[str, socket.socket]:
    """A connection to one of several addresses of a server, tried one after the other, STAGGER apart at most.

    A refusal comes from a host that lives: the others are then given as long once more, and no longer. So a killed
    server is found out although another of its addresses leads nowhere. Raises OSError: a refusal, if there was one.
    """
    todo = list(addresses)
    stagger = min(STAGGER, ALL_WITHIN / len(todo))
    attempts: dict[asyncio.Task[socket.socket], str] = {}
    errors: list[OSError] = []
    try:
        while todo or attempts:
            refused = any(isinstance(error, ConnectionRefusedError) for error in errors)
            if todo:
                address = todo.pop(0)
                attempts[asyncio.ensure_future(_attempt(address, port))] = address
            patience = stagger if todo else STAGGER if refused else None
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                address, error = attempts.pop(attempt), attempt.exception()
                if error is None:
                    return address, attempt.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
            if refused and not done and not todo:
                break
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close)
            attempt.cancel()
    raise next((error for error in errors if isinstance(error, ConnectionRefusedError)), errors[0])


async def _attempt(address: str, port: int) -> socket.socket:
    # Of an address this waits for nobody.
    family, kind, number, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, number)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """Of an attempt that lost the race."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
