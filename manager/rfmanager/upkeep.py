"""When no change of master is under way: find the first master, keep replicas following, keep the lists true. Pure."""

from __future__ import annotations

from dataclasses import replace

from rfmanager import lastknown
from rfmanager.candidates import UNFIT_CONDITIONS, choose
from rfmanager.change import next_epoch, refuse
from rfmanager.steps import Policy, Record, Remember, Repoint, Step, View, Wait
from rfprotocol.topology import Change, Kind, Node, NodeReport, Phase, Topology

HINT = "make one of them the master (REPLICAOF NO ONE there, REPLICAOF on the others) or 'rfmanager failover --to h:p'"


def settle(view: View) -> Step:
    """No master was ever established: take the one that the servers agree upon, never guess."""
    if view.paused:
        return Wait("paused: watching only, until 'rfmanager resume'")
    if view.request is not None:
        return _settle_by_operator(view)
    unseen = [node for node in view.members if node not in view.standings]
    if unseen:
        return Wait(f"not yet seen by enough managers: {_names(unseen)}")
    reports = [standing.report for standing in view.standings.values() if standing.available]
    masters = [report for report in reports if report.role == "master"]
    obstacle = _obstacle(view, reports, masters)
    down = [node for node in view.members if view.unavailable(node)]
    if not obstacle and down and not any(report.follows for report in reports):
        lone = f"{masters[0].node} is the only master, but nobody follows it, and one that is down may be the master"
        return Wait(f"{lone}: waiting for {_names(down)}, or for 'rfmanager failover --to {masters[0].node}'")
    return Wait(obstacle) if obstacle else Record("settle", _serving(view, masters[0], next_epoch(view)))


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
    strangers = [r for r in reports if r.follows is not None and not _follows(r, masters[0], view)]
    if strangers:
        said = ", ".join(f"{report.node} follows {report.follows}" for report in strangers)
        return f"{masters[0].node} is the only master, but {said}: {HINT}"
    return None


def _settle_by_operator(view: View) -> Step:
    assert view.request is not None
    topology = view.topology or Topology(epoch=0, phase=Phase.UNSETTLED, unavailable=view.members)
    target = view.request.target
    if target is None:
        reports = [standing.report for standing in view.standings.values()]
        return refuse(view, topology, f"no master was established, name one: {choose(reports, '').explain()}")
    standing = view.standings.get(target)
    if target not in view.members:
        return refuse(view, topology, f"{target} is not one of the servers of this group")
    if standing is None:
        return Wait(f"not yet seen by enough managers: {target}")
    report = standing.report
    if not standing.available or report.condition in UNFIT_CONDITIONS:
        return refuse(view, topology, f"{target} cannot become the master: it is {report.condition}")
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


def reconcile(view: View, topology: Topology, master: Node, policy: Policy) -> Step:
    """The master is well: make the others follow it and list those that do."""
    report = view.fresh(master)
    if report is None or report.role != "master":
        return Wait()
    if not topology.run_id:  # a record of the gem: whose data is whose can only be told when the master is known
        return Record("lists", _serving(view, report, topology.epoch, topology))
    astray = tuple(
        node
        for node in view.members
        if node != master and node not in view.progress.busy and _is_astray(view, node, report, policy)
    )
    ours = tuple(node for node in astray if _may_be_overwritten(view, node))
    if ours:
        return Repoint(ours, master)
    lists = _serving(view, report, topology.epoch, topology)
    if lists != topology:
        return Record("lists", lists)
    if step := remember(view):
        return step
    strangers = [f"{node} {lastknown.holding(view.standings[node].report)}" for node in astray]
    retry = [at + policy.retry_interval for node, at in view.progress.failed.items() if node not in view.progress.busy]
    return Wait("; ".join(strangers), min((at for at in retry if at > view.now), default=None))


def _is_astray(view: View, node: Node, master: NodeReport, policy: Policy) -> bool:
    report = view.fresh(node)
    return (
        report is not None
        and report.role != ""
        and report.condition not in UNFIT_CONDITIONS
        and report.run_id != master.run_id  # another name of the master itself: it would copy from itself
        and not _follows(report, master, view)
        and view.may_retry(node, policy.retry_interval)
    )


def remember(view: View) -> Remember | None:
    """Write down what is known of the members, if that is due."""
    known, seconds = view.known, view.now - view.progress.remembered
    if known is None or view.topology is None or known.run_id != view.topology.run_id:
        return None
    members = {node: member for node, member in known.members.items() if node in view.members}
    known = replace(known, members=members)
    return Remember(known) if lastknown.is_due(known, view.recorded, seconds) else None


def _may_be_overwritten(view: View, node: Node) -> bool:
    report = view.standings[node].report
    return lastknown.is_ours(view.known, view.topology, report) or view.adopted.get(node) == report.run_id


def _follows(report: NodeReport, master: NodeReport, view: View) -> bool:
    """By address; or, when it was told another name of the same server, by an established link to its history."""
    if report.role != "slave" or report.follows is None:
        return False
    if report.follows == master.node:
        return True
    return report.follows not in view.members and report.link_up and report.replid == master.replid


def _serving(view: View, master: NodeReport, epoch: int, current: Topology | None = None) -> Topology:
    """The record with true lists; a server of which nothing new is known stays where it was."""
    readable = []
    for node in view.members:
        report = view.fresh(node)
        if node == master.node:
            continue
        listed = current is not None and node in current.replicas
        if report is None:
            fit = listed and not view.unavailable(node)
        else:
            fit = _is_readable(report, master, view) or (listed and _may_have_lost_a_dead_master(report, master, view))
        if fit:
            readable.append(node)
    return Topology(
        epoch=epoch,
        phase=Phase.SERVING,
        master=master.node,
        replicas=tuple(readable),
        unavailable=tuple(node for node in view.members if node != master.node and node not in readable),
        run_id=master.run_id,
        replid=master.replid,
        replid2=master.replid2,
        replid2_offset=master.replid2_offset,
        eviction=master.eviction,
    )


def _may_have_lost_a_dead_master(report: NodeReport, master: NodeReport, view: View) -> bool:
    """Its link is down and the master was not seen since: if that is dead, replicas are all there is to read from."""
    at_master, at_replica = view.standings[master.node], view.standings[report.node]
    return not report.link_up and not report.syncing and at_master.sampled_at < at_replica.sampled_at


def _is_readable(report: NodeReport, master: NodeReport, view: View) -> bool:
    return (
        report.link_up
        and not report.syncing
        and report.condition not in UNFIT_CONDITIONS
        and _follows(report, master, view)
        and report.node not in view.stale
    )


def _names(nodes: list[Node]) -> str:
    return ", ".join(map(str, nodes))
