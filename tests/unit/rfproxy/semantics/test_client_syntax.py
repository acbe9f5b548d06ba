"""CLIENT for the proxy's own clients, held against what a real server answers for its connections."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import pytest

from rfprotocol.resp import resp
from rfprotocol.resp.reply_scanner import ReplyScanner
from rfproxy.semantics.client_syntax import (
    UNBLOCKED,
    ClientFlag,
    ClientInfo,
    ClientType,
    KillFilter,
    ListFilter,
    Pause,
    ReplyMode,
    Tracking,
    Unblock,
    good_name,
    kill_reply,
    line,
    listing,
    matches,
    parse_kill,
    parse_list,
    parse_on_off,
    parse_pause,
    parse_reply,
    parse_tracking,
    parse_unblock,
)
from tests.support.redis import RedisServer, wait_until

NOBODY = 9_000_000
"""An id that no client has."""


def test_good_name_takes_printable_bytes_without_blanks() -> None:
    assert good_name(b"!~")
    assert not any(map(good_name, [b"\x20", b"\x7f", b"\n", b"\xff"]))


class Connection:
    """One connection to a server, and what it answers as bytes."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection((server.node.host, server.node.port), timeout=10)
        self._scanner = ReplyScanner()
        self.id = int(self.ask(b"CLIENT ID")[1:])

    def say(self, command: bytes | Sequence[bytes]) -> None:
        """Send a command, as words or as text with blanks between them."""
        self._socket.sendall(resp.encode_command(command.split() if isinstance(command, bytes) else command))

    def ask(self, command: bytes | Sequence[bytes]) -> bytes:
        """Send a command and wait for its reply."""
        self.say(command)
        return self.answer()

    def answer(self) -> bytes:
        """The next reply; pushes are dropped."""
        while not (reply := self._scanner.take(1)).count:
            data = self._socket.recv(65536)
            assert data, "the server hung up"
            self._scanner.feed(data)
        return reply.data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server for all that leaves nothing behind in it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def connect(server: RedisServer) -> Iterator[Callable[[], Connection]]:
    """Connections, closed in the end."""
    connections: list[Connection] = []

    def new() -> Connection:
        connections.append(Connection(server))
        return connections[-1]

    yield new
    for connection in connections:
        connection.close()


# --- lines


def understood(text: bytes, flags: ClientFlag) -> ClientInfo:
    """What a line of a server says, save for the flags."""
    said = dict(re.findall(r"([a-z-]+)=(\S*)", text.decode()))
    # Compiled, a field's type is the class itself.
    of_type = {field.name: re.sub(r"<class '(.*)'>", r"\1", str(field.type)) for field in fields(ClientInfo)}
    read: dict[str, Callable[[str], object]] = {"int": int, "str": str, "bytes": str.encode}
    values: dict[str, Any] = {"flags": flags}
    for key, value in said.items():
        name = key.replace("-", "_")
        if name != "flags":
            values[name] = read[of_type[name]](value)
    return ClientInfo(**values)


SUBSCRIBED = ClientFlag.SUBSCRIBED
STATES: dict[str, tuple[list[bytes], ClientFlag]] = {
    "silent": ([], ClientFlag(0)),
    "named": ([b"CLIENT SETNAME me", b"SELECT 3"], ClientFlag(0)),
    "subscribed": ([b"SUBSCRIBE a", b"SUBSCRIBE b", b"PSUBSCRIBE a*"], SUBSCRIBED),
    "subscribed to a shard": ([b"SSUBSCRIBE a"], SUBSCRIBED),
    "in a transaction": ([b"MULTI", b"GET k", b"GET k"], ClientFlag.MULTI),
    "watching what was touched": ([b"WATCH watched", b"MULTI"], ClientFlag.MULTI | ClientFlag.DIRTY),
    "monitoring": ([b"MONITOR"], ClientFlag.MONITOR),
    "tracking": ([b"HELLO 3", b"CLIENT TRACKING ON"], ClientFlag.TRACKING),
    "tracking prefixes": ([b"HELLO 3", b"CLIENT TRACKING ON BCAST"], ClientFlag.TRACKING | ClientFlag.BROADCAST),
    "not to be evicted": ([b"CLIENT NO-EVICT ON"], ClientFlag.NO_EVICT),
    "blocked": ([b"BLPOP nothing 0"], ClientFlag.BLOCKED),
}


@pytest.mark.parametrize(("commands", "flags"), STATES.values(), ids=STATES.keys())
def test_a_line_is_that_of_a_real_server(
    connect: Callable[[], Connection], commands: list[bytes], flags: ClientFlag
) -> None:
    client, observer = connect(), connect()
    for command in commands:
        client.say(command)
        if not command.startswith(b"BLPOP"):
            client.answer()
    observer.ask(b"SET watched x")

    def seen() -> bytes:
        reply = observer.ask(b"CLIENT LIST ID %d" % client.id)
        return reply.partition(b"\r\n")[2].removesuffix(b"\r\n")

    last = commands[-1].split()[0].lower() if commands else b"client"
    wait_until(lambda: b" cmd=" + last in seen(), "the last command to be executed")
    text = seen()
    info = understood(text, flags)
    assert line(info) == text
    assert info.type is (ClientType.PUBSUB if SUBSCRIBED in flags else ClientType.NORMAL)


def test_each_flag_has_its_letter_and_none_is_n() -> None:
    someone = ClientInfo(id=1, addr="a:1", laddr="b:2", fd=3)
    assert b" flags=N " in line(someone)
    someone.flags = ~ClientFlag(0)
    assert b" flags=OPxbtRBdcuAUre " in line(someone)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_listing_comes_as_a_real_servers_does(connect: Callable[[], Connection], protocol: int) -> None:
    client, other = connect(), connect()
    client.ask(b"HELLO %d" % protocol)
    reply = client.ask(b"CLIENT LIST ID %d %d" % (client.id, other.id))
    texts = reply.removesuffix(b"\r\n").splitlines(keepends=True)[1:]
    texts[0] = texts[0].removeprefix(b"txt:")
    assert listing([understood(text, ClientFlag(0)) for text in texts], protocol) == reply


# --- refusals

REFUSED: dict[Callable[..., object], list[bytes | list[bytes]]] = {
    parse_list: [
        b"CLIENT LIST TYPE",
        b"CLIENT LIST TYPE x",
        b"CLIENT LIST TYPE normal x",
        [b"CLIENT", b"LIST", b"type\0x", b"a\r\nb\xff\0c"],
        b"CLIENT LIST ID",
        b"CLIENT LIST ID x",
        b"CLIENT LIST ID 1 01",
        b"CLIENT LIST ID +1",
        b"CLIENT LIST ID 9223372036854775808",
        b"CLIENT LIST x y",
        b"CLIENT LIST x",
    ],
    parse_kill: [
        b"CLIENT KILL x y",
        b"CLIENT KILL ID 0",
        b"CLIENT KILL ID -1",
        b"CLIENT KILL ID x",
        b"CLIENT KILL ID 9223372036854775808",
        b"CLIENT KILL ID 9000000 TYPE",
        b"CLIENT KILL x y TYPE foo",
        b"CLIENT KILL TYPE foo x",
        b"CLIENT KILL SKIPME maybe",
        b"CLIENT KILL MAXAGE 5",
        b"CLIENT KILL USER default x",
    ],
    parse_unblock: [
        b"CLIENT UNBLOCK x",
        b"CLIENT UNBLOCK 1.5",
        b"CLIENT UNBLOCK x y",
        b"CLIENT UNBLOCK 1 ERROR z",
        b"CLIENT unBlock 1 ERROR z",
    ],
    parse_pause: [
        b"CLIENT PAUSE x",
        b"CLIENT PAUSE -1",
        b"CLIENT PAUSE -0",
        b"CLIENT PAUSE 9223372036854775808",
        b"CLIENT PAUSE x y",
        b"CLIENT PAUSE -1 write",
        b"CLIENT PAUSE 0 all z",
    ],
    parse_reply: [b"CLIENT REPLY x", [b"CLIENT", b"REPLY", b""]],
    parse_on_off: [b"CLIENT NO-EVICT x"],
    parse_tracking: [
        b"CLIENT TRACKING x",
        b"CLIENT TRACKING x BCAST PREFIX a PREFIX a",
        b"CLIENT TRACKING on x",
        b"CLIENT TRACKING off x",
        b"CLIENT TRACKING on REDIRECT",
        b"CLIENT TRACKING on REDIRECT x y",
        b"CLIENT TRACKING on REDIRECT 0",
        b"CLIENT TRACKING on REDIRECT -1",
        b"CLIENT TRACKING on BCAST PREFIX",
        b"CLIENT TRACKING on PREFIX a OPTIN OPTOUT",
        b"CLIENT TRACKING on BCAST OPTIN PREFIX a PREFIX a",
        b"CLIENT TRACKING on BCAST OPTOUT",
        b"CLIENT TRACKING on OPTIN OPTOUT",
        b"CLIENT TRACKING on BCAST PREFIX b PREFIX a PREFIX ab",
        b"CLIENT TRACKING on BCAST PREFIX ab PREFIX a",
        [b"CLIENT", b"TRACKING", b"on", b"BCAST", b"PREFIX", b"a\0b", b"PREFIX", b"a\0bc"],
    ],
}


@pytest.mark.parametrize(
    ("parse", "command"),
    [(parse, command) for parse, commands in REFUSED.items() for command in commands],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_a_refusal_is_in_the_words_of_a_real_server(
    connect: Callable[[], Connection], parse: Callable[..., object], command: bytes | list[bytes]
) -> None:
    args = command.split() if isinstance(command, bytes) else command
    refusal = parse(args)
    assert isinstance(refusal, str)
    assert resp.error(refusal) == connect().ask(args)


def test_a_client_can_be_redirected_to_one_other_only(connect: Callable[[], Connection]) -> None:
    client, other = connect(), connect()
    args = b"CLIENT TRACKING on REDIRECT %d REDIRECT x" % other.id
    refusal = parse_tracking(args.split())
    assert isinstance(refusal, str)
    assert resp.error(refusal) == client.ask(args)


# --- what is asked for

ASKED: list[tuple[Callable[..., object], bytes, object]] = [
    (parse_list, b"CLIENT LIST", ListFilter()),
    (parse_list, b"client list type Normal", ListFilter(type=ClientType.NORMAL)),
    (parse_list, b"CLIENT LIST TYPE slave", ListFilter(type=ClientType.REPLICA)),
    (parse_list, b"CLIENT LIST TYPE replica", ListFilter(type=ClientType.REPLICA)),
    (parse_list, b"CLIENT LIST TYPE master", ListFilter(type=ClientType.MASTER)),
    (parse_list, b"CLIENT LIST ID 3 -1 0 3", ListFilter(ids=(3, -1, 0, 3))),
    (parse_kill, b"CLIENT KILL a:1", KillFilter(addr="a:1", skip_me=False, old_style=True)),
    (parse_kill, b"CLIENT KILL TYPE", KillFilter(addr="TYPE", skip_me=False, old_style=True)),
    (parse_kill, b"CLIENT KILL id 9000000 ID 9000001", KillFilter(id=9_000_001)),
    (
        parse_kill,
        b"CLIENT KILL ADDR a:1 LADDR b:2 TYPE pubsub USER default SKIPME no",
        KillFilter(addr="a:1", laddr="b:2", type=ClientType.PUBSUB, user=b"default", skip_me=False),
    ),
    (parse_unblock, b"CLIENT UNBLOCK 9000000", Unblock(NOBODY)),
    (parse_unblock, b"CLIENT UNBLOCK -9000000 timeout", Unblock(-NOBODY)),
    (parse_unblock, b"CLIENT UNBLOCK 9000000 ERROR", Unblock(NOBODY, with_error=True)),
    (parse_pause, b"CLIENT PAUSE 0", Pause(0)),
    (parse_pause, b"CLIENT PAUSE 1 all", Pause(1)),
    (parse_pause, b"CLIENT PAUSE 1 WRITE", Pause(1, writes_only=True)),
    (parse_reply, b"CLIENT REPLY on", ReplyMode.ON),
    (parse_on_off, b"CLIENT NO-EVICT ON", True),
    (parse_on_off, b"CLIENT NO-EVICT off", False),
    (parse_tracking, b"CLIENT TRACKING on", Tracking(True)),
    (parse_tracking, b"CLIENT TRACKING ON noloop OPTIN", Tracking(True, options=frozenset(["NOLOOP", "OPTIN"]))),
    (
        parse_tracking,
        b"CLIENT TRACKING on PREFIX a BCAST PREFIX ba BCAST",
        Tracking(True, options=frozenset(["BCAST"]), prefixes=(b"a", b"ba")),
    ),
    (
        parse_tracking,
        b"CLIENT TRACKING OFF BCAST OPTIN OPTOUT",
        Tracking(False, options=frozenset(["BCAST", "OPTIN", "OPTOUT"])),
    ),
]


@pytest.mark.parametrize(
    ("parse", "command", "wanted"), ASKED, ids=lambda value: getattr(value, "__name__", repr(value))
)
def test_what_a_real_server_does_is_understood(
    connect: Callable[[], Connection], parse: Callable[..., object], command: bytes, wanted: object
) -> None:
    assert parse(command.split()) == wanted
    reply = connect().ask(command)
    assert not reply.startswith(b"-") or reply == b"-ERR No such client\r\n"


@pytest.mark.parametrize(("mode", "wanted"), [(b"off", ReplyMode.OFF), (b"SKIP", ReplyMode.SKIP)])
def test_only_on_is_answered(connect: Callable[[], Connection], mode: bytes, wanted: ReplyMode) -> None:
    command = b"CLIENT REPLY " + mode
    assert parse_reply(command.split()) is wanted
    client = connect()
    client.say(command)
    client.say(b"PING")
    assert client.ask(b"CLIENT REPLY ON") == b"+OK\r\n"


def test_a_redirection_names_a_client(connect: Callable[[], Connection]) -> None:
    client, other = connect(), connect()
    command = b"CLIENT TRACKING on REDIRECT %d" % other.id
    assert parse_tracking(command.split()) == Tracking(True, redirect=other.id)
    assert client.ask(command) == b"+OK\r\n"


def test_a_pause_beyond_all_clocks_is_none(connect: Callable[[], Connection]) -> None:
    command = b"CLIENT PAUSE 9223372036854775807"
    assert parse_pause(command.split()) == Pause(0)
    client = connect()
    assert client.ask(command) == b"+OK\r\n"
    assert client.ask(b"PING") == b"+PONG\r\n"
    long = 2**63 - 1 - 2**41
    assert parse_pause([b"CLIENT", b"PAUSE", b"%d" % long]) == Pause(long)


def test_a_command_that_is_ended_with_an_error_gets_the_words_of_a_real_server(
    connect: Callable[[], Connection],
) -> None:
    client, other = connect(), connect()
    client.say(b"BLPOP nothing 0")
    wait_until(lambda: other.ask(b"CLIENT UNBLOCK %d ERROR" % client.id) == b":1\r\n", "the client to block")
    assert client.answer() == resp.error(UNBLOCKED)


# --- which clients

ONE = ClientInfo(id=1, addr="a:1", laddr="p:9", fd=5)
TWO = ClientInfo(id=2, addr="a:2", laddr="p:9", fd=6, user=b"bob")
SUBSCRIBER = ClientInfo(id=3, addr="[::1]:3", laddr="q:9", fd=7, flags=SUBSCRIBED | ClientFlag.BLOCKED)
ALL = [ONE, TWO, SUBSCRIBER]


def test_the_list_shows_all_or_a_type_or_those_that_are_named() -> None:
    assert ListFilter().select(ALL) == ALL
    assert ListFilter(type=ClientType.NORMAL).select(ALL) == [ONE, TWO]
    assert ListFilter(type=ClientType.PUBSUB).select(ALL) == [SUBSCRIBER]
    assert ListFilter(type=ClientType.MASTER).select(ALL) == []
    assert ListFilter(ids=(3, 9, 1, 3)).select(ALL) == [SUBSCRIBER, ONE, SUBSCRIBER]


def killed(options: bytes, caller: int) -> list[int]:
    """The ids of those who are hung up on."""
    wanted = parse_kill(b"CLIENT KILL".split() + options.split())
    assert isinstance(wanted, KillFilter)
    return [info.id for info in ALL if matches(wanted, info, caller)]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (b"a:1", [1]),
        (b"a:9", []),
        (b"[::1]:3", [3]),
        (b"ID 2", [2]),
        (b"ID 1", []),
        (b"ID 1 SKIPME no", [1]),
        (b"TYPE normal", [2]),
        (b"TYPE normal SKIPME no", [1, 2]),
        (b"TYPE pubsub", [3]),
        (b"TYPE replica", []),
        (b"USER bob", [2]),
        (b"ADDR a:2", [2]),
        (b"LADDR p:9", [2]),
        (b"LADDR p:9 SKIPME no", [1, 2]),
        (b"LADDR p:9 ADDR [::1]:3", []),
        (b"SKIPME yes", [2, 3]),
        (b"SKIPME no", [1, 2, 3]),
    ],
)
def test_killed_is_who_meets_all_conditions_and_not_the_caller_unless_asked(options: bytes, ids: list[int]) -> None:
    assert killed(options, caller=1) == ids


def test_the_old_form_says_whether_and_the_new_one_how_many() -> None:
    old, new = KillFilter(addr="a:1", skip_me=False, old_style=True), KillFilter(id=1)
    assert kill_reply(old, 1) == b"+OK\r\n"
    assert kill_reply(old, 0) == b"-ERR No such client\r\n"
    assert [kill_reply(new, count) for count in (0, 1, 7)] == [b":0\r\n", b":1\r\n", b":7\r\n"]
