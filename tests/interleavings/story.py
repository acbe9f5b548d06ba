"""What one client says, and whether what it hears, and what the servers did, is what one Redis would have done.

Save for what the design grants: -UNCERTAIN for a command whose reply was lost, nil for EXEC behind WATCH, and an error
for a read whose connections were closed twice while it was the oldest command on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

import hiredis

from rfproxy.core.identity import Identity
from tests.interleavings.model import EFFECTS, token
from tests.support.playbook import FakeClient

REPEATABLE = frozenset([b"SET", b"BLPOP"])
"""Writes that may be executed again when their reply was lost."""

TEMPLATES = {
    "set": "SET k {}",
    "push": "LPUSH k {}",
    "touch": "SET w {}",
    "script": "EVAL script 0 {}",
    "module": "MODULE.CMD k {}",
    "announce": "PUBLISH c {}",
    "pop": "BLPOP {} 0",
    "read": "MGET k {}",
    "scan": "SCAN 0 MATCH {}",
    "ping": "PING {}",
    "mistake": "GET",
    "watch": "WATCH w",
    "unwatch": "UNWATCH",
    "multi": "MULTI",
    "exec": "EXEC",
    "discard": "DISCARD",
    "id": "CLIENT ID",
    "select": "SELECT 0",
    "subscribe": "SUBSCRIBE x y",
    "unsubscribe": "UNSUBSCRIBE x",
    "unsubscribe from all": "UNSUBSCRIBE",
}

_CONFINED = {
    b"GET": "ERR wrong number",
    b"MODULE.CMD": "ERR unknown command",
    b"EXEC": "EXECABORT Transaction discarded because of: Can't execute",
}
"""What subscribers in RESP2 are told, if it is not the usual."""


MOST_LOSSES = 2
"""Connections that may be closed while one command is the oldest in flight there: then its client is told."""
_OF_DATA = frozenset([b"MGET", b"SCAN", b"SET", b"LPUSH", b"EVAL"])
"""Commands that may cost connections; BLPOP is asked again at every new master, and no server dies of PING."""


def _unique(one: bytes) -> bool:
    """Whether a token is one of those that `Story.says` gives out, and no word or database."""
    return one.isdigit() and len(one) > 3


class Presence(Enum):
    """Whether there is a client to be answered."""

    HERE = "here"
    HUNG_UP = "hung up"  # it says nothing more, and reads
    GONE = "gone"


class Story:
    """One client, from its first command to its last reply."""

    def __init__(self, client: FakeClient, protocol: int) -> None:
        self.client = client
        self.protocol = protocol
        self.said: list[list[bytes]] = []
        self.presence = Presence.HERE
        self._sent: Counter[bytes] = Counter()  # when it left, by token
        self._held: Counter[bytes] | None = None  # when it had left and there was no master
        client.session.become(Identity(protocol=protocol))

    @property
    def left(self) -> bool:
        """Whether it says nothing more."""
        return self.presence is not Presence.HERE

    def says(self, tokens: Iterator[int], kinds: list[str]) -> None:
        """Send these commands in one packet."""
        commands = [TEMPLATES[kind].format(next(tokens)) for kind in kinds]
        self.said += [command.encode().split() for command in commands]
        self.client.pipelines(*commands)

    def leaves(self, sent: Counter[bytes]) -> None:
        """The connection is gone. `sent`: what servers were sent by now."""
        self.presence, self._sent = Presence.GONE, sent
        self.client.leaves()

    def hangs_up(self, sent: Counter[bytes]) -> None:
        """The client closes its sending half, and waits for its answers."""
        self.presence, self._sent = Presence.HUNG_UP, sent
        self.client.hangs_up()

    def masterless(self, sent: Counter[bytes]) -> None:
        """There is no master: a write of a client that has hung up would have to wait for one."""
        if self._held is None and self.presence is Presence.HUNG_UP:
            self._held = sent

    def check_departure(self, sent: Counter[bytes]) -> None:
        """Fails if commands were sent for a client that had left; `sent` in the end.

        What could go at once when a client hung up may have been sent once. Nothing waits, or is sent again, for it.
        """
        assert self.presence is not Presence.HUNG_UP or self.client.closed, "who hung up was not parted with"
        for args in self.said if self.left else []:
            one = token(args)
            most = max(1, self._sent[one]) if self.presence is Presence.HUNG_UP else self._sent[one]
            if self._held is not None and args[0] in EFFECTS:
                most = self._held[one]
            assert sent[one] <= most or not _unique(one), f"{args} was sent for a client that had left"

    def heard(self) -> list[Any]:
        """All replies; without messages, which come when they like."""
        reader = hiredis.Reader()
        reader.feed(self.client.output)
        replies: list[Any] = []
        while (reply := reader.gets()) is not False:
            if not (isinstance(reply, list) and reply[:1] == [b"message"]):
                replies.append(reply)
        return replies

    def check(
        self,
        executed: list[tuple[bytes, ...]],
        replicated: set[int] | None = None,
        blamed: Mapping[bytes, int] = MappingProxyType({}),
    ) -> None:
        """Fails where one Redis would have answered or done something else.

        `replicated`: places in `executed` that replicas have, when writes are only to be acknowledged then. `blamed`:
        tokens of commands at whose head connections ended: they may be answered with an error.
        """
        Reading(self, executed, replicated, blamed).check()


class Reading:
    """Reads a story from its beginning, with the state that the client believes its connection to be in."""

    def __init__(
        self,
        story: Story,
        executed: list[tuple[bytes, ...]],
        replicated: set[int] | None,
        blamed: Mapping[bytes, int],
    ) -> None:
        self.story = story
        self.blamed = blamed
        self.executed = executed
        self.replicated = replicated
        self.unknowable = EFFECTS - REPEATABLE if replicated is None else EFFECTS - REPEATABLE | {b"BLPOP"}
        self.replies = story.heard()
        self.queue: list[list[bytes]] | None = None
        self.failed = self.watching = False
        self.channels: list[bytes] = []
        self.last = -1  # place in `executed` of the latest write that was answered

    def check(self) -> None:
        """Read the whole story."""
        for args in self.story.said:
            if self.story.left and len(self.replies) < self._due(args):
                break
            self._command(args)
        else:
            assert not self.replies, f"more replies than commands: {self.replies}"
        self._nothing_done_twice()
        self._nothing_lost_thrice()

    def _due(self, args: list[bytes]) -> int:
        if args[0] == b"SUBSCRIBE" and self.queue is None:
            return len(args) - 1
        return max(1, len(self.channels)) if args == [b"UNSUBSCRIBE"] and self.queue is None else 1

    def _next(self) -> Any:
        assert self.replies, "a reply is missing"
        return self.replies.pop(0)

    def _command(self, args: list[bytes]) -> None:
        if args[0] in (b"SUBSCRIBE", b"UNSUBSCRIBE") and self.queue is None:
            self._subscription(args)
            return
        reply = self._next()
        if self.channels and self.story.protocol == 2 and args[0] != b"PING":
            self._error(args, reply, _CONFINED.get(args[0], "ERR Can't execute"))
        elif self.queue is not None:
            self._queued(args, reply)
        elif args[0] == b"MULTI":
            self._is(args, reply, b"OK")
            self.queue, self.failed = [], False
        elif args[0] in (b"EXEC", b"DISCARD"):
            self._error(args, reply, f"ERR {args[0].decode()} without MULTI")
        elif args == [b"GET"]:
            self._error(
                args,
                reply,
                ("ERR wrong number", "ERR rfproxy: GET was ") if b"GET" in self.blamed else "ERR wrong number",
            )
        else:
            if args[0] in (b"WATCH", b"UNWATCH"):
                self.watching = args[0] == b"WATCH"
            self._plain(args, reply)

    def _plain(self, args: list[bytes], reply: Any) -> None:
        times = [place for place, tokens in enumerate(self.executed) if token(args) in tokens]
        assert all(self.executed[place] == (token(args),) for place in times), f"{args} was part of a transaction"
        if self._falls_short(args, reply):
            assert times, f"{args} is said to be executed, and is not"
            return
        if self._may_be_refused(args) and self._is_refusal(reply):
            assert not times, f"{args} is said to be refused, and was executed"
            return
        if isinstance(reply, hiredis.ReplyError) and (args[0] in self.unknowable or self._given_up(args)):
            name = args[0].decode()
            self._error(args, reply, f"UNCERTAIN {name} may" if args[0] in EFFECTS else f"ERR rfproxy: {name} was ")
            return
        self._is(args, reply, self._result(args))
        if args[0] in EFFECTS:
            self._answered(args, times)

    def _answered(self, args: list[bytes], times: list[int]) -> None:
        assert times, f"{args} was answered and not executed"
        assert times[-1] > self.last, f"{args} was executed before what the client said earlier"
        self.last = times[-1]
        on_replicas = self.replicated is None or self.replicated.intersection(times)
        assert on_replicas, f"{args} was acknowledged, and no replica has it"

    def _falls_short(self, args: list[bytes], reply: Any) -> bool:
        """Whether the client was told that too few replicas have its write."""
        start = f"UNCERTAIN {args[0].decode()} was executed by master "
        return self.replicated is not None and isinstance(reply, hiredis.ReplyError) and str(reply).startswith(start)

    def _given_up(self, args: list[bytes]) -> bool:
        """Whether the client may be told that connections were closed because of this command.

        After one of them already, since no command is sent to the successor of a master that died of it. A write that
        was lost, and then refused in front of something that was executed, is not sent again either.
        """
        return token(args) in self.blamed or (args[0] == b"SET" and self._announced_behind(args))

    def _is_refusal(self, reply: Any) -> bool:
        """Scripts may make up such an error: if the server serves again by then, nobody can tell whose it is."""
        return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("LOADING", "READONLY"))

    def _may_be_refused(self, args: list[bytes]) -> bool:
        """Whether a refusal is for the client: of a script, and where what came later was executed all the same."""
        return args[0] in (b"EVAL", b"MODULE.CMD") or self._announced_behind(args)

    def _announced_behind(self, args: list[bytes]) -> bool:
        """Whether the client has published something later, and it was."""
        place = next(place for place, one in enumerate(self.story.said) if one is args)
        later = {token(one) for one in self.story.said[place + 1 :] if one[0] == b"PUBLISH"}
        return any(later.intersection(tokens) for tokens in self.executed)

    def _result(self, args: list[bytes]) -> Any:
        done = b"done:" + token(args)
        if args[0] in (b"WATCH", b"UNWATCH", b"SELECT"):
            return b"OK"
        if args[0] == b"CLIENT":
            return self.story.client.session.number
        if args[0] == b"SCAN":
            return [b"0", [done]]
        return [b"pong", done] if args[0] == b"PING" and self.channels and self.story.protocol == 2 else done

    def _queued(self, args: list[bytes], reply: Any) -> None:
        if args[0] == b"EXEC":
            self._exec(args, reply)
            self.queue, self.watching = None, False
        elif args[0] == b"DISCARD":
            self._is(args, reply, b"OK")
            self._not_executed()
            self.queue, self.watching = None, False
        elif args[0] == b"MULTI":
            self._error(args, reply, "ERR MULTI calls can not be nested")
        elif args[0] == b"WATCH":
            self._error(args, reply, "ERR WATCH inside MULTI is not allowed")
        elif isinstance(reply, hiredis.ReplyError):
            refused = self._is_refusal(reply) and self._announced_behind(args)
            assert refused or args == [b"GET"] or args[0].endswith(b"SUBSCRIBE"), f"{args}: {reply}"
            self.failed = True
        else:
            self._is(args, reply, b"QUEUED")
            self._queue().append(args)

    def _exec(self, args: list[bytes], reply: Any) -> None:
        if self.failed:
            self._error(args, reply, "EXECABORT")
            self._not_executed()
        elif reply is None:
            assert self.watching, "nil without WATCH"
            self._not_executed()
        elif self._falls_short(args, reply):
            assert self._at_once(), "said to be executed, and is not"
        elif isinstance(reply, hiredis.ReplyError) and str(reply).startswith("ERR rfproxy: EXEC was "):
            assert self._was_blamed(), f"{args} was answered {reply!r}"
            assert not self._writes(), f"{args} was answered {reply!r}"
        elif isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("EXECABORT") and self._announced_behind(args):
                self._not_executed()
                return
            self._error(args, reply, "UNCERTAIN EXEC may")
            self._at_once()
        else:
            assert reply == [self._result(one) for one in self._queue()], f"EXEC: {reply}"
            times = self._at_once()
            assert times or not self._writes()
            if times:
                self._answered(args, times)

    def _was_blamed(self) -> bool:
        return any(token(args) in self.blamed for args in self._queue())

    def _queue(self) -> list[list[bytes]]:
        assert self.queue is not None
        return self.queue

    def _writes(self) -> tuple[bytes, ...]:
        return tuple(token(args) for args in self._queue() if args[0] in EFFECTS)

    def _not_executed(self) -> None:
        writes = set(self._writes())
        assert not [tokens for tokens in self.executed if writes & set(tokens)], (
            "executed, and the client does not know"
        )

    def _at_once(self) -> list[int]:
        """Where the whole transaction was executed; it never was in part."""
        writes = self._writes()
        times = [place for place, tokens in enumerate(self.executed) if set(writes) & set(tokens)]
        assert all(self.executed[place] == writes for place in times), "executed in part"
        assert len(times) <= 1 or all(args[0] == b"SET" for args in self._queue()), "executed twice"
        return times

    def _subscription(self, args: list[bytes]) -> None:
        kind = args[0].lower()
        channels = [self._next() for _ in range(self._due(args))]
        named: list[Any] = args[1:] or self.channels or [None]
        assert sorted(one[1] for one in channels) == sorted(named), f"{args}: {channels}"
        assert all(one[0] == kind for one in channels), f"{args}: {channels}"
        gone = {one[1] for one in channels}
        self.channels = [one for one in self.channels if one not in gone]
        self.channels += args[1:] if kind == b"subscribe" else []
        assert channels[-1][2] == len(self.channels), f"{args}: {channels}"

    def _nothing_done_twice(self) -> None:
        """Also what was said and never answered, or only queued."""
        for args in self.story.said:
            times = sum(token(args) in tokens for tokens in self.executed)
            assert times <= 1 or args[0] in REPEATABLE, f"{args} was executed {times} times"
        if self.queue is not None and not self.story.left:
            self._not_executed()

    def _nothing_lost_thrice(self) -> None:
        for args in self.story.said:
            times = self.blamed.get(token(args), 0) if args[0] in _OF_DATA else 0
            assert times <= MOST_LOSSES, f"{args} ended {times} connections"

    def _is(self, args: list[bytes], reply: Any, expected: Any) -> None:
        assert reply == expected, f"{args} was answered {reply!r}, not {expected!r}"

    def _error(self, args: list[bytes], reply: Any, start: str | tuple[str, ...]) -> None:
        assert isinstance(reply, hiredis.ReplyError), f"{args} was answered {reply!r}, not -{start}..."
        assert str(reply).startswith(start), f"{args} was answered {reply!r}, not -{start}..."
