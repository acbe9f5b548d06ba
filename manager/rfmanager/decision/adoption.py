"""Find the master where no record can be trusted: there is none, it is the gem's, or it went back. Pure."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.decision.fencing import common_history, dismiss, fence, fence_for, next_epoch
from rfmanager.decision.plan import Record, Step, View, Wait
from rfmanager.decision.reconcile import follows, serving
from rfmanager.evidence.candidates import UNFIT_CONDITIONS, choose
from rfprotocol.topology.topology import Change, Kind, Node, NodeReport, Phase, Topology

HINT = "make one of them the master (REPLICAOF NO ONE there, REPLICAOF on the others) or 'rfmanager failover --to h:p'"


def restore(view: View) -> Step | None:
    """Put the record that this manager knows to be in force in the place of what is there, in an epoch beyond all.

    It is newer than what is there: somebody has overwritten or removed it. None: this manager knows of none, or not
    for certain, because servers, proxies or receipts show that something has happened since.
    """
    known = _known(view)
    if known is None:
        return None
    if known.phase is not Phase.SERVING:  # the change that was under way begins anew
        if view.paused or known.change is None:
            return None
        return fence(view, known, replace(known.change, kind=Kind.FAILOVER, request=0))
    if all(epoch == known.epoch for epoch in view.proxies.values()):
        return Record("restore", replace(known, epoch=next_epoch(view)))
    return None if view.paused else _restore_behind_a_fence(view, known)


def _known(view: View) -> Topology | None:
    known, record = view.in_force, view.topology
    if known is None or known.phase is Phase.UNSETTLED:
        return None
    if record is not None and not record.is_gems and record.epoch >= known.epoch:
        return None
    if known.epoch < max(view.last_epoch, *view.proxies.values(), 0):
        return None
    former = known.change.former if known.change else None
    return None if (master := known.master or former) and _is_disputed(view, master) else known


def _restore_behind_a_fence(view: View, known: Topology) -> Step:
    """A proxy may act upon what somebody has written meanwhile."""
    assert known.master is not None  # it serves
    report, cause = view.fresh(known.master), f"the record was overwritten or removed, {known.master} was in force"
    if view.unavailable(known.master) or (report is not None and _is_another(report, known)):
        change = Change(Kind.FAILOVER, f"{cause} and is lost", known.master, steps=(("noticed", view.wall),))
        return fence(view, known, change)
    return fence_for(view, report, cause) if report is not None else Wait(f"looking at {known.master}")


def _is_disputed(view: View, master: Node) -> bool:
    """Does a server follow another master, or is there another one that others follow or that has more of this data?"""
    reports = {node: standing.report for node, standing in view.standings.items() if standing.available}
    at_master = reports.get(master)
    return any(_disputes(view, report, master, at_master) for report in reports.values())


def _disputes(view: View, report: NodeReport, master: Node, at_master: NodeReport | None) -> bool:
    if report.node != master and report.role == "master":
        return bool(report.connected_replicas) or (at_master is not None and _has_more(report, at_master))
    if report.follows is None or report.follows == master:
        return False
    return report.node == master or at_master is None or not follows(report, at_master, view)


def _has_more(report: NodeReport, other: NodeReport) -> bool:
    """Of data with a common history."""
    common = {report.replid, report.replid2} & {other.replid, other.replid2}
    return any(replid.strip("0") for replid in common) and report.offset > other.offset


def adopt(view: View) -> Step | None:
    """Find the master without a record that can be trusted: there is none, it is the gem's, or it went back.

    The gem's record is a hint, no more. The master is the one that the servers agree upon, or that the hint names and
    no server disputes; nothing is guessed, and nothing is done to the servers. None: the master that the record names
    is lost, and a failover can replace it.
    """
    named = view.topology.master if view.topology else None
    if view.paused:
        if view.request is not None:
            return dismiss(view, "the managers are paused: 'rfmanager resume' first")
        return Wait("paused: watching only, until 'rfmanager resume'")
    if view.request is not None and named is None:
        return _settle_by_operator(view)
    unseen = [node for node in view.members if node not in view.standings]
    if unseen:
        return Wait(f"not yet seen by enough managers: {_names(unseen)}")
    reports = [standing.report for standing in view.standings.values() if standing.available]
    masters = [report for report in reports if report.role == "master"]
    hinted = next((report for report in masters if report.node == named), None)
    if hinted is not None and not view.went_back and not _is_disputed(view, hinted.node):
        return Record("settle", serving(view, hinted, next_epoch(view), view.topology))
    obstacle = _obstacle(view, reports, masters) or _why_not_alone(view, reports, masters[0])
    return _settled_otherwise(view, obstacle) if obstacle else _take(view, masters[0])


def _settled_otherwise(view: View, obstacle: str) -> Step | None:
    """By a failover, if that can replace the master of the record, or by an operator, who may name any server."""
    if _can_be_replaced(view):
        return None
    return _settle_by_operator(view) if view.request is not None else Wait(obstacle)


def _why_not_alone(view: View, reports: list[NodeReport], master: NodeReport) -> str | None:
    """A server that is down may be the master, unless others follow this one, or there was a master before."""
    down = [node for node in view.members if view.unavailable(node)]
    if not down:
        return None
    wait = f"waiting for {_names(down)}, or for 'rfmanager failover --to {master.node}'"
    if not any(report.follows for report in reports):
        return (
            f"{master.node} is the only master, but nobody follows it, and one that is down may be the master: {wait}"
        )
    if view.topology is None and view.highest_epoch == 0:
        return f"{master.node} is the only master, but one that is down may have newer data at a first start: {wait}"
    return None


def _take(view: View, master: NodeReport) -> Step:
    """The one that the servers agree upon. No proxy may still write to another one when that is published."""
    if view.fresh(master.node) is None:
        return Wait(f"looking at {master.node}, which the servers agree upon")
    named = view.topology.master if view.topology else None
    act_on_another = view.proxies if named else any(view.proxies.values())
    if not act_on_another:
        return Record("settle", serving(view, master, next_epoch(view), view.topology))
    said = f"the record says {named}" if named else "no master was in the record"
    return fence_for(view, master, f"{said}, the servers agree upon {master.node}")


def _can_be_replaced(view: View) -> bool:
    """Is the master that the record names lost, and is it known whose data continues its own?"""
    topology = view.topology
    if topology is None:
        return False
    if topology.master is None:
        return topology.change is not None and bool(topology.replid)
    report = view.fresh(topology.master)
    lost = view.unavailable(topology.master) or (report is not None and _is_another(report, topology))
    return lost and bool(topology.replid or common_history(view, topology.master))


def _is_another(report: NodeReport, topology: Topology) -> bool:
    restarted = bool(topology.run_id and report.run_id) and report.run_id != topology.run_id
    return report.role == "slave" or restarted


def _obstacle(view: View, reports: list[NodeReport], masters: list[NodeReport]) -> str | None:
    mute = [report for report in reports if not report.role]
    if mute:
        said = ", ".join(f"{report.node} ({report.condition})" for report in mute)
        return f"the role of {said} is unknown: 'rfmanager status' says what to do about each"
    if not masters:
        found = _names([report.node for report in reports]) or "none"
        return f"no master among the reachable servers ({found}): start it, or {HINT}"
    if len(masters) > 1:
        return f"several masters: {_names([report.node for report in masters])}: {HINT}"
    strangers = [r for r in reports if r.follows is not None and not follows(r, masters[0], view)]
    if strangers:
        said = ", ".join(f"{report.node} follows {report.follows}" for report in strangers)
        return f"{masters[0].node} is the only master, but {said}: {HINT}"
    return None


def _settle_by_operator(view: View) -> Step:
    assert view.request is not None
    target = view.request.target
    if target is None:
        reports = [standing.report for standing in view.standings.values()]
        return dismiss(view, f"no master was established, name one: {choose(reports, '').explain()}")
    standing = view.standings.get(target)
    if target not in view.members:
        return dismiss(view, f"{target} is not one of the servers of this group")
    if standing is None:
        return Wait(f"not yet seen by enough managers: {target}")
    report = standing.report
    if not standing.available or report.condition in UNFIT_CONDITIONS:
        return dismiss(view, f"{target} cannot become the master: it is {report.condition}")
    change = Change(
        Kind.SWITCHOVER,
        "named by an operator as the first master",
        None,
        target,
        manager=view.manager,
        steps=(("noticed", view.wall),),
        request=view.request_id,
    )
    return Record(
        "mark",
        Topology(
            epoch=next_epoch(view),
            phase=Phase.PROMOTING,
            unavailable=view.members,
            run_id=report.run_id,
            replid=report.replid,
            change=change,
        ),
    )


def _names(nodes: list[Node]) -> str:
    return ", ".join(map(str, nodes))
