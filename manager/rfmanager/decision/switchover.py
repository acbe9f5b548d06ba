"""A change of master that an operator asks for: nothing may get lost, and it may be given up. Pure."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.decision.fencing import (
    PATIENCE,
    fence,
    fence_holds,
    names,
    next_epoch,
    not_acknowledged,
    publish,
    receipt,
    refuse,
)
from rfmanager.decision.plan import CatchUp, Demote, Policy, Promote, Record, Stage, Step, Unpause, View, Wait
from rfmanager.decision.reconcile import reconcile
from rfmanager.evidence.candidates import choose_planned, continues, outage, why_not, why_not_planned
from rfmanager.evidence.versions import warning
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Change, Kind, Node, NodeReport, Phase, Topology

BY_OPERATOR = "requested by an operator"


def answer(view: View, topology: Topology, master: Node, policy: Policy) -> Step:
    """An operator asks for another master: begin, refuse, or look again when the target was sampled."""
    assert view.request is not None
    target = view.request.target
    if view.hearsay(master):
        return refuse(view, topology, f"the primary manager does not reach the master {master} to pause its writes")
    asked = view.members if target is None else (target,)
    pending = [node for node in asked if node in view.members and node != master and _will_be_fresh(view, node)]
    if target is not None and not pending:
        why = _why_not_target(view, topology, master, target)
        chosen = view.fresh(target) if why is None else None
        return _drain(view, topology, master, chosen) if chosen else _refuse(view, topology, asked, why or "", policy)
    reports = [report for node in asked if node != master and (report := view.fresh(node))]
    choice = choose_planned(reports, topology.replid)
    if choice.best is not None:
        return _drain(view, topology, master, choice.best)
    if pending:
        until = max(view.sample_due(node) for node in pending) + PATIENCE
        return Wait(f"looking at {', '.join(map(str, pending))} for the switchover", until)
    return _refuse(view, topology, asked, f"no replica can take over: {choice.explain()}", policy)


def _refuse(view: View, topology: Topology, asked: tuple[Node, ...], why: str, policy: Policy) -> Step:
    """Not before servers that still follow the former master had a moment to follow this one."""
    until = view.progress.since + PATIENCE
    reports = [report for node in asked if node != topology.master and (report := view.fresh(node))]
    follow = all(report.link_up and report.follows == topology.master for report in reports)
    if topology.master is None or view.now >= until or follow:
        return refuse(view, topology, why)
    step = reconcile(view, topology, topology.master, policy)
    return Wait(why, until) if isinstance(step, Wait) else step


def _why_not_target(view: View, topology: Topology, master: Node, target: Node) -> str | None:
    if target == master:
        return f"{target} is the master already"
    if target not in view.members:
        return f"{target} is not one of the servers of this group"
    report = view.fresh(target)
    why = why_not_planned(report, topology.replid) if report else _why_unseen(view, target)
    return f"{target} cannot take over: {why}" if why else None


def _will_be_fresh(view: View, node: Node) -> bool:
    if view.now >= view.sample_due(node) + PATIENCE or view.fresh(node) is not None:
        return False
    standing = view.standings.get(node)
    return standing is None or (standing.available and standing.sampled_at > float("-inf"))


def _why_unseen(view: View, node: Node) -> str:
    standing = view.standings.get(node)
    if standing is None:
        return "not seen by enough managers"
    if not standing.available:
        return outage(standing.report)
    return f"the primary manager cannot look into it ({standing.report.condition})"


def _drain(view: View, topology: Topology, master: Node, target: NodeReport) -> Record:
    others = [standing.report for standing in view.standings.values()]
    warned = warning(target, others)
    change = Change(
        Kind.SWITCHOVER,
        f"{BY_OPERATOR}; warning: {warned}" if warned else BY_OPERATOR,
        master,
        target.node,
        manager=view.manager,
        steps=(("noticed", view.wall),),
        request=view.request_id,
        run_id=target.run_id,
    )
    return Record("drain", replace(topology, epoch=next_epoch(view), phase=Phase.DRAINING, master=None, change=change))


def proceed(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    """The next step of a planned change that has begun."""
    former, target = change.former, change.target
    assert former is not None  # `_drain` sees to it
    assert target is not None
    promoted = view.progress.promoted or _promoted_by_predecessor(view, topology, target)
    if promoted and _may_take_over(view, topology, change, promoted):
        if not _former_died(view, topology, former) and view.progress.stage is not Stage.DEMOTED:
            return Demote(former, target)
        return fence_holds(view, topology, policy) or publish(view, topology, change, promoted)
    masterless = _why_masterless(view, topology, former, target)
    if look := _look_first(view, change, former, target, policy.retry_interval if masterless else 0.0):
        return look
    if masterless:
        return _overtaken(view, topology, change, masterless)
    restarted = f"{target} restarted while it was promoted" if promoted else ""
    drained = _drained(view, topology, policy)
    why = restarted or view.progress.trouble or _why_target_lost(view, topology, change, target) or drained
    if isinstance(why, str):
        return _give_up(view, topology, change, why)
    return why or (Promote(target) if view.progress.stage is Stage.CAUGHT_UP else CatchUp(former, target))


def _look_first(view: View, change: Change, former: Node, target: Node, patience: float) -> Wait | None:
    """A predecessor may have promoted the target: nobody knows how far it got before both were looked at."""
    successor = change.manager != view.manager
    seen = [view.unavailable(node) or view.fresh(node) is not None for node in (target, former)]
    if all(seen if successor else seen[:1]):
        return None
    until = view.progress.since + (PATIENCE if successor else patience)
    return Wait(until=until) if view.now < until else None


def _why_masterless(view: View, topology: Topology, former: Node, target: Node) -> str | None:
    """Neither the former master nor the target can serve: there is nothing to go back to."""
    if _former_died(view, topology, former):
        return f"the master {former} died meanwhile"
    seen = view.fresh(former)
    return f"{target} was lost when {former} was a replica already" if seen and seen.role == "slave" else None


def _overtaken(view: View, topology: Topology, change: Change, why: str) -> Record:
    """No master is left: nobody asked for what follows, so the request is answered and gives no permission for it."""
    why = f"{change.cause}; {why}"
    fenced = fence(view, topology, replace(change, kind=Kind.FAILOVER, cause=why, request=0))
    answer = receipt(view, fenced.topology.epoch, change, Outcome.ABORTED, why, None)
    return replace(fenced, receipt=answer, settles=True)


def _drained(view: View, topology: Topology, policy: Policy) -> Wait | str | None:
    """None when all proxies have drained; the reason to give up when they take too long."""
    missing = names(not_acknowledged(view, topology))
    until = view.progress.since + policy.catch_up_timeout
    if missing and view.now >= until:
        return f"proxies did not drain within {policy.catch_up_timeout:g} s: {missing}"
    return Wait(f"waiting for proxies to drain: {missing}", until) if missing else None


def _promoted_by_predecessor(view: View, topology: Topology, target: Node) -> NodeReport | None:
    report = view.fresh(target)
    return report if report and report.role == "master" and continues(report, topology.replid) else None


def _may_take_over(view: View, topology: Topology, change: Change, promoted: NodeReport) -> bool:
    """Is it, and is it still, the replica that was chosen? One that started anew may lack writes, and yet continue."""
    seen = view.fresh(promoted.node) or promoted
    return continues(promoted, topology.replid) and _is_chosen(promoted, change) and _is_chosen(seen, change)


def _is_chosen(report: NodeReport, change: Change) -> bool:
    """Is it still the process that was a replica when the change began?"""
    return not change.run_id or report.run_id == change.run_id


def _former_died(view: View, topology: Topology, former: Node) -> bool:
    report = view.fresh(former)
    restarted = bool(report and topology.run_id and report.run_id and report.run_id != topology.run_id)
    return restarted or view.unavailable(former)


def _why_target_lost(view: View, topology: Topology, change: Change, target: Node) -> str | None:
    standing = view.standings.get(target)
    why = why_not(standing.report, topology.replid) if standing else None
    if standing and why is None and standing.report.run_id and not _is_chosen(standing.report, change):
        why = "it restarted"
    return f"{target} cannot take over: {why}" if why else None


def _give_up(view: View, topology: Topology, change: Change, why: str) -> Step:
    """Let the former master serve again. Safe even if the target was promoted unseen: no proxy writes to it."""
    assert change.former is not None
    if view.progress.stage is not Stage.RELEASED:
        return Unpause(change.former)
    epoch = topology.epoch + 1
    return Record(
        "abort",
        replace(topology, epoch=epoch, phase=Phase.SERVING, master=change.former, change=None),
        receipt=receipt(view, epoch, change, Outcome.ABORTED, why, change.former),
        settles=True,
    )
