"""What operators' commands do to the store, and how a wish for another master is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from rfmanager.decision.plan import Policy
from rfmanager.operator import operations
from rfmanager.operator.snapshot import Pause, Snapshot
from rfprotocol.errors import OperationFailed, StoreUnavailable
from rfprotocol.store.interface import Change, Delete, Entry, Put
from rfprotocol.store.memory import Loss, MemStore, MemTree
from rfprotocol.topology.records import ManualRequest, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import Change as TopologyChange
from rfprotocol.topology.topology import Kind, ManagerReport, Node, NodeReport, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.managers import site
from tests.support.redis import RedisGroup

PATHS = Paths()
A, B = Node("a", 6379), Node("b", 6379)


class FakeManager:
    """Another session that does what the primary manager would, when it is told to."""

    def __init__(self, store: MemStore) -> None:
        self.store = store

    async def announce(self) -> None:
        await self.store.announce(PATHS.manager("m1"), ManagerReport("m1", 1).encode())

    async def requested(self) -> ManualRequest | None:
        """Wait for an operator's request."""
        changed = asyncio.Event()
        end = self.store.watch(PATHS.manual_failover, changed.set)
        while (entry := await self.store.read(PATHS.manual_failover)) is None:
            changed.clear()
            await changed.wait()
        end()
        return ManualRequest.decode(entry.data)

    async def write(self, epoch: int, kind: Kind = Kind.SWITCHOVER, outcome: Outcome = Outcome.DONE) -> Receipt:
        return await self._commit(Receipt(epoch, kind, outcome, "why", A, B))

    async def settle(self, epoch: int, outcome: Outcome = Outcome.DONE) -> Receipt:
        """Answer the request as a manager does: the receipt in the transaction that removes it."""
        receipt = Receipt(epoch, Kind.SWITCHOVER, outcome, "why", A, B)
        return await self._commit(receipt, Delete(PATHS.manual_failover))

    async def _commit(self, receipt: Receipt, *more: Change) -> Receipt:
        await self.store.commit(Put(PATHS.receipt(receipt.epoch), receipt.encode()), *more)
        return receipt


@pytest.fixture
def tree() -> MemTree:
    return MemTree(asyncio.Event)


@pytest.fixture
async def store(tree: MemTree) -> AsyncIterator[MemStore]:
    store = MemStore(tree)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def manager(tree: MemTree) -> AsyncIterator[FakeManager]:
    manager = FakeManager(MemStore(tree))
    await manager.store.start()
    await manager.announce()
    await manager.store.campaign(PATHS.lock, "m1")
    yield manager
    await manager.store.close()


def ask(store: MemStore, target: Node | None = B, timeout: float = 60.0) -> asyncio.Task[Receipt]:
    return asyncio.create_task(operations.failover(store, PATHS, target, timeout))


async def test_a_store_that_does_not_answer_in_time_is_one_clear_error(tree: MemTree) -> None:
    store = MemStore(tree)
    store.start = store.close  # type: ignore[method-assign]  # a store that never connects
    with pytest.raises(OperationFailed, match=r"ZooKeeper at zk:1 does not answer \(waited 0.01 s\)"):
        async with operations.connected(store, 0.01, "zk:1"):
            pass


async def test_a_command_ends_its_session(tree: MemTree) -> None:
    store = MemStore(tree)
    async with operations.connected(store, 1.0, "zk:1"):
        assert tree.sessions
    assert not tree.sessions


async def test_the_status_is_gathered_from_all_records(store: MemStore, manager: FakeManager) -> None:
    await store.commit(Put(PATHS.nodes, Topology(3, Phase.SERVING, A).encode()))
    await operations.pause(store, PATHS, "me")
    snapshot = await operations.status(store, PATHS)
    assert (snapshot.epoch, snapshot.primary, list(snapshot.managers)) == (3, "m1", ["m1"])
    assert snapshot.pause
    assert snapshot.pause.by == "me"


async def test_pausing_twice_tells_who_was_first(store: MemStore) -> None:
    assert await operations.pause(store, PATHS, "ann") is None
    before = await operations.pause(store, PATHS, "bob")
    assert before is not None
    assert before.by == "ann"
    assert before.at > 0


async def test_resuming_is_said_to_be_needless_the_second_time(store: MemStore) -> None:
    await operations.pause(store, PATHS, "ann")
    assert await operations.resume(store, PATHS)
    assert not await operations.resume(store, PATHS)
    assert (await operations.status(store, PATHS)).pause is None


async def test_the_history_is_in_order_limited_and_complete_but_for_what_cannot_be_read(
    store: MemStore, manager: FakeManager
) -> None:
    for epoch in (2, 4, 11):
        await manager.write(epoch)
    await store.commit(Put(PATHS.receipt(12), b"{"))
    receipts, unreadable = await operations.history(store, PATHS)
    assert [receipt.epoch for receipt in receipts] == [2, 4, 11]
    assert unreadable[0].startswith("/redis_failover/history/0000000012: ")
    limited, _ = await operations.history(store, PATHS, 2)
    assert [receipt.epoch for receipt in limited] == [11]


async def test_there_may_be_no_history_yet(store: MemStore) -> None:
    assert await operations.history(store, PATHS) == ([], [])


@pytest.mark.parametrize("target", [B, None])
async def test_a_failover_is_requested_and_its_receipt_returned(
    store: MemStore, manager: FakeManager, target: Node | None
) -> None:
    asked = ask(store, target)
    assert await manager.requested() == ManualRequest(target)
    assert await manager.settle(9) == await asked


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.ABORTED])
async def test_the_receipt_may_say_that_it_was_not_done(
    store: MemStore, manager: FakeManager, outcome: Outcome
) -> None:
    asked = ask(store)
    await manager.requested()
    await manager.settle(9, outcome)
    assert (await asked).outcome is outcome


async def test_receipts_of_earlier_and_of_unplanned_changes_are_not_taken_for_the_answer(
    store: MemStore, manager: FakeManager
) -> None:
    await manager.write(5)
    asked = ask(store)
    await manager.requested()
    await manager.write(7, Kind.FAILOVER)
    mine = await manager.settle(9)
    await manager.write(11)
    assert await asked == mine


async def test_a_receipt_that_names_another_request_is_not_taken_for_the_answer(
    store: MemStore, manager: FakeManager
) -> None:
    asked = ask(store)
    await manager.requested()
    entry = await store.read(PATHS.manual_failover)
    assert entry is not None
    other = Receipt(9, Kind.SWITCHOVER, Outcome.DONE, "why", A, B, request=entry.created - 1)
    await manager.store.commit(Put(PATHS.receipt(9), other.encode()))
    mine = replace(other, epoch=11, request=entry.created)
    await manager.store.commit(Put(PATHS.receipt(11), mine.encode()), Delete(PATHS.manual_failover))
    assert await asked == mine


async def test_a_request_that_vanishes_without_a_receipt_is_an_error(store: MemStore, manager: FakeManager) -> None:
    asked = ask(store)
    await manager.requested()
    await manager.store.commit(Delete(PATHS.manual_failover))
    with pytest.raises(OperationFailed, match="vanished without a receipt"):
        await asked


async def test_the_next_operators_request_is_not_waited_for(store: MemStore, manager: FakeManager) -> None:
    asked = ask(store)
    await manager.requested()
    mine = await manager.settle(9)
    await manager.store.commit(Put(PATHS.manual_failover, b"ANY_SLAVE"))
    assert await asked == mine


async def test_a_receipt_can_be_read_by_its_epoch(store: MemStore, manager: FakeManager) -> None:
    written = await manager.write(7)
    assert await operations.receipt(store, PATHS, 7) == written
    with pytest.raises(OperationFailed, match="no change of master ended in epoch 8"):
        await operations.receipt(store, PATHS, 8)


async def test_what_the_proxies_say_is_waited_for_when_there_are_proxies(store: MemStore, manager: FakeManager) -> None:
    await manager.store.announce(PATHS.proxy("p1"), ProxyRecord(7).encode())
    bare = await manager.write(7)
    waiting = asyncio.create_task(operations.completed(store, PATHS, bare, patience=60.0))
    await asyncio.sleep(0)
    full = replace(bare, proxies={"p1": {"epoch": 7}})
    await manager.store.commit(Put(PATHS.receipt(7), full.encode(), 0))
    assert await waiting == full


async def test_silent_proxies_and_a_lost_store_do_not_keep_the_receipt_back(
    store: MemStore, manager: FakeManager
) -> None:
    bare = await manager.write(7)
    assert await operations.completed(store, PATHS, bare, patience=60.0) == bare
    await manager.store.announce(PATHS.proxy("p1"), ProxyRecord(7).encode())
    assert await operations.completed(store, PATHS, bare, patience=0.01) == bare
    store.suspend()
    assert await operations.completed(store, PATHS, bare, patience=60.0) == bare


async def test_a_second_request_is_refused_at_once_and_the_first_is_left_alone(
    store: MemStore, manager: FakeManager
) -> None:
    await store.commit(Put(PATHS.manual_failover, b"a:6379"))
    with pytest.raises(OperationFailed, match="under way already: make a:6379 the master"):
        await ask(store)
    entry = await store.read(PATHS.manual_failover)
    assert entry is not None
    assert entry.data == b"a:6379"


async def until_it_waits() -> None:
    """Everything that needs no time has happened: a store in memory answers at once."""
    for _ in range(100):
        await asyncio.sleep(0)


async def settled(manager: FakeManager, asked: asyncio.Task[Receipt]) -> tuple[Receipt, int]:
    """What the primary manager answers to the request B, in its own name, and when that request was created."""
    changed = asyncio.Event()
    end = manager.store.watch(PATHS.manual_failover, changed.set)
    asked.add_done_callback(lambda _: changed.set())
    while (entry := await manager.store.read(PATHS.manual_failover)) is None or entry.data != str(B).encode():
        assert not asked.done(), asked
        changed.clear()
        await changed.wait()
    end()
    answer = Receipt(9, Kind.SWITCHOVER, Outcome.DONE, "why", A, B, request=entry.created)
    await manager.store.commit(Put(PATHS.receipt(9), answer.encode()), Delete(PATHS.manual_failover, entry.version))
    return answer, entry.created


async def test_failover__an_empty_request_that_nobody_fills__is_made_anew(
    store: MemStore, manager: FakeManager
) -> None:
    await store.commit(Put(PATHS.manual_failover, b""))
    empty = await store.read(PATHS.manual_failover)
    assert empty is not None
    asked = ask(store, timeout=0.2)
    answer, created = await settled(manager, asked)
    assert created > empty.created
    assert await asked == answer


async def test_failover__an_empty_request_is_filled_meanwhile__is_the_request_under_way(
    store: MemStore, manager: FakeManager
) -> None:
    await store.commit(Put(PATHS.manual_failover, b""))
    asked = ask(store)
    await until_it_waits()
    await manager.store.commit(Put(PATHS.manual_failover, b"a:6379", 0))
    with pytest.raises(OperationFailed, match="under way already: make a:6379 the master"):
        await asked
    entry = await store.read(PATHS.manual_failover)
    assert entry is not None
    assert entry.data == b"a:6379"


async def gems_manager(tree: MemTree, name: str = "h1-12") -> MemStore:
    """A node manager of the gem: it reports and has a seat in its lock."""
    gems = MemStore(tree)
    await gems.start()
    await gems.announce(PATHS.manager(name), b'{"available": {"a:6379": 0.001}, "unavailable": ["b:6379"]}')
    await gems.enlist(f"{PATHS.gem_lock}/ex", b"")
    return gems


GEMS_RECORD = b'{"master": "a:6379", "slaves": ["b:6379"], "unavailable": []}'


async def test_status__a_gems_manager_came_first__leads_until_it_is_gone(tree: MemTree, store: MemStore) -> None:
    gems = await gems_manager(tree)
    await store.enlist(f"{PATHS.gem_lock}/ex{'0' * 32}_", b"m1")
    snapshot = await operations.status(store, PATHS)
    assert (snapshot.gem_leads, snapshot.gem_waits, snapshot.gems) == (True, False, ["h1-12"])
    await gems.close()
    snapshot = await operations.status(store, PATHS)
    assert (snapshot.gem_leads, snapshot.gem_waits, snapshot.gems) == (False, False, [])


async def test_status__a_gems_manager_came_later__waits_in_line(tree: MemTree, store: MemStore) -> None:
    await store.enlist(f"{PATHS.gem_lock}/ex{'0' * 32}_", b"m1")
    gems = await gems_manager(tree)
    snapshot = await operations.status(store, PATHS)
    assert (snapshot.gem_leads, snapshot.gem_waits) == (False, True)
    await gems.close()


async def test_status__a_proxy_acknowledges_while_it_is_read__has_not_gone_back(tree: MemTree) -> None:
    """The topology is read last, so that a change between two reads does not look like a record that went back."""

    class Changing(MemStore):
        async def read(self, path: str) -> Entry | None:
            entry = await super().read(path)
            if path != PATHS.nodes:
                for change in changes:
                    await change
                changes.clear()
            return entry

    store = Changing(tree)
    await store.start()
    await store.commit(Put(PATHS.nodes, Topology(3, Phase.SERVING, A).encode()))
    await store.announce(PATHS.proxy("p1"), ProxyRecord(3).encode())
    changes = [
        store.commit(Put(PATHS.nodes, Topology(5, Phase.SERVING, A).encode(), 0)),
        store.announce(PATHS.proxy("p1"), ProxyRecord(5).encode()),
    ]
    snapshot = await operations.status(store, PATHS)
    assert (snapshot.epoch, snapshot.gone_back) == (5, None)


async def test_failover__the_gems_managers_lead__is_refused_at_once_and_says_what_to_use(
    tree: MemTree, store: MemStore
) -> None:
    gems = await gems_manager(tree)
    await store.commit(Put(PATHS.nodes, GEMS_RECORD), Put(PATHS.manual_failover, b"b:6379"))
    with pytest.raises(OperationFailed, match=r"\(h1-12\) lead.* client.manual_failover, or stop every"):
        await ask(store)
    entry = await store.read(PATHS.manual_failover)
    assert entry is not None
    assert (entry.data, entry.version) == (b"b:6379", 0)
    await gems.close()


async def test_failover__only_a_gems_manager_reports__says_that_no_rfmanager_runs(
    tree: MemTree, store: MemStore
) -> None:
    gems = await gems_manager(tree)
    for seat in await store.read_children(PATHS.gem_lock):
        await gems.withdraw(f"{PATHS.gem_lock}/{seat}")
    with pytest.raises(OperationFailed, match="no manager of /redis_failover runs: start rfmanager first"):
        await ask(store)
    await gems.close()


async def test_failover__managers_report_and_none_leads__says_so_and_asks_for_nothing(store: MemStore) -> None:
    await store.announce(PATHS.manager("m1"), ManagerReport("m1", 1).encode())
    with pytest.raises(OperationFailed, match=r"no manager leads, although m1 report.*: nothing was asked for"):
        await ask(store, timeout=0.01)
    assert await store.read(PATHS.manual_failover) is None


async def test_failover__a_manager_takes_the_lead_meanwhile__is_done(tree: MemTree, store: MemStore) -> None:
    manager = FakeManager(MemStore(tree))
    await manager.store.start()
    await manager.announce()
    asked = ask(store)
    await until_it_waits()
    await manager.store.campaign(PATHS.lock, "m1")
    answer, _ = await settled(manager, asked)
    assert await asked == answer
    await manager.store.close()


@pytest.mark.parametrize("record", [None, GEMS_RECORD])
async def test_failover__a_request_of_the_gem_is_left__waits_until_the_primary_has_refused_it(
    tree: MemTree, store: MemStore, record: bytes | None
) -> None:
    if record:
        await store.commit(Put(PATHS.nodes, record))
    await store.commit(Put(PATHS.manual_failover, b"a:6379"))
    manager = FakeManager(MemStore(tree))
    await manager.store.start()
    await manager.announce()
    await manager.store.campaign(PATHS.lock, "m1")
    asked = ask(store)
    await until_it_waits()
    left = await store.read(PATHS.manual_failover)
    assert left is not None
    assert left.data == b"a:6379"
    refusal = Receipt(3, Kind.SWITCHOVER, Outcome.REFUSED, "it is older", request=left.created)
    await manager.store.commit(Put(PATHS.receipt(3), refusal.encode()), Delete(PATHS.manual_failover, 0))
    answer, _ = await settled(manager, asked)
    assert await asked == answer
    await manager.store.close()


async def test_failover__the_primary_does_not_remove_what_is_left__says_so_and_leaves_it(
    tree: MemTree, store: MemStore
) -> None:
    await store.commit(Put(PATHS.manual_failover, b"a:6379"))
    manager = FakeManager(MemStore(tree))
    await manager.store.start()
    await manager.announce()
    await manager.store.campaign(PATHS.lock, "m1")
    with pytest.raises(OperationFailed, match=r"from before rfmanager led \(make a:6379 the master\).* m1 has not"):
        await ask(store, timeout=0.01)
    entry = await store.read(PATHS.manual_failover)
    assert entry is not None
    assert entry.data == b"a:6379"
    await manager.store.close()


async def test_failover__the_gems_managers_take_the_lead_meanwhile__is_withdrawn_and_says_so(
    tree: MemTree, store: MemStore, manager: FakeManager
) -> None:
    asked = ask(store, timeout=0.5)
    await manager.requested()
    await manager.store.close()
    gems = await gems_manager(tree)
    with pytest.raises(OperationFailed, match=r"not done within 0.5 s: node managers.*\(h1-12\) lead now; .*withdrawn"):
        await asked
    assert await store.read(PATHS.manual_failover) is None
    await gems.close()


async def test_without_managers_nothing_is_requested(store: MemStore) -> None:
    with pytest.raises(OperationFailed, match="no manager of /redis_failover runs"):
        await ask(store)
    assert await store.read(PATHS.manual_failover) is None


async def test_while_paused_nothing_is_requested(store: MemStore, manager: FakeManager) -> None:
    await store.commit(Put(PATHS.paused, Pause("ann").encode()))
    with pytest.raises(OperationFailed, match="paused by ann: 'rfmanager resume' first"):
        await ask(store)
    assert await store.read(PATHS.manual_failover) is None


async def test_a_topology_that_managers_cannot_read_is_no_place_for_requests(
    store: MemStore, manager: FakeManager
) -> None:
    await store.commit(Put(PATHS.nodes, b"?"))
    with pytest.raises(OperationFailed, match=r"not JSON.*until /redis_failover/nodes is put right"):
        await ask(store)


async def test_a_request_that_nobody_takes_up_is_withdrawn(store: MemStore, manager: FakeManager) -> None:
    await store.commit(Put(PATHS.nodes, Topology(3, Phase.SERVING, A).encode()))
    asked = ask(store, timeout=0.5)
    await manager.requested()
    await manager.store.close()
    with pytest.raises(OperationFailed, match=r"not done within 0.5 s: there is no primary manager"):
        await asked
    assert await store.read(PATHS.manual_failover) is None


async def test_after_the_time_limit_it_is_said_where_to_look_for_the_reason(
    store: MemStore, manager: FakeManager
) -> None:
    await store.commit(Put(PATHS.nodes, Topology(4, Phase.FENCING).encode()))
    with pytest.raises(OperationFailed, match=r"m1 has not begun it \(phase fencing\), its log says why"):
        await ask(store, timeout=0.01)
    assert await store.read(PATHS.manual_failover) is None


async def test_after_the_time_limit_a_change_in_the_middle_is_said_to_be_so(
    store: MemStore, manager: FakeManager
) -> None:
    draining = Topology(4, Phase.DRAINING, change=TopologyChange(Kind.SWITCHOVER, "asked", former=A, target=B))
    await store.commit(Put(PATHS.nodes, draining.encode()))
    with pytest.raises(OperationFailed, match=r"the managers are in the middle of it \(epoch 4, draining\)"):
        await ask(store, timeout=0.01)


async def test_an_interrupted_command_takes_its_request_back(store: MemStore, manager: FakeManager) -> None:
    asked = ask(store)
    await manager.requested()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await store.read(PATHS.manual_failover) is None


async def test_waiting_goes_on_through_a_lost_connection(store: MemStore, manager: FakeManager) -> None:
    asked = ask(store)
    await manager.requested()
    store.suspend()
    mine = await manager.settle(9)
    store.resume()
    assert await asked == mine


async def test_a_request_whose_creation_is_uncertain_is_said_to_be_so(tree: MemTree, manager: FakeManager) -> None:
    class Cut(MemStore):
        async def commit(self, *changes: Change, fence: object = None) -> None:
            self.lose_next(Loss.ANSWER)
            await super().commit(*changes)

    store = Cut(tree)
    await store.start()
    with pytest.raises(StoreUnavailable, match="'rfmanager status' whether the request was made"):
        await ask(store)


async def test_losing_the_store_for_good_is_said_to_leave_the_request_behind(
    tree: MemTree, manager: FakeManager
) -> None:
    class CutWhileWaiting(MemStore):
        def watch(self, path: str, changed: Callable[[], None]) -> Callable[[], None]:
            self.suspend()
            return super().watch(path, changed)

    store = CutWhileWaiting(tree)
    await store.start()
    with pytest.raises(OperationFailed, match="lost ZooKeeper while waiting"):
        await ask(store, timeout=0.01)
    assert await manager.requested() == ManualRequest(B)


async def test_the_next_operators_request_gets_its_own_answer(redis_group: RedisGroup) -> None:
    async with site(redis_group) as place:
        await place.manager(policy=Policy(catch_up_timeout=5.0))
        topology = await place.until_serving(2)
        first, second = topology.replicas
        await place.acknowledge(topology.epoch)
        asked = asyncio.create_task(operations.failover(place.store, PATHS, first, 60.0))
        draining = await place.until(lambda topology: topology.phase is Phase.DRAINING)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        asked = asyncio.create_task(operations.failover(place.store, PATHS, second, 60.0))
        await place.requested()
        await place.acknowledge(draining.epoch)
        topology = await place.until(
            lambda topology: topology.epoch > draining.epoch and topology.phase is Phase.DRAINING
        )
        await place.acknowledge(topology.epoch)
        receipt = await asked
        assert (receipt.outcome, receipt.master) == (Outcome.DONE, second)


def test_left_behind__servers_too_old_to_copy_from_the_target() -> None:
    new = NodeReport(A, True, role="slave", version="8.0.0")
    old = NodeReport(B, True, role="master", version="7.0.15")
    snapshot = Snapshot(Topology(1, Phase.SERVING, B, (A,)), "m", {"m": ManagerReport("m", 1, (new, old))})
    assert "b:6379 (Redis 7.0.15)" in operations.left_behind(snapshot, A)
    assert operations.left_behind(snapshot, B) == ""
    assert operations.left_behind(snapshot, None) == "", "the managers choose one that all can copy from, or say so"


FULL_MASTER = NodeReport(A, True, condition="misconf", role="master", unsaved="its RDB dump")
FULL_REPLICA = NodeReport(B, True, condition="misconf", role="slave", unsaved="its append-only file")


async def seen(manager: FakeManager, *reports: NodeReport) -> None:
    """The master is A; the managers report these."""
    await manager.store.commit(Put(PATHS.nodes, Topology(3, Phase.SERVING, A, replicas=(B,)).encode()))
    await manager.store.announce(PATHS.manager("m1"), ManagerReport("m1", 1, reports).encode())


@pytest.mark.parametrize(
    ("full", "said"),
    [
        (FULL_MASTER, r"the master a:6379 could not write its RDB dump .* abort .*BGSAVE.*--force"),
        (FULL_REPLICA, r"b:6379 could not write its append-only file .* refuses all writes .*--force"),
    ],
)
async def test_failover__a_full_disk_on_the_way__is_refused_with_what_to_do_and_done_when_forced(
    store: MemStore, manager: FakeManager, full: NodeReport, said: str
) -> None:
    await seen(manager, full)
    with pytest.raises(OperationFailed, match=said):
        await operations.failover(store, PATHS, B, 60.0)
    assert await store.read(PATHS.manual_failover) is None
    forced = asyncio.create_task(operations.failover(store, PATHS, B, 60.0, force=True))
    await manager.requested()
    assert await manager.settle(9) == await forced


async def test_failover__a_full_disk_elsewhere_or_on_a_server_that_is_gone__is_no_obstacle(
    store: MemStore, manager: FakeManager
) -> None:
    c = Node("c", 6379)
    await seen(manager, replace(FULL_REPLICA, node=c), replace(FULL_MASTER, available=False, condition="refused"))
    asked = ask(store)
    await manager.requested()
    assert await manager.settle(9) == await asked


async def test_failover__a_request_of_the_gem_is_left_and_rfmanager_takes_over__never_obeys_that_one(
    redis_group: RedisGroup,
) -> None:
    master, left, wanted = redis_group.nodes
    record = f'{{"master": "{master}", "slaves": ["{left}", "{wanted}"], "unavailable": []}}'
    async with site(redis_group) as place:
        wish = Put(PATHS.manual_failover, str(left).encode())
        await place.store.commit(Put(PATHS.nodes, record.encode()), wish)
        gems = await gems_manager(place.tree)
        await place.manager(policy=Policy(catch_up_timeout=5.0))
        await place.report("manager0", lambda report: not report.is_gems)
        with pytest.raises(OperationFailed, match="lead, and rfmanager does nothing"):
            await operations.failover(place.store, PATHS, wanted, 60.0)
        await gems.close()
        answer = await operations.failover(place.store, PATHS, wanted, 60.0)
        assert (answer.outcome, answer.master) == (Outcome.DONE, wanted)
        first, *others = await place.receipts()
        assert (first.outcome, others) == (Outcome.REFUSED, [answer])
