"""What planned and unplanned changes of master have in common."""

from __future__ import annotations

from rfmanager.steps import Policy, Record, Seal, Wait
from tests.manager.world import A, serving, until


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


def test_a_proxy_of_a_greater_epoch_has_not_acknowledged_what_comes_now() -> None:
    world = serving()
    world.proxies["from a record that was lost"] = 57
    world[1].alive = False
    world.step()
    assert world.topology is not None
    assert world.topology.epoch == 58
    world.acknowledge_one("proxy0")
    step = world.step()
    assert isinstance(step, Wait)
    assert "from a record that was lost" in step.reason


def test_a_published_record_tells_which_history_the_master_continues_and_how_far() -> None:
    world = serving()
    lost = world[1].replid
    world[1].alive = False
    until(world, Record, "publish")
    assert world.topology is not None
    assert (world.topology.replid2, world.topology.replid2_offset) == (lost, 2)


def test_a_refusal_names_the_request_that_it_answers() -> None:
    world = serving()
    world.ask(A)
    world.step()
    assert world.receipts[-1].request == 1
