"""Several workers behind one address, replaced while clients come without pause, and while the master changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.load import Load
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup

WORKERS = 2
VISITORS = 8
"""That come at the same time."""


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers, one proxy of two workers."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path, workers=WORKERS) as site:
        yield site


class Visitors:
    """`async with Visitors(port)`: clients that connect, ask once, get their answer and leave, again and again."""

    def __init__(self, port: int) -> None:
        self.served = 0
        self.refused: list[OSError] = []
        self.cut_off: list[str] = []
        self._port = port
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Visitors:
        self._tasks = [asyncio.create_task(self._come_and_go()) for _ in range(VISITORS)]
        await self.flow()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def flow(self) -> None:
        """Return when all have been served some more times."""
        enough = self.served + 20 * VISITORS
        await eventually(lambda: self.served >= enough)

    async def _come_and_go(self) -> None:
        while not self._over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self.refused.append(error)
                continue
            try:
                writer.write(b"SET visitor 1\r\n")
                answer = await reader.readline()
            except OSError as error:
                answer = repr(error).encode()
            if answer == b"+OK\r\n":
                self.served += 1
            else:
                self.cut_off.append(answer.decode())
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
async def test_no_connection_is_refused_or_broken_off_by_a_reload(site: Installation, number: signal.Signals) -> None:
    (proxy,) = site.proxies.values()
    async with Visitors(site.ports[0]) as visitors:
        former = set(proxy.workers)
        proxy.signal(number)
        await site.said(proxy, '"worker_left"', WORKERS)
        await visitors.flow()
        assert len(set(proxy.workers) - former) == WORKERS
        assert (visitors.refused, visitors.cut_off) == ([], [])


async def test_a_killed_worker_costs_those_that_it_serves_and_nobody_else(site: Installation) -> None:
    (proxy,) = site.proxies.values()
    async with Visitors(site.ports[0]) as visitors:
        for times in range(1, 4):
            os.kill(proxy.workers[0], signal.SIGKILL)
            await site.said(proxy, '"worker_ended"', times)
            await visitors.flow()
        assert visitors.refused == []
        assert len(visitors.cut_off) <= 3 * VISITORS


async def test_a_master_that_is_killed_during_a_reload_costs_no_acknowledged_write_and_no_connection(
    site: Installation,
) -> None:
    (proxy,) = site.proxies.values()
    load = Load(port=site.ports[0], connections=16, rate=400.0)
    await asyncio.to_thread(load.start)
    before = await site.serving()
    proxy.signal(signal.SIGHUP)
    await site.said(proxy, '"supervising"', 2)
    site.server_of(before).kill()
    await site.serving(lambda topology: topology.master != before.master)
    seen = await asyncio.to_thread(load.stop)
    assert seen.ledger is not None
    assert seen.ledger.lost == 0
    assert {operation.error for operation in seen.operations} <= {"", "UNCERTAIN"}
    assert len(proxy.workers) == 2 * WORKERS, "clients that are never silent are still with the former workers"
