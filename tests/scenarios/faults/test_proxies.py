"""Faults of one proxy, by their number in the table: the recorder's clients are at another one and must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.scenarios.faults.trial import Findings, Trial
from tests.support.installation import Installation

SPARE = 8 << 20
HUGE = 32 << 20
"""Bytes that a proxy has left, and bytes that are sent to it."""


def descriptors(pid: int) -> int:
    """How many a process uses."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Bytes of address space that a process uses."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def limited(pid: int, kind: int, amount: int) -> Iterator[None]:
    """A resource of a running process is limited for as long as the block takes."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (amount, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, before)


@pytest.mark.fault
async def test_24_a_proxy_freezes(site: Installation, findings: Findings) -> None:
    port, other = site.ports
    victim = site.proxies[port]
    async with Trial(site, findings, ports=[other]) as trial, trial.client(port) as client:
        await client.set("of the victim", "before")
        before = await site.serving()
        victim.freeze()
        await trial.flows()
        assert trial.uncertain() == []
        waiting = asyncio.ensure_future(client.incr("n"))
        async with trial.losses():
            site.server_of(before).kill()
        assert len(await site.children(site.paths.proxies)) == 1, "it may write for as long as its session lives"
        await trial.flows()
        victim.thaw()
        assert await waiting == 1
        await site.registered(2)
        site.server_of(before).restart()


@pytest.mark.fault
@pytest.mark.elaborate
async def test_24_a_proxy_crashes(site: Installation, findings: Findings) -> None:
    port, other = site.ports
    victim = site.proxies[port]
    async with Trial(site, findings, ports=[other]) as trial:
        before = await site.serving()
        victim.kill()
        await trial.flows()
        assert trial.uncertain() == []
        async with trial.losses():
            site.server_of(before).kill()
        assert len(await site.children(site.paths.proxies)) == 1
        await trial.flows()
        victim.start()
        await site.registered(2)
        async with trial.client(port) as client:
            assert await client.incr("n") == 1
        site.server_of(before).restart()


@pytest.mark.fault
@pytest.mark.elaborate
async def test_24_a_proxy_runs_out_of_descriptors(site: Installation, findings: Findings) -> None:
    port, other = site.ports
    async with Trial(site, findings, ports=[other]) as trial, trial.client(port) as old:
        (victim,) = site.proxies[port].workers
        assert await old.incr("n") == 1
        before = await site.serving()
        with contextlib.ExitStack() as stack, limited(victim, resource.RLIMIT_NOFILE, descriptors(victim) + 2):
            links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            for _, writer in links:
                stack.callback(writer.close)
            await trial.flows()
            assert await old.incr("n") == 2
            assert trial.uncertain() == []
            async with trial.losses():
                site.server_of(before).kill()
            await trial.flows()
        assert await old.incr("n") == 3
        async with trial.client(port) as new:
            assert await new.incr("n") == 4
        site.server_of(before).restart()


@pytest.mark.fault
@pytest.mark.elaborate
async def test_24_a_proxy_runs_out_of_memory(site: Installation, findings: Findings) -> None:
    port, other = site.ports
    async with Trial(site, findings, ports=[other]) as trial:
        (victim,) = site.proxies[port].workers
        before = await site.serving()
        with limited(victim, resource.RLIMIT_AS, memory(victim) + SPARE):
            greedy = [asyncio.ensure_future(greed(trial, port)) for _ in range(4)]
            await asyncio.wait(greedy)
            await trial.flows()
            assert trial.uncertain() == []
            async with trial.losses():
                site.server_of(before).kill()
            await trial.flows()
        async with trial.client(port) as client:
            assert await client.incr("n") == 1
        site.server_of(before).restart()


async def greed(trial: Trial, port: int) -> None:
    """Ask a proxy for more than it has; whatever it says is in order."""
    async with trial.client(port) as client:
        with contextlib.suppress(redis.RedisError):
            await client.set("huge", b"x" * HUGE)
