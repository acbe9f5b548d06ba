"""The topology and the managers' reports: what both programs and Ruby's clients read."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.errors import ConfigError, RecordError
from rfprotocol.topology.topology import FORMAT, Change, Kind, ManagerReport, Node, NodeReport, Phase, Topology

HOSTS = st.sampled_from(["a", "redis-1.example.net", "10.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0"])
NODES = st.builds(Node, HOSTS, st.integers(1, 65535))
LISTS = st.lists(NODES, max_size=4).map(tuple)
COUNTS = st.integers(0, 2**53)
SECONDS = st.floats(0, 4e9)
STEPS = st.lists(st.tuples(st.text(), SECONDS), max_size=3).map(tuple)
NAMES = st.text(max_size=5)


@st.composite
def changes(draw: st.DrawFn, with_target: bool) -> Change:
    return Change(
        kind=draw(st.sampled_from(Kind)),
        cause=draw(NAMES),
        former=draw(st.none() | NODES),
        target=draw(NODES if with_target else st.none() | NODES),
        rejected=draw(LISTS),
        manager=draw(NAMES),
        steps=draw(STEPS),
        request=draw(COUNTS),
        run_id=draw(NAMES),
    )


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    phase = draw(st.sampled_from(Phase))
    needs_target = phase in (Phase.PROMOTING, Phase.DRAINING)
    change = changes(with_target=needs_target)
    return Topology(
        epoch=draw(COUNTS),
        phase=phase,
        master=draw(NODES) if phase is Phase.SERVING else None,
        replicas=draw(LISTS),
        unavailable=draw(LISTS),
        run_id=draw(NAMES),
        replid=draw(NAMES),
        change=draw(change if needs_target else st.none() | change),
        replid2=draw(NAMES),
        replid2_offset=draw(st.integers(-1, 2**53)),
        eviction=draw(st.sampled_from(["", "allkeys-lru"])),
    )


NODE_REPORTS = st.builds(
    NodeReport,
    node=NODES,
    available=st.booleans(),
    condition=st.sampled_from(["ok", "loading", "noauth", "timeout"]),
    latency=st.floats(0, 10).map(lambda seconds: round(seconds, 6)),
    role=st.sampled_from(["", "master", "slave"]),
    run_id=NAMES,
    replid=NAMES,
    replid2=NAMES,
    replid2_offset=st.integers(-1, 2**53),
    offset=st.integers(-1, 2**53),
    follows=st.none() | NODES,
    link_up=st.booleans(),
    syncing=st.booleans(),
    serves_stale=st.booleans(),
    priority=COUNTS,
    empty=st.booleans(),
    connected_replicas=COUNTS,
    software=st.sampled_from(["", "valkey"]),
    version=NAMES,
    eviction=NAMES,
    events=st.none() | NAMES,
    unlinked_for=st.floats(0, 1e6),
    unsaved=NAMES,
)


def by_availability(reports: list[NodeReport]) -> tuple[NodeReport, ...]:
    return tuple(sorted(reports, key=lambda report: not report.available))


MANAGER_REPORTS = st.builds(
    ManagerReport,
    manager=st.just("m1"),
    sequence=COUNTS,
    nodes=st.lists(NODE_REPORTS, max_size=4, unique_by=lambda report: report.node).map(by_availability),
    waits_for=st.text(max_size=20),
    configured=st.lists(NODES, max_size=4).map(tuple),
    required=COUNTS,
    strategy=st.sampled_from(["", "majority", "single"]),
)
SERVING = Topology(7, Phase.SERVING, Node("a", 1), (Node("b", 2),), (Node("::1", 3),))


class TestNode:
    @given(NODES)
    def test_an_address_is_read_as_it_is_written(self, node: Node) -> None:
        assert Node.parse(str(node)) == node
        assert Node.parse(f" {node}\n") == node

    def test_an_ipv6_address_stands_in_brackets(self) -> None:
        assert str(Node("::1", 6379)) == "[::1]:6379"
        assert Node.parse("[::1]:6379") == Node("::1", 6379)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a",
            "a:",
            ":1",
            "a:b",
            "a:0",
            "a:65536",
            "a:-1",
            "::1:6379",
            "[::1]",
            "[]:1",
            "a b:1",
            "a:1,b:2",
            "a:1/x",
        ],
    )
    def test_anything_else_is_refused_by_its_name(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Node.parse(text)
        assert repr(text) in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "why"),
        [
            ("db..example", "nothing stands before a dot"),
            (".example", "nothing stands before a dot"),
            (".", "nothing stands before a dot"),
            ("a" * 64 + ".example", "a part between dots has more than 63 characters"),
            ("ü" * 60, "a part between dots has more than 63 characters"),
            ("a\ud800", "one that host names cannot have"),
            (".".join(["a" * 63] * 4), "it has more than 253 characters"),
        ],
    )
    def test_host_that_cannot_be_looked_up__refused_in_one_line(self, host: str, why: str) -> None:
        with pytest.raises(ConfigError, match=why) as caught:
            Node.parse(f"{host}:6379")
        assert "\n" not in str(caught.value)
        assert Node.recorded(f"{host}:6379") == Node(host, 6379)

    @pytest.mark.parametrize("host", ["a", "a_b", "-a-", "db.example.", "a" * 63, "bücher.example", "10.0.0.1", "x--y"])
    def test_host_that_may_exist__accepted(self, host: str) -> None:
        assert Node.parse(f"{host}:6379").host == host
        host.encode("idna")

    def test_parse__a_host_without_a_port__takes_the_usual_one_where_there_is_one(self) -> None:
        assert Node.parse("redis1", 6379) == Node.parse(" redis1\n", 6379) == Node("redis1", 6379)
        assert Node.parse("redis1:1", 6379) == Node("redis1", 1)
        assert Node.parse("[::1]", 6379) == Node("::1", 6379)

    @pytest.mark.parametrize("text", ["", "6379", "a:", "::1", "2001:db8::1", "[]", "a b", "a,b", "a/x"])
    def test_parse__no_host_alone__refused_also_where_there_is_a_usual_port(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is not host:port") as caught:
            Node.parse(text, 6379)
        assert repr(text) in str(caught.value)

    @given(st.text())
    def test_accepted_host__can_be_asked_for(self, text: str) -> None:
        with contextlib.suppress(ConfigError):
            Node.parse(f"{text}:1").host.encode("idna")

    @given(st.text())
    def test_no_text_raises_anything_else(self, text: str) -> None:
        with contextlib.suppress(ConfigError):
            assert 0 < Node.parse(text).port < 65536


class TestTopology:
    @given(topologies())
    def test_it_is_read_as_it_was_written(self, topology: Topology) -> None:
        assert Topology.decode(topology.encode()) == topology

    def test_rubys_client_finds_its_three_keys_in_its_own_forms(self) -> None:
        record = json.loads(SERVING.encode())
        assert record["master"] == "a:1"
        assert record["slaves"] == ["b:2"]
        assert record["unavailable"] == ["[::1]:3"]

    @given(topologies())
    def test_rubys_client_never_finds_them_missing_or_of_another_type(self, topology: Topology) -> None:
        record = json.loads(topology.encode())
        assert record["master"] is None or isinstance(record["master"], str)
        assert all(isinstance(text, str) for key in ("slaves", "unavailable") for text in record[key])

    def test_what_rubys_manager_wrote_is_epoch_0(self) -> None:
        data = b'{"master":"a:1","slaves":["b:2"],"unavailable":[]}'
        assert Topology.decode(data) == Topology(0, Phase.SERVING, Node("a", 1), (Node("b", 2),))

    def test_what_rubys_manager_wrote_without_a_master_is_unsettled(self) -> None:
        data = b'{"master":null,"slaves":[],"unavailable":["a:1"]}'
        assert Topology.decode(data) == Topology(0, Phase.UNSETTLED, unavailable=(Node("a", 1),))

    def test_only_rubys_manager_writes_neither_epoch_nor_process(self) -> None:
        gems = Topology(0, Phase.SERVING, Node("a", 1))
        assert gems.is_gems
        assert not replace(gems, run_id="x").is_gems
        assert not replace(gems, epoch=1).is_gems

    def test_manager_report__written_by_the_gem__is_known_as_such(self) -> None:
        assert ManagerReport.decode("m", b'{"available": {"a:1": 0.001}, "unavailable": []}').is_gems
        for ours in (ManagerReport("m", 1), ManagerReport("m", configured=())):
            assert not ManagerReport.decode("m", ours.encode()).is_gems

    def test_fields_of_later_releases_are_passed_over(self) -> None:
        record = {**json.loads(SERVING.encode()), "mood": "good"}
        assert Topology.decode(json.dumps(record).encode()) == SERVING

    def test_a_future_format_is_not_guessed_at(self) -> None:
        record = {**json.loads(SERVING.encode()), "format": FORMAT + 1}
        with pytest.raises(RecordError, match=f"format {FORMAT + 1}.*upgrade"):
            Topology.decode(json.dumps(record).encode())

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"{}", b'"master"'])
    def test_what_is_no_record_is_an_error(self, data: bytes) -> None:
        with pytest.raises(RecordError, match="nodes record"):
            Topology.decode(data)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"master": 5},
            {"master": "a"},
            {"slaves": "b:2"},
            {"slaves": [5]},
            {"unavailable": {"b:2": 1}},
            {"epoch": -1},
            {"epoch": "7"},
            {"epoch": 7.5},
            {"epoch": True},
            {"phase": "resting"},
            {"format": "1"},
            {"change": 5},
            {"change": {"kind": "coup"}},
            {"change": {}},
        ],
    )
    def test_a_wrong_value_is_an_error(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(RecordError):
            Topology.decode(json.dumps({**json.loads(SERVING.encode()), **wrong}).encode())

    @pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SERVING])
    def test_a_master_in_any_phase_but_serving_is_a_contradiction(self, phase: Phase) -> None:
        with pytest.raises(RecordError):
            Topology.decode(json.dumps({**json.loads(SERVING.encode()), "phase": phase.value}).encode())

    def test_serving_without_a_master_is_a_contradiction(self) -> None:
        with pytest.raises(RecordError, match="contradicts itself"):
            Topology.decode(json.dumps({**json.loads(SERVING.encode()), "master": None}).encode())

    @pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.DRAINING])
    def test_a_promotion_of_nobody_is_an_error(self, phase: Phase) -> None:
        aimless = Topology(7, phase, change=Change(Kind.FAILOVER, "x", Node("a", 1)))
        with pytest.raises(RecordError, match="not for whom"):
            Topology.decode(aimless.encode())

    @given(st.binary())
    def test_no_bytes_raise_anything_else(self, data: bytes) -> None:
        with pytest.raises(RecordError) as caught:
            Topology.decode(data)
        assert "\n" not in str(caught.value)

    def test_it_knows_every_server_it_speaks_of(self) -> None:
        assert SERVING.nodes == {Node("a", 1), Node("b", 2), Node("::1", 3)}
        change = Change(Kind.FAILOVER, "x", former=Node("a", 1), target=Node("b", 2))
        assert Topology(8, Phase.PROMOTING, change=change).nodes == {Node("a", 1), Node("b", 2)}


@pytest.mark.parametrize("host", ["db..example", "a" * 64])
def test_record_with_a_host_that_cannot_be_looked_up__is_read_all_the_same(host: str) -> None:
    """A release that accepted it, or the gem, may have written it: the other servers must not be lost for that."""
    lost = Node(host, 6379)
    topology = Topology(1, Phase.SERVING, Node("a", 1), (Node("b", 2),), (lost,))
    assert Topology.decode(topology.encode()) == topology
    report = ManagerReport("m", 1, (NodeReport(lost, available=False, condition="unresolved"),))
    assert ManagerReport.decode("m", report.encode()) == report


@pytest.mark.parametrize("host", ["db..example", "a b", "a" * 300, "", "x[y]", "::1"])
def test_replica_that_was_pointed_to_nonsense__report_is_read_all_the_same(host: str) -> None:
    """Redis accepts any text as the host of its master."""
    report = ManagerReport("m", 1, (NodeReport(Node("a", 1), available=True, role="slave", follows=Node(host, 6379)),))
    assert ManagerReport.decode("m", report.encode()) == report


class TestReports:
    @given(MANAGER_REPORTS)
    def test_a_report_is_read_as_it_was_written(self, report: ManagerReport) -> None:
        assert ManagerReport.decode("m1", report.encode()) == report

    @given(MANAGER_REPORTS)
    def test_rubys_manager_finds_its_two_keys_in_its_own_forms(self, report: ManagerReport) -> None:
        record = json.loads(report.encode())
        assert record["available"] == {str(n.node): n.latency for n in report.nodes if n.available}
        assert record["unavailable"] == [str(n.node) for n in report.nodes if not n.available]

    def test_a_report_of_rubys_manager_has_no_details(self) -> None:
        report = ManagerReport.decode("m1", b'{"available":{"a:1":0.002},"unavailable":["b:2"]}')
        up = NodeReport(Node("a", 1), available=True, latency=0.002)
        assert report == ManagerReport("m1", 0, (up, NodeReport(Node("b", 2), available=False)))

    def test_details_of_later_releases_are_passed_over(self) -> None:
        data = b'{"available": {"a:1": 0.5}, "nodes": {"a:1": {"mood": "good", "role": "master"}}}'
        assert ManagerReport.decode("m1", data).nodes == (
            NodeReport(Node("a", 1), available=True, latency=0.5, role="master"),
        )

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b'{"available": ["a:1"]}',
            b'{"available": {"a": 1}}',
            b'{"available": {"a:1": "fast"}}',
            b'{"unavailable": "a:1"}',
            b'{"sequence": -1}',
            b'{"required": "2"}',
            b'{"configured": "a:1"}',
            b'{"nodes": {"a:1": 5}, "available": {"a:1": 1}}',
            b'{"nodes": {"a:1": {"role": 5}}, "available": {"a:1": 1}}',
            b'{"nodes": {"a:1": {"offset": "5"}}, "available": {"a:1": 1}}',
            b'{"nodes": {"a:1": {"link_up": "yes"}}, "available": {"a:1": 1}}',
            b'{"nodes": {"a:1": {"follows": "b"}}, "available": {"a:1": 1}}',
            b'{"nodes": {"a:1": {"follows": 5}}, "available": {"a:1": 1}}',
            b'{"format": 99}',
        ],
    )
    def test_a_corrupt_report_is_an_error_that_names_the_manager(self, data: bytes) -> None:
        with pytest.raises(RecordError, match="manager m1"):
            ManagerReport.decode("m1", data)


@pytest.mark.parametrize("events", [7, ["KEA"], True])
def test_report__events_of_another_type__refused(events: object) -> None:
    with pytest.raises(TypeError, match="events of a:1"):
        NodeReport.decode(Node("a", 1), True, {"events": events})
