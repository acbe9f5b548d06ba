"""Clients of Ruby's redis_failover (the gem) under rfmanager, rfproxy under the gem's managers, and the way in between.

The stand-in of `tests/support/gem` plays the gem. Servers, ZooKeeper, managers and proxies are real.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from bench.load import Load
from bench.seen import Result
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Topology
from rfprotocol.topology.znode_paths import Paths
from tests.scenarios.history import Fate, Verdict, check
from tests.scenarios.recorder import Recorder, final
from tests.support.eventually import eventually
from tests.support.gem import GemClient
from tests.support.gemsite import Epochs, GemSite
from tests.support.redis import RedisGroup, RedisServer

PATHS = Paths()
CONNECTIONS = 8
PATIENT: dict[str, Any] = {"retry_wait": 0.2, "max_retries": 150}
"""As patient as the gem's own clients, which wait three times for 3 seconds, and sooner there."""


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[GemSite]:
    """Two managers and a proxy, none of which runs."""
    async with GemSite(redis_group, zookeeper_hosts, tmp_path) as site:
        yield site


class GemWriter:
    """`with GemWriter(hosts) as writer`: a client of the gem appends numbers to a list all the time, and reads."""

    def __init__(self, hosts: str) -> None:
        self.masters: list[str | None] = []  # as `on_node_change` was told
        self.written: list[str] = []
        self.failures: list[Exception] = []
        self.client = GemClient(hosts, on_node_change=lambda master, _: self.masters.append(master), **PATIENT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()

    def stop(self) -> None:
        """Return when the last command was answered."""
        self._stopping.set()
        self._thread.join()

    async def progress(self, count: int = 20) -> None:
        """Return when so many more were written."""
        before = len(self.written)
        await eventually(lambda: len(self.written) >= before + count or self.failures)
        assert self.failures == []

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(0.005):
            number += 1
            try:
                self.client.command("RPUSH", "gem", number)
                self.written.append(str(number))
                self.client.command("GET", "gem:none")
            except Exception as failure:
                self.failures.append(failure)
                return


def kept(site: GemSite, topology: Topology) -> list[str]:
    """What the master has of a GemWriter's."""
    found: list[str] = site.server_of(topology).command("LRANGE", "gem", 0, -1)
    return found


async def served(site: GemSite) -> Topology:
    """By our managers, with all servers."""
    await site.start_managers()
    return await site.serving(lambda topology: topology.epoch > 0 and len(topology.replicas) == 2)


# --- clients of the gem, our managers


async def test_gem_client__master_killed__its_writer_hears_no_error(site: GemSite) -> None:
    before = await served(site)
    with GemWriter(site.zookeeper) as writer:
        await writer.progress()
        site.group.wait_in_sync()
        site.group.master.kill()
        after = await site.serving(lambda topology: topology.master != before.master)
        await writer.progress()
        writer.stop()
        assert writer.masters[0] == str(before.master)
        assert writer.masters[-1] == str(after.master)
        redone = len(kept(site, after)) - len(writer.written)
        assert redone <= 1, "more than the one write in flight was done twice"


async def test_gem_client__planned_switchover__its_writer_hears_no_error_and_loses_nothing(site: GemSite) -> None:
    before = await served(site)
    with GemWriter(site.zookeeper) as writer:
        await writer.progress()
        done = await site.command("failover")
        assert done.returncode == 0, done.stderr
        after = await site.serving(lambda topology: topology.epoch > before.epoch and len(topology.replicas) == 2)
        await writer.progress()
        writer.stop()
        assert set(writer.written) <= set(kept(site, after))
        assert writer.masters[-1] == str(after.master) != str(before.master)


@pytest.mark.parametrize("named", [True, False], ids=["host and port", "ANY_SLAVE"])
async def test_gem_client__manual_failover__is_done_by_our_managers(site: GemSite, named: bool) -> None:
    before = await served(site)
    target = site.group.replicas[1].node
    with GemWriter(site.zookeeper) as writer:
        await writer.progress()
        writer.client.manual_failover(*([str(target)] if named else []))
        after = await site.serving(lambda topology: topology.master != before.master)
        await site.gone(PATHS.manual_failover)
        await writer.progress()
        writer.stop()
        assert set(writer.written) <= set(kept(site, after))
        await eventually(lambda: writer.client.current_master == str(after.master))
    assert not named or after.master == target
    assert [(receipt.outcome, receipt.master) for receipt in await site.receipts()] == [(Outcome.DONE, after.master)]


async def test_gem_client__former_master_comes_back__is_listed_as_a_slave(site: GemSite) -> None:
    before = await served(site)
    with GemClient(site.zookeeper, **PATIENT) as client:
        site.group.master.kill()
        await site.serving(lambda topology: topology.master != before.master)
        await asyncio.to_thread(site.group.master.restart)
        await eventually(lambda: str(site.group.master.node) in client.current_slaves)


async def test_gem_client__asks_for_what_cannot_be_done__is_refused_with_a_receipt(site: GemSite) -> None:
    before = await served(site)
    with GemClient(site.zookeeper) as client:
        client.manual_failover("127.0.0.1:1")
        await site.gone(PATHS.manual_failover)
        assert "127.0.0.1:1" in (await site.refusal()).cause
        assert client.current_master == str(before.master)


# --- rfproxy, the gem's managers


async def test_proxy__gems_managers_and_a_killed_master__no_read_fails_and_writes_come_back(site: GemSite) -> None:
    await site.start_gem()
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    await site.start_proxies()
    load = Load(port=site.ports[0], connections=CONNECTIONS, rate=200.0, duties=(("SET", "GET"),))
    await asyncio.to_thread(load.start)
    await progress(load)
    site.group.master.kill()
    await site.serving(lambda topology: topology.master != before.master)
    await progress(load)
    result = await asyncio.to_thread(load.stop)
    # The oldest write in flight to a master that dies is not sent again: it may have died of it.
    assert set(result.errors) <= {("SET", "UNCERTAIN")}
    assert sum(result.errors.values()) <= 1


async def test_proxy__gems_managers_and_manual_failovers__no_error_and_nothing_lost(site: GemSite) -> None:
    gem = await site.start_gem()
    await site.serving(lambda topology: len(topology.replicas) == 2)
    await site.start_proxies()
    load = Load(port=site.ports[0], connections=CONNECTIONS, rate=400.0)
    await asyncio.to_thread(load.start)
    with GemClient(site.zookeeper, **PATIENT) as client:
        for target in (*site.group.replicas, site.group.master):
            await progress(load)
            client.manual_failover(str(target.node))
            await led_by(site, target)
    await progress(load)
    result = await asyncio.to_thread(load.stop)
    assert site.times_said(gem, "promoted") == 3
    unharmed(result)


async def led_by(site: GemSite, server: RedisServer) -> None:
    """Return when a server is the master and all others are listed."""
    await site.serving(lambda topology: topology.master == server.node and all_listed(topology))


async def progress(load: Load, operations: int = 10 * CONNECTIONS) -> None:
    """Return when the clients have had so many more successes."""
    before = sum(not operation.error for operation in load.result().operations)
    await eventually(lambda: sum(not operation.error for operation in load.result().operations) >= before + operations)


def unharmed(result: Result) -> None:
    assert result.errors == {}, {operation.detail for operation in result.operations if operation.error}
    assert result.ledger is not None
    assert (result.ledger.lost, result.ledger.uncertain, result.ledger.doubled) == (0, 0, 0)


# --- there and back


async def test_migration__there_and_back_and_there_again_under_load__no_error_and_nothing_lost(
    redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> None:
    """The order of the documentation: rfproxy first on the gem's managers, then the managers."""
    async with GemSite(redis_group, zookeeper_hosts, tmp_path, managers=3, proxies=2) as site:
        for proxy in site.proxies.values():
            proxy.argv += ["--reads", "master"]  # a history of reads from replicas is not linearizable
        await site.start_gem()
        await site.start_gem(leads=False)
        await site.serving(all_listed)
        await site.start_proxies()
        with GemWriter(zookeeper_hosts) as writer:
            async with Recorder(site.ports, CONNECTIONS) as clients:

                async def goes_on() -> None:
                    await clients.progress(100)
                    await writer.progress()

                await goes_on()
                async with Epochs(site) as epochs:
                    there = await forward(site, goes_on)
                    assert epochs.seen[-1] == there.epoch
                back = await backward(site, goes_on)
                assert back.epoch == 0
                again = await forward(site, goes_on)
                assert again.epoch > there.epoch
            writer.stop()
            assert [operation for operation in clients.history if operation.heard.fate is not Fate.DONE] == []
            assert check(clients.history, final(site.server_of(again))) == Verdict()
            assert set(writer.written) <= set(kept(site, again))
        receipts = await site.receipts()
        # The request in between is the gem's of the way back, which it left behind.
        assert [receipt.outcome for receipt in receipts] == [Outcome.DONE, Outcome.REFUSED, Outcome.DONE]
        assert [receipt.epoch for receipt in receipts] == sorted(receipt.epoch for receipt in receipts)


def all_listed(topology: Topology) -> bool:
    return len(topology.replicas) == 2


async def forward(site: GemSite, goes_on: Callable[[], Any]) -> Topology:
    """From the gem's managers to ours, and a planned switchover by them."""
    former = await site.serving(all_listed)
    await site.stop_gems()
    await goes_on()
    entry = await site.has(PATHS.nodes)
    assert entry is not None
    assert Topology.decode(entry.data).master == former.master == site.master().node
    await site.start_managers()
    taken_over = await site.serving(lambda topology: topology.epoch > 0 and all_listed(topology))
    assert taken_over.master == former.master
    await site.registered(len(site.proxies))
    await goes_on()
    done = await site.command("failover")
    assert done.returncode == 0, done.stderr
    moved = await site.serving(lambda topology: topology.epoch > taken_over.epoch and all_listed(topology))
    assert moved.master != former.master
    await goes_on()
    return moved


async def backward(site: GemSite, goes_on: Callable[[], Any]) -> Topology:
    """From our managers to the gem's, and a manual failover by them."""
    former = await site.serving(all_listed)
    await site.stop_managers()
    await goes_on()
    await site.start_gem()
    await site.start_gem(leads=False)
    taken_over = await site.serving(lambda topology: topology.is_gems and all_listed(topology))
    assert taken_over.master == former.master
    await site.registered(len(site.proxies))
    await goes_on()
    target = taken_over.replicas[0]
    with GemClient(site.zookeeper, **PATIENT) as client:
        client.manual_failover(str(target))
    moved = await site.serving(lambda topology: topology.master == target and all_listed(topology))
    await goes_on()
    return moved
