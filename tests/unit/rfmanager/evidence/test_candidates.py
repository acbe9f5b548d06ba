"""Who may be promoted, and who is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmanager.evidence.candidates import CLOSE, choose, choose_planned, continues, reach, why_not
from rfprotocol.topology.topology import Node, NodeReport

A, B, C = (Node("h", port) for port in (1, 2, 3))


def replica(node: Node, **changes: Any) -> NodeReport:
    good = NodeReport(node, True, role="slave", replid="history", offset=100, link_up=True, latency=0.001)
    return replace(good, **changes)


def test_the_highest_offset_wins_even_over_a_lower_latency() -> None:
    choice = choose([replica(A, latency=0.0), replica(B, offset=101, latency=9.0)], "history")
    assert choice.best is not None
    assert choice.best.node == B


def test_latency_breaks_ties_and_then_the_address() -> None:
    tied = [replica(C), replica(B), replica(A, latency=1.0)]
    best = choose(tied, "history").best
    assert best is not None
    assert best.node == B


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"available": False, "condition": "timeout"}, "unavailable (timeout)"),
        (
            {"available": False, "condition": "timeout", "busy_with": "EVAL"},
            "unavailable (timeout): busy with EVAL for longer than --busy-patience",
        ),
        ({"condition": "loading"}, "answers loading"),
        ({"condition": "noauth"}, "answers noauth"),
        ({"syncing": True}, "full transfer"),
        ({"replid": "other"}, "another replication history"),
        ({"replid": "other", "empty": True}, "empty"),
        ({"offset": -1}, "interrupted"),
        ({"priority": 0}, "replica-priority is 0"),
    ],
)
def test_a_server_that_may_not_be_promoted_is_left_out_for_a_reason(changes: dict[str, Any], why: str) -> None:
    choice = choose([replica(A, offset=999), replica(B, **changes)], "history")
    assert choice.best is not None
    assert choice.best.node == A
    assert why in choice.excluded[B]
    assert why in choice.explain()


def test_misconf_and_busy_do_not_disqualify() -> None:
    assert why_not(replica(A, condition="misconf"), "history") is None


def test_a_restarted_or_promoted_server_competes_with_what_it_has_of_the_old_history() -> None:
    restarted = replica(A, replid="new", replid2="history", replid2_offset=91, offset=500)
    assert continues(restarted, "history")
    assert reach(restarted, "history") == 90
    best = choose([restarted, replica(B, offset=95)], "history").best
    assert best is not None
    assert best.node == B


def test_of_two_that_reach_as_far_the_one_that_goes_on_is_taken() -> None:
    goes_on = replica(B, replid="new", replid2="history", replid2_offset=101, offset=105)
    best = choose([replica(A), goes_on], "history").best
    assert best is not None
    assert best.node == B


def test_nothing_continues_an_unknown_history() -> None:
    assert not continues(replica(A, replid="", replid2=""), "")


def test_a_rejected_candidate_gives_way_to_one_with_as_much_data() -> None:
    best = choose([replica(A), replica(B, latency=1.0)], "history", rejected=(A,)).best
    assert best is not None
    assert best.node == B


def test_data_is_given_up_for_a_candidate_that_failed_twice_but_not_for_one_that_failed_once() -> None:
    more, less = replica(A, offset=200), replica(B)
    best = choose([more, less], "history", rejected=(A,)).best
    assert best is not None
    assert best.node == A
    best = choose([more, less], "history", rejected=(A, A)).best
    assert best is not None
    assert best.node == B


def test_candidates_that_all_fail_take_turns() -> None:
    more, less = replica(A, offset=200), replica(B, offset=100)
    tried: list[Node] = []
    for _ in range(8):
        best = choose([more, less], "history", rejected=tried).best
        assert best is not None
        tried.append(best.node)
    assert tried == [A, A, B, B, A, A, B, B]


def test_a_rejected_candidate_is_taken_when_nobody_else_is_left() -> None:
    best = choose([replica(A)], "history", rejected=(A, A)).best
    assert best is not None
    assert best.node == A


def test_what_followed_the_lost_master_before_its_promotion_has_its_history_up_to_there() -> None:
    follower = replica(A, replid="before", offset=90)
    assert choose([follower], "history", before=("before", 91)).best is not None
    assert choose([follower], "history", before=("before", 90)).best is None, "it went another way from there"
    assert choose([follower], "history").best is None
    best = choose([follower, replica(B, offset=95)], "history", before=("before", 91)).best
    assert best is not None
    assert best.node == B


def test_a_server_that_only_most_managers_miss_is_not_said_to_be_unavailable_and_ok() -> None:
    assert why_not(replica(A, available=False), "history") == "unavailable for most managers"


def test_a_planned_change_needs_a_connected_replica() -> None:
    choice = choose_planned([replica(A, link_up=False, offset=999), replica(B)], "history")
    assert choice.best is not None
    assert choice.best.node == B
    assert "not connected" in choice.excluded[A]


REPORTS = st.builds(
    replica,
    node=st.builds(Node, st.just("h"), st.integers(1, 5)),
    available=st.booleans(),
    offset=st.integers(-1, 5),
    replid=st.sampled_from(["history", "other"]),
    priority=st.integers(0, 1),
    syncing=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(REPORTS, unique_by=lambda report: report.node))
def test_nobody_fit_has_more_data_than_the_chosen_one(reports: list[NodeReport]) -> None:
    choice = choose(reports, "history")
    fit = [report for report in reports if why_not(report, "history") is None]
    assert (choice.best is None) == (not fit)
    assert {report.node for report in reports} == {report.node for report in fit} | set(choice.excluded)
    if choice.best is not None:
        assert choice.best.offset == max(report.offset for report in fit)


# --- versions


def test_version__of_equal_candidates__the_oldest_is_taken() -> None:
    best = choose([replica(A, version="8.0.0"), replica(B, version="7.0.15", latency=1.0)], "history").best
    assert best is not None
    assert best.node == B, "the others can copy from it"


def test_version__data_outranks_it() -> None:
    best = choose([replica(A, version="8.0.0", offset=101), replica(B, version="7.0.15")], "history").best
    assert best is not None
    assert best.node == A


def test_version__planned__nothing_gets_lost_so_it_decides() -> None:
    new = replica(A, version="8.0.0", offset=1000)
    best = choose_planned([new, replica(B, version="7.0.15", offset=100)], "history").best
    assert best is not None
    assert best.node == B


def test_version__planned__one_that_is_far_behind_is_not_waited_for() -> None:
    new = replica(A, version="8.0.0", offset=CLOSE + 1000)
    best = choose_planned([new, replica(B, version="7.0.15", offset=100)], "history").best
    assert best is not None
    assert best.node == A
