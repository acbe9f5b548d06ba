"""What operators want, as far as the core has to know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rfproxy.core.durability import Durability
from rfproxy.core.identity import Account


class Reads(Enum):
    """Where reads go."""

    REPLICA = "replica"
    MASTER = "master"


class ClientAuth(Enum):
    """Rights of a client that says no AUTH."""

    REQUIRED = "required"
    PROXY_USER = "proxy-user"


class RetryWrites(Enum):
    """Which writes that were sent and not answered are sent again."""

    NEVER = "never"
    IDEMPOTENT = "idempotent"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Policy:
    """The options that the core needs. Times in seconds."""

    reads: Reads = Reads.REPLICA
    hold_timeout: float = 30.0
    hold_bytes: int = 256 << 20
    retry_writes: RetryWrites = RetryWrites.IDEMPOTENT
    leaseless: bool = False  # on_store_loss: continue
    account: Account | None = None  # the proxy's own
    client_auth: ClientAuth = ClientAuth.PROXY_USER  # whether clients that do not say who they are act as that
    allow_admin: bool = False  # pass on what would undo what the managers do
    durable: Durability | None = None  # write_safety: durable
    spares: int = 4  # dedicated connections to the master that are held ready, once one has been used
    most_dedicated: int = 0  # connections that belong to one session each, of one worker; 0: no limit
    workers: int = 1  # which share the bounds of one proxy
