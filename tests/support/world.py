"""A model of a group of servers, their proxies and the record, in which decisions are carried out and checked.

`Server` follows Redis' rules for replication IDs: promotion begins a new history and remembers the old one, a
restart without data begins an unrelated one, a replica takes over its master's history and data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from rfmanager.decision.decide import decide
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
    Seal,
    Stage,
    Step,
    Unpause,
    View,
    Wait,
)
from rfmanager.evidence.agreement import Standing
from rfmanager.evidence.last_known import LastKnown, Sight, looked
from rfprotocol.topology.records import ManualRequest, Outcome, Receipt
from rfprotocol.topology.topology import Node, NodeReport, Phase, Topology

POLICY = Policy()
A, B, C = (Node("h", port) for port in (1, 2, 3))
_names = count()


def fresh_name(kind: str) -> str:
    """A replication or run ID."""
    return f"{kind}{next(_names)}"


@dataclass
class Server:
    """One Redis server; `data` is the set of writes it has."""

    node: Node
    role: str = "master"
    follows: Node | None = None
    alive: bool = True
    run_id: str = field(default_factory=lambda: fresh_name("run"))
    replid: str = field(default_factory=lambda: fresh_name("history"))
    replid2: str = ""
    replid2_offset: int = -1
    data: tuple[int, ...] = ()
    priority: int = 100
    link: str = ""  # the process of the master that it is connected to; it does not reconnect by itself here

    def report(self, link_up: bool) -> NodeReport:
        """What INFO says."""
        return NodeReport(
            self.node,
            available=self.alive,
            role=self.role,
            run_id=self.run_id,
            replid=self.replid,
            replid2=self.replid2,
            replid2_offset=self.replid2_offset,
            offset=len(self.data),
            follows=self.follows,
            link_up=link_up,
            empty=not self.data,
            priority=self.priority,
        )

    def promote(self) -> None:
        """REPLICAOF NO ONE."""
        if self.role == "slave":
            self.replid2, self.replid2_offset = self.replid, len(self.data) + 1
            self.replid = fresh_name("history")
        self.role, self.follows = "master", None

    def follow(self, master: Node | None) -> None:
        """REPLICAOF; None seals."""
        self.role, self.follows, self.link = "slave", master, ""

    def restart(self, with_data: bool) -> None:
        """Start a new process, which is a master: nothing was rewritten in its configuration."""
        self.alive, self.role, self.follows = True, "master", None
        self.run_id = fresh_name("run")
        self.replid2, self.replid2_offset = (self.replid, len(self.data) + 1) if with_data else ("", -1)
        self.replid = fresh_name("history")
        self.data = self.data if with_data else ()


class World:
    """`step` lets the primary manager decide and act once; the other methods are what can happen meanwhile."""

    def __init__(self, size: int, proxies: int = 1) -> None:
        self.servers = {Node("h", port): Server(Node("h", port)) for port in range(1, size + 1)}
        self.now = 0.0
        self.topology: Topology | None = None
        self.proxies = {f"proxy{n}": 0 for n in range(proxies)}
        self.believed: dict[str, Topology] = {}
        self.request: ManualRequest | None = None
        self.requests = 0
        self.request_precedes = False
        self.in_force: Topology | None = None  # None: the manager has just started
        self.paused = False
        self.policy = POLICY
        self.progress = Progress()
        self.receipts: list[Receipt] = []
        self.acknowledged: list[int] = []  # writes that a client was told of
        self.promotions: dict[int, Node] = {}
        self.trail: list[Step] = []
        self.known: LastKnown | None = None
        self.recorded: LastKnown | None = None
        self._writes = count(1)
        master = next(iter(self.servers))
        for server in list(self.servers.values())[1:]:
            server.follow(master)
        self.replicate()

    def __getitem__(self, port: int) -> Server:
        return self.servers[Node("h", port)]

    # What happens.

    def replicate(self) -> None:
        """Every replica gets what its master has."""
        for server in self.servers.values():
            if self.link_up(server):
                master = self.servers[server.follows] if server.follows else server
                server.data, server.replid, server.link = master.data, master.replid, master.run_id
                server.replid2, server.replid2_offset = master.replid2, master.replid2_offset

    def link_up(self, server: Server) -> bool:
        """Can it reach the master it follows?"""
        master = self.servers.get(server.follows) if server.follows else None
        return (
            server.alive
            and master is not None
            and master.alive
            and master.role == "master"
            and server.link in ("", master.run_id)
        )

    def acknowledge(self) -> None:
        """All proxies read the record."""
        for name in self.proxies:
            self.acknowledge_one(name)

    def acknowledge_one(self, name: str) -> None:
        """One proxy reads the record, stops using what is withdrawn, and says so."""
        if self.topology and (self.topology.epoch >= self.proxies[name] or self.topology.is_gems):
            self.believed[name] = self.topology
            self.proxies[name] = self.topology.epoch

    def write(self) -> bool:
        """Every proxy sends a write where it believes the master to be. True when one was acknowledged."""
        written = False
        for topology in self.believed.values():
            server = self.servers.get(topology.master) if topology.master else None
            if server and server.alive and server.role == "master" and server.run_id == topology.run_id:
                write = next(self._writes)
                server.data = (*server.data, write)
                self.replicate()
                self.acknowledged.append(write)
                written = True
        return written

    def ask(self, target: Node | None) -> None:
        """An operator wants another master."""
        if self.request is None:
            self.request = ManualRequest(target)
            self.requests += 1

    def new_tenure(self) -> None:
        """The primary manager dies; its successor knows the record and the servers."""
        self.progress = Progress()

    def report(self, server: Server) -> NodeReport:
        """What INFO says, with who is connected."""
        replicas = [other for other in self.servers.values() if other.follows == server.node and self.link_up(other)]
        return replace(server.report(self.link_up(server)), connected_replicas=len(replicas))

    # What the manager does.

    def view(self) -> View:
        """Everything is sampled just now."""
        epoch = self.topology.epoch if self.topology else -1
        if epoch != self.progress.epoch:
            self.progress = Progress(epoch=epoch, since=self.now)
        self.now += 0.01
        sights = {node: Sight(self.report(s), self.now, self.now - 0.001) for node, s in self.servers.items()}
        self.known = looked(self.known, self.topology, sights)
        return View(
            now=self.now,
            wall=self.now,
            manager="m",
            members=tuple(self.servers),
            topology=self.topology,
            standings={
                node: Standing(server.alive, self.report(server), self.now) for node, server in self.servers.items()
            },
            proxies=dict(self.proxies),
            request=self.request,
            request_id=self.requests if self.request else 0,
            paused=self.paused,
            progress=self.progress,
            known=self.known,
            recorded=self.recorded,
            last_epoch=max((receipt.epoch for receipt in self.receipts), default=0),
            request_precedes=self.request_precedes,
            in_force=self.in_force,
        )

    def step(self, policy: Policy = POLICY) -> Step:
        """Decide once and carry it out; what the decision must never do raises AssertionError."""
        self.policy = policy
        step = decide(self.view(), policy)
        self.trail.append(step)
        carry_out: dict[type, Callable[[Any], None]] = {
            Record: self._record,
            Seal: self._seal,
            Promote: self._promote,
            CatchUp: self._catch_up,
            Demote: self._demote,
            Unpause: lambda _: self._achieved(stage=Stage.RELEASED),
            Repoint: self._repoint,
            Remember: lambda step: self._remember(step.known),
            Dismiss: self._dismiss,
            Wait: lambda _: None,
        }
        carry_out[type(step)](step)
        assert not self.paused or isinstance(step, Wait | Record | Remember | Dismiss)
        return step

    def run(self, steps: int = 60) -> Wait:
        """Step, with proxies that acknowledge, until there is nothing left to do."""
        for _ in range(steps):
            self.acknowledge()
            step = self.step()
            self.replicate()
            if isinstance(step, Wait) and step.until is None:
                return step
            if isinstance(step, Wait) and step.until is not None:
                self.now = max(self.now, step.until)
        raise AssertionError(f"no end: {self.trail[-6:]}")

    def _seal(self, step: Seal) -> None:
        for node in step.nodes:
            server = self.servers[node]
            if server.alive:
                server.follow(None)
                acted = {**self.progress.acted, node: self.now}
                self._achieved(sealed={**self.progress.sealed, node: server.report(False)}, acted=acted)
            else:
                self._achieved(failed={**self.progress.failed, node: self.now})

    def _promote(self, step: Promote) -> None:
        topology, server = self.topology, self.servers[step.node]
        assert topology is not None
        assert topology.change is not None
        assert topology.change.target == server.node
        assert self.fenced(topology.epoch), "promoted while a proxy could still write to the former master"
        planned = topology.phase is Phase.DRAINING
        assert self.progress.stage is Stage.CAUGHT_UP if planned else server.node in self.progress.sealed
        assert self.promotions.setdefault(topology.epoch, server.node) == server.node, "two promoted in one epoch"
        if not server.alive:
            self._achieved(failed={**self.progress.failed, server.node: self.now}, trouble="it died")
            return
        server.promote()
        self._achieved(promoted=server.report(False))

    def _catch_up(self, step: CatchUp) -> None:
        self.replicate()
        if self.servers[step.target].data == self.servers[step.former].data:
            self._achieved(stage=Stage.CAUGHT_UP)
        else:
            self._achieved(trouble="it did not catch up")

    def _demote(self, step: Demote) -> None:
        if self.servers[step.former].alive:
            self.servers[step.former].follow(step.target)
        self._achieved(stage=Stage.DEMOTED)

    def _repoint(self, step: Repoint) -> None:
        assert step.master not in step.nodes
        for node in step.nodes:
            self.servers[node].follow(step.master)
        self.replicate()

    def _record(self, step: Record) -> None:
        old, new = self.topology, step.topology
        assert Topology.decode(new.encode()) == new
        if old:
            used = [receipt.epoch for receipt in self.receipts]
            used += [self.in_force.epoch] if self.in_force else []
            beyond = max(old.epoch, *self.proxies.values(), *used, 0) + 1  # a proxy may know a record that was lost
            assert new.epoch in (old.epoch, old.epoch + 1, beyond)
            if new.master != old.master:
                assert new.epoch > old.epoch
            if new.master and old.phase is not Phase.SERVING:
                former = old.change.former if old.change else None
                assert new.master == former or self.policy.fence_wait is not None or self.fenced(old.epoch)
        if step.settles and self.request:
            assert step.receipt is not None
            if step.receipt.request == self.requests:
                self.request = None
        if step.receipt:
            assert step.receipt.epoch == new.epoch
            assert Receipt.decode(step.receipt.encode()) == step.receipt
            self.receipts.append(step.receipt)
        refused = step.receipt and step.receipt.outcome is Outcome.REFUSED
        assert not self.paused or refused or step.name == "restore"
        self.topology = new
        if step.known is not None:
            self._remember(step.known)

    def _dismiss(self, step: Dismiss) -> None:
        assert step.receipt.outcome is Outcome.REFUSED
        assert step.receipt.epoch > max((receipt.epoch for receipt in self.receipts), default=0)
        self.receipts.append(step.receipt)
        self.request = None

    def _remember(self, known: LastKnown) -> None:
        self.known = self.recorded = known
        self._achieved(remembered=self.now)

    def fenced(self, epoch: int) -> bool:
        """Can no proxy act on an earlier epoch?"""
        return all(acknowledged >= epoch for acknowledged in self.proxies.values())

    def _achieved(self, **changes: object) -> None:
        self.progress = replace(self.progress, **changes)  # type: ignore[arg-type]  # the names are those of Progress


def serving(size: int = 3, proxies: int = 1) -> World:
    """A group that has written and replicated something."""
    world = World(size, proxies)
    world.run()
    world.acknowledge()
    assert world.write()
    assert world.topology is not None
    assert world.topology.master == A
    return world


def master_of(world: World) -> Node | None:
    """The master in force."""
    return world.topology.master if world.topology else None


def until(world: World, kind: type[Step], name: str = "") -> None:
    """Step, with proxies that acknowledge, up to and including the first such step."""
    for _ in range(20):
        world.acknowledge()
        step = world.step()
        if isinstance(step, kind) and (not name or (isinstance(step, Record) and step.name == name)):
            return
    raise AssertionError(f"no such step: {world.trail}")
