"""The vocabulary of decisions: what is looked at, what was achieved, and what to do next. All immutable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from rfmanager.evidence.agreement import Standing
from rfmanager.evidence.false_alarms import LIMIT, NO_BRAKE, Brake
from rfmanager.evidence.last_known import LastKnown
from rfmanager.monitoring.failure_detector import Limits
from rfprotocol.topology.records import ManualRequest, Receipt
from rfprotocol.topology.topology import Node, NodeReport, Topology


@dataclass(frozen=True, slots=True)
class Policy:
    """What operators may set about a change of master; times in seconds."""

    fence_wait: float | None = None  # None: until each proxy has acknowledged or its session is over
    catch_up_timeout: float = 1.0  # a planned change is given up when draining, or catching up, takes longer
    retry_interval: float = 0.5  # between attempts on a server that refused, or on candidates that failed
    brake_limit: int = LIMIT  # times the usual silence that a master may be given after false alarms
    membership_grace: float = 30.0  # before a server is dropped that no manager is configured with any more
    outseen_after: float = 4.1  # of looking in vain for a server that another manager reaches: that one gets the role


class Stage(Enum):
    """How far this tenure has come with a planned change."""

    DRAIN = "drain"  # proxies drain
    CAUGHT_UP = "caught up"  # writes are paused on the former master and the target has them all
    DEMOTED = "demoted"  # the former master is a replica, or cannot be made one now
    RELEASED = "released"  # given up: the former master's writes are not paused any more


@dataclass(frozen=True, slots=True)
class Progress:
    """What this tenure has done or seen within one epoch. Lost with the tenure: nothing here is needed to be right."""

    epoch: int = -1
    since: float = 0.0  # when this tenure first read the epoch
    tenure: float = 0.0  # when this tenure began
    sealed: Mapping[Node, NodeReport] = field(default_factory=dict)  # states read after sealing
    promoted: NodeReport | None = None  # the new master, verified
    stage: Stage = Stage.DRAIN
    trouble: str = ""  # why a planned change cannot go on
    failed: Mapping[Node, float] = field(default_factory=dict)  # when a command to the server last failed
    acted: Mapping[Node, float] = field(default_factory=dict)  # when it last succeeded: older samples are outdated
    busy: frozenset[Node] = frozenset()  # being re-pointed now
    steps: tuple[tuple[str, float], ...] = ()  # wall clock; not yet in the record
    acknowledged: Mapping[str, float] = field(default_factory=dict)  # wall clock: when each proxy was seen to have
    remembered: float = float("-inf")  # when what is known was last written


@dataclass(frozen=True, slots=True)
class View:
    """Everything a decision depends upon."""

    now: float  # monotonic, seconds
    wall: float  # for the receipt only
    manager: str
    members: tuple[Node, ...]  # those that live managers are configured with, and the master; in a stable order
    topology: Topology | None
    standings: Mapping[Node, Standing] = field(default_factory=dict)
    stale: frozenset[Node] = frozenset()  # replicas that lag too far behind to be read from
    proxies: Mapping[str, int] = field(default_factory=dict)  # the epoch that each has acknowledged
    request: ManualRequest | None = None
    request_id: int = 0  # which one: when its record was created, in the store's order
    paused: bool = False
    progress: Progress = Progress()
    failing: Mapping[Node, float] = field(default_factory=dict)  # wall clock: since when own probes fail; for receipts
    unseen: Collection[Node] = ()  # up, and reached by a manager that reaches more than this one, for some time now
    silence: float = Limits().silence  # seconds without an answer that make a server unavailable
    silent: Mapping[Node, float] = field(default_factory=dict)  # those that are so: since when they do not answer
    brake: Brake = NO_BRAKE
    known: LastKnown | None = None  # of the servers, while the master was seen alive; None: nothing
    recorded: LastKnown | None = None  # of that, what the store has
    adopted: Mapping[Node, str] = field(default_factory=dict)  # whose data may be overwritten, and of which process
    last_epoch: int = 0  # the newest that a receipt speaks of: the record can have been deleted, or be the gem's
    in_force: Topology | None = None  # the last record of these managers that this one has read or written
    request_precedes: bool = False  # the request was there before this manager led

    @property
    def highest_epoch(self) -> int:
        """That the record, this manager, a receipt or a proxy knows of; 0: none was ever used."""
        records = [record.epoch for record in (self.topology, self.in_force) if record is not None]
        return max(*records, self.last_epoch, *self.proxies.values(), 0)

    @property
    def went_back(self) -> bool:
        """Has this manager, or a proxy, seen a greater epoch than the record has? An older one has overwritten it."""
        seen = max(self.proxies.values(), default=0)
        if self.in_force is not None:
            seen = max(seen, self.in_force.epoch)
        return self.topology is not None and seen > self.topology.epoch

    def hearsay(self, node: Node) -> bool:
        """Whether it is up as others say, and this manager does not reach it."""
        standing = self.standings.get(node)
        return standing is not None and standing.available and standing.sampled_at == float("-inf")

    def fresh(self, node: Node) -> NodeReport | None:
        """The server's state, if it is available and was sampled after the last thing that could have changed it."""
        standing = self.standings.get(node)
        if standing is None or not standing.available or standing.sampled_at < self.sample_due(node):
            return None
        return standing.report

    def sample_due(self, node: Node) -> float:
        """When the last thing happened that could have changed the server's state."""
        return max(self.progress.since, self.progress.acted.get(node, self.progress.since))

    def sealed(self, node: Node) -> NodeReport | None:
        """Its state when it was sealed, unless it was seen restarted or re-pointed since then."""
        then, seen = self.progress.sealed.get(node), self.fresh(node)
        if then is None or seen is None:
            return then
        same = seen.run_id == then.run_id and seen.role == "slave" and seen.follows is None
        return replace(then, priority=seen.priority) if same else None

    def unavailable(self, node: Node) -> bool:
        """True only with a verdict that says so."""
        standing = self.standings.get(node)
        return standing is not None and not standing.available

    def failed(self, node: Node) -> bool:
        """Did the last command to the server fail?"""
        failed = self.progress.failed.get(node)
        return failed is not None and failed >= self.progress.acted.get(node, failed)

    def may_retry(self, node: Node, interval: float) -> bool:
        """Has enough time passed since a command to the server failed?"""
        failed = self.progress.failed.get(node)
        return failed is None or self.now >= failed + interval


@dataclass(frozen=True, slots=True)
class Record:
    """Write the topology, and what belongs to it in the same transaction. `name` is for logs and failpoints."""

    name: str
    topology: Topology
    receipt: Receipt | None = None
    settles: bool = False  # the operator's request is answered by this: delete it
    known: LastKnown | None = None  # what is known by then of the servers, to be kept


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Remove an operator's request that must not be obeyed, and file the receipt that says so."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Seal:
    """Let these servers receive what their master has sent, detach them and read their offsets."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Promote:
    """Make the server a master, and verify it."""

    node: Node


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Pause writes on the former master and wait until the target has all it has."""

    former: Node
    target: Node


@dataclass(frozen=True, slots=True)
class Demote:
    """Make the former master a replica of the target."""

    former: Node
    target: Node


@dataclass(frozen=True, slots=True)
class Unpause:
    """Let writes flow again on the former master of a switchover that is given up."""

    node: Node


@dataclass(frozen=True, slots=True)
class Repoint:
    """Make these servers replicas of the master, all at once, without waiting for them."""

    nodes: tuple[Node, ...]
    master: Node


@dataclass(frozen=True, slots=True)
class Remember:
    """Write down what is known of the servers."""

    known: LastKnown


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before something changes, or before `until`. `reason`, if any, is for the operator."""

    reason: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Resign:
    """Leave the role to a manager that reaches more of the servers."""

    reason: str


Step = Resign | Record | Dismiss | Seal | Promote | CatchUp | Demote | Unpause | Repoint | Remember | Wait
