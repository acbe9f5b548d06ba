"""The topology: who is master, who may be read, and what is under way. Immutable, with an epoch.

The JSON is that of Ruby's `redis_failover` (`master`, `slaves`, `unavailable`) with fields added, so its
clients read it as it is. An epoch is consumed each time the master is withdrawn and each time one is
published; changes to the lists of replicas keep the epoch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rfprotocol.errors import ConfigError, RecordError

REDIS_PORT = 6379
"""Where a Redis server listens that is named without a port, for Redis' own clients as for the gem."""

FORMAT = 1
"""Version of the record; a greater one was written by a later release and is not touched."""

_NODE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]/,]+)):(?P<port>\d{1,5})")
_HOST = re.compile(r"\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]/,]+")


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """The address of one Redis server."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, port: int | None = None) -> Node:
        """Read `host:port`, `1.2.3.4:port` or `[v6]:port`; where there is a usual `port`, also without one.

        Raises ConfigError.
        """
        # A number alone is rather a port whose host was forgotten than the host 0.0.24.235.
        if port is not None and _HOST.fullmatch(text.strip()) and not text.strip().isdecimal():
            node = cls.recorded(f"{text.strip()}:{port}")
        else:
            node = cls.recorded(text)
        if trouble := _unspeakable(node.host):
            raise ConfigError(f"{text!r} has no host name that can be looked up: {trouble}")
        return node

    @classmethod
    def recorded(cls, text: str) -> Node:
        """The same, from a record: with a host that can never be looked up it is as good as any other that is lost,
        and must not make the rest unreadable. Raises ConfigError."""
        match = _NODE.fullmatch(text.strip())
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ConfigError(f"{text!r} is not host:port (an IPv6 address is written [::1]:6379)")
        return cls(match["v6"] or match["host"], int(match["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _unspeakable(host: str) -> str:
    """Why a name service cannot be asked for it (RFC 1035 2.3.4); empty when it can."""
    labels = host.removesuffix(".").split(".")
    try:
        encoded = host.encode("idna")  # as `socket.getaddrinfo` does it
    except UnicodeError:
        if not all(labels):
            return "nothing stands before a dot"
        return "a part between dots has more than 63 characters, or one that host names cannot have"
    return "it has more than 253 characters" if len(encoded.removesuffix(b".")) > 253 else ""


class Phase(Enum):
    """What the group is doing. Only in SERVING is there a master in the record."""

    UNSETTLED = "unsettled"  # no master was ever established: an operator may have to decide
    SERVING = "serving"
    FENCING = "fencing"  # unplanned: the master is withdrawn, its successor not yet chosen
    PROMOTING = "promoting"  # unplanned: `change.target` was chosen among the sealed replicas
    DRAINING = "draining"  # planned: proxies drain and hold, then `change.target` takes over


class Kind(Enum):
    """Why the master changes."""

    FAILOVER = "failover"  # nobody asked for it
    SWITCHOVER = "switchover"  # an operator did


@dataclass(frozen=True, slots=True)
class Change:
    """A change of master under way, kept in the record so that any manager can finish it."""

    kind: Kind
    cause: str
    former: Node | None
    target: Node | None = None
    rejected: tuple[Node, ...] = ()  # candidates that failed while they were promoted
    manager: str = ""  # who began it
    steps: tuple[tuple[str, float], ...] = ()  # name, wall clock in seconds; for the receipt, never to decide
    request: int = 0  # the operator's request it is for: `Entry.created` of its record; 0: none, or not known
    run_id: str = ""  # planned: of the target's process; another one has restarted, and may lack writes
    lost: str = ""  # unplanned: the condition of the former master, as in a report, if it is unavailable
    former_run_id: str = ""  # unplanned: of its process


@dataclass(frozen=True, slots=True)
class Topology:
    """One state of the group."""

    epoch: int
    phase: Phase
    master: Node | None = None
    replicas: tuple[Node, ...] = ()  # may be read from
    unavailable: tuple[Node, ...] = ()
    run_id: str = ""  # of the master's (or former master's) process; a different one is a restart
    replid: str = ""  # its replication history; data of another history is foreign
    change: Change | None = None
    replid2: str = ""  # the history it continued when it was promoted, up to `replid2_offset`
    replid2_offset: int = -1
    eviction: str = ""  # the master's maxmemory-policy, if it has a maxmemory: what is read decides what it evicts

    @property
    def is_gems(self) -> bool:
        """Was the record written by the gem? It knows neither epochs nor processes, so it fences nothing."""
        return self.epoch == 0 and not self.run_id

    @property
    def nodes(self) -> frozenset[Node]:
        """Every server the record speaks of."""
        known = {*self.replicas, *self.unavailable}
        if self.master:
            known.add(self.master)
        if self.change:
            known.update(node for node in (self.change.former, self.change.target) if node)
        return frozenset(known)

    def encode(self) -> bytes:
        """JSON for the `nodes` znode."""
        record: dict[str, Any] = {
            "master": str(self.master) if self.master else None,
            "slaves": [str(node) for node in self.replicas],
            "unavailable": [str(node) for node in self.unavailable],
            "format": FORMAT,
            "epoch": self.epoch,
            "phase": self.phase.value,
            "run_id": self.run_id,
            "replid": self.replid,
            "replid2": self.replid2,
            "replid2_offset": self.replid2_offset,
            "eviction": self.eviction,
        }
        if self.change:
            record["change"] = {
                "kind": self.change.kind.value,
                "cause": self.change.cause,
                "former": str(self.change.former) if self.change.former else None,
                "target": str(self.change.target) if self.change.target else None,
                "rejected": [str(node) for node in self.change.rejected],
                "manager": self.change.manager,
                "steps": [[name, at] for name, at in self.change.steps],
                "request": self.change.request,
                "run_id": self.change.run_id,
                "lost": self.change.lost,
                "former_run_id": self.change.former_run_id,
            }
        return json.dumps(record).encode()

    @classmethod
    def decode(cls, data: bytes) -> Topology:
        """Read a `nodes` znode, also one that the gem wrote (no epoch: epoch 0). Raises RecordError."""
        record = load_record(data, "nodes")
        if "master" not in record:
            raise RecordError("the nodes record has no key 'master'")
        try:
            master = optional_node(record["master"])
            phase = record.get("phase") or ("serving" if master else "unsettled")
            topology = cls(
                epoch=whole_number(record.get("epoch", 0)),
                phase=Phase(phase),
                master=master,
                replicas=node_list(record.get("slaves")),
                unavailable=node_list(record.get("unavailable")),
                run_id=str(record.get("run_id", "")),
                replid=str(record.get("replid", "")),
                change=_decode_change(record.get("change")),
                replid2=str(record.get("replid2", "")),
                replid2_offset=int(record.get("replid2_offset", -1)),
                eviction=str(record.get("eviction", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise RecordError(f"the nodes record cannot be read: {error}") from None
        if (topology.master is None) == (topology.phase is Phase.SERVING):
            raise RecordError(f"the nodes record contradicts itself: phase {phase}, master {topology.master}")
        if topology.phase in (Phase.PROMOTING, Phase.DRAINING) and not (topology.change and topology.change.target):
            raise RecordError(f"the nodes record says {phase} but not for whom")
        return topology


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One server as one manager sees it."""

    node: Node
    available: bool
    condition: str = "ok"  # Redis' own words (loading, busy, misconf, noauth ...), silent, or a `Failure`
    latency: float = 0.0  # seconds of the last round trip
    role: str = ""  # master | slave, in Redis' words; empty when unknown
    run_id: str = ""
    replid: str = ""
    replid2: str = ""  # the history it continued from, valid up to `replid2_offset`
    replid2_offset: int = -1
    offset: int = -1  # bytes of the replication stream it has applied
    follows: Node | None = None  # the master it is a replica of
    link_up: bool = False
    syncing: bool = False  # a full transfer is under way
    serves_stale: bool = True  # answers reads while its link is down
    priority: int = 100
    empty: bool = False  # holds no key at all
    connected_replicas: int = 0
    busy_with: str = ""  # the command that keeps it from answering, as a proxy says
    said_by: str = ""  # that proxy
    silent_for: float = 0.0  # seconds, when the report was made
    patience: float = 0.0  # seconds from then on that it is not taken for dead
    aof: bool = False  # it keeps an append-only file, which it starts from
    keys: int = 0  # in all its databases
    clients: int = 0  # connections, those of managers and replicas among them
    refusal: str = ""  # what it refuses to do for this manager, in its own words
    software: str = ""  # valkey, or another name that it gives itself; empty: Redis, or not known
    version: str = ""  # of that software; empty: not known
    eviction: str = ""  # its maxmemory-policy, if it has a maxmemory
    events: str | None = None  # its notify-keyspace-events; None: not known
    unlinked_for: float = 0.0  # seconds that it has had no link to its master and copied nothing, as the manager saw
    unsaved: str = ""  # what it could not write to its disk, for which it refuses writes as a master

    def encode(self) -> dict[str, Any]:
        """Plain data for JSON, without what has its default value."""
        plain: dict[str, Any] = {}
        for name, default in _REPORT_DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                plain[name] = str(value) if isinstance(value, Node) else value
        return plain

    @classmethod
    def decode(cls, node: Node, available: bool, plain: dict[str, Any]) -> NodeReport:
        """The reverse of `encode`; unknown keys of later releases are ignored. Raises ValueError, TypeError."""
        known = {name: plain[name] for name in _REPORT_DEFAULTS if name in plain}
        if "follows" in known:
            known["follows"] = _said(known["follows"])
        for name, value in known.items():
            default = "" if name == "events" else _REPORT_DEFAULTS[name]
            if default is not None and not like(value, default):
                raise TypeError(f"{name} of {node} is {value!r}")
        return cls(node, available, **known)


_REPORT_DEFAULTS: dict[str, Any] = {
    name: spec.default for name, spec in NodeReport.__dataclass_fields__.items() if name not in ("node", "available")
}


@dataclass(frozen=True, slots=True)
class ManagerReport:
    """All servers as one manager sees them. `sequence` grows with each report, so that age can be told.

    `waits_for`: why the primary manager does not take its next step yet; empty when there is none to take.
    """

    manager: str
    sequence: int = 0
    nodes: tuple[NodeReport, ...] = field(default=())
    configured: tuple[Node, ...] | None = None  # the servers that it is configured with; None: it does not say
    waits_for: str = ""
    required: int = 0  # managers that must report a server, as it is configured; 0: it does not say
    strategy: str = ""  # how many of them must agree

    @property
    def is_gems(self) -> bool:
        """Was it written by a node manager of the gem? It counts no reports and does not say what it is told."""
        return self.sequence == 0 and self.configured is None

    def encode(self) -> bytes:
        """JSON for `manager_node_state/<id>`: the gem's two keys, and the details beside them."""
        return json.dumps(
            {
                "available": {str(n.node): round(n.latency, 6) for n in self.nodes if n.available},
                "unavailable": [str(n.node) for n in self.nodes if not n.available],
                "format": FORMAT,
                "sequence": self.sequence,
                "nodes": {str(n.node): n.encode() for n in self.nodes},
                **({} if self.configured is None else {"configured": [str(node) for node in self.configured]}),
                **({"waits_for": self.waits_for} if self.waits_for else {}),
                "required": self.required,
                "strategy": self.strategy,
            }
        ).encode()

    @classmethod
    def decode(cls, manager: str, data: bytes) -> ManagerReport:
        """Read a report, also a gem's, which has no details. Raises RecordError."""
        record = load_record(data, f"report of manager {manager}")
        try:
            details = dict(record.get("nodes") or {})
            up = {Node.recorded(text): float(latency) for text, latency in dict(record.get("available") or {}).items()}
            down = node_list(record.get("unavailable"))
            nodes = [
                NodeReport.decode(node, node in up, {"latency": up.get(node, 0.0), **details.get(str(node), {})})
                for node in (*up, *down)
            ]
            configured = record.get("configured")
            return cls(
                manager,
                whole_number(record.get("sequence", 0)),
                tuple(nodes),
                None if configured is None else node_list(configured),
                str(record.get("waits_for", "")),
                required=whole_number(record.get("required", 0)),
                strategy=str(record.get("strategy", "")),
            )
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            raise RecordError(f"the report of manager {manager} cannot be read: {error}") from None


def load_record(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object and check its format number. Raises RecordError, which names `what`."""
    try:
        record = json.loads(data)
    except ValueError:
        raise RecordError(f"the {what} record is not JSON: {data[:40]!r}") from None
    if not isinstance(record, dict):
        raise RecordError(f"the {what} record is not an object: {data[:40]!r}")
    version = record.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise RecordError(f"the {what} record has format {version!r}, this release reads up to {FORMAT}: upgrade it")
    return record


def node_list(value: Any) -> tuple[Node, ...]:
    """A JSON list of `host:port`, or nothing. Raises TypeError, ConfigError."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list of host:port")
    return tuple(Node.recorded(text) for text in value)


def optional_node(value: Any) -> Node | None:
    """A JSON `host:port`, or null. Raises TypeError, ConfigError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not host:port")
    return Node.recorded(value)


def _said(text: str) -> Node:
    """What a server says that it follows: whatever somebody wrote there, a name or not. Raises ValueError."""
    try:
        return Node.recorded(text)
    except ConfigError:
        host, _, port = text.rpartition(":")
        return Node(host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host, int(port))


def whole_number(value: Any) -> int:
    """A JSON number that counts something. Raises TypeError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def like(value: Any, default: Any) -> bool:
    """Whether a JSON value has the type of `default`; JSON may write 1.0 as 1."""
    return type(value) is type(default) or (type(default) is float and type(value) is int)


def _decode_change(value: Any) -> Change | None:
    if value is None:
        return None
    return Change(
        kind=Kind(value["kind"]),
        cause=str(value.get("cause", "")),
        former=optional_node(value.get("former")),
        target=optional_node(value.get("target")),
        rejected=node_list(value.get("rejected")),
        manager=str(value.get("manager", "")),
        steps=tuple((str(name), float(at)) for name, at in value.get("steps", ())),
        request=whole_number(value.get("request", 0)),
        run_id=str(value.get("run_id", "")),
        lost=str(value.get("lost", "")),
        former_run_id=str(value.get("former_run_id", "")),
    )
