"""What must hold, judged by what really happened and not by what the managers know. Each breach raises Violation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rfmanager.decision.decide import decide
from rfmanager.decision.plan import Demote, Dismiss, Promote, Record, Remember, Repoint, Resign, Seal, Step, View, Wait
from rfmanager.evidence.candidates import CHANCES, precedes, reach, why_not
from rfprotocol.topology.records import Outcome, Receipt
from rfprotocol.topology.topology import Kind, Node, Phase, Topology
from tests.decisions.servers import Life, Link, Server, at, replicated
from tests.decisions.site import (
    POLICY,
    Site,
    all_informed,
    all_pointed,
    begun,
    carried_out,
    expired,
    standings,
    view,
    writers,
)

BOUND = 60
"""Steps within which a group that is left alone must come to rest."""


class Violation(AssertionError):
    """An invariant does not hold."""


def require(holds: object, what: str) -> None:
    """Raise Violation if it does not hold."""
    if not holds:
        raise Violation(what)


def check_site(site: Site) -> None:
    """Once a master is published, no proxy can write to any other process."""
    topology = site.topology
    if topology is None or topology.phase is not Phase.SERVING or not topology.run_id or site.ledger.damaged:
        return
    for proxy, server in writers(site):
        require(
            server.run_id == topology.run_id,
            f"{proxy.name} can write to {server.run_id} although {topology.run_id} is the master",
        )


def checked(before: Site, step: Step, after: Site, visible: frozenset[str] | None = None) -> Site:
    """The site after a step that was right; what the choice of a master excuses is noted in its ledger.

    `visible` are the processes that the primary manager could take into account, by default all that it can command.
    """
    if before.paused:
        refused = isinstance(step, Record) and step.receipt and step.receipt.outcome is Outcome.REFUSED
        refused = refused or isinstance(step, Dismiss)
        restored = isinstance(step, Record) and step.name == "restore"
        require(isinstance(step, Wait | Resign | Remember) or refused or restored, f"did {step} while paused")
    match step:
        case Promote():
            _check_promotion(before, step.node)
        case Seal():
            require(step.nodes, "sealed nothing")
            _check_touched(before, step.nodes, after)
        case Repoint():
            _check_touched(before, step.nodes, after)
            require(before.topology and step.master == before.topology.master, "pointed to who is not the master")
            require(step.master not in step.nodes, "pointed the master to itself")
        case Demote():
            require(step.former != step.target, "demoted the target")
        case Record():
            after = _check_record(before, step, after, visible)
        case _:
            pass
    check_site(after)
    return after


def _check_touched(before: Site, nodes: Iterable[Node], after: Site) -> None:
    """Data of others is neither sealed nor overwritten, and who is no member is left alone."""
    for node in nodes:
        server, now = at(before.servers, node), at(after.servers, node)
        named = before.request is not None and before.request.target == node
        touched = now != server or any(node == pointed for pointed, _ in after.pointing)
        strange = server is not None and server.strange and not named
        require(not (strange and touched), f"touched {node}, which has the data of others")
        require(node in before.members, f"touched {node}, which is no member")


def _check_promotion(site: Site, node: Node) -> None:
    topology, server = site.topology, at(site.servers, node)
    assert topology is not None
    assert server is not None
    change = topology.change
    require(change and change.target == node, f"promoted {node}, which was not written down")
    able = [server for _, server in writers(site) if server.node != node]
    require(not able, f"promoted {node} while {[s.run_id for s in able]} can be written to")
    require(site.ledger.promoted in (None, node), f"promoted {node} after {site.ledger.promoted} in one epoch")
    proven = site.ledger.caught_up if topology.phase is Phase.DRAINING else site.ledger.sealed
    # A restart between the look and the command is not for this check: nothing of it may be published.
    require(any(run_id.startswith(f"{node.port}#") for run_id in proven), f"promoted {node} without proof")


def _check_record(before: Site, step: Record, after: Site, visible: frozenset[str] | None) -> Site:
    old, new = before.in_force if before.ledger.damaged else before.topology, step.topology
    require(Topology.decode(new.encode()) == new, "the record cannot be read back")
    if old is not None:
        require(new.epoch >= old.epoch, "the epoch went back")
        require(new.master == old.master or new.epoch > old.epoch, "another master in the same epoch")
        serving = old.phase is new.phase is Phase.SERVING and old.run_id != ""
        require(not serving or new.run_id == old.run_id, "another process of the same master in the same epoch")
    if step.receipt:
        require(Receipt.decode(step.receipt.encode()) == step.receipt, "the receipt cannot be read back")
        require(step.receipt.epoch == new.epoch, "the receipt is of another epoch")
        answered = step.receipt.request
        require(answered == 0 or answered not in before.ledger.answers, f"request {answered} is answered again")
    if step.name == "mark" and new.change and new.change.kind is Kind.FAILOVER:
        return _check_choice(after, new, visible)
    if step.name in ("publish", "abort"):
        return _check_publication(before, step, after)
    return _with_those_of(after, new.master) if step.name == "settle" else after


def check_withdrawal(site: Site, step: Step) -> None:
    """Who has just looked at all servers withdraws no master that is well."""
    old = site.topology
    if not (isinstance(step, Record) and step.name == "fence" and old and old.phase is Phase.SERVING):
        return
    server = at(site.servers, old.master)
    assert server is not None
    reaching = sum(site.reaches(manager, server) for manager in range(site.managers))
    other = server.run_id != old.run_id or server.role != "master"
    require(other or reaching * 2 < site.managers, f"{old.master} was withdrawn although it is well")


def _check_choice(site: Site, topology: Topology, visible: frozenset[str] | None) -> Site:
    """Nobody who could have been chosen has acknowledged writes that the chosen one lacks."""
    change = topology.change
    target = at(site.servers, change.target if change else None)
    assert change is not None
    assert target is not None
    wanted = set(site.ledger.acknowledged)
    if target.run_id == topology.run_id:
        _check_fitness(site, target)
        if visible is None:
            _check_proof(site, topology, target)
        for other in eligible(site, topology):
            if visible is not None and other.run_id not in visible:
                continue
            missing = wanted & set(_known_data(other, topology)) - set(target.data) - site.ledger.excused
            passed_over = change.rejected.count(other.node) >= CHANCES
            require(not missing or passed_over, f"chose {target.node} although {other.node} has also {missing}")
    excused = site.ledger.excused | (wanted - set(target.data))
    return replace(site, ledger=replace(site.ledger, excused=excused))


def _check_proof(site: Site, topology: Topology, target: Server) -> None:
    """What was known when the master was last seen says that the chosen one, or one with no more data, lacks nothing;
    or nobody else can have more."""
    look = site.ledger.look
    if look.master is None or (topology.change and look.master != topology.change.former):
        return
    able = eligible(site, topology)
    proven = [s for s in (target, *able) if s.run_id in look.linked or look.acknowledged <= set(s.data)]
    members = [server for server in site.servers if server.node in site.members]
    absent = [server for server in members if not server.obeys or not site.reaches(site.primary, server)]
    lacking = look.acknowledged - set(target.data)
    missed = [server.node for server in absent if lacking & set(server.data)]
    require(proven or not missed, f"chose {target.node}, which lacks what {missed} have")


def _known_data(server: Server, topology: Topology) -> tuple[int, ...]:
    """What is known to be of the history: who resumed with a restarted master does not know how far that went."""
    before = (topology.replid2, topology.replid2_offset)
    beyond = 0 if precedes(server.report(), before) else server.offset - reach(server.report(), topology.replid)
    return server.data[: len(server.data) - beyond]


def _check_fitness(site: Site, target: Server) -> None:
    wanted = set(site.ledger.acknowledged)
    saved = any(wanted & set(server.data) for server in site.servers)
    require(not saved or wanted & set(target.data), f"chose {target.node}, which is empty")
    require(all(write > 0 for write in target.data), f"chose {target.node}, which has the data of others")
    heard_only = not site.reaches(site.primary, target)  # it is cut off since it was sealed, and cannot be promoted
    require(target.priority > 0 or heard_only, f"chose {target.node}, whose priority is 0")
    require(not target.torn, f"chose {target.node}, whose data is part of a transfer")
    require(target.link not in (Link.COPYING, Link.REPLACING), f"chose {target.node}, which is copying")
    require(target.life is not Life.LOADING, f"chose {target.node}, which is loading")


def eligible(site: Site, topology: Topology) -> list[Server]:
    """The servers that the primary manager can command and that may be promoted."""
    verdicts = standings(site)
    return [
        server
        for server in site.servers
        if verdicts[server.node].available
        and site.reaches(site.primary, server)
        and server.obeys
        and why_not(server.report(), topology.replid) is None
    ]


def _check_publication(before: Site, step: Record, after: Site) -> Site:
    """All acknowledged writes are there, save for those that are excused."""
    topology, ledger = step.topology, after.ledger
    server = at(after.servers, topology.master)
    assert server is not None
    if server.run_id != topology.run_id:
        return after  # restarted, and nobody knows: proxies refuse it, and it will be replaced
    require(server.role == "master" or step.name == "abort", f"published {server.node}, which is a replica")
    lost = set(ledger.acknowledged) - set(server.data)
    if not _was_forced(before):
        died = before.topology and before.topology.phase is Phase.DRAINING and _former_is_gone(before)
        require(died or lost <= ledger.excused, f"published {server.node} without {lost - ledger.excused}")
    return _with_those_of(after, topology.master)


def _with_those_of(site: Site, node: Node | None) -> Site:
    """What counts from now on is what the master has."""
    server = at(site.servers, node)
    assert server is not None
    kept = tuple(write for write in site.ledger.acknowledged if write in server.data)
    return replace(site, ledger=replace(site.ledger, acknowledged=kept, excused=frozenset()))


def _was_forced(site: Site) -> bool:
    """Did an operator take a server as it is?"""
    topology = site.topology
    change = topology.change if topology else None
    return bool(topology and change and topology.phase is Phase.PROMOTING and change.kind is Kind.SWITCHOVER)


def _former_is_gone(site: Site) -> bool:
    change = site.topology.change if site.topology else None
    former = at(site.servers, change.former if change else None)
    return former is None or former.life is Life.DEAD or former.run_id != site.ledger.drained_from


# A group that is left alone comes to rest.


def onward(site: Site) -> tuple[Site, Step]:
    """Nothing goes wrong: proxies and servers do what is due, then the primary manager takes one step."""
    site = all_informed(all_pointed(site))
    site = begun(replace(site, servers=replicated(site.servers)))
    step = decide(view(site), POLICY)
    check_withdrawal(site, step)
    after = checked(site, step, carried_out(site, step))
    if isinstance(step, Wait):
        after = replace(after, servers=replicated(after.servers, at_length=True))
        for proxy in after.proxies:
            if proxy.stuck and proxy.acknowledged is not None:
                return expired(after, proxy), step
        if step.until is not None:
            after = replace(after, now=max(after.now, step.until) + 0.001)
    return after, step


def check_rest(site: Site, step: Wait) -> None:
    """Where a group has come to rest, it serves, or it says why it cannot and nobody could be promoted."""
    topology = site.topology
    if site.paused:
        return
    require(site.request is None, f"the request is not answered: {step.reason}")
    if topology is not None and topology.phase is Phase.SERVING:
        _check_serving(site, topology, step.reason)
        return
    require(step.reason, "waits without a reason")
    require(topology is None or topology.phase in (Phase.UNSETTLED, Phase.FENCING), f"rests in {topology}")
    if topology is not None and topology.phase is Phase.FENCING:
        able = [server.node for server in eligible(site, topology)]
        held = all(f"{node}: it" in step.reason for node in able)
        require(not able or held, f"nobody is promoted although {able} could be: {step.reason}")
        look = site.ledger.look
        proven = [s.node for s in eligible(site, topology) if s.run_id in look.linked]
        require(not proven, f"nobody is promoted although {proven} lack nothing: {step.reason}")


def _check_serving(site: Site, topology: Topology, said: str) -> None:
    master = at(site.servers, topology.master)
    assert master is not None
    if not site.reaches(site.primary, master):
        return  # the other managers see it, this one can do nothing
    require(master.role == "master", f"{master.node} serves as a {master.role}")
    require(topology.run_id == master.run_id, "an unknown process serves")
    require(set(site.ledger.acknowledged) <= set(master.data), f"{master.node} serves without all that is acknowledged")
    verdicts = standings(site)
    for proxy in site.proxies:
        require(proxy.stuck or proxy.believed == topology, f"{proxy.name} is not informed")
    for server in site.servers:
        commanded = site.reaches(site.primary, server) and verdicts[server.node].available
        if server.node == master.node or not commanded:
            continue
        strange = server.has_data_of_others and not master.has_data_of_others
        if server.node not in site.members or strange or f"{server.node} holds data of" in said:
            require(server.node not in topology.replicas, f"{server.node} is listed as readable")
            require(server.run_id not in site.ledger.look.linked, f"{server.node} is left alone, which was a member")
            continue
        require(server.follows == master.node, f"{server.node} follows {server.follows}")
        if not server.isolated and not master.isolated:
            require(server.data == master.data, f"{server.node} has {server.data}, the master {master.data}")
            require(server.node in topology.replicas, f"{server.node} is not listed as readable")


def describe(site: Site, known: View | None = None) -> str:
    """One line for a trace."""
    topology = site.topology
    servers = " ".join(
        f"[{s.run_id} {s.life.value} {s.role}->{s.follows.port if s.follows else '-'} {s.link.value} {s.replid}"
        f"@{s.offset}{s.replid2 and f' was {s.replid2}<{s.replid2_offset}'} {list(s.data)}{' torn' * s.torn}]"
        for s in site.servers
    )
    proxies = " ".join(f"{p.name}:{p.acknowledged}{'stuck' * p.stuck}" for p in site.proxies)
    head = f"{topology.phase.value} {topology.epoch} {topology.master}" if topology else "no record"
    return f"{head} {servers} {proxies} manager {site.primary}"
