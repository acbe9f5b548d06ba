"""The proxy's place in the store: registered, informed, and sure of its lease.

    announce proxies/<id>  ->  read nodes  ->  prove alive, renew the lease  ->  read nodes  -> ...

The order carries the promise. A manager that withdraws a master looks at `proxies` after it has written that. Since a
proxy is registered before it reads the topology it acts upon, the manager finds every proxy that may still act
on the older one, and waits for it. And since the lease is only renewed within the session of the registration, a
proxy whose registration is gone stops in time.

What is announced is never greater than the epoch that the proxy acts upon while it may write. When a smaller epoch is
to be followed (the record was made anew, or the gem's managers lead), the greater one is taken back before the record
is read that is followed: a manager that finds it may withdraw the master in an epoch between the two.

Needs asyncio: it waits for the store, and keeps time between the proofs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import NoReturn

from rfprotocol.backoff import Backoff
from rfprotocol.errors import RecordError, StoreError
from rfprotocol.store.interface import Entry, StoreState, TopologyStore
from rfprotocol.topology.records import ProxyRecord
from rfprotocol.topology.topology import Topology
from rfprotocol.topology.znode_paths import Paths
from rfproxy.builtin.info import FENCED, NOT_FENCED
from rfproxy.runtime.record_precedence import GEM_STAYS, Precedence, Verdict, drained, withdrawn
from rfproxy.runtime.server import Server
from rfproxy.runtime.topology_cache import CacheWriter, TopologyCache

VERSION = version("redis-failover-proxy")
PROOFS = 6
"""Proofs of life per session timeout; the lease survives a lost one or two."""
PATIENCE = 1.0
"""Seconds at the start that the store is waited for before the topology of the last run is used."""
REFRESH = 5.0
"""Seconds between two announcements that only tell operators how many clients there are."""
SAVE_TIMEOUT = 1.0
"""Seconds at the end that the disk may take for the last topology."""
REMINDER = 30.0
"""Seconds between two complaints that the store is away."""


class Membership:
    """Keeps one proxy registered under `name` and its router informed."""

    def __init__(
        self, server: Server, store: TopologyStore, paths: Paths, name: str, cache: TopologyCache | None
    ) -> None:
        """`cache`: what to start from while the store is away; None for a store that cannot be."""
        self._server = server
        self._store = store
        self._paths = paths
        self._path = paths.proxy(name)
        self._cache = cache
        self._cache_writer = CacheWriter(cache, self._in_thread) if cache else None
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache")
        self._saving: asyncio.Task[None] | None = None
        self._address = ""
        self._news = asyncio.Event()  # something in the store may have changed
        self._announcing = asyncio.Lock()
        self._known: Entry | None = None  # the record in force, if it is what was read last
        self._created: int | None = None  # of the record that was followed last, until it is deleted
        self._absent = False  # there is no record
        self._precedence = Precedence()
        self._told: object = None  # what was complained about last, and how
        self._told_clients = 0
        self._told_account = ""
        self._announced_at = float("-inf")
        self._lapse: asyncio.TimerHandle | None = None
        self._attempts = self._backoff()
        self._tasks: list[asyncio.Task[NoReturn]] = []
        self._acknowledgements: set[asyncio.Task[None]] = set()
        self.informed = asyncio.Event()
        """Set when a topology is in force."""
        self.sure = asyncio.Event()
        """Set when a lease has been proved."""

    async def start(self, address: str) -> None:
        """Connect, register and follow, in the background. `address` is what other people read in `status`."""
        self._address = address
        self._server.on_acknowledge = self._acknowledge
        self._server.on_busy = self._tell
        self._store.subscribe(self._state_changed)
        self._store.watch(self._paths.nodes, self._news.set)
        await self._store.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._remind())]
        loop.call_later(PATIENCE, self._recall)

    async def stop(self) -> None:
        """Leave: the managers wait for this proxy no more."""
        tasks, self._tasks = [*self._tasks, *self._acknowledgements], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._lapse is not None:
            self._lapse.cancel()
        if self._saving is not None:
            await asyncio.wait([self._saving], timeout=SAVE_TIMEOUT)
            self._saving.cancel()
        self._disk.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(StoreError):
            await self._store.withdraw(self._path)
        await self._store.close()

    async def _follow(self) -> NoReturn:
        while True:
            try:
                await self._belong()
            except StoreError as error:
                self._server.log.warning("store_unavailable", error=str(error), epoch=self._server.router.epoch)
            except Exception as error:  # a proxy that no longer follows the topology would be worse than any of these
                self._server.log.warning("membership_failed", error=repr(error), epoch=self._server.router.epoch)
            now = self._server.now()
            await self._wait(self._attempts.failed(now) - now)

    def _backoff(self) -> Backoff:
        """The pauses between attempts that failed: the store may be back before the lease runs out."""
        proof = self._store.session_timeout / PROOFS
        return Backoff(proof / 2, 2 * proof)

    async def _remind(self) -> NoReturn:
        """Say it when the store is away for long, and say it again."""
        while True:
            await asyncio.sleep(PATIENCE)
            if self._store.state is not StoreState.CONNECTED:
                known = "the last known servers are used" if self.informed.is_set() else "commands wait"
                self._server.log.warning(
                    "waiting for ZooKeeper",
                    why=f"it {self._store.trouble or 'does not answer'}",
                    meanwhile=known,
                    epoch=self._server.router.epoch,
                )
                await asyncio.sleep(REMINDER)

    async def _belong(self) -> None:
        """Register in one session after the other, until there is none."""
        while self._store.state is StoreState.CONNECTED:
            await self._stay(self._store.session)

    async def _stay(self, session: int) -> None:
        """Register, follow the topology, and prove that the session lives for as long as it does."""
        await self._announce()
        self._precedence = Precedence()
        proof_due = float("-inf")
        while self._store.session == session:
            await self._read()
            if (sent := self._server.now()) >= proof_due:
                await self._store.prove_alive()
                own = await self._store.read(self._path)
                if self._store.session != session:
                    return
                if own is None or own.owner != session:
                    await self._announce()  # somebody has removed it: a fence would not wait for this proxy
                    continue
                self._renew(sent)
                self._attempts.succeeded()
                proof_due = sent + self._store.session_timeout / PROOFS
                if self._outdated and sent >= self._announced_at + REFRESH:
                    await self._announce()
            await self._wait(min(proof_due, self._precedence.due) - self._server.now())

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()  # what is looked at next is newer than the news

    async def _read(self) -> None:
        entry = await self._store.read(self._paths.nodes)
        self._absent = entry is None
        if entry is None:
            self._gone()
            return
        if entry == self._known:  # with its data: a store that was wiped counts records and versions from the beginning
            return
        try:
            topology = Topology.decode(entry.data)
        except RecordError as error:
            self._precedence.forget()
            self._complain(entry.data, f"{error}; the last good one stays in force")
            return
        self._note_leaders(topology)
        router = self._server.router
        remade = entry.created != self._created
        verdict = self._precedence.judge(topology, router.topology, remade=remade, now=self._server.now())
        if verdict in (Verdict.KEEP, Verdict.WITHDRAW):
            self._known = None
            await self._doubt(topology, verdict)
            return
        if verdict is Verdict.FOLLOW and self._must_disavow(topology, remade=remade):
            router.disavow()
            await self._announce()
            await self._read()  # what is followed is read after the managers can know
            return
        self._known, self._created, self._told = entry, entry.created, None
        self._precedence.forget()
        if verdict is Verdict.FOLLOW:
            self._follow_topology(topology)
        router.avow()
        self.informed.set()

    def _must_disavow(self, topology: Topology, *, remade: bool) -> bool:
        """Whether a manager could take what was acknowledged of another record for an answer to one like this."""
        router = self._server.router
        other = remade or topology.epoch < router.epoch
        return other and max(topology.epoch, 1) <= router.acknowledged

    def _follow_topology(self, topology: Topology) -> None:
        self._server.apply(topology)
        if self._cache_writer and self._cache_writer.keep(
            topology
        ):  # not now: writes that were held are sent at the end of this turn
            self._saving = asyncio.get_running_loop().create_task(self._cache_writer.write())

    def _gone(self) -> None:
        """There is no record: nobody says that the last known master still is one."""
        self._known = self._created = None
        self._precedence.forget()
        if self._server.router.topology is None:
            self._complain(None, "there is no record of the servers yet: a manager makes it")
            return
        self._put(drained)
        self._server.router.avow()
        self._complain(None, "the record of the servers was deleted: writes wait until there is one, reads go on")

    async def _doubt(self, topology: Topology, verdict: Verdict) -> None:
        """A record is not followed, and what is in force may be out of date."""
        epoch = self._server.router.epoch
        if verdict is Verdict.WITHDRAW:
            self._put(withdrawn)
        self._server.router.avow()
        if topology.is_gems:
            coming = f"it is followed when rfmanager has not taken it back within {GEM_STAYS:g} s"
            problem = f"the record is one of Ruby's redis_failover, this proxy acts on epoch {epoch}: {coming}"
        else:
            coming = "a manager publishes it anew"
            problem = f"the record went back to epoch {topology.epoch}, this proxy acts on epoch {epoch}: {coming}"
        if verdict is Verdict.WITHDRAW:
            problem += "; until then writes wait"
        if self._complain(topology, problem):
            await self._announce()  # a store that was restored may hold an older word of this proxy

    def _put(self, masterless: Callable[[Topology], Topology]) -> None:
        """Send nothing more to the master of the epoch in force; what was acknowledged is still true."""
        topology = self._server.router.topology
        if topology is not None and (without := masterless(topology)) != topology:
            self._server.apply(without)

    def _note_leaders(self, topology: Topology) -> None:
        """Say when the gem's managers begin to lead, and when they end. Without a master nothing is at stake."""
        router = self._server.router
        if topology.is_gems and topology.master is None:  # also our first record
            return
        if topology.is_gems and not router.unfenced:
            self._server.log.warning("not_fenced", path=self._paths.nodes, error=NOT_FENCED, epoch=topology.epoch)
        elif router.unfenced and not topology.is_gems:
            self._server.log.info("fenced", path=self._paths.nodes, epoch=topology.epoch, why=FENCED)
        router.unfenced = topology.is_gems

    async def _in_thread(self, function: Callable[..., object], *arguments: object) -> object:
        # A thread that belongs to nobody who would wait for it at the end: a disk may take for ever.
        return await asyncio.get_running_loop().run_in_executor(self._disk, partial(function, *arguments))

    def _complain(self, seen: object, problem: str) -> bool:
        """Once per content, which the gem writes every 5 s anew. Returns whether it was said now."""
        if (seen, problem) == self._told:
            return False
        self._told = (seen, problem)
        self._server.log.warning("topology_unusable", path=self._paths.nodes, error=problem)
        return True

    def _recall(self) -> None:
        """The store is not there, or empty: start from what was known when it last was. Writes wait for its word."""
        if self._cache is None or self._server.router.topology is not None:
            return
        if (topology := self._cache.load()) is not None:
            self._server.log.warning("topology_from_cache", path=str(self._cache.path), epoch=topology.epoch)
            self._note_leaders(topology)
            self._server.apply(withdrawn(topology) if self._absent else topology)
            self.informed.set()

    # --- the lease

    def _renew(self, sent: float) -> None:
        server = self._server
        was_valid = server.lease.valid(server.now())
        server.lease.renew(sent, self._store.session_timeout)
        self.sure.set()
        if self._lapse is not None:
            self._lapse.cancel()
        self._lapse = asyncio.get_running_loop().call_later(server.lease.until - server.now(), self._lapsed)
        if not was_valid:
            server.log.info("lease_valid", epoch=server.router.epoch)
            server.router.resume(server.now())

    def _lapsed(self) -> None:
        server = self._server
        if server.lease.valid(server.now()):  # renewed meanwhile, or the timer rang a hair too early
            rest = server.lease.until - server.now() + 0.001
            self._lapse = asyncio.get_running_loop().call_later(rest, self._lapsed)
        else:
            server.log.warning("lease_lapsed", epoch=server.router.epoch, error="no word from the store: writes wait")
            server.router.lapse(server.now())

    def _state_changed(self, state: StoreState) -> None:
        if not self._tasks:  # not started, or stopped
            return
        self._news.set()
        self._server.log.info("store", state=state.value, epoch=self._server.router.epoch)
        if state is StoreState.LOST:
            self._server.lease.revoke()
            self._lapsed()

    # --- acknowledgements

    def _acknowledge(self, epoch: int) -> None:
        self._tell()

    def _tell(self) -> None:
        """Announce what has changed, in the background."""
        task = asyncio.get_running_loop().create_task(self._announce_until_known())
        self._acknowledgements.add(task)
        task.add_done_callback(self._acknowledgements.discard)

    async def _announce_until_known(self) -> None:
        """A change of master waits for this: a request that was lost is repeated. The next session announces anew."""
        session, attempts = self._store.session, self._backoff()
        while self._store.session == session:
            try:
                await self._announce()
            except StoreError:
                now = self._server.now()
                await asyncio.sleep(attempts.failed(now) - now)
            else:
                return

    @property
    def _outdated(self) -> bool:
        """Whether operators should be told something new."""
        server = self._server
        return self._told_clients != server.stats.clients or self._told_account != server.router.reception.problems

    async def _announce(self) -> None:
        async with self._announcing:
            stats, router = self._server.stats, self._server.router
            record = ProxyRecord(
                epoch=max(router.acknowledged, 0),
                address=self._address,
                version=VERSION,
                clients=stats.clients,
                held=stats.change.held,
                replayed=stats.change.replayed,
                uncertain=stats.change.uncertain,
                longest_wait=round(stats.change.longest_wait, 6),
                account=router.reception.problems,
                busy={str(node): what for node, what in router.watch.busy.items()},
            )
            self._told_clients, self._told_account = record.clients, record.account
            self._announced_at = self._server.now()
            await self._store.announce(self._path, record.encode())
