"""Outages: failures of one server are one episode, however many connections fail."""

from __future__ import annotations

from rfprotocol.topology.topology import Node
from rfproxy.health.outage_log import Outages

A, B = Node("a", 1), Node("b", 1)


def test_lost__first_failure__begins_an_episode() -> None:
    outages = Outages()
    assert outages.lost(A, "refused", 1.0)
    assert not outages.lost(A, "refused", 2.0)
    assert outages.lost(B, "refused", 2.0)


def test_lost__another_reason__is_said() -> None:
    outages = Outages()
    outages.lost(A, "refused", 1.0)
    assert outages.lost(A, "timeout", 2.0)
    assert outages.reason(A) == "timeout"


def test_over__after_failures__tells_how_many_and_since_when() -> None:
    outages = Outages()
    for when in (1.0, 2.0, 3.0):
        outages.lost(A, "refused", when)
    outage = outages.over(A)
    assert outage is not None
    assert (outage.lost, outage.since) == (3, 1.0)
    assert outages.over(A) is None
    assert outages.reason(A) == outages.reason(None) == ""
    assert outages.lost(A, "refused", 4.0)
