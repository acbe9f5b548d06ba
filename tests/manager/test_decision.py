"""The decisions about changes of master: single ones, whole ones, and whole ones interrupted everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmanager.decision import decide
from rfmanager.steps import CatchUp, Demote, Policy, Promote, Record, Seal, Stage, Unpause, Wait
from rfprotocol.records import Outcome
from rfprotocol.topology import Kind, Node, Phase
from tests.manager.world import POLICY, World

A, B, C = (Node("h", port) for port in (1, 2, 3))


def serving(size: int = 3, proxies: int = 1) -> World:
    """A group that has written and replicated something."""
    world = World(size, proxies)
    world.run()
    world.acknowledge()
    assert world.write()
    assert world.topology is not None
    assert world.topology.master == A
    return world


def master_of(world: World) -> Node | None:
    return world.topology.master if world.topology else None


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


def test_a_proxy_that_is_gone_is_not_waited_for() -> None:
    world = serving(proxies=2)
    world[1].alive = False
    world.step()
    world.acknowledge_one("proxy0")
    del world.proxies["proxy1"]
    assert isinstance(world.step(), Seal)


def test_fence_wait_bounds_the_wait_for_a_silent_proxy() -> None:
    world = serving()
    world[1].alive = False
    impatient = Policy(fence_wait=0.5)
    world.step(impatient)
    wait = world.step(impatient)
    assert isinstance(wait, Wait)
    assert wait.until is not None
    world.now = wait.until
    assert isinstance(world.step(impatient), Seal)


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
    assert world.topology == replace(world.topology, epoch=0, run_id=world[1].run_id, replid=world[1].replid)
    assert not world.receipts


def test_a_record_of_the_gem_whose_master_is_dead_takes_the_history_from_its_replicas() -> None:
    world = serving()
    assert world.topology is not None
    world.topology = replace(world.topology, epoch=0, run_id="", replid="")
    world[1].alive = False
    world.new_tenure()
    world.run()
    assert master_of(world) in (B, C)


# Planned changes.


def test_a_switchover_goes_step_by_step_and_loses_nothing() -> None:
    world = serving()
    world.ask(B)
    world.run()
    names = [type(step).__name__ for step in world.trail[-8:]]
    assert names[:6] == ["Record", "CatchUp", "Promote", "Demote", "Record", "Repoint"]
    assert master_of(world) == B
    assert world[1].follows == B
    receipt = world.receipts[-1]
    assert (receipt.kind, receipt.outcome, receipt.former, receipt.master) == (Kind.SWITCHOVER, Outcome.DONE, A, B)
    assert world.request is None


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


# Whole changes, interrupted.


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("planned", [True, False])
def test_a_successor_finishes_what_was_begun_wherever_it_was_interrupted(size: int, planned: bool) -> None:
    reached_end = False
    interrupt_after = 0
    while not reached_end:
        world = serving(size)
        if planned:
            world.ask(B)
        else:
            world[1].alive = False
        for taken in range(interrupt_after):
            world.acknowledge()
            step = world.step()
            reached_end = isinstance(step, Wait) and taken > 3
        world.new_tenure()
        world.run()
        assert master_of(world) in ((B,) if planned else (B, C))
        assert world.acknowledged == list(world.servers[master_of(world) or A].data)
        assert world.request is None
        assert len(world.receipts) == 1
        interrupt_after += 1


def lose_proxy(world: World) -> None:
    if len(world.proxies) > 1:
        name, _ = world.proxies.popitem()
        world.believed.pop(name, None)


def kill(world: World, port: int) -> None:
    if port <= len(world.servers):
        world[port].alive = False


def thaw(world: World) -> None:
    for server in world.servers.values():
        server.alive = True


def restart_dead(world: World) -> None:
    for server in world.servers.values():
        if not server.alive:
            server.restart(with_data=True)


EVENTS: dict[str, Callable[[World], object]] = {
    "step": World.step,
    "another step": World.step,
    "third step": World.step,
    "write": World.write,
    "acknowledge": World.acknowledge,
    "acknowledge one": lambda world: world.acknowledge_one("proxy0"),
    "new tenure": World.new_tenure,
    "proxy gone": lose_proxy,
    "kill 1": lambda world: kill(world, 1),
    "kill 2": lambda world: kill(world, 2),
    "kill 3": lambda world: kill(world, 3),
    "thaw": thaw,
    "restart the dead": restart_dead,
    "ask for 2": lambda world: world.ask(B),
    "ask for any": lambda world: world.ask(None),
    "pause": lambda world: setattr(world, "paused", True),
    "resume": lambda world: setattr(world, "paused", False),
}


@settings(max_examples=400, deadline=None)
@given(size=st.integers(1, 3), events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=60))
def test_no_sequence_of_faults_breaks_the_invariants_and_all_heals(size: int, events: list[str]) -> None:
    world = serving(size, proxies=2)
    for event in events:
        EVENTS[event](world)
    world.paused = False
    for server in world.servers.values():
        server.alive = True
    wait = world.run()
    if "no server can be promoted" in wait.reason:
        # All were restarted more than once meanwhile: which of the histories is the right one only people know.
        world.ask(max(world.servers.values(), key=lambda server: len(server.data)).node)
        world.run()
    master = world.servers[master_of(world) or A]
    assert world.topology is not None
    assert world.topology.phase is Phase.SERVING
    assert all(server.data == master.data for server in world.servers.values())
    assert world.request is None
    asked = [receipt for receipt in world.receipts if receipt.kind is Kind.SWITCHOVER]
    assert len(asked) == world.requests
    world.acknowledge()
    assert world.write()
