"""Proxies that share a process are proxies: they follow the record in ZooKeeper and serve writes."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from bench.sidecars import Sidecars
from bench.stampede import Change, Rest, change_table, rest_table, save
from rfprotocol.store.interface import Put
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.topology.topology import Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.redis import RedisGroup

PATH = Paths().nodes


def test_each_tells_when_it_heard_of_a_new_master_and_when_that_served(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    former, successor, _ = redis_group.servers

    async def record(*topologies: Topology) -> None:
        store = ZkStore(zookeeper_hosts)
        await store.start()
        await store.reachable()
        for topology in topologies:
            entry = await store.read(PATH)
            await store.commit(Put(PATH, topology.encode(), entry.version if entry else None))
        await store.close()

    asyncio.run(record(Topology(1, Phase.SERVING, former.node)))
    with Sidecars(3, partial(ZkStore, zookeeper_hosts, session_timeout=4.0), tmp_path, "sidecar") as sidecars:
        sidecars.acts()
        asyncio.run(record(Topology(2, Phase.FENCING)))
        successor.command("REPLICAOF", "NO", "ONE")
        published = time.time()
        asyncio.run(record(Topology(3, Phase.SERVING, successor.node)))
        acts = sidecars.acts()
    assert [act.epoch for act in acts] == [3, 3, 3]
    assert all(published < act.told <= act.acted for act in acts)
    assert successor.command("EXISTS", "sidecar-0", "sidecar-1", "sidecar-2") == 3


def test_the_tables_show_medians_in_the_units_of_their_heads(tmp_path: Path) -> None:
    resting = Rest(300, 450.4, 0.166, 0.101, 0.03, 0.004, 0.01, 0.02)
    changes = [Change(300, "killed", *(number / 1000 for number in range(first, first + 9))) for first in (1, 2, 9)]
    assert " ".join(rest_table([resting]).splitlines()[-1].split()) == "300 450 16.6 10.1 3.0 4.0 10.0 20.0"
    assert " ".join(change_table(changes).splitlines()[-1].split()) == "300 killed 2 3 4 5 6 7 8 9 10"
    save(tmp_path / "found.csv", changes)
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 3 + 4
