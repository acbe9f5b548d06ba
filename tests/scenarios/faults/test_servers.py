"""Faults of Redis servers that answer, by their number in the table: they are slow, busy, or cannot write."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rfprotocol.topology.topology import Node
from tests.scenarios.faults.servers import reported
from tests.scenarios.faults.trial import Findings, Trial
from tests.scenarios.history import Fate
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup
from tests.support.relay import Relay

PROBE_TIMEOUT = 1.5
"""Seconds: thrice the default, for the same number of probes have to fail on a machine that is slow itself."""


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.servers(enable_debug_command="local")
async def test_08_master_is_slow(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path, findings: Findings
) -> None:
    slow = redis_group.master
    async with Relay(slow.bind, slow.port) as relay:
        slow.front = Node(relay.host, relay.port)
        site = Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2)
        site.unhurried()
        for manager in site.managers:
            manager.argv += ["--probe-timeout", str(PROBE_TIMEOUT)]
        async with Trial(site, findings) as trial:
            relay.delay(0.15)
            await trial.flows()
            relay.delay(0)
            for _ in range(4):
                await asyncio.to_thread(slow.command, "DEBUG", "SLEEP", 2.2 * PROBE_TIMEOUT)
                await trial.flows(20)
            assert (await site.serving()).master == slow.node
            assert await site.receipts() == []
            assert trial.uncertain() == []


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.servers(busy_reply_threshold=1000)
async def test_09_script_does_not_end(site: Installation, findings: Findings) -> None:
    busy = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
    async with Trial(site, findings, refusals=(busy,)) as trial, trial.client() as first, trial.client() as second:
        master = site.server_of(await site.serving())
        script = asyncio.ensure_future(first.eval("while true do end", 0))
        await reported(site, master, "busy")
        await eventually(lambda: trial.recorder.count(Fate.REFUSED) > 100)
        assert "is busy with a script: SCRIPT KILL ends one" in (await site.command("status")).stdout
        logged = [line for line in site.log(site.managers[0]) if line.get("condition") == "busy"]
        assert [line["node"] for line in logged] == [str(master.node)]
        await second.script_kill()
        with pytest.raises(redis.ResponseError, match="Script killed by user"):
            await script
        await reported(site, master, "ok")
        await trial.flows()
        assert await site.receipts() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.servers(enable_protected_configs="local")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
async def test_12_disk_is_full(site: Installation, findings: Findings, small_disk: Path) -> None:
    full = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."
    async with Trial(site, findings, refusals=(full,)) as trial, trial.client() as client:
        master = site.server_of(await site.serving())
        await client.set("kept", 1)
        rest = small_disk / "rest"
        with pytest.raises(OSError, match="No space left"):
            rest.write_bytes(bytes(1 << 20))
        master.command("CONFIG", "SET", "dir", str(small_disk))
        master.command("CONFIG", "SET", "save", "1 1")
        await reported(site, master, "misconf")
        await eventually(lambda: trial.recorder.count(Fate.REFUSED) > 100)
        assert await client.get("kept") == "1", "reads go on"
        assert "cannot save to disk and refuses writes (MISCONF)" in (await site.command("status")).stdout
        logged = [line for line in site.log(site.managers[0]) if line.get("condition") == "misconf"]
        assert [line["node"] for line in logged] == [str(master.node)]
        rest.unlink()
        await reported(site, master, "ok")  # Redis tries again by itself
        await trial.flows()
        assert await site.receipts() == []
