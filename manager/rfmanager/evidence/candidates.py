"""Who may become the master, and who should. Pure.

The offset decides, because it counts the writes that a server has; latency only breaks ties, whatever the strategy:
no data is given up for it. Among equals the server of the oldest version is preferred, so that the others can copy it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rfmanager.evidence.versions import Release, age
from rfprotocol.errors import Failure
from rfprotocol.topology.topology import Node, NodeReport

UNFIT_CONDITIONS = frozenset(
    {"loading", "noauth", "wrongpass", "noperm", "denied", "maxclients", "sentinel", "unknown", "silent"}
    | {failure.value for failure in Failure}
)
"""A server that answers like this serves nobody, or cannot be commanded."""

CLOSE = 1 << 20
"""Bytes of the replication stream that a replica has caught up with in time for a switchover."""

CHANCES = 2
"""How often the server with the most data may fail to be promoted before one with less is taken; and that one, before
the turn comes to the first again."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The server to promote, if any, and for each that may not be promoted a reason in words."""

    best: NodeReport | None
    excluded: Mapping[Node, str]

    def explain(self) -> str:
        """All exclusions in one line."""
        return "; ".join(f"{node}: {why}" for node, why in self.excluded.items()) or "no server is available"


def continues(report: NodeReport, replid: str) -> bool:
    """Does the server's data belong to the replication history `replid`?

    A promoted or restarted server has a history of its own and remembers as `replid2` the one it continued.
    """
    return bool(replid) and (report.replid == replid or (report.replid2 == replid and report.replid2_offset > 0))


def reach(report: NodeReport, replid: str) -> int:
    """How far into the history `replid` the server's data goes, in bytes of the replication stream."""
    return report.offset if report.replid == replid else min(report.offset, report.replid2_offset - 1)


def outage(report: NodeReport) -> str:
    """In words, what is wrong with a server that is unavailable; some managers may see it well, or give no details."""
    if report.busy_with:
        return f"unavailable ({report.condition}): busy with {report.busy_with} for longer than --busy-patience"
    return f"unavailable ({report.condition})" if report.condition != "ok" else "unavailable for most managers"


def why_not(report: NodeReport, replid: str) -> str | None:
    """Why the server may not be promoted; None when it may."""
    foreign = "empty, of another history" if report.empty else "its data is of another replication history"
    reasons = (
        (not report.available, outage(report)),
        (report.condition in UNFIT_CONDITIONS, f"answers {report.condition}"),
        (report.syncing, "in the middle of a full transfer"),
        (not continues(report, replid), foreign),
        (report.offset < 0, "its last full transfer was interrupted"),
        (report.priority <= 0, "its replica-priority is 0"),
    )
    return next((why for applies, why in reasons if applies), None)


def why_not_planned(report: NodeReport, replid: str) -> str | None:
    """As `why_not`, for a switchover, in which the target must be a connected replica."""
    why = why_not(report, replid)
    if why is None and (report.role != "slave" or not report.link_up):
        why = "it is not connected to the master"
    return why


def precedes(report: NodeReport, before: tuple[str, int]) -> bool:
    """Is its data what the lost master had when it was promoted, or older? It has not followed it yet."""
    return bool(before[0]) and report.replid == before[0] and 0 <= report.offset < before[1]


def choose(
    reports: Iterable[NodeReport], replid: str, rejected: Sequence[Node] = (), before: tuple[str, int] = ("", -1)
) -> Choice:
    """The best candidate for an unplanned change. `rejected` names those that failed before, once per failure."""
    plain = [replace(r, replid=replid) if precedes(r, before) else r for r in reports]
    return _best(plain, replid, rejected, {})


def choose_planned(reports: Iterable[NodeReport], replid: str) -> Choice:
    """The best candidate for a switchover to any replica. Nothing gets lost in one: the version comes first, unless a
    replica is so far behind that it may not catch up in time."""
    reports = list(reports)
    unconnected = {
        report.node: why
        for report in reports
        if why_not(report, replid) is None and (why := why_not_planned(report, replid))
    }
    most = max((report.offset for report in reports if report.node not in unconnected), default=0)
    return _best(reports, replid, (), unconnected, close_to=most)


def _best(
    reports: Iterable[NodeReport],
    replid: str,
    rejected: Sequence[Node],
    excluded: dict[Node, str],
    close_to: int | None = None,
) -> Choice:
    """`close_to`: the offset that all have reached that are not more than CLOSE behind it."""
    fit: list[NodeReport] = []
    for report in reports:
        why = excluded.get(report.node) or why_not(report, replid)
        if why:
            excluded[report.node] = why
        else:
            fit.append(report)

    def rank(report: NodeReport) -> tuple[int, int, int, int, tuple[int, Release], float, Node]:
        failures = rejected.count(report.node)
        data, offset = -reach(report, replid), -report.offset
        if close_to is not None and report.offset >= close_to - CLOSE:
            data = offset = -close_to
        # What it has beyond `reach` continues the history: the lost master had gone on after a restart.
        return failures // CHANCES, data, offset, failures, age(report), report.latency, report.node

    return Choice(min(fit, key=rank, default=None), excluded)
