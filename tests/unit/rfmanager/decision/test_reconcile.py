"""Keeping the replicas in line, and the lists true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.decision.plan import Record, Repoint, View, Wait
from rfmanager.decision.reconcile import reconcile
from rfmanager.evidence.agreement import Standing
from rfprotocol.topology.topology import Node, Topology
from tests.support.world import POLICY, World

A, B, C = (Node("h", port) for port in (1, 2, 3))


def serving() -> tuple[World, Topology]:
    world = World(3)
    world.run()
    assert world.topology is not None
    return world, world.topology


def with_report(view: View, node: Node, **changes: object) -> View:
    old = view.standings[node]
    report = replace(old.report, **changes)  # type: ignore[arg-type]  # the names are those of NodeReport
    return replace(view, standings={**view.standings, node: Standing(True, report, view.now)})


def test_a_second_master_and_a_sealed_server_are_made_replicas() -> None:
    world, topology = serving()
    world[2].promote()
    world[3].follow(None)
    assert reconcile(world.view(), topology, A, POLICY) == Repoint((B, C), A)


def test_nothing_is_pointed_anywhere_while_the_master_was_not_seen_since() -> None:
    world, topology = serving()
    world[2].promote()
    view = world.view()
    late = replace(view, progress=replace(view.progress, since=view.now + 1))
    assert reconcile(late, topology, A, POLICY) == Wait()


def test_a_server_that_is_being_pointed_or_just_refused_is_left_in_peace() -> None:
    world, topology = serving()
    world[2].promote()
    view = world.view()
    busy = replace(view, progress=replace(view.progress, busy=frozenset({B})))
    assert not isinstance(reconcile(busy, topology, A, POLICY), Repoint)
    refused = replace(view, progress=replace(view.progress, failed={B: view.now}))
    assert not isinstance(reconcile(refused, topology, A, POLICY), Repoint)


def test_another_name_of_the_master_is_enough_when_the_link_is_up() -> None:
    world, topology = serving()
    view = with_report(world.view(), B, follows=Node("alias", 1))
    assert reconcile(view, topology, A, POLICY) == Wait()
    view = with_report(view, B, follows=Node("alias", 1), link_up=False)
    assert reconcile(view, topology, A, POLICY) == Repoint((B,), A)


def test_a_replica_of_a_replica_is_pointed_to_the_master() -> None:
    world, topology = serving()
    assert reconcile(with_report(world.view(), B, follows=C), topology, A, POLICY) == Repoint((B,), A)


def test_the_master_under_a_second_name_is_never_made_a_replica_of_itself() -> None:
    world, topology = serving()
    view = with_report(world.view(), B, role="master", follows=None, run_id=world[1].run_id)
    assert not isinstance(reconcile(view, topology, A, POLICY), Repoint)


@pytest.mark.parametrize("changes", [{"link_up": False}, {"syncing": True}, {"condition": "loading"}])
def test_only_replicas_that_have_followed_are_listed_as_readable(changes: dict[str, object]) -> None:
    world, topology = serving()
    step = reconcile(with_report(world.view(), B, **changes), topology, A, POLICY)
    assert isinstance(step, Record)
    assert (step.topology.replicas, step.topology.unavailable) == ((C,), (B,))
    assert step.topology.epoch == topology.epoch


def test_a_replica_that_lags_too_far_behind_is_not_read_from_until_it_has_caught_up() -> None:
    world, topology = serving()
    step = reconcile(replace(world.view(), stale=frozenset([B])), topology, A, POLICY)
    assert isinstance(step, Record)
    assert (step.topology.replicas, step.topology.unavailable) == ((C,), (B,))
    back = reconcile(world.view(), step.topology, A, POLICY)
    assert isinstance(back, Record)
    assert back.topology.replicas == (B, C)


def test_a_replica_whose_link_broke_is_read_from_until_the_master_was_seen_to_live() -> None:
    world, topology = serving()
    view = with_report(world.view(), B, link_up=False)
    since = view.standings[B].sampled_at
    before = replace(view.standings[A], sampled_at=since - 0.1)
    assert reconcile(replace(view, standings={**view.standings, A: before}), topology, A, POLICY) == Wait()
    after = replace(view.standings[A], sampled_at=since + 0.1)
    step = reconcile(replace(view, standings={**view.standings, A: after}), topology, A, POLICY)
    assert isinstance(step, Record)
    assert step.topology.unavailable == (B,)


def test_a_server_without_a_verdict_stays_where_it_was() -> None:
    world, topology = serving()
    view = world.view()
    view = replace(view, standings={node: view.standings[node] for node in (A, C)})
    assert reconcile(view, topology, A, POLICY) == Wait()


def test_a_new_history_of_the_same_master_process_is_taken_over() -> None:
    world, topology = serving()
    world[1].replid = "renewed"
    world.replicate()
    step = reconcile(world.view(), topology, A, POLICY)
    assert isinstance(step, Record)
    assert (step.topology.replid, step.topology.epoch) == ("renewed", topology.epoch)


def test_eviction_policy_of_the_master__changed__is_published() -> None:
    """Proxies have to tell it then what is read on replicas."""
    world, topology = serving()
    step = reconcile(with_report(world.view(), A, eviction="allkeys-lru"), topology, A, POLICY)
    assert isinstance(step, Record)
    assert (step.name, step.topology) == ("lists", replace(topology, eviction="allkeys-lru"))
    again = reconcile(with_report(world.view(), B, eviction="allkeys-lfu"), topology, A, POLICY)
    assert not isinstance(again, Record), "a replica evicts nothing"
