"""The topology store in memory: one tree, any number of sessions, no I/O.

    tree = MemTree(asyncio.Event)
    manager, proxy = MemStore(tree), MemStore(tree)

The embedded mode runs on it, with a `Keeper` that lets the records outlive the process. Tests use it as a stand-in
for ZooKeeper, down to its faults: a session can be cut off, expire on the other side, and lose a request or the answer
to one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from rfprotocol.errors import FenceLost, StoreConflict, StoreUnavailable
from rfprotocol.store import leader_election
from rfprotocol.store.interface import Change, Delete, Entry, Fence, Put, StoreState
from rfprotocol.store.leader_election import Event


class Loss(Enum):
    """What gets lost on the way."""

    REQUEST = "request"  # the change is not made
    ANSWER = "answer"  # the change is made, and the caller does not learn it


class _NoParent(StoreConflict):
    """A record was to be created below one that does not exist."""


class _Link(Enum):
    """A session's connection with the tree."""

    IDLE = "idle"  # not started
    UP = "up"
    CUT = "cut"
    GONE = "gone"  # cut for longer than a session lives
    CLOSED = "closed"


_STATES = {
    _Link.IDLE: StoreState.LOST,
    _Link.UP: StoreState.CONNECTED,
    _Link.CUT: StoreState.SUSPENDED,
    _Link.GONE: StoreState.LOST,
    _Link.CLOSED: StoreState.LOST,
}


@dataclass(frozen=True, slots=True)
class TreeState:
    """What of a tree outlives its sessions."""

    last: int = 0  # the greatest number that was given out
    records: Mapping[str, Entry] = field(default_factory=dict)  # by path, without the root


class Keeper(Protocol):
    """Puts the state of a tree where the next process finds it."""

    def changed(self, state: TreeState, changes: tuple[Change, ...]) -> None:
        """From now on this is the state, because of these changes. Returns at once."""

    async def kept(self) -> None:
        """Return when what has changed so far is not forgotten any more, as far as that is to be waited for."""


class MemTree:
    """The records, and who is told of their changes. `new_event` makes what a campaign waits on.

    With a `keeper` a commit returns when its changes are kept, and a read when what it has read is: nobody acts upon
    what could still be forgotten. `state` is what an earlier tree has left.
    """

    def __init__(
        self, new_event: Callable[[], Event], keeper: Keeper | None = None, state: TreeState | None = None
    ) -> None:
        state = state or TreeState()
        self.new_event = new_event
        self.sessions: set[int] = set()
        self._keeper = keeper
        self._records = {"/": Entry(b"", 0, 0, 0), **state.records}
        self._last = state.last
        self._listeners: list[Callable[[str], None]] = []

    def next_number(self) -> int:
        """A number that was never given out before, greater than all that were."""
        self._last += 1
        return self._last

    async def kept(self) -> None:
        """Return when nothing of what `get` and `children` return now can be forgotten."""
        if self._keeper is not None:
            await self._keeper.kept()

    def open_session(self) -> int:
        """Begin a session and return its identity."""
        session = self.next_number()
        self.sessions.add(session)
        return session

    def end_session(self, session: int) -> None:
        """End a session, and remove what it announced."""
        self.sessions.discard(session)
        for path in [path for path, entry in self._records.items() if entry.owner == session]:
            self.remove(path)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the path of each record that changes."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[str], None]) -> None:
        """Call `listener` no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def get(self, path: str) -> Entry | None:
        """The record at `path`, or None."""
        return self._records.get(path)

    def children(self, path: str) -> dict[str, Entry]:
        """The records directly below `path`, by name."""
        return {
            child.rpartition("/")[2]: entry
            for child, entry in self._records.items()
            if child != "/" and _parent(child) == path
        }

    def apply(self, changes: tuple[Change, ...]) -> None:
        """Make all changes or none. Raises StoreConflict. What is written again as it was need not be kept again."""
        before = self._records
        try:
            self._transact(changes)
        except _NoParent:
            created = {change.path for change in changes if isinstance(change, Put) and change.version is None}
            for path in created:
                if _parent(path) not in created:
                    self._make_parents(path)
            self._transact(changes)
        if len(changes) != 1 or not _repeats(changes[0], before.get(changes[0].path)):
            self._keep(*changes)
        for change in changes:
            self._tell(change.path)

    def announce(self, path: str, data: bytes, session: int) -> None:
        """Create, update or take over a record that lives with `session`."""
        self._make_parents(path)
        old = self._records.get(path)
        if old and old.owner == session:
            self._records[path] = Entry(data, old.version + 1, old.created, session)
        else:
            if old:
                self._delete(Delete(path))
            self._create(path, data, session)
            if old and not old.owner:
                self._keep(Delete(path))
        self._tell(path)

    def enlist(self, stem: str, data: bytes, session: int) -> None:
        """Create a record with the next number in its name, which lives with `session`."""
        path = f"{stem}{self.next_number():010d}"
        self._make_parents(path)
        self._create(path, data, session)
        self._tell(path)

    def remove(self, path: str) -> None:
        """Remove a record, if it is there."""
        if old := self._records.pop(path, None):
            if not old.owner:
                self._keep(Delete(path))
            self._tell(path)

    def _transact(self, changes: tuple[Change, ...]) -> None:
        before = self._records
        self._records = dict(before)
        try:
            for change in changes:
                self._apply(change)
        except StoreConflict:
            self._records = before
            raise

    def _apply(self, change: Change) -> None:
        if isinstance(change, Delete):
            self._delete(change)
        elif change.version is None:
            self._create(change.path, change.data, owner=0)
        else:
            old = self._demand(change)
            self._records[change.path] = Entry(change.data, old.version + 1, old.created, old.owner)

    def _create(self, path: str, data: bytes, owner: int) -> None:
        if path in self._records:
            raise StoreConflict(f"{path}: the record exists already")
        parent = self._records.get(_parent(path))
        if parent is None:
            raise _NoParent(f"{path}: there is no record to create it below")
        if parent.owner:
            raise StoreConflict(f"{path}: the parent lives with a session and can hold nothing")
        self._records[path] = Entry(data, 0, self.next_number(), owner)

    def _delete(self, change: Delete) -> None:
        self._demand(change)
        if self.children(change.path):
            raise StoreConflict(f"{change.path}: the record is not empty")
        del self._records[change.path]

    def _demand(self, change: Change) -> Entry:
        """The record to change, in the version that the caller knows."""
        old = self._records.get(change.path)
        if old is None:
            raise StoreConflict(f"{change.path}: there is no such record")
        if change.version is not None and change.version != old.version:
            raise StoreConflict(f"{change.path}: the record has version {old.version}, not {change.version}")
        return old

    def _make_parents(self, path: str) -> None:
        parent = _parent(path)
        if parent not in self._records:
            self._make_parents(parent)
            self._create(parent, b"", owner=0)
            self._tell(parent)

    def _keep(self, *changes: Change) -> None:
        if self._keeper is not None and changes:
            lasting = {path: entry for path, entry in self._records.items() if path != "/" and not entry.owner}
            self._keeper.changed(TreeState(self._last, lasting), changes)

    def _tell(self, path: str) -> None:
        for listener in list(self._listeners):
            listener(path)


class MemStore:
    """One client of a tree: a TopologyStore. Its callbacks run within the call that causes them."""

    def __init__(self, tree: MemTree, *, session_timeout: float = 10.0) -> None:
        self._tree = tree
        self._session_timeout = session_timeout
        self._session = 0
        self._link = _Link.IDLE
        self._loss: Loss | None = None
        self._listeners: list[Callable[[StoreState], None]] = []
        self._watches: dict[object, tuple[str, Callable[[str], None]]] = {}
        self._campaigns: list[Event] = []
        self._moved = tree.new_event()
        tree.listen(self._record_changed)

    @property
    def state(self) -> StoreState:
        """The state now."""
        return _STATES[self._link]

    @property
    def trouble(self) -> str:
        """Nothing is known of it: it is cut off by tests alone."""
        return ""

    @property
    def session(self) -> int:
        """Identity of the session, 0 before the first."""
        return self._session

    @property
    def session_timeout(self) -> float:
        """Seconds that a session lives on in silence. Nothing expires by itself here: see `expire`."""
        return self._session_timeout

    def subscribe(self, listener: Callable[[StoreState], None]) -> None:
        """Call `listener` on every change of the state or of the session."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Connect."""
        if self._link is _Link.IDLE:
            self._connect()

    async def close(self) -> None:
        """End the session; what it announced vanishes at once."""
        self._tree.end_session(self._session)
        self._tree.unlisten(self._record_changed)
        self._move(_Link.CLOSED)
        for waiting in self._campaigns:
            waiting.set()

    async def read(self, path: str) -> Entry | None:
        """The record at `path`, or None."""
        with self._call():
            entry = self._tree.get(path)
            await self._tree.kept()
            return entry

    async def read_children(self, path: str) -> Mapping[str, Entry]:
        """The records directly below `path`, by name."""
        with self._call():
            children = self._tree.children(path)
            await self._tree.kept()
            return children

    async def read_some(self, path: str, names: Collection[str]) -> Mapping[str, Entry]:
        """Those of the records `names` directly below `path` that are there."""
        with self._call():
            children = self._tree.children(path)
            await self._tree.kept()
            return {name: entry for name, entry in children.items() if name in names}

    async def commit(self, *changes: Change, fence: Fence | None = None) -> None:
        """Apply all changes or none. Raises FenceLost, StoreConflict, StoreUnavailable."""
        with self._call():
            if fence and self._tree.get(fence.path) is None:
                raise FenceLost(f"the leadership behind {fence.path} is over")
            self._tree.apply(changes)
            await self._tree.kept()

    def watch(self, path: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change at or directly below `path`, and after each (re)connection."""
        return self.watch_each(path, lambda _: changed())

    def watch_each(self, path: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """As `watch`; `changed` is called with the name of a child that changed, came or went, else with ""."""
        key = object()
        self._watches[key] = (path, changed)

        def end() -> None:
            self._watches.pop(key, None)

        return end

    async def announce(self, path: str, data: bytes) -> None:
        """Create or update a record that lives as long as this session."""
        with self._call():
            self._tree.announce(path, data, self._session)

    async def withdraw(self, path: str) -> None:
        """Remove what was announced."""
        with self._call():
            self._tree.remove(path)

    async def campaign(self, path: str, name: str) -> Fence:
        """Wait until this session leads the contenders below `path` and return its fencing token."""
        token = f"ex{self._tree.next_number():032x}"  # as the seats of the zk gem begin
        changed = self._tree.new_event()
        self._campaigns.append(changed)
        try:
            return await leader_election.campaign(self, path, name, token, changed)
        except BaseException:
            for seat in leader_election.seats_of(token, self._tree.children(path)):
                self._tree.remove(f"{path}/{seat}")
            raise
        finally:
            self._campaigns.remove(changed)

    async def resign(self, fence: Fence) -> None:
        """Give up a leadership."""
        await self.withdraw(fence.path)

    async def prove_alive(self) -> None:
        """Return when the session is alive."""
        with self._call():
            pass

    async def enlist(self, stem: str, data: bytes) -> None:
        """Take a seat in an election."""
        with self._call():
            self._tree.enlist(stem, data, self._session)

    async def reachable(self) -> None:
        """Return when connected. Raises StoreUnavailable when closed."""
        while self._link is not _Link.UP:
            if self._link is _Link.CLOSED:
                raise StoreUnavailable("the store was closed")
            self._moved.clear()
            await self._moved.wait()

    # What can go wrong.

    def suspend(self) -> None:
        """Cut the connection. The session lives on in the tree."""
        self._move(_Link.CUT)

    def lose(self) -> None:
        """Let the cut last for so long that this side gives the session up; the tree may not have, see `expire`."""
        self._move(_Link.GONE)

    def expire(self) -> None:
        """End the session in the tree. It is noticed at once, or when the cut connection is resumed."""
        self._tree.end_session(self._session)
        if self._link is _Link.UP:
            self.resume()

    def resume(self) -> None:
        """Restore the connection: in the same session if that still lives, else in a new one."""
        if self._session not in self._tree.sessions:
            self._move(_Link.GONE)
        self._connect()

    def lose_next(self, loss: Loss) -> None:
        """Let the next call fail with StoreUnavailable, after or before it took effect."""
        self._loss = loss

    def _connect(self) -> None:
        if self._session not in self._tree.sessions:
            self._session = self._tree.open_session()
        self._move(_Link.UP)
        for _, changed in list(self._watches.values()):
            changed("")

    def _move(self, link: _Link) -> None:
        """The only place where the connection changes."""
        if self._link in (link, _Link.CLOSED):
            return
        before, self._link = self.state, link
        self._moved.set()
        if self.state is not before:
            for listener in list(self._listeners):
                listener(self.state)

    def _record_changed(self, path: str) -> None:
        if self._link is _Link.UP:
            for watched, changed in list(self._watches.values()):
                if watched in (path, _parent(path)):
                    changed(path.rpartition("/")[2] if watched != path else "")

    @contextmanager
    def _call(self) -> Iterator[None]:
        """One call to the tree, which fails as the link and the planned loss demand."""
        if self._link is not _Link.UP:
            raise StoreUnavailable(f"the store is {self._link.value}")
        loss, self._loss = self._loss, None
        if loss is Loss.REQUEST:
            raise StoreUnavailable("the request was lost")
        yield
        if loss is Loss.ANSWER:
            raise StoreUnavailable("the answer was lost")


def _repeats(change: Change, before: Entry | None) -> bool:
    return isinstance(change, Put) and before is not None and change.data == before.data


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
