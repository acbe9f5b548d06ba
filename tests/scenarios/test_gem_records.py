"""Managers beside those of the gem, and on what these left in the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import pytest

from rfmanager.daemon import executor
from rfprotocol.errors import StoreError, StoreUnavailable
from rfprotocol.store.interface import Entry, Fence, Put
from rfprotocol.store.memory import MemStore
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import Node, Phase, Topology
from tests.support.eventually import eventually
from tests.support.managers import PATHS, Site, site
from tests.support.redis import RedisGroup
from tests.support.stores import Changes


@pytest.fixture
async def place(redis_group: RedisGroup) -> AsyncIterator[Site]:
    async with site(redis_group) as place:
        yield place


def gems_record(master: Node | None, *replicas: Node) -> bytes:
    record = {"master": str(master) if master else None, "slaves": list(map(str, replicas)), "unavailable": []}
    return json.dumps(record).encode()


async def gems_seat(place: Site) -> MemStore:
    """A node manager of the gem stands in line; its seat goes when its store is closed."""
    gem = MemStore(place.tree)
    await gem.start()
    await gem.enlist(f"{PATHS.gem_lock}/ex", b"")
    return gem


async def test_gems_manager__holds_its_lock__nothing_is_done_until_it_ends(
    place: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    gem = await gems_seat(place)
    manager = await place.manager()
    await manager.daemon._servers.all_seen.wait()
    said: list[str] = []

    def warned() -> bool:
        said.append(capsys.readouterr().out)
        return "node managers of redis_failover lead" in "".join(said)

    await eventually(warned)
    assert await place.topology() is None
    await gem.close()
    await place.until_serving(2)


async def test_gems_manager__comes_later__waits_behind_the_primary_and_its_standby(place: Site) -> None:
    first = await place.manager()
    await place.until_serving(2)
    await place.manager()

    async def seats() -> list[str]:
        return sorted(await place.store.read_children(PATHS.gem_lock), key=lambda seat: seat[-10:])

    changes = Changes(place.store, PATHS.gem_lock)
    while len(await seats()) < 2:
        await changes.next()
    gem = await gems_seat(place)
    await first.stop()
    while len(await seats()) > 2:
        await changes.next()
    leads, waits = await seats()
    assert waits[:-10] == "ex"
    assert (await place.store.read_children(PATHS.gem_lock))[leads].data == b"manager1"
    place.group.master.kill()
    topology = await place.until(lambda topology: topology.master not in (None, place.group.master.node))
    assert topology.phase is Phase.SERVING
    await gem.close()
    changes.end()


async def test_seat_in_the_gems_lock__is_removed_by_somebody__the_tenure_ends_and_begins_anew(place: Site) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    [seat] = await place.store.read_children(PATHS.gem_lock)
    changes = Changes(place.store, PATHS.gem_lock)
    await place.store.withdraw(f"{PATHS.gem_lock}/{seat}")
    while not (seats := await place.store.read_children(PATHS.gem_lock)) or seat in seats:
        await changes.next()
    changes.end()
    place.group.master.kill()
    await place.until(lambda topology: topology.master not in (None, place.group.master.node))
    assert manager.daemon.tenure.fence is not None


async def test_request_left_by_the_gem__no_record__is_removed_with_a_receipt_and_not_obeyed(place: Site) -> None:
    target = place.group.replicas[0].node
    await place.store.commit(Put(PATHS.manual_failover, str(target).encode()))
    await place.manager()
    topology = await place.until_serving(2)
    assert topology.master == place.group.master.node
    assert await place.store.read(PATHS.manual_failover) is None
    [receipt] = await place.receipts()
    assert receipt.outcome is Outcome.REFUSED
    assert "before the first record" in receipt.cause
    assert topology.epoch > receipt.epoch


async def test_request__made_while_the_managers_wait_for_a_first_master__is_obeyed(place: Site) -> None:
    place.group.servers[2].kill()
    await place.manager()
    await place.report("manager0", lambda report: "waiting for" in report.waits_for)
    target = place.group.master.node
    assert (await place.ask(target)).outcome is Outcome.DONE


@pytest.mark.parametrize("made", ["in place", "anew"])
async def test_record_of_the_gem__written_over_this_systems__is_replaced_in_a_greater_epoch(
    place: Site, made: str
) -> None:
    master = place.group.master.node
    await place.manager()
    await place.until_serving(2)
    await place.ask(None)
    before = await place.until_serving(2, other_than=master)
    assert before.master is not None
    entry = await place.store.read(PATHS.nodes)
    assert entry is not None
    if made == "anew":
        await place.store.withdraw(PATHS.nodes)
        await place.until_serving(2, other_than=master)
        entry = await place.store.read(PATHS.nodes)
        assert entry is not None
    await place.store.commit(Put(PATHS.nodes, gems_record(master), entry.version))
    after = await place.until(lambda topology: topology.epoch > before.epoch and topology.phase is Phase.SERVING)
    assert after.master == before.master


async def test_older_record__a_proxy_has_acknowledged_a_later_epoch__is_published_anew_beyond_that(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    await place.acknowledge(7)
    await place.until(lambda topology: topology.epoch == 8 and topology.phase is Phase.FENCING)
    await place.acknowledge(8)
    await place.until(lambda topology: topology.epoch == 9 and topology.phase is Phase.SERVING)


async def test_record__nothing_changes__is_renewed_with_the_same_bytes(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "RENEWAL", 0.05)
    await place.manager()
    await place.until_serving(2)
    before = await place.store.read(PATHS.nodes)
    assert before is not None
    changes = Changes(place.store, PATHS.nodes)
    while (after := await place.store.read(PATHS.nodes)) is None or after.version < before.version + 3:
        await changes.next()
    changes.end()
    assert Topology.decode(after.data) == Topology.decode(before.data)
    assert after.created == before.created


async def test_record__while_paused_and_while_no_master_can_be_found__is_renewed(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "RENEWAL", 0.05)
    await place.manager()
    await place.until_serving(2)
    changes = Changes(place.store, PATHS.nodes)

    async def renewed() -> None:
        before = await place.store.read(PATHS.nodes)
        assert before is not None
        while (after := await place.store.read(PATHS.nodes)) is None or after.version < before.version + 2:
            await changes.next()
        assert after.data == before.data

    await place.store.commit(Put(PATHS.paused, b""))
    await renewed()
    await place.store.withdraw(PATHS.paused)
    for server in place.group.servers:
        server.kill()
    await place.until(lambda topology: topology.phase is Phase.FENCING)
    await renewed()
    changes.end()


async def test_record_of_the_gem__while_the_servers_do_not_agree__is_not_renewed(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not this system's, which could only write it with its own fields."""
    monkeypatch.setattr(executor, "RENEWAL", 0.01)
    await place.store.commit(Put(PATHS.nodes, gems_record(Node("127.0.0.1", 1))))
    with place.group.servers[1].client() as client:
        client.replicaof("NO", "ONE")
    await place.manager()
    report = await place.report("manager0", lambda report: bool(report.waits_for))
    assert "several masters" in report.waits_for
    entry = await place.store.read(PATHS.nodes)
    assert entry is not None
    assert entry.version == 0


async def test_lookout_for_the_gem__a_read_fails__looks_again(
    place: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    read, failed = manager.store.read_children, list[str]()

    async def fails_once(path: str) -> Mapping[str, Entry]:
        if path == PATHS.gem_lock and not failed:
            failed.append(path)
            raise StoreUnavailable("no answer in time")
        return await read(path)

    monkeypatch.setattr(manager.store, "read_children", fails_once)
    gem = await gems_seat(place)
    said: list[str] = []

    def warned() -> bool:
        said.append(capsys.readouterr().out)
        return "a node manager of redis_failover waits in line" in "".join(said)

    await eventually(warned)
    assert failed
    await gem.close()


async def test_manager__may_not_take_a_seat_in_the_gems_lock__says_so_and_leads(
    place: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ZooKeeper lets these managers write below their root only."""
    campaign = MemStore.campaign

    async def refused(self: MemStore, path: str, name: str) -> Fence:
        if path == PATHS.gem_lock:
            raise StoreError("NoAuthError")
        return await campaign(self, path, name)

    monkeypatch.setattr(MemStore, "campaign", refused)
    await place.manager()
    await place.until_serving(2)
    said = capsys.readouterr().out
    assert said.count("no seat in the lock of redis_failover") == 1
    assert PATHS.gem_lock in said
