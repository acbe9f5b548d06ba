"""Who is a member: what live managers are configured with, and for a while what the record remembers."""

from __future__ import annotations

from rfmanager.evidence.membership import Membership
from rfprotocol.topology.topology import Change, Kind, ManagerReport, Node, NodeReport, Phase, Topology

A, B, C, D = (Node("h", port) for port in (1, 2, 3, 4))
SERVING = Topology(1, Phase.SERVING, A, (B,), (C,))


def configured(name: str, *nodes: Node) -> ManagerReport:
    return ManagerReport(name, 1, (), nodes)


def test_members__managers_are_configured_differently__are_all_of_them() -> None:
    reports = [configured("m1", A, B), configured("m2", B, D)]
    assert Membership(30.0).members(0.0, reports, None) == {A, B, D}


def test_members__one_leaves_every_configuration__is_dropped_after_the_grace() -> None:
    membership, reports = Membership(30.0), [configured("m1", A, B)]
    assert membership.members(100.0, reports, SERVING) == {A, B, C}
    assert membership.members(129.9, reports, SERVING) == {A, B, C}
    assert membership.members(130.0, reports, SERVING) == {A, B}


def test_members__one_is_configured_again_within_the_grace__begins_a_new_one() -> None:
    membership, without = Membership(30.0), [configured("m1", A, B)]
    membership.members(100.0, without, SERVING)
    membership.members(120.0, [configured("m2", C), *without], SERVING)
    assert C in membership.members(140.0, without, SERVING)
    assert C not in membership.members(170.0, without, SERVING)


def test_members__the_master_leaves_every_configuration__stays() -> None:
    membership = Membership(30.0)
    for now in (0.0, 100.0):
        assert A in membership.members(now, [configured("m1", B)], SERVING)


def test_members__a_change_is_under_way__its_servers_stay() -> None:
    change = Change(Kind.FAILOVER, "died", A, C)
    changing = Topology(2, Phase.PROMOTING, None, (), (A, C), change=change)
    membership = Membership(30.0)
    for now in (0.0, 100.0):
        assert membership.members(now, [configured("m1", B)], changing) == {A, B, C}


def test_members__a_manager_does_not_say__are_those_that_it_reports() -> None:
    gem = ManagerReport("gem", 0, (NodeReport(D, True),))
    assert Membership(30.0).members(0.0, [gem], None) == {D}
