"""What the contract of a store costs on ZooKeeper: servers that freeze, die and come back, sessions that end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rfprotocol.errors import ConfigError, FenceLost, StoreConflict, StoreUnavailable
from rfprotocol.store.interface import Put, StoreState
from rfprotocol.store.zookeeper import ZkStore
from tests.support.stores import Changes, States, end_session, freeze, patiently, settled
from tests.support.zookeeper import ZooKeeperEnsemble, ZooKeeperServer


@contextlib.asynccontextmanager
async def connected(
    hosts: str, *, session_timeout: float = 30.0, request_timeout: float = 3.0
) -> AsyncIterator[tuple[ZkStore, States]]:
    store = ZkStore(hosts, session_timeout=session_timeout, request_timeout=request_timeout)
    states = States(store)
    await store.start()
    await states.until(StoreState.CONNECTED)
    try:
        yield store, states
    finally:
        await store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ZooKeeperServer]:
    """A server that the test may treat badly."""
    with ZooKeeperServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(3, tmp_path_factory.mktemp("ensemble")) as ensemble:
        yield ensemble


async def lose_session(store: ZkStore, server: ZooKeeperServer) -> None:
    """Have ZooKeeper end the store's session, as if it had expired."""
    identity = store._link._client.client_id
    assert identity
    await asyncio.to_thread(end_session, server, *identity)


# Where it connects to


async def test_a_chroot_is_made_when_something_is_written_and_hides_what_is_outside(zookeeper_hosts: str) -> None:
    async with connected(f"{zookeeper_hosts}/deeper") as (inside, _), connected(zookeeper_hosts) as (outside, _):
        assert await inside.read("/a") is None
        assert await inside.read_children("/") == {}
        await inside.commit(Put("/a", b"1"))
        await inside.announce("/b/c", b"2")
        assert set(await inside.read_children("/")) == {"a", "b"}
        assert set(await outside.read_children("/deeper")) == {"a", "b"}
        assert await inside.read("/deeper") is None


async def test_a_fence_and_a_watch_work_within_a_chroot(zookeeper_hosts: str) -> None:
    async with connected(f"{zookeeper_hosts}/x/") as (store, _):
        changes = Changes(store, "/nodes")
        fence = await store.campaign("/lock", "me")
        assert fence.path.startswith("/lock/")
        await settled(changes, store)
        await store.commit(Put("/nodes", b""), fence=fence)
        await changes.next()


async def test_servers_are_reached_over_ipv6(tmp_path: Path) -> None:
    with ZooKeeperServer(tmp_path, address="::1") as server:
        async with connected(f"{server.hosts}/chroot") as (store, _):
            await store.commit(Put("/a", b""))
            assert await store.read("/a")


def test_an_unreadable_list_of_hosts_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="host:port"):
        ZkStore("zk1:port/chroot")


# Watches


async def test_a_watch_is_called_after_a_reconnection_and_goes_on(server: ZooKeeperServer) -> None:
    async with connected(server.hosts) as (store, states):
        await store.commit(Put("/a/child", b"0"))
        changes = Changes(store, "/a")
        await settled(changes, store)
        server.kill()
        await states.until(StoreState.SUSPENDED)
        changes.forget()
        server.launch()
        await states.until(StoreState.CONNECTED)
        await changes.next()
        await settled(changes, store)
        await store.commit(Put("/a/child", b"1", 0))
        await changes.next()


async def test_a_watch_is_called_in_a_new_session_and_goes_on(zookeeper: ZooKeeperServer, zookeeper_hosts: str) -> None:
    async with connected(zookeeper_hosts) as (store, states):
        await store.commit(Put("/a/child", b"0"))
        changes = Changes(store, "/a")
        await settled(changes, store)
        session = store.session
        await lose_session(store, zookeeper)
        await states.until_session_other_than(session)
        await changes.next()
        await settled(changes, store)
        await store.commit(Put("/a/child", b"1", 0))
        await changes.next()


async def test_a_listener_that_fails_does_not_keep_the_others_from_being_told(zookeeper_hosts: str) -> None:
    def fail(state: StoreState) -> None:
        raise ValueError(state)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    store = ZkStore(zookeeper_hosts)
    store.subscribe(fail)
    states = States(store)
    await store.start()
    await states.until(StoreState.CONNECTED)
    await store.close()


# Records that live with a session


async def test_what_an_ended_session_announced_is_gone_and_can_be_announced_again(
    zookeeper: ZooKeeperServer, zookeeper_hosts: str
) -> None:
    async with connected(zookeeper_hosts) as (store, states):
        await store.announce("/proxies/p", b"1")
        session = store.session
        await lose_session(store, zookeeper)
        await states.until_session_other_than(session)
        assert states.seen[-2:] == [StoreState.LOST, StoreState.CONNECTED]
        assert await store.read("/proxies/p") is None
        await store.announce("/proxies/p", b"2")
        entry = await store.read("/proxies/p")
        assert entry
        assert entry.owner == store.session


async def test_a_record_that_cannot_be_replaced_is_a_conflict(zookeeper_hosts: str) -> None:
    async with connected(zookeeper_hosts) as (store, _):
        await store.commit(Put("/proxies/p/child", b""))
        with pytest.raises(StoreConflict, match="share one name"):
            await store.announce("/proxies/p", b"")


async def test_an_announced_record_survives_a_reconnection(server: ZooKeeperServer) -> None:
    async with connected(server.hosts) as (store, states):
        await store.announce("/proxies/p", b"")
        server.kill()
        await states.until(StoreState.SUSPENDED)
        server.launch()
        await states.until(StoreState.CONNECTED)
        entry = await store.read("/proxies/p")
        assert entry
        assert entry.owner == store.session


# Leading


async def test_a_leader_whose_session_ends_cannot_write_any_more_and_the_next_one_leads(
    zookeeper: ZooKeeperServer, zookeeper_hosts: str
) -> None:
    async with connected(zookeeper_hosts) as (first, states), connected(zookeeper_hosts) as (second, _):
        old = await first.campaign("/lock", "first")
        campaign = asyncio.create_task(second.campaign("/lock", "second"))
        session = first.session
        await lose_session(first, zookeeper)
        new = await campaign
        await states.until_session_other_than(session)
        with pytest.raises(FenceLost):
            await first.commit(Put("/nodes", b"too late"), fence=old)
        await second.commit(Put("/nodes", b"in time"), fence=new)


async def test_a_waiting_contender_whose_session_ends_queues_again(
    zookeeper: ZooKeeperServer, zookeeper_hosts: str
) -> None:
    async with connected(zookeeper_hosts) as (leader, _), connected(zookeeper_hosts) as (waiting, states):
        fence = await leader.campaign("/lock", "leader")
        queue = Changes(leader, "/lock")
        campaign = asyncio.create_task(waiting.campaign("/lock", "waiting"))
        while len(await leader.read_children("/lock")) < 2:
            await queue.next()
        session = waiting.session
        await lose_session(waiting, zookeeper)
        await states.until_session_other_than(session)
        assert not campaign.done()
        await leader.resign(fence)
        await waiting.commit(Put("/nodes", b""), fence=await campaign)


async def test_a_campaign_goes_on_when_the_servers_come_back(server: ZooKeeperServer) -> None:
    async with connected(server.hosts) as (leader, _), connected(server.hosts) as (waiting, states):
        fence = await leader.campaign("/lock", "leader")
        queue = Changes(leader, "/lock")
        campaign = asyncio.create_task(waiting.campaign("/lock", "waiting"))
        while len(await leader.read_children("/lock")) < 2:
            await queue.next()
        server.kill()
        await states.until(StoreState.SUSPENDED)
        server.launch()
        await states.until(StoreState.CONNECTED)
        await States(leader).until(StoreState.CONNECTED)
        await leader.resign(fence)
        await campaign


async def test_a_seat_whose_creation_was_not_confirmed_does_not_block_its_owner(
    server: ZooKeeperServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(server.hosts, request_timeout=2.0) as (store, states):
        await store.commit(Put("/lock", b""))
        enlist = store.enlist

        async def enlist_in_vain(stem: str, data: bytes) -> None:
            monkeypatch.undo()
            freeze(server)
            await enlist(stem, data)

        monkeypatch.setattr(store, "enlist", enlist_in_vain)
        campaign = asyncio.create_task(store.campaign("/lock", "me"))
        await states.until(StoreState.SUSPENDED)
        server.thaw()
        fence = await campaign
        assert [f"/lock/{seat}" for seat in await store.read_children("/lock")] == [fence.path]


async def test_a_campaign_that_is_cancelled_while_cut_off_leaves_no_seat(server: ZooKeeperServer) -> None:
    async with connected(server.hosts) as (leader, _), connected(server.hosts) as (waiting, states):
        await leader.campaign("/lock", "leader")
        queue = Changes(leader, "/lock")
        campaign = asyncio.create_task(waiting.campaign("/lock", "waiting"))
        while len(await leader.read_children("/lock")) < 2:
            await queue.next()
        server.kill()
        await states.until(StoreState.SUSPENDED)
        campaign.cancel()
        server.launch()
        await States(leader).until(StoreState.CONNECTED)
        while True:
            with contextlib.suppress(StoreUnavailable):
                if len(await leader.read_children("/lock")) == 1:
                    break
            await queue.next()


async def test_a_leadership_given_up_while_cut_off_blocks_nobody_when_the_session_lives_on(
    server: ZooKeeperServer,
) -> None:
    async with connected(server.hosts) as (store, states):
        fence = await store.campaign("/lock", "me")
        session = store.session
        server.kill()
        await states.until(StoreState.SUSPENDED)
        with pytest.raises(StoreUnavailable):
            await store.resign(fence)
        server.launch()
        again = await store.campaign("/lock", "me")
        assert store.session == session
        assert again != fence


# What is not known


async def test_a_change_of_unknown_outcome_has_happened_or_has_not_and_reading_tells(server: ZooKeeperServer) -> None:
    async with connected(server.hosts, request_timeout=2.0) as (store, states):
        await store.commit(Put("/a", b"0"))
        for version in range(3):
            freeze(server)
            with pytest.raises(StoreUnavailable):
                await store.commit(Put("/a", b"new", version))
            server.thaw()
            await states.until(StoreState.SUSPENDED)
            await states.until(StoreState.CONNECTED)
            first = await patiently(store, lambda: store.read("/a"))
            assert first
            await patiently(store, store.prove_alive)
            assert await patiently(store, lambda: store.read("/a")) == first
            if first.version == version:
                await store.commit(Put("/a", b"new", version))


async def test_a_read_on_a_server_that_lags_behind_sees_what_was_acknowledged_elsewhere(
    ensemble: ZooKeeperEnsemble,
) -> None:
    lagging, other = ensemble.followers()
    async with connected(other.hosts) as (writer, _), connected(lagging.hosts) as (reader, _):
        await writer.commit(Put("/seen/late", b"0"))
        for version in range(30):
            freeze(lagging)
            await writer.commit(Put("/seen/late", b"", version))
            reading = asyncio.create_task(reader.read("/seen/late"))
            await asyncio.sleep(0.01)  # let the request arrive before the news
            lagging.thaw()
            entry = await reading
            assert entry
            assert entry.version == version + 1


async def test_a_session_is_not_proven_alive_by_a_leader_without_a_quorum(ensemble: ZooKeeperEnsemble) -> None:
    leader, followers = ensemble.leader(), ensemble.followers()
    async with connected(leader.hosts, request_timeout=3.0) as (store, _):
        await store.prove_alive()
        for follower in followers:
            freeze(follower)
        try:
            with pytest.raises(StoreUnavailable):
                await store.prove_alive()
        finally:
            for follower in followers:
                follower.thaw()


async def test_a_proof_of_life_is_a_change_that_the_quorum_commits(server: ZooKeeperServer) -> None:
    async with connected(server.hosts) as (store, _):
        before = await asyncio.to_thread(server.last_transaction)
        await store.prove_alive()
        assert await asyncio.to_thread(server.last_transaction) > before


async def test_the_death_of_the_leading_server_costs_neither_session_nor_leadership(tmp_path: Path) -> None:
    with ZooKeeperEnsemble(3, tmp_path) as ensemble:
        async with connected(ensemble.hosts) as (store, states):
            fence = await store.campaign("/lock", "me")
            session = store.session
            (await asyncio.to_thread(ensemble.leader)).kill()
            await states.until(StoreState.SUSPENDED)
            await states.until(StoreState.CONNECTED)
            assert store.session == session
            await store.commit(Put("/nodes", b""), fence=fence)
