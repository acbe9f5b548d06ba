"""Which topology counts: the one in the store, or the one in force."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rfprotocol.topology.topology import Change, Kind, Node, Phase, Topology
from rfproxy.routing.hold_queue import GateState
from rfproxy.runtime.record_precedence import GEM_STAYS, Precedence, Verdict, drained, withdrawn
from tests.support.playbook import Playbook

MASTER, REPLICA = Node("m", 1), Node("r", 1)
OURS = Topology(7, Phase.SERVING, MASTER, (REPLICA,), run_id="a")
GEMS = Topology(0, Phase.SERVING, MASTER, (REPLICA,))
FENCING = Topology(7, Phase.FENCING, replicas=(REPLICA,))
DRAINING = Topology(8, Phase.DRAINING, change=Change(Kind.SWITCHOVER, "asked for", MASTER, REPLICA))
NOT_OURS = [GEMS, replace(GEMS, master=REPLICA, replicas=()), Topology(0, Phase.UNSETTLED)]


def judge(topology: Topology, in_force: Topology | None, *, remade: bool = False) -> Verdict:
    return Precedence().judge(topology, in_force, remade=remade, now=100.0)


def test_precedence__equal_topology__is_no_news() -> None:
    assert judge(replace(OURS), OURS) is Verdict.EQUAL
    assert judge(replace(OURS), OURS, remade=True) is Verdict.EQUAL
    assert judge(replace(GEMS), GEMS) is Verdict.EQUAL


@pytest.mark.parametrize("in_force", [None, GEMS, OURS])
def test_precedence__later_epoch_or_nothing_in_force__is_followed(in_force: Topology | None) -> None:
    assert judge(replace(OURS, epoch=8), in_force) is Verdict.FOLLOW


def test_precedence__same_epoch_other_replicas__is_followed() -> None:
    assert judge(replace(OURS, replicas=()), OURS) is Verdict.FOLLOW
    assert judge(replace(GEMS, master=REPLICA), GEMS) is Verdict.FOLLOW, "the gem's epoch is always the same"


@pytest.mark.parametrize("topology", [replace(OURS, epoch=8), *NOT_OURS])
def test_precedence__made_anew__is_followed(topology: Topology) -> None:
    assert judge(topology, OURS, remade=True) is Verdict.FOLLOW


def test_precedence__older_one_of_ours_made_anew__is_not_followed() -> None:
    """A backup may have been put into an empty store: managers see what was acknowledged, and publish beyond that."""
    assert judge(replace(OURS, epoch=3), OURS, remade=True) is Verdict.WITHDRAW


@pytest.mark.parametrize("topology", [replace(OURS, epoch=3), replace(FENCING, epoch=3)])
def test_precedence__older_one_of_ours__is_never_followed_and_nobody_is_written_to(topology: Topology) -> None:
    precedence = Precedence()
    for now in (0.0, 1000.0):
        assert precedence.judge(topology, OURS, remade=False, now=now) is Verdict.WITHDRAW
    assert precedence.due == math.inf


@pytest.mark.parametrize(
    ("topology", "verdict"), list(zip(NOT_OURS, [Verdict.KEEP, Verdict.WITHDRAW, Verdict.WITHDRAW], strict=True))
)
def test_precedence__record_of_the_gem__writes_go_on_while_it_names_the_same_master(
    topology: Topology, verdict: Verdict
) -> None:
    assert judge(topology, OURS) is verdict


@pytest.mark.parametrize("in_force", [OURS, FENCING, DRAINING])
def test_precedence__records_of_the_gem_stay__the_last_one_is_followed(in_force: Topology) -> None:
    precedence = Precedence()
    first, second = NOT_OURS[0], NOT_OURS[1]
    assert precedence.judge(first, in_force, remade=False, now=100.0) is not Verdict.FOLLOW
    assert precedence.due == 100.0 + GEM_STAYS
    assert precedence.judge(second, in_force, remade=False, now=99.9 + GEM_STAYS) is not Verdict.FOLLOW
    assert precedence.judge(second, in_force, remade=False, now=precedence.due) is Verdict.FOLLOW


@pytest.mark.parametrize("taken_back", [OURS, replace(OURS, epoch=8), replace(OURS, epoch=3)])
def test_precedence__taken_back_in_between__the_gems_time_begins_anew(taken_back: Topology) -> None:
    precedence = Precedence()
    precedence.judge(GEMS, OURS, remade=False, now=100.0)
    precedence.judge(taken_back, OURS, remade=False, now=105.0)
    assert precedence.due == math.inf
    assert precedence.judge(GEMS, OURS, remade=False, now=100.0 + GEM_STAYS) is Verdict.KEEP


def test_withdrawn__serving__has_the_same_epoch_and_replicas_and_no_master() -> None:
    assert withdrawn(OURS) == replace(OURS, phase=Phase.FENCING, master=None, unavailable=(MASTER,))


def test_drained__serving__has_the_same_epoch_and_replicas_and_what_is_in_flight_may_be_answered() -> None:
    assert drained(OURS) == replace(OURS, phase=Phase.DRAINING, master=None, unavailable=(MASTER,))


def test_drained__there_is_no_master__stays_as_it_is() -> None:
    for topology in (DRAINING, withdrawn(OURS)):
        assert drained(topology) is topology


def test_withdrawn__draining__is_unplanned() -> None:
    assert withdrawn(DRAINING) == replace(DRAINING, phase=Phase.FENCING, change=None)


@pytest.mark.parametrize("topology", [FENCING, Topology(0, Phase.UNSETTLED)])
def test_withdrawn__without_a_master__is_as_it_is(topology: Topology) -> None:
    assert withdrawn(topology) is topology


def test_withdrawn__in_force__writes_are_uncertain_or_held_and_reads_go_on() -> None:
    play = Playbook()
    play.topology(7, master="m:1", replicas=["r:1"])
    sent, waiting, reader = play.client(), play.client(), play.client()
    sent.says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    assert play.router.topology is not None
    play.router.apply(withdrawn(play.router.topology), play.time)
    play.settle()
    sent.hears_error("UNCERTAIN")
    assert play.router.acknowledged == 7
    assert play.router.gate.state(play.time) is GateState.FENCED
    waiting.says("INCR", "k")
    waiting.hears_nothing()
    reader.says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$1\r\n1\r\n")
    reader.hears(b"$1\r\n1\r\n")
    play.topology(8, master="r:1")
    play.server("r:1").hears("INCR", "k").answers(b":2\r\n")
    waiting.hears(b":2\r\n")


def test_withdrawn__while_draining__what_is_in_flight_is_waited_for_no_more() -> None:
    play = Playbook()
    play.topology(7, master="m:1", replicas=["r:1"])
    client = play.client()
    client.says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    play.topology(8, draining=("m:1", "r:1"))
    client.hears_nothing()
    assert play.router.acknowledged == 7
    assert play.router.topology is not None
    play.router.apply(withdrawn(play.router.topology), play.time)
    client.hears_error("UNCERTAIN")
    assert play.router.acknowledged == 8
