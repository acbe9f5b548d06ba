"""The last known topology in a file, so that a proxy can start, and serve reads, while the store is away."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from rfprotocol.errors import RecordError
from rfprotocol.topology.topology import Topology

Thread = Callable[..., Awaitable[object]]


class TopologyCache:
    """One file per group of servers. Proxies of the same group may share it: it is replaced as a whole."""

    def __init__(self, folder: Path, group: str) -> None:
        """`group` is what tells groups apart: the store's servers and the root of the records."""
        self.path = folder / file_name("topology", group)

    def save(self, topology: Topology) -> None:
        """Keep a topology that has a master; a folder that cannot be written to is no reason to stop.

        This waits for the disk, which may take seconds: not to be called on an event loop.
        """
        if topology.master is None:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, topology.encode())

    def load(self) -> Topology | None:
        """What was kept, or None when there is nothing of use."""
        try:
            return Topology.decode(self.path.read_bytes())
        except (OSError, RecordError):
            return None


def file_name(kind: str, group: str) -> str:
    """Of a file that is about a group of servers."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9.-]+', '_', group).strip('_')}.json"


def replace_file(path: Path, data: bytes) -> None:
    """Whoever reads it gets all of the former content or all of this. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.replace(file.name, path)
        finally:
            with contextlib.suppress(OSError):  # it has its name no more
                os.unlink(file.name)


class CacheWriter:
    """Saves topologies in a thread of its own, one after the other; of those that wait only the newest is saved."""

    def __init__(self, cache: TopologyCache, thread: Thread) -> None:
        """`thread(function, *arguments)` runs a function elsewhere and returns when it has returned."""
        self._cache = cache
        self._thread = thread
        self._newest: Topology | None = None
        self._writing = False

    def keep(self, topology: Topology) -> bool:
        """This is in force from now on. True when `write` has to be started; otherwise it is under way."""
        self._newest = topology
        started, self._writing = not self._writing, True
        return started

    async def write(self) -> None:
        """Save until nothing newer has come."""
        try:
            while self._newest is not None:
                topology, self._newest = self._newest, None
                await self._thread(self._cache.save, topology)
        finally:
            self._writing = False
