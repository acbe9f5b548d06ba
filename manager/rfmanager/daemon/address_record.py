"""The last known addresses of the servers in the store, for a manager that starts while the name service is away.

It would else find all servers unresolved, take the role of a healthy master away, and have nobody to promote. The
primary manager writes the record; every manager reads it once, before it stands for that role.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from rfprotocol.errors import RecordError
from rfprotocol.network.address_cache import STALE, kept_addresses
from rfprotocol.store.interface import Put, TopologyStore
from rfprotocol.topology.topology import FORMAT, load_record

RENEWAL = 3600.0
"""Seconds after which the same addresses are written again: how old they are, the next reader has to know."""


class AddressRecord:
    """The record at `path`. Times are seconds of the wall clock."""

    def __init__(self, store: TopologyStore, path: str) -> None:
        self._store = store
        self._path = path
        self._written: Mapping[str, Sequence[str]] = {}
        self._written_at = -math.inf

    async def load(self, wall: float) -> dict[str, list[str]]:
        """Addresses by host name; none when there is nothing of use, or it is too old. Raises StoreError."""
        entry = await self._store.read(self._path)
        if entry is None:
            return {}
        try:
            record = load_record(entry.data, "addresses")
            fresh = wall - float(record["at"]) <= STALE
        except (RecordError, KeyError, TypeError, ValueError):
            return {}
        return kept_addresses(record.get("names")) if fresh else {}

    async def save(self, known: Mapping[str, Sequence[str]], wall: float) -> None:
        """Keep these, unless there are none, or they are there. Raises StoreError."""
        if not known or (known == self._written and wall - self._written_at < RENEWAL):
            return
        entry = await self._store.read(self._path)
        names = {host: list(addresses) for host, addresses in sorted(known.items())}
        data = json.dumps({"format": FORMAT, "at": wall, "names": names}).encode()
        await self._store.commit(Put(self._path, data, entry.version if entry else None))
        self._written, self._written_at = dict(known), wall
