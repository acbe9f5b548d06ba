"""What a manager asks of one Redis server: its state, and to change its role.

Commands and fields are those of Redis 6.2 to 7; where an older or newer server differs, that is said at the place.
Every call is bounded in time and raises `NodeUnreachable` when the server did not answer, in which case a command
may still have been executed, or `NodeRefused` with Redis' error code. Passwords never appear in either.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import redis.asyncio
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from rfprotocol.errors import NodeRefused, NodeUnreachable
from rfprotocol.topology import Node, NodeReport

NOBODY = ("127.0.0.1", "0")
"""The master of a sealed replica. Redis accepts port 0, and connecting to it fails at once. Unlike after
`REPLICAOF NO ONE` the server keeps its replication ID and cached master, so that it can resume partially."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in to the servers; the same for the replicas when they follow their master."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


class RedisAdmin:
    """The administrative connections to one server. `timeout` bounds each command, in seconds."""

    def __init__(self, node: Node, credentials: Credentials = Credentials(), timeout: float = 1.0) -> None:
        self.node = node
        self.timeout = timeout
        self._credentials = credentials
        self._client: Any = redis.asyncio.Redis(  # its methods are not fully typed
            host=node.host,
            port=node.port,
            username=credentials.username,
            password=credentials.password,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),  # whether to try again is for the caller to decide, who knows the tenure
            client_name="rfmanager",
        )
        # redis-py guesses the type of each of the 180 fields, of which a handful is needed: half the cost of a probe.
        self._client.set_response_callback("INFO", lambda response, **options: response)

    async def close(self) -> None:
        """Close all connections; never fails."""
        with contextlib.suppress(redis_errors.RedisError, OSError):
            await self._client.aclose()

    async def probe(self) -> NodeReport:
        """The server's state as it says itself. Its answer to INFO while loading is one; -BUSY raises NodeRefused."""
        asked = time.perf_counter()
        return self._read(await self._ask("INFO"), asked)

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
        except (ValueError, TypeError, AttributeError) as error:
            raise NodeRefused(f"{self.node} answers INFO with something else: {error}", "UNKNOWN") from None

    async def seal(self) -> NodeReport:
        """Make the server follow nobody and accept no write, keeping its data, history and offset; return its state."""
        return await self._replicaof(*NOBODY)

    async def promote(self) -> NodeReport:
        """Make the server a master and return its state. NodeRefused when it says it is none afterwards."""
        report = await self._replicaof("NO", "ONE")
        if report.role != "master":
            raise NodeRefused(f"{self.node} is still a {report.role} after REPLICAOF NO ONE", "ROLE")
        return report

    async def _replicaof(self, host: str, port: str) -> NodeReport:
        """The state after the command, which is asked for together with it: clients wait."""
        asked = time.perf_counter()
        async with self._translated(), self._client.pipeline(transaction=False) as pipe:
            pipe.execute_command("REPLICAOF", host, port)
            pipe.execute_command("INFO")
            done, info = await pipe.execute(raise_on_error=False)
            if isinstance(done, Exception):
                raise done
            if isinstance(info, Exception):
                raise info
        return self._read(info, asked)

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
        async with self._translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.execute_command("REPLICAOF", master.host, str(master.port))
            pipe.execute_command("CLIENT", "UNPAUSE")
            await pipe.execute()

    async def set_master_credentials(self) -> None:
        """Without these a replica cannot follow a protected master. Refusal is tolerated: they may be configured."""
        if self._credentials.password is None:
            return
        with contextlib.suppress(NodeRefused):
            await self._ask("CONFIG", "SET", "masteruser", self._credentials.username or "")
            await self._ask("CONFIG", "SET", "masterauth", self._credentials.password)

    async def _ask(self, *command: str) -> Any:
        async with self._translated():
            return await self._client.execute_command(*command)

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.timeout):
                yield
        except TimeoutError:
            raise NodeUnreachable(f"{self.node} did not answer in time") from None
        except (redis_errors.RedisError, OSError) as error:
            raise _translate(self.node, error) from None


_CODES: tuple[tuple[type[Exception], str], ...] = (
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.AuthenticationError, "NOAUTH"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.ReadOnlyError, "READONLY"),
    (redis_errors.ExecAbortError, "EXECABORT"),
)


def _translate(node: Node, error: Exception) -> NodeUnreachable | NodeRefused:
    """redis-py derives some error replies from ConnectionError although the server did answer."""
    text = str(error)
    code = getattr(error, "status_code", None)
    if not code:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if not code and "max number of clients" in text:
        code = "MAXCLIENTS"
    if not code and isinstance(error, redis_errors.ResponseError):
        first = text.split(" ", 1)[0]
        code = first if first.isupper() and first.isalpha() else "ERR"
    if code:
        return NodeRefused(f"{node} answered {code}: {text}", code)
    if isinstance(error, redis_errors.TimeoutError):
        return NodeUnreachable(f"{node} did not answer in time")
    return NodeUnreachable(f"{node} cannot be reached: {text}")


def info_fields(said: str) -> Mapping[str, str]:
    """The answer to INFO by the names of its fields. Raises ValueError, AttributeError when it is something else.

    A line that is no field is passed over: forks and modules add their own. Only CR LF ends a line: scripts may
    name errors as they like (`errorstat_...`). Of two fields of the same name the first counts.
    """
    lines = reversed(said.split("\r\n"))
    fields = dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")
    if "role" not in fields:
        raise ValueError("there is no role in it")
    return fields


def parse_info(node: Node, info: Mapping[str, str], latency: float) -> NodeReport:
    """The fields of INFO that matter here, see `redis.c: genRedisInfoString`."""
    role = info.get("role", "")
    offset = int(info.get("master_repl_offset", -1))
    condition = "ok"
    if int(info.get("loading", 0)) or int(info.get("async_loading", 0)):
        condition = "loading"
    elif info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
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
    )
    return report if role != "slave" else _as_replica(report, info)


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
    """A connection that says nothing and only waits to be closed: a killed server is noticed at once."""

    def __init__(self, closed: Callable[[], None]) -> None:
        self._closed: Callable[[], None] | None = closed
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def connect(cls, node: Node, closed: Callable[[], None]) -> Canary:
        """`closed` is called once when the server or the network ends the connection. Raises NodeUnreachable.

        Not bounded in time: the caller cancels it.
        """
        loop = asyncio.get_running_loop()
        try:
            _, canary = await loop.create_connection(lambda: cls(closed), node.host, node.port)
        except OSError as error:
            raise NodeUnreachable(f"{node} cannot be reached: {error.strerror or error}") from None
        return canary

    @property
    def alive(self) -> bool:
        """False once the connection has ended."""
        return self._closed is not None

    def close(self) -> None:
        """End it quietly."""
        self._closed = None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()
