"""CLIENT PAUSE: the proxy holds commands itself, since its lanes carry those of many clients."""

from __future__ import annotations

from dataclasses import dataclass

from rfprotocol.resp.command_table import Command, lookup
from rfproxy.core.work_items import Run, Verb


@dataclass(frozen=True, slots=True)
class Pause:
    """Commands wait until that time (seconds, monotonic)."""

    until: float
    writes_only: bool

    def holds(self, entry: Run | Verb, now: float) -> bool:
        """Whether these commands have to wait."""
        if now >= self.until or (isinstance(entry, Verb) and entry.command.name == "CLIENT|UNPAUSE"):
            return False
        commands = entry.commands if isinstance(entry, Run) else [entry.args]
        return not self.writes_only or any(_held_back(lookup(args)) for args in commands)


def _held_back(command: Command) -> bool:
    """Whether CLIENT PAUSE ... WRITE holds it back (CMD_MAY_REPLICATE in Redis, which lists PFCOUNT)."""
    return command.may_replicate or command.name == "PFCOUNT"
