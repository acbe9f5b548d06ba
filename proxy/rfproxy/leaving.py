"""Clients that have left while they were blocked, and whose connections to the server are not closed yet.

Thousands of them may leave at once, and are seen off a few at a time (`departures`). Until then the server still takes
their commands for valid, and what comes for them would be lost. So before anything is sent that may bring it, all of
them are parted with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rfprotocol.commands import keys, lookup, tells_all_keys
from rfproxy.entries import Run

if TYPE_CHECKING:
    from rfproxy.session import Session


class Leaving:
    """Of one process."""

    def __init__(self) -> None:
        self._sessions: dict[Session, None] = {}
        self._keys: set[bytes] = set()
        """That any of them waits for."""

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def add(self, session: Session, args: list[bytes]) -> None:
        """The client of this session has left; it was blocked by this command."""
        self._sessions[session] = None
        self._keys.update(keys(args))

    def gone(self, session: Session) -> None:
        """It has been parted with; no error if it was not here."""
        self._sessions.pop(session, None)
        if not self._sessions:
            self._keys.clear()

    def part(self, now: float) -> None:
        """Part with all of them."""
        for session in list(self._sessions):
            session.attend(session.close, now)

    def before(self, runs: Iterable[Run], now: float) -> bool:
        """These are about to be sent; whether all have just been parted with because of that.

        The server may see the end of their connections after what is sent at once: it reads from many in any order.
        """
        may_serve = any(self._may_serve(args) for run in runs for args in run.commands)
        if may_serve:
            self.part(now)
        return may_serve

    def _may_serve(self, args: list[bytes]) -> bool:
        """Whether a command may bring what one of them waits for. EXEC names no keys, and a script may not name all."""
        command = lookup(args)
        if command.reads_only or command.group in ("connection", "pubsub"):
            return False
        told = tells_all_keys(command) and command.group != "scripting"
        return not told or not self._keys.isdisjoint(keys(args))
