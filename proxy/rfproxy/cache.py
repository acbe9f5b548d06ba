"""The last known topology in a file, so that a proxy can start, and serve reads, while the store is away."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from rfprotocol.errors import RecordError
from rfprotocol.topology import Topology


class TopologyCache:
    """One file per group of servers. Proxies of the same group may share it: it is replaced as a whole."""

    def __init__(self, folder: Path, group: str) -> None:
        """`group` is what tells groups apart: the store's servers and the root of the records."""
        self.path = folder / f"topology-{re.sub(r'[^A-Za-z0-9.-]+', '_', group).strip('_')}.json"

    def save(self, topology: Topology) -> None:
        """Keep a topology that has a master; a folder that cannot be written to is no reason to stop."""
        if topology.master is None:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, delete=False) as file:
                file.write(topology.encode())
            os.replace(file.name, self.path)

    def load(self) -> Topology | None:
        """What was kept, or None when there is nothing of use."""
        try:
            return Topology.decode(self.path.read_bytes())
        except (OSError, RecordError):
            return None
