"""Finds out ahead of time whether servers accept new connections of this manager, and with which password.

A server whose password was changed keeps the connections that stand, and refuses the next one. So each server is asked
on a new connection from time to time, and the password file is read again after a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from rfmanager.daemon.event_wait import wait_for
from rfmanager.monitoring.redis_admin import REFUSED, Credentials
from rfprotocol.errors import NodeError, NodeRefused
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.topology import Node

LOGIN_INTERVAL = 5.0
"""Seconds between two logins at each server."""

SHUT_OUT: Final = (*REFUSED, "NOPERM", "MAXCLIENTS")
"""Error codes that a new connection meets. Others are about the commands on it."""


class Login(Protocol):
    """A login at one server, as `RedisAdmin` has it."""

    async def log_in(self) -> Credentials:
        """Return what the server accepts on a new connection. Raises NodeError."""


class LoginKeeper:
    """The logins at all servers. `admins` may change while it runs."""

    def __init__(
        self, keyring: Keyring[Credentials], admins: Mapping[Node, Login], name: str, log: FilteringBoundLogger
    ) -> None:
        self._keyring = keyring
        self._admins = admins
        self._name = name
        self._log = log
        self._due = asyncio.Event()
        self._refusals: dict[Node, str] = {}

    @property
    def is_needed(self) -> bool:
        """True if there is a password, or a file that may bring one."""
        return self._keyring.current.password is not None or self._keyring.rereadable

    def refusal(self, node: Node) -> str:
        """Return the error with which a server refuses new connections; empty if it accepts them."""
        return self._refusals.get(node, "")

    def reload(self) -> None:
        """Read the password file again, and log which servers accept its password."""
        if not self._keyring.rereadable:
            self._log.warning("nothing is read again: only the content of a --password-file is", manager=self._name)
            return
        changed = self._keyring.reload()
        if self._keyring.problem:
            self._log.error("the password file cannot be read", manager=self._name, error=self._keyring.problem)
        else:
            self._log.info("read the password file again", manager=self._name, changed=changed)
        self._refusals.clear()  # so that each is told again
        self._due.set()

    async def run(self) -> None:
        """Log in at every server again and again, until cancelled."""
        while True:
            await wait_for(self._due, LOGIN_INTERVAL)
            asked, before = self._due.is_set(), self._keyring.current
            self._due.clear()
            await asyncio.gather(*(self._log_in(node, admin, asked) for node, admin in list(self._admins.items())))
            if self._keyring.problem:
                self._log.warning("the password file cannot be read", manager=self._name, error=self._keyring.problem)
            if self._keyring.current != before:
                self._log.info("the password file says something new", manager=self._name)

    async def _log_in(self, node: Node, admin: Login, asked: bool) -> None:
        try:
            said = await admin.log_in()
        except NodeRefused as error:
            if error.code not in SHUT_OUT:
                return
            if node not in self._refusals:
                self._log.warning("server refuses new connections", node=str(node), error=str(error))
            self._refusals[node] = str(error).removeprefix(f"{node} ")
        except NodeError:
            pass  # that is for the detector
        else:
            if self._refusals.pop(node, None) or asked:
                password = "the current one" if said == self._keyring.current else "the former one"
                self._log.info("server accepts new connections", node=str(node), password=password)
