"""What operators do to a running group, through the store alone. No printing here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from rfmanager.evidence.false_alarms import LIMIT
from rfmanager.evidence.versions import warning
from rfmanager.operator import migration
from rfmanager.operator.rendering import pause_text, request_text
from rfmanager.operator.snapshot import Pause, Snapshot
from rfprotocol.errors import OperationFailed, RecordError, StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store.interface import Delete, Entry, Put, StoreState, TopologyStore
from rfprotocol.topology.records import ManualRequest, Receipt
from rfprotocol.topology.topology import Kind, ManagerReport, Node, NodeReport, Phase
from rfprotocol.topology.znode_paths import Paths

_PROXIES_PATIENCE = 1.0
"""Seconds that proxies are given to see the end of a change and to say what it was like."""

_LEAD_PATIENCE = 5.0
"""Seconds that a manager is given to take the lead, and to remove a request that is left over: it needs one to notice
that the last one died, and milliseconds for the rest. A session lasts 4 s by default."""

_FILL_PATIENCE = 1.0
"""Seconds that a client of the gem is given to fill the request that it has created; it takes one round trip."""

_LAST_CHANCE = 2.0
"""Seconds for the withdrawal of a request that nobody waits for any more."""


class NotConnected(OperationFailed):
    """The store could not be reached in time, so nothing was asked for."""


@asynccontextmanager
async def connected(
    store: TopologyStore, timeout: float, where: str, absent: Callable[[], str] | None = None
) -> AsyncIterator[None]:
    """Start `store`, wait until it is connected, and close it in the end.

    Raises NotConnected, which says `absent()` or names `where`, when that takes longer than `timeout` seconds.
    """
    up = asyncio.Event()

    def moved(state: StoreState) -> None:
        if state is StoreState.CONNECTED:
            up.set()

    store.subscribe(moved)
    try:
        await store.start()
        moved(store.state)
        try:
            async with asyncio.timeout(timeout):
                await up.wait()
        except TimeoutError:
            what = absent() if absent else f"ZooKeeper at {where} {store.trouble or 'does not answer'}"
            raise NotConnected(f"{what} (waited {timeout:g} s)") from None
        yield
    finally:
        await store.close()


async def status(store: TopologyStore, paths: Paths, brake_limit: int = LIMIT) -> Snapshot:
    """Everything that the store holds on the group; `brake_limit` is the managers'. Raises StoreUnavailable."""
    folders = (paths.managers, paths.lock, paths.gem_lock, paths.proxies, paths.history)
    (managers, seats, gem_seats, proxies, history), (paused, request, known) = await asyncio.gather(
        asyncio.gather(*map(store.read_children, folders)),
        asyncio.gather(*map(store.read, (paths.paused, paths.manual_failover, paths.last_known))),
    )
    # After the proxies: what they have acknowledged is there, or is gone.
    nodes = await store.read(paths.nodes)
    return Snapshot.of(
        nodes=nodes,
        managers=managers,
        seats=seats,
        proxies=proxies,
        paused=paused,
        request=request,
        history=history,
        known=known,
        gem_seats=gem_seats,
        wall=time.time(),
        brake_limit=brake_limit,
    )


async def history(store: TopologyStore, paths: Paths, limit: int | None = None) -> tuple[list[Receipt], list[str]]:
    """The last `limit` receipts (None: all), the newest last, and a line for each that cannot be read."""
    entries = sorted((await store.read_children(paths.history)).items())
    receipts: list[Receipt] = []
    unreadable: list[str] = []
    for name, entry in entries if limit is None else entries[-limit:]:
        try:
            receipts.append(Receipt.decode(entry.data))
        except RecordError as error:
            unreadable.append(f"{paths.history}/{name}: {error}")
    return receipts, unreadable


async def receipt(store: TopologyStore, paths: Paths, epoch: int) -> Receipt:
    """The receipt of the change that ended in `epoch`. Raises OperationFailed when there is none, and RecordError."""
    entry = await store.read(paths.receipt(epoch))
    if entry is None:
        raise OperationFailed(f"no change of master ended in epoch {epoch}: 'rfmanager history' shows those that did")
    return Receipt.decode(entry.data)


async def completed(
    store: TopologyStore, paths: Paths, receipt: Receipt, patience: float = _PROXIES_PATIENCE
) -> Receipt:
    """The receipt with what the proxies said of the change, which the managers add when all have seen its end.

    As it is when that takes longer than `patience` seconds, or when there are no proxies.
    """
    changed = asyncio.Event()
    end_watch = store.watch(paths.receipt(receipt.epoch), changed.set)
    try:
        async with asyncio.timeout(patience):
            while await store.read_children(paths.proxies):
                changed.clear()
                entry = await store.read(paths.receipt(receipt.epoch))
                receipt = Receipt.decode(entry.data) if entry else receipt
                if receipt.proxies:
                    break
                await changed.wait()
    except (TimeoutError, StoreError):
        pass
    finally:
        end_watch()
    return receipt


async def pause(store: TopologyStore, paths: Paths, by: str) -> Pause | None:
    """Let the managers watch without acting. Returns the pause that was there already, if there was one."""
    try:
        await store.commit(Put(paths.paused, Pause(by, time.time()).encode()))
    except StoreConflict:
        entry = await store.read(paths.paused)
        return Pause.decode(entry.data) if entry else Pause()
    return None


async def resume(store: TopologyStore, paths: Paths) -> bool:
    """Let the managers act again. False when they were not paused."""
    try:
        await store.commit(Delete(paths.paused))
    except StoreConflict:
        return False
    return True


async def failover(
    store: TopologyStore, paths: Paths, target: Node | None, timeout: float, *, force: bool = False
) -> Receipt:
    """Ask for another master, `target` or any replica, and wait for the receipt, which may say that it was refused.

    Raises OperationFailed when it makes no sense to ask, when it would do harm (not with `force`), and when there is no
    receipt after `timeout` seconds; the request is then withdrawn, as it is when the caller is cancelled. Raises
    StoreUnavailable when it is not even known whether the request was made.

    One that the gem has left is not in the way: the primary manager removes it, and one that is empty is replaced.
    """
    snapshot = await _ready(store, paths, timeout)
    if not force:
        _check_disks(snapshot, target)
    before = _newest(await store.read_children(paths.history))
    try:
        empty = await store.read(paths.manual_failover) if snapshot.request_is_empty else None
        # Made anew, not filled: managers and `_Request` tell requests apart by their creation.
        replaced = [Delete(paths.manual_failover, empty.version)] if empty else []
        await store.commit(*replaced, Put(paths.manual_failover, ManualRequest(target).encode()))
        entry = await store.read(paths.manual_failover)
    except StoreConflict:
        raise OperationFailed("another operator was faster: 'rfmanager status' shows the request") from None
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}: look with 'rfmanager status' whether the request was made") from None
    mine = _Request(store, paths, entry.created if entry else 0, before)
    try:
        async with asyncio.timeout(timeout):
            return await mine.receipt()
    except TimeoutError:
        return await mine.give_up(timeout)
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CHANCE):
                await mine.withdraw()
        raise


async def adopt(store: TopologyStore, paths: Paths, node: Node) -> NodeReport:
    """Let the managers make a server a replica although its data is of another history: that is overwritten.

    Returns what it holds. The permission is for the process that the managers have seen, and is used once. Raises
    OperationFailed when there is nothing to permit.
    """
    snapshot = await status(store, paths)
    found = next((report for report in snapshot.strangers if report.node == node), None)
    if found is None:
        report = next((server.report for server in snapshot.servers if server.node == node), None)
        why = "its data is this group's" if report and report.available else "no manager reaches it"
        raise OperationFailed(f"{node} is not left alone: {why}")
    path = f"{paths.adopted}/{node}"
    entry = await store.read(path)
    await store.commit(Put(path, found.run_id.encode(), entry.version if entry else None))
    return found


async def forget(store: TopologyStore, paths: Paths, node: Node) -> None:
    """Drop a server from the record that no manager is configured with, without waiting for the grace.

    Raises OperationFailed when it is needed, and StoreConflict when the record was changed at the same moment.
    """
    entry = await store.read(paths.nodes)
    snapshot = await status(store, paths)
    topology = snapshot.topology
    if entry is None or topology is None or node not in topology.nodes:
        raise OperationFailed(f"{node} is not in the record: there is nothing to forget")
    users = sorted(name for name, manager in snapshot.managers.items() if node in _configured(manager))
    if users:
        raise OperationFailed(f"{node} is a server of {', '.join(users)}: take it out of the configuration there first")
    if topology.phase is not Phase.SERVING:
        raise OperationFailed("a change of master is under way: try again when it is over")
    if node == topology.master:
        raise OperationFailed(f"{node} is the master: 'rfmanager failover' first")
    kept = replace(
        topology,
        replicas=tuple(other for other in topology.replicas if other != node),
        unavailable=tuple(other for other in topology.unavailable if other != node),
    )
    await store.commit(Put(paths.nodes, kept.encode(), entry.version))


def _configured(manager: ManagerReport) -> Collection[Node]:
    return [report.node for report in manager.nodes] if manager.configured is None else manager.configured


def left_behind(snapshot: Snapshot, target: Node | None) -> str:
    """Which servers could not copy from `target`, should it become the master; empty: none. Without a target the
    managers choose one that the others can copy from, if there is one, and the receipt says so if not."""
    reports = [server.report for server in snapshot.servers if server.report is not None]
    chosen = next((report for report in reports if report.node == target), None)
    return warning(chosen, reports) if chosen is not None else ""


async def _ready(store: TopologyStore, paths: Paths, timeout: float) -> Snapshot:
    """Wait until a manager leads and no request is in the way, for as long as that may take by itself.

    Returns with an empty request in the way when nobody fills it. Raises OperationFailed.
    """
    snapshot = await status(store, paths)
    _check(snapshot, paths)
    if not _obstacle(snapshot, paths):
        return snapshot
    began, changed = asyncio.get_running_loop().time(), asyncio.Event()
    places = (paths.manual_failover, paths.lock, paths.gem_lock, paths.managers, paths.nodes, paths.paused)
    watches = [store.watch(path, changed.set) for path in places]
    try:
        while True:
            changed.clear()
            snapshot = await status(store, paths)
            _check(snapshot, paths)
            if not (obstacle := _obstacle(snapshot, paths)):
                return snapshot
            empty_only = snapshot.request_is_empty and bool(snapshot.primary)
            patience = min(timeout, _FILL_PATIENCE if empty_only else _LEAD_PATIENCE)
            try:
                async with asyncio.timeout_at(began + patience):
                    await changed.wait()
            except TimeoutError:
                if empty_only:
                    return snapshot
                raise OperationFailed(obstacle) from None
    finally:
        for end in watches:
            end()


def _obstacle(snapshot: Snapshot, paths: Paths) -> str:
    """What has to go before a request makes sense, and goes by itself if all is well; empty: nothing."""
    if not snapshot.primary:
        names = ", ".join(sorted(snapshot.ours))
        return f"no manager leads, although {names} report: nothing was asked for; the managers' logs say why"
    if snapshot.request and snapshot.request_is_left_over:
        return (
            f"{paths.manual_failover} holds a request from before rfmanager led ({request_text(snapshot.request)}), "
            f"and the primary manager {snapshot.primary} has not removed it: its log says why"
        )
    return f"{paths.manual_failover} is empty" if snapshot.request_is_empty else ""


def _check(snapshot: Snapshot, paths: Paths) -> None:
    """Raise OperationFailed for a request that could only wait in vain."""
    if snapshot.gem_leads:
        raise OperationFailed(
            f"{migration.gems_managers(snapshot)} lead, and rfmanager does nothing: ask them with "
            "RedisFailover::ManualFailover or client.manual_failover, or stop every redis_node_manager and repeat this"
        )
    if snapshot.request and not snapshot.request_is_left_over:
        raise OperationFailed(f"a request is under way already: {request_text(snapshot.request)}")
    for name in ("nodes", "manual_failover"):
        if why := snapshot.unreadable.get(name):
            raise OperationFailed(f"{why}: the managers do nothing until {paths.root}/{name} is put right")
    if not snapshot.ours:
        raise OperationFailed(f"no manager of {paths.root} runs: start rfmanager first")
    if snapshot.pause:
        raise OperationFailed(f"the managers are paused {pause_text(snapshot.pause)}: 'rfmanager resume' first")


def _check_disks(snapshot: Snapshot, target: Node | None) -> None:
    """Raise OperationFailed for a change of master that a full disk makes a loss.

    A replica of Redis 7.0 or later that could not write to its disk ends itself at the next write that its master sends
    (server.c: processCommand, "Replica was unable to write command to disk").
    """
    for server in snapshot.servers:
        unsaved = server.report.unsaved if server.report is not None and server.report.available else ""
        if unsaved and server.listed == "master":
            raise OperationFailed(
                f"the master {server.node} could not write {unsaved} to its disk (MISCONF). As a replica, Redis 7.0 "
                "and later abort at the next write (replica-ignore-disk-write-errors no, the default): that server "
                "would be gone. Free space on its disk and send it BGSAVE; or send it CONFIG SET "
                "replica-ignore-disk-write-errors yes, and repeat this with --force"
            )
        if unsaved and server.node == target:
            raise OperationFailed(
                f"{target} could not write {unsaved} to its disk: as the master it refuses all writes (MISCONF). Free "
                "space there and send it BGSAVE; or repeat this with --force"
            )


def _newest(entries: Mapping[str, Entry]) -> int:
    return max((entry.created for entry in entries.values()), default=0)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that was made.

    There is one at a time, and its receipt is written in the transaction that removes it. A receipt says which request
    it answers; for one that does not, written by an earlier release, it is the first of a switchover created after it.
    """

    store: TopologyStore
    paths: Paths
    created: int  # in the store's own order; 0 when it was answered before it could be read back
    before: int  # when the newest receipt of an earlier request was created

    async def receipt(self) -> Receipt:
        """Wait for it. Raises OperationFailed when the request vanished without one."""
        changed = asyncio.Event()
        watches = [self.store.watch(path, changed.set) for path in (self.paths.manual_failover, self.paths.history)]
        try:
            while True:
                changed.clear()
                # Cut off: the watches report as soon as the store is back.
                with contextlib.suppress(StoreUnavailable):
                    if not await self._waits():
                        return await self._answer()
                await changed.wait()
        finally:
            for end in watches:
                end()

    async def withdraw(self) -> None:
        """Take it back; nothing happens when it was answered meanwhile."""
        with contextlib.suppress(StoreError):
            entry = await self.store.read(self.paths.manual_failover)
            if entry and entry.created == self.created:
                await self.store.commit(Delete(self.paths.manual_failover, entry.version))

    async def give_up(self, timeout: float) -> Receipt:
        """Take it back and say so with OperationFailed, or return the receipt that came in the last moment."""
        try:
            if await self._waits():
                snapshot = await status(self.store, self.paths)
                await self.withdraw()
                raise OperationFailed(f"not done within {timeout:g} s: {_where_it_stands(snapshot)}")
            return await self._answer()
        except StoreUnavailable:
            raise OperationFailed(
                "lost ZooKeeper while waiting: the request may still be there, look with 'rfmanager status'"
            ) from None

    async def _waits(self) -> bool:
        entry = await self.store.read(self.paths.manual_failover)
        return entry is not None and entry.created == self.created

    async def _answer(self) -> Receipt:
        entries = sorted((await self.store.read_children(self.paths.history)).items())
        later = [Receipt.decode(entry.data) for _, entry in entries if entry.created > max(self.created, self.before)]
        planned = [receipt for receipt in later if receipt.kind is Kind.SWITCHOVER]
        known = [receipt for receipt in planned if self.created and receipt.request == self.created]
        unknown = [receipt for receipt in planned if not self.created or not receipt.request]
        if known or unknown:
            return (known or unknown)[0]
        raise OperationFailed(
            "the request vanished without a receipt: it was withdrawn, or a node manager of Ruby's redis_failover "
            "took it; look with 'rfmanager status'"
        )


def _where_it_stands(snapshot: Snapshot) -> str:
    phase = snapshot.topology.phase if snapshot.topology else None
    if phase in (Phase.DRAINING, Phase.PROMOTING):
        return f"the managers are in the middle of it (epoch {snapshot.epoch}, {phase.value}): see 'rfmanager status'"
    if snapshot.gem_leads:
        return f"{migration.gems_managers(snapshot)} lead now; the request is withdrawn"
    if not snapshot.primary:
        return "there is no primary manager; the request is withdrawn"
    said = f"phase {phase.value}" if phase else "no topology"
    return (
        f"the primary manager {snapshot.primary} has not begun it ({said}), its log says why; the request is withdrawn"
    )
