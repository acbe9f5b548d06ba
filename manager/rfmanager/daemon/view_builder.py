"""Builds the view that a decision depends upon, and keeps what only shows over time.

    copy of the records ──┐
    detectors ────────────┼──> View ──> decide
    own report ───────────┘

Over time: the offsets of the master, the group as it was last seen, members that no manager is configured with any
more, servers that only others reach, and complaints that were logged. No command is sent here, and nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from structlog.typing import FilteringBoundLogger

from rfmanager.daemon.server_watch import ServerWatch
from rfmanager.daemon.store_mirror import Mirror
from rfmanager.decision.plan import Policy, Progress, View
from rfmanager.evidence import last_known
from rfmanager.evidence.agreement import Outseen, Roll, Rule, Standing, judge, outseen
from rfmanager.evidence.consistency import complaints
from rfmanager.evidence.false_alarms import Brake
from rfmanager.evidence.last_known import STALE, LastKnown, Sight
from rfmanager.evidence.membership import Membership
from rfmanager.monitoring.failure_detector import Limits
from rfmanager.monitoring.replica_staleness import Trail
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport

TRAIL = 5.0
"""Seconds of the master's offsets that are remembered, at least."""


class ViewBuilder:
    """For the manager `name`; `max_staleness` is in seconds."""

    def __init__(
        self,
        name: str,
        mirror: Mirror,
        servers: ServerWatch,
        log: FilteringBoundLogger,
        *,
        rule: Rule,
        limits: Limits,
        policy: Policy,
        max_staleness: float | None,
    ) -> None:
        self._name = name
        self._mirror = mirror
        self._servers = servers
        self._log = log
        self._rule = rule
        self._limits = limits
        self._policy = policy
        self._max_staleness = max_staleness
        self._roll = Roll()
        self._trail = Trail(max(TRAIL, 2 * STALE) + 2 * (max_staleness or 0.0))
        self._known: LastKnown | None = None  # what this manager has seen itself, also as a standby
        self._recorded: LastKnown | None = None  # what of the store's is in it
        self._moved: dict[Node, tuple[int, float]] = {}  # offsets of servers, and since when they are so
        self._membership = Membership(policy.membership_grace)
        next_probe = limits.probe_interval + limits.reconnect_interval + limits.probe_timeout
        self._outseen = Outseen(policy.outseen_after, 2 * next_probe)
        self._agreed: dict[Node, float] = {}  # when servers were first found unavailable that are so
        self._complaints: list[str] = []

    # Events.

    def sampled(self, node: Node) -> None:
        """Take in a sample of a server."""
        detector, topology = self._servers.probers[node].detector, self._mirror.topology
        report = detector.report
        if report is not None and report.available and topology is not None and topology.master == node:
            self._trail.passed(detector.sampled_at, report.run_id, report.offset)
        self._known = last_known.looked(self._known, topology, self._sights())

    def reconnected(self) -> None:
        """Count the age of all reports anew: nobody could renew one while the store was away."""
        self._roll = Roll()

    def begin_tenure(self) -> None:
        """Count the grace of members anew, and take in again what the store has of the group."""
        self._membership = Membership(self._policy.membership_grace)
        self._recorded = None

    def remembered(self) -> None:
        """Keep what was seen: the record that the store has now was written from it."""
        self._recorded = self._mirror.known  # what was seen since is newer

    # The view.

    def build(self, own: ManagerReport, progress: Progress, led_since: int) -> View:
        """Return the view of now. `led_since`: when this manager took the lead, in the store's order."""
        mirror, topology, request = self._mirror, self._mirror.topology, self._mirror.request_entry
        now, wall = time.monotonic(), time.time()
        failing = {node: prober.detector.failing_since for node, prober in self._servers.probers.items()}
        others = {name: report for name, report in mirror.reports.items() if name != self._name}
        live = self._roll.live(now, others, self._rule.max_age)
        sampled = {node: prober.detector.sampled_at for node, prober in self._servers.probers.items()}
        self._complain(complaints({report.manager: report for report in (own, *live)}, self._name))
        standings = judge(own, live, self._rule, sampled)
        brake = Brake.of(mirror.receipts.values(), wall, self._policy.brake_limit)
        members = self._members(now, [own, *live])
        self._keep_known(members)
        return View(
            now=now,
            wall=wall,
            manager=self._name,
            members=members,
            topology=topology,
            standings=standings,
            unseen=self._outseen.lasting(now, {node: failing[node] for node in outseen(own, live, standings)}),
            stale=self._stale(),
            proxies={name: record.epoch for name, record in mirror.proxies.items()},
            request=mirror.request,
            request_id=request.created if request else 0,
            paused=mirror.paused,
            progress=progress,
            # No earlier than the verdict allows: others may have seen it well, or nobody was to act.
            failing={
                node: wall - min(now - since, self._earliest(node, brake))
                for node, since in failing.items()
                if since is not None
            },
            silence=self._limits.silence,
            silent=self._silent(now, standings),
            brake=brake,
            known=self._known,
            recorded=mirror.known,
            adopted=mirror.adopted,
            last_epoch=mirror.last_epoch,
            in_force=mirror.in_force,
            request_precedes=request is not None and request.created < led_since,
        )

    def _members(self, now: float, reports: Iterable[ManagerReport]) -> tuple[Node, ...]:
        members = self._membership.members(now, reports, self._mirror.topology)
        return tuple(node for node in self._servers.probers if node in members)

    def _keep_known(self, members: tuple[Node, ...]) -> None:
        """Merge what the store has with what was seen, for members only."""
        if self._mirror.known is not self._recorded:
            self._known = last_known.merged(self._mirror.known, self._known, self._mirror.topology)
            self._recorded = self._mirror.known
        if self._known is not None:
            kept = {node: member for node, member in self._known.members.items() if node in members}
            self._known = replace(self._known, members=kept)

    def _sights(self) -> Mapping[Node, Sight]:
        """The last reports of this manager, with when they were found out."""
        return {
            node: Sight(report, sampled, prober.detector.noticed_at, self._still(report, sampled))
            for node, prober in self._servers.probers.items()
            if (report := prober.detector.report) and (sampled := prober.detector.sampled_at)
        }

    def _still(self, report: NodeReport, sampled: float) -> float:
        """Seconds for which the data of a replica has stood still, behind the master's."""
        offset, since = self._moved.get(report.node, (-1, sampled))
        if offset != report.offset:
            since = sampled
        self._moved[report.node] = report.offset, since
        return min(sampled - since, self._trail.lag(sampled, report.offset))

    def _stale(self) -> frozenset[Node]:
        """The replicas that lag behind by more than operators allow."""
        most = self._max_staleness
        if most is None:
            return frozenset()
        return frozenset(
            node
            for node, prober in self._servers.probers.items()
            if (report := prober.detector.report) and self._trail.age(prober.detector.sampled_at, report.offset) > most
        )

    def _earliest(self, node: Node, brake: Brake) -> float:
        """Seconds before a verdict that its first sign can have come."""
        patience = self._limits.busy_patience if self._servers.probers[node].detector.excused else 0.0
        return self._limits.probe_interval + max(self._limits.silence * brake.factor, patience)

    def _silent(self, now: float, standings: Mapping[Node, Standing]) -> Mapping[Node, float]:
        """Since when the servers do not answer that are unavailable; of one that others alone find silent it is only
        known when they had agreed upon it."""
        down = {node for node, standing in standings.items() if not standing.available}
        self._agreed = {node: self._agreed.get(node, now) for node in down}
        probers = self._servers.probers
        own = {node: probers[node].detector.silent_since for node in down if node in probers}
        return {node: own.get(node) or agreed - self._limits.silence for node, agreed in self._agreed.items()}

    def _complain(self, now: list[str]) -> None:
        """Of each once, and once that it is over."""
        before, self._complaints = self._complaints, now
        epoch = self._mirror.topology.epoch if self._mirror.topology else 0
        for what in now:
            if what not in before:
                self._log.warning(what, epoch=epoch)
        for what in before:
            if what not in now:
                self._log.info("no longer so", what=what, epoch=epoch)
