"""Where the records are: some names are what Ruby's clients and node managers know."""

from __future__ import annotations

from rfprotocol.topology.znode_paths import DEFAULT_ROOT, Paths


def test_the_names_that_rubys_clients_know_stay() -> None:
    paths = Paths()
    assert DEFAULT_ROOT == "/redis_failover"
    assert paths.nodes == "/redis_failover/nodes"
    assert paths.managers == "/redis_failover/manager_node_state"
    assert paths.gem_lock == "/_zklocking/__redis_failover__master_redis_node_manager_lock"
    assert paths.manual_failover == "/redis_failover/manual_failover"


def test_every_record_lives_below_the_root() -> None:
    paths = Paths("/other/group")
    assert paths.lock == "/other/group/master_redis_node_manager_lock"
    assert paths.gem_lock == "/_zklocking/__other__group__master_redis_node_manager_lock"
    assert paths.proxies == "/other/group/proxies"
    assert paths.history == "/other/group/history"
    assert paths.paused == "/other/group/paused"
    assert paths.addresses == "/other/group/addresses"
    assert paths.manager("m1") == "/other/group/manager_node_state/m1"
    assert paths.proxy("p1") == "/other/group/proxies/p1"


def test_receipts_sort_by_age() -> None:
    receipts = [Paths().receipt(epoch) for epoch in (1, 9, 10, 123, 1_000_000_000)]
    assert receipts == sorted(receipts)
    assert receipts[0] == "/redis_failover/history/0000000001"
