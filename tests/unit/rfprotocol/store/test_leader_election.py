"""Who leads, when seats linger, when answers are lost, and when others take seats in the same place."""

from __future__ import annotations

import asyncio

import pytest

from rfprotocol.errors import FenceLost, StoreUnavailable
from rfprotocol.store.interface import Delete, Fence, Put, TopologyStore
from rfprotocol.store.leader_election import campaign, seats_of, vacate
from rfprotocol.store.memory import Loss, MemStore, MemTree
from tests.support.stores import Changes
from tests.unit.rfprotocol.conftest import Connect, NewStore


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


def contend(store: MemStore, token: str) -> asyncio.Task[Fence]:
    return asyncio.create_task(campaign(store, "/lock", f"name of {token}", token, asyncio.Event()))


async def turn() -> None:
    """Let every task run as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_lowest_number_leads_whatever_its_token(store: MemStore) -> None:
    first = contend(store, "z")
    await turn()
    second = contend(store, "a")
    await turn()
    assert first.done()
    assert not second.done()
    await store.withdraw(first.result().path)
    assert (await second).path.startswith("/lock/a_")


@pytest.mark.parametrize("loss", list(Loss))
async def test_a_contender_does_not_wait_behind_its_own_ghost(store: MemStore, loss: Loss) -> None:
    enlist = store.enlist
    attempts = 0

    async def enlist_with_a_loss(stem: str, data: bytes) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            store.lose_next(loss)
        await enlist(stem, data)

    store.enlist = enlist_with_a_loss  # type: ignore[method-assign]  # the loss must hit exactly this call
    fence = await contend(store, "t")
    assert [f"/lock/{seat}" for seat in await store.read_children("/lock")] == [fence.path]


async def test_a_seat_of_the_contenders_earlier_session_is_not_its_seat(tree: MemTree, store: MemStore) -> None:
    earlier = await connected(tree)
    await earlier.enlist("/lock/t_", b"")
    fence = await contend(store, "t")
    seats = await store.read_children("/lock")
    assert [f"/lock/{seat}" for seat in seats] == [fence.path]
    assert [entry.owner for entry in seats.values()] == [store.session]


async def test_of_two_seats_of_one_contender_the_lower_is_kept(store: MemStore) -> None:
    await store.enlist("/lock/t_", b"")
    [lower] = await store.read_children("/lock")
    await store.enlist("/lock/t_", b"")
    assert await contend(store, "t") == Fence(f"/lock/{lower}")
    assert set(await store.read_children("/lock")) == {lower}


async def test_the_seat_of_a_ruby_manager_counts(store: MemStore) -> None:
    await store.commit(Put("/lock/ex0000000000", b""))
    contender = contend(store, "t")
    await turn()
    assert not contender.done()
    await store.withdraw("/lock/ex0000000000")
    await contender


async def test_what_has_no_number_is_no_contender(store: MemStore) -> None:
    await store.commit(Put("/lock/remark", b""), Put("/lock/t_remark", b""))
    await contend(store, "s")


async def test_a_token_is_not_mistaken_for_a_longer_one() -> None:
    assert seats_of("1", ["12_0000000001", "1_0000000003", "1_0000000002"]) == ["1_0000000002", "1_0000000003"]


async def test_vacating_removes_all_seats_of_the_contender_and_no_other(store: MemStore) -> None:
    for stem in ("t_", "t_", "u_"):
        await store.enlist(f"/lock/{stem}", b"")
    store.lose_next(Loss.REQUEST)
    await vacate(store, "/lock", "t")
    assert [seat[:2] for seat in await store.read_children("/lock")] == ["u_"]


async def test_vacating_waits_for_the_connection_and_ends_with_the_store(store: MemStore) -> None:
    await store.enlist("/lock/t_", b"")
    store.suspend()
    vacating = asyncio.create_task(vacate(store, "/lock", "t"))
    await turn()
    assert not vacating.done()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await vacating


# By every kind of store


async def queue(store: TopologyStore, path: str, length: int) -> None:
    """Return when that many contend."""
    changes = Changes(store, path)
    while len(await store.read_children(path)) != length:
        await changes.next()
    changes.end()


async def test_the_only_contender_leads_and_says_who_it_is(connect: Connect) -> None:
    store = await connect()
    fence = await store.campaign("/lock", "manager-1")
    seat = await store.read(fence.path)
    assert seat
    assert (seat.data, seat.owner) == (b"manager-1", store.session)


async def test_contenders_lead_in_order_of_arrival_each_when_the_one_before_resigns(connect: Connect) -> None:
    stores = [await connect() for _ in range(3)]
    campaigns: list[asyncio.Task[Fence]] = []
    for number, store in enumerate(stores):
        campaigns.append(asyncio.create_task(store.campaign("/lock", str(number))))
        await queue(store, "/lock", number + 1)
    for number, store in enumerate(stores):
        fence = await campaigns[number]
        assert not any(campaign.done() for campaign in campaigns[number + 1 :])
        await store.resign(fence)
        await store.resign(fence)


async def test_the_next_contender_leads_when_the_leader_is_closed(connect: Connect) -> None:
    first, second = await connect(), await connect()
    await first.campaign("/lock", "first")
    campaign = asyncio.create_task(second.campaign("/lock", "second"))
    await queue(second, "/lock", 2)
    await first.close()
    await campaign


async def test_a_cancelled_campaign_leaves_the_contest(connect: Connect) -> None:
    first, second, third = await connect(), await connect(), await connect()
    fence = await first.campaign("/lock", "first")
    waiting = asyncio.create_task(second.campaign("/lock", "second"))
    await queue(first, "/lock", 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await queue(first, "/lock", 1)
    campaign = asyncio.create_task(third.campaign("/lock", "third"))
    await first.resign(fence)
    await campaign


async def test_a_campaign_ends_with_an_error_when_its_store_is_closed(connect: Connect) -> None:
    first, second = await connect(), await connect()
    await first.campaign("/lock", "first")
    campaign = asyncio.create_task(second.campaign("/lock", "second"))
    await queue(first, "/lock", 2)
    await second.close()
    with pytest.raises(StoreUnavailable):
        await campaign


async def test_a_campaign_may_begin_before_the_store_is_connected(new_store: NewStore) -> None:
    store = new_store()
    campaign = asyncio.create_task(store.campaign("/lock", "early"))
    await asyncio.sleep(0)
    await store.start()
    await campaign
    await store.close()


async def test_a_change_under_a_fence_is_made_while_the_leadership_lasts_and_refused_afterwards(
    connect: Connect,
) -> None:
    first, second = await connect(), await connect()
    old = await first.campaign("/lock", "first")
    await first.commit(Put("/nodes", b"by first"), fence=old)
    await first.resign(old)
    new = await second.campaign("/lock", "second")
    with pytest.raises(FenceLost):
        await first.commit(Put("/nodes", b"too late", 0), fence=old)
    await second.commit(Put("/nodes", b"by second", 0), fence=new)
    entry = await first.read("/nodes")
    assert entry
    assert (entry.data, entry.version) == (b"by second", 1)


async def test_a_lost_fence_outranks_every_other_objection(connect: Connect) -> None:
    store = await connect()
    with pytest.raises(FenceLost):
        await store.commit(Put("/a/b", b""), Delete("/none"), fence=Fence("/lock/none"))
    assert await store.read("/a/b") is None


async def test_a_fence_can_be_checked_without_changing_anything(connect: Connect) -> None:
    store = await connect()
    fence = await store.campaign("/lock", "me")
    await store.commit(fence=fence)
    await store.resign(fence)
    with pytest.raises(FenceLost):
        await store.commit(fence=fence)
