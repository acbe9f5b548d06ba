"""The exclusive lock of the `zk` gem: the lowest seat has it, each of the others waits for the one before it to go.

/_zklocking/__redis_failover__master_redis_node_manager_lock/ex0000000007   has it
                                                            /ex0000000009   waits for ...7
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError, NotEmptyError
from kazoo.protocol.states import WatchedEvent

FOLDER = "/_zklocking"
_NUMBER = re.compile(r"\d+$")


class LockLost(Exception):
    """What was taken for one's own lock is not."""


class Lock:
    """The lock with this name. Used by one thread."""

    def __init__(self, zookeeper: KazooClient, name: str) -> None:
        self.folder = f"{FOLDER}/{name.replace('/', '__')}"
        self._zookeeper = zookeeper
        self._seat = ""
        self._folder_made = 0  # a folder that was deleted and made anew does not hold one's seat

    def acquire(self, stopping: threading.Event) -> bool:
        """Wait for the lock; False when it was told to stop before. Raises LockLost, KazooException."""
        self._take_seat()
        seats = self._seats()
        own = seats.index(self._seat)
        if own > 0:
            gone = threading.Event()

            def told(event: WatchedEvent) -> None:
                gone.set()

            if self._zookeeper.exists(f"{self.folder}/{seats[own - 1]}", watch=told) is not None:
                while not gone.wait(0.05):
                    if stopping.is_set():
                        return False
        self.check()  # the one before may have gone while it waited itself
        return True

    def check(self) -> None:
        """Raises LockLost if the lock is not held."""
        folder = self._zookeeper.exists(self.folder)
        if folder is None or folder.ctime != self._folder_made:
            raise LockLost("the folder is another one")
        if next(iter(self._seats()), "") != self._seat:
            raise LockLost(f"{self._seat} is not the lowest seat")

    def release(self) -> None:
        """Leave the seat, and remove the folder when it was the last one. Raises KazooException."""
        seat, self._seat = self._seat, ""
        folder = self._zookeeper.exists(self.folder)
        if seat and folder is not None and folder.ctime == self._folder_made:
            with suppress(NoNodeError):
                self._zookeeper.delete(f"{self.folder}/{seat}")
            with suppress(NoNodeError, NotEmptyError):
                self._zookeeper.delete(self.folder)

    def _take_seat(self) -> None:
        while True:
            with suppress(NoNodeError):
                path = self._zookeeper.create(f"{self.folder}/ex", b"", ephemeral=True, sequence=True)
                self._seat = path.rpartition("/")[2]
                folder = self._zookeeper.exists(self.folder)
                if folder is not None:
                    self._folder_made = folder.ctime
                    return
            self._zookeeper.ensure_path(self.folder)

    def _seats(self) -> list[str]:
        return sorted(self._zookeeper.get_children(self.folder), key=number)


def number(seat: str) -> int:
    """The digits at the end; a seat without any comes first, as with the gem."""
    found = _NUMBER.search(seat)
    return int(found[0]) if found else 0
