"""A group as its operators see it: every record of the store, decoded, and what follows from them. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from rfmanager.evidence import gem_lock
from rfmanager.evidence.false_alarms import LIMIT, NO_BRAKE, Brake
from rfmanager.evidence.last_known import LastKnown, is_ours
from rfprotocol.errors import RecordError
from rfprotocol.store.interface import Entry
from rfprotocol.topology.records import ManualRequest, ProxyRecord, Receipt
from rfprotocol.topology.topology import FORMAT, ManagerReport, Node, NodeReport, Phase, Topology, load_record

Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Pause:
    """Who asked the managers to watch only, and when: the content of `paused`."""

    by: str = ""
    at: float = 0.0  # wall clock, seconds; 0: not said

    def encode(self) -> bytes:
        """JSON."""
        return json.dumps({"format": FORMAT, "by": self.by, "at": self.at}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Pause:
        """Never fails: that the record exists is what counts, an operator may have made an empty one by hand."""
        try:
            record = load_record(data, "paused")
            return cls(str(record.get("by", "")), float(record.get("at", 0.0)))
        except (RecordError, TypeError, ValueError):
            return cls()


@dataclass(frozen=True, slots=True)
class GoneBack:
    """The record is older than what proxies have acted upon: ZooKeeper was restored or wiped, or the gem wrote it."""

    epoch: int  # the greatest that a proxy has acknowledged
    proxy: str  # that proxy
    others: int  # further proxies that have acknowledged a greater epoch than the record's


@dataclass(frozen=True, slots=True)
class Server:
    """One Redis server: how the topology lists it, and what the managers say of it."""

    node: Node
    listed: str  # master | replica (may be read) | former | target | unavailable | unlisted
    report: NodeReport | None  # the primary manager's, or another one's; None when nobody reports it
    lag: int | None  # bytes behind the master, in the eyes of the manager that reports both
    seen: Mapping[str, NodeReport]  # by manager

    @property
    def available_for(self) -> list[str]:
        """The managers that see it up."""
        return [name for name, report in self.seen.items() if report.available]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole group. A record that cannot be read is missing, and `unreadable` says by its name why."""

    topology: Topology | None = None
    primary: str = ""  # the manager that leads; empty when none does
    managers: Mapping[str, ManagerReport] = field(default_factory=dict)
    proxies: Mapping[str, ProxyRecord] = field(default_factory=dict)
    pause: Pause | None = None
    request: ManualRequest | None = None
    request_is_empty: bool = False  # there is one that says nothing: a client of the gem has not filled it yet
    request_is_left_over: bool = False
    """It is not obeyed: no manager has written a record yet, and it was there before the primary manager came.

    The gem never removes a request, so this one may be of years ago.
    """
    gem_leads: bool = False  # a node manager of the gem holds the gem's lock
    gem_waits: bool = False  # one waits in line behind a manager
    unreadable: Mapping[str, str] = field(default_factory=dict)
    brake: Brake = NO_BRAKE
    known: LastKnown | None = None

    @classmethod
    def of(
        cls,
        *,
        nodes: Entry | None = None,
        managers: Mapping[str, Entry] | None = None,
        seats: Mapping[str, Entry] | None = None,
        proxies: Mapping[str, Entry] | None = None,
        paused: Entry | None = None,
        request: Entry | None = None,
        history: Mapping[str, Entry] | None = None,
        known: Entry | None = None,
        gem_seats: Mapping[str, Entry] | None = None,
        wall: float = 0.0,
        brake_limit: int = LIMIT,
    ) -> Snapshot:
        """From the records as they were read at `wall`.

        `seats` are the contenders for the role of primary manager, `gem_seats` those for the gem's lock. To be read
        before `nodes`: the proxies, which acknowledge what is there, else the record seems to have gone back.
        """
        unreadable: dict[str, str] = {}

        def read(name: str, decode: Callable[[bytes], Decoded], entry: Entry | None) -> Decoded | None:
            try:
                return decode(entry.data) if entry else None
            except RecordError as error:
                unreadable[name] = str(error)
                return None

        reports = {
            name: read(f"manager_node_state/{name}", partial(ManagerReport.decode, name), entry)
            for name, entry in (managers or {}).items()
        }
        receipts = [read(f"history/{name}", Receipt.decode, entry) for name, entry in (history or {}).items()]
        records = {name: read(f"proxies/{name}", ProxyRecord.decode, entry) for name, entry in (proxies or {}).items()}
        topology = read("nodes", Topology.decode, nodes)
        wish = read("manual_failover", ManualRequest.decode, request)
        is_start = topology.is_gems if topology else nodes is None  # no manager of this system has written it
        in_line = gem_lock.of_the_gem(gem_seats or {})
        gem_leads = gem_lock.is_led_by_the_gem(gem_seats or {})
        return cls(
            topology=topology,
            primary=leader(seats or {}),
            managers={name: report for name, report in reports.items() if report},
            proxies={name: record for name, record in records.items() if record},
            pause=Pause.decode(paused.data) if paused else None,
            request=wish,
            request_is_empty=request is not None and wish is None and "manual_failover" not in unreadable,
            request_is_left_over=bool(wish and request and is_start and _precedes(request, seats or {})),
            gem_leads=gem_leads,
            gem_waits=bool(in_line) and not gem_leads,
            unreadable=unreadable,
            brake=Brake.of([receipt for receipt in receipts if receipt], wall, brake_limit),
            known=read("last_known", LastKnown.decode, known),
        )

    @property
    def epoch(self) -> int:
        """Of the topology; 0 when there is none."""
        return self.topology.epoch if self.topology else 0

    @property
    def gems(self) -> list[str]:
        """The node managers of the gem that report."""
        return sorted(name for name, report in self.managers.items() if report.is_gems)

    @property
    def ours(self) -> Mapping[str, ManagerReport]:
        """The reports of this system's managers."""
        return {name: report for name, report in self.managers.items() if not report.is_gems}

    @property
    def gone_back(self) -> GoneBack | None:
        """Whether a proxy has acted upon a later record than this one."""
        if "nodes" in self.unreadable:
            return None
        ahead = sorted((-proxy.epoch, name) for name, proxy in self.proxies.items() if proxy.epoch > self.epoch)
        return GoneBack(-ahead[0][0], ahead[0][1], len(ahead) - 1) if ahead else None

    @property
    def has_master(self) -> bool:
        """Is there a master, and do the managers reach it, as far as they say?"""
        master = next((server for server in self.servers if server.listed == "master"), None)
        return master is not None and (master.report is None or master.report.available)

    @property
    def strangers(self) -> list[NodeReport]:
        """The servers whose data is not this group's, and which are left alone."""
        if self.known is None:
            return []
        found = [server.report for server in self.servers if server.report is not None]
        told = [report for report in found if report.available and report.role and report.condition != "loading"]
        return [report for report in told if not is_ours(self.known, self.topology, report)]

    @property
    def servers(self) -> list[Server]:
        """Every server that is in the topology or in a report: the master first, then by address."""
        nodes = set(self.topology.nodes if self.topology else ())
        nodes.update(report.node for manager in self.managers.values() for report in manager.nodes)
        return sorted(map(self._server, nodes), key=lambda server: (server.listed != "master", server.node))

    def _server(self, node: Node) -> Server:
        seen = {
            name: report for name, manager in self.managers.items() for report in manager.nodes if report.node == node
        }
        # The primary's own view is what it acts upon; else one that could look into the server.
        best = sorted(seen, key=lambda name: (name != self.primary, not seen[name].role, name))
        report = seen[best[0]] if best else None
        lag = self._lag(best[0], report) if report else None
        return Server(node, _listed(self.topology, node), report, lag, seen)

    def _lag(self, manager: str, report: NodeReport) -> int | None:
        """Offsets are only compared within one history, and within one manager's report, which is of one moment."""
        master = self.topology.master if self.topology else None
        at_master = next((r for r in self.managers[manager].nodes if r.node == master), None)
        if at_master is None or report.role != "slave" or report.offset < 0 or report.replid != at_master.replid:
            return None
        return max(0, at_master.offset - report.offset)


def leader(seats: Mapping[str, Entry]) -> str:
    """The contender that came first, by the number that ZooKeeper gave its seat; empty when there is none."""
    first = gem_lock.lowest(seats)
    return seats[first].data.decode(errors="replace") if first else ""


def _precedes(request: Entry, seats: Mapping[str, Entry]) -> bool:
    """Whether the request was there before the primary manager came, this one or the next."""
    first = gem_lock.lowest(seats)
    return not first or request.created < seats[first].created


def _listed(topology: Topology | None, node: Node) -> str:
    if topology is None or node not in topology.nodes:
        return "unlisted"
    if node == topology.master:
        return "master"
    if topology.phase is not Phase.SERVING and topology.change:
        if node == topology.change.target:
            return "target"
        if node == topology.change.former:
            return "former"
    return "replica" if node in topology.replicas else "unavailable"
