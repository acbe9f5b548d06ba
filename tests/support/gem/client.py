"""The gem's client: `RedisFailover::Client.new(:zkservers => ...)`, with redis-py in place of redis-rb.

It learns from `nodes` who is the master and who are the slaves. A watch tells it of changes. In safe mode, which is the
default, it trusts what it knows for 9 seconds after the last event; then *every* command first asks ZooKeeper. When the
record is deleted it forgets all servers.

In one thing it differs from the gem: connections in use are not closed when the servers change, so that nobody hears of
a closed stream.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import redis
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError
from kazoo.protocol.states import EventType, KazooState, WatchedEvent
from redis.backoff import NoBackoff
from redis.retry import Retry

READS = frozenset({"ECHO", "EXISTS", "GET", "HGET", "HGETALL", "LLEN", "LRANGE", "MGET", "SMEMBERS", "STRLEN"})
"""Some of the commands that go to a slave, enough for tests; all others go to the master."""
ANY_SLAVE = "ANY_SLAVE"

NodesChanged = Callable[[str | None, Sequence[str]], object]


class GemError(Exception):
    """Of the gem's own kind: it is retried as an error of Redis is."""


class NoMaster(GemError):
    """The record names none, or there is no record."""


class WrongRole(GemError):
    """A server says that it is not what the record says."""


class GemClient:
    """`with GemClient(hosts) as client: client.command("SET", "k", 1)`; may be used by several threads."""

    def __init__(
        self,
        hosts: str,
        *,
        root: str = "/redis_failover",
        safe_mode: bool = True,
        verify_role: bool = True,
        max_retries: int = 3,
        retry_wait: float = 3.0,
        update_timeout: float = 9.0,
        socket_timeout: float = 5.0,
        on_node_change: NodesChanged | None = None,
    ) -> None:
        """Raises KazooException, when there is no record: NoNodeError."""
        self.retries = 0  # so often a command was tried again
        self._root = root
        self._safe_mode = safe_mode
        self._verify_role = verify_role
        self._max_retries = max_retries
        self._retry_wait = retry_wait
        self._update_timeout = update_timeout
        self._socket_timeout = socket_timeout
        self._on_node_change = on_node_change
        self._told: tuple[str | None, frozenset[str]] | None = None
        self._lock = threading.RLock()
        self._master: str | None = None
        self._slaves: list[str] = []
        self._servers: dict[str, redis.Redis] = {}
        self._heard = time.monotonic()  # the last event of the record
        self._zookeeper = KazooClient(hosts, timeout=10.0)
        self._zookeeper.start()
        self._zookeeper.add_listener(self._moved)
        try:
            self._zookeeper.exists(self._nodes, watch=self._event)
            self._build()
        except BaseException:
            self.close()
            raise

    @property
    def current_master(self) -> str | None:
        """Its address, if there is one."""
        with self._lock:
            return self._master

    @property
    def current_slaves(self) -> list[str]:
        """Their addresses."""
        with self._lock:
            return list(self._slaves)

    @property
    def silent_for(self) -> float:
        """Seconds since the last event of the record."""
        return time.monotonic() - self._heard

    @property
    def session(self) -> int:
        """Identity of its session with ZooKeeper."""
        found = self._zookeeper.client_id
        return found[0] if found else 0

    def command(self, *words: str | int) -> Any:
        """Raises what the last attempt has met: redis.RedisError, GemError, KazooException."""
        if self._safe_mode and self.silent_for > self._update_timeout:
            self._build()
        attempts = 0
        while True:
            try:
                return self._server_for(str(words[0])).execute_command(*words)  # type: ignore[no-untyped-call]
            except (redis.RedisError, OSError, GemError):
                if attempts == self._max_retries:
                    raise
            attempts += 1
            self.retries += 1
            time.sleep(self._retry_wait)
            self._build()

    def manual_failover(self, address: str = ANY_SLAVE) -> None:
        """Ask the managers for another master, in two steps: the request is there before it says anything."""
        path = f"{self._root}/manual_failover"
        with suppress(NodeExistsError):
            self._zookeeper.create(path, b"")
        self._zookeeper.set(path, address.encode())

    def close(self) -> None:
        """Also with ZooKeeper."""
        self._zookeeper.stop()
        self._zookeeper.close()
        self._purge()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _nodes(self) -> str:
        return f"{self._root}/nodes"

    def _moved(self, state: str) -> None:
        """A listener of kazoo, which must not wait."""
        if state == KazooState.LOST:
            threading.Thread(target=self._purge, daemon=True).start()
        elif state == KazooState.CONNECTED:
            threading.Thread(target=self._connected_again, daemon=True).start()

    def _connected_again(self) -> None:
        with suppress(KazooException):
            self._zookeeper.exists(self._nodes, watch=self._event)

    def _event(self, event: WatchedEvent) -> None:
        if event.type == EventType.NONE:
            return  # of the connection, not of the record
        self._heard = time.monotonic()
        with suppress(KazooException):
            if event.type == EventType.DELETED:
                self._purge()
                self._zookeeper.exists(self._nodes, watch=self._event)
            else:
                self._build()

    def _build(self) -> None:
        """Read the record. Raises KazooException, and knows no server then."""
        with self._lock:
            try:
                record = json.loads(self._zookeeper.get(self._nodes, watch=self._event)[0])
                master, slaves = record["master"], list(record["slaves"])
                if (master, set(slaves)) != (self._master, set(self._slaves)):
                    self._purge()
                    self._master, self._slaves = master, slaves
            except BaseException:
                self._purge()
                raise
            finally:
                self._tell()

    def _tell(self) -> None:
        now = self._master, frozenset(self._slaves)
        if self._on_node_change is not None and now != self._told:
            self._told = now
            self._on_node_change(self._master, list(self._slaves))

    def _purge(self) -> None:
        with self._lock:
            for server in self._servers.values():
                server.connection_pool.disconnect(inuse_connections=False)
            self._master, self._slaves, self._servers = None, [], {}

    def _server_for(self, command: str) -> redis.Redis:
        with self._lock:
            if command.upper() in READS and self._slaves:
                address, role = random.choice(self._slaves), "slave"
            elif self._master is None:
                raise NoMaster("the record names no master")
            else:
                address, role = self._master, "master"
            server = self._servers.setdefault(address, self._connect(address))
        if self._verify_role and (found := server.info()["role"]) != role:
            raise WrongRole(f"{address} is {found}, not {role}")
        return server

    def _connect(self, address: str) -> redis.Redis:
        host, _, port = address.rpartition(":")
        return redis.Redis(
            host=host,
            port=int(port),
            socket_timeout=self._socket_timeout,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )
