"""The memory store beyond the contract: its faults, and that it decides as ZooKeeper does."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfprotocol.errors import FenceLost, StoreConflict, StoreUnavailable
from rfprotocol.store.interface import Change, Delete, Entry, Put, StoreState, TopologyStore
from rfprotocol.store.memory import Loss, MemStore, MemTree
from rfprotocol.store.zookeeper import ZkStore
from tests.support.stores import Changes, States
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture
def tree() -> MemTree:
    return MemTree(asyncio.Event)


@pytest.fixture
async def store(tree: MemTree) -> MemStore:
    return await connected(tree)


async def connected(tree: MemTree) -> MemStore:
    store = MemStore(tree)
    await store.start()
    return store


# Faults


async def test_a_suspended_session_refuses_calls_and_keeps_what_it_announced(tree: MemTree, store: MemStore) -> None:
    other, states = await connected(tree), States(store)
    await store.announce("/p", b"")
    session = store.session
    store.suspend()
    with pytest.raises(StoreUnavailable):
        await store.read("/p")
    assert await other.read("/p")
    store.resume()
    assert states.seen == [StoreState.SUSPENDED, StoreState.CONNECTED]
    assert store.session == session


async def test_a_session_given_up_on_this_side_may_still_live_on_the_other(store: MemStore) -> None:
    states = States(store)
    await store.announce("/p", b"")
    session = store.session
    store.suspend()
    store.lose()
    store.resume()
    assert states.seen == [StoreState.SUSPENDED, StoreState.LOST, StoreState.CONNECTED]
    assert store.session == session
    assert await store.read("/p")


async def test_an_expired_session_takes_its_records_along_and_another_session_follows(store: MemStore) -> None:
    states = States(store)
    await store.announce("/p", b"")
    session = store.session
    store.expire()
    assert states.seen == [StoreState.LOST, StoreState.CONNECTED]
    assert states.sessions == [session, store.session]
    assert store.session != session
    assert await store.read("/p") is None


async def test_a_session_that_expires_while_cut_off_learns_it_on_reconnection(tree: MemTree, store: MemStore) -> None:
    other, states = await connected(tree), States(store)
    await store.announce("/p", b"")
    session = store.session
    store.suspend()
    store.expire()
    assert await other.read("/p") is None
    assert store.state is StoreState.SUSPENDED
    store.resume()
    assert states.seen == [StoreState.SUSPENDED, StoreState.LOST, StoreState.CONNECTED]
    assert store.session != session


async def test_a_watch_is_silent_while_cut_off_and_called_once_on_reconnection(tree: MemTree, store: MemStore) -> None:
    writer, changes = await connected(tree), Changes(store, "/a")
    store.suspend()
    await writer.commit(Put("/a", b""))
    await writer.commit(Delete("/a"))
    assert changes.count == 0
    store.resume()
    assert changes.count == 1


async def test_a_lost_request_changes_nothing_and_a_lost_answer_hides_the_change(store: MemStore) -> None:
    store.lose_next(Loss.REQUEST)
    with pytest.raises(StoreUnavailable):
        await store.commit(Put("/a", b""))
    assert await store.read("/a") is None
    store.lose_next(Loss.ANSWER)
    with pytest.raises(StoreUnavailable):
        await store.commit(Put("/a", b""))
    assert await store.read("/a")


async def test_a_leader_that_expires_loses_its_fence_to_the_next(tree: MemTree, store: MemStore) -> None:
    other = await connected(tree)
    fence = await store.campaign("/lock", "first")
    campaign = asyncio.create_task(other.campaign("/lock", "second"))
    await asyncio.sleep(0)
    store.expire()
    await other.commit(Put("/nodes", b""), fence=await campaign)
    with pytest.raises(FenceLost):
        await store.commit(Put("/nodes", b"", 0), fence=fence)


async def test_a_campaign_waits_through_disconnections_and_new_sessions(tree: MemTree, store: MemStore) -> None:
    leader = await connected(tree)
    fence = await leader.campaign("/lock", "leader")
    campaign = asyncio.create_task(store.campaign("/lock", "waiting"))
    await asyncio.sleep(0)
    store.suspend()
    await leader.resign(fence)
    store.expire()
    await asyncio.sleep(0)
    assert not campaign.done()
    store.resume()
    await store.commit(Put("/nodes", b""), fence=await campaign)


async def test_a_closed_session_cannot_be_resumed(store: MemStore) -> None:
    await store.close()
    store.resume()
    assert store.state is StoreState.LOST


# Compared with ZooKeeper

PATHS = st.sampled_from(["/a", "/a/b", "/a/b/c", "/d"])
VERSIONS = st.one_of(st.none(), st.integers(0, 2))
CHANGES = st.one_of(st.builds(Put, PATHS, st.binary(max_size=2), VERSIONS), st.builds(Delete, PATHS, VERSIONS))


async def outcome(store: TopologyStore, changes: list[Change]) -> tuple[bool, dict[str, tuple[bytes, int]]]:
    """Whether a transaction was accepted, and what the tree holds afterwards."""
    try:
        await store.commit(*changes)
        accepted = True
    except StoreConflict:
        accepted = False
    tree: dict[str, tuple[bytes, int]] = {}
    for path in ("/a", "/a/b", "/a/b/c", "/d"):
        entry: Entry | None = await store.read(path)
        if entry:
            tree[path] = (entry.data, entry.version)
    return accepted, tree


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=4), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_transactions_have_the_same_outcome_as_with_zookeeper(
    zookeeper: ZooKeeperServer, transactions: list[list[Change]]
) -> None:
    async def compare() -> None:
        memory = await connected(MemTree(asyncio.Event))
        real = ZkStore(f"{zookeeper.hosts}/{uuid.uuid4().hex}")
        states = States(real)
        await real.start()
        await states.until(StoreState.CONNECTED)
        try:
            await real.commit(Put("/chroot", b""))  # which memory need not make
            for changes in transactions:
                assert await outcome(memory, changes) == await outcome(real, changes)
        finally:
            await real.close()

    asyncio.run(compare())
