"""Records that cannot be trusted: the gem's, those that went back, and none at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rfmanager.decision.adoption import adopt
from rfmanager.decision.decide import decide
from rfmanager.decision.plan import Dismiss, Promote, Record, Repoint, Seal, Wait
from rfmanager.evidence.agreement import Standing
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Node, NodeReport, Phase, Topology
from tests.support.world import POLICY, World, serving

A, B, C = (Node("h", port) for port in (1, 2, 3))


def gems(master: Node | None, *replicas: Node) -> Topology:
    """A record as the gem writes it."""
    down = tuple(node for node in (A, B, C) if node != master and node not in replicas)
    phase = Phase.SERVING if master else Phase.UNSETTLED
    return Topology(0, phase, master, replicas, down)


def make_master(world: World, port: int, *followers: int) -> None:
    """As somebody does by hand."""
    world[port].promote()
    for follower in followers:
        world[follower].follow(world[port].node)
    world.replicate()


def touched(world: World) -> list[object]:
    """The steps that did something to a server."""
    return [step for step in world.trail if isinstance(step, Seal | Promote | Repoint)]


def taken_over(record: Topology | None, prepare: Callable[[World], None] = lambda world: None) -> World:
    """A group that served, in which this record is found by managers that have just started."""
    world = serving()
    world.trail.clear()
    world.topology = record
    prepare(world)
    world.new_tenure()
    return world


def test_gems_record__the_group_is_as_it_says__is_adopted_untouched() -> None:
    world = taken_over(gems(A, B, C))
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.replicas) == (A, (B, C))
    assert world.topology.run_id == world[1].run_id
    assert not touched(world)


def test_gems_record__somebody_made_another_master__that_one_is_adopted_untouched() -> None:
    world = taken_over(gems(A, B, C), lambda world: make_master(world, 2, 1, 3))
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.phase) == (B, Phase.SERVING)
    assert not touched(world)
    assert "the record says h:1, the servers agree upon h:2" in world.receipts[-1].cause


def test_gems_record__its_master_died_and_another_was_made_by_hand__that_one_is_adopted_untouched() -> None:
    def prepare(world: World) -> None:
        world[1].alive = False
        make_master(world, 2, 3)

    world = taken_over(gems(A, B, C), prepare)
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.unavailable) == (B, (A,))
    assert not touched(world)


def test_gems_record__its_master_died_and_the_replicas_follow_it__the_best_is_promoted() -> None:
    def prepare(world: World) -> None:
        world[1].alive = False

    world = taken_over(gems(A, B, C), prepare)
    world.run()
    assert world.topology is not None
    assert world.topology.master in (B, C)
    assert set(world.acknowledged) <= set(world[world.topology.master.port].data)


def test_gems_record__its_master_is_gone_and_two_others_are_masters__no_server_is_touched() -> None:
    def prepare(world: World) -> None:
        world[1].alive = False
        world[2].promote()
        world[3].promote()

    world = taken_over(gems(A, B, C), prepare)
    assert "several masters: h:2, h:3" in world.run().reason
    assert world.topology == gems(A, B, C)
    assert not touched(world)


def test_gems_record__its_master_is_a_master_and_a_returned_server_is_one_too__the_record_decides() -> None:
    world = taken_over(gems(A, B), lambda world: world[3].restart(with_data=True))
    world.run()
    assert world.topology is not None
    assert world.topology.master == A
    assert world[3].follows == A


def test_gems_record__its_master_is_one_and_others_follow_another__waits_for_an_operator() -> None:
    def prepare(world: World) -> None:
        make_master(world, 2, 3)
        world[1].promote()

    world = taken_over(gems(A, B, C), prepare)
    assert "several masters: h:1, h:2" in world.run().reason
    assert not touched(world)
    world.ask(B)
    world.run()
    assert world.topology is not None
    assert world.topology.master == B


def test_adoption_of_another_master__a_proxy_has_not_heard_of_it__is_not_published_before() -> None:
    world = taken_over(gems(A, B, C), lambda world: make_master(world, 2, 1, 3))
    world.proxies["proxy0"] = 1  # it acts upon an epoch in which A was the master
    step = world.step()
    assert isinstance(step, Record)
    assert (step.topology.phase, step.topology.epoch) == (Phase.FENCING, 2)
    assert isinstance(waiting := world.step(), Wait)
    assert "waiting for proxies to acknowledge epoch 2" in waiting.reason
    world.run()
    assert world.topology is not None
    assert world.topology.master == B


def test_adoption_of_another_master__it_dies_before_it_is_published__one_that_follows_it_is_promoted() -> None:
    world = taken_over(gems(A, B, C), lambda world: make_master(world, 2, 1, 3))
    world.proxies["proxy0"] = 1
    world.step()
    world[2].alive = False
    world.run()
    assert world.topology is not None
    assert world.topology.phase is Phase.SERVING
    assert world.topology.master in (A, C)


@pytest.mark.parametrize("record", [None, gems(None), gems(A, B, C)], ids=["none", "no master", "a master"])
def test_request_older_than_the_first_record__of_the_gem__is_dismissed_and_said(record: Topology | None) -> None:
    world = taken_over(record)
    world.ask(C)
    world.request_precedes = True
    assert isinstance(world.step(), Dismiss)
    assert world.receipts[-1].outcome is Outcome.REFUSED
    assert "before the first record of these managers" in world.receipts[-1].cause
    world.run()
    assert world.topology is not None
    assert world.topology.master == A


def test_request_older_than_the_tenure__there_is_a_record_of_these_managers__is_obeyed() -> None:
    world = serving()
    world.ask(C)
    world.request_precedes = True
    world.run()
    assert world.topology is not None
    assert world.topology.master == C


def test_dismissed_request__later_record__has_a_greater_epoch() -> None:
    world = taken_over(None)
    world.ask(C)
    world.request_precedes = True
    world.step()
    world.run()
    assert world.topology is not None
    assert world.topology.epoch > world.receipts[0].epoch


def test_record_went_back__same_master__is_published_anew_with_a_greater_epoch() -> None:
    world = serving()
    assert world.topology is not None
    old = world.topology
    world.proxies["proxy0"] = 7
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.epoch) == (old.master, 9), "behind a fence in epoch 8"
    assert world.proxies["proxy0"] == 9


def test_record_went_back__another_master_since__that_one_is_published_after_a_fence() -> None:
    world = serving()
    old = world.topology
    world.ask(B)
    world.run()
    world.topology = old
    world.new_tenure()
    world.trail.clear()
    world.run()
    assert world.topology is not None
    assert world.topology.master == B
    assert world.topology.epoch > max(receipt.epoch for receipt in world.receipts[:-1])
    assert not touched(world)


@pytest.mark.parametrize("phase", [Phase.FENCING, Phase.PROMOTING, Phase.DRAINING])
def test_record_went_back_into_a_change__the_servers_agree__their_master_is_published(phase: Phase) -> None:
    world = serving()
    records = []
    world.ask(B)
    if phase is not Phase.DRAINING:
        world.request = None
        world[1].alive = False
    while world.topology is not None and world.topology.phase is not phase:
        world.acknowledge()
        world.step()
    records.append(world.topology)
    world[1].alive = True
    world.request = None
    world.run()
    assert world.topology is not None
    master = world.topology.master
    world.topology = records[0]
    world.new_tenure()
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.phase) == (master, Phase.SERVING)


def test_record_went_back__its_master_died_and_nobody_agrees__is_replaced_in_a_greater_epoch() -> None:
    world = serving()
    world.proxies["proxy0"] = 7
    world[1].alive = False
    world.run()
    assert world.topology is not None
    assert world.topology.master in (B, C)
    assert world.topology.epoch > 8
    assert set(world.acknowledged) <= set(world[world.topology.master.port].data)


def test_paused__record_of_the_gem__is_not_adopted() -> None:
    world = taken_over(gems(A, B, C))
    world.paused = True
    assert "paused" in world.run().reason
    assert world.topology == gems(A, B, C)


def test_fencing__a_master_that_others_follow_and_that_is_no_candidate__is_not_sealed() -> None:
    """Nothing would come of it, and its clients would lose it."""
    world = serving()
    world[1].alive = False
    world[2].restart(with_data=False)
    world[2].data = (99,)  # somebody else's writes, at the address of a member
    world[3].follow(B)
    world[3].link = ""
    world.replicate()
    world.run()
    assert world[2].role == "master"
    assert not any(B in step.nodes for step in world.trail if isinstance(step, Seal))


def test_the_only_master_with_its_replicas_is_published_as_epoch_one() -> None:
    world = World(3)
    step = world.step()
    assert isinstance(step, Record)
    assert (step.topology.epoch, step.topology.master, step.topology.replicas) == (1, A, (B, C))


def test_first_start__a_server_is_down__waits_for_it_or_for_an_operator() -> None:
    """It may have been the master later than the one that is found."""
    world = World(3)
    world[3].alive = False
    reason = world.run().reason
    assert "waiting for h:3, or for 'rfmanager failover --to h:1'" in reason
    assert world.topology is None
    world.ask(A)
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.unavailable) == (A, (C,))


def test_first_start__a_server_is_down_and_comes_up__adopts_the_master() -> None:
    world = World(3)
    world[3].alive = False
    world.run()
    world[3].alive = True
    world.run()
    assert world.topology is not None
    assert world.topology.master == A


def test_lost_record__a_server_is_down__is_made_anew_as_it_is_no_first_start() -> None:
    world = serving()
    world.acknowledge()
    world.topology = None
    world[3].alive = False
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.unavailable) == (A, (C,))
    assert world.topology.epoch > 1


def test_a_master_that_nobody_follows_is_not_adopted_while_a_server_is_down() -> None:
    world = World(3)
    world[2].alive = world[3].alive = False
    reason = world.run().reason
    assert "waiting for h:2, h:3" in reason
    assert "'rfmanager failover --to h:1'" in reason
    assert world.topology is None


def test_a_master_that_nobody_follows_is_adopted_when_an_operator_names_it() -> None:
    world = World(3)
    world[2].alive = world[3].alive = False
    world.run()
    world.ask(A)
    world.run()
    assert world.topology is not None
    assert (world.topology.master, world.topology.unavailable) == (A, (B, C))


def test_servers_that_boot_a_moment_later_are_heard() -> None:
    world = World(3)
    world[1].promote()
    world[2].promote()
    world[2].alive = world[3].alive = False
    assert isinstance(world.step(), Wait)
    world[2].alive = world[3].alive = True
    assert "several masters" in world.run().reason
    assert world.topology is None


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda world: world[2].promote(), "several masters: h:1, h:2"),
        (lambda world: world[1].follow(None), "no master among the reachable servers (h:1, h:2, h:3)"),
        (lambda world: setattr(world[1], "alive", False), "no master among the reachable servers (h:2, h:3)"),
        (lambda world: world[2].follow(Node("elsewhere", 1)), "h:2 follows elsewhere:1"),
    ],
)
def test_where_the_servers_do_not_agree_nothing_is_guessed(prepare: Callable[[World], None], why: str) -> None:
    world = World(3)
    prepare(world)
    step = world.step()
    assert isinstance(step, Wait)
    assert why in step.reason
    assert "REPLICAOF NO ONE" in step.reason


def test_an_operator_may_name_the_first_master() -> None:
    world = World(3)
    world[1].follow(None)
    world.ask(C)
    world.run()
    assert world.topology is not None
    assert world.topology.master == C
    assert world.receipts[-1].outcome is Outcome.DONE
    assert world[1].follows == C


@pytest.mark.parametrize("target", [None, Node("h", 9)])
def test_a_request_that_names_no_usable_first_master_is_refused(target: Node | None) -> None:
    world = World(2)
    world[1].follow(None)
    world.ask(target)
    world.step()
    assert world.receipts[-1].outcome is Outcome.REFUSED
    assert world.request is None
    assert world.topology is None


def test_while_paused_nothing_is_settled() -> None:
    world = World(3)
    world.paused = True
    assert isinstance(adopt(world.view()), Wait)


@pytest.mark.parametrize("record", [None, gems(C, A, B)], ids=["none", "the gem's"])
def test_lost_record__the_manager_knows_what_was_in_force__writes_it_again(record: Topology | None) -> None:
    world = serving()
    known = world.topology
    assert known is not None
    world.topology, world.in_force = record, known
    step = world.step()
    assert isinstance(step, Record)
    assert step.topology == replace(known, epoch=2)


def test_lost_record__a_change_was_under_way__begins_anew_with_the_fence() -> None:
    world = serving()
    world[1].alive = False
    while not (world.topology and world.topology.phase is Phase.PROMOTING):
        world.acknowledge()
        world.step()
    world.in_force, world.topology = world.topology, None
    step = world.step()
    assert isinstance(step, Record)
    assert (step.topology.phase, step.topology.epoch) == (Phase.FENCING, world.in_force.epoch + 1)
    assert isinstance(world.step(), Wait)
    world.run()
    assert world.topology is not None
    assert set(world.acknowledged) <= set(world[2].data)


def test_lost_record__a_proxy_knows_a_later_one__what_the_manager_knew_is_not_written() -> None:
    world = serving()
    world.in_force, world.topology = world.topology, None
    world.proxies["proxy0"] = 9
    step = world.step()
    assert isinstance(step, Record)
    assert (step.name, step.topology.epoch) == ("fence", 10)


def test_lost_record__while_paused__is_written_again() -> None:
    """Proxies write nothing without a record."""
    world = serving()
    known = world.topology
    assert known is not None
    world.in_force, world.topology, world.paused = known, None, True
    world.step()
    assert world.topology == replace(known, epoch=2)


def test_lost_record__the_gem_moved_the_master_unseen__what_the_manager_knew_is_not_written() -> None:
    world = serving()
    world.in_force = world.topology
    make_master(world, 2, 1, 3)
    make_master(world, 3, 1, 2)
    world.topology = gems(C, A, B)
    world.acknowledge()
    world.new_tenure()
    world.trail.clear()
    world.run()
    assert world.topology is not None
    assert world.topology.master == C
    assert not touched(world)


def test_lost_record__a_receipt_is_newer_than_the_manager_knows__nothing_is_overwritten() -> None:
    """Somebody deleted the record, and a manager leads that was cut off while another one replaced the master."""
    world = serving()
    world.in_force = world.topology
    world[1].alive = False
    world.run()
    world.acknowledge()
    assert world.write()
    world.proxies.clear()
    world.believed.clear()
    world[1].alive = True
    world.topology, world.known, world.recorded = None, None, None
    world.new_tenure()
    world.trail.clear()
    assert "several masters" in world.run().reason
    assert not touched(world)


def test_lost_record__proxies_act_on_another_one__is_written_behind_a_fence() -> None:
    world = serving(2, proxies=2)
    old = world.topology
    world[1].alive = False
    world.run()
    world.acknowledge()
    world.in_force, world.topology = world.topology, old
    world[1].alive = True
    for name in world.proxies:
        world.proxies[name] = 1
    world.new_tenure()
    step = world.step()
    assert isinstance(step, Record)
    assert step.topology.master is None


def test_record_went_back__two_masters__the_one_of_the_record_is_not_taken() -> None:
    world = serving(2)
    old = world.topology
    world[1].alive = False
    world.run()
    world.acknowledge()
    assert world.write()
    world[1].alive = True  # back, not made a replica yet
    world.topology, world.known, world.recorded = old, None, None
    world.new_tenure()
    world.trail.clear()
    assert "several masters: h:1, h:2" in world.run().reason
    assert not touched(world)


def test_record_went_back__the_master_says_nothing_of_itself__says_why_it_waits() -> None:
    world = serving()
    world.proxies["proxy0"] = 9
    view = world.view()
    mute = Standing(True, NodeReport(A, True, condition="noauth"), view.now)
    step = decide(replace(view, standings={**view.standings, A: mute}), POLICY)
    assert isinstance(step, Wait)
    assert "h:1 (noauth)" in step.reason


def test_gems_record__a_server_follows_another_one_that_is_down__its_master_is_not_taken() -> None:
    world = serving()
    make_master(world, 2, 3)
    world[1].restart(with_data=True)
    world[2].data = (*world[2].data, 77)
    world.replicate()
    world[2].alive = False
    world.topology, world.known, world.recorded = gems(A, B, C), None, None
    world.new_tenure()
    world.trail.clear()
    assert "h:3 follows h:2" in world.run().reason
    world[2].alive = True
    world.run()
    assert 77 in world[2].data
    assert not touched(world)


def test_gems_record__another_master_has_more_of_the_same_data__waits_for_an_operator() -> None:
    world = serving(2)
    make_master(world, 2)
    world[2].data = (*world[2].data, 77, 78)
    world[1].restart(with_data=True)
    world.topology, world.known, world.recorded = gems(A, B), None, None
    world.new_tenure()
    world.trail.clear()
    assert "several masters: h:1, h:2" in world.run().reason
    assert not touched(world)


def test_adoption__its_master_is_only_reached_by_others__is_not_called_lost() -> None:
    world = taken_over(gems(A, B, C), lambda world: make_master(world, 2, 1, 3))
    world.step()
    world.acknowledge()
    world.now += 5.0
    view = world.view()
    hearsay = Standing(True, view.standings[B].report)
    assert isinstance(decide(replace(view, standings={**view.standings, B: hearsay}), POLICY), Wait)


def test_paused__no_record_and_a_request__is_refused() -> None:
    world = World(3)
    world.paused = True
    world.ask(B)
    assert isinstance(world.step(), Dismiss)
    assert "paused" in world.receipts[-1].cause
