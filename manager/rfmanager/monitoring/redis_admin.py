"""What a manager asks of one Redis server: its state, and to change its role.

Commands and fields are those of Redis 6.2 to 7; where an older or newer server differs, that is said at the place.
Every call is bounded in time and raises `NodeUnreachable` when the server did not answer, in which case a command
may still have been executed, or `NodeRefused` with Redis' error code. Passwords never appear in either.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import redis.asyncio
from redis import exceptions as redis_errors
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from rfprotocol.errors import Failure, NodeRefused, NodeUnreachable, without_arguments
from rfprotocol.network.resolver import Resolver
from rfprotocol.network.tcp_info import Unacknowledged, look
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.topology import Node, NodeReport

REFUSED = ("NOAUTH", "WRONGPASS")
"""The words of a server that does not let somebody in."""

SERVER_CLOSED = "Connection closed by server"
"""redis-py's words for the end of a stream."""

NOBODY = ("127.0.0.1", "0")
"""The master of a sealed replica. Redis accepts port 0, and connecting to it fails at once. Unlike after
`REPLICAOF NO ONE` the server keeps its replication ID and cached master, so that it can resume partially."""


EVENTS = "notify-keyspace-events"
EVENTS_EVERY = 2.0
"""Seconds between two questions for that setting, which INFO does not tell."""
EVENTS_REFUSED = 600.0
"""The same where it is refused: each refusal stands in the server's ACL LOG."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing a connection resets it. The kernel forgets what is on its way instead of sending it again for
minutes: a REPLICAOF that timed out in a network that lost it must not arrive when its server is a master by then."""


class ResetConnection(Connection):
    """A connection of redis-py that ends at once, with everything on its way, and by a reset.

    The server keeps its name in what redis-py says; `resolver` knows where it is.
    """

    def __init__(self, *, resolver: Resolver, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._resolver = resolver
        self._socket: socket.socket | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {"sock": self._socket}

    async def _connect(self) -> None:
        self._socket = await self._resolver.open(Node(self.host, self.port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py's hook for subclasses has no types

    async def disconnect(
        self,
        nowait: bool = False,
        error: Exception | None = None,
        failure_count: int | None = None,
        health_check_failed: bool = False,
    ) -> None:
        """As that of redis-py; what this process has not yet handed to the kernel is dropped, too."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(True, error, failure_count, health_check_failed)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in to the servers; the same for the replicas when they follow their master."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


class _Login(CredentialProvider):
    """What one connection says, in redis-py's form; nothing when there is no account."""

    def __init__(self, said: Credentials) -> None:
        self._said = said

    def get_credentials(self) -> Any:
        """See `get_credentials_async`."""
        if self._said.username:
            return self._said.username, self._said.password or ""
        return () if self._said.password is None else (self._said.password,)

    async def get_credentials_async(self) -> Any:
        """The arguments of AUTH."""
        return self.get_credentials()


class _Pool(ConnectionPool):
    """That of redis-py; whoever is logged in comes first.

    A server whose password was changed goes on with the connections that stand, and refuses new ones.
    """

    def get_available_connection(self) -> Any:
        """As in redis-py, which takes the last one."""
        self._available_connections.sort(key=lambda connection: connection.is_connected)
        return super().get_available_connection()  # type: ignore[no-untyped-call]  # redis-py's has no types

    @property
    def idle(self) -> bool:
        """Whether somebody who is logged in has nothing to do."""
        return any(connection.is_connected for connection in self._available_connections)

    @property
    def busy(self) -> bool:
        """Whether somebody who is logged in has something to do."""
        return any(connection.is_connected for connection in self._in_use_connections)


LEND = 0.002  # seconds between two looks whether another's connection is free


class RedisAdmin:
    """The administrative connections to one server. `timeout` bounds each command, in seconds.

    `credentials` may be a keyring that all servers have in common, and that changes.
    """

    def __init__(
        self,
        node: Node,
        credentials: Credentials | Keyring[Credentials] = Credentials(),
        timeout: float = 1.0,
        resolver: Resolver | None = None,
    ) -> None:
        self.node = node
        self.timeout = timeout
        self.resolver = resolver or Resolver()
        self.resolver.follow(self, (node.host,))
        self._lender: RedisAdmin | None = None
        self._keyring = credentials if isinstance(credentials, Keyring) else Keyring(credentials)
        self._pool = _Pool(
            connection_class=ResetConnection,
            host=node.host,
            port=node.port,
            resolver=self.resolver,
            redis_connect_func=self._greet,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),  # whether to try again is for the caller to decide, who knows the tenure
            client_name="rfmanager",
        )
        self._client: Any = redis.asyncio.Redis.from_pool(self._pool)  # its methods are not fully typed
        # redis-py guesses the type of each of the 180 fields, of which a handful is needed: half the cost of a probe.
        self._client.set_response_callback("INFO", lambda response, **options: response)
        self._events: str | None = None
        self._events_due = float("inf")  # until it has answered INFO

    def bound(self, seconds: float) -> None:
        """Bound each command from now on by so many seconds."""
        self.timeout = seconds

    def borrow_from(self, lender: RedisAdmin) -> None:
        """Take connections of `lender`, to the same server, while that refuses new ones."""
        self._lender = lender

    async def close(self) -> None:
        """Close all connections; never fails."""
        self.resolver.follow(self, ())
        with contextlib.suppress(redis_errors.RedisError, OSError):
            await self._client.aclose()

    async def locate(self) -> None:
        """Wait for the first look-up of its name, for a few seconds; later ones nobody has to wait for.

        Raises NodeUnreachable.
        """
        try:
            await self.resolver.locate(self.node.host)
        except NodeUnreachable as error:
            raise _unresolved(self.node, error) from None

    async def probe(self) -> NodeReport:
        """The server's state as it says itself. Its answer to INFO while loading is one; -BUSY raises NodeRefused."""
        asked = time.perf_counter()
        if asked < self._events_due:
            report = self._read(await self._ask("INFO"), asked)
            if self._events_due == float("inf"):
                self._events_due = asked
            return self._with_events(report)

        async def say(client: Any) -> Any:
            async with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("INFO")
                pipe.execute_command("CONFIG", "GET", EVENTS)
                info, events = await pipe.execute(raise_on_error=False)
            if isinstance(info, Exception):
                raise info
            return info, events

        info, events = await self._say(say)
        known = isinstance(events, list) and len(events) == 2  # not when the user may not ask, or it was renamed
        self._events = str(events[1]) if known else None
        self._events_due = asked + (EVENTS_EVERY if known else EVENTS_REFUSED)
        return self._with_events(self._read(info, asked))

    def _with_events(self, report: NodeReport) -> NodeReport:
        return report if self._events is None else replace(report, events=self._events)

    def _read(self, said: Any, asked: float) -> NodeReport:
        with self._understood():
            return parse_info(self.node, info_fields(said), time.perf_counter() - asked)

    def _fields(self, said: Any) -> Mapping[str, str]:
        with self._understood():
            return info_fields(said)

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except _SentinelFound:
            why = f"{self.node} is a Sentinel: name the Redis servers that it watches"
            raise NodeRefused(why, "SENTINEL") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise NodeRefused(f"{self.node} answers INFO with something else: {error}", "UNKNOWN") from None

    async def seal(self) -> NodeReport:
        """Make the server follow nobody and accept no write, keeping its data, history and offset; return its state."""
        return await self._replicaof(*NOBODY)

    async def promote(self, events: str | None = None) -> NodeReport:
        """Make the server a master and return its state. NodeRefused when it says it is none afterwards.

        `events`: the notify-keyspace-events that it is to have from now on; None: as it is. A server that refuses that
        is promoted all the same: then the state has other `events`.
        """
        if events is None:
            report = await self._replicaof("NO", "ONE")
        else:
            report = await self._replicaof("NO", "ONE", events)
        if report.role != "master":
            raise NodeRefused(f"{self.node} is still a {report.role} after REPLICAOF NO ONE", "ROLE")
        return report

    async def _replicaof(self, host: str, port: str, events: str | None = None) -> NodeReport:
        """The state after the command, which is asked for together with it: clients wait."""

        async def say(client: Any) -> tuple[Any, list[Any]]:
            async with client.pipeline(transaction=False) as pipe:
                if events is not None:
                    pipe.execute_command("CONFIG", "SET", EVENTS, events)
                pipe.execute_command("REPLICAOF", host, port)
                pipe.execute_command("INFO")
                *inherited, done, info = await pipe.execute(raise_on_error=False)
            if isinstance(done, Exception):
                raise done
            if isinstance(info, Exception):
                raise info
            return info, inherited

        asked = time.perf_counter()
        info, inherited = await self._say(say)
        if inherited and not isinstance(inherited[0], Exception):
            self._events = events
        return self._with_events(self._read(info, asked))

    async def replicate(self, master: Node) -> None:
        """Make the server a replica of `master`; it copies the whole data when it cannot resume."""
        await self._ask("REPLICAOF", master.host, str(master.port))

    async def pause_writes(self, seconds: float) -> None:
        """Hold the writes of all clients for that long at most (Redis 6.2 or later)."""
        await self._ask("CLIENT", "PAUSE", str(int(seconds * 1000)), "WRITE")

    async def unpause(self) -> None:
        """End `pause_writes`."""
        await self._ask("CLIENT", "UNPAUSE")

    async def demote_and_unpause(self, master: Node) -> None:
        """Make the server a replica and release the paused clients in one step, so that no write slips in between."""

        async def say(client: Any) -> Any:
            async with client.pipeline(transaction=True) as pipe:
                pipe.execute_command("REPLICAOF", master.host, str(master.port))
                pipe.execute_command("CLIENT", "UNPAUSE")
                return await pipe.execute()

        await self._say(say)

    # Who lets whom in.

    async def log_in(self) -> Credentials:
        """What the server accepts now, tried on a new connection if there is a choice. Raises NodeRefused when it is
        nothing that we know."""
        if self._keyring.current.password is None and not self._keyring.rereadable:
            return self._keyring.current
        return await self._try(lambda connection: self._introduce(connection, self._keyring.newest))

    async def admits(self, said: Credentials) -> bool:
        """Whether the server lets somebody in who says this."""

        async def greet(connection: Any) -> Credentials:
            connection.credential_provider = _Login(said)
            await connection.on_connect()
            return said

        try:
            await self._try(greet)
        except NodeRefused as error:
            if error.code not in (*REFUSED, "NOPERM"):
                raise
            return error.code == "NOPERM"  # a user for replication need not be able to do anything else
        return True

    async def _try(self, greet: Callable[[Any], Awaitable[Credentials]]) -> Credentials:
        """The same on a connection of its own; returns what was accepted."""
        accepted = []

        async def note(connection: Any) -> None:
            accepted.append(await greet(connection))

        connection = ResetConnection(**{**self._pool.connection_kwargs, "redis_connect_func": note})
        try:
            async with self._translated():
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's has no types
        finally:
            with contextlib.suppress(redis_errors.RedisError, OSError):
                await connection.disconnect()
        return accepted[-1]

    async def _greet(self, connection: Any) -> None:
        await self._introduce(connection, self._keyring.of)

    async def _introduce(self, connection: Any, which: Callable[[Node], Credentials]) -> Credentials:
        """Log in, with whatever else there is when the server refuses it: on one connection, as Redis does not close it
        after a refusal."""
        while True:
            said = which(self.node)
            connection.credential_provider = _Login(said)
            try:
                await connection.on_connect()
            except redis_errors.AuthenticationError:
                if not self._keyring.refused(self.node, said):
                    raise
            else:
                self._keyring.accepted(self.node, said)
                return said

    async def master_credentials(self) -> Credentials:
        """With what the server follows its master, as configured. Raises NodeRefused where that may not be asked."""
        said = await self._ask("CONFIG GET", "master*")
        return Credentials(said.get("masteruser") or None, said.get("masterauth") or None)

    async def set_master_credentials(self, credentials: Credentials) -> None:
        """Without these a replica cannot follow a protected master. Raises NodeRefused."""
        if credentials.password is not None:
            await self._ask("CONFIG", "SET", "masteruser", credentials.username or "")
            await self._ask("CONFIG", "SET", "masterauth", credentials.password)

    # What all have in common.

    async def _ask(self, *command: str) -> Any:
        return await self._say(lambda client: client.execute_command(*command))

    async def _say(self, say: Callable[[Any], Awaitable[Any]]) -> Any:
        async with self._translated():
            try:
                return await say(self._client)
            except redis_errors.ConnectionError as error:
                if not _lets_nobody_in(error) or (client := await self._borrowed()) is None:
                    raise
                return await say(client)

    async def _borrowed(self) -> Any:
        """Return the lender's connections when one of them is free and logged in; None when there is none."""
        pool = self._lender._pool if self._lender is not None else None
        while pool is not None and not pool.idle:
            if not pool.busy:
                return None
            await asyncio.sleep(LEND)
        return self._lender._client if self._lender is not None else None

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.timeout):
                yield
        except TimeoutError:
            if not self.resolver.knows(self.node.host):
                raise _unresolved(self.node, "the name service did not answer in time") from None
            raise NodeUnreachable(f"{self.node} did not answer in time", Failure.TIMEOUT) from None
        except (redis_errors.RedisError, OSError, ValueError) as error:
            raise _translate(self.node, error) from None


def _unresolved(node: Node, why: object) -> NodeUnreachable:
    return NodeUnreachable(f"{node} cannot be reached: {why}", Failure.UNRESOLVED)


def _lets_nobody_in(error: redis_errors.ConnectionError) -> bool:
    """Whether a new connection was refused, of a server that goes on with those that stand."""
    return isinstance(error, redis_errors.AuthenticationError) or _TOO_MANY in str(error)


_TOO_MANY = "max number of clients"

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.AuthenticationError, "NOAUTH"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.ReadOnlyError, "READONLY"),
    (redis_errors.ExecAbortError, "EXECABORT"),
)


def _translate(node: Node, error: Exception) -> NodeUnreachable | NodeRefused:
    """redis-py derives some error replies from ConnectionError although the server did answer."""
    text = without_arguments(str(error))
    code = getattr(error, "status_code", None)
    if not code:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if not code and _TOO_MANY in text:
        code = "MAXCLIENTS"
    if not code and isinstance(error, redis_errors.ResponseError):
        first = text.split(" ", 1)[0]
        code = first if first.isupper() and first.isalpha() else "ERR"
    if code:
        return NodeRefused(f"{node} answered {code}: {text}", code)
    if isinstance(error, redis_errors.TimeoutError):
        return NodeUnreachable(f"{node} did not answer in time", Failure.TIMEOUT)
    return NodeUnreachable(f"{node} cannot be reached: {text}", failure_of(error))


_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT}
_HUNG_UP = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}
_NUMBER = re.compile(r"\[Errno (\d+)\]")


def failure_of(error: BaseException) -> Failure:
    """What an exception of asyncio or redis-py stands for; redis-py hides the system's error behind its own."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(link, redis_errors.InvalidResponse) for link in chain):
        return Failure.FOREIGN
    if any(isinstance(link, socket.gaierror) or getattr(link, "reason", None) is Failure.UNRESOLVED for link in chain):
        return Failure.UNRESOLVED
    # Of a name with several addresses asyncio tells the errors in words only.
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    numbers |= {int(number) for link in chain for number in _NUMBER.findall(str(link))}
    if errno.ECONNREFUSED in numbers:
        return Failure.REFUSED
    if numbers & _NO_ROUTE:
        return Failure.UNREACHABLE
    if numbers & _HUNG_UP or any(SERVER_CLOSED in str(link) for link in chain):
        return Failure.CLOSED
    return Failure.ERROR


class _SentinelFound(ValueError):
    """INFO of a Sentinel."""


def info_fields(said: str) -> Mapping[str, str]:
    """The answer to INFO by the names of its fields. Raises ValueError, AttributeError when it is something else.

    A line that is no field is passed over: forks and modules add their own. Only CR LF ends a line: scripts may
    name errors as they like (`errorstat_...`). Of two fields of the same name the first counts.
    """
    lines = reversed(said.split("\r\n"))
    fields = dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")
    if fields.get("redis_mode") == "sentinel":
        raise _SentinelFound
    if "role" not in fields:
        raise ValueError("there is no role in it")
    return fields


_ON_DISK = {"rdb_last_bgsave_status": "its RDB dump", "aof_last_write_status": "its append-only file"}
"""What INFO says of the disk, and of what."""


def not_on_disk(info: Mapping[str, str]) -> str:
    """What a server could not write to its disk when it last tried; empty when it could."""
    return " and ".join(what for name, what in _ON_DISK.items() if info.get(name) == "err")


def parse_info(node: Node, info: Mapping[str, str], latency: float) -> NodeReport:
    """The fields of INFO that matter here, see `redis.c: genRedisInfoString`."""
    role = info.get("role", "")
    # Valkey goes on to say `redis_version:7.2.4`, for clients that look at that.
    name = info.get("server_name", "redis")
    software = name if name != "redis" and f"{name}_version" in info else ""
    offset = int(info.get("master_repl_offset", -1))
    condition, unsaved = "ok", not_on_disk(info)
    if int(info.get("loading", 0)) or int(info.get("async_loading", 0)):
        condition = "loading"
    elif unsaved:
        condition = "misconf"  # Redis refuses writes in this state, unless stop-writes-on-bgsave-error is off
    report = NodeReport(
        node,
        available=True,
        condition=condition,
        latency=latency,
        role=role,
        run_id=info.get("run_id", ""),
        replid=info.get("master_replid", ""),
        replid2=info.get("master_replid2", ""),
        replid2_offset=int(info.get("second_repl_offset", -1)),
        offset=offset,
        priority=int(info.get("slave_priority", 100)),
        empty=not any(key[:2] == "db" and key[2:].isdigit() for key in info),
        connected_replicas=int(info.get("connected_slaves", 0)),
        aof=info.get("aof_enabled") == "1",
        keys=_keys(info),
        clients=int(info.get("connected_clients", 0)),
        software=software,
        version=info.get(f"{software or 'redis'}_version", ""),
        eviction=info.get("maxmemory_policy", "") if info.get("maxmemory", "0") != "0" else "",
        unsaved=unsaved if condition == "misconf" else "",
    )
    return report if role != "slave" else _as_replica(report, info)


def _keys(info: Mapping[str, str]) -> int:
    """Of all databases: `db0:keys=5,expires=0,avg_ttl=0`."""
    counts = (text.partition("keys=")[2].partition(",")[0] for name, text in info.items() if _DATABASE.fullmatch(name))
    return sum(int(count) for count in counts if count.isdecimal())


_DATABASE = re.compile(r"db\d+")


def _as_replica(report: NodeReport, info: Mapping[str, str]) -> NodeReport:
    port = int(info.get("master_port", 0))
    applied = int(info.get("slave_repl_offset", -1))
    return replace(
        report,
        # Redis forgets its cached master when it begins to load a full transfer. If that is interrupted, both
        # offsets differ, and the data may be part of the new and none of the old.
        offset=applied if applied == report.offset else -1,
        follows=Node(info.get("master_host", ""), port) if port else None,
        link_up=info.get("master_link_status") == "up",
        syncing=bool(int(info.get("master_sync_in_progress", 0))),
    )


class Canary(asyncio.Protocol):
    """A connection that asks nothing: that it is closed shows a killed server at once, that its bytes are not
    acknowledged shows a host that is gone."""

    def __init__(self, closed: Callable[[], None]) -> None:
        self._closed: Callable[[], None] | None = closed
        self._transport: asyncio.Transport | None = None
        self._silence = Unacknowledged()

    @classmethod
    async def connect(cls, node: Node, closed: Callable[[], None], resolver: Resolver | None = None) -> Canary:
        """`closed` is called once when the server or the network ends the connection. Raises NodeUnreachable.

        Not bounded in time: the caller cancels it.
        """
        try:
            _, canary = await (resolver or Resolver()).connect(node, lambda: cls(closed))
        except (OSError, ValueError, NodeUnreachable) as error:
            why = getattr(error, "strerror", None) or error
            raise NodeUnreachable(f"{node} cannot be reached: {why}", failure_of(error)) from None
        return canary

    @property
    def alive(self) -> bool:
        """False once the connection has ended."""
        return self._closed is not None

    def unacknowledged(self, now: float) -> float:
        """Seconds that the other host has acknowledged nothing of what it was sent, see `tcp_info`."""
        info = look(self._transport.get_extra_info("socket")) if self._transport is not None and self.alive else None
        return 0.0 if info is None else self._silence.seconds(info, now)

    def beat(self, now: float) -> float:
        """Send something to be acknowledged, unless something is; returns `unacknowledged`.

        An empty line is no command to Redis (`processInlineBuffer`): it needs no right, is not counted and not
        answered, also before authentication. A process that does not read costs two bytes for each.
        """
        seconds = self.unacknowledged(now)
        transport = self._transport
        if seconds == 0.0 and self.alive and transport is not None and transport.get_write_buffer_size() == 0:
            transport.write(b"\r\n")
        return seconds

    def close(self) -> None:
        """End it quietly, by a reset: nobody waits for what is on its way."""
        self._closed = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()
