"""Planned changes under all kinds of load: row 25 of the table."""

from __future__ import annotations

import asyncio

import pytest

from rfprotocol.topology.records import Outcome
from tests.scenarios.faults.trial import Findings, Trial
from tests.scenarios.faults.users import Users
from tests.support.installation import Installation

TURNS = 4


@pytest.mark.fault
async def test_25_planned_switchover_under_pipelines_MULTI_BLPOP_pub_sub_and_EVAL(
    site: Installation, findings: Findings
) -> None:
    site.unhurried()
    async with Trial(site, findings) as trial:
        users = Users(trial.client)
        async with users.at_work():
            for _ in range(TURNS):
                before = await trial.in_order()
                done = await site.command("failover")
                assert done.returncode == 0, done.stderr
                assert (await site.serving()).master != before.node
                await users.progress()
        assert trial.uncertain() == []
        assert [receipt.outcome for receipt in await site.receipts()] == [Outcome.DONE] * TURNS


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.parametrize("failpoint", ["after-drain", "after-catch-up"])
async def test_25_the_candidate_is_lost_half_way(site: Installation, findings: Findings, failpoint: str) -> None:
    site.unhurried()
    manager = site.managers[0]
    site.arm(manager, f"{failpoint}:STOP")
    async with Trial(site, findings) as trial:
        users = Users(trial.client)
        async with users.at_work():
            before, candidate = await site.serving(), site.group.replicas[0]
            command = asyncio.ensure_future(site.command("failover", "--to", str(candidate.node)))
            await site.frozen(manager)
            candidate.kill()
            manager.thaw()
            done = await command
            assert done.returncode == 1
            assert f"{candidate.node}" in done.stdout + done.stderr
            assert (await site.serving()).master == before.master
            await users.progress()
        assert trial.uncertain() == []
        assert [receipt.outcome for receipt in await site.receipts()] == [Outcome.ABORTED]
        candidate.restart()
