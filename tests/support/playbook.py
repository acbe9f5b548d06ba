"""A conversation with the proxy's core, played without sockets.

    play = Playbook()
    play.topology(master="a:1", replicas=["b:1"])
    client = play.client()
    client.says("SET", "k", "v")
    play.server("a:1").hears("SET", "k", "v").answers(b"+OK\\r\\n")
    client.hears(b"+OK\\r\\n")

`hears` fails with what was there instead; `hears_nothing` says that nothing was. Time stands still until `wait`.
A server greets each new connection as the topology expects it to, unless told otherwise.

    server.users = {"app": User("pw", may_not={"ROLE", "INFO"})}

gives it users with rights, of whom each new connection is `default` first; what is refused to one stands in `acl_log`.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

import hiredis

from rfprotocol.network.tcp_info import TcpInfo
from rfprotocol.resp.resp import RequestReader, encode_command
from rfprotocol.topology.topology import Change, Kind, Node, Phase, Topology
from rfproxy.core.counters import Stats
from rfproxy.core.identity import Duty
from rfproxy.core.peers import first_number
from rfproxy.core.policy import Policy
from rfproxy.health.server_silence import LISTEN_EVERY
from rfproxy.routing.durable_router import create_router
from rfproxy.routing.lease import Lease
from rfproxy.session.session import Session
from rfproxy.upstream.connection import Lane, LaneState


class SilentLog:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        """Keep a line."""
        self.lines.append((event, fields))

    warning = info

    def events(self, name: str) -> list[dict[str, object]]:
        """The lines of one kind."""
        return [fields for event, fields in self.lines if event == name]


class Playbook:
    """The world around a router: servers, clients, a clock, and the shell."""

    def __init__(self, policy: Policy | None = None, *, process: int = 0, spares: int = 0) -> None:
        """`process`: the worker that this is, when there are several (`tests.support.joined`).

        `spares`: dedicated connections that are held ready; without them, each that is opened has been asked for.
        """
        self.time = 1000.0
        self.lease = Lease()
        self.stats = Stats()
        self.log = SilentLog()
        self.acknowledged: list[int] = []
        self.alarm: float | None = None
        self.told_busy: list[dict[str, str]] = []
        self.router = create_router(replace(policy or Policy(), spares=spares), self, self.lease, self.stats, self.log)
        self._servers: dict[str, FakeServer] = {}
        self._flush = False
        first = first_number(process) + 1
        self._numbers = iter(range(first, first + 1000, 2))  # even: with two replicas, the first one is read from
        self.lease.renew(self.time, 1e9)

    # --- the shell of the router

    def connect(self, lane: Lane) -> None:
        """A lane is opened."""
        self.server(str(lane.key.node)).opened(lane)

    def flush_soon(self) -> None:
        """The turn of the loop ends when the script goes on."""
        self._flush = True

    def wake_at(self, when: float) -> None:
        """Keep the earliest alarm."""
        self.alarm = when if self.alarm is None else min(self.alarm, when)

    def kernel(self, lane: Lane) -> TcpInfo | None:
        """What the kernel knows of a connection."""
        return self.server(str(lane.key.node)).kernel

    def report_busy(self) -> None:
        """Keep what is told to the managers."""
        self.told_busy.append({str(node): what.command for node, what in self.router.watch.busy.items()})

    def acknowledge(self, epoch: int) -> None:
        """Keep what was acknowledged."""
        self.acknowledged.append(epoch)

    # --- the script

    def settle(self) -> None:
        """Let everything happen that can without more input."""
        moving = True
        while moving:
            moving = False
            if self._flush:
                self._flush, moving = False, True
                self.router.flush(self.time)
            for server in list(self._servers.values()):
                moving = server.accept() or moving

    def wait(self, seconds: float) -> None:
        """Let time pass; alarms ring when they are due."""
        end = self.time + seconds
        while self.alarm is not None and self.alarm <= end:
            self.time, self.alarm = max(self.time, self.alarm), None
            self.router.tick(self.time)
            self.settle()
        self.time = end

    def listen(self, seconds: float) -> None:
        """Let time pass, in which the shell has the router look at what is unanswered."""
        for _ in range(round(seconds / LISTEN_EVERY)):
            self.wait(LISTEN_EVERY)
            self.router.watch.look(self.time)
            self.settle()

    def server(self, name: str) -> FakeServer:
        """The server at that address."""
        if name not in self._servers:
            self._servers[name] = FakeServer(self, Node.parse(name))
        return self._servers[name]

    def client(self) -> FakeClient:
        """A new client."""
        return FakeClient(self, next(self._numbers))

    def topology(
        self,
        epoch: int = 1,
        master: str | None = None,
        replicas: Iterable[str] = (),
        *,
        draining: tuple[str, str] | None = None,
        run_id: str = "",
    ) -> None:
        """Put a topology in force; without a master it is FENCING, or DRAINING from one node to another."""
        phase = Phase.SERVING if master else Phase.DRAINING if draining else Phase.FENCING
        change = None
        if draining:
            former, target = map(Node.parse, draining)
            change = Change(Kind.SWITCHOVER, "asked for", former, target)
        nodes = tuple(Node.parse(name) for name in replicas)
        topology = Topology(epoch, phase, Node.parse(master) if master else None, nodes, run_id=run_id, change=change)
        self.router.apply(topology, self.time)
        self.settle()


@dataclass(frozen=True)
class User:
    """One of a server's users: the password, and the commands of the greeting that it has no right to."""

    password: str = ""
    may_not: Set[str] = frozenset()


class FakeServer:
    """What connections to one address hear and say."""

    def __init__(self, play: Playbook, node: Node) -> None:
        self.node = node
        self.refuses = False  # connections
        self.kernel: TcpInfo | None = None  # of all its connections
        self.silent = False  # it does not even greet
        self.role: bytes | None = None  # the reply to ROLE, when it is not what the lane hopes for
        self.run_id = ""
        self.version = "7.0.15"
        self.denies: dict[bytes, bytes] = {}  # name of a greeting command: error reply
        self.users: dict[
            str, User
        ] = {}  # empty: whoever comes may do everything; without "default" nobody may at first
        self.acl_log: list[tuple[str, str]] = []  # user and command
        self.turns_away = b""  # each new connection, with these bytes, as Redis does at maxclients
        self.lanes: list[FakeConnection] = []
        self._play = play
        self.full = False  # as Redis at maxclients: one error, then the end, whatever the connection was asked
        self.refused = 0  # connections while it was full
        self._waiting: list[Lane] = []

    def opened(self, lane: Lane) -> None:
        """A connection is asked for."""
        self._waiting.append(lane)

    def accept(self) -> bool:
        """Accept or refuse what is waiting; whether there was anything."""
        waiting, self._waiting = self._waiting, []
        for lane in waiting:
            if self.refuses:
                lane.lose(self._play.time)
            elif self.full:
                self.refused += 1
                lane.connected(FakeConnection(self._play, self, lane))
                lane.feed(b"-ERR max number of clients reached\r\n", self._play.time)
                lane.lose(self._play.time)
            else:
                connection = FakeConnection(self._play, self, lane)
                self.lanes.append(connection)
                lane.connected(connection)
        greeted = [connection.greet() or connection.answers_probe() for connection in self.lanes]
        return bool(waiting) or any(greeted)

    @property
    def live(self) -> list[FakeConnection]:
        """Connections that are not closed."""
        return [connection for connection in self.lanes if not connection.closed]

    def hears(self, *command: str | bytes, exclusive: bool = False) -> FakeConnection:
        """The next command on one of the connections is this one; returns the connection, to answer on."""
        self._play.settle()
        wanted = _bytes(command)
        candidates = [c for c in self.live if c.commands and (c.lane.guest is not None) == exclusive]
        for connection in candidates:
            if connection.commands[0] == wanted:
                connection.commands.pop(0)
                return connection
        heard = {str(self.node): [c.commands for c in self.live]}
        raise AssertionError(f"{self.node} did not hear {wanted}; heard instead: {heard}")

    def hears_nothing(self) -> None:
        """No command is waiting to be heard."""
        self._play.settle()
        heard = [c.commands for c in self.live if c.commands]
        assert not heard, f"{self.node} heard {heard}"

    def dies(self) -> None:
        """Every connection is closed, and none is accepted."""
        self.refuses = True
        self.hangs_up()

    def hangs_up(self) -> None:
        """Every connection is closed."""
        for connection in self.live:
            connection.closed = True
            connection.lane.lose(self._play.time)
        self._play.settle()


class FakeConnection:
    """One lane, seen from the server."""

    def __init__(self, play: Playbook, server: FakeServer, lane: Lane) -> None:
        self.lane = lane
        self.read = True
        self.client_id = 7000 + len(server.lanes)
        self.closed = False
        self.probed = False
        """Whether it is asked if the server is still there, and has not answered."""
        self.commands: list[list[bytes]] = []
        self.greeted: list[list[bytes]] = []
        self.writes: list[bytes] = []
        self.user = "default"
        self._play = play
        self._server = server
        self._reader = RequestReader()

    def write(self, data: bytes) -> None:
        """The lane sends."""
        assert not self.closed, f"{self._server.node}: written to after it was closed: {data!r}"
        self.writes.append(data)
        requests = self._reader.feed(data)
        assert requests.error is None
        if self.lane.state is LaneState.PROBING:
            assert requests.commands == [[b"HELLO"]]
            assert not self.probed, "it is asked twice"
            self.probed = True
        else:
            self.commands += requests.commands

    def pause_reading(self) -> None:
        """The lane lets what is sent wait."""
        self.read = False

    def resume_reading(self) -> None:
        """The lane reads again."""
        self.read = True

    def abort(self) -> None:
        """The lane is closed."""
        self.closed = True

    def greet(self) -> bool:
        """Answer the greeting, if it is what comes next."""
        if self._server.silent or self.closed or self.lane.state is not LaneState.GREETING or not self.commands:
            return False
        self.greeted, self.commands = self.commands, []
        if self._server.turns_away:
            self.lane.feed(self._server.turns_away, self._play.time)
            self.closed = True
            self.lane.lose(self._play.time)
            return True
        self.lane.feed(b"".join(self._greeting_reply(args) for args in self.greeted), self._play.time)
        return True

    def answers_probe(self) -> bool:
        """Answer the proxy's question whether the server is there, if it is what comes next."""
        if self._server.silent or self.closed or not self.probed:
            return False
        self.probed = False
        self.lane.feed(self._hello(self.lane.key.identity.protocol), self._play.time)
        return True

    def _greeting_reply(self, args: list[bytes]) -> bytes:
        return self._refusal(args) or self._granted(args)

    def _refusal(self, args: list[bytes]) -> bytes:
        name, users = args[0], self._server.users
        if name in self._server.denies:
            return self._server.denies[name]
        if name == b"AUTH" or not users:
            return b""
        if self.user not in users:
            return b"-NOAUTH Authentication required.\r\n"
        if name.decode() not in users[self.user].may_not:
            return b""
        self._server.acl_log.append((self.user, name.decode()))
        return b"-NOPERM this user has no permissions to run the '%b' command\r\n" % name.lower()

    def _granted(self, args: list[bytes]) -> bytes:
        name = args[0]
        if name == b"AUTH" and self._server.users:
            return self._authenticated((args[1] if len(args) == 3 else b"default").decode(), args[-1].decode())
        if name == b"ROLE":
            master = b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"
            replica = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"
            return self._server.role or (replica if self.lane.key.duty is Duty.REPLICA else master)
        if name == b"INFO":
            text = f"redis_version:{self._server.version}\r\nrun_id:{self._server.run_id}\r\n".encode()
            return b"$%d\r\n%b\r\n" % (len(text), text)
        if name == b"CLIENT":
            return b":%d\r\n" % self.client_id
        return self._hello(int(args[1])) if name == b"HELLO" else b"+OK\r\n"

    def _authenticated(self, name: str, password: str) -> bytes:
        user = self._server.users.get(name)
        if user is None or user.password != password:
            self._server.acl_log.append((name, "AUTH"))
            return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        self.user = name
        return b"+OK\r\n"

    def _hello(self, protocol: int) -> bytes:
        role = self._server.role or (b"slave" if self.lane.key.duty is Duty.REPLICA else b"master")
        fields = {"version": self._server.version, "role": "replica" if b"slave" in role else "master"}
        words = "".join(f"${len(word)}\r\n{word}\r\n" for pair in fields.items() for word in pair)
        return f"{'%3' if protocol == 3 else '*6'}\r\n{words}$2\r\nid\r\n:{self.client_id}\r\n".encode()

    def answers(self, data: bytes) -> FakeConnection:
        """Send bytes to the proxy."""
        self.lane.feed(data, self._play.time)
        self._play.settle()
        return self


class FakeClient:
    """A client without a socket."""

    def __init__(self, play: Playbook, number: int) -> None:
        self.closed = False
        self.fd = -1
        self.unread = 0
        self.output = b""
        self.resumed = 0
        self._play = play
        self.session = Session(number, f"client:{number}", self, play.router, now=play.time)

    def write(self, data: bytes) -> None:
        """The session answers."""
        if not self.closed:
            self.output += data

    def close(self) -> None:
        """The session hangs up."""
        self.closed = True

    def abort(self) -> None:
        """The session is hung up on."""
        self.closed = True

    def resume(self) -> None:
        """The session has caught up: count it."""
        self.resumed += 1

    def says(self, *command: str | bytes) -> FakeClient:
        """Send one command."""
        return self.sends(encode_command(_bytes(command)))

    def pipelines(self, *commands: str) -> FakeClient:
        """Send several commands in one packet, each given as words."""
        return self.sends(b"".join(encode_command(_bytes(text.split())) for text in commands))

    def sends(self, data: bytes) -> FakeClient:
        """Send bytes."""
        self.session.feed(data, self._play.time)
        self._play.settle()
        return self

    def hears(self, data: bytes) -> None:
        """These bytes, and nothing else, have arrived since the last time."""
        self._play.settle()
        output, self.output = self.output, b""
        assert output == data, f"the client heard {output!r}, not {data!r}"

    def hears_error(self, start: str) -> str:
        """One error that starts like this has arrived; returns it."""
        self._play.settle()
        output, self.output = self.output, b""
        assert output.startswith(b"-" + start.encode()), f"the client heard {output!r}, not -{start}..."
        assert output.count(b"\r\n") == 1, f"the client heard more than one error: {output!r}"
        return output.decode()

    def hears_nothing(self) -> None:
        """Nothing has arrived."""
        self.hears(b"")

    def hangs_up(self) -> None:
        """Close the sending half, and go on reading."""
        self.session.finish(self._play.time)
        if self.closed:
            self.session.close(self._play.time)  # as when the transport is closed
        self._play.settle()

    def leaves(self) -> None:
        """Close the connection."""
        self.closed = True
        self.session.close(self._play.time)
        self._play.settle()


def _bytes(command: Iterable[str | bytes]) -> list[bytes]:
    return [word.encode() if isinstance(word, str) else word for word in command]


def reply(data: bytes) -> object:
    """Decode one reply."""
    reader = hiredis.Reader()
    reader.feed(data)
    value: object = reader.gets()
    return value
