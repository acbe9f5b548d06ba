"""A tiny model of Redis behind the connections of a playbook: transactions, watches, subscriptions, refusals.

Every command carries a token and is answered `done:<token>`, so that each reply tells which command it belongs to. All
servers share one data set: replication is taken to be perfect, so that what is executed twice by mistake is noticed,
wherever that was.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from rfprotocol.resp import resp
from rfproxy.core.identity import Duty
from rfproxy.core.work_items import Form
from tests.support.playbook import FakeConnection, Playbook

OK = resp.simple("OK")
QUEUED = resp.simple("QUEUED")
READONLY = "READONLY You can't write against a read only replica."
LOADING = "LOADING Redis is loading the dataset in memory"

_WRITES = frozenset([b"SET", b"LPUSH", b"EVAL", b"BLPOP", b"MODULE.CMD"])
EFFECTS = _WRITES | {b"PUBLISH"}
"""What is done once. A replica, and a server that loads its data, publishes like any other."""
_WHILE_LOADING = frozenset(
    [
        *(b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH", b"SUBSCRIBE", b"UNSUBSCRIBE", b"CLIENT", b"SELECT"),
        b"PUBLISH",
    ]
)
_AT_ONCE = frozenset([b"EXEC", b"DISCARD", b"MULTI", b"WATCH"])


def token(args: list[bytes]) -> bytes:
    """What tells a command from all others; the last argument of BLPOP is its timeout."""
    return args[1] if args[0] == b"BLPOP" else args[-1]


@dataclass(frozen=True, slots=True)
class Fatal:
    """How a server closes the connection of a command, and lives: output limit, eviction of clients, CLIENT KILL."""

    executed: bool
    """Whether the command has taken effect."""
    replies_leave: bool
    """Whether the replies to the commands in front of it are sent before, or are lost with it."""
    times: int
    """How often that happens to it."""


class Link:
    """The server's end of one connection."""

    def __init__(self, connection: FakeConnection) -> None:
        self.connection = connection
        self.protocol = connection.lane.key.identity.protocol
        self.output = b""
        self.queue: list[list[bytes]] | None = None  # behind MULTI
        self.broken = False  # EXEC will fail
        self.watched: dict[bytes, int] = {}
        self.channels: list[bytes] = []
        self.written: list[int] = []  # places in `Model.executed` since WAIT was last asked
        self.said = b""  # all that the proxy has been given

    def confirmation(self, kind: str, channel: bytes | None) -> bytes:
        """What SUBSCRIBE and UNSUBSCRIBE are answered for one channel."""
        name = resp.null(self.protocol) if channel is None else resp.bulk(channel)
        return self.wrapped([resp.bulk(kind.encode()), name, resp.integer(len(self.channels))])

    def wrapped(self, parts: list[bytes]) -> bytes:
        """A message, as the protocol of the connection has it."""
        return resp.push(parts) if self.protocol == 3 else resp.array(parts)


class Model:
    """All servers, and what they have executed."""

    def __init__(self, play: Playbook) -> None:
        self.play = play
        self.executed: list[tuple[bytes, ...]] = []
        """Tokens of writes; those of one transaction together."""
        self.versions: dict[bytes, int] = {}
        self.readonly: set[str] = set()
        self.loading: set[str] = set()
        self.lagging = False  # no replica takes up what the master executes
        self.replicated: set[int] = set()
        """Places in `executed` that WAIT has confirmed on the same connection."""
        self.fatal: dict[bytes, Fatal] = {}
        """By token: commands whose connections are closed."""
        self.blamed: Counter[bytes] = Counter()
        """By token: connections that ended while this command was the oldest in flight; 0: behind others, twice."""
        self._met: set[bytes] = set()
        self._links: dict[FakeConnection, Link] = {}

    def links(self) -> list[Link]:
        """The connections that have something to say or to be told, also those that the proxy has closed."""
        links = [self._links.setdefault(connection, Link(connection)) for connection in self._connections()]
        return [link for link in links if link.connection.commands or (link.output and not link.connection.closed)]

    def sent(self) -> Counter[bytes]:
        """By token: how often a command was sent to a server."""
        requests = (resp.RequestReader().feed(b"".join(connection.writes)) for connection in self._connections())
        return Counter(token(args) for request in requests for args in request.commands if args[0] != b"WAIT")

    def _connections(self) -> list[FakeConnection]:
        return [connection for name in ("a:1", "b:1", "c:1") for connection in self.play.server(name).lanes]

    def serve(self, link: Link, most: int) -> None:
        """Execute commands that have arrived on a connection."""
        for _ in range(min(most, len(link.connection.commands))):
            args = link.connection.commands.pop(0)
            if fatal := self._fatal(link, args):
                self._close(link, args, fatal)
                return
            link.output += self._answer(link, args)

    def say(self, link: Link, most: int) -> None:
        """Send bytes of the replies, as many as arrive in one packet."""
        data, link.output = link.output[:most], link.output[most:]
        if data and not link.connection.closed:
            link.said += data
            link.connection.answers(data)

    def cut(self, name: str) -> None:
        """The server's connections are gone, with all that is on its way in both directions."""
        for link in self.links():
            if str(link.connection.lane.key.node) == name:
                link.connection.commands.clear()
                link.output = b""
        for connection in self.play.server(name).live:
            self._blame(connection)
        self.play.server(name).hangs_up()

    def _fatal(self, link: Link, args: list[bytes]) -> Fatal | None:
        """How the server closes the connection because of this command, if it does."""
        if link.connection.closed or self._rejection(link, args):
            return None
        executed = [args] if link.queue is None else link.queue if args[0] == b"EXEC" and not link.broken else []
        for one in executed:
            fatal = self.fatal.get(token(one))
            if fatal is not None:
                self.fatal[token(one)] = replace(fatal, times=fatal.times - 1)
                return fatal if fatal.times > 0 else None
        return None

    def _close(self, link: Link, args: list[bytes], fatal: Fatal) -> None:
        """Close one connection of a server that lives on."""
        connection = link.connection
        if fatal.replies_leave:
            self.say(link, len(link.output))
        if fatal.executed:
            self._answer(link, args)
        link.output = b""
        connection.commands.clear()
        if not connection.closed:
            self._blame(connection)
            connection.closed = True
            connection.lane.lose(self.play.time)
            self.play.settle()

    def _blame(self, connection: FakeConnection) -> None:
        """Remember the oldest command in flight, those behind it of the same client, and all others the second time.

        A transaction that travels as a whole is one command.
        """
        runs = [run for run in connection.lane.in_flight if run.form is not Form.RESTORE]
        for place, run in enumerate(runs):
            single = run.form in (Form.PLAIN, Form.CURSOR)
            tokens = [token(args) for args in (run.unanswered() if single else run.commands)]
            if place == 0:
                self.blamed.update(tokens[:1] if single else tokens)
            own = runs[0].session is run.session
            for one in tokens if own else self._met.intersection(tokens):
                self.blamed[one] += 0
            self._met.update(tokens)

    def suspect(self) -> None:
        """The topology changes: commands that servers were silent over may be taken for the cause."""
        for connection in self._connections():
            for run in connection.lane.in_flight if not connection.closed else ():
                for args in run.commands:
                    self.blamed[token(args)] += 0

    def publish(self, channel: bytes) -> None:
        """A message for everyone who is subscribed."""
        for link in self._links.values():
            if channel in link.channels and not link.connection.closed:
                link.output += link.wrapped([resp.bulk(part) for part in (b"message", channel, b"hello")])

    def _answer(self, link: Link, args: list[bytes]) -> bytes:
        name = args[0].upper()
        if error := self._rejection(link, args):
            return self._rejected(link, name, error)
        assert name != b"WAIT" or link.queue is None, "nobody waits inside of a transaction"
        if link.queue is not None and name not in _AT_ONCE:
            link.queue.append(args)
            return QUEUED
        if name in (b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH"):
            return self._transaction(link, name, args)
        if name in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            return self._subscription(link, name, args)
        if name == b"WAIT":
            return self._wait(link)
        if name == b"BLPOP":
            self._not_taken_before(args)
        if name in EFFECTS:
            self._executed(link, (token(args),))
        return self._effect(link, args)

    def _not_taken_before(self, args: list[bytes]) -> None:
        """What the proxy has received, nobody may take again, even if the client has not received it yet."""
        taken = any(self._effect(link, args) in link.said for link in self._links.values())
        assert not taken, f"{args} is executed again, and the proxy had its reply"

    def _executed(self, link: Link, tokens: tuple[bytes, ...]) -> None:
        link.written.append(len(self.executed))
        self.executed.append(tokens)

    def _rejection(self, link: Link, args: list[bytes]) -> str:
        """What the server says instead of executing or queueing a command (processCommand in server.c)."""
        server, name = str(link.connection.lane.key.node), args[0].upper()
        inside = link.queue if name == b"EXEC" and link.queue else []
        replica = server in self.readonly or link.connection.lane.key.duty is Duty.REPLICA
        if name == b"GET" and len(args) != 2:
            return "ERR wrong number of arguments for 'get' command"
        if server in self.loading and (
            name not in _WHILE_LOADING or any(one[0] not in _WHILE_LOADING for one in inside)
        ):
            return LOADING
        if replica and (name in _WRITES or any(one[0] in _WRITES for one in inside)):
            return READONLY
        return ""

    def _rejected(self, link: Link, name: bytes, error: str) -> bytes:
        if name == b"EXEC":
            self._end(link)
            return resp.error(f"EXECABORT Transaction discarded because of: {error}")
        link.broken = link.queue is not None
        return resp.error(error)

    def _end(self, link: Link) -> None:
        link.queue, link.broken, link.watched = None, False, {}

    def _transaction(self, link: Link, name: bytes, args: list[bytes]) -> bytes:
        if name == b"WATCH":
            if link.queue is not None:
                return resp.error("ERR WATCH inside MULTI is not allowed")
            link.watched.update({key: self.versions.get(key, 0) for key in args[1:]})
        elif name == b"UNWATCH":
            link.watched.clear()
        elif name == b"MULTI":
            if link.queue is not None:
                return resp.error("ERR MULTI calls can not be nested")
            link.queue = []
        elif link.queue is None:
            return resp.error(f"ERR {name.decode()} without MULTI")
        elif name == b"EXEC":
            return self._exec(link)
        else:
            self._end(link)
        return OK

    def _exec(self, link: Link) -> bytes:
        queue, broken = link.queue or [], link.broken
        touched = any(self.versions.get(key, 0) != version for key, version in link.watched.items())
        self._end(link)
        if broken:
            return resp.error("EXECABORT Transaction discarded because of previous errors.")
        if touched:
            return resp.null_array(link.protocol)
        if tokens := tuple(token(args) for args in queue if args[0] in EFFECTS):
            self._executed(link, tokens)
        return resp.array([self._effect(link, args) for args in queue])

    def _wait(self, link: Link) -> bytes:
        if str(link.connection.lane.key.node) in self.readonly:
            return resp.error("ERR WAIT cannot be used with replica instances.")
        written, link.written = link.written, []
        self.replicated.update(() if self.lagging else written)
        return resp.integer(0 if self.lagging else 2)

    def _subscription(self, link: Link, name: bytes, args: list[bytes]) -> bytes:
        replies = b""
        named: list[bytes | None] = [*(args[1:] or link.channels)]
        for channel in named or [None]:
            if channel in link.channels:
                link.channels.remove(channel)
            if name == b"SUBSCRIBE" and channel is not None:
                link.channels.append(channel)
            replies += link.confirmation(name.decode().lower(), channel)
        return replies

    def _effect(self, link: Link, args: list[bytes]) -> bytes:
        name, done = args[0].upper(), resp.bulk(b"done:" + token(args))
        if name in (b"SET", b"LPUSH"):
            self.versions[args[1]] = self.versions.get(args[1], 0) + 1
        if name == b"PING" and link.channels and link.protocol == 2:
            return resp.array([resp.bulk(b"pong"), done])
        if name == b"SCAN":
            return resp.array([resp.bulk(b"0"), resp.array([done])])
        if name == b"CLIENT":
            return resp.integer(7)
        return OK if name in (b"SELECT", b"UNWATCH") else done
