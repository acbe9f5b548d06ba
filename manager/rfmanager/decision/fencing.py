"""What every change of master is made of: withdraw, wait for the proxies, publish, and answer who asked. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rfmanager.decision.plan import Dismiss, Policy, Record, View, Wait
from rfmanager.evidence.last_known import published
from rfmanager.evidence.versions import warning
from rfprotocol.topology.records import Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import Change, Kind, Node, NodeReport, Phase, Topology

STEPS = 40
"""That the record and a receipt keep: ZooKeeper takes 1 MiB, and attempts may fail all night."""
PATIENCE = 2.0
"""Seconds that a server is given to show its state before an operator's request is answered without it."""

NAMED = 50
"""Proxies that a receipt speaks of, at most: a record in ZooKeeper may have 1 MiB, and a group thousands of proxies."""
FEW = 5
"""Proxies that are named when they are waited for."""


def next_epoch(view: View) -> int:
    """Greater than any that a proxy, or the history, may know: the record can have been deleted, or replaced."""
    return view.highest_epoch + 1


def fence(view: View, topology: Topology, change: Change) -> Record:
    """Withdraw the master. Reads go on from the replicas that were listed."""
    former = topology.master
    down = tuple(node for node in view.members if node == former or view.unavailable(node))
    return Record(
        "fence",
        Topology(
            epoch=next_epoch(view),
            phase=Phase.FENCING,
            replicas=tuple(node for node in topology.replicas if node not in down),
            unavailable=(*down, *(n for n in topology.unavailable if n not in down and n not in topology.replicas)),
            run_id=topology.run_id if topology.phase is not Phase.PROMOTING else "",
            replid=topology.replid or common_history(view, change.former),
            replid2=topology.replid2,
            replid2_offset=topology.replid2_offset,
            change=replace(change, target=None, manager=view.manager),
        ),
        known=view.known,
    )


def fence_for(view: View, master: NodeReport, cause: str) -> Record:
    """Let nobody write until all proxies know that `master` is in force, which the servers agree upon already.

    `change.target` says in this phase that it is to be published as it is. If it is lost meanwhile, its history is the
    one that counts.
    """
    before = view.topology
    listed = before.replicas if before else ()
    readable = tuple(node for node in listed if node != master.node and not view.unavailable(node))
    change = Change(
        Kind.FAILOVER,
        cause,
        before.master if before else None,
        master.node,
        manager=view.manager,
        steps=(("noticed", view.wall),),
    )
    return Record(
        "fence",
        Topology(
            epoch=next_epoch(view),
            phase=Phase.FENCING,
            replicas=readable,
            unavailable=tuple(node for node in view.members if node not in readable),
            run_id=master.run_id,
            replid=master.replid,
            replid2=master.replid2,
            replid2_offset=master.replid2_offset,
            change=change,
        ),
        known=view.known,
    )


def common_history(view: View, master: Node | None) -> str:
    """The history of a master that was never asked for it: the one its replicas agree upon, else nothing."""
    found = {s.report.replid for s in view.standings.values() if s.report.follows == master and s.available}
    return found.pop() if len(found) == 1 else ""


def not_acknowledged(view: View, topology: Topology) -> list[str]:
    """The proxies that may still act on an earlier epoch."""
    return sorted(name for name, epoch in view.proxies.items() if epoch < topology.epoch)


def fence_holds(view: View, topology: Topology, policy: Policy) -> Wait | None:
    """Invariant 1: None when no proxy can send a write to the former master any more."""
    missing = not_acknowledged(view, topology)
    until = None if policy.fence_wait is None else view.progress.since + policy.fence_wait
    if not missing or (until is not None and view.now >= until):
        return None
    return Wait(f"waiting for proxies to acknowledge epoch {topology.epoch}: {names(missing)}", until)


def names(proxies: Sequence[str]) -> str:
    """The first few, and how many there are besides."""
    shown = ", ".join(proxies[:FEW])
    return f"{shown} and {len(proxies) - FEW} others" if len(proxies) > FEW else shown


def publish(view: View, topology: Topology, change: Change, master: NodeReport) -> Record:
    """The others are listed as readable again when they have followed; until then reads go to the master."""
    epoch = topology.epoch + 1
    cause = change.cause
    if change.kind is Kind.FAILOVER and (warned := warning(master, (one.report for one in view.standings.values()))):
        cause = f"{cause}; warning: {warned}"  # of a switchover it was said before
    done = receipt(view, epoch, change, Outcome.DONE, cause, master.node)
    if master.node == change.former and change.former_run_id == master.run_id != "":
        done = replace(done, returned=0.0)  # the server has replaced itself: it was alive all the time
    return Record(
        "publish",
        Topology(
            epoch=epoch,
            phase=Phase.SERVING,
            master=master.node,
            unavailable=tuple(node for node in view.members if node != master.node),
            run_id=master.run_id,
            replid=master.replid,
            replid2=master.replid2,
            replid2_offset=master.replid2_offset,
            eviction=master.eviction,
        ),
        receipt=done,
        settles=change.kind is Kind.SWITCHOVER,
        known=published(view.known, master, view.progress.sealed, topology.replid),
    )


def receipt(view: View, epoch: int, change: Change, outcome: Outcome, cause: str, master: Node | None) -> Receipt:
    """What is told of a change that ends in `epoch`, with `master` in force."""
    last = "published" if outcome is Outcome.DONE else outcome.value
    return Receipt(
        epoch=epoch,
        kind=change.kind,
        outcome=outcome,
        cause=cause,
        former=change.former,
        master=master,
        manager=view.manager,
        steps=(*so_far(view, change), (last, view.wall)),
        acknowledged=_slowest(view.progress.acknowledged),
        offsets={str(node): report.offset for node, report in view.progress.sealed.items()},
        request=change.request,
        lost=change.lost,
        run_id=change.former_run_id,
    )


def so_far(view: View, change: Change) -> tuple[tuple[str, float], ...]:
    """The steps of a change up to now: the first ones, and of many attempts the last ones."""
    steps = (*change.steps, *view.progress.steps)
    return steps if len(steps) <= STEPS else (*steps[: STEPS // 4], *steps[-3 * STEPS // 4 :])


def _slowest(acknowledged: Mapping[str, float]) -> Mapping[str, float]:
    """The last ones to acknowledge, in that order."""
    return dict(sorted(acknowledged.items(), key=lambda item: item[1])[-NAMED:])


def most_disturbed(proxies: Mapping[str, ProxyRecord]) -> Mapping[str, ProxyRecord]:
    """Those whose clients went through most."""
    return dict(heapq.nlargest(NAMED, proxies.items(), key=lambda item: (item[1].uncertain, item[1].longest_wait)))


def refuse(view: View, topology: Topology, why: str) -> Record:
    """Answer an operator's request without doing it; this consumes an epoch, which names the receipt."""
    epoch = max(topology.epoch + 1, next_epoch(view))  # `topology` may be one that was never written
    return Record("refuse", replace(topology, epoch=epoch), receipt=refusal(view, topology, epoch, why), settles=True)


def dismiss(view: View, why: str) -> Dismiss:
    """Answer an operator's request without doing it, while there is no record that could be trusted and changed."""
    topology = view.topology or Topology(epoch=0, phase=Phase.UNSETTLED)
    return Dismiss(refusal(view, topology, next_epoch(view), why))


def refusal(view: View, topology: Topology, epoch: int, why: str) -> Receipt:
    """The receipt of a request that is refused in `epoch`."""
    return Receipt(
        epoch=epoch,
        kind=Kind.SWITCHOVER,
        outcome=Outcome.REFUSED,
        cause=why,
        former=topology.master,
        master=topology.master,
        manager=view.manager,
        steps=(("noticed", view.wall), ("refused", view.wall)),
        request=view.request_id,
    )
