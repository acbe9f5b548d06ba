"""Faults of ZooKeeper, by their number in the table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfprotocol.topology.records import Outcome
from tests.scenarios.faults.trial import Findings, Trial
from tests.support.installation import Installation
from tests.support.redis import RedisGroup
from tests.support.zookeeper import ZooKeeperEnsemble, ZooKeeperServer


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[ZooKeeperEnsemble]:
    """Three servers, of which two have to live."""
    with ZooKeeperEnsemble(3, tmp_path) as ensemble:
        yield ensemble


@pytest.fixture
def ensemble_site(redis_group: RedisGroup, ensemble: ZooKeeperEnsemble, tmp_path: Path) -> Installation:
    """As `site`, with three servers of ZooKeeper."""
    return Installation(redis_group, ensemble.hosts, tmp_path, proxies=2)


@pytest.mark.fault
@pytest.mark.elaborate
async def test_19_zookeepers_leader_dies_or_freezes(
    ensemble_site: Installation, ensemble: ZooKeeperEnsemble, findings: Findings
) -> None:
    site = ensemble_site
    async with Trial(site, findings) as trial:
        before = await site.serving()
        for fault, undo in (
            (ZooKeeperServer.kill, ZooKeeperServer.launch),
            (ZooKeeperServer.freeze, ZooKeeperServer.thaw),
        ):
            leader, since = ensemble.leader(), time.monotonic()
            fault(leader)
            await asyncio.to_thread(ensemble.wait_for_leader_other_than, leader)
            findings(f"another leader after {fault.__name__}", f"{(time.monotonic() - since) * 1000:.0f} ms")
            await site.registered(len(site.proxies))
            await trial.flows()
            findings(f"no write for after {fault.__name__}", f"{trial.longest_gap(since) * 1000:.0f} ms")
            undo(leader)
            await asyncio.to_thread(leader.wait)
        assert await site.serving() == before
        assert await site.receipts() == []


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.parametrize("on_store_loss", ["hold", "continue"])
async def test_20_zookeepers_quorum_is_lost(
    ensemble_site: Installation, ensemble: ZooKeeperEnsemble, findings: Findings, on_store_loss: str
) -> None:
    site = ensemble_site
    writers = site.ports
    site.proxy()
    reader = site.ports[-1]
    trial = Trial(site, findings, ports=writers, options=["--on-store-loss", on_store_loss])
    site.proxies[reader].argv += ["--reads", "replica"]
    async with trial, trial.client(reader) as client:
        before = await site.serving()
        assert await client.get("string")
        lapses = {proxy: site.times_said(proxy, "lease_lapsed") for proxy in site.proxies.values()}
        for server in ensemble.servers[1:]:
            server.kill()
        for proxy, times in lapses.items():
            await site.said(proxy, "lease_lapsed", times + 1)
        await (trial.stands_still() if on_store_loss == "hold" else trial.flows())
        assert await client.get("string")
        async with trial.losses(before=before):
            site.server_of(before).kill()
            for manager in site.managers:
                await site.said(manager, "server is unavailable")
            assert await client.get("string")
            assert roles(site) == ["slave", "slave"]
            for server in ensemble.servers[1:]:
                server.launch()
        await trial.flows()
        site.server_of(before).restart()
        assert [receipt.outcome for receipt in await site.receipts()] == [Outcome.DONE]


@pytest.mark.fault
@pytest.mark.elaborate
async def test_22_zookeeper_wiped(own_site: Installation, own_zookeeper: ZooKeeperServer, findings: Findings) -> None:
    site = own_site
    async with Trial(site, findings) as trial:
        done = await site.command("failover")
        assert done.returncode == 0, done.stderr
        before = await site.serving()
        await wipe(own_zookeeper)
        master = await trial.in_order()
        assert master.node == before.master
        adopted = [(receipt.former, receipt.master) for receipt in await site.receipts()]
        assert set(adopted) <= {(None, before.master)}, "the master is the one that the servers follow"
        await site.registered(len(site.proxies))
        await trial.flows()
        async with trial.losses():
            master.kill()
        await trial.flows()
        master.restart()


@pytest.mark.fault
@pytest.mark.elaborate
async def test_22_zookeeper_wiped_while_the_master_dies(
    own_site: Installation, own_zookeeper: ZooKeeperServer, findings: Findings
) -> None:
    site = own_site
    async with Trial(site, findings) as trial:
        before = await site.serving()
        async with trial.losses(before=before):
            site.server_of(before).kill()
            await wipe(own_zookeeper)
            await asyncio.wait(
                [asyncio.ensure_future(site.said(manager, "no master among")) for manager in site.managers],
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert roles(site) == ["slave", "slave"], "nobody is promoted who may lack something"
            most = max(site.group.replicas, key=lambda replica: int(replica.info()["slave_repl_offset"]))
            done = await site.command("failover", "--to", str(most.node))
            assert done.returncode == 0, done.stderr
        await trial.flows()
        site.server_of(before).restart()


def roles(site: Installation) -> list[str]:
    """What the servers that run say they are."""
    return [str(server.info()["role"]) for server in site.group.servers if server.alive]


async def wipe(zookeeper: ZooKeeperServer) -> None:
    """Return when it serves again, knowing nothing."""
    zookeeper.kill()
    zookeeper.wipe()
    zookeeper.launch()
    await asyncio.to_thread(zookeeper.wait)
