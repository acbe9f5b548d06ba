"""Faults of Redis servers, by their number in the table."""

from __future__ import annotations

import pytest

from tests.scenarios.faults.trial import Findings, Trial
from tests.support.installation import Installation


@pytest.mark.fault
async def test_01_master_crashes(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        before = await site.serving()
        async with trial.losses():
            site.server_of(before).kill()
        await trial.flows()
        site.server_of(before).restart()
