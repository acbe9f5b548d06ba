"""A model of everything that a decision is about: servers, proxies, the record in the store, managers. Pure, immutable.

`view` is what the primary manager knows, `carried_out` what becomes of the site when it executes a step, as
`rfmanager.daemon.executor` does. What is kept only to judge them stands in the `Ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rfmanager.decision.plan import (
    CatchUp,
    Demote,
    Dismiss,
    Policy,
    Progress,
    Promote,
    Record,
    Remember,
    Repoint,
    Resign,
    Seal,
    Stage,
    Step,
    Unpause,
    View,
)
from rfmanager.evidence.agreement import Rule, Standing, judge, outseen
from rfmanager.evidence.candidates import continues, precedes
from rfmanager.evidence.last_known import LastKnown, Sight, belongs, looked
from rfprotocol.topology.records import ManualRequest, Outcome
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport, Phase, Topology
from tests.decisions.servers import Life, Link, Server, Servers, at, put

POLICY = Policy()
RULE = Rule()
UNTOUCHED = Progress()
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: what it acts upon, what it has said in the store, and how long it may write."""

    name: str
    believed: Topology | None = None
    acknowledged: int | None = None  # None: not registered
    lease: float = FOREVER  # seconds; it writes before then
    stuck: bool = False  # it does nothing at the moment, but may go on with what it believes


@dataclass(frozen=True, slots=True)
class Look:
    """What could be known when the primary manager last saw the master alive."""

    master: Node | None = None
    linked: frozenset[str] = frozenset()  # the processes that had all, or were getting it
    acknowledged: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Ledger:
    """What really happened, whoever knows it."""

    acknowledged: tuple[int, ...] = (1, 2, 3, 4)  # writes that clients were told of, and which must not get lost
    excused: frozenset[int] = frozenset()  # those that only servers out of reach had when a master was chosen
    sealed: frozenset[str] = frozenset()  # processes sealed by this tenure in this epoch
    caught_up: frozenset[str] = frozenset()  # processes that had all in this tenure and epoch
    promoted: Node | None = None  # in this epoch
    written: int = 4  # the last write
    asked: int = 0  # requests that operators have made
    answers: Mapping[int, Outcome] = field(default_factory=dict)
    drained_from: str = ""  # the master's process when the planned change under way began
    look: Look = Look()  # the last one of this tenure, or else the last one that was written down
    written_look: Look = Look()
    damaged: bool = False  # somebody has overwritten the record, and the managers have not put it right yet


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with commands to these servers while a step is carried out."""

    refused: frozenset[Node] = frozenset()  # they are not executed
    unheard: frozenset[Node] = frozenset()  # they are executed, but the answer is lost


NONE = Mishap()


@dataclass(frozen=True, slots=True)
class Site:
    """The group and all who look after it. Times in seconds."""

    servers: Servers
    proxies: tuple[Proxy, ...] = ()
    topology: Topology | None = None
    request: ManualRequest | None = None
    paused: bool = False
    managers: int = 1
    primary: int = 0
    blind: frozenset[tuple[int, Node]] = frozenset()  # which manager cannot reach which server
    progress: Progress = UNTOUCHED
    pointing: tuple[tuple[Node, Node], ...] = ()  # REPLICAOF that is on its way in the background: server, master
    now: float = 1000.0
    ledger: Ledger = Ledger()
    known: LastKnown | None = None  # in the store
    seen: LastKnown | None = None  # by this tenure
    dropped: frozenset[Node] = frozenset()  # servers that no manager is configured with
    in_force: Topology | None = None  # the last record of the managers that they know of
    last_epoch: int = 0  # of a receipt

    @property
    def members(self) -> tuple[Node, ...]:
        """The servers that belong to the group. The master, and those of a change, are not dropped."""
        topology = self.topology
        change = topology.change if topology else None
        needed = {topology.master if topology else None, *((change.former, change.target) if change else ())}
        return tuple(node for node in self.nodes if node not in self.dropped or node in needed)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All addresses."""
        return tuple(server.node for server in self.servers)

    def reaches(self, manager: int, server: Server) -> bool:
        """Does the server answer this manager?"""
        return server.life in (Life.RUNNING, Life.LOADING) and (manager, server.node) not in self.blind


# What the primary manager knows.


def seen_by(site: Site, manager: int) -> ManagerReport:
    """What a manager sees that has just looked at all servers."""
    return ManagerReport(str(manager), nodes=tuple(_seen(site, manager, server) for server in site.servers))


def _seen(site: Site, manager: int, server: Server) -> NodeReport:
    if site.reaches(manager, server):
        return server.report()
    return NodeReport(server.node, False, condition="timeout" if server.life is Life.FROZEN else "refused")


def standings(site: Site) -> dict[Node, Standing]:
    """When all managers have just looked."""
    return judge(seen_by(site, site.primary), _others(site), RULE, dict.fromkeys(site.nodes, site.now))


def _others(site: Site) -> list[ManagerReport]:
    return [seen_by(site, manager) for manager in range(site.managers) if manager != site.primary]


def begun(site: Site) -> Site:
    """As the daemon does before it decides: forget the progress of another epoch."""
    site = _looked(site)
    epoch = site.topology.epoch if site.topology else -1
    if epoch == site.progress.epoch:
        return site
    old = site.progress
    progress = Progress(epoch=epoch, since=site.now, tenure=old.tenure, busy=old.busy)
    ledger = replace(site.ledger, sealed=frozenset(), caught_up=frozenset())
    return replace(site, progress=progress, ledger=ledger)


def _looked(site: Site) -> Site:
    """The primary manager looks at all servers, and remembers it if the master lives."""
    topology = site.topology
    master = at(site.servers, topology.master) if topology else None
    if topology is None or master is None or not site.reaches(site.primary, master):
        return site
    if topology.phase is not Phase.SERVING or master.role != "master" or master.run_id != topology.run_id:
        return site
    sights = {r.node: Sight(r, 1.0, 0.0) for r in seen_by(site, site.primary).nodes}
    seen = looked(site.seen or site.known, topology, sights)
    linked = frozenset(s.run_id for s in site.servers if s is master or _is_linked(s, master))
    look = Look(master.node, linked, frozenset(site.ledger.acknowledged))
    return replace(site, seen=seen, ledger=replace(site.ledger, look=look))


def _is_linked(server: Server, master: Server) -> bool:
    return server.life is not Life.DEAD and server.link is Link.UP and server.replid == master.replid


def view(site: Site, known: Mapping[Node, Standing] | None = None) -> View:
    """Of a site that has `begun`; by default all servers were just looked at."""
    known = standings(site) if known is None else known
    return View(
        now=site.now,
        wall=0.0,
        manager=str(site.primary),
        members=site.members,
        known=site.seen or site.known,
        recorded=site.known,
        topology=site.topology,
        standings=known,
        unseen=outseen(seen_by(site, site.primary), _others(site), known),
        proxies={proxy.name: proxy.acknowledged for proxy in site.proxies if proxy.acknowledged is not None},
        request=site.request,
        request_id=site.ledger.asked if site.request else 0,
        paused=site.paused,
        progress=site.progress,
        in_force=site.in_force,
        last_epoch=site.last_epoch,
    )


# What can happen.


def with_server(site: Site, server: Server) -> Site:
    """The server has changed."""
    return replace(site, servers=put(site.servers, server))


def with_proxy(site: Site, proxy: Proxy) -> Site:
    """The proxy has changed."""
    return replace(site, proxies=tuple(proxy if p.name == proxy.name else p for p in site.proxies))


def informed(site: Site, proxy: Proxy) -> Site:
    """The proxy reads the record, stops writing to who is withdrawn, and says so.

    While there is no record, or an older one than it has acted upon, it writes nowhere.
    """
    if proxy.stuck:
        return site
    before, record = proxy.believed, site.topology
    if record is not None and (before is None or record.epoch >= before.epoch):
        return with_proxy(site, replace(proxy, believed=record, acknowledged=record.epoch))
    if before is None or before.master is None:
        return site
    return with_proxy(site, replace(proxy, believed=replace(before, master=None, phase=Phase.FENCING)))


def all_informed(site: Site) -> Site:
    """Every proxy that is not stuck."""
    for proxy in site.proxies:
        site = informed(site, proxy)
    return site


def expired(site: Site, proxy: Proxy) -> Site:
    """The store ended the proxy's session; its lease was over before."""
    return with_proxy(site, replace(proxy, acknowledged=None, lease=-FOREVER))


def overwritten(site: Site, record: Topology | None) -> Site:
    """Somebody has put this record in the place of that in force, or removed it. The managers know what was there."""
    return replace(site, topology=record, ledger=replace(site.ledger, damaged=True))


def asked(site: Site, target: Node | None) -> Site:
    """An operator wants another master."""
    ledger = replace(site.ledger, asked=site.ledger.asked + 1)
    return replace(site, request=ManualRequest(target), ledger=ledger)


def new_tenure(site: Site, arrived: bool = False) -> Site:
    """The primary manager is deposed, and the next one takes over; what is on its way may still arrive."""
    if arrived:
        site = all_pointed(site)
    ledger = replace(site.ledger, sealed=frozenset(), caught_up=frozenset())
    primary = (site.primary + 1) % site.managers
    ledger = replace(ledger, look=ledger.written_look)
    return replace(site, primary=primary, progress=Progress(tenure=site.now), pointing=(), ledger=ledger, seen=None)


def all_pointed(site: Site) -> Site:
    """What is on its way to servers arrives."""
    for node, _ in site.pointing:
        site = pointed(site, node)
    return site


def _is_ours(site: Site, server: Server) -> bool:
    """As the executor asks right before it commands."""
    named = site.request is not None and site.request.target == server.node
    topology, report = site.topology, server.report()
    if topology is not None and (continues(report, topology.replid) or precedes(report, _before(topology))):
        return True
    return belongs(site.known, report) or named


def _before(topology: Topology) -> tuple[str, int]:
    return topology.replid2, topology.replid2_offset


def pointed(site: Site, node: Node) -> Site:
    """The REPLICAOF that is on its way to this server arrives, or fails."""
    master = dict(site.pointing)[node]
    left = tuple(pair for pair in site.pointing if pair[0] != node)
    progress = replace(site.progress, busy=site.progress.busy - {node})
    server = _reached(site, node)
    site = replace(site, pointing=left, progress=progress)
    if server is None or not _is_ours(site, server):
        return _failed(site, node)
    return _acted(with_server(site, server.following(master, _process(site, master))), node)


def writers(site: Site) -> Iterable[tuple[Proxy, Server]]:
    """The proxies that may write now or when they go on, and the servers that would execute it."""
    for proxy in site.proxies:
        believed = proxy.believed
        if believed is None or believed.master is None or site.now >= proxy.lease:
            continue
        server = at(site.servers, believed.master)
        if server is None or server.role != "master" or server.life in (Life.DEAD, Life.LOADING):
            continue
        if believed.run_id in ("", server.run_id):
            yield proxy, server


def written(site: Site, proxy: Proxy) -> Site:
    """A client writes through this proxy, if it can."""
    for writer, server in writers(site):
        if writer == proxy and server.life is Life.RUNNING and not proxy.stuck:
            write = site.ledger.written + 1
            ledger = replace(site.ledger, written=write, acknowledged=(*site.ledger.acknowledged, write))
            return replace(with_server(site, server.written(write)), ledger=ledger)
    return site


# What the primary manager does.


def carried_out(site: Site, step: Step, mishap: Mishap = NONE) -> Site:
    """As the executor does."""
    match step:
        case Record():
            after = _recorded(site, step)
        case Seal():
            after = site
            for node in step.nodes:
                after = _sealed(_halted(after, node), node, mishap)
        case Promote():
            after = _promoted(_halted(site, step.node), step.node, mishap)
        case CatchUp():
            after = _caught_up(_halted(_halted(site, step.former), step.target), step, mishap)
        case Demote():
            after = _demoted(site, step, mishap)
        case Unpause():
            after = _released(site, step, mishap)
        case Repoint():
            after = _sent_to(site, step)
        case _:
            after = _looked_on(site, step)
    return after


def _looked_on(site: Site, step: Step) -> Site:
    """Nothing is done to servers or to the record."""
    if isinstance(step, Dismiss):
        return _dismissed(site, step)
    if isinstance(step, Remember):
        return _remembered(site, step.known)
    return new_tenure(site) if isinstance(step, Resign) else site


def _released(site: Site, step: Unpause, mishap: Mishap) -> Site:
    released = replace(site, progress=replace(site.progress, stage=Stage.RELEASED))
    unheard = _reached(released, step.node) is None or _hears_no(step.node, mishap)
    return released if unheard else _acted(released, step.node)


def _remembered(site: Site, known: LastKnown) -> Site:
    ledger = replace(site.ledger, written_look=site.ledger.look)
    return replace(site, known=known, progress=replace(site.progress, remembered=site.now), ledger=ledger)


def _sent_to(site: Site, step: Repoint) -> Site:
    pointing = (*site.pointing, *((node, step.master) for node in step.nodes))
    progress = replace(site.progress, busy=site.progress.busy | set(step.nodes))
    return replace(site, pointing=pointing, progress=progress)


def _recorded(site: Site, step: Record) -> Site:
    ledger, request = site.ledger, site.request
    if step.receipt and step.receipt.request:
        ledger = replace(ledger, answers={**ledger.answers, step.receipt.request: step.receipt.outcome})
    if step.settles and step.receipt and step.receipt.request in (0, ledger.asked):
        request = None
    if step.known is not None:
        site = replace(site, known=step.known, seen=step.known)
        ledger = replace(ledger, written_look=ledger.look)
    if step.receipt:
        site = replace(site, last_epoch=max(site.last_epoch, step.receipt.epoch))
    if site.topology is None or site.topology.epoch != step.topology.epoch:
        ledger = replace(ledger, promoted=None)
    if step.topology.phase is Phase.DRAINING and step.topology.change:
        former = at(site.servers, step.topology.change.former)
        ledger = replace(ledger, drained_from=former.run_id if former else "")
    ledger = replace(ledger, damaged=False)
    return begun(replace(site, topology=step.topology, in_force=step.topology, request=request, ledger=ledger))


def _dismissed(site: Site, step: Dismiss) -> Site:
    answers = {**site.ledger.answers, step.receipt.request: step.receipt.outcome}
    ledger = replace(site.ledger, answers=answers)
    return replace(site, request=None, ledger=ledger, last_epoch=step.receipt.epoch)


def _sealed(site: Site, node: Node, mishap: Mishap) -> Site:
    server = _reached(site, node)
    if server is None or node in mishap.refused or not _is_ours(site, server):
        return _failed(site, node)
    after = server.following(None)
    site = with_server(site, after)
    if node in mishap.unheard:
        return _failed(site, node)
    progress = replace(site.progress, sealed={**site.progress.sealed, node: after.report()})
    ledger = replace(site.ledger, sealed=site.ledger.sealed | {after.run_id})
    return _acted(replace(site, progress=progress, ledger=ledger), node)


def _promoted(site: Site, node: Node, mishap: Mishap) -> Site:
    server = _reached(site, node)
    if server is None or node in mishap.refused:
        return _failed(site, node, f"{node} could not be promoted")
    after = server.promoted()
    site = replace(with_server(site, after), ledger=replace(site.ledger, promoted=node))
    if node in mishap.unheard:
        return _failed(site, node, f"{node} did not answer")
    return _acted(replace(site, progress=replace(site.progress, promoted=after.report())), node)


def _caught_up(site: Site, step: CatchUp, mishap: Mishap) -> Site:
    former, target = _reached(site, step.former), _reached(site, step.target)
    late = target is None or former is None or target.report().offset < former.report().offset
    if late or target is None or _hears_no(step.former, mishap) or _hears_no(step.target, mishap):
        return replace(site, progress=replace(site.progress, trouble="it did not catch up"))
    progress = replace(site.progress, stage=Stage.CAUGHT_UP)
    ledger = replace(site.ledger, caught_up=site.ledger.caught_up | {target.run_id})
    return _acted(replace(site, progress=progress, ledger=ledger), step.former)


def _demoted(site: Site, step: Demote, mishap: Mishap) -> Site:
    server = _reached(site, step.former)
    if server is not None and step.former not in mishap.refused:
        site = with_server(site, server.following(step.target, _process(site, step.target)))
        if step.former not in mishap.unheard:
            site = _acted(site, step.former)
    return replace(site, progress=replace(site.progress, stage=Stage.DEMOTED))


def _process(site: Site, node: Node) -> str:
    server = at(site.servers, node)
    return server.run_id if server else ""


def _hears_no(node: Node, mishap: Mishap) -> bool:
    return node in mishap.refused or node in mishap.unheard


def _reached(site: Site, node: Node) -> Server | None:
    """The server, if it executes what the primary manager tells it."""
    server = at(site.servers, node)
    return server if server and server.obeys and site.reaches(site.primary, server) else None


def _halted(site: Site, node: Node) -> Site:
    left = tuple(pair for pair in site.pointing if pair[0] != node)
    if len(left) == len(site.pointing):
        return site
    return replace(site, pointing=left, progress=replace(site.progress, busy=site.progress.busy - {node}))


def _acted(site: Site, node: Node) -> Site:
    return replace(site, progress=replace(site.progress, acted={**site.progress.acted, node: site.now}))


def _failed(site: Site, node: Node, trouble: str = "") -> Site:
    progress = site.progress
    failed = {**progress.failed, node: site.now}
    return replace(site, progress=replace(progress, failed=failed, trouble=progress.trouble or trouble))
