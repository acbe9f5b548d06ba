"""Find the master where no record can be trusted: there is none, it is the gem's, or it went back. Pure."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.decision.fencing import common_history, dismiss, fence, fence_for, next_epoch
from rfmanager.decision.plan import Record, Step, View, Wait
from rfmanager.decision.reconcile import follows, serving
from rfmanager.evidence.candidates import UNFIT_CONDITIONS, choose
from rfprotocol.topology.topology import Change, Kind, Node, NodeReport, Phase, Topology

HINT = "make one of them the master (REPLICAOF NO ONE there, REPLICAOF on the others) or 'rfmanager failover --to h:p'"


def restore(view: View) -> Record | None:
    """Write the record again that this manager knows to be in force, in an epoch beyond all. None: it knows of none.

    It is newer than what is there: somebody has overwritten or removed it. A change of master that was under way
    begins anew with the fence.
    """
    known = view.in_force
    if known is None or known.phase is Phase.UNSETTLED or known.epoch < max(view.proxies.values(), default=0):
        return None
    if view.topology is not None and not view.topology.is_gems and view.topology.epoch >= known.epoch:
        return None
    if known.phase is Phase.SERVING:
        return Record("restore", replace(known, epoch=next_epoch(view)))
    if view.paused or known.change is None:
        return None
    return fence(view, known, replace(known.change, kind=Kind.FAILOVER, request=0))


def adopt(view: View) -> Step | None:
    """Find the master without a record that can be trusted: there is none, it is the gem's, or it went back.

    What such a record says is a hint, no more. The master is the one that the servers agree upon, or that the hint
    names and no server disputes; nothing is guessed, and nothing is done to the servers. None: the master that the
    record names is lost, and a failover can replace it.
    """
    if view.paused:
        return Wait("paused: watching only, until 'rfmanager resume'")
    named = view.topology.master if view.topology else None
    if view.request is not None and named is None:
        return _settle_by_operator(view)
    unseen = [node for node in view.members if node not in view.standings]
    if unseen:
        return Wait(f"not yet seen by enough managers: {_names(unseen)}")
    reports = [standing.report for standing in view.standings.values() if standing.available]
    masters = [report for report in reports if report.role == "master"]
    hinted = next((report for report in masters if report.node == named), None)
    if view.topology is not None and hinted is not None and _is_undisputed(hinted, view.topology, masters):
        return Record("settle", serving(view, hinted, next_epoch(view), view.topology))
    obstacle = _obstacle(view, reports, masters) or _why_not_alone(view, reports, masters[0])
    return _settled_otherwise(view, obstacle) if obstacle else _take(view, masters[0])


def _settled_otherwise(view: View, obstacle: str) -> Step | None:
    """By a failover, if that can replace the master of the record, or by an operator, who may name any server."""
    if _can_be_replaced(view):
        return None
    return _settle_by_operator(view) if view.request is not None else Wait(obstacle)


def _is_undisputed(hinted: NodeReport, topology: Topology, masters: list[NodeReport]) -> bool:
    """Is it still the process that the record means, as far as that says, and does nobody follow another master?"""
    same = topology.run_id in ("", hinted.run_id)
    return same and not any(report.connected_replicas for report in masters if report is not hinted)


def _why_not_alone(view: View, reports: list[NodeReport], master: NodeReport) -> str | None:
    """A server that is down may be the master, unless others follow this one, or there was a master before."""
    down = [node for node in view.members if view.unavailable(node)]
    named = view.topology.master if view.topology else None
    if not down or named == master.node:
        return None
    wait = f"waiting for {_names(down)}, or for 'rfmanager failover --to {master.node}'"
    if not any(report.follows for report in reports):
        return (
            f"{master.node} is the only master, but nobody follows it, and one that is down may be the master: {wait}"
        )
    if named is None and view.highest_epoch == 0:
        return f"{master.node} is the only master, but one that is down may have newer data at a first start: {wait}"
    return None


def _take(view: View, master: NodeReport) -> Record:
    """The one that the servers agree upon. No proxy may still write to another one when that is published."""
    named = view.topology.master if view.topology else None
    act_on_another = view.proxies if named else any(view.proxies.values())
    if named == master.node or not act_on_another:
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
    restarted = bool(topology.run_id) and report.run_id != topology.run_id
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
