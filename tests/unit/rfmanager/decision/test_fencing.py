"""What planned and unplanned changes of master have in common."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.decision.decide import decide
from rfmanager.decision.fencing import NAMED, most_disturbed, publish
from rfmanager.decision.plan import Policy, Record, Seal, Wait
from rfprotocol.topology.records import ProxyRecord
from rfprotocol.topology.topology import Change, Kind
from tests.support.world import POLICY, A, B, serving, until


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


def test_a_failure_was_noticed_when_the_first_probe_failed_and_agreed_upon_when_it_counted() -> None:
    world = serving()
    world[1].alive = False
    step = decide(replace(world.view(), failing={A: 0.001}), POLICY)
    assert isinstance(step, Record)
    assert step.topology.change is not None
    assert step.topology.change.steps == (("noticed", 0.001), ("agreed", world.now))


def test_the_receipt_keeps_when_each_proxy_acknowledged() -> None:
    world = serving(proxies=2)
    world[1].alive = False
    until(world, Record, "mark")
    world.progress = replace(world.progress, acknowledged={"proxy0": 1.5, "proxy1": 2.5})
    until(world, Record, "publish")
    assert world.receipts[-1].acknowledged == {"proxy0": 1.5, "proxy1": 2.5}


def test_of_thousands_of_proxies_the_receipt_names_the_slowest() -> None:
    """A record in ZooKeeper may have 1 MiB: the one that publishes the new master must not grow above it."""
    world = serving()
    world[1].alive = False
    until(world, Record, "mark")
    everyone = {f"host-{number:05}-6380-12345-abcdef": float(number) for number in range(20_000)}
    world.progress = replace(world.progress, acknowledged=everyone)
    until(world, Record, "publish")
    assert world.receipts[-1].acknowledged == dict(list(everyone.items())[-NAMED:])
    assert len(world.receipts[-1].encode()) < 10_000


def test_of_thousands_of_proxies_the_receipt_tells_what_the_most_disturbed_went_through() -> None:
    proxies = {f"calm {number}": ProxyRecord(1, held=3, longest_wait=0.1) for number in range(20_000)}
    told = {"uncertain": ProxyRecord(1, uncertain=1), "slow": ProxyRecord(1, longest_wait=0.2)}
    kept = most_disturbed({**proxies, **told})
    assert len(kept) == NAMED
    assert list(kept)[:2] == ["uncertain", "slow"]


def test_of_thousands_of_proxies_that_are_waited_for_a_few_are_named() -> None:
    world = serving(proxies=2000)
    world[1].alive = False
    world.step()
    step = world.step()
    assert isinstance(step, Wait)
    assert step.reason.endswith("proxy0, proxy1, proxy10, proxy100, proxy1000 and 1995 others")


def test_publish__says_how_the_new_master_evicts() -> None:
    world = serving()
    view = world.view()
    assert view.topology is not None
    promoted = replace(view.standings[B].report, eviction="allkeys-lfu")
    record = publish(view, view.topology, Change(Kind.FAILOVER, "it died", A, B), promoted)
    assert record.topology.eviction == "allkeys-lfu"


def test_publish__failover_to_a_newer_server__receipt_says_who_cannot_copy_from_it() -> None:
    world = serving()
    view = world.view()
    assert view.topology is not None
    old = {node: replace(s, report=replace(s.report, version="7.0.15")) for node, s in view.standings.items()}
    promoted = replace(view.standings[B].report, version="8.0.0")
    change = Change(Kind.FAILOVER, "it died", A, B)
    record = publish(replace(view, standings=old), view.topology, change, promoted)
    assert record.receipt is not None
    assert record.receipt.cause.startswith("it died; warning: cannot copy from h:2 (Redis 8.0.0)")
