"""The first words on a connection to a server, and what its answers mean.

One packet, so that a new connection costs one round trip. The answers are judged one by one: a server that refuses the
connection says so once, whatever and how much it was asked, and closes.

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

from collections import deque
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
        self._unanswered = deque(command[0] for command in self._commands)
        self._first_error = ""
        self._version = ""
        self._client_id = 0
        self._stranger = False

    @property
    def request(self) -> bytes:
        """The bytes to send first."""
        return b"".join(resp.encode_command(command) for command in self._commands)

    def feed(self, data: bytes) -> Welcome | None:
        """Take what arrived; None while more is to come. Raises hiredis.ProtocolError on nonsense."""
        self._reader.feed(data)
        while self._unanswered:
            reply = self._reader.gets()
            if reply is False:
                return None
            if refused := self._judge(self._unanswered.popleft(), reply):
                return refused
        return Welcome(version=self._version, client_id=self._client_id, stranger=self._stranger)

    def broken_off(self) -> Welcome | None:
        """The connection has ended before all was answered: the refusal, if the server gave a reason."""
        return Welcome(Refusal.UNFIT, self._first_error) if self._first_error else None

    def _judge(self, name: bytes, reply: Any) -> Welcome | None:
        """The refusal that this reply is, if it is one."""
        if isinstance(reply, _Error):
            kind = _kind_of(reply.text)
            if kind is Refusal.UNFIT or name in (b"AUTH", b"HELLO", b"SELECT"):
                return Welcome(kind, reply.text)
            self._first_error = self._first_error or reply.text
            self._stranger = self._stranger or reply.text.startswith("NOAUTH")
            return None  # NOAUTH, NOPERM: this user may not ask; the server speaks for itself later
        problem = ""
        if name == b"ROLE":
            problem = self._role_problem(reply)
        elif name == b"INFO":
            server = _info(reply)
            self._version = server.get("redis_version", "")
            problem = self._restart_problem(server)
        elif name == b"CLIENT":
            self._client_id = reply
        return Welcome(Refusal.UNFIT, problem) if problem else None

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


_PASSING = ("LOADING", "MASTERDOWN", "BUSY", "ERR max number of clients", "DENIED")
"""How errors begin that speak of the server, not of the user. DENIED: of Redis' protected mode (networking.c)."""


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
