"""Identity of a session towards a server, and the key of the connections that sessions may share.

Sessions whose commands may share a connection have the same LaneKey: the same server, for the same purpose, with the
same rights, database and version of RESP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from rfprotocol.topology.topology import Node


@dataclass(frozen=True, slots=True)
class Account:
    """Name and password for AUTH; without a username it is the server's default user."""

    username: bytes
    password: bytes = field(repr=False)
    own: bool = False
    """Whether it is the proxy's, of its options. A client that says the same is somebody else: what is said for the
    proxy after its password has been changed is not said for that one."""


class Duty(Enum):
    """Role that a server must have at the moment for a lane to be of use."""

    MASTER = "master"
    REPLICA = "replica"
    ANY = "any"  # reads from the last known master while nobody may write


# By name, and final: looking up a member of an enumeration costs several times as much.
MASTER: Final = Duty.MASTER
REPLICA: Final = Duty.REPLICA


@dataclass(frozen=True, slots=True)
class Identity:
    """What a session is to a server: it sees the same data under the same rights in the same dialect."""

    db: int = 0
    protocol: int = 2  # of RESP
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class LaneKey:
    """Sessions whose commands may share a connection have the same key."""

    node: Node
    duty: Duty
    identity: Identity = Identity()
