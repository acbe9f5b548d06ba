"""Whoever acts upon a change knows that it is kept; a disk that is slow or full is waited for once, and named."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from rfprotocol.embedded import record_keeper
from rfprotocol.embedded.record_keeper import TreeKeeper
from rfprotocol.store.interface import Change, Put
from rfprotocol.store.memory import MemStore, MemTree, TreeState


class Disk:
    """A disk that can be held up, or be full."""

    def __init__(self) -> None:
        self.saved: list[TreeState] = []
        self.problem: OSError | None = None
        self.asked = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    @property
    def paths(self) -> list[list[str]]:
        """What each of the saved states has."""
        return [list(state.records) for state in self.saved]

    def save(self, state: TreeState) -> None:
        """In the thread of the keeper."""
        self.asked.set()
        self.goes_on.wait()
        if self.problem is not None:
            raise self.problem
        self.saved.append(state)


def harmless(changes: tuple[Change, ...]) -> bool:
    return all(change.path == "/harmless" for change in changes)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def keeper(disk: Disk) -> AsyncIterator[TreeKeeper]:
    keeper = TreeKeeper(disk.save, "the file", harmless)
    yield keeper
    disk.goes_on.set()
    await keeper.close()


@pytest.fixture
async def store(keeper: TreeKeeper) -> MemStore:
    return await client(MemTree(asyncio.Event, keeper))


async def client(tree: MemTree) -> MemStore:
    store = MemStore(tree)
    await store.start()
    return store


async def until(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait)
    event.clear()


async def test_commit__returns__is_kept(store: MemStore, disk: Disk) -> None:
    await store.commit(Put("/a", b"1"))
    assert disk.saved[-1].records["/a"].data == b"1"
    await store.commit(Put("/a", b"2", 0))
    assert disk.saved[-1].records["/a"].data == b"2"


async def test_tree__from_what_was_kept__goes_on_with_it(store: MemStore, disk: Disk) -> None:
    await store.commit(Put("/a/b", b"1"))
    await store.commit(Put("/a/b", b"2", 0))
    await store.announce("/here", b"lives with the session")
    before = await store.read("/a/b")
    after = await client(MemTree(asyncio.Event, state=disk.saved[-1]))
    assert await after.read("/a/b") == before
    assert await after.read("/here") is None
    await after.commit(Put("/c", b""))
    entry = await after.read("/c")
    assert entry
    assert before
    assert entry.created > before.created


async def test_announced__changes_often__nothing_is_written(store: MemStore, disk: Disk) -> None:
    await store.commit(Put("/managers", b""))
    written = len(disk.saved)
    for number in range(20):
        await store.announce("/managers/m", str(number).encode())
    await store.withdraw("/managers/m")
    await store.commit(Put("/a", b""))
    assert len(disk.saved) == written + 1


async def test_lasting_record__removed_or_replaced_by_an_announced_one__is_forgotten(
    store: MemStore, disk: Disk
) -> None:
    await store.commit(Put("/a", b""), Put("/b", b""))
    await store.withdraw("/a")
    await store.announce("/b", b"")
    await store.commit(Put("/c", b""))
    assert disk.paths[-1] == ["/c"]


async def test_read__newest_is_not_kept__waits(store: MemStore, disk: Disk) -> None:
    """Else a proxy would write to a master that is forgotten a moment later."""
    disk.goes_on.clear()
    other = asyncio.create_task(store.commit(Put("/a", b"1")))
    await until(disk.asked)
    reading = asyncio.create_task(store.read("/a"))
    await asyncio.sleep(0)
    assert not reading.done()
    assert not other.done()
    disk.goes_on.set()
    entry = await reading
    assert entry
    assert disk.saved[-1].records["/a"] == entry
    await other


async def test_harmless_change__disk_is_slow__nobody_waits(store: MemStore, disk: Disk) -> None:
    disk.goes_on.clear()
    await store.commit(Put("/harmless", b""))
    assert await store.read("/harmless")
    assert disk.saved == []
    later = asyncio.create_task(store.commit(Put("/a", b"")))
    await until(disk.asked)
    assert not later.done()
    disk.goes_on.set()
    await later
    assert disk.paths[-1] == ["/harmless", "/a"]


async def test_disk_is_slow__many_changes__newest_state_is_written_once(store: MemStore, disk: Disk) -> None:
    disk.goes_on.clear()
    commits = [asyncio.create_task(store.commit(Put("/first", b"")))]
    await until(disk.asked)
    commits += [asyncio.create_task(store.commit(Put(f"/{number}", b""))) for number in range(9)]
    await asyncio.sleep(0)
    disk.goes_on.set()
    await asyncio.gather(*commits)
    assert [len(paths) for paths in disk.paths] == [1, 10]


async def test_disk_stands_still__waited_for_once_and_named(
    store: MemStore, keeper: TreeKeeper, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_keeper, "PATIENCE", 0.05)
    disk.goes_on.clear()
    with capture_logs() as lines:
        await store.commit(Put("/a", b""))
        monkeypatch.setattr(record_keeper, "PATIENCE", 600.0)
        await store.commit(Put("/b", b""))
        assert await store.read("/b")
        disk.goes_on.set()
        await keeper.close()
    assert [line["event"] for line in lines] == ["record_not_kept", "record_kept"]
    assert "the disk has not answered for 0.05 s: what changes now is forgotten" in lines[0]["error"]
    assert disk.paths[-1] == ["/a", "/b"]


async def test_disk_is_full__store_goes_on_and_tries_again(
    store: MemStore, keeper: TreeKeeper, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_keeper, "RETRY", 0.0)
    disk.problem = OSError(28, "No space left on device")
    with capture_logs() as lines:
        await store.commit(Put("/a", b""))
        await store.commit(Put("/b", b""))
        assert keeper.problem == "No space left on device"
        disk.problem = None
        await keeper.close()
    assert [line["event"] for line in lines] == ["record_not_kept", "record_kept"]
    assert disk.paths == [["/a", "/b"]]


async def test_close__newest_is_not_written__is_written_first(store: MemStore, keeper: TreeKeeper, disk: Disk) -> None:
    await store.commit(Put("/harmless", b""))
    await keeper.close()
    assert disk.paths[-1] == ["/harmless"]


async def test_close__disk_stands_still__ends_in_time(
    store: MemStore, keeper: TreeKeeper, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_keeper, "LAST_CHANCE", 0.0)
    disk.goes_on.clear()
    await store.commit(Put("/harmless", b""))
    await keeper.close()
    assert disk.saved == []


async def test_no_thread_can_be_started__tried_again(
    store: MemStore, keeper: TreeKeeper, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(record_keeper, "RETRY", 0.0)
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", fail)
    with capture_logs() as lines:
        await store.commit(Put("/a", b""))
        await store.commit(Put("/b", b""))
        assert keeper.problem == "can't start new thread"
        monkeypatch.setattr(threading.Thread, "start", start)
        await keeper.close()
    assert [line["event"] for line in lines] == ["record_not_kept", "record_kept"]
    assert disk.paths == [["/a", "/b"]]


async def test_changed__after_the_end__not_written(keeper: TreeKeeper, disk: Disk) -> None:
    await keeper.close()
    keeper.changed(TreeState(1, {}), ())
    await asyncio.sleep(0)
    await keeper.close()
    assert disk.saved == []
