"""What the managers together say about the servers: the gem's strategies over their reports. Pure.

A report counts only while it is alive: its record exists, and its sequence has changed within `max_age` of the
primary's own clock. Clocks of different hosts are never compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from rfmanager.evidence.candidates import UNFIT_CONDITIONS
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport


class Strategy(Enum):
    """How many managers must agree that a server is unavailable."""

    MAJORITY = "majority"  # more say unavailable than available
    CONSENSUS = "consensus"  # all say unavailable
    SINGLE = "single"  # one is enough


@dataclass(frozen=True, slots=True)
class Rule:
    """`required` managers must report a server, else there is no verdict and nothing is done about it."""

    strategy: Strategy = Strategy.MAJORITY
    required: int = 1
    max_age: float = 2.5  # seconds; a report is renewed at least every second


@dataclass(frozen=True, slots=True)
class Standing:
    """The verdict on one server. `report` holds the best details known, the primary's own where they fit."""

    available: bool
    report: NodeReport
    sampled_at: float = float("-inf")  # when the primary itself asked for these details; -inf: hearsay

    @property
    def node(self) -> Node:
        """The server."""
        return self.report.node


class Roll:
    """Which of the other managers' reports are still being renewed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}  # name -> sequence, when it was first seen

    def live(self, now: float, reports: Mapping[str, ManagerReport], max_age: float) -> list[ManagerReport]:
        """The reports that count now. A report seen for the first time counts."""
        self._seen = {
            name: seen if (seen := self._seen.get(name)) and seen[0] == report.sequence else (report.sequence, now)
            for name, report in reports.items()
        }
        return [report for name, report in reports.items() if now - self._seen[name][1] <= max_age]


def judge(
    own: ManagerReport, others: Iterable[ManagerReport], rule: Rule, sampled: Mapping[Node, float]
) -> dict[Node, Standing]:
    """The verdicts; a server that fewer than `rule.required` managers report is left out.

    `sampled` says when each of the own details was asked for.
    """
    views: dict[Node, list[NodeReport]] = {}
    for report in (own, *others):  # own first: it is preferred below
        for view in report.nodes:
            views.setdefault(view.node, []).append(view)
    mine = {view.node: view for view in own.nodes}
    standings: dict[Node, Standing] = {}
    for node, said in views.items():
        if len(said) < rule.required:
            continue
        available = _available(said, rule.strategy)
        best = next(view for view in said if view.available == available)
        at = sampled.get(node, float("-inf")) if mine.get(node) is best else float("-inf")
        standings[node] = Standing(available, best, at)
    return standings


def outseen(own: ManagerReport, others: Iterable[ManagerReport], standings: Mapping[Node, Standing]) -> frozenset[Node]:
    """The servers that are up, that this manager looks for in vain, and that one can command that can all that this one
    can. Of two managers at most one is outseen by the other, so the role does not go to and fro between them.
    """
    up = {node for node, standing in standings.items() if standing.available} & {view.node for view in own.nodes}
    mine, *theirs = (_commanded(report) & up for report in (own, *others))
    return frozenset(max((seen - mine for seen in theirs if seen > mine), key=len, default=()))


class Outseen:
    """For how long another manager has reached servers that this one looks for in vain. Times in seconds."""

    def __init__(self, enough: float, one_probe: float) -> None:
        """`enough`: of own failures. `one_probe`: for which another manager may have been the first to see a server.

        Of a server that comes back one manager hears first, the others with their next probe.
        """
        self._enough = enough
        self._one_probe = one_probe
        self._since: dict[Node, float] = {}

    def lasting(self, now: float, failing: Mapping[Node, float | None]) -> Collection[Node]:
        """The servers that are outseen now, if all are so for long enough; `failing`: since when the own probes of each
        fail."""
        self._since = {node: self._since.get(node, now) for node in failing}
        missed = all(now - since > self._one_probe for since in self._since.values())
        failed = all(since is not None and now - since > self._enough for since in failing.values())
        return tuple(failing) if missed and failed else ()


def _commanded(report: ManagerReport) -> set[Node]:
    return {view.node for view in report.nodes if view.available and view.condition not in UNFIT_CONDITIONS}


def _available(views: list[NodeReport], strategy: Strategy) -> bool:
    up = sum(view.available for view in views)
    down = len(views) - up
    match strategy:
        case Strategy.MAJORITY:
            return down <= up
        case Strategy.CONSENSUS:
            return up > 0
        case Strategy.SINGLE:
            return down == 0
