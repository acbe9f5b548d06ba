"""Who can copy from whom."""

from __future__ import annotations

import pytest

from rfmanager.evidence.versions import age, can_copy, named, shown, warning
from rfprotocol.topology.topology import Node, NodeReport


def server(said: str, port: int = 1) -> NodeReport:
    """One of this version, `valkey 9.1.2` or `7.0.15`; nothing: not known."""
    software, _, version = said.rpartition(" ")
    return NodeReport(Node("h", port), True, software=software, version=version)


@pytest.mark.parametrize(
    ("replica", "master", "copies"),
    [
        ("6.2.14", "6.2.20", True),
        ("6.2.14", "7.0.15", False),
        ("7.0.15", "6.2.14", True),
        ("7.0.15", "7.2.4", False),
        ("7.4.0", "8.4.1", True),
        ("8.4.1", "8.6.0", False),
        ("8.6.0", "8.10.0", False),
        ("8.10.0", "8.6.0", True),
        ("7.0.15", "valkey 8.1.8", False),
        ("7.2.4", "valkey 8.1.8", True),
        ("7.2.4", "valkey 9.1.2", True),
        ("valkey 8.1.8", "valkey 9.1.2", True),
        ("valkey 9.1.2", "valkey 9.1.2", True),
        ("valkey 9.1.2", "valkey 8.1.8", True),
        ("valkey 9.1.2", "7.2.4", True),
        ("valkey 8.1.8", "7.0.15", True),
        ("valkey 8.1.8", "7.4.0", False),
        ("valkey 9.1.2", "8.0.0", False),
        ("", "8.0.0", True),
        ("7.0.15", "", True),
        ("dragonfly 1.0", "8.0.0", True),
        ("7.0.15-debian", "7.2-rc1", False),
    ],
)
def test_copy__of_a_master__by_a_replica(replica: str, master: str, copies: bool) -> None:
    assert can_copy(server(replica), server(master)) is copies


def test_age__oldest_first__by_format_and_then_by_version() -> None:
    said = ["valkey 9.1.2", "7.0.15", "8.0.0", "7.0.9", "7.4.1", "valkey 8.1.8", ""]
    assert sorted(said, key=lambda text: age(server(text))) == [
        "",
        "7.0.9",
        "7.0.15",
        "valkey 8.1.8",
        "7.4.1",
        "8.0.0",
        "valkey 9.1.2",
    ]


def test_warning__names_those_that_cannot_copy() -> None:
    group = [server("8.0.0", 1), server("7.0.15", 2), server("7.4.0", 3)]
    said = warning(group[0], group)
    assert "h:2 (Redis 7.0.15)" in said
    assert "h:1 (Redis 8.0.0)" in said
    assert "h:3" not in said
    assert warning(group[1], group) == ""


def test_name__for_people() -> None:
    assert (shown(server("7.0.15")), shown(server("valkey 9.1.2")), shown(server(""))) == ("7.0.15", "valkey 9.1.2", "")
    assert named(server("valkey 9.1.2")) == "valkey 9.1.2"
