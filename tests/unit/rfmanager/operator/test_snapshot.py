"""What an operator is shown follows from the records, and a bad record hides nothing but itself."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.operator.snapshot import GoneBack, Pause, Snapshot, leader
from rfprotocol.store.interface import Entry
from rfprotocol.topology.records import ManualRequest, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import Change, Kind, ManagerReport, Node, NodeReport, Phase, Topology

A, B, C = (Node(name, 6379) for name in "abc")


def entry(data: bytes) -> Entry:
    return Entry(data, version=0, created=1, owner=0)


def topology(phase: Phase = Phase.SERVING, master: Node | None = A, change: Change | None = None) -> Entry:
    return entry(Topology(7, phase, master, replicas=(B,), unavailable=(C,), change=change).encode())


def server(node: Node, role: str = "slave", offset: int = 100, replid: str = "r", up: bool = True) -> NodeReport:
    return NodeReport(node, up, role=role, offset=offset, replid=replid)


def reports(**by_manager: list[NodeReport]) -> dict[str, Entry]:
    return {name: entry(ManagerReport(name, 1, tuple(seen)).encode()) for name, seen in by_manager.items()}


def seats(*names: str) -> dict[str, Entry]:
    return {f"token-{name}_{number:010d}": entry(name.encode()) for number, name in enumerate(names)}


def test_an_empty_store_gives_an_empty_snapshot() -> None:
    snapshot = Snapshot.of()
    assert snapshot == Snapshot()
    assert (snapshot.epoch, snapshot.servers) == (0, [])


def test_the_first_contender_is_the_primary_manager() -> None:
    assert leader({"x_0000000012": entry(b"late"), "y_0000000003": entry(b"early")}) == "early"


def test_a_record_among_the_contenders_that_is_no_seat_does_not_lead() -> None:
    assert leader({"note": entry(b"?"), "y_0000000003": entry(b"early")}) == "early"


def test_the_master_comes_first_and_each_server_shows_how_it_is_listed() -> None:
    servers = Snapshot.of(nodes=topology(), managers=reports(m=[server(Node("new", 1))])).servers
    assert [(str(s.node), s.listed) for s in servers] == [
        ("a:6379", "master"),
        ("b:6379", "replica"),
        ("c:6379", "unavailable"),
        ("new:1", "unlisted"),
    ]


def test_during_a_change_the_former_master_and_its_successor_are_named() -> None:
    change = Change(Kind.SWITCHOVER, "asked", former=A, target=B)
    listed = {s.node: s.listed for s in Snapshot.of(nodes=topology(Phase.DRAINING, None, change)).servers}
    assert listed == {A: "former", B: "target", C: "unavailable"}


def test_lag_is_the_distance_to_the_master_in_the_same_report() -> None:
    managers = reports(m=[server(A, "master", 150), server(B, offset=100)])
    lag = {s.node: s.lag for s in Snapshot.of(nodes=topology(), managers=managers).servers}
    assert lag == {A: None, B: 50, C: None}


def test_a_replica_sampled_a_moment_after_the_master_is_not_ahead_of_it() -> None:
    managers = reports(m=[server(A, "master", 100), server(B, offset=120)])
    assert Snapshot.of(nodes=topology(), managers=managers).servers[1].lag == 0


def test_offsets_of_another_history_are_not_compared() -> None:
    managers = reports(m=[server(A, "master", 100), server(B, offset=900, replid="other")])
    assert Snapshot.of(nodes=topology(), managers=managers).servers[1].lag is None


def test_the_primary_managers_view_is_shown_and_every_view_is_kept() -> None:
    managers = reports(first=[server(B, offset=1)], second=[server(B, offset=2, up=False)])
    shown = Snapshot.of(nodes=topology(), managers=managers, seats=seats("second", "first")).servers[1]
    assert shown.report is not None
    assert shown.report.offset == 2
    assert shown.available_for == ["first"]
    assert set(shown.seen) == {"first", "second"}


def test_without_a_primary_the_view_of_a_manager_that_could_look_inside_is_shown() -> None:
    managers = reports(first=[server(B, role="")], second=[server(B, offset=2)])
    shown = Snapshot.of(nodes=topology(), managers=managers).servers[1].report
    assert shown is not None
    assert shown.offset == 2


def test_requests_proxies_and_pauses_are_read() -> None:
    snapshot = Snapshot.of(
        proxies={"p": entry(ProxyRecord(7, "h:1").encode())},
        paused=entry(Pause("me@host", 12.5).encode()),
        request=entry(b"b:6379"),
    )
    assert snapshot.proxies == {"p": ProxyRecord(7, "h:1")}
    assert snapshot.pause == Pause("me@host", 12.5)
    assert snapshot.request == ManualRequest(B)


def test_a_pause_that_was_made_by_hand_is_a_pause() -> None:
    for data in (b"", b"maintenance", b'{"format": 99}', b'{"at": "yesterday"}'):
        assert Snapshot.of(paused=entry(data)).pause == Pause()


def test_each_unreadable_record_is_named_and_the_others_are_shown() -> None:
    snapshot = Snapshot.of(
        nodes=entry(b'{"master": null, "format": 99}'),
        managers={**reports(m=[server(A)]), "bad": entry(b"{")},
        proxies={"p": entry(b"[]")},
        request=entry(b"no such thing"),
    )
    assert set(snapshot.unreadable) == {"nodes", "manager_node_state/bad", "proxies/p", "manual_failover"}
    assert "format 99" in snapshot.unreadable["nodes"]
    assert [s.node for s in snapshot.servers] == [A]


def test_snapshot__no_master_or_one_that_is_down__has_none() -> None:
    assert not Snapshot.of().has_master
    assert not Snapshot.of(nodes=topology(Phase.FENCING, None)).has_master
    assert Snapshot.of(nodes=topology()).has_master, "nobody has reported yet"
    assert Snapshot.of(nodes=topology(), managers=reports(m=[server(A, "master")])).has_master
    assert not Snapshot.of(nodes=topology(), managers=reports(m=[server(A, "master", up=False)])).has_master


def test_snapshot__receipts_of_false_alarms__are_the_brake() -> None:
    steps = (("published", 1000.0),)
    alarm = Receipt(7, Kind.FAILOVER, Outcome.DONE, "silent", steps=steps, returned=0.4)
    history = {"7": entry(alarm.encode()), "8": entry(b"{")}
    snapshot = Snapshot.of(history=history, wall=1001.0)
    assert snapshot.brake.factor == 2
    assert list(snapshot.unreadable) == ["history/8"]


GEMS_RECORD = entry(b'{"master": "a:6379", "slaves": ["b:6379"], "unavailable": []}')
OUR_SEAT = f"ex{'0' * 31}a_"


def test_snapshot__seats_in_the_gems_lock__the_lowest_leads_whoever_has_it() -> None:
    for names, expected in (
        ([], (False, False)),
        ([f"{OUR_SEAT}0000000003"], (False, False)),
        ([f"{OUR_SEAT}0000000003", "ex0000000002"], (True, False)),
        ([f"{OUR_SEAT}0000000003", "ex0000000004"], (False, True)),
        (["ex0000000004", "note"], (True, False)),
    ):
        snapshot = Snapshot.of(gem_seats={name: entry(b"") for name in names})
        assert (snapshot.gem_leads, snapshot.gem_waits) == expected, names


def test_snapshot__reports_of_the_gem__are_told_from_ours() -> None:
    gems = {"h1-12": entry(b'{"available": {"a:6379": 0.001}, "unavailable": ["b:6379"]}')}
    snapshot = Snapshot.of(managers=reports(m=[server(A)]) | gems)
    assert snapshot.gems == ["h1-12"]
    assert list(snapshot.ours) == ["m"]


def test_snapshot__a_request_before_the_primary_came__is_left_over_while_there_is_no_record_of_ours() -> None:
    seat, wish = {"x_0000000001": replace(entry(b"m"), created=5)}, entry(b"b:6379")
    early, late = replace(wish, created=4), replace(wish, created=6)

    def left_over(request: Entry, nodes: Entry | None, seats: dict[str, Entry]) -> bool:
        return Snapshot.of(nodes=nodes, seats=seats, request=request).request_is_left_over

    for record in (None, GEMS_RECORD):
        assert left_over(early, record, seat)
        assert not left_over(late, record, seat), "an operator names the first master"
        assert left_over(late, record, {}), "whoever leads next comes later"
    assert not left_over(early, topology(), seat)
    assert not left_over(early, topology(), {})
    assert not left_over(early, entry(b"?"), seat), "it may be of this system"
    assert not left_over(replace(early, data=b""), None, seat)


def test_snapshot__an_empty_request__is_told_from_none_and_from_one_that_cannot_be_read() -> None:
    assert Snapshot.of(request=entry(b" ")).request_is_empty
    assert not Snapshot.of().request_is_empty
    assert not Snapshot.of(request=entry(b"a:1")).request_is_empty
    assert not Snapshot.of(request=entry(b"?")).request_is_empty


def test_snapshot__proxies_ahead_of_the_record__it_went_back() -> None:
    proxies = {name: entry(ProxyRecord(epoch).encode()) for name, epoch in (("p1", 7), ("p2", 9), ("p3", 8))}
    assert Snapshot.of(nodes=topology(), proxies=proxies).gone_back == GoneBack(9, "p2", 1)
    assert Snapshot.of(nodes=GEMS_RECORD, proxies=proxies).gone_back == GoneBack(9, "p2", 2)
    assert Snapshot.of(proxies=proxies).gone_back == GoneBack(9, "p2", 2)
    assert Snapshot.of(nodes=topology(), proxies={"p1": proxies["p1"]}).gone_back is None
    assert Snapshot.of(nodes=entry(b"?"), proxies=proxies).gone_back is None
