"""What several managers say together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.evidence.agreement import Outseen, Roll, Rule, Strategy, judge, outseen
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport

NODE = Node("h", 1)
UP = NodeReport(NODE, available=True, role="master", offset=10)
DOWN = NodeReport(NODE, available=False, condition="refused")


def say(name: str, view: NodeReport | None, sequence: int = 0) -> ManagerReport:
    return ManagerReport(name, sequence, (view,) if view else ())


@pytest.mark.parametrize(
    ("strategy", "up", "down", "available"),
    [
        (Strategy.MAJORITY, 2, 1, True),
        (Strategy.MAJORITY, 1, 2, False),
        (Strategy.MAJORITY, 1, 1, True),
        (Strategy.MAJORITY, 0, 1, False),
        (Strategy.CONSENSUS, 1, 2, True),
        (Strategy.CONSENSUS, 0, 3, False),
        (Strategy.SINGLE, 2, 1, False),
        (Strategy.SINGLE, 3, 0, True),
    ],
)
def test_the_strategies_of_the_gem_decide(strategy: Strategy, up: int, down: int, available: bool) -> None:
    own, *others = [say(f"m{n}", view) for n, view in enumerate([UP] * up + [DOWN] * down)]
    assert judge(own, others, Rule(strategy), {})[NODE].available is available


def test_without_enough_reports_there_is_no_verdict() -> None:
    rule = Rule(required=2)
    assert judge(say("a", DOWN), [], rule, {}) == {}
    assert judge(say("a", DOWN), [say("b", None)], rule, {}) == {}
    assert not judge(say("a", DOWN), [say("b", DOWN)], rule, {})[NODE].available


def test_the_primary_prefers_its_own_details() -> None:
    standing = judge(say("a", UP), [say("b", replace(UP, offset=99))], Rule(), {NODE: 5.0})[NODE]
    assert standing.report.offset == 10
    assert standing.sampled_at == 5.0


def test_details_from_others_are_hearsay_and_never_fresh() -> None:
    others = [say("b", UP), say("c", UP)]
    standing = judge(say("a", DOWN), others, Rule(), {NODE: 5.0})[NODE]
    assert standing.available
    assert standing.report == UP
    assert standing.sampled_at == float("-inf")


def test_a_report_that_is_not_renewed_stops_counting() -> None:
    roll = Roll()
    assert roll.live(0.0, {"b": say("b", UP, 1)}, 2.0)
    assert roll.live(2.0, {"b": say("b", UP, 1)}, 2.0)
    assert not roll.live(2.1, {"b": say("b", UP, 1)}, 2.0)
    assert roll.live(2.2, {"b": say("b", UP, 2)}, 2.0), "renewed"


def test_a_manager_that_left_and_came_back_is_new() -> None:
    roll = Roll()
    roll.live(0.0, {"b": say("b", UP, 1)}, 2.0)
    roll.live(1.0, {}, 2.0)
    assert roll.live(9.0, {"b": say("b", UP, 1)}, 2.0)


# --- who sees more


def sees(name: str, *ports: int) -> ManagerReport:
    """Of three servers, those that it reaches."""
    nodes = (NodeReport(Node("h", port), available=port in ports) for port in (1, 2, 3))
    return ManagerReport(name, 0, tuple(nodes))


@pytest.mark.parametrize(
    ("own", "others", "unseen"),
    [
        ((1, 2, 3), [(1, 2, 3), (1, 2, 3)], ()),
        ((2, 3), [(1, 2, 3), (1, 2, 3)], (1,)),
        ((3,), [(1, 2, 3), (1, 2, 3)], (1, 2)),
        ((2, 3), [(1, 2), (1, 3)], ()),  # nobody sees all that this one does
        ((1, 2), [(2, 3), (1, 3)], ()),
        ((2, 3), [(1, 2, 3), (2, 3)], ()),  # for most, it is down
        ((2, 3), [], ()),
    ],
)
def test_a_server_that_is_up_is_missed_by_who_sees_less_than_another_manager(
    own: tuple[int, ...], others: list[tuple[int, ...]], unseen: tuple[int, ...]
) -> None:
    mine, *reports = [sees(f"m{number}", *ports) for number, ports in enumerate([own, *others])]
    assert outseen(mine, reports, judge(mine, reports, Rule(), {})) == {Node("h", port) for port in unseen}


def test_of_two_managers_at_most_one_is_outseen() -> None:
    some, more = sees("a", 2, 3), sees("b", 1, 2, 3)
    standings = judge(some, [more], Rule(), {})
    assert outseen(some, [more], standings)
    assert not outseen(more, [some], standings)


def test_the_role_is_not_left_to_a_manager_that_may_command_nothing() -> None:
    mine, other = sees("a", 1, 2), sees("b", 1, 2, 3)
    other = replace(other, nodes=tuple(replace(node, condition="noauth") for node in other.nodes))
    assert not outseen(mine, [other], judge(mine, [other], Rule(), {}))


def test_a_server_that_this_manager_does_not_know_is_not_missed() -> None:
    mine, other = ManagerReport("a", 0, sees("a", 1, 2).nodes[:2]), sees("b", 1, 2, 3)
    assert not outseen(mine, [other], judge(mine, [other], Rule(), {}))


def test_outseen__a_server_came_back_and_another_manager_saw_it_first__is_not_lasting() -> None:
    watch = Outseen(enough=4.0, one_probe=1.0)
    down = Node("h", 1)
    assert watch.lasting(10.0, {}) == ()
    assert watch.lasting(10.1, {down: 0.0}) == ()
    assert watch.lasting(11.0, {down: 0.0}) == ()
    assert watch.lasting(11.2, {down: 0.0}) == (down,)


def test_outseen__seen_in_between__counts_anew() -> None:
    watch = Outseen(enough=4.0, one_probe=1.0)
    down = Node("h", 1)
    watch.lasting(10.0, {down: 0.0})
    watch.lasting(10.9, {})
    assert watch.lasting(11.2, {down: 0.0}) == ()


def test_outseen__own_probes_fail_for_a_moment_only__is_not_lasting() -> None:
    watch = Outseen(enough=4.0, one_probe=1.0)
    down = Node("h", 1)
    watch.lasting(10.0, {down: 9.0})
    assert watch.lasting(12.9, {down: 9.0}) == ()
    assert watch.lasting(13.1, {down: 9.0}) == (down,)


def test_outseen__nothing__is_nothing() -> None:
    assert Outseen(enough=4.0, one_probe=1.0).lasting(10.0, {}) == ()
