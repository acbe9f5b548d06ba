"""Faults of managers, by their number in the table."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import pytest

from deploy.processes import Process
from rfprotocol.topology.records import Outcome
from tests.scenarios.faults.trial import Findings, Trial
from tests.support.installation import Installation

FAILOVER = ("after-fence", "after-seal", "after-mark", "after-promote", "before-publish", "after-publish")
SWITCHOVER = ("after-drain", "after-catch-up", "after-promote", "after-demote", "before-publish", "after-publish")


class Crashes:
    """One manager after the other, each at its failpoint.

    The first of the line dies, the second finishes what that has begun, the third has the next failpoint.
    """

    def __init__(self, site: Installation, failpoints: Sequence[str]) -> None:
        self._site = site
        self._left = [*failpoints, "", ""]
        site.arm(site.managers[0], self._left.pop(0))

    async def begin(self) -> None:
        """All managers run."""
        for manager in self._site.managers:
            await self._site.stands(manager)
        *_, last = await self._site.line()
        await self._site.renew(last, self._left.pop(0))

    async def next(self, dead: Process) -> None:
        """Fill the line up again."""
        successor = await self._site.primary()
        await self._site.renew(dead)
        await self._site.renew(successor, self._left.pop(0))


@pytest.mark.fault
@pytest.mark.elaborate
async def test_17_manager_crashes_at_each_step_of_a_failover(site: Installation, findings: Findings) -> None:
    crashes = Crashes(site, FAILOVER)
    async with Trial(site, findings) as trial:
        await crashes.begin()
        for failpoint in FAILOVER:
            doomed, before = await site.primary(), await site.serving()
            async with trial.losses():
                site.server_of(before).kill()
                assert await asyncio.to_thread(doomed.wait) == -signal.SIGKILL
            after = await site.serving()
            assert after.epoch == before.epoch + 2, f"{failpoint}: what was begun is finished, nothing is begun anew"
            await trial.flows()
            site.server_of(before).restart()
            await crashes.next(doomed)
            await trial.in_order()
        assert [receipt.outcome for receipt in await site.receipts()] == [Outcome.DONE] * len(FAILOVER)


@pytest.mark.fault
@pytest.mark.elaborate
async def test_17_manager_crashes_at_each_step_of_a_switchover(site: Installation, findings: Findings) -> None:
    crashes = Crashes(site, SWITCHOVER)
    async with Trial(site, findings) as trial:
        await crashes.begin()
        for failpoint in SWITCHOVER:
            doomed, before = await site.primary(), await site.serving()
            done = await site.command("failover")
            assert done.returncode == 0, f"{failpoint}: {done.stderr}"
            assert await asyncio.to_thread(doomed.wait) == -signal.SIGKILL
            after = await site.serving()
            assert after.master != before.master
            assert after.epoch == before.epoch + 2, f"{failpoint}: what was begun is finished, nothing is begun anew"
            await trial.flows()
            await crashes.next(doomed)
            await trial.in_order()
        assert [receipt.outcome for receipt in await site.receipts()] == [Outcome.DONE] * len(SWITCHOVER)
        assert trial.uncertain() == []


@pytest.mark.fault
async def test_18_manager_freezes_past_its_session(site: Installation, findings: Findings) -> None:
    site.arm(site.managers[0], "before-publish:STOP")
    async with Trial(site, findings) as trial:
        await frozen_past_its_session(site, trial, site.managers[0])


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.parametrize("failpoint", ["after-fence", "after-seal", "after-mark", "after-promote"])
async def test_18_manager_freezes_past_its_session_earlier(
    site: Installation, findings: Findings, failpoint: str
) -> None:
    site.arm(site.managers[0], f"{failpoint}:STOP")
    async with Trial(site, findings) as trial:
        await frozen_past_its_session(site, trial, site.managers[0])


async def frozen_past_its_session(site: Installation, trial: Trial, manager: Process) -> None:
    """The primary freezes in the middle of a failover, another manager finishes it; what does the first one do then?"""
    before = await site.serving()
    async with trial.losses():
        site.server_of(before).kill()
        await site.frozen(manager)
    site.server_of(before).restart()
    await trial.in_order()
    after = await site.serving()
    assert after.epoch == before.epoch + 2
    manager.thaw()
    await site.said(manager, "lost the role of primary manager")
    await site.stands(manager)
    await trial.flows()
    assert "published a new master" not in manager.last_words()
    assert (await trial.in_order()).node == after.master
    assert await site.serving() == after
    assert len(await site.receipts()) == 1
