"""What to do next. Pure: a view of the group goes in, one step comes out.

Invariants, for every sequence of views, also when managers die and others take over between any two steps:

1. A topology with a new master is only written after every registered proxy has acknowledged the epoch that withdrew
   the former one, or is gone, or `fence_wait` is over. (A proxy registers before it first reads the topology, so
   one that could still act on an older epoch is registered.)
2. A server is only promoted when this tenure has sealed it in this epoch (unplanned), or has seen it catch up with the
   paused master in this epoch (planned). Hence what is promoted is what was compared.
3. Within one epoch at most one server is promoted: the target is written down before it is touched, and giving it
   up costs an epoch.
4. Data of another history is never promoted, unless an operator names the server and there is no candidate.
5. While paused nothing is done to servers, and the record only changes to refuse an operator's request.

Each decision follows from the record and the state of the servers, not from what was done before, so that a
successor finishes what another began. `Progress` only spares repetitions and proves invariant 2.
"""

from __future__ import annotations

from dataclasses import replace

from rfmanager import upkeep
from rfmanager.candidates import UNFIT_CONDITIONS, Choice, choose, choose_planned, continues, why_not, why_not_planned
from rfmanager.steps import CatchUp, Demote, Policy, Promote, Record, Seal, Stage, Step, Unpause, View, Wait
from rfprotocol.records import Outcome, Receipt
from rfprotocol.topology import Change, Kind, Node, NodeReport, Phase, Topology

BY_OPERATOR = "requested by an operator"


def decide(view: View, policy: Policy) -> Step:
    """The next step of the primary manager."""
    topology = view.topology
    if topology is None or topology.phase is Phase.UNSETTLED:
        return upkeep.settle(view)
    if topology.phase is Phase.SERVING:
        return _serving(view, topology, policy)
    if view.paused:
        return Wait(f"paused in phase {topology.phase.value}: nothing is done until 'rfmanager resume'")
    change = topology.change or Change(Kind.FAILOVER, "unknown", None)
    match topology.phase:
        case Phase.FENCING:
            return _fencing(view, topology, change, policy)
        case Phase.PROMOTING:
            return _promoting(view, topology, change, policy)
        case _:
            return _draining(view, topology, change, policy)


def _serving(view: View, topology: Topology, policy: Policy) -> Step:
    master = topology.master
    assert master is not None  # the codec and `publish` see to it
    if view.paused:
        if view.request is not None:
            return upkeep.refuse(view, topology, "the managers are paused: 'rfmanager resume' first")
        return Wait("paused: watching only, until 'rfmanager resume'")
    lost = _why_lost(view, topology, master)
    if lost is not None:
        return _fence(view, topology, Change(Kind.FAILOVER, lost, master, steps=(("noticed", view.wall),)))
    if view.request is not None:
        return _answer(view, topology, master)
    return upkeep.reconcile(view, topology, master, policy)


def _why_lost(view: View, topology: Topology, master: Node) -> str | None:
    if view.unavailable(master):
        return f"the master {master} is unavailable ({view.standings[master].report.condition})"
    report = view.fresh(master)
    if report is None:
        return None
    if topology.run_id and report.run_id and report.run_id != topology.run_id:
        return f"the master {master} restarted"
    if report.role == "slave":
        return f"the master {master} was made a replica by somebody else"
    return None


def _fence(view: View, topology: Topology, change: Change) -> Record:
    """Withdraw the master. Reads go on from the replicas that were listed."""
    former = topology.master
    down = tuple(node for node in view.members if node == former or view.unavailable(node))
    return Record(
        "fence",
        Topology(
            epoch=topology.epoch + 1,
            phase=Phase.FENCING,
            replicas=tuple(node for node in topology.replicas if node not in down),
            unavailable=(*down, *(n for n in topology.unavailable if n not in down and n not in topology.replicas)),
            run_id=topology.run_id if topology.phase is not Phase.PROMOTING else "",
            replid=topology.replid or _common_history(view, change.former),
            change=replace(change, target=None, manager=view.manager),
        ),
    )


def _common_history(view: View, master: Node | None) -> str:
    """The history of a master that was never asked for it: the one its replicas agree upon, else nothing."""
    found = {s.report.replid for s in view.standings.values() if s.report.follows == master and s.available}
    return found.pop() if len(found) == 1 else ""


def _not_acknowledged(view: View, topology: Topology) -> list[str]:
    return sorted(name for name, epoch in view.proxies.items() if epoch < topology.epoch)


def _fence_holds(view: View, topology: Topology, policy: Policy) -> Wait | None:
    """Invariant 1: None when no proxy can send a write to the former master any more."""
    missing = _not_acknowledged(view, topology)
    until = None if policy.fence_wait is None else view.progress.since + policy.fence_wait
    if not missing or (until is not None and view.now >= until):
        return None
    return Wait(f"waiting for proxies to acknowledge epoch {topology.epoch}: {', '.join(missing)}", until)


def _fencing(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    waiting = _fence_holds(view, topology, policy)
    # Replicas would copy a restarted master that came back empty: its history is over, so they are detached at once.
    former = view.fresh(change.former) if change.former else None
    if waiting and not (former and topology.run_id and former.run_id != topology.run_id):
        return waiting
    unsealed = tuple(node for node in view.members if _may_seal(view, node, policy))
    if unsealed:
        return Seal(unsealed)
    if waiting:
        return waiting
    sealed = [report for node, report in view.progress.sealed.items() if not view.unavailable(node)]
    choice = choose(sealed, topology.replid, change.rejected)
    if choice.best is None:
        return _forced(view, topology, change, choice, policy)
    if choice.best.node in change.rejected and view.now < view.progress.since + policy.retry_interval:
        return Wait("every candidate has failed: trying them again", view.progress.since + policy.retry_interval)
    return _mark(view, topology, change, choice.best)


def _may_seal(view: View, node: Node, policy: Policy) -> bool:
    standing = view.standings.get(node)
    return (
        standing is not None
        and standing.available
        and standing.sampled_at > float("-inf")  # this manager can reach it
        and standing.report.condition not in UNFIT_CONDITIONS
        and node not in view.progress.sealed
        and view.may_retry(node, policy.retry_interval)
    )


def _forced(view: View, topology: Topology, change: Change, choice: Choice, policy: Policy) -> Step:
    """No candidate: an operator may name one whose data is of another history (invariant 4)."""
    target = view.request.target if view.request else None
    report = view.progress.sealed.get(target) if target else None
    if report is not None and not view.unavailable(report.node) and report.condition not in UNFIT_CONDITIONS:
        cause = f"{change.cause}; {BY_OPERATOR} although: {choice.excluded.get(report.node, 'unfit')}"
        return _mark(view, topology, replace(change, kind=Kind.SWITCHOVER, cause=cause), report)
    known = {standing.node: why for standing in view.standings.values() if (why := why_not(standing.report, ""))}
    reasons = Choice(None, {node: choice.excluded.get(node, known.get(node, "unknown")) for node in view.members})
    why = f"no server can be promoted: {reasons.explain()}"
    if view.request is not None:
        return upkeep.refuse(view, topology, f"{f'{target} cannot be taken as it is either; ' if target else ''}{why}")
    return Wait(
        f"{why}. Start one that has the data, or name one to take as it is: 'rfmanager failover --to host:port'",
        view.now + policy.retry_interval if view.progress.failed else None,
    )


def _mark(view: View, topology: Topology, change: Change, target: NodeReport) -> Record:
    return Record(
        "mark",
        replace(
            topology,
            phase=Phase.PROMOTING,
            run_id=target.run_id,  # only this process was sealed and compared
            replid=topology.replid if continues(target, topology.replid) else target.replid,
            change=replace(change, target=target.node, steps=(*change.steps, *view.progress.steps)),
        ),
    )


def _promoting(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    target = change.target
    assert target is not None  # the codec and `_mark` see to it
    waiting = _fence_holds(view, topology, policy)
    if waiting:
        return waiting
    promoted = view.progress.promoted or _same_process_as_master(view, topology, target)
    if promoted:
        return _publish(view, topology, change, promoted)
    sealed = view.progress.sealed.get(target)
    if view.unavailable(target) or target in view.progress.failed or (sealed and sealed.run_id != topology.run_id):
        rejected = (*(n for n in change.rejected if n != target), target)
        return _fence(view, topology, replace(change, rejected=rejected, steps=(*change.steps, *view.progress.steps)))
    if sealed is None:
        return Seal((target,))
    return Promote(target)


def _same_process_as_master(view: View, topology: Topology, target: Node) -> NodeReport | None:
    """The target, if a predecessor has promoted it already."""
    report = view.fresh(target)
    return report if report and report.role == "master" and report.run_id == topology.run_id else None


def _publish(view: View, topology: Topology, change: Change, master: NodeReport) -> Record:
    """The others are listed as readable again when they have followed; until then reads go to the master."""
    epoch = topology.epoch + 1
    return Record(
        "publish",
        Topology(
            epoch=epoch,
            phase=Phase.SERVING,
            master=master.node,
            unavailable=tuple(node for node in view.members if node != master.node),
            run_id=master.run_id,
            replid=master.replid,
        ),
        receipt=_receipt(view, epoch, change, Outcome.DONE, change.cause, master.node),
        settles=change.kind is Kind.SWITCHOVER,
    )


def _receipt(view: View, epoch: int, change: Change, outcome: Outcome, cause: str, master: Node | None) -> Receipt:
    last = "published" if outcome is Outcome.DONE else outcome.value
    return Receipt(
        epoch=epoch,
        kind=change.kind,
        outcome=outcome,
        cause=cause,
        former=change.former,
        master=master,
        manager=view.manager,
        steps=(*change.steps, *view.progress.steps, (last, view.wall)),
        offsets={str(node): report.offset for node, report in view.progress.sealed.items()},
    )


def _answer(view: View, topology: Topology, master: Node) -> Step:
    """An operator asks for another master: begin, refuse, or look again when the target was sampled."""
    assert view.request is not None
    target = view.request.target
    asked = view.members if target is None else (target,)
    pending = [node for node in asked if node in view.members and node != master and _will_be_fresh(view, node)]
    if target is not None and not pending:
        why = _why_not_target(view, topology, master, target)
        return upkeep.refuse(view, topology, why) if why else _drain(view, topology, master, target)
    reports = [report for node in asked if node != master and (report := view.fresh(node))]
    choice = choose_planned(reports, topology.replid)
    if choice.best is not None:
        return _drain(view, topology, master, choice.best.node)
    if pending:
        return Wait(f"looking at {', '.join(map(str, pending))} for the switchover")
    return upkeep.refuse(view, topology, f"no replica can take over: {choice.explain()}")


def _why_not_target(view: View, topology: Topology, master: Node, target: Node) -> str | None:
    if target == master:
        return f"{target} is the master already"
    if target not in view.members:
        return f"{target} is not one of the servers of this group"
    report = view.fresh(target)
    why = why_not_planned(report, topology.replid) if report else _why_unseen(view, target)
    return f"{target} cannot take over: {why}" if why else None


def _will_be_fresh(view: View, node: Node) -> bool:
    standing = view.standings.get(node)
    if standing is None:
        return True
    return standing.available and standing.sampled_at > float("-inf") and view.fresh(node) is None


def _why_unseen(view: View, node: Node) -> str:
    standing = view.standings[node]
    return "the primary manager cannot reach it" if standing.available else f"unavailable ({standing.report.condition})"


def _drain(view: View, topology: Topology, master: Node, target: Node) -> Record:
    change = Change(Kind.SWITCHOVER, BY_OPERATOR, master, target, manager=view.manager, steps=(("noticed", view.wall),))
    return Record(
        "drain", replace(topology, epoch=topology.epoch + 1, phase=Phase.DRAINING, master=None, change=change)
    )


def _draining(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    former, target = change.former, change.target
    assert former is not None  # `_drain` sees to it
    assert target is not None
    died = _former_died(view, topology, former)
    promoted = view.progress.promoted or _promoted_by_predecessor(view, topology, target)
    if promoted:
        if not died and view.progress.stage is not Stage.DEMOTED:
            return Demote(former, target)
        return _fence_holds(view, topology, policy) or _publish(view, topology, change, promoted)
    if died:
        return _fence(view, topology, replace(change, cause=f"{change.cause}; the master {former} died meanwhile"))
    drained = _drained(view, topology, policy)
    why = view.progress.trouble or _why_target_lost(view, topology, target) or drained
    if isinstance(why, str):
        return _give_up(view, topology, change, why)
    return why or (Promote(target) if view.progress.stage is Stage.CAUGHT_UP else CatchUp(former, target))


def _drained(view: View, topology: Topology, policy: Policy) -> Wait | str | None:
    """None when all proxies have drained; the reason to give up when they take too long."""
    missing = ", ".join(_not_acknowledged(view, topology))
    until = view.progress.since + policy.catch_up_timeout
    if missing and view.now >= until:
        return f"proxies did not drain within {policy.catch_up_timeout:g} s: {missing}"
    return Wait(f"waiting for proxies to drain: {missing}", until) if missing else None


def _promoted_by_predecessor(view: View, topology: Topology, target: Node) -> NodeReport | None:
    """A master that continues the history was promoted; one that restarted as a master does not continue it."""
    report = view.fresh(target)
    return report if report and report.role == "master" and continues(report, topology.replid) else None


def _former_died(view: View, topology: Topology, former: Node) -> bool:
    report = view.fresh(former)
    restarted = bool(report and topology.run_id and report.run_id and report.run_id != topology.run_id)
    return restarted or view.unavailable(former)


def _why_target_lost(view: View, topology: Topology, target: Node) -> str | None:
    standing = view.standings.get(target)
    why = why_not(standing.report, topology.replid) if standing else None
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
        receipt=_receipt(view, epoch, change, Outcome.ABORTED, why, change.former),
        settles=True,
    )
