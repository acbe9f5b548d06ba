"""MULTI ... EXEC without WATCH: queued here, sent as one block on a shared lane, after which it is one write.

What Redis refuses when a command is queued is refused here, from the command table, in the same words; the
transaction is then aborted at EXEC. Commands that would change the connection they run on may not be
queued: that connection belongs to many clients.
"""

from __future__ import annotations

from rfprotocol import resp
from rfprotocol.commands import Command, Route, arity_error

EXECABORT = "EXECABORT Transaction discarded because of previous errors."


class Transaction:
    """The commands since MULTI."""

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self._aborted = False

    def add(self, args: list[bytes], command: Command) -> bytes:
        """Queue a command; returns the reply for it."""
        problem = self._problem(args, command)
        if problem is None:
            self.commands.append(args)
            return resp.simple("QUEUED")
        self._aborted = True
        return resp.error(problem)

    def block(self) -> bytes | None:
        """The bytes of the whole transaction, or None when it was aborted."""
        if self._aborted:
            return None
        return resp.encode_commands([[b"MULTI"], *self.commands, [b"EXEC"]])

    def _problem(self, args: list[bytes], command: Command) -> str | None:
        if text := arity_error(command, args):
            return text
        if "no_multi" in command.flags:
            return "ERR Command not allowed inside a transaction"
        if command.route is Route.REFUSED:
            return command.refusal
        if command.route in (Route.SESSION, Route.PINNED) and command.name != "UNWATCH":
            return (
                f"ERR {command.name.replace('|', ' ')} inside MULTI is not supported by rfproxy: send it before MULTI"
            )
        return None
