"""Carries out one step: commands to Redis servers, transactions in the store. Stops at once when tenure is lost.

`RF_FAILPOINT=<name>` makes the process kill itself with SIGKILL at that point, to test that another manager
finishes what it began: after-fence, after-seal, after-mark, after-promote, before-publish, after-publish, and for
planned changes after-drain, after-catch-up, after-demote. `RF_FAILPOINT=<name>:STOP` makes it freeze there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, replace
from enum import Enum
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from rfmanager.daemon.event_wait import all_done
from rfmanager.daemon.leadership import Tenure
from rfmanager.daemon.store_mirror import Mirror
from rfmanager.decision.fencing import most_disturbed
from rfmanager.decision.plan import (
    CatchUp,
    Demote,
    Dismiss,
    Policy,
    Progress,
    Promote,
    Record,
    Remember,
    Repoint,
    Seal,
    Stage,
    Step,
    Unpause,
)
from rfmanager.evidence.false_alarms import RETURN
from rfmanager.evidence.last_known import LastKnown, holding, is_ours
from rfmanager.monitoring.redis_admin import Credentials, RedisAdmin
from rfprotocol import clock
from rfprotocol.errors import NodeError, NodeRefused, StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store.interface import Change, Delete, Entry, Put, TopologyStore
from rfprotocol.topology.records import ProxyRecord, Receipt
from rfprotocol.topology.topology import Node, NodeReport, Phase
from rfprotocol.topology.znode_paths import Paths

Result = TypeVar("Result")

POLL = 0.002  # seconds between two looks at an offset
LINK_UP = 0.5  # seconds that a new replica's link is looked at closely
LINK_DOWN = 2.0  # seconds that a link may take to come back by itself: Redis tries once a second
MEND_EVERY = 5.0  # seconds between two looks at the reason why a link stays down
SETTLE = 0.1  # seconds that a replica is given to read what its master has sent before it is sealed
RENEWAL = 4.0  # seconds between two renewals of a record that does not change; the gem's clients allow 9
LONGEST_REFUSAL = 300  # characters of it that are told to operators


class Matter(Enum):
    """What a server can refuse, each until it obeys."""

    ROLE = "role"  # to be detached or promoted; the next epoch begins anew
    FOLLOW = "follow"  # to become a replica
    MASTERAUTH = "masterauth"  # to be told it
    LINK = "link"  # its link to its master does not come up


class NoTenure(Exception):
    """The lease of the tenure does not cover the action: nothing was done."""


def kill_when_asked(point: str) -> None:
    """The failpoint of real processes."""
    name, _, number = os.environ.get("RF_FAILPOINT", "").partition(":")
    if name == point:
        os.kill(os.getpid(), signal.Signals[f"SIG{number or 'KILL'}"])


class Executor:
    """Keeps the progress of the tenure and moves it with each step."""

    def __init__(
        self,
        store: TopologyStore,
        paths: Paths,
        mirror: Mirror,
        tenure: Tenure,
        admins: Mapping[Node, RedisAdmin],
        policy: Policy,
        *,
        changed: Callable[[Node], None],
        seen: Callable[[Node], NodeReport | None] = lambda node: None,
        log: FilteringBoundLogger,
        history_limit: int = 100,
        failpoint: Callable[[str], None] = kill_when_asked,
    ) -> None:
        self.progress = Progress()
        self._store = store
        self._paths = paths
        self._mirror = mirror
        self._tenure = tenure
        self._admins = admins
        self._policy = policy
        self._changed = changed  # a server's role or link changed: its samples are old
        self._seen = seen  # a server's last state
        self._log = log
        self._history_limit = history_limit
        self._failpoint = failpoint
        self._open_receipt: Receipt | None = None
        self._obsolete: dict[str, int] = {}  # versions of receipts to be overwritten
        self._background: set[asyncio.Task[None]] = set()
        self._pointing: dict[Node, asyncio.Task[None]] = {}
        self._refusals: dict[Node, dict[Matter, str]] = {}
        self._entrusted: set[tuple[Node, Node]] = set()  # replicas that were given what this master accepts, this epoch
        self._look_at_link: dict[Node, float] = {}  # when to ask why it is down
        self._down_since: dict[Node, float] = {}  # when it was first seen to be so
        self._renewed = float("-inf")  # when this tenure last wrote the record of the servers

    def begin(self, epoch: int) -> None:
        """Forget what was achieved in another epoch. To be called with the epoch of the record before deciding."""
        if epoch != self.progress.epoch:
            since, before = time.monotonic(), self.progress
            self._entrusted.clear()
            for said in self._refusals.values():
                said.pop(Matter.ROLE, None)
            self.progress = Progress(epoch=epoch, since=since, tenure=before.tenure, busy=before.busy)

    def look_at(self, proxies: Mapping[str, ProxyRecord]) -> None:
        """Note when each proxy acknowledged the epoch, for the receipt."""
        known, now = self.progress.acknowledged, time.time()
        new = {name: now for name, said in proxies.items() if said.epoch >= self.progress.epoch and name not in known}
        if new:
            self.progress = replace(self.progress, acknowledged={**known, **new})
            if len(known) + len(new) >= len(proxies):
                self._note("acknowledged")

    def forget(self) -> None:
        """A tenure begins or is over: what was achieved before proves nothing any more."""
        self.progress = Progress(tenure=time.monotonic())
        self._open_receipt = None
        self._renewed = float("-inf")
        self._refusals.clear()
        self._look_at_link.clear()
        self._down_since.clear()

    def refusal(self, node: Node) -> str:
        """What the server has refused to do the last time, in its own words; empty when it obeys."""
        return "; ".join(self._refusals.get(node, {}).values())

    async def stop(self) -> None:
        """Cancel what runs in the background."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def execute(self, step: Step) -> None:
        """Carry out one step. Failing servers are noted in the progress.

        Raises NoTenure, and what `TopologyStore.commit` raises.
        """
        match step:
            case Record():
                await self._record(step)
            case Dismiss():
                await self._dismiss(step)
            case Seal():
                await self._seal(step)
            case Promote():
                await self._promote(step)
            case CatchUp():
                await self._catch_up(step)
            case Demote():
                await self._demote(step)
            case Unpause():
                await self._unpause(step)
            case Repoint():
                self._repoint(step)
            case Remember():
                await self._remember(step.known)
            case _:
                pass

    # Records.

    async def _record(self, step: Record) -> None:
        self._require_tenure(self._store.session_timeout / 10)
        if step.name == "publish":
            self._failpoint("before-publish")
        mirror, topology, before = self._mirror, step.topology, self.progress
        try:
            await self._store.commit(*self._changes(step), fence=self._tenure.fence)
        except StoreError as error:
            mirror.spoil_all()
            if isinstance(error, StoreConflict):
                await self._find_obsolete(step)
            raise
        mirror.wrote(topology)
        self._renewed = time.monotonic()
        self.begin(topology.epoch)
        if step.known is not None:
            self._remembered(step.known)
        steps = ((_DONE[step.name], time.time()),) if step.name in _DONE else ()
        self.progress = replace(self.progress, steps=steps)
        self._report(step)
        if step.receipt:
            self._open_receipt = _ended_now(step.receipt)
            mirror.filed(self._open_receipt)
            self._in_background(self._trim_history())
        if topology.epoch != before.epoch:
            for node in topology.nodes:
                self._changed(node)
        self._failpoint(f"after-{step.name}")

    async def renew(self) -> float:
        """Write the record again as it is, if that is due; returns the seconds until it is due again.

        Clients of the gem take its silence for a dead manager: after 9 s without an event of `nodes`
        (`ZNODE_UPDATE_TIMEOUT` in its client.rb) each of their commands reads the record first.

        Raises NoTenure, and what `TopologyStore.commit` raises.
        """
        entry, topology = self._mirror.topology_entry, self._mirror.topology
        if entry is None or topology is None or topology.is_gems:
            return RENEWAL
        if (rest := self._renewed + RENEWAL - time.monotonic()) > 0:
            return rest
        self._require_tenure(self._store.session_timeout / 10)
        try:
            await self._store.commit(Put(self._paths.nodes, entry.data, entry.version), fence=self._tenure.fence)
        except StoreError:
            self._mirror.spoil_all()
            raise
        self._mirror.renewed()
        self._renewed = time.monotonic()
        return RENEWAL

    async def _dismiss(self, step: Dismiss) -> None:
        self._require_tenure(self._store.session_timeout / 10)
        mirror, receipt = self._mirror, _ended_now(step.receipt)
        request, path = mirror.request_entry, self._paths.receipt(receipt.epoch)
        changes: list[Change] = [Put(path, receipt.encode())]
        if request is not None:
            changes.append(Delete(self._paths.manual_failover, request.version))
        try:
            await self._store.commit(*changes, fence=self._tenure.fence)
        finally:
            mirror.spoil(self._paths.manual_failover)
        mirror.filed(receipt)
        self._in_background(self._trim_history())
        self._log.warning("dismissed a request for another master", cause=receipt.cause, epoch=receipt.epoch)

    def _changes(self, step: Record) -> list[Change]:
        """What is written in one transaction."""
        mirror = self._mirror
        version = mirror.topology_entry.version if mirror.topology_entry else None
        changes: list[Change] = [Put(self._paths.nodes, step.topology.encode(), version)]
        if step.receipt:
            path = self._paths.receipt(step.receipt.epoch)
            changes.append(Put(path, step.receipt.encode(), self._obsolete.get(path)))
        if step.known is not None:
            changes.append(self._put_known(step.known))
        if step.settles and mirror.request_entry is not None and _answers(step, mirror.request_entry):
            changes.append(Delete(self._paths.manual_failover, mirror.request_entry.version))
        return changes

    def _put_known(self, known: LastKnown) -> Put:
        return Put(self._paths.last_known, known.encode(), self._mirror.known_version)

    def _remembered(self, known: LastKnown) -> None:
        self._mirror.remembered(known)
        self.progress = replace(self.progress, remembered=time.monotonic())

    async def _remember(self, known: LastKnown) -> None:
        self._require_tenure(self._store.session_timeout / 10)
        try:
            await self._store.commit(self._put_known(known), fence=self._tenure.fence)
        except StoreError:
            self._mirror.spoil_all()
            raise
        self._remembered(known)

    async def _find_obsolete(self, step: Record) -> None:
        """A receipt of the same epoch, left by a record that was deleted, must not be in the way."""
        if step.receipt:
            path = self._paths.receipt(step.receipt.epoch)
            if entry := await self._store.read(path):
                self._obsolete[path] = entry.version

    def _report(self, step: Record) -> None:
        topology, receipt = step.topology, step.receipt
        if step.name == "lists":
            readable = [str(node) for node in topology.replicas]
            self._log.info("replicas changed", epoch=topology.epoch, readable=readable)
        elif receipt is None:
            change = topology.change
            self._log.warning(
                _EVENTS.get(step.name, step.name),
                epoch=topology.epoch,
                phase=topology.phase.value,
                master=_text(topology.master),
                former=_text(change.former if change else None),
                target=_text(change.target if change else None),
                cause=change.cause if change else None,
            )
        else:
            self._log.warning(
                _EVENTS.get(step.name, step.name),
                epoch=topology.epoch,
                master=_text(topology.master),
                former=_text(receipt.former),
                cause=receipt.cause,
                seconds=round(receipt.duration, 4),
            )

    async def complete_receipt(self) -> None:
        """Add what the most disturbed proxies say of the last change, when all of them have seen its end."""
        receipt, proxies, topology = self._open_receipt, self._mirror.proxies, self._mirror.topology
        if topology is None or topology.phase is not Phase.SERVING:
            return  # there is something more urgent
        if receipt is None or any(record.epoch < receipt.epoch for record in proxies.values()):
            return
        self._open_receipt = None
        if not proxies:
            return
        said = {name: asdict(record) for name, record in most_disturbed(proxies).items()}
        path = self._paths.receipt(receipt.epoch)
        try:
            entry = await self._store.read(path)
            complete = replace(receipt, proxies=said)
            put = Put(path, complete.encode(), entry.version if entry else None)
            await self._store.commit(put, fence=self._tenure.fence)
            self._mirror.filed(complete)
        except StoreUnavailable:
            self._open_receipt = receipt  # later; whatever else is wrong with it must not be met for ever
            raise

    async def note_returns(self, seen: Mapping[Node, NodeReport], wall: float) -> None:
        """Write into the receipts of the last moments that the former master was alive, if its process answers again.

        In the store, so that the next primary manager knows it, too.
        """
        for receipt in list(self._mirror.receipts.values()):
            report = seen.get(receipt.former) if receipt.former and receipt.lost else None
            after = max(0.0, wall - receipt.ended)
            if report is None or receipt.false_alarm or after > RETURN:
                continue
            if not receipt.run_id or not report.available or report.run_id != receipt.run_id:
                continue
            noted = replace(receipt, returned=round(after, 3))
            self._mirror.filed(noted)  # before it is written: a store that refuses it must not be asked for ever
            path = self._paths.receipt(receipt.epoch)
            entry = await self._store.read(path)
            if entry is not None:  # it may have been trimmed
                await self._store.commit(Put(path, noted.encode(), entry.version), fence=self._tenure.fence)
            if self._open_receipt is not None and self._open_receipt.epoch == receipt.epoch:
                self._open_receipt = replace(self._open_receipt, returned=noted.returned)
            self._log.warning(
                "false alarm: the former master was alive",
                epoch=receipt.epoch,
                node=str(receipt.former),
                condition=receipt.lost,
                seconds=noted.returned,
            )

    async def _trim_history(self) -> None:
        receipts = sorted(await self._store.read_children(self._paths.history))
        for name in receipts[: -self._history_limit]:
            await self._store.commit(Delete(f"{self._paths.history}/{name}"), fence=self._tenure.fence)

    # Unplanned changes.

    async def _seal(self, step: Seal) -> None:
        epoch = self.progress.epoch
        if all(said.epoch >= epoch for said in self._mirror.proxies.values()):
            self._note("acknowledged")  # not so when the master restarted: its replicas are detached at once
        await self._halt(step.nodes)
        await all_done([asyncio.ensure_future(self._seal_one(node, epoch)) for node in step.nodes])
        self._note("sealed")
        self._failpoint("after-seal")

    async def _halt(self, nodes: Iterable[Node]) -> None:
        """No command of an earlier epoch may reach these servers any more."""
        tasks = [task for node in nodes if (task := self._pointing.pop(node, None))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _seal_one(self, node: Node, epoch: int) -> None:
        try:
            await self._settled(node)
            after = await self._command(node, RedisAdmin.seal)
            if after.role != "slave" or after.follows is not None:
                raise NodeRefused(f"{node} was pointed to {after.follows or 'nobody'} by somebody else", "ROLE")
        except NodeError as error:
            self._log.warning("cannot detach a server from its master", epoch=epoch, node=str(node), error=str(error))
            self._failed(node)
            self._refused(node, Matter.ROLE, "cannot be detached from its master", error)
            return
        # A full transfer that had only begun is over and has changed nothing; else the offset says so.
        self.progress = replace(self.progress, sealed={**self.progress.sealed, node: after})
        self._log.info("sealed", epoch=epoch, node=str(node), offset=after.offset)

    async def _settled(self, node: Node) -> None:
        """Sealing throws away what the replica has received but not read. Two equal offsets prove that there is none:
        between two answers Redis reads from every connection that has data."""
        admin, deadline = self._admins[node], time.monotonic() + SETTLE
        report = await admin.probe()
        self._require_ours(report)
        while report.role == "slave" and report.link_up and time.monotonic() < deadline:
            last = report
            await asyncio.sleep(POLL)
            report = await admin.probe()
            if report.offset == last.offset:
                break

    async def _promote(self, step: Promote) -> None:
        node = step.node
        await self._halt((node,))
        events = self._inherited_events(node)
        try:
            promoted = await self._command(node, lambda admin: RedisAdmin.promote(admin, events))
        except NodeError as error:
            self._log.warning("cannot promote", epoch=self.progress.epoch, node=str(node), error=str(error))
            self._failed(node, trouble=f"{node} could not be promoted: {error}")
            self._refused(node, Matter.ROLE, "cannot be promoted", error)
            return
        self.progress = replace(self.progress, promoted=promoted)
        self._note("promoted")
        self._failpoint("after-promote")
        if events is not None:
            done = promoted.events == events
            say = self._log.info if done else self._log.warning
            what = "took over notify-keyspace-events" if done else "cannot take over notify-keyspace-events"
            say(what, epoch=self.progress.epoch, node=str(node), value=events)
            if done:
                self._note("took over notify-keyspace-events")

    def _inherited_events(self, node: Node) -> str | None:
        """The notify-keyspace-events of the former master, if the next one has others.

        It is a setting of one server, and clients that listen have a master that has it. The other servers keep their
        own: they may have listeners of their own, and events that nobody listens to cost time.
        """
        topology = self._mirror.topology
        change = topology.change if topology is not None else None
        former = self._seen(change.former) if change is not None and change.former is not None else None
        if topology is None or change is None or former is None:
            return None
        process = topology.run_id if topology.phase is Phase.DRAINING else change.former_run_id
        if process and former.run_id != process:
            return None  # it was started again, and has what its file says
        report = self._seen(node)
        return None if report is not None and report.events == former.events else former.events

    # Planned changes.

    async def _catch_up(self, step: CatchUp) -> None:
        self._note("acknowledged")
        await self._halt((step.former, step.target))
        limit = self._policy.catch_up_timeout
        former, target = self._admins[step.former], self._admins[step.target]
        try:
            async with asyncio.timeout(limit):
                await self._entrust(step.former, step.target)  # before its writes are paused
                # Long enough for everything up to the demotion; it ends by itself if all managers die meanwhile.
                await self._command(step.former, lambda admin: admin.pause_writes(limit + 1.0))
                last = await former.probe()
                known = self._mirror.topology.run_id if self._mirror.topology else ""
                if last.role != "master" or (known and last.run_id != known):
                    raise NodeRefused(f"{step.former} is not the master any more that it was", "ROLE")
                await _poll(target, lambda report: report.offset >= last.offset)
        except TimeoutError:
            why = f"{step.target} did not catch up with {step.former} within {limit:g} s"
            self.progress = replace(self.progress, trouble=why)
        except NodeError as error:
            self.progress = replace(self.progress, trouble=f"while {step.target} caught up: {error}")
        else:
            self.progress = replace(self.progress, stage=Stage.CAUGHT_UP)
            self._note("caught up")
            self._failpoint("after-catch-up")

    async def _demote(self, step: Demote) -> None:
        try:
            if (step.former, step.target) not in self._entrusted:
                await self._entrust(step.former, step.target)
            await self._command(step.former, lambda admin: admin.demote_and_unpause(step.target))
        except NodeError as error:
            # No proxy writes to it any more; it is made a replica when it can be reached again.
            self._log.warning("cannot demote", epoch=self.progress.epoch, node=str(step.former), error=str(error))
            self._refused(step.former, Matter.FOLLOW, f"cannot be made a replica of {step.target}", error)
        else:
            self._in_background(self._linked(step.former))
        self.progress = replace(self.progress, stage=Stage.DEMOTED)
        self._note("demoted")
        self._failpoint("after-demote")

    async def _unpause(self, step: Unpause) -> None:
        try:
            await self._command(step.node, RedisAdmin.unpause)
        except NodeError as error:
            self._log.warning("cannot unpause", epoch=self.progress.epoch, node=str(step.node), error=str(error))
        self.progress = replace(self.progress, stage=Stage.RELEASED)

    # Upkeep.

    def _repoint(self, step: Repoint) -> None:
        self._require_tenure(self._admins[step.master].timeout if step.master in self._admins else 1.0)
        self.progress = replace(self.progress, busy=self.progress.busy | set(step.nodes))
        for node in step.nodes:
            self._pointing[node] = self._in_background(self._repoint_one(node, step.master))

    async def _repoint_one(self, node: Node, master: Node) -> None:
        epoch = self.progress.epoch
        try:
            self._require_ours(await self._admins[node].probe())
            await self._entrust(node, master)
            self._require_ours(await self._admins[node].probe())  # right before the command: that took a while
            await self._command(node, lambda admin: admin.replicate(master))
        except (NodeError, NoTenure) as error:
            self._log.warning("cannot make it a replica", epoch=epoch, node=str(node), error=str(error))
            self._failed(node)
            if isinstance(error, NodeError):
                self._refused(node, Matter.FOLLOW, f"cannot be made a replica of {master}", error)
        else:
            self._log.info("made a replica", epoch=epoch, node=str(node), master=str(master))
            self._in_background(self._end_adoption(node))
            self._refusals.get(node, {}).pop(Matter.FOLLOW, None)
            await self._linked(node)
        finally:
            self.progress = replace(self.progress, busy=self.progress.busy - {node})

    def _require_ours(self, found: NodeReport) -> None:
        """Another process may have come up at the address since it was looked at, with data of its own."""
        mirror, node = self._mirror, found.node
        named = mirror.request is not None and mirror.request.target == node
        allowed = named or mirror.adopted.get(node) == found.run_id
        if mirror.known is not None and not allowed and not is_ours(mirror.known, mirror.topology, found):
            raise NodeRefused(f"{node} {holding(found)}", "FOREIGN")

    async def _end_adoption(self, node: Node) -> None:
        """The data that could be overwritten is about to be: the permission is used up."""
        path = f"{self._paths.adopted}/{node}"
        if node in self._mirror.adopted and (entry := await self._store.read(path)) is not None:
            await self._store.commit(Delete(path, entry.version), fence=self._tenure.fence)

    async def _linked(self, node: Node) -> None:
        """A resumed link is up after milliseconds: see it then, so that the replica is read from soon."""
        with contextlib.suppress(TimeoutError, NodeError):
            async with asyncio.timeout(LINK_UP):
                await _poll(self._admins[node], lambda report: report.link_up)
        self._changed(node)

    # What replicas tell their masters. Passwords are changed while servers run, and in any order.

    async def _entrust(self, node: Node, master: Node, *, insist: bool = False) -> Credentials | None:
        """Let a replica say to its master what that has accepted just now; never what a server has refused.

        What it is configured to say stays if its master accepts that, too; unless `insist`: one may be let in and have
        no right to copy. Returns what the master accepts of the managers; None when that is nothing. Raises
        NodeUnreachable and NoTenure for the replica's sake; that it refuses is tolerated, as it may be configured.
        """
        try:
            accepted = await self._admins[master].log_in()
        except NodeError as error:
            self._log.warning(
                "masterauth is left as it is: the master accepts no password of the managers",
                epoch=self.progress.epoch,
                node=str(node),
                error=str(error),
            )
            return None
        if accepted.password is not None and not insist and await self._is_let_in(node, master, accepted):
            self._entrusted.add((node, master))
            return accepted
        try:
            await self._command(node, lambda admin: admin.set_master_credentials(accepted))
        except NodeRefused as error:
            self._refused(node, Matter.MASTERAUTH, "cannot be told its masterauth", error)
        else:
            self._entrusted.add((node, master))
            self._refusals.get(node, {}).pop(Matter.MASTERAUTH, None)
        return accepted

    async def _is_let_in(self, node: Node, master: Node, accepted: Credentials) -> bool:
        """Whether the master lets the replica in as that is configured."""
        said = await self._masterauth(node)
        if said is None or said.password is None:
            return False
        if said == accepted:
            return True
        try:
            return await self._admins[master].admits(said)
        except NodeError:
            return False

    def tend(self, seen: Mapping[Node, NodeReport], now: float) -> None:
        """Look after links between replicas and their master that stay down. `seen`: the own reports, at `now`."""
        topology = self._mirror.topology
        if topology is None or topology.phase is not Phase.SERVING or topology.master is None or self._mirror.paused:
            return
        at_master = seen.get(topology.master)
        serves = at_master is not None and at_master.available and at_master.role == "master"
        for node, report in seen.items():
            is_replica = report.available and report.role == "slave" and report.follows == topology.master
            if node == topology.master or (is_replica and report.link_up):
                self._refusals.pop(node, None)  # it is what it should be
            if not (serves and is_replica) or report.link_up or report.syncing:
                self._look_at_link.pop(node, None)
                self._down_since.pop(node, None)
                self._refusals.get(node, {}).pop(Matter.LINK, None)
            elif now >= self._look_at_link.setdefault(node, now + LINK_DOWN) and node not in self.progress.busy:
                self._look_at_link[node] = now + MEND_EVERY
                self._down_since.setdefault(node, now - LINK_DOWN)
                again = Matter.LINK in self._refusals.get(node, {})
                self._in_background(self._mend(node, topology.master, insist=again))

    async def _mend(self, node: Node, master: Node, *, insist: bool) -> None:
        """The link of a replica stays down: mend what can be, and find out the reason."""
        try:
            before = await self._masterauth(node)
            accepted = await self._entrust(node, master, insist=insist)
            after = await self._masterauth(node)
            if after != before and after is not None and after == accepted:
                self._log.info("set masterauth of a replica", node=str(node), master=str(master))
                return  # the replica tries it within a second
            why = await self._why_down(after, master)
            why += "" if accepted else "; the managers' own is refused there, too"
        except (NodeError, NoTenure) as error:
            self._log.warning("cannot mend a link", node=str(node), master=str(master), error=str(error))
            return
        if (since := self._down_since.get(node)) is not None:  # else it came back meanwhile
            seconds = round(time.monotonic() - since)
            said = f"its link to {master} has been down for {seconds} s: {why}"
            self._refusals.setdefault(node, {})[Matter.LINK] = said
            self._log.warning("link stays down", node=str(node), master=str(master), error=why)

    async def _masterauth(self, node: Node) -> Credentials | None:
        """What the replica is configured to say; None when it does not tell."""
        try:
            return await self._admins[node].master_credentials()
        except NodeRefused:
            return None

    async def _why_down(self, said: Credentials | None, master: Node) -> str:
        if said is None:
            return "the managers may not ask it for its masterauth (CONFIG GET), its own log says why"
        if await self._admins[master].admits(said):
            return "its master lets it in, its own log says why"
        return "its master refuses its password" if said.password else "it has no masterauth for its master's password"

    # What all have in common.

    async def _command(self, node: Node, command: Callable[[RedisAdmin], Awaitable[Result]]) -> Result:
        admin = self._admins[node]
        self._require_tenure(admin.timeout)
        result = await command(admin)
        self.progress = replace(self.progress, acted={**self.progress.acted, node: time.monotonic()})
        self._changed(node)
        return result

    def _require_tenure(self, seconds: float) -> None:
        if not self._tenure.covers(clock.now(), seconds):
            raise NoTenure("the tenure as primary manager is not certain")

    def _failed(self, node: Node, trouble: str = "") -> None:
        failed = {**self.progress.failed, node: time.monotonic()}
        self.progress = replace(self.progress, failed=failed, trouble=self.progress.trouble or trouble)
        self._changed(node)

    def _refused(self, node: Node, matter: Matter, what: str, error: NodeError) -> None:
        """Keep its words for operators."""
        said = str(error).removeprefix(f"{node} ")
        self._refusals.setdefault(node, {})[matter] = f"{what}: {said}"[:LONGEST_REFUSAL]

    def _note(self, step: str) -> None:
        if step not in dict(self.progress.steps):
            self.progress = replace(self.progress, steps=(*self.progress.steps, (step, time.time())))

    def _in_background(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except StoreError as error:
                self._log.warning("a record that is not needed any more was not removed", error=str(error))
            except Exception as error:
                self._log.exception("a task of the manager has died: it goes on without it", error=repr(error))

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


_DONE = {"fence": "fenced", "drain": "draining", "mark": "chosen"}
_EVENTS = {
    "settle": "found the master",
    "restore": "wrote the record again, which somebody had overwritten or removed",
    "fence": "withdrew the master",
    "mark": "chose the next master",
    "publish": "published a new master",
    "drain": "began a planned change of master",
    "abort": "gave up a planned change of master",
    "refuse": "refused a planned change of master",
}


def _ended_now(receipt: Receipt) -> Receipt:
    """It was written with its last step, so the time that writing took was not known yet."""
    return replace(receipt, steps=(*receipt.steps[:-1], (receipt.steps[-1][0], time.time())))


def _answers(step: Record, request: Entry) -> bool:
    """The request that the step is for may have been withdrawn, and another one made since."""
    return step.receipt is None or step.receipt.request in (0, request.created)


async def _poll(admin: RedisAdmin, satisfied: Callable[[NodeReport], bool]) -> None:
    """Ask again and again; the caller bounds it in time."""
    while True:
        if satisfied(await admin.probe()):
            return
        await asyncio.sleep(POLL)


def _text(node: Node | None) -> str | None:
    return str(node) if node else None
