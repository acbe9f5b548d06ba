"""For how long after which changes a master may lack its replicas."""

from __future__ import annotations

import pytest

from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.routing.replication_grace import SETTLES, Settling


def topology(master: str = "", run_id: str = "") -> Topology:
    phase = Phase.SERVING if master else Phase.FENCING
    return Topology(1, phase, Node.parse(master) if master else None, (), run_id=run_id)


@pytest.mark.parametrize(
    ("former", "new"),
    [
        (topology(), topology("a:1")),
        (topology("a:1"), topology("b:1")),
        (topology("a:1", "one"), topology("a:1", "two")),
    ],
)
def test_settling__master_changed__lasts_for_its_time(former: Topology, new: Topology) -> None:
    settling = Settling(30.0)
    settling.follow(former, new, 10.0)
    assert settling.lasts(10.0)
    assert settling.lasts(10.0 + SETTLES - 0.1)
    assert not settling.lasts(10.0 + SETTLES)


@pytest.mark.parametrize(
    ("former", "new"),
    [
        (None, topology("a:1")),
        (topology("a:1"), topology("a:1")),
        (topology("a:1", "one"), topology("a:1", "one")),
        (topology("a:1"), topology("a:1", "one")),
        (topology("a:1"), topology()),
    ],
)
def test_settling__no_other_master__over_at_once(former: Topology | None, new: Topology) -> None:
    settling = Settling(30.0)
    settling.follow(former, new, 10.0)
    assert not settling.lasts(10.0)


def test_settling__short_patience__no_longer_than_that() -> None:
    settling = Settling(0.5)
    settling.follow(topology(), topology("a:1"), 10.0)
    assert settling.lasts(10.4)
    assert not settling.lasts(10.5)
