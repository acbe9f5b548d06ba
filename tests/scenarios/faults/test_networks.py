"""Faults of networks, by their number in the table: every process is on a host of its own. They need root."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest

from deploy.processes import Process
from rfprotocol.store.interface import Entry
from rfprotocol.topology.records import Receipt
from rfprotocol.topology.topology import ManagerReport, Node, Topology
from tests.scenarios.faults.trial import Findings, Trial
from tests.support.hosts import NetworkError
from tests.support.redis import RedisServer
from tests.support.spread import Spread, spread

pytestmark = [pytest.mark.fault, pytest.mark.elaborate]

VERBS = {"SET", "INCR", "APPEND", "RPUSH"}
REPORTS = 5
"""Of one manager: for so long it has to hold that nothing more happens. One is sent at least every 0.8 seconds."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Spread]:
    """With one ZooKeeper server."""
    yield from started(tmp_path, zookeepers=1)


@pytest.fixture
def wide_site(tmp_path: Path) -> Iterator[Spread]:
    """With three ZooKeeper servers."""
    yield from started(tmp_path, zookeepers=3)


def started(folder: Path, zookeepers: int) -> Iterator[Spread]:
    try:
        with spread(folder, zookeepers=zookeepers) as site:
            yield site
    except NetworkError as error:
        pytest.fail(str(error), pytrace=False)


class Witness:
    """`async with Witness(server) as witness` sees the writes that a server executes, from a line of its own."""

    def __init__(self, server: RedisServer) -> None:
        self.moments: list[float] = []  # wall clock, seconds
        self._server = server

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._server.bind, self._server.port)
        self._writer.write(b"MONITOR\r\n")
        assert await self._reader.readline() == b"+OK\r\n"
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._task

    async def _watch(self) -> None:
        while line := await self._reader.readline():  # +1700000000.123456 [0 10.97.0.9:40000] "SET" "key" "value"
            moment, _, _, verb, *_ = line.decode().split()
            if verb.strip('"') in VERBS:
                self.moments.append(float(moment[1:]))


def reports(records: Mapping[str, Entry]) -> list[ManagerReport]:
    return [ManagerReport.decode(name, record.data) for name, record in records.items()]


async def sees(site: Spread, manager: Process, node: Node, *, available: bool) -> None:
    """Return when a manager says so of a server."""

    def said(records: Mapping[str, Entry]) -> bool:
        own = [report for report in reports(records) if f"-{manager.pid}-" in f"-{report.manager}-"]
        return any(view.node == node and view.available is available for report in own for view in report.nodes)

    await site.children(site.paths.managers, said)


async def a_while(site: Spread) -> None:
    """Return when every manager has reported often enough to have done what it would do."""
    begun = {report.manager: report.sequence for report in reports(await site.children(site.paths.managers))}

    def over(records: Mapping[str, Entry]) -> bool:
        return all(report.sequence >= begun[report.manager] + REPORTS for report in reports(records))

    await site.children(site.paths.managers, over)


async def nothing_changes(trial: Trial, site: Spread, before: Topology) -> None:
    """For a while, in which clients are served."""
    await a_while(site)
    await trial.flows()
    after = await site.serving()
    assert (after.epoch, after.master) == (before.epoch, before.master)


async def only_change(site: Spread, before: Topology) -> Receipt:
    """What is told of it. That it took one epoch to withdraw the master and one to publish the next was all."""
    (receipt,) = await site.receipts()
    assert (await site.serving()).epoch == before.epoch + 2
    return receipt


ACTS = {"withdrew the master", "sealed", "chose the next master", "published a new master", "made a replica"}


def acts(site: Spread, manager: Process, since: float) -> list[str]:
    """What a manager has done to the group since then; wall clock, seconds."""
    return [
        line["event"]
        for line in site.log(manager)
        if line["event"] in ACTS and datetime.fromisoformat(line["timestamp"]).timestamp() >= since
    ]


async def test_03_master_cut_off_from_everyone(site: Spread, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        async with trial.losses(before=before):
            site.host_of(master).cut()
        await trial.flows()
        assert master.info()["role"] == "master"
        site.network.heal()
        assert await trial.in_order() is not master
        assert master.info()["role"] == "slave"
        await only_change(site, before)


async def test_04_master_and_one_proxy_cut_off_together(site: Spread, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        captive, _ = site.proxies.values()
        async with Witness(master) as witness:
            lapses = site.times_said(captive, "lease_lapsed")  # a machine without time for it costs leases, too
            cut, cut_at = time.monotonic(), time.time()
            site.network.split([site.host_of(master), site.host_of(captive)])
            await site.said(captive, "lease_lapsed", lapses + 1)
            lapsed = time.monotonic()
            async with trial.losses(before=before, since=lapsed, lag=lapsed - cut + 1.0):
                pass
            await trial.flows()
        promoted = dict((await only_change(site, before)).steps)["promoted"]
        assert cut_at < witness.moments[-1] < promoted
        findings("stopped before", f"{promoted - witness.moments[-1]:.1f} s")
        site.network.heal()
        assert await trial.in_order() is not master
        await only_change(site, before)


async def test_05_one_way_loss(site: Spread, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        outvoted, *majority = site.managers
        # What the master says to one of three is lost: the others know better.
        site.host_of(master).drop_to(site.host_of(outvoted))
        await sees(site, outvoted, master.node, available=False)
        await nothing_changes(trial, site, before)
        site.network.heal()
        await sees(site, outvoted, master.node, available=True)
        # To two of them: another one takes over, and that is that, although one manager and the proxies reach it.
        async with trial.losses(before=before):
            site.host_of(master).drop_to(*map(site.host_of, majority))
        after = await site.serving()
        await nothing_changes(trial, site, after)
        site.network.heal()
        assert await trial.in_order() is not master
        await only_change(site, before)


async def test_06_only_one_of_three_managers_cannot_see_the_master(site: Spread, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        primary, follower, _ = site.managers
        assert await site.primary() is primary
        for blind in (follower, primary):
            site.host_of(master).drop_to(site.host_of(blind))
            site.host_of(blind).drop_to(site.host_of(master))
            await sees(site, blind, master.node, available=False)
            await nothing_changes(trial, site, before)
            site.network.heal()
            await sees(site, blind, master.node, available=True)
        assert await site.receipts() == []


async def test_07_half_open_connection(site: Spread, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        # The whole server vanishes without a word: the managers' pings find out.
        async with trial.losses(before=before):
            site.host_of(master).cut()
            master.kill()
        await trial.flows()
        site.network.heal()
        master.restart()
        master = await trial.in_order()
        # Connections of one proxy vanish without a word, and everybody else sees the server well: the kernel finds out.
        after = await site.serving()
        victim, _ = site.proxies.values()
        host = site.host_of(victim)
        site.host_of(master).drop_to(host)
        with master.client() as client:
            for one in client.client_list():
                if one["addr"].startswith(f"{host.address}:"):
                    client.client_kill_filter(_id=one["id"])
        lost = sum(line["event"] == "lane_lost" for line in site.log(victim))
        await site.said(victim, "lane_lost", lost + 1)
        site.network.heal()
        await nothing_changes(trial, site, after)


async def test_13_slow_replica(site: Spread, findings: Findings) -> None:
    for manager in site.managers:
        manager.argv += ["--max-staleness", "1"]
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        slow, quick = (site.group[node] for node in before.replicas)
        site.host_of(slow).slow(256)
        master.command("SET", "ballast", "x" * 1_000_000)  # half a minute for it
        shorter = await site.serving(lambda topology: topology.replicas == (quick.node,))
        assert shorter.epoch == before.epoch
        assert await available(site, slow.node)
        await trial.flows()
        async with trial.losses(before=before):
            master.kill()
        receipt = await only_change(site, before)
        assert receipt.master == quick.node
        assert receipt.offsets[str(slow.node)] < receipt.offsets[str(quick.node)]
        await trial.flows()
        site.network.heal()
        master.restart()


async def available(site: Spread, node: Node) -> bool:
    """Whether most managers see it up."""
    reports = await site.records(site.paths.managers)
    said = [ManagerReport.decode(name, entry.data).nodes for name, entry in reports.items()]
    return sum(report.available for nodes in said for report in nodes if report.node == node) > len(said) / 2


async def test_21_a_manager_and_a_proxy_on_the_minority_side_of_zookeeper(
    wide_site: Spread, findings: Findings
) -> None:
    site = wide_site
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master, leader = site.server_of(before), site.ensemble.leader()
        deposed, captive = await site.primary(), next(iter(site.proxies.values()))
        async with Witness(master) as witness:
            lapses = site.times_said(captive, "lease_lapsed")  # a machine without time for it costs leases, too
            cut, cut_at = time.monotonic(), time.time()
            site.network.split([site.host_of(inhabitant) for inhabitant in (leader, deposed, captive, master)])
            await site.said(captive, "lease_lapsed", lapses + 1)
            lapsed = time.monotonic()
            async with trial.losses(before=before, since=lapsed, lag=lapsed - cut + 1.0):
                pass
            await trial.flows()
        steps = dict((await only_change(site, before)).steps)
        assert acts(site, deposed, cut_at) == []
        assert acts(site, await site.primary(), steps["fenced"])
        assert await site.primary() is not deposed
        assert cut_at < witness.moments[-1] < steps["promoted"]
        findings("stopped before", f"{steps['promoted'] - witness.moments[-1]:.1f} s")
        site.network.heal()
        assert await trial.in_order() is not master
        await only_change(site, before)
