"""The manager's copy of the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from structlog.testing import capture_logs

from rfmanager.daemon.store_mirror import NEVER_ACKNOWLEDGED, Mirror
from rfprotocol.errors import StoreUnavailable
from rfprotocol.store.interface import Delete, Put
from rfprotocol.store.memory import Loss, MemStore, MemTree
from rfprotocol.topology.records import ManualRequest, ProxyRecord
from rfprotocol.topology.topology import ManagerReport, Node, Phase, Topology
from rfprotocol.topology.znode_paths import Paths

PATHS = Paths()
TOPOLOGY = Topology(epoch=3, phase=Phase.SERVING, master=Node("h", 1))


class Copy:
    def __init__(self, store: MemStore) -> None:
        self.store = store
        self.changes = 0
        self.mirror = Mirror(store, PATHS, self._changed, structlog.get_logger())
        self.mirror.start()
        self.mirror.attend()

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def copy() -> AsyncIterator[Copy]:
    store = MemStore(MemTree(asyncio.Event))
    await store.start()
    yield Copy(store)
    await store.close()


async def test_everything_is_read_and_decoded(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    await copy.store.commit(Put(PATHS.manual_failover, ManualRequest(None).encode()))
    await copy.store.commit(Put(PATHS.paused, b""))
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(3).encode())
    await copy.store.announce(PATHS.manager("m"), ManagerReport("m", 1).encode())
    await copy.mirror.refresh()
    mirror = copy.mirror
    assert mirror.topology == TOPOLOGY
    assert mirror.request == ManualRequest(None)
    assert mirror.paused
    assert mirror.proxies == {"p": ProxyRecord(3)}
    assert mirror.reports == {"m": ManagerReport("m", 1)}


async def test_what_is_gone_is_forgotten(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()), Put(PATHS.paused, b""))
    await copy.mirror.refresh()
    await copy.store.commit(Delete(PATHS.nodes), Delete(PATHS.paused))
    await copy.mirror.refresh()
    assert copy.mirror.topology is None
    assert not copy.mirror.paused


async def test_only_changes_call_for_another_look(copy: Copy) -> None:
    await copy.mirror.refresh()
    before = copy.changes
    await copy.mirror.refresh()
    assert copy.changes == before
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(1).encode())
    assert copy.changes > before


async def test_what_this_manager_wrote_is_known_without_reading_it(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    await copy.mirror.refresh()
    fenced = Topology(epoch=4, phase=Phase.FENCING)
    await copy.store.commit(Put(PATHS.nodes, fenced.encode(), 0))
    copy.mirror.wrote(fenced)
    assert copy.mirror.topology == fenced
    assert copy.mirror.topology_entry == await copy.store.read(PATHS.nodes)


async def test_a_record_that_was_made_anew_is_read_to_learn_which_one_it_is(copy: Copy) -> None:
    await copy.mirror.refresh()
    copy.mirror.stop()
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    copy.mirror.wrote(TOPOLOGY)
    await copy.mirror.refresh()
    assert copy.mirror.topology_entry == await copy.store.read(PATHS.nodes)


async def test_every_proxy_that_had_registered_when_the_epoch_began_is_known(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    await copy.mirror.refresh()
    copy.mirror.stop()  # its watches may be slow
    await copy.store.announce(PATHS.proxy("just registered"), ProxyRecord(3).encode())
    copy.mirror.wrote(Topology(epoch=4, phase=Phase.FENCING))
    await copy.mirror.refresh()
    assert copy.mirror.proxies == {"just registered": ProxyRecord(3)}


async def test_only_what_is_asked_for_is_read_and_the_rest_stays_to_be_read(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()), Put(PATHS.paused, b""))
    await copy.mirror.refresh(PATHS.nodes)
    assert copy.mirror.topology == TOPOLOGY
    assert not copy.mirror.paused
    await copy.mirror.refresh()
    assert copy.mirror.paused


async def test_an_unreadable_topology_is_said_once_and_the_last_good_one_stays(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    await copy.mirror.refresh()
    await copy.store.commit(Put(PATHS.nodes, b"{", 0))
    with capture_logs() as logs:
        for _ in range(3):
            await copy.mirror.refresh()
            copy.mirror.spoil_all()
    assert [line["path"] for line in logs] == [PATHS.nodes]
    assert not copy.mirror.readable
    assert copy.mirror.topology == TOPOLOGY
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode(), 1))
    await copy.mirror.refresh()
    assert copy.mirror.readable


async def test_a_proxy_whose_record_cannot_be_read_has_acknowledged_nothing(copy: Copy) -> None:
    await copy.store.announce(PATHS.proxy("p"), b"?")
    await copy.mirror.refresh()
    assert copy.mirror.proxies == {"p": NEVER_ACKNOWLEDGED}


async def test_an_unreadable_report_or_request_counts_as_none(copy: Copy) -> None:
    await copy.store.announce(PATHS.manager("m"), b"?")
    await copy.store.commit(Put(PATHS.manual_failover, b"not an address"))
    await copy.mirror.refresh()
    assert copy.mirror.reports == {}
    assert copy.mirror.request is None


async def test_what_could_not_be_read_is_read_again_later(copy: Copy) -> None:
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    copy.store.suspend()
    with pytest.raises(StoreUnavailable):
        await copy.mirror.refresh()
    copy.store.resume()
    await copy.mirror.refresh()
    assert copy.mirror.topology == TOPOLOGY


async def test_a_record_that_could_not_be_read_is_read_again_later(copy: Copy) -> None:
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(1).encode())
    await copy.mirror.refresh()
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(2).encode())
    copy.store.lose_next(Loss.REQUEST)
    with pytest.raises(StoreUnavailable):
        await copy.mirror.refresh()
    await copy.mirror.refresh()
    assert copy.mirror.proxies == {"p": ProxyRecord(2)}


async def test_of_many_records_only_the_one_that_changed_is_read(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p", "q"):
        await copy.store.announce(PATHS.proxy(name), ProxyRecord(1).encode())
        await copy.store.announce(PATHS.manager(name), ManagerReport(name, 1).encode())
    await copy.mirror.refresh()
    monkeypatch.setattr(copy.store, "read_children", None)
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(2).encode())
    await copy.store.announce(PATHS.manager("q"), ManagerReport("q", 2).encode())
    await copy.mirror.refresh()
    assert copy.mirror.proxies == {"p": ProxyRecord(2), "q": ProxyRecord(1)}
    assert copy.mirror.reports == {"p": ManagerReport("p", 1), "q": ManagerReport("q", 2)}
    await copy.store.withdraw(PATHS.proxy("p"))
    await copy.mirror.refresh()
    assert copy.mirror.proxies == {"q": ProxyRecord(1)}


async def test_who_looks_on_is_told_of_the_servers_alone(copy: Copy) -> None:
    await copy.mirror.refresh()
    copy.mirror.look_on()
    before = copy.changes
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(1).encode())
    await copy.store.commit(Put(PATHS.paused, b""))
    assert copy.changes == before
    await copy.store.commit(Put(PATHS.nodes, TOPOLOGY.encode()))
    assert copy.changes > before
    await copy.mirror.refresh()
    assert not copy.mirror.paused


async def test_who_begins_to_act_reads_what_it_was_not_told_of(copy: Copy) -> None:
    copy.mirror.look_on()
    await copy.mirror.refresh()
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(1).encode())
    copy.mirror.attend()
    await copy.mirror.refresh()
    assert copy.mirror.proxies == {"p": ProxyRecord(1)}
    before = copy.changes
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(2).encode())
    assert copy.changes > before


async def test_a_stopped_mirror_calls_nobody(copy: Copy) -> None:
    copy.mirror.stop()
    before = copy.changes
    await copy.store.commit(Put(PATHS.paused, b""))
    assert copy.changes == before


async def test_mirror__a_standby_with_a_reason__is_told_of_proxies(copy: Copy) -> None:
    copy.mirror.look_on()
    await copy.mirror.refresh()
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(3).encode())
    assert copy.mirror.proxies == {}
    copy.mirror.look_on(PATHS.proxies)
    await copy.mirror.refresh(PATHS.proxies)
    assert copy.mirror.proxies == {"p": ProxyRecord(3)}
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(4).encode())
    await copy.mirror.refresh(PATHS.proxies)
    assert copy.mirror.proxies == {"p": ProxyRecord(4)}
    copy.mirror.look_on()
    await copy.store.announce(PATHS.proxy("p"), ProxyRecord(5).encode())
    await copy.mirror.refresh(PATHS.proxies)
    assert copy.mirror.proxies == {"p": ProxyRecord(4)}
