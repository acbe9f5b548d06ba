"""The contract of TopologyStore, for the memory store and for a real ZooKeeper alike."""

from __future__ import annotations

import asyncio

import pytest

from rfprotocol.errors import StoreConflict, StoreUnavailable
from rfprotocol.store.interface import Delete, Put, StoreState, TopologyStore
from tests.support.stores import Changes, States, settled
from tests.unit.rfprotocol.conftest import Connect, NewStore


@pytest.fixture
async def store(connect: Connect) -> TopologyStore:
    return await connect()


# Connecting


async def test_a_store_that_was_not_started_is_lost_and_refuses_calls(new_store: NewStore) -> None:
    store = new_store()
    assert (store.state, store.session) == (StoreState.LOST, 0)
    for call in (store.read("/a"), store.read_children("/a"), store.commit(Put("/a", b"")), store.prove_alive()):
        with pytest.raises(StoreUnavailable):
            await call
    await store.close()


async def test_a_started_store_tells_its_listener_that_it_is_connected(new_store: NewStore) -> None:
    store = new_store()
    states = States(store)
    await store.start()
    await states.until(StoreState.CONNECTED)
    assert states.seen == [StoreState.CONNECTED]
    assert store.session != 0
    assert store.session_timeout == 4
    await store.close()


async def test_every_client_has_a_session_of_its_own(connect: Connect) -> None:
    assert (await connect()).session != (await connect()).session


async def test_a_closed_store_is_lost_refuses_calls_and_can_be_closed_again(store: TopologyStore) -> None:
    await store.close()
    await store.close()
    assert store.state is StoreState.LOST
    with pytest.raises(StoreUnavailable):
        await store.read("/a")


async def test_a_living_session_can_be_proven(store: TopologyStore) -> None:
    await store.prove_alive()


# Reading and writing


async def test_a_record_that_does_not_exist_reads_as_none(store: TopologyStore) -> None:
    assert await store.read("/a/b") is None
    assert await store.read_children("/a/b") == {}


async def test_a_new_record_has_version_zero_and_every_change_counts_one_up(store: TopologyStore) -> None:
    await store.commit(Put("/a", b"one"))
    first = await store.read("/a")
    await store.commit(Put("/a", b"two", version=0))
    second = await store.read("/a")
    assert first
    assert second
    assert (first.data, first.version, first.owner) == (b"one", 0, 0)
    assert (second.data, second.version, second.created) == (b"two", 1, first.created)


async def test_a_record_made_anew_is_told_from_the_one_deleted(store: TopologyStore) -> None:
    await store.commit(Put("/a", b"same"))
    first = await store.read("/a")
    await store.commit(Delete("/a"))
    await store.commit(Put("/a", b"same"))
    second = await store.read("/a")
    assert first
    assert second
    assert first.version == second.version
    assert first.created != second.created


async def test_version_zero_is_a_version_and_not_any_version(store: TopologyStore) -> None:
    await store.commit(Put("/a", b"0"))
    await store.commit(Put("/a", b"1", version=0))
    with pytest.raises(StoreConflict):
        await store.commit(Put("/a", b"2", version=0))
    with pytest.raises(StoreConflict):
        await store.commit(Delete("/a", version=0))
    entry = await store.read("/a")
    assert entry
    assert entry.data == b"1"


async def test_records_are_deleted_in_the_version_read_or_in_any(store: TopologyStore) -> None:
    await store.commit(Put("/a", b""), Put("/b", b""))
    await store.commit(Delete("/a", version=0), Delete("/b"))
    assert await store.read("/a") is None
    assert await store.read("/b") is None


async def test_creating_what_exists_and_changing_what_does_not_is_refused(store: TopologyStore) -> None:
    await store.commit(Put("/a", b"mine"))
    for change in (Put("/a", b""), Put("/none", b"", version=0), Delete("/none"), Delete("/none", version=0)):
        with pytest.raises(StoreConflict, match=change.path):
            await store.commit(change)


async def test_a_record_with_children_is_not_deleted(store: TopologyStore) -> None:
    await store.commit(Put("/a/b", b""))
    with pytest.raises(StoreConflict):
        await store.commit(Delete("/a"))


async def test_parents_are_made_as_needed_and_empty(store: TopologyStore) -> None:
    await store.commit(Put("/a/b/c", b"x"), Put("/a/d", b"y"))
    parent = await store.read("/a/b")
    assert parent
    assert (parent.data, parent.owner) == (b"", 0)
    assert set(await store.read_children("/a")) == {"b", "d"}


async def test_children_are_read_with_data_and_without_grandchildren(store: TopologyStore) -> None:
    await store.commit(Put("/a/one", b"1"), Put("/a/two", b"2"), Put("/a/two/deep", b"3"))
    children = await store.read_children("/a")
    assert {name: entry.data for name, entry in children.items()} == {"one": b"1", "two": b"2"}


async def test_children_that_came_went_and_changed_since_they_were_last_read(store: TopologyStore) -> None:
    await store.commit(*(Put(f"/a/{name}", b"old") for name in ("stays", "goes", "changes")))
    assert set(await store.read_children("/a")) == {"stays", "goes", "changes"}
    await store.commit(Put("/a/comes", b"new"), Put("/a/changes", b"new", 0), Delete("/a/goes"))
    found = {name: entry.data for name, entry in (await store.read_children("/a")).items()}
    assert found == {"stays": b"old", "comes": b"new", "changes": b"new"}
    await store.commit(*(Delete(f"/a/{name}") for name in found), Delete("/a"))
    for _ in range(2):
        assert await store.read_children("/a") == {}


async def test_some_children_are_read_those_that_are_there(store: TopologyStore) -> None:
    assert await store.read_some("/a", {"one"}) == {}
    await store.commit(*(Put(f"/a/{name}", name.encode()) for name in ("one", "two", "three")))
    found = await store.read_some("/a", {"one", "three", "four"})
    assert found == {name: await store.read(f"/a/{name}") for name in ("one", "three")}


async def test_one_refused_change_leaves_all_others_of_the_transaction_undone(store: TopologyStore) -> None:
    await store.commit(Put("/a", b"before"), Put("/b", b"before"))
    with pytest.raises(StoreConflict, match="/b"):
        await store.commit(Put("/a", b"after", 0), Put("/c", b"new"), Put("/b", b"after", 7), Delete("/a"))
    entry = await store.read("/a")
    assert entry
    assert (entry.data, entry.version) == (b"before", 0)
    assert await store.read("/c") is None


async def test_changes_of_one_transaction_build_upon_each_other(store: TopologyStore) -> None:
    await store.commit(Put("/a", b"1"), Put("/a", b"2", version=0), Delete("/a", version=1), Put("/a", b"3"))
    entry = await store.read("/a")
    assert entry
    assert (entry.data, entry.version) == (b"3", 0)


async def test_a_transaction_of_nothing_succeeds(store: TopologyStore) -> None:
    await store.commit()


async def test_what_one_client_was_acknowledged_another_one_reads(connect: Connect) -> None:
    writer, reader = await connect(), await connect()
    await writer.commit(Put("/a", b"0"))
    for version in range(20):
        await writer.commit(Put("/a", str(version + 1).encode(), version))
        entry = await reader.read("/a")
        assert entry
        assert entry.data == str(version + 1).encode()


# Watching


async def test_a_watch_tells_of_creation_change_deletion_and_recreation(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    changes = Changes(watcher, "/a/b")
    for change in (Put("/a/b", b"1"), Put("/a/b", b"2", 0), Delete("/a/b"), Put("/a/b", b"3"), Put("/a/b", b"4", 0)):
        await settled(changes, watcher)
        await writer.commit(change)
        await changes.next()


async def test_a_watch_tells_of_children_that_come_change_and_go(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    changes = Changes(watcher, "/a")
    for change in (
        Put("/a/one", b"1"),
        Put("/a/one", b"2", 0),
        Put("/a/two", b"1"),
        Put("/a/one", b"3", 1),
        Put("/a/two", b"2", 0),
        Delete("/a/one"),
        Put("/a/one", b"new"),
        Put("/a/one", b"newer", 0),
    ):
        await settled(changes, watcher)
        await writer.commit(change)
        await changes.next()


async def test_a_watch_survives_that_its_record_and_all_children_are_deleted_and_made_anew(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    changes = Changes(watcher, "/a")
    for _ in range(3):
        for change in (
            Put("/a", b""),
            Put("/a/child", b"1"),
            Put("/a/child", b"2", 0),
            Delete("/a/child"),
            Delete("/a"),
        ):
            await settled(changes, watcher)
            await writer.commit(change)
            await changes.next()


async def test_whoever_reads_after_each_call_of_a_watch_ends_up_with_the_newest_data(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    changes = Changes(watcher, "/a")

    async def follow() -> None:
        while True:
            await changes.next()
            entry = (await watcher.read_children("/a")).get("child")
            if entry and entry.data == b"200":
                return

    following = asyncio.create_task(follow())
    await writer.commit(Put("/a/child", b"0"))
    for version in range(200):
        await writer.commit(Put("/a/child", str(version + 1).encode(), version))
    await following


async def test_whoever_reads_only_what_a_watch_names_ends_up_with_the_newest_data(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    known: dict[str, bytes] = {}
    named: set[str] = set()
    told = asyncio.Event()

    def changed(name: str) -> None:
        named.add(name)
        told.set()

    watcher.watch_each("/a", changed)

    async def follow() -> None:
        while known != {"one": b"40", "two": b"40", "last": b""}:
            await told.wait()
            told.clear()
            names = named.copy()
            named.clear()
            if "" in names:
                known.clear()
                found = await watcher.read_children("/a")
            else:
                found = await watcher.read_some("/a", names)
            for name in names:
                known.pop(name, None)
            known.update({name: entry.data for name, entry in found.items()})

    following = asyncio.create_task(follow())
    await writer.commit(*(Put(f"/a/{name}", b"0") for name in ("one", "two", "gone")))
    for version in range(40):
        for name in ("one", "two"):
            await writer.commit(Put(f"/a/{name}", str(version + 1).encode(), version))
    await writer.commit(Delete("/a/gone"), Put("/a/last", b""))
    await following


async def test_the_data_of_one_child_is_all_that_has_changed(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    await writer.commit(Put("/a/one", b"0"), Put("/a/two", b"0"))
    told: list[str] = []
    changes = Changes(watcher, "/a")
    watcher.watch_each("/a", told.append)
    await settled(changes, watcher)
    told.clear()
    await writer.commit(Put("/a/one", b"1", 0))
    await changes.next()
    await settled(changes, watcher)
    assert told == ["one"]


async def test_all_watches_of_one_path_are_told_until_they_are_ended(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    first, second = Changes(watcher, "/a"), Changes(watcher, "/a")
    await settled(first, watcher)
    await writer.commit(Put("/a", b""))
    await first.next()
    await second.next()
    await settled(first, watcher)
    await settled(second, watcher)
    first.end()
    first.end()
    count = first.count
    await writer.commit(Put("/a", b"1", 0))
    await second.next()
    assert first.count == count


async def test_a_path_can_be_watched_again_after_its_watch_was_ended(connect: Connect) -> None:
    watcher, writer = await connect(), await connect()
    await writer.commit(Put("/a/child", b"0"))
    ended = Changes(watcher, "/a")
    await settled(ended, watcher)
    ended.end()
    changes = Changes(watcher, "/a")
    await settled(changes, watcher)
    await writer.commit(Put("/a/child", b"1", 0))
    await changes.next()


async def test_a_watch_begun_before_the_connection_is_called_when_it_stands(new_store: NewStore) -> None:
    store = new_store()
    changes = Changes(store, "/a")
    await store.start()
    await changes.next()
    await settled(changes, store)
    await store.commit(Put("/a", b""))
    await changes.next()
    await store.close()


# Records that live with a session


async def test_an_announced_record_belongs_to_the_session_and_is_updated_in_place(store: TopologyStore) -> None:
    await store.announce("/proxies/p", b"1")
    first = await store.read("/proxies/p")
    await store.announce("/proxies/p", b"2")
    second = await store.read("/proxies/p")
    assert first
    assert second
    assert (first.data, first.owner) == (b"1", store.session)
    assert (second.data, second.created) == (b"2", first.created)


async def test_an_announced_record_vanishes_when_its_store_is_closed(connect: Connect) -> None:
    announcer, other = await connect(), await connect()
    await announcer.announce("/proxies/p", b"")
    changes = Changes(other, "/proxies")
    await settled(changes, other)
    await announcer.close()
    await changes.next()
    assert await other.read("/proxies/p") is None


async def test_a_record_left_by_an_earlier_session_is_replaced(connect: Connect) -> None:
    before, after = await connect(), await connect()
    await before.announce("/proxies/p", b"before")
    await after.announce("/proxies/p", b"after")
    await before.close()
    entry = await after.read("/proxies/p")
    assert entry
    assert (entry.data, entry.owner) == (b"after", after.session)


async def test_a_persistent_record_in_the_way_is_replaced(store: TopologyStore) -> None:
    await store.commit(Put("/proxies/p", b"persistent"))
    await store.announce("/proxies/p", b"mine")
    entry = await store.read("/proxies/p")
    assert entry
    assert (entry.data, entry.owner) == (b"mine", store.session)


async def test_withdrawing_removes_and_does_not_mind_when_there_is_nothing(store: TopologyStore) -> None:
    await store.announce("/proxies/p", b"")
    await store.withdraw("/proxies/p")
    assert await store.read("/proxies/p") is None
    await store.withdraw("/proxies/p")


async def test_nothing_can_be_put_below_a_record_that_lives_with_a_session(store: TopologyStore) -> None:
    await store.announce("/proxies/p", b"")
    with pytest.raises(StoreConflict):
        await store.commit(Put("/proxies/p/child", b""))
