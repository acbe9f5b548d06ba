"""What to do next. Pure: a view of the group goes in, one step comes out.

Invariants, for every sequence of views, also when managers die and others take over between any two steps:

1. A topology with a new master is only written after every registered proxy has acknowledged the epoch that withdrew
   the former one, or is gone, or `fence_wait` is over. (A proxy registers before it first reads the topology, so
   one that could still act on an older epoch is registered.)
2. A server is only promoted when this tenure has sealed it in this epoch (unplanned), or has seen it catch up with the
   paused master in this epoch (planned), and only published while it is the process that was chosen. Hence what is
   published is what was compared: a server that starts anew may continue the history and yet lack writes.
3. Within one epoch at most one server is promoted: the target is written down before it is touched, and giving it
   up costs an epoch.
4. Data of another history is never promoted, unless an operator names the server and there is no candidate.
5. Of the servers that may be promoted the one with the most data is; one that fails to obey is asked again before
   its data is given up.
6. Who does not reach servers that another manager reaches leaves the role to that one.
7. A master that is only silent keeps its role for longer after false alarms, and when changes follow each other; one
   that refuses connections or whose host is gone does not.
8. Who started anew, or whose link was down when the master was last seen, is not promoted unless its data is known to
   reach what was last known of the master, all members were compared, or an operator names it.
9. Data that is not this group's is not touched: neither sealed nor overwritten, unless an operator says so.
10. While paused nothing is done to servers, and the record only changes to refuse an operator's request.
11. No record, one of the gem, or one that is older than what this manager or a proxy has seen, says nothing for
    certain: the record that this manager knows to be in force does, or else what the servers agree upon. Nothing is
    done to a server before there is a record that can be trusted.
12. Epochs only grow: beyond the record's, those of receipts, and those that proxies have acknowledged.

Each decision follows from the record and the state of the servers, not from what was done before, so that a
successor finishes what another began. `Progress` only spares repetitions and proves invariant 2.
"""

from __future__ import annotations

from dataclasses import replace

from rfmanager.decision import adoption, reconcile, switchover
from rfmanager.decision.fencing import PATIENCE, dismiss, fence, fence_holds, publish, refusal, refuse, so_far
from rfmanager.decision.plan import Policy, Promote, Record, Resign, Seal, Step, View, Wait
from rfmanager.evidence.candidates import CHANCES, UNFIT_CONDITIONS, Choice, choose, continues, outage, why_not
from rfmanager.evidence.last_known import extent, is_ours, may_have_more, why_unproven
from rfprotocol.errors import Failure
from rfprotocol.topology.topology import Change, Kind, Node, NodeReport, Phase, Topology

_LEFT_OVER = (
    "it was there before the first record of these managers, as redis_failover leaves it behind: not obeyed; if it is "
    "still wanted, ask again with 'rfmanager failover'"
)
"""The gem never removes a request: one that was there before any record of these managers can be years old."""

REMEMBERED = 32
"""Failed promotions that the record keeps: enough to take turns."""


def decide(view: View, policy: Policy) -> Step:
    """The next step of the primary manager."""
    topology = view.topology
    if view.unseen:
        return Resign(f"another manager reaches {', '.join(map(str, sorted(view.unseen)))}, this one does not")
    if view.request is not None and view.request_precedes and (topology is None or topology.is_gems):
        return dismiss(view, _LEFT_OVER)
    if topology is None or topology.phase is Phase.UNSETTLED or topology.is_gems or view.went_back:
        if step := adoption.restore(view) or adoption.adopt(view):
            return step
        assert topology is not None  # else there is no master that can be lost
    if topology.phase is Phase.SERVING:
        return _serving(view, topology, policy)
    if view.paused:
        return Wait(f"paused in phase {topology.phase.value}: nothing is done until 'rfmanager resume'")
    return _changing(view, topology, policy)


def _changing(view: View, topology: Topology, policy: Policy) -> Step:
    change = topology.change or Change(Kind.FAILOVER, "unknown", None)
    if view.went_back:
        return fence(view, topology, replace(change, kind=Kind.FAILOVER, request=0))
    match topology.phase:
        case Phase.FENCING:
            return _fencing(view, topology, change, policy)
        case Phase.PROMOTING:
            return _promoting(view, topology, change, policy)
        case _:
            return switchover.proceed(view, topology, change, policy)


def _serving(view: View, topology: Topology, policy: Policy) -> Step:
    master = topology.master
    assert master is not None  # the codec and `publish` see to it
    if view.paused:
        if view.request is not None:
            return refuse(view, topology, "the managers are paused: 'rfmanager resume' first")
        return reconcile.remember(view) or Wait("paused: watching only, until 'rfmanager resume'")
    lost = _why_lost(view, topology, master)
    if lost is not None:
        return _slowed_down(view, master) or _withdraw(view, topology, master, lost)
    if view.request is not None:
        return switchover.answer(view, topology, master, policy)
    return reconcile.reconcile(view, topology, master, policy)


def _why_lost(view: View, topology: Topology, master: Node) -> str | None:
    if view.unavailable(master):
        return f"the master {master} is {outage(view.standings[master].report)}"
    report = view.fresh(master)
    if report is None:
        return None
    if topology.run_id and report.run_id and report.run_id != topology.run_id:
        return f"the master {master} restarted"
    if report.role == "slave":
        return f"the master {master} was made a replica by somebody else"
    return None


def _withdraw(view: View, topology: Topology, master: Node, lost: str) -> Record:
    fenced = fence(view, topology, _failover(view, topology, master, lost))
    if view.request is None:
        return fenced
    # It asked for a change without loss: it must not become permission to take whatever is there.
    refused = replace(refusal(view, topology, fenced.topology.epoch, lost), master=None)
    return replace(fenced, receipt=refused, settles=True)


def _is_silent(view: View, master: Node) -> bool:
    """It does not answer, and its host lives: it may come back."""
    return view.unavailable(master) and view.standings[master].report.condition == Failure.TIMEOUT.value


def _slowed_down(view: View, master: Node) -> Wait | None:
    """Invariant 7. An operator who asks for another master is not made to wait."""
    if not (view.brake.on and _is_silent(view, master)) or view.request is not None:
        return None
    needed = view.silence * view.brake.factor
    until = view.silent.get(master, view.now - view.silence) + needed
    if view.now >= until:
        return None
    why = f"{master} does not answer, and is given {needed:g} s instead of {view.silence:g} s"
    return Wait(f"{why}: {view.brake.reason}", until)


def _failover(view: View, topology: Topology, master: Node, lost: str) -> Change:
    unavailable = view.unavailable(master)
    if view.brake.on and _is_silent(view, master):
        lost = f"{lost}; slowed down to {view.silence * view.brake.factor:g} s: {view.brake.reason}"
    return Change(
        Kind.FAILOVER,
        lost,
        master,
        steps=(("noticed", view.failing.get(master, view.wall)), ("agreed", view.wall)),
        lost=view.standings[master].report.condition if unavailable else "",
        former_run_id=topology.run_id if unavailable else "",
    )


def _fencing(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    waiting = fence_holds(view, topology, policy)
    if change.target is not None:
        return waiting or _agreed(view, topology, change, change.target)
    if waiting and not _may_seal_at_once(view, topology, change):
        return waiting
    unsealed = tuple(node for node in view.members if _may_seal(view, node, policy))
    if unsealed:
        return Seal(unsealed)
    return waiting or _choose(view, topology, change, policy)


def _agreed(view: View, topology: Topology, change: Change, target: Node) -> Step:
    """The servers agreed upon this master before the fence: publish it, if it still is what it was."""
    report = view.fresh(target)
    if report is not None and report.role == "master" and report.run_id == topology.run_id:
        return publish(view, topology, change, report)
    if report is None and not view.unavailable(target):  # only others reach it: `unseen` hands the role to one of them
        return Wait(f"looking at {target}, which the servers agreed upon")
    lost = f"{change.cause}; then {target} was lost"
    return fence(view, topology, replace(change, cause=lost, former=target))


def _choose(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    sealed = [r for node in view.progress.sealed if not view.unavailable(node) and (r := view.sealed(node))]
    choice = choose(sealed, topology.replid, change.rejected, (topology.replid2, topology.replid2_offset))
    choice = _proven(view, topology, change, choice, sealed)
    if choice.best is None:
        return _forced(view, topology, change, choice, policy)
    return _why_not_yet(view, topology, change, choice.best.node, policy) or _mark(view, topology, change, choice.best)


def _proven(view: View, topology: Topology, change: Change, choice: Choice, sealed: list[NodeReport]) -> Choice:
    """The choice, unless all that could be chosen may lack what clients were told (invariant 8).

    If one of them is known to lack nothing, the one with the most data does not either. If every member that may have
    more was compared, there is nobody to wait for.
    """
    known = view.known
    if choice.best is None or known is None or known.master != change.former:
        return choice
    if topology.run_id and known.run_id != topology.run_id:
        return choice  # of another master: written by an earlier release
    fit = [report for report in sealed if report.node not in choice.excluded]
    why = {report.node: why_unproven(known, report, topology.replid) for report in fit}
    compared = {r.node for r in sealed if r.empty or r in fit or (continues(r, topology.replid) and r.offset >= 0)}
    has = extent(choice.best, topology.replid)
    awaited = [node for node in view.members if node not in compared and may_have_more(known, node, has)]
    if None in why.values() or not awaited:
        return choice
    return Choice(None, {**choice.excluded, **{node: text for node, text in why.items() if text}})


def _why_not_yet(view: View, topology: Topology, change: Change, best: Node, policy: Policy) -> Wait | None:
    """Before data is given up, or the same is tried again."""
    unknown = [node for node in view.members if node not in view.standings]
    if unknown and view.now < (until := view.progress.since + PATIENCE):
        return Wait(f"before {best} is taken: looking at {', '.join(map(str, unknown))}", until)
    awaited = [node for node in view.members if _may_have_more(view, node, topology, change, best, policy)]
    if awaited:
        until = min(view.progress.failed.get(node, view.progress.since) for node in awaited) + policy.retry_interval
        if until <= view.now:  # not to be commanded at the moment
            until = max(view.sample_due(best) + PATIENCE, view.now + policy.retry_interval)
        names = ", ".join(map(str, awaited))
        return Wait(f"before {best} is taken: {names} did not obey or is not reached, but may have more", until)
    until = view.progress.since + policy.retry_interval
    if best in change.rejected and view.now < until:
        return Wait(f"{best} could not be promoted: trying again, nobody has as much data", until)
    return None


def _may_seal_at_once(view: View, topology: Topology, change: Change) -> bool:
    """Replicas would copy a master that restarted empty, or that follows who knows whom; no proxy writes to such a
    one any more, so they are detached before all have acknowledged."""
    former = view.fresh(change.former) if change.former else None
    if former is None or not topology.run_id:
        return False
    return former.run_id != topology.run_id or former.role == "slave"


def _may_seal(view: View, node: Node, policy: Policy) -> bool:
    standing = view.standings.get(node)
    return (
        standing is not None
        and standing.available
        and not view.hearsay(node)
        and standing.report.condition not in UNFIT_CONDITIONS
        and view.sealed(node) is None
        and view.may_retry(node, policy.retry_interval)
        and _is_ours(view, standing.report)
        and not _serves_in_vain(view, standing.report)
    )


def _serves_in_vain(view: View, report: NodeReport) -> bool:
    """A master that others follow and that is no candidate: nothing comes of sealing it but that its clients lose it.

    Not so the former master: what it has is compared, and an operator may name it.
    """
    topology = view.topology
    if topology is None or report.role != "master" or not report.connected_replicas or view.request is not None:
        return False
    if topology.change is not None and topology.change.former == report.node:
        return False
    before = (topology.replid2, topology.replid2_offset)
    return choose((report,), topology.replid, before=before).best is None


def _is_ours(view: View, report: NodeReport) -> bool:
    """Invariant 9."""
    named = view.request is not None and view.request.target == report.node
    return named or is_ours(view.known, view.topology, report)


def _may_have_more(view: View, node: Node, topology: Topology, change: Change, best: Node, policy: Policy) -> bool:
    """A candidate, as far as is known, that did not obey when the best of the others did, or is only known from other
    managers; given some patience."""
    standing = view.standings.get(node)
    if standing is None or view.sealed(node) is not None or not (view.failed(node) or view.hearsay(node)):
        return False
    if change.rejected.count(node) >= CHANCES:
        return False
    untorn = replace(standing.report, syncing=False)  # sealing ends a transfer that has only begun
    known = choose((untorn,), topology.replid, before=(topology.replid2, topology.replid2_offset))
    patience = PATIENCE + (policy.outseen_after if view.hearsay(node) else 0.0)
    return known.best is not None and view.now < view.sample_due(best) + patience


def _forced(view: View, topology: Topology, change: Change, choice: Choice, policy: Policy) -> Step:
    """No candidate: an operator may name one whose data is of another history (invariant 4)."""
    target = view.request.target if view.request else None
    report = view.sealed(target) if target else None
    if view.request is not None and (awaited := [node for node in view.members if _may_yet_help(view, node, policy)]):
        until = view.now + policy.retry_interval
        return Wait(f"before one is taken as it is: looking at {', '.join(map(str, awaited))}", until)
    if report is not None and not view.unavailable(report.node) and report.condition not in UNFIT_CONDITIONS:
        cause = change.cause.partition(f"; {switchover.BY_OPERATOR}")[0]  # it may have been tried before
        cause = f"{cause}; {switchover.BY_OPERATOR} although: {choice.excluded.get(report.node, 'unfit')}"
        return _mark(
            view, topology, replace(change, kind=Kind.SWITCHOVER, cause=cause, request=view.request_id), report
        )
    reasons = Choice(
        None, {node: choice.excluded.get(node) or _why_unsealed(view, node, topology) for node in view.members}
    )
    why = f"no server can be promoted: {reasons.explain()}"
    if view.request is not None:
        unasked = replace(topology, change=replace(change, kind=Kind.FAILOVER, request=0))
        return refuse(view, unasked, f"{f'{target} cannot be taken as it is either; ' if target else ''}{why}")
    return Wait(
        f"{why}. Start one that has the data, or name one to take as it is: 'rfmanager failover --to host:port'",
        view.now + policy.retry_interval if view.progress.failed else None,
    )


def _why_unsealed(view: View, node: Node, topology: Topology) -> str:
    standing = view.standings.get(node)
    if standing is None:
        return "not seen by enough managers"
    return why_not(standing.report, topology.replid) or "it was not detached from its master yet"


def _may_yet_help(view: View, node: Node, policy: Policy) -> bool:
    """A candidate soon, perhaps: it loads its data, or did not obey a moment ago in an epoch that has just begun."""
    standing = view.standings.get(node)
    if standing is None or not standing.available:
        return False
    begun = view.now < view.progress.since + PATIENCE
    return standing.report.condition == "loading" or (begun and not view.may_retry(node, policy.retry_interval))


def _mark(view: View, topology: Topology, change: Change, target: NodeReport) -> Record:
    foreign = not continues(target, topology.replid)
    return Record(
        "mark",
        replace(
            topology,
            phase=Phase.PROMOTING,
            run_id=target.run_id,  # only this process was sealed and compared
            replid=target.replid if foreign else topology.replid,
            replid2="" if foreign else topology.replid2,
            replid2_offset=-1 if foreign else topology.replid2_offset,
            change=replace(change, target=target.node, steps=so_far(view, change)),
        ),
    )


def _promoting(view: View, topology: Topology, change: Change, policy: Policy) -> Step:
    target = change.target
    assert target is not None  # the codec and `_mark` see to it
    waiting = fence_holds(view, topology, policy)
    if waiting:
        return waiting
    promoted = view.progress.promoted or _same_process_as_master(view, topology, target)
    if promoted and promoted.run_id == topology.run_id and not view.unavailable(target):
        return publish(view, topology, change, promoted)
    sealed = view.sealed(target)
    changed = promoted or (sealed and sealed.run_id != topology.run_id)  # dead, or another process than was chosen
    if changed or view.unavailable(target) or view.failed(target):
        rejected = (*change.rejected, target)[-REMEMBERED:]
        return fence(view, topology, replace(change, rejected=rejected, steps=so_far(view, change)))
    if sealed is None:
        look_until = view.progress.since + policy.retry_interval
        if view.fresh(target) is None and view.now < look_until:
            return Wait(until=look_until)  # a predecessor may have promoted it: look before sealing
        return Seal((target,))
    return Promote(target)


def _same_process_as_master(view: View, topology: Topology, target: Node) -> NodeReport | None:
    """The target, if a predecessor has promoted it already."""
    report = view.fresh(target)
    return report if report and report.role == "master" and report.run_id == topology.run_id else None
