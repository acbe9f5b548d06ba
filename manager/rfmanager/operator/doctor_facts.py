"""What servers, managers and the store said of themselves, and the form of what `doctor` finds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from rfprotocol.topology.topology import Node


class Severity(Enum):
    """How bad it is."""

    UNSAFE = "unsafe"  # data or the service can be lost when one server is
    WARNING = "warning"  # a change of master takes longer or is noticed, or something could not be checked
    NOTE = "note"  # does no harm to this system


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an operator should know. `node` is None when it is about the group or the store."""

    severity: Severity
    node: Node | None
    what: str
    why: str
    line: str = ""  # of configuration that puts it right; empty when there is none


@dataclass(frozen=True, slots=True)
class User:
    """A user of one server, as far as it can be told to others."""

    rules: str  # in the words of ACL LIST, without passwords
    passwords: str = field(default="", repr=False)  # a digest of what the server keeps, to compare; never shown


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server said. Times are seconds."""

    node: Node
    trouble: str = ""  # why it could not be asked at all; the rest is then unknown
    role: str = ""  # master | slave
    supervised: str = "no"  # what started it, in INFO's words: no | systemd | upstart | unknown
    settings: Mapping[str, str] | None = None  # those of SETTINGS that it has; None when they may not be read
    user: str = "default"  # as whom the managers speak to it
    denied: Mapping[str, str] | None = None  # of NEEDED, and the server's words; None when that cannot be asked
    clock: float = 0.0  # ahead of this host's
    clock_error: float = 0.0  # how much that may be wrong, either way
    run_id: str = ""  # of its process
    version: str = ""  # such as `Redis 7.0.15`
    unsaved: str = ""  # what it could not write to its disk
    users: Mapping[str, User] | None = None  # by name; None when they may not be read


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What all of them said."""

    servers: Sequence[ServerFacts] = field(default_factory=tuple)
    asked_timeout: float = 4.0  # ZooKeeper session, seconds
    granted_timeout: float = 4.0
    with_password: bool = False  # the managers log in with one, which they pass on to replicas
    silence: float = 1.35  # seconds; the shortest after which the managers take a server that says nothing for dead
    accounts: Mapping[str, str] = field(default_factory=dict)  # by proxy: what is wrong with its own account
    store_trouble: str = ""  # why the store could not be asked; what it would have said is then unknown
    too_few: str = ""  # managers report, in words
    disagreements: Sequence[str] = ()  # of managers on what they were told, in words
    doubles: Mapping[str, Sequence[Node]] = field(default_factory=dict)  # by run id, as the managers see them
    strangers: Mapping[Node, str] = field(default_factory=dict)  # whose data is not the group's: what it holds
    slowed_down: str = ""  # why, and until when, a silent master is given more time than usual
    paused: str = ""  # by whom the managers are, and since when; empty when they are not
    migration: Sequence[Finding] = ()  # what does not hold while the gem's managers, or its record, are there

    @property
    def yardstick(self) -> ServerFacts | None:
        """The server that others are compared with: the master, or else the first that could be asked."""
        asked = [server for server in self.servers if not server.trouble]
        return next((server for server in asked if server.role == "master"), asked[0] if asked else None)
