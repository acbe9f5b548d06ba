"""The topology store on ZooKeeper. (kazoo itself is handled in `zookeeper_session`.)

What makes it safe to rely on:

* A read is preceded by `sync` in the same batch, so it sees every change that was acknowledged before, also after
  the session has moved to a server that lags behind.
* `prove_alive` is a write: a transaction that changes nothing. `sync` is answered by a leader alone, and so by one
  that was deposed and does not know it yet, while its successor already counts the sessions' timeouts. What a quorum
  has committed cannot be newer than such a successor.
* What was announced or claimed is judged by the session that owns it, never by its mere existence: that of an
  earlier session, also of the same program before a restart, may linger.
* Watches are one-shot and set again, see `zookeeper_watches`.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from rfprotocol.errors import FenceLost, StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store import leader_election
from rfprotocol.store.interface import Change, Delete, Entry, Fence, Put, StoreState
from rfprotocol.store.zookeeper_session import Answer, Client, Link, NoRecord, Outcome, Request, RolledBack
from rfprotocol.store.zookeeper_watches import Watched, Watches

_ANY_VERSION = -1
_ATTEMPTS = 4
"""To announce a record; another one is needed only when it is changed by somebody else at the same moment."""


class _NoParent(StoreConflict):
    """A record was to be created below one that does not exist."""


class ZkStore:
    """A TopologyStore on the ensemble at `hosts`, such as `a:2181,b:2181/chroot`; the chroot is made when missing.

    `session_timeout` (seconds) is what is asked for; the server may grant another one: see the property of that name.
    `request_timeout` (seconds) bounds each call. `patient`: while ZooKeeper takes no more connections from this
    address, others go first. Raises ConfigError when `hosts` cannot be read.
    """

    def __init__(
        self, hosts: str, *, session_timeout: float = 10.0, request_timeout: float = 3.0, patient: bool = False
    ) -> None:
        servers, _, chroot = hosts.partition("/")
        chroot = chroot.strip("/")
        self._chroot = f"/{chroot}" if chroot else ""
        self._listeners: list[Callable[[StoreState], None]] = []
        self._campaigns: set[asyncio.Event] = set()
        self._cleaners: set[asyncio.Task[None]] = set()
        self._children: dict[str, list[str]] = {}  # the names that were read last, by path
        self._watches = Watches(self._arm)
        self._link = Link(
            servers,
            session_timeout=session_timeout,
            request_timeout=request_timeout,
            moved=self._moved,
            fired=self._fired,
            patient=patient,
        )

    @property
    def state(self) -> StoreState:
        """The state now."""
        return self._link.state

    @property
    def trouble(self) -> str:
        """Why there is no connection, as a predicate to ZooKeeper; empty when there is one, or nothing is known."""
        return self._link.trouble

    @property
    def session(self) -> int:
        """Identity of the session, 0 before the first."""
        return self._link.session

    @property
    def session_timeout(self) -> float:
        """Seconds that ZooKeeper lets a silent session live, as it has granted; before that, as it was asked."""
        return self._link.session_timeout

    def subscribe(self, listener: Callable[[StoreState], None]) -> None:
        """Call `listener` on every change of the state or of the session."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin to connect, and return at once."""
        self._link.start()

    async def close(self) -> None:
        """End the session, in no more than the request timeout. Campaigns end with StoreUnavailable."""
        closing = self._link.close()
        for cleaner in self._cleaners:
            cleaner.cancel()
        await closing
        for campaign in self._campaigns:
            campaign.set()

    async def read(self, path: str) -> Entry | None:
        """The record at `path`, or None."""
        _, found = await self._link.ask(
            lambda client: client.sync_async(self._chroot or "/"),
            lambda client: client.get_async(self._full(path)),
        )
        return _entry(found)

    async def read_children(self, path: str) -> Mapping[str, Entry]:
        """The records directly below `path`, by name."""
        folder, expected = self._full(path), self._children.pop(path, [])
        # Those that were there the last time are asked for in the same round trip, after their names.
        _, names, *answers = await self._link.ask(
            lambda client: client.sync_async(self._chroot or "/"),
            lambda client: client.get_children_async(folder),
            *_gets(folder, expected),
        )
        if isinstance(names, NoRecord):
            return {}
        _demand(names)
        found = dict(zip(expected, answers, strict=True))
        if new := [name for name in names if name not in found]:
            found.update(zip(new, await self._link.ask(*_gets(folder, new)), strict=True))
        self._children[path] = names
        return {name: entry for name in names if (entry := _entry(found[name]))}

    async def read_some(self, path: str, names: Collection[str]) -> Mapping[str, Entry]:
        """Those of the records `names` directly below `path` that are there."""
        _, *answers = await self._link.ask(
            lambda client: client.sync_async(self._chroot or "/"), *_gets(self._full(path), names)
        )
        return {name: entry for name, found in zip(names, answers, strict=True) if (entry := _entry(found))}

    async def commit(self, *changes: Change, fence: Fence | None = None) -> None:
        """Apply all changes or none. Raises FenceLost, StoreConflict, StoreUnavailable."""
        try:
            await self._transact(changes, fence)
        except _NoParent:
            created = {change.path for change in changes if _creates(change)}
            await self._make_parents(*(path for path in created if path.rpartition("/")[0] not in created))
            await self._transact(changes, fence)

    def watch(self, path: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change at or directly below `path`, and after each (re)connection."""
        return self.watch_each(path, lambda _: changed())

    def watch_each(self, path: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """As `watch`; `changed` is called with the name of a child whose data changed, else with ""."""
        return self._watches.add(self._full(path), partial(self._link.soon, changed))

    async def announce(self, path: str, data: bytes) -> None:
        """Create or update a record that lives as long as this session, in place of another session's."""
        full, session = self._full(path), self.session
        for _ in range(_ATTEMPTS):
            [stat] = await self._link.ask(lambda client: client.set_async(full, data))
            if not isinstance(stat, StoreError) and stat.ephemeralOwner == session:
                return
            if not isinstance(stat, NoRecord):
                _demand(stat)
            foreign = None if isinstance(stat, NoRecord) else stat.version
            [outcomes] = await self._link.ask(partial(_take_over, full, data, foreign))
            problem = _problem(outcomes)
            if problem is None:
                return
            if not isinstance(problem, StoreConflict):
                raise problem
            if isinstance(problem, NoRecord):
                await self._make_parents(path)
        raise StoreConflict(f"{path} is being changed by somebody else: do two programs share one name?")

    async def withdraw(self, path: str) -> None:
        """Remove what was announced; no error when it is gone already."""
        [outcome] = await self._link.ask(lambda client: client.delete_async(self._full(path)))
        if not isinstance(outcome, NoRecord):
            _demand(outcome)

    async def campaign(self, path: str, name: str) -> Fence:
        """Wait until this session leads the contenders below `path` and return its fencing token."""
        token, changed = f"ex{uuid.uuid4().hex}", asyncio.Event()  # as the seats of the zk gem begin
        self._campaigns.add(changed)
        try:
            return await leader_election.campaign(self, path, name, token, changed)
        except (asyncio.CancelledError, StoreError):
            if not self._link.is_closed:
                self._clean(path, token)
            raise
        finally:
            self._campaigns.discard(changed)

    async def resign(self, fence: Fence) -> None:
        """Give up a leadership; no error when it is gone already. What fails now is done when ZooKeeper is back."""
        try:
            await self.withdraw(fence.path)
        except StoreUnavailable:  # the session may outlive this, and its seat would keep everybody waiting
            path, _, seat = fence.path.rpartition("/")
            self._clean(path, seat.rpartition("_")[0])
            raise

    async def prove_alive(self) -> None:
        """Return when a quorum has committed an empty transaction of this session."""

        def nothing(client: Client) -> Answer:
            transaction = client.transaction()
            transaction.check("/", _ANY_VERSION)
            return transaction.commit_async()

        await self._link.ask(nothing)  # a refusal is as good: it was ordered like any other transaction

    async def enlist(self, stem: str, data: bytes) -> None:
        """Take a seat in an election."""
        for attempt in range(2):
            [outcome] = await self._link.ask(
                lambda client: client.create_async(self._full(stem), data, ephemeral=True, sequence=True)
            )
            if not isinstance(outcome, NoRecord) or attempt:
                _demand(outcome)
                return
            await self._make_parents(stem)

    async def reachable(self) -> None:
        """Return when another attempt makes sense. Raises StoreUnavailable when the store was closed."""
        await self._link.reachable()

    def _full(self, path: str) -> str:
        return f"{self._chroot}{path}" if path != "/" else self._chroot or "/"

    async def _transact(self, changes: tuple[Change, ...], fence: Fence | None) -> None:
        """One attempt at a transaction."""

        def transaction(client: Client) -> Answer:
            transaction = client.transaction()
            if fence:
                transaction.check(self._full(fence.path), _ANY_VERSION)
            for change in changes:
                path, version = self._full(change.path), change.version
                if isinstance(change, Delete):
                    transaction.delete(path, _ANY_VERSION if version is None else version)
                elif version is None:
                    transaction.create(path, change.data)
                else:
                    transaction.set_data(path, change.data, version)
            return transaction.commit_async()

        if not changes and not fence:
            return
        [outcomes] = await self._link.ask(transaction)
        problem = _problem(outcomes)
        if problem is None:
            return
        place = outcomes.index(problem) - (1 if fence else 0)
        if place < 0 and isinstance(problem, NoRecord) and fence:
            raise FenceLost(f"the leadership behind {fence.path} is over")
        if place < 0:
            raise problem
        kind = _NoParent if isinstance(problem, NoRecord) and _creates(changes[place]) else type(problem)
        raise kind(f"{changes[place].path}: {problem}")

    async def _make_parents(self, *paths: str) -> None:
        parents = {self._full(path).rpartition("/")[0] or "/" for path in paths}
        ensure = [partial(lambda parent, client: client.ensure_path_async(parent), parent) for parent in parents]
        for outcome in await self._link.ask(*ensure):
            _demand(outcome)

    def _clean(self, path: str, token: str) -> None:
        """Give up a seat that may exist, as soon as ZooKeeper can be asked to."""

        async def vacate() -> None:
            with contextlib.suppress(StoreError):  # refused or closed: it ends with the session
                await leader_election.vacate(self, path, token)

        cleaner = asyncio.ensure_future(vacate())
        self._cleaners.add(cleaner)
        cleaner.add_done_callback(self._cleaners.discard)

    def _moved(self, state: StoreState) -> None:
        for listener in self._listeners:
            self._link.soon(listener, state)
        if state is StoreState.CONNECTED:
            self._watches.connected()

    def _fired(self, path: str, about: tuple[Watched, ...]) -> None:
        self._watches.fired(path, *about)

    def _arm(self, about: Watched, path: str) -> None:
        """Set one of ZooKeeper's watches; when that is not possible now, the next connection does it."""
        if self.state is not StoreState.CONNECTED:
            return
        if about is Watched.RECORD:
            self._link.post(lambda client: client.exists_async(path, watch=self._link.watcher))
        else:
            names = self._link.post(lambda client: client.get_children_async(path, watch=self._link.watcher))
            names.add_done_callback(lambda answer: self._listed(path, answer.result()))

    def _listed(self, path: str, names: Outcome) -> None:
        if isinstance(names, NoRecord):
            self._watches.not_listed(path)
        elif not isinstance(names, StoreError):
            self._watches.listed(path, names)


def _creates(change: Change) -> bool:
    return isinstance(change, Put) and change.version is None


def _take_over(path: str, data: bytes, foreign: int | None, client: Client) -> Answer:
    """Create an ephemeral record, in the same moment as version `foreign` of another session's is removed."""
    transaction = client.transaction()
    if foreign is not None:
        transaction.delete(path, foreign)
    transaction.create(path, data, ephemeral=True)
    return transaction.commit_async()


def _gets(folder: str, names: Iterable[str]) -> list[Request]:
    folder = folder.rstrip("/")
    return [partial(lambda child, client: client.get_async(child), f"{folder}/{name}") for name in names]


def _entry(found: Outcome) -> Entry | None:
    if isinstance(found, NoRecord):
        return None
    _demand(found)
    data, stat = found
    return Entry(data or b"", stat.version, stat.czxid, stat.ephemeralOwner)


def _problem(outcomes: Outcome) -> StoreError | None:
    """Why a transaction was refused. Raises a StoreError that is about the request as a whole."""
    _demand(outcomes)
    for outcome in outcomes:
        if isinstance(outcome, StoreError) and not isinstance(outcome, RolledBack):
            return outcome
    return None


def _demand(outcome: Outcome) -> None:
    if isinstance(outcome, StoreError):
        raise outcome
