"""Managers that are too few, or told different things, and servers that are listed twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.evidence.consistency import complaints, disagreements, doubles, same_process, too_few
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport

A, B, C = (Node(name, 6379) for name in "abc")
ALONE = ManagerReport("m1", configured=(A, B), required=2, strategy="majority")


def managers(*reports: ManagerReport) -> dict[str, ManagerReport]:
    return {f"m{number}": replace(report, manager=f"m{number}") for number, report in enumerate(reports, 1)}


def up(node: Node, run_id: str) -> NodeReport:
    return NodeReport(node, True, role="master", run_id=run_id)


@pytest.mark.parametrize(
    ("reporting", "required", "said"),
    [
        (1, 2, "1 of 2 required managers report: nobody is promoted; start the others"),
        (2, 3, "2 of 3 required managers report: nobody is promoted; start the others"),
        (2, 2, ""),
        (3, 2, ""),
        (1, 0, ""),  # one of an earlier release
    ],
)
def test_too_few__managers_report__is_said_with_how_many_have_to(reporting: int, required: int, said: str) -> None:
    assert too_few(managers(*[replace(ALONE, required=required)] * reporting)) == said


def test_too_few__nobody_reports__is_said() -> None:
    assert too_few({}) == "no manager reports: nobody is promoted"


def test_too_few__managers_disagree__the_primary_one_decides() -> None:
    seen = managers(replace(ALONE, required=1), replace(ALONE, required=3))
    assert too_few(seen, primary="m1") == ""
    assert too_few(seen, primary="m2").startswith("2 of 3 ")
    assert too_few(seen).startswith("2 of 3 ")


def test_disagreements__alike__none() -> None:
    assert disagreements(managers(ALONE, replace(ALONE, configured=(B, A)), ManagerReport("old"))) == []


def test_disagreements__options_differ__each_value_with_its_managers() -> None:
    seen = managers(ALONE, replace(ALONE, required=1), replace(ALONE, strategy="single"))
    assert disagreements(seen) == [
        "the managers have different values of --required-node-managers: 1 (m2); 2 (m1, m3)",
        "the managers have different values of --node-strategy: majority (m1, m2); single (m3)",
    ]


def test_disagreements__server_lists_differ__who_names_what() -> None:
    seen = managers(ALONE, ALONE, replace(ALONE, configured=(A, C)))
    assert disagreements(seen) == [
        "manager m3: other servers than m1, m2 (option --nodes): lacking b:6379, additional c:6379"
    ]


def test_disagreements__two_managers__the_primary_one_counts_as_usual() -> None:
    seen = managers(ALONE, replace(ALONE, configured=(A, B, C)))
    assert disagreements(seen, primary="m2") == ["manager m1: other servers than m2 (option --nodes): lacking c:6379"]


def test_doubles__one_process_behind_two_names__is_named() -> None:
    seen = managers(replace(ALONE, nodes=(up(A, "f00d" * 10), up(B, "f00d" * 10), up(C, "beef" * 10))))
    assert same_process(seen) == {"f00d" * 10: [A, B]}
    assert doubles(seen) == [
        "a:6379 and b:6379 are one server (run id f00df00d): name it alike in the options of all managers"
    ]


def test_doubles__seen_by_different_managers_at_different_times__is_none() -> None:
    """An address that now belongs to another server may be known as it was to a manager that lags."""
    seen = managers(replace(ALONE, nodes=(up(A, "f00d"), up(B, "beef"))), replace(ALONE, nodes=(up(B, "f00d"),)))
    assert doubles(seen) == []


def test_doubles__a_server_that_is_down__is_none() -> None:
    down = replace(up(B, "f00d"), available=False)
    assert doubles(managers(replace(ALONE, nodes=(up(A, "f00d"), down)))) == []


def test_complaints__the_worst_first() -> None:
    seen = managers(replace(ALONE, required=3, nodes=(up(A, "f00d"), up(B, "f00d"))), replace(ALONE, configured=(A,)))
    assert [line.split(":")[0] for line in complaints(seen)] == [
        "2 of 3 required managers report",
        "the managers have different values of --required-node-managers",
        "manager m2",
        "a",
    ]


def test_too_few_and_disagreements__node_managers_of_the_gem__are_not_counted_nor_blamed() -> None:
    gems = ManagerReport("h1-12", nodes=(up(A, ""), up(B, "")))
    assert (
        too_few({"m1": ALONE, "h1-12": gems}) == "1 of 2 required managers report: nobody is promoted; start the others"
    )
    assert complaints({"m1": replace(ALONE, required=1), "h1-12": gems}) == []
    assert complaints({"h1-12": gems}) == []
