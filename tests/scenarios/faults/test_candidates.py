"""Faults of servers that are, or are not, to be promoted, by their number in the table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.scenarios.faults.servers import in_full_transfer, promoted, restart_with_nothing
from tests.scenarios.faults.trial import Findings, Trial
from tests.support.eventually import eventually
from tests.support.installation import Installation

MANY = {f"old:{number}": number for number in range(3000)}
"""Keys that are there before the fault, so that a full transfer can be made to last."""


@pytest.mark.fault
async def test_14_candidate_dies_while_promoted(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        async with trial.losses():
            master.kill()
            candidate = await promoted([site.group[node] for node in before.replicas])
            # It may have been published before it was dead; what it acknowledged then is gone.
            async with trial.losses(before=replace(before, master=candidate.node)):
                candidate.kill()
        (last,) = set(before.replicas) - {candidate.node}
        topology = await site.serving()
        assert topology.master == last
        assert topology.epoch >= before.epoch + 3, "a candidate is given up with an epoch"
        await trial.flows()
        master.restart()
        candidate.restart()
        await trial.in_order()
        assert [receipt.master for receipt in await site.receipts()] in ([last], [candidate.node, last])


@pytest.mark.fault
@pytest.mark.elaborate
async def test_14_candidate_and_manager_die_before_it_is_published(site: Installation, findings: Findings) -> None:
    primary = site.managers[0]
    primary.env = {**(primary.env or {}), "RF_FAILPOINT": "after-promote"}
    async with Trial(site, findings) as trial:
        before = await site.serving()
        master = site.server_of(before)
        async with trial.losses():
            master.kill()
            await eventually(lambda: not primary.alive)
            candidate = await promoted([site.group[node] for node in before.replicas])
            candidate.kill()
        (last,) = set(before.replicas) - {candidate.node}
        topology = await site.serving()
        assert (topology.master, topology.epoch) == (last, before.epoch + 3)
        await trial.flows()
        candidate.restart()
        master.restart()
        await trial.in_order()
        assert [receipt.master for receipt in await site.receipts()] == [last]


@pytest.mark.fault
@pytest.mark.elaborate
async def test_15_replica_in_full_sync(site: Installation, findings: Findings) -> None:
    """It was away for longer than the backlog reaches back, and has its old data until it gets the new."""
    async with Trial(site, findings) as trial, trial.client() as client:
        before = await site.serving()
        master = site.server_of(before)
        copying, whole = (site.group[node] for node in before.replicas)
        await client.mset(MANY)
        await eventually(lambda: copying.command("DBSIZE") >= len(MANY))
        master.command("CONFIG", "SET", "repl-backlog-size", 16384)
        copying.freeze()
        master.command("CLIENT", "KILL", "TYPE", "replica")
        await client.set("missed", "x" * 100_000)
        await eventually(lambda: whole.command("EXISTS", "missed"))
        await in_full_transfer(copying, master, copying.thaw)
        async with trial.losses():
            master.kill()
        assert (await site.serving()).master == whole.node
        await trial.flows()
        master.restart()
        await trial.in_order()
        assert [receipt.master for receipt in await site.receipts()] == [whole.node]


@pytest.mark.fault
@pytest.mark.elaborate
async def test_15_nobody_but_an_empty_replica_in_full_sync(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial, trial.client() as client:
        before = await site.serving()
        master = site.server_of(before)
        copying, whole = (site.group[node] for node in before.replicas)
        await client.mset(MANY)
        await in_full_transfer(copying, master, partial(restart_with_nothing, copying))
        async with trial.losses():
            whole.freeze()
            master.kill()
            await site.said(await site.primary(), "no server can be promoted: ")
            await trial.stands_still()
            whole.thaw()
        assert (await site.serving()).master == whole.node
        await trial.flows()
        master.restart()
        await trial.in_order()
        assert [receipt.master for receipt in await site.receipts()] == [whole.node]
