"""Clients that have left while they were blocked, and whose connections to the server are not closed yet.

Thousands of them may leave at once, and are seen off a few in each turn of the loop (`departures`). Until then the
server still takes their commands for valid, and what comes for them would be lost. So what may bring it waits for them,
and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rfprotocol.resp.command_table import keys, lookup, tells_all_keys
from rfproxy.core.work_items import ReplyTarget, Run

LONGEST: Final = 0.5
"""Seconds for which commands wait at most: clients that come only to leave must not hold them up for ever."""

NOTICED: Final = 0.005
"""Seconds after which a server has noticed that connections were closed. The loop closes them in its next turn."""


class Leaving:
    """Of one process. Times are seconds of the core's clock."""

    def __init__(self) -> None:
        self._sessions: dict[ReplyTarget, None] = {}
        self._keys: set[bytes] = set()
        """That any of them waited for; none when nothing has to wait any more."""
        self._since = 0.0
        self._last_gone = 0.0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, session: ReplyTarget, args: list[bytes], now: float) -> None:
        """The client of this session has left; it was blocked by this command."""
        if not self._keys or self._over(now):
            self._keys.clear()
            self._since = now
        self._sessions[session] = None
        self._keys.update(keys(args))

    def gone(self, session: ReplyTarget, now: float) -> None:
        """It has been parted with; no error if it was not here."""
        if session in self._sessions:
            del self._sessions[session]
            self._last_gone = now

    def holds(self, runs: Iterable[Run], now: float) -> bool:
        """Whether these are not to be sent yet."""
        if now - self._since >= LONGEST or self._over(now):
            self._keys.clear()
            return False
        return any(self._may_serve(args) for run in runs for args in run.commands)

    def _over(self, now: float) -> bool:
        """Whether all are gone, and the server knows."""
        return not self._sessions and now - self._last_gone >= NOTICED

    def _may_serve(self, args: list[bytes]) -> bool:
        """Whether a command may bring what one of them waited for: EXEC names no keys, and a script not all."""
        command = lookup(args)
        if command.reads_only or command.group in ("connection", "pubsub"):
            return False
        told = tells_all_keys(command) and command.group != "scripting"
        return not told or not self._keys.isdisjoint(keys(args))
