"""The first words on a connection to a server, and what its answers mean.

One packet, so that a new connection costs one round trip:

    AUTH [user] pass                                 when the lane has an account
    HELLO 3                                          when it speaks RESP3
    SELECT db                                        when it is not 0
    ROLE                                             is this still a master, or a replica whose link is up?
    INFO server                                      is it still the same process?
    CLIENT ID                                        what does the server call this connection?

ROLE and INFO are what keeps a restarted server from being taken for the one that the topology speaks of: a
master that comes back empty, or a replica that has not synchronised yet, answers every command with a good
conscience.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import hiredis

from rfprotocol import resp
from rfprotocol.topology import Node


@dataclass(frozen=True, slots=True)
class Account:
    """Who speaks on a connection; without a username it is the server's default user."""

    username: bytes
    password: bytes = field(repr=False)


class Duty(Enum):
    """What a server must be at the moment for a lane to be of use."""

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


class Refusal(Enum):
    """Why a server is not used after its greeting."""

    DENIED = "denied"  # it does not accept the account or the database; its words are for the client
    UNFIT = "unfit"  # it is not what the topology says; try again, or elsewhere


@dataclass(frozen=True, slots=True)
class Welcome:
    """The outcome of a greeting: `refusal` None means that the lane may be used."""

    refusal: Refusal | None = None
    text: str = ""  # the server's error without the dash, or what is wrong with it
    version: str = ""  # of the server, as far as it tells
    client_id: int = 0  # of this connection; 0 when the user may not know
    stranger: bool = False  # the server wants to be told who speaks before it answers anything


class Greeting:
    """Sans-I/O: `request` goes out, `feed` takes what comes in and answers once, with a Welcome."""

    def __init__(self, key: LaneKey, run_id: str = "") -> None:
        """`run_id` is that of the process which the topology takes for the master; empty when unknown."""
        self._key = key
        self._run_id = run_id
        self._reader = hiredis.Reader(replyError=_as_error)
        self._commands = _commands(key.identity)
        self._replies: list[Any] = []

    @property
    def request(self) -> bytes:
        """The bytes to send first."""
        return b"".join(resp.encode_command(command) for command in self._commands)

    def feed(self, data: bytes) -> Welcome | None:
        """Take what arrived; None while more is to come. Raises hiredis.ProtocolError on nonsense."""
        self._reader.feed(data)
        while len(self._replies) < len(self._commands):
            reply = self._reader.gets()
            if reply is False:
                return None
            self._replies.append(reply)
        return self._judge()

    def _judge(self) -> Welcome:
        role: Any = None
        server: dict[str, str] = {}
        client_id, stranger = 0, False
        for command, reply in zip(self._commands, self._replies, strict=True):
            name = command[0]
            if isinstance(reply, _Error):
                if name in (b"AUTH", b"HELLO", b"SELECT"):
                    return Welcome(_kind_of(reply.text), reply.text)
                if _kind_of(reply.text) is Refusal.UNFIT:
                    return Welcome(Refusal.UNFIT, reply.text)
                stranger = stranger or reply.text.startswith("NOAUTH")
                continue  # NOAUTH, NOPERM: this user may not ask; the server speaks for itself later
            if name == b"ROLE":
                role = reply
            elif name == b"INFO":
                server = _info(reply)
            elif name == b"CLIENT":
                client_id = reply
        problem = self._role_problem(role) or self._restart_problem(server)
        if problem:
            return Welcome(Refusal.UNFIT, problem)
        return Welcome(version=server.get("redis_version", ""), client_id=client_id, stranger=stranger)

    def _role_problem(self, role: Any) -> str:
        if not isinstance(role, list) or self._key.duty is Duty.ANY:
            return ""
        if self._key.duty is Duty.MASTER:
            return "" if role[0] == b"master" else "it is not a master"
        if role[0] != b"slave":
            return "it is not a replica"
        return (
            "" if role[3] == b"connected" else f"it is not connected to its master ({role[3].decode(errors='replace')})"
        )

    def _restart_problem(self, server: dict[str, str]) -> str:
        known = self._run_id and server.get("run_id")
        if known and server["run_id"] != self._run_id:
            return "it was restarted"
        return ""


class _Error:
    """An error reply, as data: hiredis would otherwise make exceptions of them."""

    def __init__(self, text: str) -> None:
        self.text = text


def _as_error(text: str) -> Any:
    return _Error(text)


_PASSING = ("LOADING", "MASTERDOWN", "BUSY", "ERR max number of clients")


def _kind_of(text: str) -> Refusal:
    return Refusal.UNFIT if text.startswith(_PASSING) else Refusal.DENIED


def _commands(identity: Identity) -> list[list[bytes]]:
    commands: list[list[bytes]] = []
    account = identity.account
    if account:
        who = [account.username] if account.username else []
        commands.append([b"AUTH", *who, account.password])
    if identity.protocol == 3:
        commands.append([b"HELLO", b"3"])
    if identity.db:
        commands.append([b"SELECT", b"%d" % identity.db])
    return [*commands, [b"ROLE"], [b"INFO", b"server"], [b"CLIENT", b"ID"]]


def _info(reply: Any) -> dict[str, str]:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
