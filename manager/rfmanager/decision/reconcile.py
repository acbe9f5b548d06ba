"""When no change of master is under way: keep replicas following, keep the lists true. Pure."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.decision.plan import Policy, Record, Remember, Repoint, Step, View, Wait
from rfmanager.evidence import last_known
from rfmanager.evidence.candidates import UNFIT_CONDITIONS
from rfprotocol.topology.topology import Node, NodeReport, Phase, Topology


def reconcile(view: View, topology: Topology, master: Node, policy: Policy) -> Step:
    """The master is well: make the others follow it and list those that do."""
    report = view.fresh(master)
    if report is None or report.role != "master":
        return Wait()
    astray = tuple(
        node
        for node in view.members
        if node != master and node not in view.progress.busy and _is_astray(view, node, report, policy)
    )
    ours = tuple(node for node in astray if _may_be_overwritten(view, node))
    if ours:
        return Repoint(ours, master)
    lists = serving(view, report, topology.epoch, topology)
    if lists != topology:
        return Record("lists", lists)
    if step := remember(view):
        return step
    strangers = [f"{node} {last_known.left_alone(node)}" for node in astray]
    retry = [at + policy.retry_interval for node, at in view.progress.failed.items() if node not in view.progress.busy]
    return Wait("; ".join(strangers), min((at for at in retry if at > view.now), default=None))


def _is_astray(view: View, node: Node, master: NodeReport, policy: Policy) -> bool:
    report = view.fresh(node)
    return (
        report is not None
        and report.role != ""
        and report.condition not in UNFIT_CONDITIONS
        and report.run_id != master.run_id  # another name of the master itself: it would copy from itself
        and not follows(report, master, view)
        and view.may_retry(node, policy.retry_interval)
    )


def remember(view: View) -> Remember | None:
    """Write down what is known of the members, if that is due."""
    known, seconds = view.known, view.now - view.progress.remembered
    if known is None or view.topology is None or known.run_id != view.topology.run_id:
        return None
    members = {node: member for node, member in known.members.items() if node in view.members}
    known = replace(known, members=members)
    return Remember(known) if last_known.is_due(known, view.recorded, seconds) else None


def _may_be_overwritten(view: View, node: Node) -> bool:
    report = view.standings[node].report
    return last_known.is_ours(view.known, view.topology, report) or view.adopted.get(node) == report.run_id


def follows(report: NodeReport, master: NodeReport, view: View) -> bool:
    """By address; or, when it was told another name of the same server, by an established link to its history."""
    if report.role != "slave" or report.follows is None:
        return False
    if report.follows == master.node:
        return True
    return report.follows not in view.members and report.link_up and report.replid == master.replid


def serving(view: View, master: NodeReport, epoch: int, current: Topology | None = None) -> Topology:
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
        and follows(report, master, view)
        and report.node not in view.stale
    )
