"""Which password each server is told, while operators change it: some servers know the new one already, others do not.

    current     what the options, or the password file, said last
    former      what servers had accepted before that

A server is told what it accepted last, and the other one when it refuses that: nothing is refused while it need not
be. After a refusal the file is read again. What is wrong with the file is kept in `problem`, and the last good content
stays in force.

No I/O of its own: `read` is what the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from rfprotocol.errors import ConfigError
from rfprotocol.topology.topology import Node

Key = TypeVar("Key")
"""A name and a password, in the form that a program has; hashable."""


class Keyring(Generic[Key]):
    """Of one process, for all servers."""

    def __init__(self, key: Key, read: Callable[[], Key] | None = None, former: Key | None = None) -> None:
        """`read` returns what the password file says now, or raises ConfigError; None: there is no file. `former`: what
        the program said that this one took over from."""
        self.current = key
        self.problem = ""
        """Why the file could not be read the last time, in one line; empty: it could, or there is none."""
        self._read = read
        self._former = former
        self._accepted: dict[Node, Key] = {}
        self._refused: dict[Node, set[Key]] = {}

    @property
    def rereadable(self) -> bool:
        """Whether there is a file."""
        return self._read is not None

    def reload(self) -> bool:
        """Read the file again, and tell all servers first what it says; whether that is something new."""
        changed = self._reread()
        self._accepted.clear()
        self._refused.clear()
        return changed

    def _reread(self) -> bool:
        if self._read is None:
            return False
        try:
            key = self._read()
        except ConfigError as error:
            self.problem = str(error)
            return False
        self.problem = ""
        if key == self.current:
            return False
        if self.current in self._accepted.values():  # a slip of the pen is not worth remembering
            self._former = self.current
        self.current = key
        self._refused.clear()
        return True

    def of(self, node: Node) -> Key:
        """What to tell this server."""
        last = self._accepted.get(node)
        return last if last is not None and last in self._known else self.newest(node)

    def newest(self, node: Node) -> Key:
        """The current one, unless this server is known to refuse it."""
        refused = self._refused.get(node, set())
        return next((key for key in self._known if key not in refused), self.current)

    def accepted_by(self, node: Node) -> Key | None:
        """What this server accepted last; None when it has refused that since, or was never told anything."""
        return self._accepted.get(node)

    def accepted(self, node: Node, key: Key) -> None:
        """The server has let somebody in who said this."""
        self._accepted[node] = key
        self._refused.get(node, set()).discard(key)

    def refused(self, node: Node, key: Key) -> bool:
        """The server has refused this. Whether there is something else to be tried at once."""
        if self._accepted.get(node) == key:  # its password was changed: what it refused before proves nothing
            del self._accepted[node]
            self._refused.pop(node, None)
        self._reread()
        refused = self._refused.setdefault(node, set())
        refused.add(key)
        if any(known not in refused for known in self._known):
            return True
        refused.clear()  # from the beginning, the next time: passwords are changed at servers, too
        return False

    @property
    def _known(self) -> tuple[Key, ...]:
        return (self.current,) if self._former is None else (self.current, self._former)
