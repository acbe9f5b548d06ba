"""The manager's copy of what the store holds: re-read where it changed, decoded, bad records said once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from rfmanager.evidence.last_known import LastKnown
from rfprotocol.errors import ConfigError, RecordError
from rfprotocol.store.interface import Entry, TopologyStore
from rfprotocol.topology.records import ManualRequest, ProxyRecord, Receipt
from rfprotocol.topology.topology import ManagerReport, Node, Topology
from rfprotocol.topology.znode_paths import Paths

NEVER_ACKNOWLEDGED = ProxyRecord(epoch=-1)
"""A proxy whose record cannot be read has acknowledged nothing."""

_ALL = ""
"""Stands for every record below a path, where names of records are meant."""

Decoded = TypeVar("Decoded")


class Mirror:
    """Calls `changed` when something may be worth reading again with `refresh`.

    A standby watches the record of the servers only; the primary watches every record, from `attend` to `look_on`.
    In a large group most of what changes are the records of proxies: a standby is told of them while it has a reason.
    """

    def __init__(
        self, store: TopologyStore, paths: Paths, changed: Callable[[], None], log: FilteringBoundLogger
    ) -> None:
        self.topology: Topology | None = None
        self.topology_entry: Entry | None = None
        self.last_epoch = 0  # the newest that a receipt speaks of, also one that cannot be read
        self.in_force: Topology | None = None  # the last one of these managers, whatever became of the record
        self.readable = True  # False: `nodes` holds something else than a topology, nobody may touch it
        self.reports: Mapping[str, ManagerReport] = {}
        self.proxies: Mapping[str, ProxyRecord] = {}
        self.receipts: Mapping[str, Receipt] = {}  # by the names of their records
        self.request: ManualRequest | None = None
        self.request_entry: Entry | None = None
        self.paused = False
        self.known: LastKnown | None = None
        self.known_version: int | None = None  # None: there is no record
        self.adopted: Mapping[Node, str] = {}  # the processes whose data operators allow to be overwritten
        self._store = store
        self._paths = paths
        self._changed = changed
        self._log = log
        self._readers = {
            paths.nodes: self._read_topology,
            paths.managers: self._read_reports,
            paths.proxies: self._read_proxies,
            paths.manual_failover: self._read_request,
            paths.paused: self._read_paused,
            paths.history: self._read_history,
            paths.last_known: self._read_known,
            paths.adopted: self._read_adopted,
        }
        self._leads = False
        self._gem_leads = False
        self._own = {paths.history, paths.last_known}  # written by the primary alone: it is not told of them
        self._stale = {path: {_ALL} for path in self._readers}
        self._complained: set[tuple[str, int, int]] = set()
        self._watches: dict[str, Callable[[], None]] = {}

    def start(self) -> None:
        """Watch the record of the servers."""
        self._watch(self._paths.nodes)

    def attend(self) -> None:
        """Watch everything. What was read without being watched may be old: all of it has to be read again.

        What only the primary writes is read when its tenure begins.
        """
        self._leads = True
        self._watch(*(path for path in self._readers if path not in self._own))
        self.spoil_all()
        self._changed()

    def look_on(self, *more: str) -> None:
        """Watch no more than at the start, and what is at `more`, which has to be read when it was not watched."""
        self._leads = False
        wanted = {self._paths.nodes, *more}
        self._end(*(path for path in self._watches if path not in wanted))
        for path in wanted - self._watches.keys():
            self._watch(path)
            self._stale[path] = {_ALL}

    def stop(self) -> None:
        """Stop watching."""
        self._end(*self._watches)

    def _watch(self, *paths: str) -> None:
        for path in paths:
            if path not in self._watches:
                self._watches[path] = self._store.watch_each(path, partial(self.spoil, path))

    def _end(self, *paths: str) -> None:
        for path in paths:
            self._watches.pop(path)()

    def spoil(self, path: str, child: str = _ALL) -> None:
        """What is at `path` has to be read again, or only the record `child` below it."""
        self._stale.setdefault(path, set()).add(child)
        self._changed()

    def spoil_all(self) -> None:
        """Everything has to be read again: at the start of a tenure, or after an unknown outcome. When is the caller's
        to say."""
        self._stale = {path: {_ALL} for path in self._readers}

    def filed(self, receipt: Receipt) -> None:
        """This manager has just written the receipt."""
        name = self._paths.receipt(receipt.epoch).rpartition("/")[2]
        self.receipts = {**self.receipts, name: receipt}
        self.last_epoch = max(self.last_epoch, receipt.epoch)

    def remembered(self, known: LastKnown) -> None:
        """This manager has just written what is known of the servers."""
        self.known = known
        self.known_version = 0 if self.known_version is None else self.known_version + 1

    def wrote(self, topology: Topology) -> None:
        """This manager has just changed the topology: what it says is known, what a new epoch calls for is read.

        Every proxy that registered before a master was withdrawn is among those read now. An operator's request may
        have been answered in the same transaction.
        """
        entry, before = self.topology_entry, self.topology
        self.topology = topology
        self._follow(topology)
        if entry is None:
            self._stale[self._paths.nodes] = {_ALL}
        else:
            self.topology_entry = replace(entry, data=topology.encode(), version=entry.version + 1)
        if before is None or before.epoch != topology.epoch:
            self._stale |= {path: {_ALL} for path in (self._paths.proxies, self._paths.manual_failover)}

    def renewed(self) -> None:
        """This manager has just written the record of the servers again, as it was."""
        if self.topology_entry is not None:
            self.topology_entry = replace(self.topology_entry, version=self.topology_entry.version + 1)

    async def refresh(self, *paths: str) -> None:
        """Read what is stale of these, or of everything. Raises StoreUnavailable, after which it is still stale."""
        stale = {path: self._stale.pop(path) for path in paths or self._readers if path in self._stale}
        readings = (self._readers[path](names) for path, names in stale.items())
        results = await asyncio.gather(*readings, return_exceptions=True)
        failures = [failure for failure in results if isinstance(failure, BaseException)]
        if failures:
            for path, names in stale.items():
                self._stale.setdefault(path, set()).update(names)
            raise failures[0]

    async def _read_topology(self, _: set[str]) -> None:
        entry = await self._store.read(self._paths.nodes)
        if entry is None:
            self.topology, self.readable = None, True
            self._follow(None)
        else:
            topology = self._decode(self._paths.nodes, entry, Topology.decode)
            self.readable = topology is not None
            self.topology = topology or self.topology  # the last good one stays
            self._follow(topology)
        self.topology_entry = entry

    def _follow(self, topology: Topology | None) -> None:
        """What a manager knows to be in force must not be older than what others have done since.

        While it is primary nobody else may write. While it is not, a record that is gone, or the gem's, shows that
        somebody may have led who does not tell these managers.
        """
        if self._gem_leads or (not self._leads and (topology is None or topology.is_gems)):
            self.in_force = None
        elif topology is not None and not topology.is_gems and topology.epoch >= (self.in_force or topology).epoch:
            self.in_force = topology

    def led_by_the_gem(self, leads: bool) -> None:
        """A node manager of the gem leads, or none does any more: nothing that was known before is in force then."""
        self._gem_leads = leads
        if leads:
            self.forget()

    def forget(self) -> None:
        """Others may have led unseen: what these managers knew to be in force may not be so any more."""
        self.in_force = None

    async def _read_reports(self, names: set[str]) -> None:
        changed = {
            name: self._decode(self._paths.manager(name), entry, partial(ManagerReport.decode, name))
            for name, entry in (await self._read_below(self._paths.managers, names)).items()
        }
        self.reports = _unchanged(self.reports, names) | {name: report for name, report in changed.items() if report}

    async def _read_proxies(self, names: set[str]) -> None:
        changed = {
            name: self._decode(self._paths.proxy(name), entry, ProxyRecord.decode) or NEVER_ACKNOWLEDGED
            for name, entry in (await self._read_below(self._paths.proxies, names)).items()
        }
        self.proxies = _unchanged(self.proxies, names) | changed

    async def _read_below(self, path: str, names: set[str]) -> Mapping[str, Entry]:
        """With thousands of proxies, each of which acknowledges, it matters not to read all for one."""
        store = self._store
        return await (store.read_children(path) if _ALL in names else store.read_some(path, names))

    async def _read_history(self, _: set[str]) -> None:
        entries = await self._store.read_children(self._paths.history)
        receipts = {
            name: self._decode(f"{self._paths.history}/{name}", entry, Receipt.decode)
            for name, entry in entries.items()
        }
        self.receipts = {name: receipt for name, receipt in receipts.items() if receipt}
        self.last_epoch = max((int(name) for name in entries if name.isdecimal()), default=0)

    async def _read_known(self, _: set[str]) -> None:
        entry = await self._store.read(self._paths.last_known)
        self.known_version = entry.version if entry else None
        self.known = self._decode(self._paths.last_known, entry, LastKnown.decode) if entry else None

    async def _read_adopted(self, _: set[str]) -> None:
        adopted = {}
        for name, entry in (await self._store.read_children(self._paths.adopted)).items():
            with contextlib.suppress(ConfigError):
                adopted[Node.recorded(name)] = entry.data.decode(errors="replace")
        self.adopted = adopted

    async def _read_request(self, _: set[str]) -> None:
        self.request_entry = await self._store.read(self._paths.manual_failover)
        entry = self.request_entry
        self.request = self._decode(self._paths.manual_failover, entry, ManualRequest.decode) if entry else None

    async def _read_paused(self, _: set[str]) -> None:
        paused = await self._store.read(self._paths.paused) is not None
        if paused != self.paused:
            self._log.warning("paused: only watching" if paused else "not paused")
        self.paused = paused

    def _decode(self, path: str, entry: Entry, decode: Callable[[bytes], Decoded]) -> Decoded | None:
        try:
            return decode(entry.data)
        except RecordError as error:
            version = (path, entry.created, entry.version)
            if version not in self._complained:
                self._complained = {known for known in self._complained if known[0] != path} | {version}
                self._log.error("a record cannot be read and is left alone", path=path, error=str(error))
            return None


def _unchanged(known: Mapping[str, Decoded], changed: set[str]) -> dict[str, Decoded]:
    return {} if _ALL in changed else {name: record for name, record in known.items() if name not in changed}
