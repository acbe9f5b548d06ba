"""Servers that answer each command with its key, in the order of each connection, whole or in two parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.support.playbook import FakeConnection, Playbook


class EchoServers:
    """Those at `names`; nothing is executed before its reply begins.

    `part`: bytes that come first of a reply in parts. `value`: what a key has, the key itself unless it is given.
    """

    def __init__(
        self, play: Playbook, names: Sequence[str], part: int, value: Callable[[bytes], bytes] = lambda key: key
    ) -> None:
        self.written: list[bytes] = []
        """The keys of all SETs, in the order in which they were executed."""
        self._play = play
        self._names = names
        self._part = part
        self._value = value
        self._begun: dict[FakeConnection, bytes] = {}

    def answer(self, which: int, *, whole: bool) -> bool:
        """Let one of them say something; False when nobody has anything to say."""
        self._play.settle()
        busy = [one for one in self._live if one in self._begun or one.commands]
        if not busy:
            return False
        one = busy[which % len(busy)]
        data = self._begun.pop(one, b"") or self._reply(one.commands.pop(0))
        size = len(data) if whole else self._part
        if data[size:]:
            self._begun[one] = data[size:]
        one.answers(data[:size])
        return True

    def end_idle(self, which: int) -> None:
        """End a connection on which nothing is unanswered, if there is one."""
        self._play.settle()
        idle = [one for one in self._live if one.lane.idle]
        if idle:
            one = idle[which % len(idle)]
            one.closed = True
            one.lane.lose(self._play.time)
            self._play.settle()

    @property
    def _live(self) -> list[FakeConnection]:
        return [one for name in self._names for one in self._play.server(name).live if one.greeted]

    def _reply(self, command: list[bytes]) -> bytes:
        key = command[1]
        if command[0] == b"SET":
            self.written.append(key)
        value = self._value(key)
        return b"$%d\r\n%s\r\n" % (len(value), value)
