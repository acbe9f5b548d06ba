"""A whole installation on this host: managers and proxies as processes, in front of servers that run already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.processes import Process, ProcessError, RedisGroup, RedisServer, free_port, wait_until

HOST = "127.0.0.1"
BIN = Path(sys.executable).parent


class Site:
    """Processes are made by `manager` and `proxy`, and started by whoever wants them to run; `stop` ends all."""

    def __init__(
        self,
        folder: Path,
        zookeeper: str,
        group: RedisGroup,
        log_format: Literal["json", "text"],
        *,
        required_managers: int = 2,
    ) -> None:
        self.folder = folder
        self.zookeeper = zookeeper
        self.group = group
        self.managers: list[Process] = []
        self.proxies: dict[int, Process] = {}  # by port
        self._log_format = log_format
        self._required_managers = required_managers

    def manager(self, extra: Mapping[str, str] | None = None) -> Process:
        """One more manager; `extra` are environment variables of its own."""
        nodes = ",".join(map(str, self.group.nodes))
        required = str(self._required_managers)
        words = ["--nodes", nodes, "--zk", self.zookeeper, "--required-node-managers", required]
        process = self._process(f"rfmanager{len(self.managers) + 1}", "rfmanager", words, extra)
        self.managers.append(process)
        return process

    def proxy(self, *options: str) -> Process:
        """One more proxy, on a port that is free."""
        port = free_port(HOST)
        words = [
            "--zk",
            self.zookeeper,
            "--listen",
            f"{HOST}:{port}",
            "--state-dir",
            str(self.folder / f"state-{port}"),
            *options,
        ]
        process = self._process(f"rfproxy{len(self.proxies) + 1}", "rfproxy", words, None)
        self.proxies[port] = process
        return process

    def _process(self, name: str, program: str, words: list[str], extra: Mapping[str, str] | None) -> Process:
        argv = [BIN / program, *words, "--log-format", self._log_format]
        return Process(argv, self.folder / f"{name}.log", {**_environment(), **(extra or {})})

    def wait_until_ready(self) -> None:
        """Return when reads and writes of all proxies are answered. Raises ProcessError."""
        for port, process in self.proxies.items():
            wait_until(partial(_answers, port, process), f"rfproxy on port {port}")

    def master(self) -> RedisServer:
        """The server that says it is the master."""
        return next(s for s in self.group.servers if s.alive and s.info()["role"] == "master")

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`rfmanager` with these words."""
        command = [str(BIN / "rfmanager"), *words, "--zk", self.zookeeper]
        return subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)

    def stop(self) -> None:
        """SIGTERM to proxies and managers, and SIGKILL to those that take their time."""
        for process in (*self.proxies.values(), *self.managers):
            process.signal(signal.SIGTERM)
        for process in (*self.proxies.values(), *self.managers):
            process.stop(timeout=5)


def is_replica(server: RedisServer) -> bool:
    """Whether a server is a replica whose link is up."""
    seen = server.info()
    return bool(seen["role"] == "slave" and seen["master_link_status"] == "up")


def _answers(port: int, process: Process) -> bool:
    if not process.alive:
        raise ProcessError(f"rfproxy ended: {process.last_words()}")
    # Short: a proxy that has no master yet would hold the write for longer than anybody wants to wait here.
    with redis.Redis(host=HOST, port=port, retry=Retry(NoBackoff(), 0), socket_timeout=1) as client:
        try:
            return bool(client.set("ready", 1)) and client.get("ready") is not None
        except redis.RedisError:
            return False


def _environment() -> dict[str, str]:
    """What the user has set for other managers and proxies is not meant for these."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RFPROXY_", "RFMANAGER_"))}
