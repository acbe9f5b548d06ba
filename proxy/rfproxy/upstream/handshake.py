"""The first words on a connection to a server, and what its answers mean.

One packet, so that a new connection costs one round trip. The questions are the proxy's own, so they are asked under
its own account, before the connection becomes the client's user: that one needs no right to ask them, and whatever is
refused would stand in ACL LOG.

    AUTH [user] pass                                 the proxy's account, if it has one
    ROLE                                             is this still a master, or a replica whose link is up?
    INFO server                                      is it still the same process?
    CLIENT ID                                        what does the server call this connection?
    SELECT db                                        when it is not 0; AUTH keeps the database
    AUTH [user] pass                                 when the client's account is another one
    HELLO 3                                          when it speaks RESP3; HELLO 2 behind the AUTH of another account

ROLE and INFO are what keeps a restarted server from being taken for the one that the topology speaks of: a
master that comes back empty, or a replica that has not synchronised yet, answers every command with a good
conscience. `Asker` says who asks where the proxy's account may not. HELLO is open to everybody (CMD_NO_AUTH in Redis'
command table) and says the role, so it is said where nothing else may be.

The answers are judged one by one: a server that refuses the connection says so once, whatever and how much it was
asked, and closes. Since Redis 7.2 and Valkey 7.2 a refused AUTH has no answer at all when replies of the same packet
stand before it (`addAuthErrReply` in acl.c): the reply of the HELLO behind it shows that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import hiredis

from rfprotocol.errors import without_arguments
from rfprotocol.resp import resp
from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Account, Duty, LaneKey


class Refusal(Enum):
    """Why a server is not used after its greeting."""

    DENIED = "denied"  # it does not accept the account or the database; its words are for the client
    UNFIT = "unfit"  # it is not what the topology says; try again, or elsewhere


class Asker(Enum):
    """Under which account the questions are asked."""

    PROXY = "the proxy's account, or the server's default user if it has none"
    USER = "the client's account"
    OTHER = "another client's account, which is left before anything else is said"
    NOBODY = "none that is known may"


QUESTIONS: Final = (b"ROLE", b"INFO", b"CLIENT")
"""What is asked, by the first word."""
CHECKS: Final = frozenset(QUESTIONS[:2])
"""The questions whose answers show whether a server is what the topology says."""
NEEDED: Final = CHECKS | {b"SELECT"}
"""What has to be tried under another account when it was refused."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The outcome of a greeting: `refusal` None means that the lane may be used."""

    refusal: Refusal | None = None
    text: str = ""  # the server's error without the dash, or what is wrong with it
    version: str = ""  # of the server, as far as it tells
    run_id: str = field(default="", compare=False)  # of its process, the same
    client_id: int = 0  # of this connection; 0 when nobody may know
    stranger: bool = False  # the server wants to be told who speaks before it answers the asker
    unasked: frozenset[bytes] = frozenset()  # what the asker may not ask, or SELECT, by the first word
    account_error: str = ""  # why the server does not accept the account that asks, if it is not the client's own


class _Kind(Enum):
    """What a command of the greeting is for."""

    ACCOUNT = "speak as the proxy"
    QUESTION = "ask"
    DATABASE = "go to the database"
    USER = "become the client's user"
    DIALECT = "speak its version of RESP"


@dataclass(frozen=True, slots=True)
class _Word:
    """One command of the greeting."""

    kind: _Kind
    args: list[bytes] = field(repr=False)


class Greeting:
    """Sans-I/O: `request` goes out, `feed` takes what comes in and answers once, with a Welcome."""

    def __init__(
        self,
        key: LaneKey,
        run_id: str = "",
        *,
        account: Account | None = None,
        asker: Asker = Asker.PROXY,
        skip: frozenset[bytes] = frozenset(),
        says: tuple[Account, Account] | None = None,
    ) -> None:
        """`run_id` is that of the process which the topology takes for the master; empty when unknown.

        `account` is the proxy's, or that of the OTHER; `skip`: questions, or SELECT, that it is known to have no
        right to. `says`: an account, and what is said for it, as its password has been changed.
        """
        self._key = key
        self._run_id = run_id
        self.account = account
        self.asker = asker
        self.skip = skip
        self.says = says
        self._reader = hiredis.Reader(replyError=_as_error)
        self._words = self._composed()
        self._unanswered = deque(self._words)
        self._first_error = ""
        self._version = ""
        self._process = ""
        self._client_id = 0
        self._stranger = False
        self._account_error = ""
        self._unasked = set(CHECKS if asker is Asker.NOBODY else skip & CHECKS)

    @property
    def request(self) -> bytes:
        """The bytes to send first."""
        return b"".join(resp.encode_command(word.args) for word in self._words)

    def feed(self, data: bytes) -> Welcome | None:
        """Take what arrived; None while more is to come. Raises hiredis.ProtocolError on nonsense."""
        self._reader.feed(data)
        while self._unanswered:
            reply = self._reader.gets()
            if reply is False:
                return None
            if refused := self._judge(self._unanswered.popleft(), reply):
                return refused
        return Welcome(
            version=self._version,
            run_id=self._process,
            client_id=self._client_id,
            stranger=self._stranger,
            unasked=frozenset(self._unasked),
            account_error=self._account_error,
        )

    def broken_off(self) -> Welcome | None:
        """The connection has ended before all was answered: the refusal, if the server gave a reason."""
        return Welcome(Refusal.UNFIT, self._first_error) if self._first_error else None

    @property
    def _becomes_another(self) -> bool:
        """Whether the client's account is one that the asker's has to be left for."""
        user = self._key.identity.account
        return user is not None and user != self.account

    def _composed(self) -> list[_Word]:
        identity, asker = self._key.identity, self.asker
        account = [_Word(_Kind.ACCOUNT, self._auth(self.account))] if self.account else []
        user = [_Word(_Kind.USER, self._auth(identity.account))] if identity.account and self._becomes_another else []
        if asker in (Asker.PROXY, Asker.OTHER) or not user:
            words = account
        else:
            words, user = user, []
        if asker is not Asker.NOBODY:
            words = words + [_Word(_Kind.QUESTION, _ASKED[name]) for name in QUESTIONS if name not in self.skip]
        database = [_Word(_Kind.DATABASE, [b"SELECT", b"%d" % identity.db])] if identity.db else []
        words += user + database if b"SELECT" in self.skip else database + user
        if identity.protocol == 3 or asker is Asker.NOBODY or user:
            words.append(_Word(_Kind.DIALECT, [b"HELLO", b"%d" % identity.protocol]))
        return words

    def _auth(self, account: Account) -> list[bytes]:
        return _auth(self.says[1] if self.says is not None and account == self.says[0] else account)

    def _judge(self, word: _Word, reply: Any) -> Welcome | None:
        """The refusal that this reply is, if it is one."""
        if self._shows_silent_refusal(word, reply):
            return Welcome(Refusal.DENIED, _REFUSED, account_error=self._account_error)
        if isinstance(reply, _Error):
            return self._judge_error(word, reply.text)
        problem = ""
        if word.kind is _Kind.DIALECT:
            problem = self._take_hello(_pairs(reply))
        elif word.args[0] == b"ROLE":
            problem = role_problem(self._key.duty, reply)
        elif word.args[0] == b"INFO":
            server = _info(reply)
            self._version = server.get("redis_version", "")
            self._process = server.get("run_id", "")
            problem = self._restart_problem(server)
        elif word.args[0] == b"CLIENT":
            self._client_id = reply
        return Welcome(Refusal.UNFIT, problem) if problem else None

    def _judge_error(self, word: _Word, text: str) -> Welcome | None:
        self._first_error = self._first_error or text
        if text.startswith(_PASSING):
            return Welcome(Refusal.UNFIT, text)
        if word.kind is _Kind.QUESTION:  # NOAUTH, NOPERM
            self._stranger = self._stranger or text.startswith("NOAUTH")
            self._unasked.add(word.args[0])
        elif word.kind is _Kind.ACCOUNT and self._becomes_another:
            self._account_error = text
        elif word.kind is _Kind.ACCOUNT:
            return Welcome(Refusal.DENIED, _own_account_refused(self._key.node, text), account_error=text)
        elif word.kind is _Kind.DATABASE and text.startswith(("NOAUTH", "NOPERM")) and self._asked_for_another:
            self._unasked.add(b"SELECT")
        elif word.kind is not _Kind.DIALECT or self._key.identity.protocol == 3:
            return Welcome(Refusal.DENIED, text, account_error=self._account_error)
        return None

    def _shows_silent_refusal(self, word: _Word, reply: Any) -> bool:
        """Whether this is the reply to a later word, since AUTH was refused without one.

        HELLO answers with a list or a map, or wants AUTH before it; SELECT is tried under the account before.
        """
        if word.kind is _Kind.USER and isinstance(reply, _Error):
            return word is not self._words[0] and reply.text.startswith(("NOAUTH", "NOPERM"))
        return word.kind in (_Kind.USER, _Kind.DATABASE) and isinstance(reply, list | dict)

    @property
    def _asked_for_another(self) -> bool:
        """Whether the database is selected before the connection becomes the client's user."""
        leads = self.asker is Asker.PROXY or self.asker is Asker.OTHER
        return leads and self._becomes_another and b"SELECT" not in self.skip

    def _take_hello(self, said: dict[bytes, Any]) -> str:
        """What HELLO tells, where it is new; returns what is wrong with the server."""
        version, number, role = said.get(b"version"), said.get(b"id"), said.get(b"role")
        if not self._version and isinstance(version, bytes):
            self._version = version.decode(errors="replace")
        if not self._client_id and isinstance(number, int):
            self._client_id = number
        wanted = _ROLES.get(self._key.duty)
        return f"it is not a {wanted.decode()}" if wanted and role in _ROLES.values() and role != wanted else ""

    def _restart_problem(self, server: dict[str, str]) -> str:
        known = self._run_id and server.get("run_id")
        if known and server["run_id"] != self._run_id:
            return "it was restarted"
        return ""


def role_problem(duty: Duty, role: Any) -> str:
    """What is wrong with a server that answers ROLE like this, as hiredis decodes it; empty: nothing."""
    if not isinstance(role, list) or duty is Duty.ANY:
        return ""
    if duty is Duty.MASTER:
        return "" if role[0] == b"master" else "it is not a master"
    if role[0] != b"slave":
        return "it is not a replica"
    return "" if role[3] == b"connected" else f"it is not connected to its master ({role[3].decode(errors='replace')})"


class _Error:
    """An error reply, as data: hiredis would otherwise make exceptions of them."""

    def __init__(self, text: str) -> None:
        self.text = text


def _as_error(text: str) -> Any:
    return _Error(without_arguments(text))  # it is logged, and told to clients, who may not know the proxy's password


_PASSING = ("LOADING", "MASTERDOWN", "BUSY", "ERR max number of clients", "DENIED")
"""How errors begin that speak of the server, not of the user. DENIED: of Redis' protected mode (networking.c)."""

_REFUSED = "WRONGPASS invalid username-password pair or user is disabled."
"""What a server says of a refused AUTH, if it says anything."""

_ASKED = {b"ROLE": [b"ROLE"], b"INFO": [b"INFO", b"server"], b"CLIENT": [b"CLIENT", b"ID"]}
_ROLES = {Duty.MASTER: b"master", Duty.REPLICA: b"replica"}
"""As HELLO calls them."""


def _own_account_refused(node: Node, text: str) -> str:
    """For clients that never said who they are: it is not their password."""
    return (
        f"ERR rfproxy's own password is refused by {node}: correct its options username and password, "
        f"or say AUTH first ({text})"
    )


def _auth(account: Account) -> list[bytes]:
    return [b"AUTH", *([account.username] if account.username else []), account.password]


def _pairs(reply: Any) -> dict[bytes, Any]:
    """HELLO's reply: a map in RESP3, a flat list in RESP2."""
    if isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=False))
    return reply if isinstance(reply, dict) else {}


def _info(reply: Any) -> dict[str, str]:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
