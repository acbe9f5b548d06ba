"""Faults of clocks, by their number in the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfprotocol.topology.records import Receipt
from rfprotocol.topology.topology import ManagerReport
from tests.scenarios.faults.trial import Findings, Trial
from tests.support.clock import Clock
from tests.support.installation import Installation
from tests.support.redis import RedisGroup
from tests.support.zookeeper import ZooKeeperServer

HOUR = 3600
RENEWALS = 8
"""Of a manager's report: they take longer than a session may be silent."""


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Of one manager, one proxy and ZooKeeper."""
    return Clock(tmp_path / "clock")


@pytest.fixture
def clocked_zookeeper(clock: Clock, tmp_path: Path) -> Iterator[ZooKeeperServer]:
    """One server for this test alone."""
    server = ZooKeeperServer(tmp_path / "zookeeper")
    clock.given_to(server.process)
    with server:
        yield server


@pytest.mark.fault
@pytest.mark.elaborate
async def test_23_clock_jumps_by_an_hour(
    redis_group: RedisGroup, clocked_zookeeper: ZooKeeperServer, clock: Clock, tmp_path: Path, findings: Findings
) -> None:
    site = Installation(redis_group, clocked_zookeeper.hosts, tmp_path, proxies=2)
    for process in (site.managers[0], site.proxies[site.ports[0]]):
        clock.given_to(process)
    async with Trial(site, findings) as trial:
        topology, sessions = await site.serving(), await owners(site)
        for jump in (HOUR, -HOUR, HOUR):
            clock.jump(jump)
            await reports_are_renewed(site)
            await trial.flows()
            assert abs(await zookeepers_time(site) - time.time() - jump) < HOUR / 2
        assert await site.serving() == topology
        assert await owners(site) == sessions
        done = await site.command("failover")
        assert done.returncode == 0, done.stderr
        assert abs(began(*await site.receipts()) - time.time() - HOUR) < HOUR / 2, "the manager's clock has jumped"


async def owners(site: Installation) -> dict[str, int]:
    """The session behind each record that lives as long as one."""
    folders = (site.paths.managers, site.paths.proxies, site.paths.lock)
    return {name: entry.owner for folder in folders for name, entry in (await site.children(folder)).items()}


async def reports_are_renewed(site: Installation) -> None:
    """Return when each manager has reported again and again."""
    before = {name: sequence(name, entry.data) for name, entry in (await site.children(site.paths.managers)).items()}
    await site.children(
        site.paths.managers,
        lambda entries: all(sequence(name, entries[name].data) >= seen + RENEWALS for name, seen in before.items()),
    )


def sequence(manager: str, report: bytes) -> int:
    """The number of a manager's report."""
    return ManagerReport.decode(manager, report).sequence


async def zookeepers_time(site: Installation) -> float:
    """When ZooKeeper says that a record was written which is written all the time."""
    name = next(iter(await site.children(site.paths.managers)))
    [stat] = await site.store._link.ask(lambda client: client.exists_async(site.paths.manager(name)))
    return float(stat.mtime) / 1000


def began(receipt: Receipt) -> float:
    """When the manager says that it began a change."""
    return receipt.steps[0][1]
