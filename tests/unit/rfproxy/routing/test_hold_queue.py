"""The gate: open only when the master is known, the lease valid and the last attempt did not fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfprotocol.backoff import JITTER
from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.routing.hold_queue import FIRST_REST, LONGEST_REST, Gate, GateState
from rfproxy.routing.lease import Lease

SERVING = Topology(1, Phase.SERVING, Node("m", 1))
FENCED = replace(SERVING, master=None, phase=Phase.FENCING, epoch=2)


@pytest.fixture
def lease() -> Lease:
    lease = Lease()
    lease.renew(0.0, 15.0)  # valid until 10
    return lease


@pytest.fixture
def gate(lease: Lease) -> Gate[str]:
    gate: Gate[str] = Gate(lease, timeout=30.0, capacity=100)
    gate.apply(SERVING)
    return gate


def test_before_anything_is_known_it_is_closed(lease: Lease) -> None:
    assert Gate[str](lease, timeout=1.0, capacity=1).state(0.0) is GateState.FENCED


def test_it_is_open_while_there_is_a_master_and_a_lease(gate: Gate[str]) -> None:
    assert gate.state(9.9) is GateState.OPEN


def test_it_closes_when_the_lease_runs_out(gate: Gate[str]) -> None:
    assert gate.state(10.1) is GateState.LAPSED
    assert not gate.trusts(10.1)


def test_without_a_store_it_stays_open_when_that_is_asked_for(lease: Lease) -> None:
    gate: Gate[str] = Gate(lease, timeout=30.0, capacity=100, leaseless=True)
    gate.apply(SERVING)
    assert gate.state(1e9) is GateState.OPEN


def test_it_closes_when_the_master_is_withdrawn(gate: Gate[str]) -> None:
    gate.apply(FENCED)
    assert gate.state(0.0) is GateState.FENCED


def test_it_rests_after_a_failed_attempt_each_time_longer_up_to_a_limit(gate: Gate[str]) -> None:
    now, rests = 0.0, []
    for _ in range(8):
        until = gate.rest(now)
        assert gate.state((now + until) / 2) is GateState.RESTING
        rests.append(until - now)
        now = until
    assert FIRST_REST * (1 - JITTER) <= rests[0] <= FIRST_REST
    assert LONGEST_REST * (1 - JITTER) <= rests[-1] <= LONGEST_REST + 1e-9
    assert gate.state(now) is GateState.OPEN


def test_another_topology_ends_the_rest(gate: Gate[str]) -> None:
    gate.rest(0.0)
    gate.apply(replace(SERVING, epoch=3))
    assert gate.state(0.0) is GateState.OPEN


def test_what_is_held_is_bounded_and_is_counted_once_for_each_waiter(gate: Gate[str]) -> None:
    assert gate.hold("a", 60, 0.0)
    assert gate.hold("a", 70, 1.0)
    assert not gate.hold("b", 40, 1.0)
    assert gate.hold("b", 30, 1.0)
    gate.release("a", 2.0)
    assert gate.hold("c", 70, 2.0)


def test_the_longest_waiting_come_first_and_expire_first(gate: Gate[str]) -> None:
    gate.hold("a", 1, 0.0)
    gate.hold("b", 1, 5.0)
    gate.hold("a", 2, 6.0)  # more to hold does not make it wait anew
    assert gate.waiting() == ["a", "b"]
    assert gate.next_expiry() == 30.0
    assert gate.expired(30.0) == ["a"]
    assert gate.release("a", 31.0) == 31.0
    assert gate.release("a", 31.0) is None
    assert gate.next_expiry() == 35.0


def test_who_is_held_again_has_waited_since_it_says_whoever_else_came_meanwhile(gate: Gate[str]) -> None:
    gate.hold("b", 1, 5.0)
    gate.hold("a", 1, 1.0)
    assert gate.next_expiry() == 31.0
    assert gate.expired(31.0) == ["a"]
    assert gate.release("a", 32.0) == 31.0
