"""A group over simulated time: managers with detectors and samples of some age, proxies with leases, and faults.

Built from the same model as the exhaustive search. Here everything takes time, so that managers act upon what was, and
managers, proxies and servers freeze and go on at any moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rfmanager.decision.decide import decide
from rfmanager.decision.fencing import PATIENCE
from rfmanager.decision.plan import Record, Step, Wait
from rfmanager.evidence.agreement import Standing, judge
from rfmanager.evidence.false_alarms import RETURN, Brake
from rfmanager.monitoring.failure_detector import Detector, Excuse, Limits
from rfprotocol.errors import Failure
from rfprotocol.topology.records import Receipt
from rfprotocol.topology.topology import ManagerReport, Node, Phase, Topology
from tests.decisions.servers import Life, Link, Start, at, group, replicated
from tests.decisions.site import (
    FOREVER,
    NONE,
    POLICY,
    RULE,
    Mishap,
    Proxy,
    Site,
    all_pointed,
    begun,
    carried_out,
    informed,
    new_tenure,
    view,
    with_proxy,
)
from tests.decisions.truth import Violation, check_rest, check_site, checked, describe, require

TICK = 0.05
"""Seconds of one step of time."""
SESSION = 2.0
"""Seconds after which the store ends the session of who is not heard of."""
LEASE = SESSION * 2 / 3
"""Seconds for which a proxy trusts in its last proof."""
RECONNECT = 1.0
"""Seconds that a replica takes at least to copy a master which has restarted."""


@dataclass
class Manager:
    """One manager, as it sees the servers."""

    detectors: dict[Node, Detector]
    frozen_since: float | None = None


class Simulation:
    """The site, and the time."""

    def __init__(self, size: int, managers: int, proxies: int) -> None:
        names = tuple(Proxy(f"p{n}", acknowledged=0, lease=1000.0 + LEASE) for n in range(proxies))
        self.site = Site(group(size), names, managers=managers)
        self.managers = [
            Manager({node: Detector(node, Limits(), self.site.now) for node in self.site.nodes})
            for _ in range(managers)
        ]
        self.stuck_since: dict[str, float] = {}
        self.copying_since: dict[Node, float] = {}
        self.trail: list[str] = []
        self.said = ""  # why the primary manager waits
        self.receipts: dict[int, Receipt] = {}
        self.records: list[Topology] = []  # all that managers have written
        self.frozen_since: dict[Node, float] = {}
        self.busy: set[Node] = set()  # frozen with a command that a proxy has told of

    def tell(self, what: str) -> None:
        """For the trace of a failure."""
        self.trail.append(f"{self.site.now:8.2f} {what}\n           {describe(self.site)}")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """A violation tells what led to it."""
        try:
            yield
        except AssertionError as error:
            raise Violation("\n".join([str(error), *self.trail, f"now      {describe(self.site)}"])) from error

    # Time.

    def tick(self, acting: bool = True) -> None:
        """A moment passes: everybody who lives looks, proves, copies; then the primary manager acts."""
        self.site = replace(self.site, now=round(self.site.now + TICK, 3))
        self._replicate()
        self.site = all_pointed(self.site)
        frozen = [server.node for server in self.site.servers if server.life is Life.FROZEN]
        self.frozen_since = {node: self.frozen_since.get(node, self.site.now - TICK) for node in frozen}
        for manager in range(len(self.managers)):
            self._probe(manager)
        self._sessions()
        self._proxies()
        if acting:
            self.act()
        with self.explained():
            check_site(self.site)

    def _replicate(self) -> None:
        site = self.site
        before = site.servers
        now_copying = {server.node for server in before if server.link is Link.COPYING}
        self.copying_since = {node: self.copying_since.get(node, site.now) for node in now_copying}
        at_length = {node for node, since in self.copying_since.items() if site.now - since >= RECONNECT}
        quick, slow = replicated(before), replicated(before, at_length=True)
        servers = tuple(
            late if server.node in at_length else soon for server, soon, late in zip(before, quick, slow, strict=True)
        )
        self.site = replace(site, servers=servers)

    def _probe(self, number: int) -> None:
        manager, now = self.managers[number], self.site.now
        if manager.frozen_since is not None:
            return
        for server in self.site.servers:
            detector = manager.detectors[server.node]
            died = server.life is Life.DEAD and detector.report is not None and detector.report.available
            if now < detector.next_probe and not died:
                continue
            if self.site.reaches(number, server):
                detector.answered(now, now, server.report())
            elif server.life is Life.DEAD:
                detector.failed(now, Failure.REFUSED)
            else:
                detector.unanswered(now)
                if server.node in self.busy:
                    detector.excuse(Excuse("FLUSHALL", "p0"))
                detector.failed(now, Failure.TIMEOUT)
                detector.next_probe = now + Limits().probe_timeout

    def _sessions(self) -> None:
        site = self.site
        primary = self.managers[site.primary]
        awake = any(manager.frozen_since is None for manager in self.managers)
        if awake and primary.frozen_since is not None and site.now >= primary.frozen_since + SESSION:
            self.depose("its session is over")

    def depose(self, why: str, arrived: bool = False) -> None:
        """Another manager, one that is awake, takes over. What was on its way has `arrived`, or never does."""
        self.site = new_tenure(self.site, arrived)
        while self.managers[self.site.primary].frozen_since is not None:
            self.site = replace(self.site, primary=(self.site.primary + 1) % len(self.managers))
        self.tell(f"manager {self.site.primary} takes over: {why}")

    def _proxies(self) -> None:
        for proxy in self.site.proxies:
            since = self.stuck_since.get(proxy.name)
            if since is None:
                self._heartbeat(proxy)
            elif proxy.acknowledged is not None and self.site.now >= since + SESSION:
                self.site = with_proxy(self.site, replace(proxy, acknowledged=None))

    def _heartbeat(self, proxy: Proxy) -> None:
        if proxy.acknowledged is None:  # register first, then read, then trust
            known = proxy.believed.epoch if proxy.believed else 0
            proxy = replace(proxy, acknowledged=known)
            self.site = with_proxy(self.site, proxy)
            return
        self.site = informed(self.site, proxy)
        proxy = next(p for p in self.site.proxies if p.name == proxy.name)
        self.site = with_proxy(self.site, replace(proxy, lease=self.site.now + LEASE))

    # The primary manager.

    def standings(self) -> Mapping[Node, Standing]:
        """The verdicts over the reports of those who are awake."""
        reports = [
            ManagerReport(str(number), nodes=tuple(r for d in manager.detectors.values() if (r := d.report)))
            for number, manager in enumerate(self.managers)
            if manager.frozen_since is None or number == self.site.primary
        ]
        own = next(report for report in reports if report.manager == str(self.site.primary))
        detectors = self.managers[self.site.primary].detectors
        sampled = {node: detector.sampled_at for node, detector in detectors.items()}
        return judge(own, [report for report in reports if report is not own], RULE, sampled)

    def act(self) -> None:
        """The primary manager takes steps until it has to wait, at most a few."""
        for _ in range(3):
            if self.managers[self.site.primary].frozen_since is not None or isinstance(self.act_once(), Wait):
                return

    def act_once(self, mishap: Mishap = NONE) -> Step:
        """One step."""
        step = self.decided()
        self.execute(step, mishap)
        return step

    def decided(self) -> Step:
        """What the primary manager wants to do now."""
        self.site = begun(self.site)
        known = self.standings()
        self._note_returns()
        # Of a server that it does not find silent itself, it is only known that it is down.
        detectors = self.managers[self.site.primary].detectors
        silent = {node: since for node, d in detectors.items() if (since := d.silent_since) is not None}
        plain = view(self.site, known)
        return decide(replace(plain, wall=self.site.now, silent=silent, brake=self.brake), POLICY)

    @property
    def brake(self) -> Brake:
        """As the receipts tell it."""
        return Brake.of(self.receipts.values(), self.site.now)

    def _note_returns(self) -> None:
        """As the executor does."""
        for epoch, receipt in list(self.receipts.items()):
            former = at(self.site.servers, receipt.former)
            if former is None or not receipt.lost or self.site.now - receipt.ended > RETURN or receipt.false_alarm:
                continue
            if self.site.reaches(self.site.primary, former) and former.run_id == receipt.run_id:
                self.receipts[epoch] = replace(receipt, returned=self.site.now - receipt.ended)
                self.tell(f"false alarm: {former.node} was alive")

    def execute(self, step: Step, mishap: Mishap = NONE) -> None:
        """Carry the step out, which may have been decided a moment ago."""
        site = begun(self.site)
        for node in site.nodes:
            self.managers[site.primary].detectors[node].hurry(site.now)
        with self.explained():
            self._check_patience(step)
            self.site = checked(site, step, carried_out(site, step, mishap), self._visible())
        if isinstance(step, Record):
            self.records.append(step.topology)
        if isinstance(step, Record) and step.receipt:
            self.receipts[step.receipt.epoch] = step.receipt
        if isinstance(step, Wait):
            self.said = step.reason
        else:
            self.tell(f"manager {site.primary}: {getattr(step, 'name', type(step).__name__)}")

    def _check_patience(self, step: Step) -> None:
        """A silent master was given the time that false alarms, or a command that takes long, have earned it."""
        change = step.topology.change if isinstance(step, Record) and step.name == "fence" else None
        if change is None or self.site.topology is None or self.site.topology.phase is not Phase.SERVING:
            return
        since = self.frozen_since.get(change.former) if change.former else None
        if change.lost == "timeout" and since is not None and change.former is not None:
            # A master that goes on for less than the time between two probes has not been heard in between.
            unrefuted = [manager.detectors[change.former].failing_since for manager in self.managers]
            since = min([since, *(at for at in unrefuted if at is not None)])
            braked = self.brake.on and self.site.request is None
            needed = Limits().silence * self.brake.factor if braked else 0.0
            needed = max(needed, Limits().busy_patience if change.former in self.busy else 0.0)
            require(self.site.now - since >= needed - TICK, f"{change.former} was silent for less than {needed} s")

    def _visible(self) -> frozenset[str]:
        """The processes that the primary manager knows of, and for which it need not lose its patience."""
        site, verdicts = self.site, self.standings()
        patient = site.now < site.progress.since + PATIENCE
        return frozenset(
            server.run_id
            for server in site.servers
            if (verdict := verdicts.get(server.node))
            and verdict.available
            and verdict.report.run_id == server.run_id
            and verdict.sampled_at > -FOREVER  # it has looked itself
            and (patient or server.node not in site.progress.failed)
        )

    # The end.

    def heal(self) -> None:
        """Nothing is broken any more."""
        servers = tuple(
            replace(server.restarted(Start.WHOLE) if server.life is Life.DEAD else server, isolated=False)
            for server in self.site.servers
        )
        servers = tuple(
            replace(server, life=Life.RUNNING, priority=100, refuses=False, release=8) for server in servers
        )
        self.site = replace(self.site, servers=servers, blind=frozenset(), paused=False, dropped=frozenset())
        self.stuck_since.clear()
        self.site = replace(self.site, proxies=tuple(replace(proxy, stuck=False) for proxy in self.site.proxies))
        for manager in self.managers:
            manager.frozen_since = None
        self.tell("all is healed")

    def converges(self) -> bool:
        """Does the group, left alone, serve within a minute? False when it says that nobody can be promoted."""
        for _ in range(int(60 / TICK)):
            self.tick()
            try:
                check_rest(self.site, Wait(self.said))
            except Violation:
                continue
            if self.site.topology is not None and self.site.topology.phase is Phase.SERVING:
                return True
        with self.explained():
            check_rest(self.site, Wait(self.said))
        return False
