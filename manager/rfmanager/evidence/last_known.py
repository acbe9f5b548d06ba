"""What was last known of a group while its master was seen alive, kept in the store. Pure.

Two questions need it, and no server can answer them:

* May this server be promoted? A history survives in the file that a server starts from. So a replica that was stopped
  before its master continues the history, and lacks what was written since. Offsets alone do not tell: the last one
  that was read of the master may be older than the last write. What tells is whether the server is the process whose
  link was up when the master was last seen.
* May the data of this server be replaced by the master's? Only if it is this group's data, or if there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from rfmanager.evidence.candidates import continues, precedes, reach
from rfprotocol.errors import ConfigError, Failure, RecordError
from rfprotocol.topology.topology import FORMAT, Node, NodeReport, Phase, Topology, load_record

RENEWAL = 3.0
"""Seconds after which offsets are written again. Links, processes and histories are written when they change."""
STALE = 5.0
"""Seconds for which a replica's data stands still, behind the master's, after which a link that is up counts as down:
Redis notices a path that loses all packets after a minute (`repl-timeout`)."""
UNKNOWN: Final = 2**63 - 1
"""The offset of a process that may have copied further since it was seen last."""
HISTORIES = 64
"""Replication histories of this group that are remembered: each promotion and each restart of a master begins one."""


@dataclass(frozen=True, slots=True)
class Member:
    """A server as it was when the master was last seen."""

    run_id: str
    offset: int = -1
    linked: bool = False
    """Whether it received what the master wrote."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A server as one manager sees it; times of one clock, in seconds."""

    report: NodeReport
    asked: float
    """When the last answer was asked for."""
    since: float
    """When this was noticed: of an answer, when it came; of a server that is gone, when the first sign came."""
    still: float = 0.0
    """Seconds for which its data has stood still, behind the master's."""


@dataclass(frozen=True, slots=True)
class LastKnown:
    """The master process `run_id`, and its replicas, when it was last seen alive."""

    master: Node
    run_id: str
    offset: int = -1
    members: Mapping[Node, Member] = field(default_factory=dict)
    histories: tuple[str, ...] = ()
    """Replication histories that are this group's; the newest last."""
    witnessed: bool = False
    """Whether this manager has seen it itself. A record may be older than much that was written since."""

    def encode(self) -> bytes:
        """JSON for `last_known`."""
        return json.dumps(
            {
                "format": FORMAT,
                "master": str(self.master),
                "run_id": self.run_id,
                "offset": self.offset,
                "histories": list(self.histories),
                "members": {
                    str(node): {"run_id": member.run_id, "offset": member.offset, "linked": member.linked}
                    for node, member in self.members.items()
                },
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> LastKnown:
        """Raises RecordError."""
        record = load_record(data, "last_known")
        try:
            return cls(
                Node.recorded(record["master"]),
                str(record["run_id"]),
                int(record["offset"]),
                {
                    Node.recorded(name): Member(str(said["run_id"]), int(said["offset"]), said["linked"] is True)
                    for name, said in dict(record["members"]).items()
                },
                tuple(map(str, record["histories"])),
            )
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise RecordError(f"the last_known record cannot be read: {error!r}") from None


def looked(before: LastKnown | None, topology: Topology | None, sights: Mapping[Node, Sight]) -> LastKnown | None:
    """What is known after a look at the servers. It stays as it was when the master is not seen alive.

    That a link is down counts when the master was seen alive later: the death of a master takes all links down.
    """
    if topology is None or topology.phase is not Phase.SERVING or not topology.run_id or topology.master is None:
        return before
    at_master = sights.get(topology.master)
    if at_master is None or not _is_master(at_master.report, topology):
        return before
    known = before if before is not None and before.run_id == topology.run_id else None
    members = dict(known.members) if known else {}
    topology_histories = [topology.replid2, topology.replid, at_master.report.replid2, at_master.report.replid]
    histories = [*topology_histories]
    for node, sight in sights.items():
        if node == topology.master:
            continue
        was, report = members.get(node), sight.report
        if was is not None and _settled(report):
            if before is not None and _is_strange(before, report):
                was = STRANGER
            elif report.replid2.strip("0") and report.replid2 in (
                *topology_histories,
                *(before.histories if before else ()),
            ):
                histories.insert(0, report.replid)  # it started anew: its next start may know of no other history
        if (member := _member(was, sight, at_master)) is not None:
            members[node] = member
    remembered = _histories(before.histories if before else (), histories)
    return LastKnown(topology.master, topology.run_id, at_master.report.offset, members, remembered, witnessed=True)


def _is_master(report: NodeReport, topology: Topology) -> bool:
    return report.available and report.role == "master" and report.run_id == topology.run_id


def _settled(report: NodeReport) -> bool:
    """Whether it says of itself what its data is."""
    return report.available and report.role != "" and report.condition == "ok"


STRANGER: Final = Member("")
"""In the place of a member another server was seen: an append-only file there is not taken for this group's."""


def _is_strange(known: LastKnown, report: NodeReport) -> bool:
    copies = report.role == "slave" and report.follows == known.master
    return not copies and not belongs(known, report)


def _member(was: Member | None, sight: Sight, at_master: Sight) -> Member | None:
    report, master = sight.report, at_master.report
    link = report.available and report.role == "slave" and report.link_up and not report.syncing
    if link and report.replid == master.replid and sight.still < STALE:
        return Member(report.run_id, report.offset, linked=True)
    told = report.available and report.role == "slave" and report.follows == master.node  # to copy this group's data
    if was is None or (told and was.run_id != report.run_id):
        return Member(report.run_id, report.offset) if told else was
    if not was.linked or at_master.asked <= sight.since:
        return was
    return Member(was.run_id, _most(was, report, master, link=link))


def _most(was: Member, report: NodeReport, master: NodeReport, *, link: bool) -> int:
    """The most that a process can have that had a link."""
    if report.available and report.run_id == was.run_id:
        return UNKNOWN if link else report.offset  # a link that stands still may go on
    ended = report.available or report.condition == Failure.REFUSED.value
    return master.offset if ended else UNKNOWN  # who is out of this manager's sight may go on to copy


def _histories(known: Iterable[str], newest: Iterable[str]) -> tuple[str, ...]:
    fresh = [replid for replid in dict.fromkeys(newest) if replid.strip("0")]
    return tuple(dict.fromkeys([*(replid for replid in known if replid not in fresh), *fresh]))[-HISTORIES:]


def published(known: LastKnown | None, master: NodeReport, sealed: Mapping[Node, NodeReport], replid: str) -> LastKnown:
    """When `master` has taken over from the history `replid`: nobody is linked to it yet."""
    before = dict(known.members) if known else {}
    if known is not None:
        before[known.master] = Member(known.run_id, known.offset)
    # What others have beyond it is not part of what goes on.
    members = {node: Member(member.run_id, min(member.offset, master.offset)) for node, member in before.items()}
    members |= {node: Member(report.run_id, report.offset) for node, report in sealed.items()}
    members.pop(master.node, None)
    histories = _histories(known.histories if known else (), (replid, master.replid2, master.replid))
    return LastKnown(master.node, master.run_id, master.offset, members, histories, witnessed=True)


def merged(recorded: LastKnown | None, seen: LastKnown | None, topology: Topology | None) -> LastKnown | None:
    """Of what the store says and what this manager has seen itself.

    Only what is about the master in force counts. If both are, the one that has seen it further does: this manager may
    have been blind, another one may have written the record. At the same offset, a link is down if either says so.
    """
    if recorded is None or seen is None:
        return recorded if seen is None else seen
    histories = _histories(recorded.histories, seen.histories)
    if recorded.run_id != seen.run_id:
        current = seen if topology is not None and topology.run_id == seen.run_id else recorded
        return replace(current, histories=histories)
    fresh = seen.offset >= recorded.offset
    newer, older = (seen, recorded) if fresh else (recorded, seen)
    members = {**older.members, **newer.members}
    for node, member in newer.members.items():
        other = older.members.get(node)
        same = other is not None and other.run_id == member.run_id and newer.offset == older.offset
        if same and other is not None and not other.linked:
            members[node] = replace(member, linked=False)
    return replace(newer, members=members, histories=histories, witnessed=seen.witnessed and fresh)


def is_due(known: LastKnown, recorded: LastKnown | None, seconds: float) -> bool:
    """Whether it is to be written; `seconds`: since it was written last."""
    if recorded is None or _lasting(known) != _lasting(recorded):
        return True
    return seconds >= RENEWAL and replace(known, witnessed=False) != replace(recorded, witnessed=False)


def _lasting(known: LastKnown) -> LastKnown:
    members = {node: replace(member, offset=0) for node, member in known.members.items()}
    return replace(known, offset=0, members=members, witnessed=False)


def extent(report: NodeReport, replid: str) -> int:
    """How far into the history `replid` a candidate's data goes; one that has not followed it yet is before it."""
    return reach(report, replid) if continues(report, replid) else report.offset


def why_unproven(known: LastKnown, report: NodeReport, replid: str) -> str | None:
    """Why a server that continues the history `replid` may lack what clients were told; None when it is known not to.

    * The master's own process lacks nothing, nor does a replica whose link was up when the master was last seen, as
      far as asynchronous replication can promise it.
    * A new process at the master's address has what was saved there: it has to reach what was last known of the master.
    * Other processes have to reach that, too; and it has to be fresh, that is seen by this very manager. One that
      started anew and had no link before can have been stopped long before the last write: nothing is known of it.
    """
    behind = known.offset - extent(report, replid)
    gap = f": {behind} bytes behind what was last known of {known.master}" if behind > 0 else ""
    if report.node == known.master:
        started = report.run_id != known.run_id
        return f"it started anew{gap}" if started and gap else None
    member = known.members.get(report.node)
    same = member is not None and member.run_id == report.run_id
    linked = member is not None and member.linked
    if same and linked:
        return None
    if known.witnessed and not gap and (same or linked):
        return None
    why = "its link was down" if not linked else "it started anew"
    if not linked and not same:
        why = "its link was down, and it started anew"
    return f"{why} since {known.master} was last seen{gap or ', so it may lack what was written last'}"


def may_have_more(known: LastKnown, node: Node, extent: int) -> bool:
    """Whether a member that is not there may have what a candidate lacks whose data goes that far."""
    member = known.members.get(node)
    if node == known.master or member is None:
        return True
    return member != STRANGER and (member.linked or member.offset > extent)


def belongs(known: LastKnown | None, report: NodeReport) -> bool:
    """Whether the data of a server may be replaced by that of the master: it is this group's, or there is none.

    An append-only file does not keep the history (Redis: rdbSaveRio without rsi for its base). So a server that starts
    from one is known by its address, if a replica of this group ran there. A server without keys may be the master of
    others, or follow others, unless it is at the address of a member.
    """
    if known is None:
        return report.empty and report.connected_replicas == 0 and report.follows is None
    member = known.members.get(report.node)
    ours = report.node == known.master or (member is not None and member != STRANGER)
    if report.empty:
        alone = report.connected_replicas == 0 and (report.follows is None or _in(known, report.follows))
        return ours or alone
    if report.replid in known.histories or report.replid2 in known.histories:
        return True
    run_id = known.run_id if report.node == known.master else member.run_id if member else ""
    return ours and (report.run_id == run_id or report.aof)


def is_ours(known: LastKnown | None, topology: Topology | None, report: NodeReport) -> bool:
    """As `belongs`; what continues or precedes the history in force is this group's, whatever else is known."""
    if topology is None:
        return belongs(known, report)
    before = (topology.replid2, topology.replid2_offset)
    return continues(report, topology.replid) or precedes(report, before) or belongs(known, report)


def _in(known: LastKnown, node: Node) -> bool:
    return node == known.master or node in known.members


def left_alone(node: Node) -> str:
    """The same without figures, which change all the time."""
    return f"holds data of another history: left alone; 'rfmanager adopt {node}' lets it be overwritten"


def holding(report: NodeReport) -> str:
    """In words, what a server that does not belong to the group would lose, and what an operator can do."""
    return (
        f"holds data of another history ({report.keys} keys, {report.clients} clients, "
        f"{report.connected_replicas} replicas): left alone; 'rfmanager adopt {report.node}' lets it be overwritten"
    )
