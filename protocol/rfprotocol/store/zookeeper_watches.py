"""Which of ZooKeeper's one-shot watches are set, and which must be set again.

A watch of ours covers a record, the set of its children and the data of each child. ZooKeeper knows three separate
watches for that, each ends with its first event, all end with the connection, and one on the children of a record
that does not exist is refused. (Its recursive watches, since 3.6, would do it in one; older ensembles lack them,
and so does kazoo.) No I/O here: `arm` sends the request for one of ZooKeeper's watches.

A change cannot slip through between an event and the reading that follows it: the server answers a session's
requests in order, and `arm` is called before `changed`, hence before the read. Only for children that were not known
before this does not hold; so when their watches are on the way, `changed` is called once more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import Enum


class Watched(Enum):
    """What one of ZooKeeper's watches is about."""

    RECORD = "record"  # its creation, its deletion, its data
    CHILDREN = "children"  # the set of their names


class Watches:
    """All watches of one store."""

    def __init__(self, arm: Callable[[Watched, str], None]) -> None:
        self._send = arm
        self._armed: set[tuple[Watched, str]] = set()
        self._callbacks: defaultdict[str, dict[object, Callable[[str], None]]] = defaultdict(dict)
        self._children: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, path: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """Begin to watch `path`; returns the function that ends it.

        `changed` is called with the name of the child whose data alone has changed, else with "".
        """
        key = object()
        if path not in self._callbacks:
            self._armed -= {(Watched.RECORD, path), (Watched.CHILDREN, path)}
        self._callbacks[path][key] = changed
        self._arm(path)

        def end() -> None:
            self._callbacks[path].pop(key, None)
            if not self._callbacks[path]:
                del self._callbacks[path]
                self._children.pop(path, None)

        return end

    def connected(self) -> None:
        """Set everything again, in a connection that has no watches yet, and say that changes may have been missed."""
        self._armed.clear()
        self._children.clear()
        for path in list(self._callbacks):
            self._arm(path)
            self._notify(path)

    def fired(self, path: str, *about: Watched) -> None:
        """An event came: the named watches at `path` are used up.

        A creation or deletion is to be reported as using up both: the answer that refuses a watch on the children
        of a missing record may arrive after the news of its creation.
        """
        self._armed -= {(watched, path) for watched in about}
        parent = path.rpartition("/")[0] or "/"
        if Watched.CHILDREN in about:
            self._children[parent].discard(path)
        if path in self._callbacks:
            self._arm(path)
            self._notify(path)
        if Watched.RECORD in about and parent in self._callbacks:
            is_there = path in self._children[parent]
            if is_there:
                self._want(Watched.RECORD, path)  # the others are set: there may be thousands
            self._notify(parent, path.rpartition("/")[2] if is_there else "")

    def listed(self, path: str, names: Iterable[str]) -> None:
        """The children of `path` were listed and the list is watched."""
        if path not in self._callbacks:
            return
        present = {f"{path.rstrip('/')}/{name}" for name in names}
        new = present - self._children[path]
        self._children[path] = present
        for child in new:
            self._want(Watched.RECORD, child)
        if new:
            self._notify(path)

    def not_listed(self, path: str) -> None:
        """There is no record at `path`, so its children are not watched."""
        self._armed.discard((Watched.CHILDREN, path))

    def _arm(self, path: str) -> None:
        self._want(Watched.RECORD, path)
        self._want(Watched.CHILDREN, path)
        for child in self._children.get(path, ()):
            self._want(Watched.RECORD, child)

    def _want(self, watched: Watched, path: str) -> None:
        if (watched, path) not in self._armed:
            self._armed.add((watched, path))
            self._send(watched, path)

    def _notify(self, path: str, child: str = "") -> None:
        for changed in list(self._callbacks.get(path, {}).values()):
            changed(child)
