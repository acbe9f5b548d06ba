"""The last known addresses of the servers in a file, for a proxy that starts while the name service is away.

A worker that is replaced, or a reload, would else know less than the one before: its clients would wait for the name
service although all servers are well. The file is as good as the look-ups it comes from, for as long as they are
(`address_cache.STALE`). It is written by a thread, as a disk may take for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfprotocol.network.address_cache import STALE, kept_addresses
from rfproxy.runtime.topology_cache import file_name, replace_file


class AddressFile:
    """One file per group of servers. Workers and proxies of the same group may share it: it is replaced as a whole."""

    def __init__(self, folder: Path, group: str) -> None:
        self.path = folder / file_name("addresses", group)
        self._lock = threading.Lock()
        self._newest: Mapping[str, Sequence[str]] | None = None
        self._writing = False

    def load(self) -> dict[str, list[str]]:
        """Addresses by host name; none when there is nothing of use, or it is too old."""
        try:
            if time.time() - os.stat(self.path).st_mtime > STALE:
                return {}
            return kept_addresses(json.loads(self.path.read_bytes()))
        except (OSError, ValueError):
            return {}

    def save(self, known: Mapping[str, Sequence[str]]) -> None:
        """Keep these, soon. A folder that cannot be written to is no reason to stop."""
        with self._lock:
            self._newest = dict(known)
            if self._writing:
                return
            self._writing = True
        with contextlib.suppress(RuntimeError):  # no thread can be started: the next time, perhaps
            threading.Thread(target=self._write, name="addresses", daemon=True).start()
            return
        self._writing = False

    def _write(self) -> None:
        while True:
            with self._lock:
                known, self._newest = self._newest, None
                if known is None:
                    self._writing = False
                    return
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self.path, json.dumps(known).encode())
