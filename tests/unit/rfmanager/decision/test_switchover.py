"""Changes of master that operators ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rfmanager.decision.decide import decide
from rfmanager.decision.plan import (
    CatchUp,
    Demote,
    Promote,
    Record,
    Remember,
    Repoint,
    Seal,
    Stage,
    Unpause,
    View,
    Wait,
)
from rfmanager.evidence.agreement import Standing
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Kind, Node
from tests.support.world import POLICY, A, B, C, World, master_of, serving, until


def test_a_switchover_goes_step_by_step_and_loses_nothing() -> None:
    world = serving()
    world.ask(B)
    world.run()
    steps = [step for step in world.trail if not isinstance(step, Remember)]
    names = [type(step).__name__ for step in steps[-8:]]
    assert names[:6] == ["Record", "CatchUp", "Promote", "Demote", "Record", "Repoint"]
    assert master_of(world) == B
    assert world[1].follows == B
    receipt = world.receipts[-1]
    assert (receipt.kind, receipt.outcome, receipt.former, receipt.master) == (Kind.SWITCHOVER, Outcome.DONE, A, B)
    assert world.request is None


def test_a_successor_does_not_call_the_target_lost_before_it_has_looked_at_it() -> None:
    world = serving()
    world.ask(B)
    while not isinstance(world.step(), Demote):
        world.acknowledge()
    world.new_tenure()
    world.replicate()
    world.proxies["late"] = 0
    view = world.view()
    before = {node: replace(s, sampled_at=view.progress.since - 0.1) for node, s in view.standings.items()}
    only_the_former = replace(view, standings={**before, A: view.standings[A]})
    assert decide(only_the_former, POLICY) == Wait(until=view.progress.since + POLICY.retry_interval)
    world.run()
    assert master_of(world) == B


def test_a_successor_does_nothing_before_it_has_looked_at_both_servers() -> None:
    world = serving()
    world.ask(B)
    while not isinstance(world.step(), Demote):
        world.acknowledge()
    world.new_tenure()
    view = replace(world.view(), manager="successor")
    unseen = {node: replace(s, sampled_at=view.progress.since - 0.1) for node, s in view.standings.items()}
    late = view.progress.since + 1.9
    assert decide(replace(view, standings=unseen, now=late), POLICY) == Wait(until=view.progress.since + 2.0)


def test_a_successor_does_not_wait_for_a_former_master_that_is_dead() -> None:
    world = serving()
    world.ask(B)
    world.step()
    world.new_tenure()
    world[1].alive = False
    world.replicate()
    view = replace(world.view(), manager="successor")
    assert view.unavailable(A)
    step = decide(view, POLICY)
    assert isinstance(step, Record)
    assert step.receipt is not None
    assert "died meanwhile" in step.receipt.cause


def test_a_switchover_to_any_replica_takes_a_connected_one() -> None:
    world = serving()
    world[2].alive = False
    world.run()
    world.ask(None)
    world.run()
    assert master_of(world) == C


@pytest.mark.parametrize(
    ("target", "prepare", "why"),
    [
        (A, lambda world: None, "is the master already"),
        (Node("h", 9), lambda world: None, "not one of the servers"),
        (B, lambda world: setattr(world[2], "alive", False), "unavailable"),
        (B, lambda world: setattr(world, "paused", True), "paused"),
    ],
)
def test_an_impossible_switchover_is_refused_with_a_receipt(
    target: Node, prepare: Callable[[World], None], why: str
) -> None:
    world = serving()
    prepare(world)
    epoch = world.topology.epoch if world.topology else 0
    world.ask(target)
    world.run()
    assert master_of(world) == A
    assert world.request is None
    assert world.receipts[-1].outcome is Outcome.REFUSED
    assert world.receipts[-1].epoch == epoch + 1
    assert why in world.receipts[-1].cause


def test_a_switchover_with_no_replica_at_all_is_refused() -> None:
    world = serving(size=1)
    world.ask(None)
    world.run()
    assert world.receipts[-1].outcome is Outcome.REFUSED


def test_a_switchover_is_given_up_when_the_target_dies_and_writes_flow_again() -> None:
    world = serving()
    world.ask(B)
    world.step()
    world[2].alive = False
    world.acknowledge()
    assert world.step() == Unpause(A)
    world.run()
    assert master_of(world) == A
    assert world.receipts[-1].outcome is Outcome.ABORTED
    assert str(B) in world.receipts[-1].cause
    world.acknowledge()
    assert world.write()


def test_a_switchover_is_given_up_when_a_proxy_does_not_drain_in_time() -> None:
    world = serving()
    world.ask(B)
    world.step()
    wait = world.step()
    assert isinstance(wait, Wait)
    assert wait.until is not None
    world.now = wait.until
    assert world.step() == Unpause(A)
    world.step()
    assert world.receipts[-1].outcome is Outcome.ABORTED
    assert "did not drain" in world.receipts[-1].cause


def test_a_switchover_is_given_up_when_the_target_does_not_catch_up() -> None:
    world = serving()
    world.ask(B)
    world.step()
    world.acknowledge()
    view = world.view()
    assert isinstance(decide(view, POLICY), CatchUp)
    stuck = replace(view, progress=replace(view.progress, trouble="it did not catch up"))
    assert decide(stuck, POLICY) == Unpause(A)


def test_the_master_that_dies_during_a_switchover_is_replaced_and_the_request_is_answered() -> None:
    world = serving()
    world.ask(B)
    world.step()
    world[1].alive = False
    world.run()
    assert master_of(world) in (B, C)
    assert world.request is None
    assert "died meanwhile" in world.receipts[-1].cause


def test_a_successor_demotes_the_former_master_of_a_switchover_whose_target_is_promoted() -> None:
    world = serving()
    world.ask(B)
    while not isinstance(world.step(), Promote):
        world.acknowledge()
    world.new_tenure()
    assert world.step() == Demote(A, B)
    assert world.progress.stage is Stage.DEMOTED
    step = world.step()
    assert isinstance(step, Record)
    assert step.topology.master == B


def test_a_master_that_dies_while_proxies_drain_ends_the_request_which_permits_no_loss() -> None:
    world = serving()
    world.ask(B)
    world.step()
    world[1].alive = False
    world.step()
    assert world.request is None
    answer = world.receipts[-1]
    assert (answer.kind, answer.outcome, answer.request) == (Kind.SWITCHOVER, Outcome.ABORTED, 1)
    assert world.topology is not None
    assert world.topology.change is not None
    assert world.topology.change.kind is Kind.FAILOVER
    world.run()
    assert [receipt.kind for receipt in world.receipts] == [Kind.SWITCHOVER, Kind.FAILOVER]


def test_a_target_that_restarts_empty_after_it_has_caught_up_is_not_published() -> None:
    world = serving()
    world.ask(B)
    until(world, CatchUp)
    assert world.progress.stage is Stage.CAUGHT_UP
    before = world.view().standings[B]
    world[2].restart(with_data=False)
    view = world.view()
    unaware = replace(view, standings={**view.standings, B: replace(before, sampled_at=view.now)})
    assert decide(unaware, POLICY) == Promote(B)
    world[2].promote()
    world.progress = replace(world.progress, promoted=world[2].report(False))
    assert world.step() == Unpause(A)
    world.run()
    assert master_of(world) == A
    assert "restarted while it was promoted" in world.receipts[-1].cause
    assert world[1].data


def test_the_request_of_another_operator_is_not_answered_by_the_change_that_is_under_way() -> None:
    world = serving()
    world.ask(B)
    until(world, Record, "drain")
    world.request = None  # the first operator gave up
    world.ask(C)
    until(world, Record, "publish")
    assert (world.receipts[-1].request, world.receipts[-1].master) == (1, B)
    assert world.request is not None
    world.run()
    assert (world.receipts[-1].request, world.receipts[-1].master) == (2, C)
    assert world.request is None


def test_a_replica_that_has_not_followed_the_new_master_yet_is_given_a_moment_before_it_is_refused() -> None:
    world = serving()
    world.ask(B)
    until(world, Record, "publish")
    world.ask(C)
    world.acknowledge()
    step = world.step()
    assert isinstance(step, Repoint), "what helps it goes on"
    world.run()
    assert master_of(world) == C


def test_a_replica_that_still_hangs_on_the_former_master_is_given_that_moment_too() -> None:
    world = serving()
    world.ask(B)
    until(world, Record, "publish")
    world.ask(C)
    world.acknowledge()
    view = world.view()
    hanging = replace(view.standings[C].report, follows=A, link_up=True)
    step = decide(replace(view, standings={**view.standings, C: Standing(True, hanging, view.now)}), POLICY)
    assert isinstance(step, Repoint)


def answering(view: View, node: Node, condition: str) -> View:
    """The server has answered with errors since the epoch began: its details are old."""
    standing = view.standings[node]
    report = replace(standing.report, condition=condition)
    return replace(view, standings={**view.standings, node: Standing(True, report, view.progress.since - 1)})


def test_a_target_that_only_answers_errors_is_waited_for_a_moment_and_then_refused_by_what_it_says() -> None:
    world = serving()
    world.ask(B)
    step = decide(answering(world.view(), B, "noperm"), POLICY)
    assert isinstance(step, Wait)
    assert step.until is not None
    world.now = step.until
    step = decide(answering(world.view(), B, "noperm"), POLICY)
    assert isinstance(step, Record)
    assert step.receipt is not None
    assert step.receipt.outcome is Outcome.REFUSED
    assert "noperm" in step.receipt.cause


def test_a_target_that_was_never_seen_is_refused_after_a_moment() -> None:
    world = serving()
    world.ask(B)
    world.now += 10
    view = world.view()
    step = decide(replace(view, standings={A: view.standings[A], C: view.standings[C]}), POLICY)
    assert isinstance(step, Record)
    assert step.receipt is not None
    assert "not seen by enough managers" in step.receipt.cause


def test_draining_begins_beyond_the_epoch_of_every_proxy() -> None:
    world = serving()
    world.proxies["from a record that was lost"] = 57
    world.ask(B)
    until_drained = world.step()
    assert isinstance(until_drained, Record)
    assert until_drained.topology.epoch == 58


def restarted_behind(world: World) -> None:
    """The target starts again as a master, from a file that lacks the last write but belongs to the history."""
    world[2].data = world[2].data[:-1]
    world[2].restart(with_data=True)


def test_a_target_that_restarts_from_an_older_file_while_proxies_drain_is_not_taken_for_promoted() -> None:
    world = serving()
    world.ask(B)
    world.step()
    restarted_behind(world)
    world.run()
    assert master_of(world) == A
    assert world.receipts[-1].outcome is Outcome.ABORTED
    assert "restarted" in world.receipts[-1].cause
    assert list(world[2].data) == world.acknowledged


def test_a_target_that_restarts_from_an_older_file_after_it_has_caught_up_is_not_published() -> None:
    world = serving()
    world.ask(B)
    until(world, CatchUp)
    restarted_behind(world)
    world.progress = replace(world.progress, promoted=world[2].report(False))
    world.run()
    assert master_of(world) == A
    assert world.receipts[-1].outcome is Outcome.ABORTED
    assert list(world[1].data) == world.acknowledged


def test_a_target_that_restarts_and_follows_again_is_given_up_too() -> None:
    world = serving()
    world.ask(B)
    world.step()
    world[2].run_id = "another"
    world.run()
    assert master_of(world) == A
    assert "restarted" in world.receipts[-1].cause


def test_the_former_master_is_not_made_a_replica_of_a_target_that_restarted_since_it_was_promoted() -> None:
    world = serving()
    world.ask(B)
    until(world, Promote)
    restarted_behind(world)
    assert world.step() == Unpause(A)
    world.run()
    assert master_of(world) == A
    assert list(world[1].data) == world.acknowledged


@pytest.mark.parametrize("same_tenure", [True, False])
def test_a_target_that_restarts_when_the_former_master_follows_it_is_replaced_before_it_is_copied(
    same_tenure: bool,
) -> None:
    world = serving()
    world.ask(B)
    until(world, Demote)
    restarted_behind(world)
    if not same_tenure:
        world.new_tenure()
    step = world.step()
    assert isinstance(step, Record)
    assert (step.name, step.receipt and step.receipt.outcome) == ("fence", Outcome.ABORTED)
    assert isinstance(world.step(), Seal), "without waiting for proxies: no server takes writes"
    world.run()
    assert master_of(world) in (A, C)
    assert list(world.servers[master_of(world) or A].data) == world.acknowledged
    assert world.request is None


def versions(view: View, **said: str) -> View:
    """The same, and the servers a, b, c have said these versions."""
    nodes = {"a": A, "b": B, "c": C}
    told = {nodes[name]: version for name, version in said.items()}
    return replace(
        view,
        standings={
            node: replace(s, report=replace(s.report, version=told.get(node, ""))) for node, s in view.standings.items()
        },
    )


def test_switchover__to_a_newer_server__warns_that_older_ones_cannot_copy() -> None:
    world = serving()
    world.ask(B)
    step = decide(versions(world.view(), a="7.0.15", b="8.0.0", c="7.0.15"), POLICY)
    assert isinstance(step, Record)
    assert step.topology.change is not None
    assert step.topology.change.cause == (
        "requested by an operator; warning: cannot copy from h:2 (Redis 8.0.0), should they need a full copy: "
        "h:1 (Redis 7.0.15), h:3 (Redis 7.0.15): upgrade them first"
    )


def test_switchover__to_any_replica__goes_to_the_oldest_without_a_warning() -> None:
    world = serving()
    world.ask(None)
    step = decide(versions(world.view(), a="7.0.15", b="8.0.0", c="7.0.15"), POLICY)
    assert isinstance(step, Record)
    assert step.topology.change is not None
    assert (step.topology.change.target, step.topology.change.cause) == (C, "requested by an operator")
