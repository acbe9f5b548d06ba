"""Addresses in the store: read by the next manager, useless content ignored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rfmanager.daemon.address_record import RENEWAL, AddressRecord
from rfprotocol.errors import StoreUnavailable
from rfprotocol.network.address_cache import STALE
from rfprotocol.store.interface import Put
from rfprotocol.store.memory import MemStore, MemTree

PATH = "/group/addresses"
KNOWN = {"db-1": ("10.0.0.1", "fd00::1"), "db-2": ("10.0.0.2",)}


@pytest.fixture
async def store() -> AsyncIterator[MemStore]:
    store = MemStore(MemTree(asyncio.Event))
    await store.start()
    yield store
    await store.close()


async def version(store: MemStore) -> int | None:
    entry = await store.read(PATH)
    return entry.version if entry else None


async def test_addresses__kept_by_one_manager__are_read_by_the_next(store: MemStore) -> None:
    await AddressRecord(store, PATH).save(KNOWN, 1000.0)
    after = AddressRecord(store, PATH)
    assert await after.load(1000.0 + STALE) == {host: list(addresses) for host, addresses in KNOWN.items()}
    assert await after.load(1001.0 + STALE) == {}, "they may be somebody else's by now"


async def test_addresses__the_same_again__written_once_an_hour(store: MemStore) -> None:
    record = AddressRecord(store, PATH)
    await record.save({}, 1000.0)
    assert await version(store) is None, "where there are no names there is no record"
    for wall, expected in ((1000.0, 0), (999.0 + RENEWAL, 0), (1000.0 + RENEWAL, 1)):
        await record.save(KNOWN, wall)
        assert await version(store) == expected
    await record.save({"db-1": ("10.0.0.9",)}, 1001.0 + RENEWAL)
    assert await AddressRecord(store, PATH).load(1002.0 + RENEWAL) == {"db-1": ["10.0.0.9"]}


async def test_addresses__store_away__tried_again(store: MemStore) -> None:
    record = AddressRecord(store, PATH)
    store.suspend()
    with pytest.raises(StoreUnavailable):
        await record.save(KNOWN, 1000.0)
    with pytest.raises(StoreUnavailable):
        await record.load(1000.0)
    store.resume()
    await record.save(KNOWN, 1000.0)
    assert await record.load(1000.0)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"at": "x"}', b'{"at": 1, "names": 5}', b'{"at": 1, "format": 99}']
)
async def test_addresses__useless_record__ignored(store: MemStore, data: bytes) -> None:
    await store.commit(Put(PATH, data))
    assert await AddressRecord(store, PATH).load(1.0) == {}
