"""The decisions about changes of master. `tests/decisions` interrupts them everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.decision.decide import decide
from rfmanager.decision.fencing import PATIENCE
from rfmanager.decision.plan import Promote, Record, Seal, Step, View, Wait
from rfmanager.evidence.agreement import Standing
from rfmanager.evidence.false_alarms import NO_BRAKE, Brake
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Kind, Node, Phase
from tests.support.world import POLICY, A, B, C, World, master_of, serving, until


def test_a_dead_master_is_withdrawn_before_anything_else() -> None:
    world = serving()
    world[1].alive = False
    step = world.step()
    assert isinstance(step, Record)
    assert (step.topology.phase, step.topology.master, step.topology.epoch) == (Phase.FENCING, None, 2)
    assert step.topology.replicas == (B, C), "reads go on"
    assert step.topology.change is not None
    assert "unavailable" in step.topology.change.cause


def test_nothing_is_detached_or_promoted_before_every_proxy_has_stopped_writing() -> None:
    world = serving(proxies=2)
    world[1].alive = False
    world.step()
    world.acknowledge_one("proxy0")
    step = world.step()
    assert isinstance(step, Wait)
    assert "proxy1" in step.reason
    world.acknowledge_one("proxy1")
    assert world.step() == Seal((B, C))


def test_the_replica_with_the_most_data_becomes_master_and_the_other_follows_it() -> None:
    world = serving()
    world[2].data = world[2].data[:-1]
    world[1].alive = False
    world.run()
    assert master_of(world) == C
    assert world[2].follows == C
    assert world[2].data == world[3].data
    assert world.receipts[-1].kind is Kind.FAILOVER
    assert world.receipts[-1].steps[0][0] == "noticed"


def test_the_target_is_written_down_before_it_is_promoted() -> None:
    world = serving()
    world[1].alive = False
    for _ in range(10):
        world.acknowledge()
        if isinstance(world.step(), Promote):
            break
    names = [step.name for step in world.trail if isinstance(step, Record)]
    assert names[-2:] == ["fence", "mark"]
    assert world.topology is not None
    assert world.topology.phase is Phase.PROMOTING


def test_a_returning_master_becomes_a_replica() -> None:
    world = serving()
    world[1].alive = False
    world.run()
    world[1].alive = True  # it was frozen: same process, still thinks that it is a master
    world.run()
    assert world[1].role == "slave"
    assert world.topology is not None
    assert A in world.topology.replicas


@pytest.mark.parametrize("with_data", [True, False])
def test_a_restarted_master_is_not_believed_to_be_one(with_data: bool) -> None:
    world = serving()
    world[1].restart(with_data)
    world.run()
    assert "restarted" in world.receipts[-1].cause
    assert world.acknowledged == list(world.servers[master_of(world) or A].data)


def test_replicas_are_detached_from_an_empty_restarted_master_without_waiting_for_proxies() -> None:
    world = serving()
    world[1].restart(with_data=False)
    world.step()
    step = world.step()
    assert isinstance(step, Seal)
    assert {B, C} <= set(step.nodes)
    assert isinstance(world.step(), Wait), "but nobody is promoted yet"


def test_a_restarted_master_with_all_its_data_serves_again_when_it_is_alone() -> None:
    world = serving(size=1)
    world[1].restart(with_data=True)
    world.run()
    assert master_of(world) == A


def test_an_empty_restarted_master_never_serves_even_when_it_is_alone() -> None:
    world = serving(size=1)
    world[1].restart(with_data=False)
    wait = world.run()
    assert master_of(world) is None
    assert "empty, of another history" in wait.reason
    assert "rfmanager failover --to" in wait.reason


def test_an_operator_can_name_a_server_of_another_history_when_there_is_no_candidate() -> None:
    world = serving(size=1)
    world[1].restart(with_data=False)
    world.run()
    world.ask(A)
    world.run()
    assert master_of(world) == A
    assert world.request is None
    assert "although" in world.receipts[-1].cause


def test_a_request_that_cannot_help_a_group_without_a_candidate_is_refused() -> None:
    world = serving(size=2)
    world[1].alive = world[2].alive = False
    world.run()
    world.ask(B)
    world.run()
    assert world.request is None
    assert world.receipts[-1].outcome is Outcome.REFUSED
    assert "no server can be promoted" in world.receipts[-1].cause
    world[2].alive = True
    world.run()
    assert master_of(world) == B


def test_a_master_that_somebody_made_a_replica_is_replaced() -> None:
    world = serving()
    world[1].follow(B)
    world.run()
    assert "made a replica" in world.receipts[-1].cause
    assert world.servers[master_of(world) or A].role == "master"


def test_a_candidate_that_dies_while_promoted_costs_an_epoch_and_the_next_one_is_taken() -> None:
    world = serving()
    world[1].alive = False
    while not (world.topology and world.topology.phase is Phase.PROMOTING):
        world.acknowledge()
        world.step()
    assert world.topology.change is not None
    first = world.topology.change.target
    assert first is not None
    world.servers[first].alive = False
    world.run()
    other = B if first == C else C
    assert master_of(world) == other
    assert world.promotions == {3: other}


def test_a_candidate_that_failed_is_tried_again_when_nobody_else_is_left() -> None:
    world = serving(size=2)
    world[1].alive = False
    while not (world.topology and world.topology.phase is Phase.PROMOTING):
        world.acknowledge()
        world.step()
    world[2].alive = False
    world.run()
    world[2].alive = True
    world.run()
    assert master_of(world) == B


def test_a_record_of_the_gem_is_adopted_without_an_outage() -> None:
    world = serving()
    assert world.topology is not None
    world.topology = replace(world.topology, epoch=0, run_id="", replid="")
    world.new_tenure()
    world.run()
    assert world.topology == replace(world.topology, epoch=1, run_id=world[1].run_id, replid=world[1].replid)
    assert not world.receipts


def test_a_record_of_the_gem_whose_master_is_dead_takes_the_history_from_its_replicas() -> None:
    world = serving()
    assert world.topology is not None
    world.topology = replace(world.topology, epoch=0, run_id="", replid="")
    world[1].alive = False
    world.new_tenure()
    world.run()
    assert master_of(world) in (B, C)


def test_pausing_stops_a_change_that_is_under_way() -> None:
    world = serving()
    world[1].alive = False
    world.step()
    world.acknowledge()
    world.paused = True
    assert isinstance(world.step(), Wait)
    world.paused = False
    world.run()
    assert master_of(world) in (B, C)


def test_a_target_that_restarts_empty_before_it_is_promoted_is_not_published() -> None:
    world = serving()
    world[1].alive = False
    until(world, Record, "mark")
    assert world.topology is not None
    assert world.topology.change is not None
    target = world.topology.change.target
    assert target is not None
    world.servers[target].restart(with_data=False)  # too quick to be seen down
    world.run()
    assert master_of(world) == ({B, C} - {target}).pop()
    assert world.servers[target].data == tuple(world.acknowledged)


def test_a_server_that_restarts_empty_while_it_is_promoted_is_not_published() -> None:
    world = serving()
    world[1].alive = False
    until(world, Record, "mark")
    assert world.topology is not None
    assert world.topology.change is not None
    target = world.topology.change.target
    assert target is not None
    sealed = world.view().standings[target]
    world.servers[target].restart(with_data=False)
    view = world.view()
    unaware = replace(view, standings={**view.standings, target: replace(sealed, sampled_at=view.now)})
    assert decide(unaware, POLICY) == Promote(target)
    world.progress = replace(world.progress, promoted=world.servers[target].report(False))
    world.run()
    assert master_of(world) == ({B, C} - {target}).pop()
    assert world.servers[target].data == tuple(world.acknowledged)


def test_a_sealed_server_that_restarts_empty_while_proxies_are_waited_for_is_not_chosen() -> None:
    world = serving(proxies=2)
    world[1].restart(with_data=False)
    world.step()
    world.acknowledge_one("proxy0")
    assert isinstance(world.step(), Seal)
    assert isinstance(world.step(), Wait)
    world[2].restart(with_data=False)
    world.step()
    world.acknowledge()
    world.run()
    assert master_of(world) == C
    assert world[2].data == tuple(world.acknowledged)


def test_a_server_whose_data_was_put_back_is_looked_at_again() -> None:
    world = serving(size=2)
    data, history = world[2].data, world[2].replid
    world[1].alive = False
    world[2].restart(with_data=False)
    assert "empty" in world.run().reason
    world[2].restart(with_data=True)
    world[2].data, world[2].replid2, world[2].replid2_offset = data, history, len(data) + 1
    world.run()
    assert master_of(world) == B


def test_a_sealed_server_that_somebody_points_elsewhere_is_sealed_again() -> None:
    world = serving()
    world[1].restart(with_data=False)
    world.step()
    assert isinstance(world.step(), Seal)
    world[2].follow(A)
    assert world.step() == Seal((B,))


def test_a_replica_priority_that_is_put_right_counts_at_once() -> None:
    world = serving(size=2)
    world[1].alive = False
    world[2].priority = 0
    assert "replica-priority" in world.run().reason
    world[2].priority = 100
    world.run()
    assert master_of(world) == B


@pytest.mark.parametrize("before", ["publish", "followers"])
def test_a_new_master_that_dies_before_the_others_follow_it_is_replaced_by_one_of_them(before: str) -> None:
    world = serving()
    world[1].alive = False
    until(world, Promote)
    assert world.topology is not None
    assert world.topology.change is not None
    target = world.topology.change.target
    assert target is not None
    if before == "followers":
        until(world, Record, "publish")
    world.servers[target].alive = False
    world.run()
    assert master_of(world) == ({B, C} - {target}).pop()


def test_a_master_that_is_known_to_be_dead_is_not_published() -> None:
    world = serving()
    world[1].alive = False
    until(world, Promote)
    assert world.progress.promoted is not None
    world.servers[world.progress.promoted.node].alive = False
    step = world.step()
    assert isinstance(step, Record)
    assert step.name == "fence"


def loading(view: View, node: Node) -> View:
    standing = view.standings[node]
    report = replace(standing.report, condition="loading")
    return replace(view, standings={**view.standings, node: replace(standing, report=report)})


def test_a_request_for_a_switchover_is_no_permission_to_take_an_empty_server_when_the_master_dies() -> None:
    world = serving()
    world[2].restart(with_data=False)
    world.ask(B)
    world[1].alive = False
    world.step()
    assert world.request is None
    assert world.receipts[-1].outcome is Outcome.REFUSED
    world.acknowledge()
    step = decide(loading(world.view(), C), POLICY)
    assert step == Seal((B,))
    world.step()
    assert master_of(world) is None


def test_an_operator_who_names_a_server_of_another_history_waits_for_those_that_still_load() -> None:
    world = serving()
    world[1].alive = False
    world[2].restart(with_data=False)
    world.acknowledge()
    world.step()
    world.acknowledge()
    assert decide(loading(world.view(), C), POLICY) == Seal((B,))
    world[2].follow(None)
    world.progress = replace(world.progress, sealed={B: world[2].report(False)})
    world.ask(B)
    step = decide(loading(world.view(), C), POLICY)
    assert isinstance(step, Wait)
    assert "h:3" in step.reason
    world.run()
    assert world.receipts[0].master == C
    assert world[2].data == tuple(world.acknowledged)


def test_a_request_that_was_refused_is_not_answered_again_by_what_follows() -> None:
    world = serving(size=1)
    world[1].restart(with_data=False)
    world.run()
    world.ask(A)
    until(world, Record, "mark")
    world[1].alive = False
    world.run()
    assert [(receipt.request, receipt.outcome) for receipt in world.receipts] == [(1, Outcome.REFUSED)]
    world[1].alive = True
    world.run()
    assert master_of(world) == A
    assert [receipt.request for receipt in world.receipts] == [1, 0]


def test_a_server_that_just_did_not_obey_is_tried_again_before_another_history_is_taken() -> None:
    world = serving()
    world[1].alive = False
    world[2].restart(with_data=False)
    world.acknowledge()
    world.step()
    world.acknowledge()
    world[2].follow(None)
    assert world.topology is not None
    world.topology = replace(world.topology, replid2="before", replid2_offset=1)
    view = world.view()
    world.ask(B)
    world.progress = replace(world.progress, sealed={B: world[2].report(False)}, failed={C: view.now})
    step = world.step()
    assert isinstance(step, Wait)
    assert "h:3" in step.reason
    world.now += 60
    world.progress = replace(world.progress, failed={C: world.now + 0.01})
    step = world.step()
    assert isinstance(step, Record), "but not for ever"
    assert step.topology.change is not None
    assert (step.topology.change.target, step.topology.change.request) == (B, 1)
    assert (step.topology.replid, step.topology.replid2) == (world[2].replid, ""), "the lost history is given up"


def test_a_successor_looks_at_the_server_that_was_chosen_before_it_seals_it() -> None:
    world = serving()
    world[1].alive = False
    until(world, Promote)
    assert world.progress.promoted is not None
    target = world.progress.promoted.node
    world.new_tenure()
    view = world.view()
    unseen = replace(view, standings={**view.standings, target: replace(view.standings[target], sampled_at=-1.0)})
    step = decide(unseen, POLICY)
    assert isinstance(step, Wait)
    assert step.until is not None
    step = world.step()
    assert isinstance(step, Record)
    assert step.topology.master == target


def fail(world: World, node: Node) -> None:
    """A command to the server was not answered."""
    world.progress = replace(world.progress, failed={**world.progress.failed, node: world.now})


def test_a_replica_with_less_data_is_not_taken_because_a_better_one_failed_to_answer_once() -> None:
    world = serving()
    world[2].data = world[2].data[:-1]
    only_b_is_sealed(world)
    fail(world, C)
    step = world.step()
    assert isinstance(step, Wait)
    assert "h:3" in step.reason
    world.run()
    assert master_of(world) == C


def test_a_replica_that_never_obeys_is_not_waited_for_for_ever() -> None:
    world = serving()
    only_b_is_sealed(world)
    world.now += PATIENCE
    fail(world, C)
    step = world.step()
    assert isinstance(step, Record)
    assert step.topology.change is not None
    assert step.topology.change.target == B


def test_who_waits_for_a_server_that_cannot_be_commanded_does_not_look_all_the_time() -> None:
    world = serving()
    only_b_is_sealed(world)
    fail(world, C)
    world.now += POLICY.retry_interval + 0.1
    seen = dict(world.view().standings)
    seen[C] = replace(seen[C], sampled_at=float("-inf"))
    step = decide(replace(world.view(), standings=seen), POLICY)
    assert isinstance(step, Wait)
    assert (step.until or 0.0) > world.now


def only_b_is_sealed(world: World) -> None:
    world[1].alive = False
    until(world, Seal)
    world.progress = replace(world.progress, sealed={B: world.progress.sealed[B]}, acted={B: world.now})


def test_a_server_of_another_history_that_does_not_answer_is_not_waited_for() -> None:
    world = serving()
    world[3].restart(with_data=False)
    only_b_is_sealed(world)
    fail(world, C)
    assert isinstance(world.step(), Record)


def test_a_candidate_that_was_sealed_at_the_second_attempt_is_promoted() -> None:
    world = serving(size=2)
    world[1].alive = False
    until(world, Record, "fence")
    world.acknowledge()
    world.view()
    fail(world, B)
    world.now += 1
    until(world, Promote)
    assert master_of(world) is None
    world.run()
    assert [receipt.epoch for receipt in world.receipts] == [3], "no epoch was wasted"


def test_a_candidate_that_failed_once_is_tried_again_before_data_is_given_up() -> None:
    world = serving()
    world[2].data = world[2].data[:-1]
    world[1].alive = False
    until(world, Record, "mark")
    fail(world, C)
    world.run()
    assert master_of(world) == C


def test_a_candidate_that_failed_twice_gives_way_to_one_with_less_data() -> None:
    world = serving()
    world[2].data = world[2].data[:-1]
    world[1].alive = False
    for _ in range(2):
        until(world, Record, "mark")
        assert world.topology is not None
        assert world.topology.change is not None
        assert world.topology.change.target == C
        fail(world, C)
        until(world, Record, "fence")
        world.view()
        world.now += POLICY.retry_interval
    world.run()
    assert master_of(world) == B


ALARMED = Brake(factor=4, until=600.0, false_alarms=2)


def silent_for(world: World, seconds: float, condition: str = "timeout", brake: Brake = ALARMED) -> View:
    """The master has not answered for so long."""
    view = world.view()
    report = replace(view.standings[A].report, available=False, condition=condition)
    standings = {**view.standings, A: Standing(False, report, view.now - seconds)}
    return replace(view, standings=standings, silent={A: view.now - seconds}, silence=1.35, brake=brake)


def test_decision__silent_after_false_alarms__is_given_more_time() -> None:
    world = serving()
    step = decide(silent_for(world, 1.35), POLICY)
    assert isinstance(step, Wait)
    assert step.reason == "h:1 does not answer, and is given 5.4 s instead of 1.35 s: 2 false alarms"
    assert step.until == pytest.approx(world.now - 1.35 + 5.4)


def test_decision__silent_for_longer_than_that__is_replaced_and_said() -> None:
    step = decide(silent_for(serving(), 5.5), POLICY)
    assert isinstance(step, Record)
    assert step.topology.change is not None
    assert step.topology.change.cause == (
        "the master h:1 is unavailable (timeout); slowed down to 5.4 s: 2 false alarms"
    )
    assert step.topology.change.lost == "timeout"


@pytest.mark.parametrize("condition", ["refused", "unreachable", "closed"])
def test_decision__gone_after_false_alarms__is_replaced_at_once(condition: str) -> None:
    step = decide(silent_for(serving(), 0.1, condition), POLICY)
    assert isinstance(step, Record)
    assert step.name == "fence"


def test_decision__silent_without_false_alarms__is_replaced_at_once() -> None:
    assert isinstance(decide(silent_for(serving(), 1.35, brake=NO_BRAKE), POLICY), Record)


def test_decision__an_operator_asks_meanwhile__is_not_made_to_wait() -> None:
    world = serving()
    world.ask(None)
    assert isinstance(decide(silent_for(world, 1.35), POLICY), Record)


def test_decision__a_receipt__says_who_was_lost_and_how() -> None:
    world = serving()
    run_id = world[1].run_id
    world[1].alive = False
    world.run()
    receipt = world.receipts[-1]
    assert (receipt.former, receipt.run_id, receipt.lost, receipt.returned) == (A, run_id, "ok", None)


def test_decision__a_master_that_replaces_itself__is_a_false_alarm() -> None:
    """It was silent, was fenced, answered again, and had the most data."""
    world = serving()
    world[2].data = world[3].data = world[1].data[:-1]
    before = world[1].run_id
    world._record(cast_record(decide(silent_for(world, 1.35, brake=NO_BRAKE), POLICY)))
    world.run()
    assert master_of(world) == A
    assert world[1].run_id == before
    assert world.receipts[-1].false_alarm


def cast_record(step: Step) -> Record:
    """What was decided, if it is one."""
    assert isinstance(step, Record)
    return step
