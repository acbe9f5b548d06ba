"""How the open files that a worker is allowed are shared among what it needs them for. Pure.

    allowed = clients + dedicated connections + SPARE

A client that blocks, subscribes, watches or is in a transaction needs a connection to a server of its own, so for each
client there should be two descriptors. Where so many are not allowed, fewer clients are admitted, and a quarter of all
is kept for dedicated connections: a limit that is reached is refused with its name, by Redis' own rules, instead of
failing somewhere as "Too many open files".
"""

from __future__ import annotations

from dataclasses import dataclass

SPARE = 256
"""For shared connections, those that are kept ready, other workers, ZooKeeper, listeners and files."""
_FOR_CLIENTS = 3 / 4


@dataclass(frozen=True, slots=True)
class Budget:
    """What one worker may have open at the same time."""

    clients: int
    dedicated: int
    """Connections to servers that belong to one client each."""


def wanted(clients: int) -> int:
    """The descriptors with which nobody meets a limit but that of so many clients."""
    return 2 * clients + SPARE


def share(clients: int, allowed: int) -> Budget:
    """Share `allowed` descriptors, where there should be room for so many clients."""
    usable = max(2, allowed - SPARE)
    admitted = min(clients, max(1, int(usable * _FOR_CLIENTS)))
    return Budget(admitted, usable - admitted)
