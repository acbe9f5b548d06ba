"""What `bench.failover` does its worst to: managers and proxies, and, in the same manner, Redis Sentinel."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import redis

from bench.crowd import Crowd
from bench.load import Load
from bench.seen import WRITES
from deploy.processes import Process, ProcessError, RedisGroup, RedisServer
from deploy.site import HOST, Site, is_replica
from rfprotocol.topology.records import Receipt

MANAGERS = 3
PROXIES = 2
DUTIES = (WRITES, ("GET",))
"""Every other connection only writes, the others only read: while a proxy holds a write, it holds what its client would
do next, and nobody could tell whether reads went on."""
RECOVERY = 60.0
"""Seconds within which there has to be another master, and then the old one a replica of it."""
_POLL = 0.25
"""Seconds; looking more often would take from the CPU time of those that are measured."""


class System(Protocol):
    """A group of Redis servers, what moves the master role among them, and clients that can follow."""

    @property
    def name(self) -> str:
        """For the table."""

    @property
    def group(self) -> RedisGroup:
        """The servers."""

    def load(self, connections: int, rate: float) -> Crowd:
        """Clients of this system."""

    def switch_over(self) -> None:
        """Ask for another master; need not wait for it."""

    def leader(self) -> Process:
        """The process that would move the master role next, as far as that can be known."""

    def receipt(self) -> Receipt | None:
        """What the system itself tells of the last change of master, if it does."""

    def wait_until_ready(self) -> None:
        """Return when the system can take the next event."""


class ProxySite(Site):
    """Managers and proxies."""

    name = "rfproxy"

    def launch(self, managers: Mapping[str, str] | None = None) -> None:
        """Start all of them and return when they serve; `managers` are environment variables of theirs.

        Events are to be measured each by itself: without the brake, a master that is frozen for the second time within
        ten minutes is given more time than the first.
        """
        extra = {"RFMANAGER_BRAKE_LIMIT": "1", **(managers or {})}
        for process in [*(self.manager(extra) for _ in range(MANAGERS)), *(self.proxy() for _ in range(PROXIES))]:
            process.start()
        self.wait_until_ready()

    def load(self, connections: int, rate: float) -> Crowd:
        """Clients of the proxies."""
        ports = list(self.proxies)
        return Crowd(
            lambda numbers: Load(HOST, ports, connections=connections, rate=rate, duties=DUTIES, numbers=numbers),
            connections,
        )

    def switch_over(self) -> None:
        """Returns when there is another master."""
        done = self.manage("failover")
        if done.returncode != 0:
            raise SystemExit(f"bench.failover: {done.stdout}{done.stderr}")

    def leader(self) -> Process:
        """The primary manager. It is known by its name, which tells its process."""
        primary = str(self._status()["primary"])
        return next(process for process in self.managers if f"-{process.pid}-" in primary)

    def receipt(self) -> Receipt | None:
        """The last one in the history."""
        found = json.loads(self.manage("history", "-n", "1", "--json").stdout)
        return Receipt.decode(json.dumps(found[0]).encode()) if found else None

    def wait_until_ready(self) -> None:
        """Return when all managers have reported, one leads them, and all proxies answer. Raises ProcessError."""
        super().wait_until_ready()
        wait_until(self._is_complete, "all managers and a primary one")

    def _is_complete(self) -> bool:
        status = self._status()
        return bool(status.get("primary")) and len(status["managers"]) == MANAGERS

    def _status(self) -> dict[str, Any]:
        done = self.manage("status", "--json")
        return dict(json.loads(done.stdout)) if done.stdout else {}


def masters(group: RedisGroup, but: RedisServer | None = None) -> list[RedisServer]:
    """All that say they are. The one that is left out is not asked: it may be frozen."""
    found = []
    for server in group.servers:
        with contextlib.suppress(redis.RedisError):
            if server is not but and server.info()["role"] == "master":
                found.append(server)
    return found


def wait_until_replaced(group: RedisGroup, master: RedisServer) -> None:
    """Return when another server is the master. Raises ProcessError."""
    wait_until(lambda: bool(masters(group, but=master)), "another master")


def wait_until_in_order(group: RedisGroup) -> None:
    """Return when one server is the master and all others are replicas. Raises ProcessError."""
    wait_until(partial(_in_order, group), "one master and its replicas")


def _in_order(group: RedisGroup) -> bool:
    """Who asks may be cut off by a server that becomes a replica."""
    try:
        return [is_replica(server) for server in group.servers].count(False) == 1 == len(masters(group))
    except redis.RedisError:
        return False


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """As `deploy.processes.wait_until`, but seldom: what is waited for is measured meanwhile."""
    for _ in range(int(RECOVERY / _POLL)):
        if ready():
            return
        let_pass(_POLL)
    raise ProcessError(f"{what}: not within {RECOVERY:g} s")


def let_pass(seconds: float) -> None:
    """Go on later."""
    threading.Event().wait(seconds)
