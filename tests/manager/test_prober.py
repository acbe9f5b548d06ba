"""One server watched over real connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from rfmanager.detector import Limits, Verdict
from rfmanager.prober import Prober
from rfmanager.redis_admin import RedisAdmin
from rfprotocol.topology import Node
from tests.support.redis import RedisServer


class Watch:
    """A running prober; `until` waits for a verdict or anything else that a probe shows."""

    def __init__(self, node: Node) -> None:
        self.probed = asyncio.Event()
        self.news = 0
        self.samples = 0
        limits = Limits(probe_interval=30.0, probe_timeout=0.2)
        self.prober = Prober(RedisAdmin(node), limits, time.monotonic, self._sampled)

    def _sampled(self, significant: bool) -> None:
        self.news += significant
        self.samples += 1
        self.probed.set()

    async def until(self, satisfied: Callable[[], bool]) -> None:
        while not satisfied():
            self.probed.clear()
            await self.probed.wait()

    def verdict_is(self, verdict: Verdict) -> Callable[[], bool]:
        return lambda: self.prober.detector.verdict is verdict


@pytest.fixture
async def watch(redis_server: RedisServer) -> AsyncIterator[Watch]:
    watch = Watch(redis_server.node)
    task = asyncio.create_task(watch.prober.run())
    await watch.until(watch.verdict_is(Verdict.AVAILABLE))
    yield watch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watch.prober.admin.close()


async def test_a_killed_server_is_found_dead_without_waiting_for_the_next_probe(
    redis_server: RedisServer, watch: Watch
) -> None:
    redis_server.kill()
    await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))  # the interval is 30 s, longer than this test may take
    assert watch.news == 2


async def test_a_frozen_server_is_found_dead_by_its_silence(redis_server: RedisServer, watch: Watch) -> None:
    redis_server.freeze()
    watch.prober.hurry()
    await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
    report = watch.prober.detector.report
    assert report is not None
    assert report.condition == "timeout"
    redis_server.thaw()
    watch.prober.hurry()
    await watch.until(watch.verdict_is(Verdict.AVAILABLE))


async def test_a_server_that_restarts_at_once_is_seen_as_another_process(
    redis_server: RedisServer, watch: Watch
) -> None:
    before = watch.prober.detector.report
    assert before is not None
    await asyncio.to_thread(redis_server.kill)
    await asyncio.to_thread(redis_server.restart)

    def another() -> bool:
        report = watch.prober.detector.report
        watch.prober.hurry()
        return report is not None and report.available and report.run_id != before.run_id

    await watch.until(another)


async def test_a_wish_that_comes_during_a_probe_leads_to_another_one(watch: Watch) -> None:
    watch.prober.hurry()
    asked = time.monotonic()
    await watch.until(lambda: watch.prober.detector.sampled_at > asked)
    for _ in range(3):  # wherever the prober is by now
        asked = time.monotonic()
        watch.prober.hurry()
        await asyncio.sleep(0)
        watch.prober.hurry()
        await watch.until(lambda asked=asked: watch.prober.detector.sampled_at > asked)  # type: ignore[misc]  # a default argument


async def test_a_connection_that_is_closed_as_soon_as_it_is_accepted_is_no_reason_to_probe_without_pause() -> None:
    accepted = 0

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The second connection is the one that asks; the silent ones are closed at once."""
        nonlocal accepted
        accepted += 1
        if accepted != 2:
            writer.close()
            return
        while line := await reader.readline():
            for _ in range(int(line[1:])):
                await reader.readline()
                word = await reader.readline()
            writer.write(b"+OK\r\n" if word.strip().upper() != b"INFO" else b"$13\r\nrole:master\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as relay:
        watch = Watch(Node(*relay.sockets[0].getsockname()[:2]))
        task = asyncio.create_task(watch.prober.run())
        for wished in range(3):
            await watch.until(lambda wished=wished: watch.samples > wished)  # type: ignore[misc]  # a default argument
            await asyncio.sleep(0.1)  # what would not pause would probe hundreds of times
            watch.prober.hurry()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watch.prober.admin.close()
    assert watch.samples < 12
