"""What is known of a group that comes back, and whose data may be overwritten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rfmanager.evidence.last_known import (
    HISTORIES,
    STRANGER,
    UNKNOWN,
    LastKnown,
    Member,
    Sight,
    belongs,
    holding,
    is_due,
    is_ours,
    looked,
    may_have_more,
    merged,
    published,
    why_unproven,
)
from rfprotocol.errors import RecordError
from rfprotocol.topology.topology import Node, NodeReport, Phase, Topology

A, B, C = (Node("h", port) for port in (1, 2, 3))
SERVING = Topology(1, Phase.SERVING, A, (B, C), run_id="a1", replid="first")
MASTER = NodeReport(A, True, role="master", run_id="a1", replid="first", offset=100)
REPLICA = NodeReport(B, True, role="slave", run_id="b1", replid="first", offset=90, follows=A, link_up=True)
KNOWN = LastKnown(A, "a1", 100, {B: Member("b1", 90, True), C: Member("c1", 80)}, ("first",), witnessed=True)


def seen(report: NodeReport, at: float = 10.0, since: float | None = None) -> Sight:
    return Sight(report, at, at if since is None else since)


def look(before: LastKnown | None, *sights: Sight, topology: Topology = SERVING) -> LastKnown | None:
    return looked(before, topology, {sight.report.node: sight for sight in sights})


def member(known: LastKnown | None, node: Node = B) -> Member | None:
    assert known is not None
    return known.members.get(node)


def test_look__replica_is_linked__its_process_and_offset_are_known() -> None:
    known = look(None, seen(MASTER), seen(REPLICA))
    assert known == LastKnown(A, "a1", 100, {B: Member("b1", 90, True)}, ("first",), True)


def test_look__link_is_down_and_the_master_lives__is_not_linked_any_more() -> None:
    before = look(None, seen(MASTER), seen(REPLICA))
    assert member(look(before, seen(MASTER, 12.0), seen(replace(REPLICA, link_up=False), 11.0))) == Member("b1", 90)


def test_look__link_is_down_and_the_master_was_not_seen_since__is_still_linked() -> None:
    """The death of a master takes all links down; that is seen of replicas first."""
    before = look(None, seen(MASTER), seen(REPLICA))
    after = look(before, seen(MASTER, 10.0), seen(replace(REPLICA, link_up=False), 11.0))
    assert member(after) == Member("b1", 90, True)


@pytest.mark.parametrize(("asked", "linked"), [(12.0, False), (11.0, True)])
def test_look__replica_is_gone__counts_when_the_master_answered_later(asked: float, linked: bool) -> None:
    before = look(None, seen(MASTER), seen(REPLICA))
    gone = replace(REPLICA, available=False, condition="refused", link_up=False)
    most = 90 if linked else 100  # it cannot have more than the master had
    assert member(look(before, seen(MASTER, asked), seen(gone, 10.0, since=11.5))) == Member("b1", most, linked)


@pytest.mark.parametrize(
    "changes", [{"available": False}, {"role": "slave"}, {"run_id": "a2"}], ids=["gone", "replica", "restarted"]
)
def test_look__master_is_not_seen_alive__nothing_is_learned(changes: dict[str, Any]) -> None:
    before = look(None, seen(MASTER), seen(REPLICA))
    down = replace(REPLICA, link_up=False, run_id="b2", offset=7)
    assert look(before, seen(replace(MASTER, **changes), 12.0), seen(down, 11.0)) == before


@pytest.mark.parametrize("phase", [Phase.FENCING, Phase.UNSETTLED])
def test_look__there_is_no_master__nothing_is_learned(phase: Phase) -> None:
    assert look(KNOWN, seen(MASTER), topology=replace(SERVING, phase=phase, master=None)) is KNOWN


def test_look__replica_started_anew_and_follows__its_new_process_is_a_member_without_a_link() -> None:
    anew = replace(REPLICA, run_id="b2", link_up=False, offset=5, replid="other")
    assert member(look(KNOWN, seen(MASTER, 12.0), seen(anew, 11.0))) == Member("b2", 5)


def test_look__stranger_at_the_address_of_a_member__ends_the_membership() -> None:
    stranger = NodeReport(B, True, role="master", run_id="x", replid="strange", offset=7)
    after = look(KNOWN, seen(MASTER, 12.0), seen(stranger, 11.0))
    assert member(after) == STRANGER
    assert member(look(after, seen(MASTER, 14.0), seen(REPLICA, 13.0))) == Member("b1", 90, True)
    assert not belongs(after, replace(stranger, run_id="y", replid="z", aof=True)), "it restarts from its own file"


@pytest.mark.parametrize("condition", ["timeout", "unreachable", "closed"])
def test_look__replica_is_out_of_sight__may_have_copied_on(condition: str) -> None:
    before = look(None, seen(MASTER), seen(REPLICA))
    gone = replace(REPLICA, available=False, condition=condition, link_up=False)
    after = look(before, seen(MASTER, 12.0), seen(gone, 10.0, since=11.5))
    assert member(after) == Member("b1", UNKNOWN)
    assert after is not None
    assert may_have_more(after, B, 10**9)


@pytest.mark.parametrize(("still", "linked"), [(4.9, True), (5.0, False)])
def test_look__data_of_a_replica_stands_still_behind_the_master__its_link_is_none(still: float, linked: bool) -> None:
    before = look(None, seen(MASTER), seen(REPLICA))
    after = look(before, seen(MASTER, 12.0), replace(seen(REPLICA, 11.0), still=still))
    assert member(after) == Member("b1", 90 if linked else UNKNOWN, linked)


def test_look__replica_started_anew_from_its_dump__its_next_start_is_known_by_that() -> None:
    once = NodeReport(B, True, role="master", run_id="b2", replid="anew", replid2="first", offset=90)
    twice = replace(once, run_id="b3", replid="again", replid2="anew")
    known = look(KNOWN, seen(MASTER, 12.0), seen(once, 11.0))
    assert belongs(known, twice)
    assert not belongs(KNOWN, twice)


def test_look__append_only_file_at_the_address_of_a_member__its_history_is_not_taken_over() -> None:
    other = NodeReport(B, True, role="master", run_id="x", replid="strange", offset=7, aof=True)
    known = look(KNOWN, seen(MASTER, 12.0), seen(other, 11.0))
    assert known is not None
    assert "strange" not in known.histories


def test_look__full_transfer_is_under_way__is_not_linked() -> None:
    assert member(look(None, seen(MASTER), seen(replace(REPLICA, syncing=True)))) == Member("b1", 90)


def test_look__another_master__histories_are_kept() -> None:
    topology = replace(SERVING, master=B, run_id="b1", replid="second", replid2="first")
    master = replace(MASTER, node=B, run_id="b1", replid="second", replid2="first")
    known = look(KNOWN, seen(master), topology=topology)
    assert known is not None
    assert (known.master, known.histories) == (B, ("first", "second"))


def test_look__many_histories__the_oldest_are_forgotten() -> None:
    old = replace(KNOWN, histories=tuple(f"old{n}" for n in range(HISTORIES)))
    known = look(old, seen(MASTER))
    assert known is not None
    assert known.histories == (*(f"old{n}" for n in range(1, HISTORIES)), "first")


def test_publication__new_master__nobody_is_linked_to_it_and_processes_are_kept() -> None:
    master = NodeReport(B, True, role="master", run_id="b1", replid="second", replid2="first", offset=91)
    sealed = {node: NodeReport(node, True, run_id=run_id, offset=91) for node, run_id in ((B, "b1"), (C, "c1"))}
    known = published(KNOWN, master, sealed, "first")
    assert (known.master, known.run_id, known.offset) == (B, "b1", 91)
    assert known.members == {A: Member("a1", 91), C: Member("c1", 91)}, "what is beyond the new master is gone"
    assert known.histories == ("first", "second")


def test_record__written_and_read__is_the_same() -> None:
    assert LastKnown.decode(KNOWN.encode()) == replace(KNOWN, witnessed=False)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"master": "h:1", "run_id": "a", "offset": "x"}', b"\xff"])
def test_record__something_else__is_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match="last_known"):
        LastKnown.decode(data)


def test_record_and_own_eyes__same_master__own_eyes_count_and_what_they_lack_is_added() -> None:
    recorded = replace(KNOWN, offset=50, histories=("zeroth", "first"), witnessed=False)
    own = replace(KNOWN, members={B: Member("b2", 95, True)})
    both = merged(recorded, own, SERVING)
    assert both == replace(own, members={B: Member("b2", 95, True), C: Member("c1", 80)}, histories=("zeroth", "first"))


def test_record_and_own_eyes__own_eyes_are_older__the_record_counts() -> None:
    recorded = replace(KNOWN, offset=200, witnessed=False)
    blind = replace(KNOWN, offset=100, members={B: Member("b1", 50)})
    assert merged(recorded, blind, SERVING) == recorded


def test_record_and_own_eyes__same_offset__a_link_that_is_down_for_one_is_down() -> None:
    recorded = replace(KNOWN, members={B: Member("b1", 90)}, witnessed=False)
    assert member(merged(recorded, KNOWN, SERVING)) == Member("b1", 90)


@pytest.mark.parametrize(
    ("node", "known", "more"),
    [
        (A, None, True),  # the master may have all
        (B, Member("b1", 10, True), True),
        (B, Member("b1", 101), True),
        (B, Member("b1", 100), False),
        (B, STRANGER, False),
        (B, None, True),  # never seen
    ],
)
def test_member_that_is_not_there__what_it_can_have__decides_whether_it_is_awaited(
    node: Node, known: Member | None, more: bool
) -> None:
    members = {B: known} if known is not None else {}
    assert may_have_more(replace(KNOWN, members=members), node, 100) is more


@pytest.mark.parametrize(
    ("changes", "ours"),
    [({}, True), ({"connected_replicas": 1}, False), ({"follows": C}, True), ({"follows": Node("x", 1)}, False)],
)
def test_server_without_keys__who_follows_whom__decides_whether_it_is_free(changes: dict[str, Any], ours: bool) -> None:
    newcomer = NodeReport(Node("new", 1), True, role="master", run_id="n", replid="new", empty=True)
    assert belongs(KNOWN, replace(newcomer, **changes)) is ours


def test_data__nothing_is_known_yet__only_servers_without_keys_and_others_are_taken() -> None:
    empty = NodeReport(B, True, role="master", run_id="n", replid="new", empty=True)
    assert belongs(None, empty)
    assert not belongs(None, replace(empty, empty=False))
    assert not belongs(None, replace(empty, connected_replicas=2))
    assert is_ours(None, SERVING, replace(empty, empty=False, replid="first"))


def test_record_and_own_eyes__another_master__the_record_counts() -> None:
    recorded = replace(KNOWN, run_id="a2", witnessed=False)
    assert merged(recorded, KNOWN, replace(SERVING, run_id="a2")) == recorded
    assert merged(None, KNOWN, SERVING) == KNOWN


@pytest.mark.parametrize(
    ("changes", "seconds", "due"),
    [
        ({}, 100.0, False),
        ({"offset": 101}, 2.9, False),
        ({"offset": 101}, 3.0, True),
        ({"members": {B: Member("b1", 91, True), C: Member("c1", 80)}}, 2.9, False),
        ({"members": {B: Member("b1", 90, False), C: Member("c1", 80)}}, 0.0, True),
        ({"members": {B: Member("b2", 90, True), C: Member("c1", 80)}}, 0.0, True),
        ({"histories": ("first", "second")}, 0.0, True),
    ],
)
def test_renewal__what_has_changed__decides_when(changes: dict[str, Any], seconds: float, due: bool) -> None:
    assert is_due(replace(KNOWN, **changes), replace(KNOWN, witnessed=False), seconds) is due


def test_renewal__nothing_is_written_yet__is_due() -> None:
    assert is_due(KNOWN, None, 0.0)


def candidate(node: Node, run_id: str, offset: int, **more: Any) -> NodeReport:
    return NodeReport(node, True, role="slave", run_id=run_id, replid="first", offset=offset, **more)


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (candidate(B, "b1", 10), None),  # replication is asynchronous: its link was up
        (candidate(A, "a1", 10), None),  # the master itself goes on
        (candidate(A, "a2", 100), None),  # saved all that is known
        (candidate(A, "a2", 99), "it started anew: 1 bytes behind what was last known of h:1"),
        (candidate(B, "b2", 100), None),
        (candidate(B, "b2", 99), "it started anew since h:1 was last seen: 1 bytes behind"),
        (candidate(C, "c1", 100), None),
        (candidate(C, "c1", 99), "its link was down since h:1 was last seen: 1 bytes behind"),
        (candidate(C, "c2", 100), "its link was down, and it started anew since h:1 was last seen, so it may lack"),
        (candidate(Node("h", 9), "x", 100), "its link was down, and it started anew"),
    ],
)
def test_candidate__what_was_last_known_of_it__decides(report: NodeReport, why: str | None) -> None:
    found = why_unproven(KNOWN, report, "first")
    assert (found is None) == (why is None)
    assert why is None or why in (found or "")


@pytest.mark.parametrize("report", [candidate(B, "b2", 100), candidate(C, "c1", 100)])
def test_candidate__only_a_record_tells_of_the_master__offsets_prove_nothing(report: NodeReport) -> None:
    """Managers may have been stopped long before the master."""
    assert why_unproven(replace(KNOWN, witnessed=False), report, "first") is not None
    assert why_unproven(replace(KNOWN, witnessed=False), candidate(B, "b1", 10), "first") is None
    assert why_unproven(replace(KNOWN, witnessed=False), candidate(A, "a2", 100), "first") is None


def test_candidate__master_started_anew_as_a_master__its_former_history_is_compared() -> None:
    anew = NodeReport(
        A, True, role="master", run_id="a2", replid="new", replid2="first", replid2_offset=101, offset=100
    )
    assert why_unproven(KNOWN, anew, "first") is None
    assert why_unproven(KNOWN, replace(anew, replid2_offset=100, offset=99), "first") is not None


FOREIGN = NodeReport(B, True, role="master", run_id="x", replid="strange", offset=7, keys=50, clients=3)


@pytest.mark.parametrize(
    ("report", "ours"),
    [
        (FOREIGN, False),
        (replace(FOREIGN, empty=True), True),
        (replace(FOREIGN, replid="first"), True),
        (replace(FOREIGN, replid2="first"), True),
        (replace(FOREIGN, run_id="b1"), True),
        (replace(FOREIGN, aof=True), True),  # an append-only file keeps no history
        (replace(FOREIGN, node=Node("h", 9), aof=True), False),
        (replace(FOREIGN, node=A), False),
        (replace(FOREIGN, node=A, aof=True), True),
        (replace(FOREIGN, node=A, run_id="a1"), True),
    ],
)
def test_data__of_whom_it_is__decides_whether_it_may_be_overwritten(report: NodeReport, ours: bool) -> None:
    assert belongs(KNOWN, report) is ours


def test_data__of_a_stranger__is_counted_and_the_way_out_is_said() -> None:
    said = holding(replace(FOREIGN, connected_replicas=1))
    assert "50 keys, 3 clients, 1 replicas" in said
    assert "'rfmanager adopt h:2'" in said
