"""Redis Sentinel on this host, and clients that find their servers through it: what the proxy is compared with.

Three Redis servers, three Sentinels of which two must agree, and redis-py's own Sentinel client.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from bench.crowd import Crowd
from bench.load import Load
from bench.systems import DUTIES
from deploy.processes import Process, ProcessError, RedisGroup, free_port, wait_until

GROUP = "group"
COUNT = 3
QUORUM = 2
DOWN_AFTER = 1.0
"""Seconds without an answer until a Sentinel takes a server for down; Sentinel's own default is 30."""
FAILOVER_TIMEOUT = 3.0
"""Seconds; a failover that failed is tried again after twice that."""
CLIENT_TIMEOUT = 0.1
"""Seconds that a client waits for a reply: the value of redis-py's documentation. Without any, clients of a frozen
master would wait for as long as it is frozen, whatever the Sentinels do."""

_UNTYPED: Any = Sentinel  # redis-py has no types for it


class SentinelClient:
    """Writes go to the master and reads to a replica, both found through Sentinel; nothing is tried twice."""

    def __init__(self, sentinels: list[tuple[str, int]], timeout: float) -> None:
        sentinel = _UNTYPED(sentinels, socket_timeout=timeout, decode_responses=True, retry=Retry(NoBackoff(), 0))
        master, replica = sentinel.master_for(GROUP), sentinel.slave_for(GROUP)
        self.mset, self.set, self.incr, self.incrby = master.mset, master.set, master.incr, master.incrby
        self.get = replica.get
        self._clients = (master, replica, *sentinel.sentinels)

    def close(self) -> None:
        """End all connections."""
        for client in self._clients:
            client.close()


def _client(sentinels: list[tuple[str, int]], timeout: float, _: int) -> SentinelClient:
    return SentinelClient(sentinels, timeout)


class SentinelSite:
    """Sentinels that watch a group: `with SentinelSite(folder, group) as site`; their files go to `folder`.

    `down_after` and `client_timeout` are in seconds: how soon a server counts as down, and a reply as lost.
    """

    name = "Sentinel"

    def __init__(
        self,
        folder: Path,
        group: RedisGroup,
        *,
        down_after: float = DOWN_AFTER,
        client_timeout: float = CLIENT_TIMEOUT,
    ) -> None:
        self.group = group
        self._down_after = down_after
        self._client_timeout = client_timeout
        self._folder = folder
        self._sentinels: dict[int, Process] = {}  # by port

    def __enter__(self) -> Self:
        try:
            for _ in range(COUNT):
                self._start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        host, port = self.group.master.bind, free_port(self.group.master.bind)
        file = self._folder / f"sentinel-{port}.conf"  # Sentinel writes what it learns into it
        lines = [
            f"bind {host}",
            f"port {port}",
            f"dir {self._folder}",
            f"sentinel monitor {GROUP} {host} {self.group.master.port} {QUORUM}",
            f"sentinel down-after-milliseconds {GROUP} {self._down_after * 1000:.0f}",
            f"sentinel failover-timeout {GROUP} {FAILOVER_TIMEOUT * 1000:.0f}",
        ]
        file.write_text("".join(f"{line}\n" for line in lines))
        process = Process(["redis-server", file, "--sentinel"], self._folder / f"sentinel-{port}.log")
        process.start()
        self._sentinels[port] = process

    def stop(self) -> None:
        """End the Sentinels; the servers stay."""
        for process in self._sentinels.values():
            process.kill()

    def load(self, connections: int, rate: float) -> Crowd:
        """Clients that ask these Sentinels."""
        addresses = [(self.group.master.bind, port) for port in self._sentinels]

        def part(numbers: range) -> Load:
            connect = partial(_client, addresses, self._client_timeout)
            return Load(connections=connections, rate=rate, duties=DUTIES, connect=connect, numbers=numbers)

        return Crowd(part, connections)

    def switch_over(self) -> None:
        """Ask for another master; returns before there is one. Raises redis.RedisError when that is refused."""
        with self._client(next(iter(self._sentinels))) as client:
            client.sentinel_failover(GROUP)

    def leader(self) -> Process:
        """Any of them: who leads a failover is elected when it is due."""
        return next(iter(self._sentinels.values()))

    def receipt(self) -> None:
        """Sentinel keeps none."""

    def wait_until_ready(self) -> None:
        """Return when every Sentinel knows all others and finds all servers in order. Raises ProcessError."""
        for port in self._sentinels:
            wait_until(partial(self._is_content, port), f"Sentinel on port {port} is ready", timeout=60)

    def _is_content(self, port: int) -> bool:
        process = self._sentinels[port]
        if not process.alive:
            raise ProcessError(f"Sentinel on port {port} ended: {process.last_words()}")
        with self._client(port) as client:
            try:
                master, replicas = client.sentinel_master(GROUP), client.sentinel_slaves(GROUP)
            except redis.RedisError:
                return False
        others = (master["num-other-sentinels"], len(replicas))
        return others == (COUNT - 1, len(self.group.servers) - 1) and all(
            seen["flags"] in {"master", "slave"} for seen in (master, *replicas)
        )

    def _client(self, port: int) -> Any:
        return redis.Redis(host=self.group.master.bind, port=port, socket_timeout=5.0, decode_responses=True)
