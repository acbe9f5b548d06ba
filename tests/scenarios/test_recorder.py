"""What many clients hear through two proxies is what one Redis could have said, whatever happens to the master.

Reads go to the master here: those from replicas may be behind, and are not linearizable.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.scenarios.history import Fate, Kill, Rule, check
from tests.scenarios.recorder import KEYS, Recorder, final
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer

CLIENTS = 8


async def test_a_plain_redis_is_not_accused(redis_server: RedisServer) -> None:
    async with Recorder([redis_server.port], CLIENTS) as recorder:
        await recorder.progress(500)
    verdict = check(recorder.history, final(redis_server))
    assert (verdict.violations, verdict.lost) == ([], {})
    assert {operation.asked.key for operation in recorder.history} == KEYS.keys()


async def test_what_happens_behind_the_clients_backs_is_found_on_every_key(redis_server: RedisServer) -> None:
    async with Recorder([redis_server.port], CLIENTS) as recorder:
        await recorder.progress(100)
        with redis_server.client() as client:
            client.flushall()
        await recorder.progress(100)
    verdict = check(recorder.history, {**final(redis_server), "register:1": "mine", "register:2": None})
    assert {violation.key for violation in verdict.violations} == KEYS.keys()


async def test_two_masters_at_once_are_found(redis_server: RedisServer) -> None:
    with RedisServer() as other:
        async with Recorder([redis_server.port, other.port], CLIENTS) as recorder:
            await recorder.progress(300)
    verdict = check(recorder.history, final(redis_server))
    assert {violation.key for violation in verdict.violations} == KEYS.keys()
    assert {violation.key for violation in verdict.violations if violation.rule is Rule.EPOCHS} >= {"counter", "list"}


async def test_a_killed_master_and_a_switchover_are_not_seen_in_the_history(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    site = Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2)
    for proxy in site.proxies.values():
        proxy.argv += ["--reads", "master"]
    async with site, Recorder(site.ports, CLIENTS) as recorder:
        await recorder.progress(300)
        before = await site.serving()
        killed = time.monotonic()
        site.server_of(before).freeze()
        await eventually(lambda: recorder.waiting == CLIENTS)  # so that there is something to be uncertain of
        site.server_of(before).kill()
        await site.serving(lambda topology: topology.epoch > before.epoch)
        kill = Kill(killed, time.monotonic())
        await recorder.progress(300)
        site.server_of(before).restart()
        between = await site.serving(lambda topology: len(topology.replicas) == 2)
        moved = await site.command("failover")
        assert moved.returncode == 0, moved.stderr
        after = await site.serving(lambda topology: topology.master != between.master)
        await recorder.progress(300)
    # Only the kill excuses a loss, and a SET that was sent again because of it may have taken effect twice.
    verdict = check(recorder.history, final(site.server_of(after)), [kill], repeats=True)
    assert verdict.violations == []
    assert recorder.count(Fate.REFUSED) == 0
    uncertain = [operation for operation in recorder.history if operation.heard.fate is Fate.UNCERTAIN]
    assert len(uncertain) <= CLIENTS
    assert all(killed <= operation.heard.at and operation.asked.at <= kill.until for operation in uncertain)
