"""The servers that a manager watches: a prober and two sets of connections for each.

A probe may take as long as operators like, a command must fit into the tenure. So each has connections of its own, and
borrows those of the other while the server refuses new ones.

    follow(wanted) ──> prober of each server ──> sampled(node, significant)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping

from structlog.typing import FilteringBoundLogger

from rfmanager.monitoring.conditions import meaning
from rfmanager.monitoring.failure_detector import UNLINKED, Excuse, Limits
from rfmanager.monitoring.prober import Prober
from rfmanager.monitoring.redis_admin import Credentials, RedisAdmin
from rfprotocol.errors import Failure
from rfprotocol.network.resolver import Resolver
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.records import ProxyRecord
from rfprotocol.topology.topology import Node, NodeReport

Start = Callable[[str, Callable[[], Coroutine[None, None, None]]], asyncio.Task[None]]
"""Starts a task with this name, without which the manager cannot go on."""


class ServerWatch:
    """Probers and connections by server. `command_timeout` is the seconds that a command may take now.

    `sampled` is called after each probe that said something, and when one is late.
    """

    def __init__(
        self,
        keyring: Keyring[Credentials],
        limits: Limits,
        resolver: Resolver,
        command_timeout: Callable[[], float],
        sampled: Callable[[Node, bool], None],
        log: FilteringBoundLogger,
    ) -> None:
        self.probers: dict[Node, Prober] = {}
        self.admins: dict[Node, RedisAdmin] = {}
        self.all_seen = asyncio.Event()
        """Set when every server was probed, whatever came of it."""
        self._keyring = keyring
        self._limits = limits
        self._resolver = resolver
        self._command_timeout = command_timeout
        self._sampled = sampled
        self._log = log
        self._tasks: dict[Node, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()  # connections to servers that are watched no more

    def follow(self, wanted: Collection[Node], start: Start) -> None:
        """Watch these servers, and no others."""
        for node in sorted(wanted):
            self.watch(node, start)
        for node in self.probers.keys() - wanted:
            self._unwatch(node)

    def watch(self, node: Node, start: Start) -> None:
        """Watch this server, too."""
        if node in self.probers:
            return
        probing = RedisAdmin(node, self._keyring, self._limits.probe_timeout * 2, self._resolver)
        commands = RedisAdmin(node, self._keyring, self._command_timeout(), self._resolver)
        probing.borrow_from(commands)
        commands.borrow_from(probing)
        prober = Prober(probing, self._limits, time.monotonic, lambda significant: self._probed(node, significant))
        self.admins[node], self.probers[node] = commands, prober
        self._tasks[node] = start(f"prober of {node}", prober.run)

    def _unwatch(self, node: Node) -> None:
        prober, admin = self.probers.pop(node), self.admins.pop(node)
        self._tasks.pop(node).cancel()
        self._log.warning("server is no member any more: no manager is configured with it", node=str(node))
        for left in (prober.admin, admin):
            self._resolver.follow(left, ())
        closing = asyncio.create_task(_closed(prober.admin, admin))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _probed(self, node: Node, significant: bool) -> None:
        if all(prober.detector.report is not None for prober in self.probers.values()):
            self.all_seen.set()
        self._sampled(node, significant)

    def cancel(self) -> None:
        """Stop every prober."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Close all connections."""
        await _closed(*self.admins.values(), *(prober.admin for prober in self.probers.values()))

    # Findings.

    @property
    def reports(self) -> Mapping[Node, NodeReport]:
        """The last report on each server that has one."""
        return {node: report for node, prober in self.probers.items() if (report := prober.detector.report)}

    def report(self, node: Node) -> NodeReport | None:
        """Return the last report on a server, or None."""
        prober = self.probers.get(node)
        return prober.detector.report if prober else None

    @property
    def any_is_silent(self) -> bool:
        """True if a server does not answer, whether or not the verdict on it has changed."""
        return any(prober.detector.silent_since is not None for prober in self.probers.values())

    def log_condition(self, node: Node, epoch: int) -> None:
        """Log the condition of a server, with the words for operators."""
        report = self.probers[node].detector.report
        if report is None:
            return
        unlinked = report.available and report.unlinked_for >= UNLINKED
        well = report.available and report.condition == "ok" and not unlinked
        is_replica = report.role == "slave"
        if unlinked:
            event = f"replica has had no link to its master for {UNLINKED:g} s"
        elif report.unsaved:
            event = f"server refuses writes as a master: it could not write {report.unsaved} to its disk"
        else:
            event = "server" if report.available else "server is unavailable"
        (self._log.info if well else self._log.warning)(
            event,
            node=str(node),
            condition=report.condition,
            role={"slave": "replica"}.get(report.role, report.role),
            **({"meaning": words} if (words := meaning(report.condition)) else {}),
            **({"follows": str(report.follows), "link": "up" if report.link_up else "down"} if is_replica else {}),
            epoch=epoch,
        )

    # Hints for the probers.

    def hurry(self, node: Node) -> None:
        """Probe a server at once, if it is watched."""
        if node in self.probers:
            self.probers[node].hurry()

    def hurry_all(self) -> None:
        """Probe every server at once."""
        for prober in self.probers.values():
            prober.hurry()

    def renew_command_timeout(self) -> None:
        """Bound all commands by the timeout of now, which depends on the session with the store."""
        for admin in self.admins.values():
            admin.bound(self._command_timeout())

    def excuse(self, proxies: Mapping[str, ProxyRecord]) -> None:
        """Tell the detectors of silent servers about the commands that keep those busy, as proxies report them."""
        for node, prober in self.probers.items():
            if not prober.detector.wants_excuse:
                continue
            for name, record in proxies.items():
                if said := record.busy.get(str(node)):
                    prober.detector.excuse(Excuse(said.command, name))
                    self._log.warning("server is busy", node=str(node), command=said.command, proxy=name)
                    break

    def start_over(self, hosts: Collection[str]) -> None:
        """Probe anew the servers that could not be resolved, and whose hosts are among these."""
        for prober in self.probers.values():
            report = prober.detector.report
            if report is not None and report.condition == Failure.UNRESOLVED.value and prober.admin.node.host in hosts:
                prober.start_over()
                self.all_seen.clear()


async def _closed(*admins: RedisAdmin) -> None:
    await asyncio.gather(*(admin.close() for admin in admins))
