"""Faults of masters that go away or come back, by their number in the table."""

from __future__ import annotations

import asyncio

import pytest
import redis

from tests.scenarios.faults.servers import key_count, reported, restart_with_nothing
from tests.scenarios.faults.trial import Findings, Trial
from tests.support.eventually import eventually
from tests.support.installation import Installation

OLD = {f"old:{number}": number for number in range(3000)}
"""Keys that are there before the fault."""


@pytest.mark.fault
async def test_01_master_crashes(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        async with trial.losses():
            site.server_of(before).kill()
        await trial.flows()
        site.server_of(before).restart()


@pytest.mark.fault
async def test_02_master_freezes_then_resumes(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial, trial.client() as client:
        frozen = site.server_of(await site.serving())
        await client.ping()
        async with trial.losses():
            frozen.freeze()
            late = asyncio.ensure_future(client.incrby("late"))
        with pytest.raises(redis.ResponseError, match=r"^UNCERTAIN "):
            await late
        await trial.flows()
        frozen.thaw()
        await site.serving(lambda topology: frozen.node in topology.replicas)
        assert frozen.info("commandstats")["cmdstat_incrby"]["calls"] == 1, "the thawed master did what it had read"
        assert await client.get("late") is None, "but nobody believed it"
        assert (await site.receipts())[0].former == frozen.node


@pytest.mark.fault
async def test_10_master_restarts_at_once_with_no_data(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial, trial.client() as client:
        await client.mset(OLD)
        await eventually(lambda: all(server.command("DBSIZE") >= len(OLD) for server in site.group.servers))
        for _ in range(3):
            before = await site.serving(lambda topology: len(topology.replicas) == 2)
            async with key_count([site.group[node] for node in before.replicas]) as count:
                async with trial.losses():
                    restarted = site.server_of(before)
                    # With 0, as other tests have it for their haste, a replica that comes soon copies the emptiness.
                    restarted.options["repl_diskless_sync_delay"] = 5
                    restart_with_nothing(restarted)
                restarted.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
                await trial.flows()
                await trial.in_order()
            assert count.fewest >= len(OLD)
        assert [receipt.master != receipt.former for receipt in await site.receipts()] == [True] * 3
        assert await client.exists(*OLD) == len(OLD)


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.servers(key_load_delay=10_000, loading_process_events_interval_bytes=1024, rdbcompression="no")
async def test_11_master_restarts_and_loads_for_long(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial, trial.client() as client:
        loading = site.server_of(await site.serving())
        # It looks at its connections behind each KiB, and takes 10,000 microseconds for each key.
        await client.mset({f"old:{number}": "x" * 1024 for number in range(1000)})
        loading.command("SAVE")
        async with trial.losses():
            loading.kill()
            loading.process.start()
        await trial.flows()
        await reported(site, loading, "loading")
        assert "is loading its data" in (await site.command("status")).stdout
        loading.command("CONFIG", "SET", "key-load-delay", 0)
        await trial.in_order()
        assert [receipt.former for receipt in await site.receipts()] == [loading.node]


@pytest.mark.fault
@pytest.mark.servers(appendonly="yes", appendfsync="always")
async def test_16_all_replicas_are_down_and_then_the_master(site: Installation, findings: Findings) -> None:
    refused = "held for 2 s and not sent: there is no master"
    async with Trial(site, findings, hold_timeout=2.0, refusals=(refused,)) as trial, trial.client() as client:
        before = await site.serving()
        master, replicas = site.server_of(before), [site.group[node] for node in before.replicas]
        await client.ping()
        for replica in replicas:
            replica.kill()
        await site.serving(lambda topology: not topology.replicas)
        await trial.flows()
        assert await site.receipts() == []
        master.kill()
        await trial.stands_still()
        with pytest.raises(redis.exceptions.MasterDownError, match=refused):
            await client.incr("other")
        for server in (replicas[0], master, replicas[1]):
            server.restart()
        await site.said(await site.primary(), "no server can be promoted")
        named = await site.command("failover", "--to", str(master.node))
        assert named.returncode == 0, named.stderr
        await trial.flows()


STALL = 1.8
"""Seconds: a little more than a master may be silent."""


@pytest.mark.fault
@pytest.mark.elaborate
async def test_38_masters_stall_again_and_again(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        async with trial.losses():
            stalled = site.server_of(await site.serving())
            stalled.freeze()
            await asyncio.sleep(STALL)
            stalled.thaw()
        await trial.in_order()
        while not any(receipt.false_alarm for receipt in await site.receipts()):  # noqa: ASYNC110  # the installation has no event for it
            await asyncio.sleep(0.1)
        for _ in range(5):
            await trial.flows()
            stalled = site.server_of(await site.serving())
            stalled.freeze()
            await asyncio.sleep(STALL)
            stalled.thaw()
        await trial.in_order()
        assert len(await site.receipts()) == 1, "the brake works"
        assert "slowed down" in (await site.command("status")).stdout


LONG = """
local now = function() local t = redis.call('TIME'); return t[1] + t[2] / 1000000 end
local ends = now() + 3
while now() < ends do end
return 'done'
"""
"""Longer than a server may be silent, shorter than Redis' `busy-reply-threshold` and the managers' patience."""


@pytest.mark.fault
@pytest.mark.elaborate
async def test_28_a_long_script_with_default_thresholds(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial, trial.client() as client:
        master = site.server_of(await site.serving())
        assert await client.eval(LONG, 1, "k") == "done"
        await trial.flows()
        assert await site.receipts() == []
        for manager in site.managers:
            said = [line for line in site.log(manager) if line["event"] == "server is busy"]
            assert [(line["node"], line["command"]) for line in said] == [(str(master.node), "EVAL")]
