"""The gem's node manager. One thread watches each server, one waits for the lock and leads.

Every manager reports what it sees in `manager_node_state`. The one with the lock judges by all reports every 5 seconds,
and writes `nodes` each time: without a look at its version, and without any field that it does not know. When it
changes the master it deletes `nodes` first, which is how clients learn that there is none.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError
from kazoo.protocol.states import EventType, KazooState, WatchedEvent

from tests.support.gem.client import ANY_SLAVE
from tests.support.gem.lock import Lock, LockLost
from tests.support.gem.server import Server, Unavailable

SHIFT = 0.5
"""Seconds that a latency has to change by until it is reported anew."""
ATTEMPTS = 3
"""So often a promotion may come to nothing before the lock is given up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds; the defaults are the gem's."""

    interval: float = 5.0  # between two judgements, each of which writes the record
    nap: float = 2.0  # between two checks of a server
    patience: float = 5.0  # for each operation of a server
    max_failures: int = 3
    retry: float = 5.0  # after what went wrong
    required: int = 1  # managers that must report a server
    session_timeout: float = 10.0


class DiscoveryFailed(Exception):
    """Who is the master cannot be told."""


class NoCandidate(Exception):
    """Nobody could be promoted, several times."""


@dataclass(slots=True)
class Seen:
    """A server by all reports."""

    by: dict[str, float] = field(default_factory=dict)  # latencies, by manager
    unseen_by: list[str] = field(default_factory=list)

    @property
    def managers(self) -> int:
        """That say anything about it."""
        return len(self.by) + len(self.unseen_by)

    @property
    def latency(self) -> float:
        """On average."""
        return sum(self.by.values()) / len(self.by)


class Manager:
    """`run` returns after `stop`, which may be called by a signal handler."""

    def __init__(
        self,
        hosts: str,
        nodes: Sequence[str],
        settings: Settings,
        say: Callable[[str], object],
        root: str = "/redis_failover",
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._nodes = [Server(node, settings.patience) for node in dict.fromkeys(nodes)]
        self._settings = settings
        self._say = say
        self._root = root
        self._zookeeper = KazooClient(hosts, timeout=settings.session_timeout)
        self._gem_lock = Lock(self._zookeeper, f"{root}/master_redis_node_manager_lock")
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._leads = False
        self._attempts = 0
        self._master: Server | None = None
        self._slaves: list[Server] = []
        self._unavailable: list[Server] = []
        self._seen: dict[Server, float] = {}  # by this manager
        self._unseen: list[Server] = []

    def run(self) -> None:
        """Return when it was stopped."""
        self._zookeeper.start()
        self._zookeeper.add_listener(self._moved)
        self._zookeeper.ensure_path(f"{self._root}/manager_node_state")
        self._watch_requests()
        watchers = [threading.Thread(target=self._watch, args=(node,), daemon=True) for node in self._nodes]
        for watcher in watchers:
            watcher.start()
        while not self._stopping.is_set():
            try:
                self._lead()
            except (KazooException, LockLost, NoCandidate) as error:
                self._say(f"trying again: {error!r}")
                self._stopping.wait(self._settings.retry)
            finally:
                self._leads = False
                with suppress(KazooException):
                    self._gem_lock.release()
        self._zookeeper.stop()
        self._zookeeper.close()

    def stop(self) -> None:
        """Return at once."""
        self._stopping.set()

    # --- what this manager sees

    def _watch(self, node: Server) -> None:
        failures = 0
        while not self._stopping.wait(self._settings.nap):
            begun = time.monotonic()
            try:
                node.healthcheck()
            except Unavailable:
                failures += 1
                if failures >= self._settings.max_failures:
                    failures = 0
                    self._note(node, None)
            else:
                failures = 0
                self._note(node, time.monotonic() - begun)

    def _note(self, node: Server, latency: float | None) -> None:
        with self._lock:
            before = dict(self._seen), list(self._unseen)
            if latency is None and node not in self._unseen:
                self._unseen.append(node)
                self._seen.pop(node, None)
            elif latency is not None and abs(latency - self._seen.get(node, float("inf"))) > SHIFT:
                self._seen[node] = latency
                self._unseen = [other for other in self._unseen if other != node]
            else:
                return
            try:
                report = {
                    "available": {str(seen): latency for seen, latency in self._seen.items()},
                    "unavailable": list(map(str, self._unseen)),
                }
                self._write(f"{self._root}/manager_node_state/{self.name}", report, ephemeral=True)
            except KazooException:
                self._seen, self._unseen = before  # to be reported the next time

    def _moved(self, state: str) -> None:
        """A listener of kazoo, which must not wait. The report has gone with the session."""
        if state == KazooState.LOST:
            threading.Thread(target=self._forget, daemon=True).start()

    def _forget(self) -> None:
        with self._lock:
            self._seen, self._unseen = {}, []

    # --- what it does when it leads

    def _lead(self) -> None:
        self._attempts = 0
        if not self._gem_lock.acquire(self._stopping):
            return
        self._leads = True
        self._say("leads")
        self._discover()
        if self._master is not None:
            self._redirect(self._master)
        while not self._stopping.is_set():
            self._gem_lock.check()
            if self._stopping.wait(self._settings.interval):
                return
            with self._lock:
                self._judge()

    def _discover(self) -> None:
        """Who is master: by the record, else by what all servers say."""
        while not self._stopping.is_set():
            try:
                with self._lock:
                    self._unavailable = []
                    self._master = self._recorded_master() or self._only_master()
                    self._slaves = [node for node in self._nodes if node != self._master]
                self._say(f"master {self._master}")
                return
            except (DiscoveryFailed, Unavailable) as error:
                self._say(f"cannot tell who is the master: {error}")
                self._stopping.wait(self._settings.retry)

    def _recorded_master(self) -> Server | None:
        try:
            record = json.loads(self._zookeeper.get(f"{self._root}/nodes")[0])
        except NoNodeError:
            return None
        master = self._server(record["master"]) if record["master"] else None
        if master is not None:
            with suppress(Unavailable):  # then it will be found to be lost
                if not master.is_master():
                    raise DiscoveryFailed(f"{master} should be the master, but is a slave")
        return master

    def _only_master(self) -> Server:
        masters = [node for node in self._nodes if node.is_master()]
        if len(masters) != 1:
            raise DiscoveryFailed(f"{len(masters)} masters")
        return masters[0]

    def _judge(self) -> None:
        reports = self._reports()
        if any(seen.managers < self._settings.required for seen in reports.values()):
            self._say("not enough managers")
            return
        for node, seen in reports.items():
            try:
                if len(seen.unseen_by) > len(seen.by):
                    self._lost(node, reports)
                else:
                    self._found(node, reports)
            except Unavailable as error:
                self._say(f"cannot do anything about it: {error}")
        self._write_record()
        if self._master is None:
            self._attempts += 1
            if self._attempts > ATTEMPTS:
                raise NoCandidate("nobody can be promoted")

    def _lost(self, node: Server, reports: Mapping[Server, Seen]) -> None:
        if node in self._unavailable:
            return
        self._say(f"lost {node}")
        self._unavailable.append(node)
        if node == self._master:
            self._promote(reports)
        elif node in self._slaves:
            self._slaves.remove(node)

    def _found(self, node: Server, reports: Mapping[Server, Seen]) -> None:
        if node.syncs() and node.refuses_stale_reads():
            self._reconcile(node)
            self._set_aside(node)
            return
        self._reconcile(node)
        if node == self._master or (self._master is not None and node in self._slaves):
            return
        self._say(f"found {node}")
        if self._master is not None:
            node.follow(self._master)
            self._slaves.append(node)
        else:
            self._promote(reports, node)
        if node in self._unavailable:
            self._unavailable.remove(node)

    def _reconcile(self, node: Server) -> None:
        """A server that was started again has forgotten its role."""
        if self._master == node:
            node.promote()
        elif self._master is not None:
            node.follow(self._master)

    def _promote(self, reports: Mapping[Server, Seen], node: Server | None = None) -> None:
        with suppress(NoNodeError):
            self._zookeeper.delete(f"{self._root}/nodes")
        self._master = None
        chosen = node or self._quickest(reports) or self._least_behind()
        if chosen is None:
            self._say("nobody to promote")
            return
        self._slaves = [slave for slave in self._slaves if slave != chosen]
        self._unavailable = [other for other in self._unavailable if other != chosen]
        self._redirect(chosen)
        chosen.promote()
        self._master = chosen
        self._write_record()
        self._attempts = 0
        self._say(f"promoted {chosen}")

    def _quickest(self, reports: Mapping[Server, Seen]) -> Server | None:
        """Of those that all managers see, this one among them; it may be the master."""
        seen = {node: seen.latency for node, seen in reports.items() if self.name in seen.by and not seen.unseen_by}
        return min(seen, key=lambda node: seen[node], default=None)

    def _least_behind(self) -> Server | None:
        lags = {}
        for node in self._nodes:
            with suppress(Unavailable):
                lags[node] = node.lag()
        return min((node for node in lags if lags[node] >= 0), key=lambda node: lags[node], default=None)

    def _redirect(self, master: Server) -> None:
        for slave in list(self._slaves):
            try:
                slave.follow(master)
            except Unavailable:
                self._set_aside(slave)

    def _set_aside(self, node: Server) -> None:
        if node in self._slaves:
            self._slaves.remove(node)
        if node not in self._unavailable:
            self._unavailable.append(node)

    # --- manual_failover

    def _watch_requests(self) -> None:
        self._zookeeper.exists(f"{self._root}/manual_failover", watch=self._requested)

    def _requested(self, event: WatchedEvent) -> None:
        try:
            if event.type in (EventType.CREATED, EventType.CHANGED):
                self._obey()
        except (KazooException, LockLost, Unavailable) as error:
            self._say(f"cannot obey: {error!r}")
        finally:
            with suppress(KazooException):
                self._watch_requests()

    def _obey(self) -> None:
        """What the request says stays there for ever."""
        with self._lock:
            if not self._leads:
                return
            self._gem_lock.check()
            request = self._zookeeper.get(f"{self._root}/manual_failover")[0].decode()
            if not request:
                return
            self._say(f"asked for {request}")
            reports = self._reports()
            node = self._quickest(reports) if request == ANY_SLAVE else self._server(request)
            if node is None or node == self._master:
                return
            node.info()
            if self._master is not None:
                self._slaves.append(self._master)
            self._promote(reports, node)

    # --- znodes

    def _reports(self) -> dict[Server, Seen]:
        folder = f"{self._root}/manager_node_state"
        found: dict[Server, Seen] = {}
        for manager in self._zookeeper.get_children(folder):
            with suppress(NoNodeError):
                report = json.loads(self._zookeeper.get(f"{folder}/{manager}")[0])
                for address, latency in report["available"].items():
                    found.setdefault(self._server(address), Seen()).by[manager] = latency
                for address in report["unavailable"]:
                    found.setdefault(self._server(address), Seen()).unseen_by.append(manager)
        return found

    def _server(self, address: str) -> Server:
        return Server(address, self._settings.patience)

    def _write_record(self) -> None:
        record = {
            "master": str(self._master) if self._master else None,
            "slaves": list(map(str, self._slaves)),
            "unavailable": list(map(str, self._unavailable)),
        }
        self._write(f"{self._root}/nodes", record)

    def _write(self, path: str, value: Mapping[str, Any], *, ephemeral: bool = False) -> None:
        data = json.dumps(value).encode()
        with suppress(NodeExistsError):
            self._zookeeper.create(path, data, ephemeral=ephemeral)
        self._zookeeper.set(path, data)
