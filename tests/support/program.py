"""`rfproxy` as a process with its workers, in front of one Redis, with a record in ZooKeeper that nobody changes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.processes import Process, free_port, wait_until
from deploy.site import BIN, HOST
from rfprotocol.store.interface import Put, StoreState
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.topology.topology import Node, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.logged import logged
from tests.support.stores import States


class Program:
    """A process that can be looked into. `options` are those of a file that `rewrite` changes."""

    def __init__(self, folder: Path, **options: str | int | float) -> None:
        self.port = free_port(HOST)
        self.log = folder / "rfproxy.log"
        self.file = folder / "rfproxy.yml"
        self._options = {
            "listen": f"{HOST}:{self.port}",
            "state_dir": str(folder / "state"),
            "log_format": "json",
            "workers": 1,
            **options,
        }
        self.rewrite()
        self.process = Process([BIN / "rfproxy", "-C", self.file], self.log)

    def rewrite(self, **options: str | int | float) -> None:
        """Change some options in the file."""
        self._options |= options
        self.file.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in self._options.items()))

    def start(self) -> None:
        """Start it, and return when all workers know the servers."""
        self.process.start()
        self.wait_for("topology", int(self._options["workers"]))

    def reload(self) -> None:
        """Return when all workers of before are gone."""
        before, left = self.process.workers, len(self.events("worker_left"))
        self.process.signal(signal.SIGHUP)
        self.wait_for("worker_left", left + len(before))

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it has logged, or all events of one name."""
        return [event for event in logged(self.log) if name in ("", event["event"])]

    def wait_for(self, name: str, times: int = 1) -> dict[str, Any]:
        """Return the last of so many events of that name."""
        wait_until(lambda: len(self.events(name)) >= times or not self.process.alive, f"{name} of rfproxy")
        assert len(self.events(name)) >= times, self.process.last_words()
        return self.events(name)[times - 1]

    def connect(self) -> redis.Redis:
        """A client with one connection, which is not made anew."""
        return redis.Redis(
            host=HOST,
            port=self.port,
            single_connection_client=True,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
        )

    def connect_to_each(self, workers: Collection[int] = ()) -> dict[int, redis.Redis]:
        """One client of each worker, or of each of these, by the worker's process id."""
        clients: dict[int, redis.Redis] = {}
        workers = set(workers or self.process.workers)
        while clients.keys() != workers:
            client = self.connect()
            if clients.setdefault(worker_of(client), client) is not client:
                client.close()
        return clients


def worker_of(client: redis.Redis) -> int:
    """The process that serves a client."""
    return int(client.client_id()) >> 31


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((HOST, port)).close()
    except OSError:
        return False
    return True


@contextlib.asynccontextmanager
async def recorded(zookeeper: str, master: Node) -> AsyncIterator[ZkStore]:
    """A store that says that this server is the master, and nothing else."""
    store = ZkStore(zookeeper, session_timeout=4.0)
    states = States(store)
    await store.start()
    await states.until(StoreState.CONNECTED)
    await store.commit(Put(Paths().nodes, Topology(1, Phase.SERVING, master).encode()))
    try:
        yield store
    finally:
        await store.close()
