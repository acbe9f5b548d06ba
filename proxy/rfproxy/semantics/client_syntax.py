"""CLIENT for the proxy's own clients: the lines of CLIENT LIST and INFO, and the arguments of its other commands.

All to the byte as Redis 7.0.15 has it (networking.c: catClientInfoString, clientCommand), errors included. `args` are
those of the whole command, from `CLIENT` on; their number agrees with the command table. What a parser returns as a
`str` is the error to be answered, without the dash, for `resp.error`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, Flag, auto
from functools import wraps
from itertools import combinations
from typing import ParamSpec, TypeVar

from rfprotocol.resp import resp

P = ParamSpec("P")
T = TypeVar("T")

_SYNTAX = "ERR syntax error"
_NO_INTEGER = "ERR value is not an integer or out of range"
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")  # string2ll of util.c
_LARGEST = 2**63 - 1
_TIMESTAMPS = 2**41  # above every time in milliseconds before the year 2039


# --- a client and its line


def good_name(name: bytes) -> bool:
    """Whether a client may be called so (validateClientName in networking.c)."""
    return all(33 <= byte <= 126 for byte in name)


class ClientFlag(Flag):
    """What a line shows of the state of a client, in this order."""

    MONITOR = auto()
    SUBSCRIBED = auto()
    MULTI = auto()
    BLOCKED = auto()
    TRACKING = auto()
    REDIRECT_BROKEN = auto()
    BROADCAST = auto()
    DIRTY = auto()
    """A key that it watches was touched."""
    CLOSING = auto()
    """It is hung up on once its replies are sent."""
    UNBLOCKED = auto()
    CLOSE_NOW = auto()
    UNIX_SOCKET = auto()
    READONLY = auto()
    NO_EVICT = auto()


_NO_FLAGS = ClientFlag(0)
_LETTERS = dict(zip(ClientFlag, "OPxbtRBdcuAUre", strict=True))


class ClientType(Enum):
    """What CLIENT LIST and KILL call a type. Clients of a proxy are NORMAL or PUBSUB."""

    NORMAL = "normal"
    REPLICA = "replica"
    PUBSUB = "pubsub"
    MASTER = "master"


_TYPES = {b"SLAVE": ClientType.REPLICA, **{one.value.upper().encode(): one for one in ClientType}}


@dataclass(slots=True, kw_only=True)
class ClientInfo:
    """One client, as a line shows it. Times in seconds, sizes in bytes; addresses as `host:port`, `[v6]:port`."""

    id: int
    addr: str
    laddr: str
    fd: int
    name: bytes = b""
    age: int = 0
    idle: int = 0
    flags: ClientFlag = _NO_FLAGS
    db: int = 0
    sub: int = 0
    psub: int = 0
    ssub: int = 0
    multi: int = -1
    """Commands queued behind MULTI; -1 without one."""
    qbuf: int = 0
    qbuf_free: int = 0
    argv_mem: int = 0
    multi_mem: int = 0
    rbs: int = 0
    rbp: int = 0
    obl: int = 0
    oll: int = 0
    omem: int = 0
    tot_mem: int = 0
    events: str = "r"
    cmd: str = "NULL"
    """The last command in lower case, such as `get` or `client|list`."""
    user: bytes = b"default"
    redir: int = -1
    """The client that invalidations go to; 0 is this one, -1 means no tracking."""
    resp: int = 2

    @property
    def type(self) -> ClientType:
        """A client that only monitors is a normal one."""
        return ClientType.PUBSUB if ClientFlag.SUBSCRIBED in self.flags else ClientType.NORMAL


def line(info: ClientInfo) -> bytes:
    """The line of one client, with its end."""
    flags = "".join(letter for flag, letter in _LETTERS.items() if flag in info.flags) or "N"
    return (
        b"id=%d addr=%b laddr=%b fd=%d name=%b age=%d idle=%d flags=%b db=%d sub=%d psub=%d ssub=%d multi=%d "
        b"qbuf=%d qbuf-free=%d argv-mem=%d multi-mem=%d rbs=%d rbp=%d obl=%d oll=%d omem=%d tot-mem=%d "
        b"events=%b cmd=%b user=%b redir=%d resp=%d\n"
    ) % (
        *(info.id, info.addr.encode(), info.laddr.encode(), info.fd, info.name, info.age, info.idle, flags.encode()),
        *(info.db, info.sub, info.psub, info.ssub, info.multi),
        *(info.qbuf, info.qbuf_free, info.argv_mem, info.multi_mem),
        *(info.rbs, info.rbp, info.obl, info.oll, info.omem, info.tot_mem),
        *(info.events.encode(), info.cmd.encode(), info.user, info.redir, info.resp),
    )


def listing(clients: Iterable[ClientInfo], protocol: int) -> bytes:
    """The reply to CLIENT LIST; with one client that to CLIENT INFO."""
    return verbatim(b"".join(map(line, clients)), protocol)


def verbatim(text: bytes, protocol: int) -> bytes:
    """Text for people: a verbatim string in RESP3."""
    return b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text) if protocol == 3 else resp.bulk(text)


# --- reading arguments


class _Refused(Exception):
    """The arguments are answered with this error; never leaves the module."""


def _refusing(parse: Callable[P, T]) -> Callable[P, T | str]:
    """The error as what the parser returns."""

    @wraps(parse)
    def refusing(*args: P.args, **kwargs: P.kwargs) -> T | str:
        try:
            return parse(*args, **kwargs)
        except _Refused as refusal:
            return str(refusal)

    return refusing


def _text(arg: bytes) -> str:
    """An argument as a C string, up to its first NUL; `resp.error` turns the characters back into the same bytes."""
    return arg.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _word(arg: bytes) -> bytes:
    return arg.partition(b"\0")[0].upper()


def _integer(arg: bytes, refusal: str = _NO_INTEGER) -> int:
    value = int(arg) if _INTEGER.fullmatch(arg) else _LARGEST + 1
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise _Refused(refusal)
    return value


def _choice(arg: bytes, choices: dict[bytes, T], refusal: str = _SYNTAX) -> T:
    try:
        return choices[_word(arg)]
    except KeyError:
        raise _Refused(refusal) from None


def _type(arg: bytes) -> ClientType:
    return _choice(arg, _TYPES, f"ERR Unknown client type '{_text(arg)}'")


def _at_most(args: Sequence[bytes], most: int) -> None:
    if len(args) > most:
        called = _text(args[1][:128])
        raise _Refused(f"ERR unknown subcommand or wrong number of arguments for '{called}'. Try CLIENT HELP.")


# --- LIST and KILL


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which clients CLIENT LIST shows: these ids in this order, also twice, or all of a type, or all."""

    type: ClientType | None = None
    ids: tuple[int, ...] | None = None

    def select(self, clients: Iterable[ClientInfo]) -> list[ClientInfo]:
        """Those to be shown, in the order in which they are."""
        if self.ids is None:
            return [client for client in clients if self.type in (None, client.type)]
        by_id = {client.id: client for client in clients}
        return [by_id[number] for number in self.ids if number in by_id]


@_refusing
def parse_list(args: Sequence[bytes]) -> ListFilter:
    """CLIENT LIST [TYPE type | ID id ...]."""
    if len(args) == 2:
        return ListFilter()
    option = _word(args[2])
    if option == b"TYPE" and len(args) == 4:
        return ListFilter(type=_type(args[3]))
    if option == b"ID" and len(args) > 3:
        return ListFilter(ids=tuple(_integer(arg, "ERR Invalid client ID") for arg in args[3:]))
    raise _Refused(_SYNTAX)


@dataclass(frozen=True, slots=True)
class KillFilter:
    """Which clients CLIENT KILL hangs up on: those for which all that is not None holds."""

    id: int | None = None
    type: ClientType | None = None
    user: bytes | None = None
    addr: str | None = None
    laddr: str | None = None
    skip_me: bool = True
    old_style: bool = False
    """CLIENT KILL addr: the reply says whether there was one, instead of how many."""


_YES_NO = {b"YES": True, b"NO": False}


@_refusing
def parse_kill(args: Sequence[bytes]) -> KillFilter:
    """CLIENT KILL addr, or CLIENT KILL [ID id] [TYPE type] [USER name] [ADDR addr] [LADDR addr] [SKIPME yes|no].

    Whether there is such a user is for the server to say.
    """
    if len(args) == 3:
        return KillFilter(addr=_text(args[2]), skip_me=False, old_style=True)
    found = KillFilter()
    for option, value in _pairs(args[2:]):
        match option:
            case b"ID":
                found = replace(found, id=_client_id(value))
            case b"TYPE":
                found = replace(found, type=_type(value))
            case b"USER":
                found = replace(found, user=value)
            case b"ADDR":
                found = replace(found, addr=_text(value))
            case b"LADDR":
                found = replace(found, laddr=_text(value))
            case b"SKIPME":
                found = replace(found, skip_me=_choice(value, _YES_NO))
            case _:
                raise _Refused(_SYNTAX)
    return found


def _pairs(args: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """Options and their values; the error about a missing value comes when its turn has come."""
    for place in range(0, len(args), 2):
        if place + 1 == len(args):
            raise _Refused(_SYNTAX)
        yield _word(args[place]), args[place + 1]


def _client_id(arg: bytes) -> int:
    refusal = "ERR client-id should be greater than 0"
    number = _integer(arg, refusal)
    if number < 1:
        raise _Refused(refusal)
    return number


def matches(wanted: KillFilter, info: ClientInfo, caller: int) -> bool:
    """Whether this client is to be hung up on; `caller` is the id of who asks for it."""
    return (
        wanted.addr in (None, info.addr)
        and wanted.laddr in (None, info.laddr)
        and wanted.type in (None, info.type)
        and wanted.id in (None, info.id)
        and wanted.user in (None, info.user)
        and not (wanted.skip_me and info.id == caller)
    )


def kill_reply(wanted: KillFilter, killed: int) -> bytes:
    """What the caller is answered when `killed` clients matched."""
    if not wanted.old_style:
        return resp.integer(killed)
    return resp.simple("OK") if killed else resp.error("ERR No such client")


# --- the others


@dataclass(frozen=True, slots=True)
class Unblock:
    """CLIENT UNBLOCK: the client is answered as if its time were up, or with UNBLOCKED."""

    id: int
    with_error: bool = False


UNBLOCKED = "UNBLOCKED client unblocked via CLIENT UNBLOCK"
"""What a client is answered whose command was ended by CLIENT UNBLOCK id ERROR."""


@_refusing
def parse_unblock(args: Sequence[bytes]) -> Unblock:
    """CLIENT UNBLOCK id [TIMEOUT | ERROR]. The reply is 1 if the client was blocked, else 0."""
    _at_most(args, 4)
    reasons = {b"TIMEOUT": False, b"ERROR": True}
    reason = args[3] if len(args) == 4 else b"TIMEOUT"
    with_error = _choice(reason, reasons, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    return Unblock(_integer(args[2]), with_error)


@dataclass(frozen=True, slots=True)
class Pause:
    """CLIENT PAUSE. It ends `milliseconds` from now, or when a pause that is in force ends, if that is later."""

    milliseconds: int
    writes_only: bool = False


@_refusing
def parse_pause(args: Sequence[bytes]) -> Pause:
    """CLIENT PAUSE milliseconds [WRITE | ALL]. A time beyond the end of all clocks is none, as in Redis."""
    _at_most(args, 4)
    modes = {b"WRITE": True, b"ALL": False}
    mode = args[3] if len(args) == 4 else b"ALL"
    writes_only = _choice(mode, modes, "ERR CLIENT PAUSE mode must be WRITE or ALL")
    milliseconds = _integer(args[2], "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise _Refused("ERR timeout is negative")
    return Pause(milliseconds if milliseconds <= _LARGEST - _TIMESTAMPS else 0, writes_only)


class ReplyMode(Enum):
    """CLIENT REPLY. Only ON is answered (+OK); behind OFF, SKIP has no effect."""

    ON = "on"
    OFF = "off"
    SKIP = "skip"


_REPLY_MODES = {one.name.encode(): one for one in ReplyMode}


@_refusing
def parse_reply(args: Sequence[bytes]) -> ReplyMode:
    """CLIENT REPLY ON | OFF | SKIP."""
    return _choice(args[2], _REPLY_MODES)


@_refusing
def parse_on_off(args: Sequence[bytes]) -> bool:
    """CLIENT NO-EVICT ON | OFF, and NO-TOUCH, which Redis has from 7.2 on."""
    return _choice(args[2], {b"ON": True, b"OFF": False})


@dataclass(frozen=True, slots=True)
class Tracking:
    """CLIENT TRACKING. `redirect` is the client that invalidations go to; 0 is the one that asks."""

    on: bool
    redirect: int = 0
    options: frozenset[str] = frozenset()
    """Among BCAST, OPTIN, OPTOUT, NOLOOP."""
    prefixes: tuple[bytes, ...] = ()


_TRACKING_OPTIONS = frozenset([b"BCAST", b"OPTIN", b"OPTOUT", b"NOLOOP"])


@_refusing
def parse_tracking(args: Sequence[bytes]) -> Tracking:
    """CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP].

    What depends on the state of clients is for the server to say: whether the one to redirect to exists, a change of
    BCAST, OPTIN or OPTOUT while tracking is on, prefixes that overlap with those it has. OFF takes any options.
    """
    redirect = 0
    options: set[str] = set()
    prefixes: list[bytes] = []
    rest = iter(args[3:])
    for option in map(_word, rest):
        if option in _TRACKING_OPTIONS:
            options.add(option.decode())
        elif option not in (b"REDIRECT", b"PREFIX") or (value := next(rest, None)) is None:
            raise _Refused(_SYNTAX)
        elif option == b"PREFIX":
            prefixes.append(value)
        else:
            redirect = _redirect(redirect, value)
    on = _choice(args[2], {b"ON": True, b"OFF": False})
    if on:
        _check_tracking(options, prefixes)
    return Tracking(on, redirect, frozenset(options), tuple(prefixes))


def _redirect(former: int, arg: bytes) -> int:
    if former:
        raise _Refused("ERR A client can only redirect to a single other client")
    number = _integer(arg)
    if number < 1:
        raise _Refused("ERR The client ID you want redirect to does not exist")
    return number


def _check_tracking(options: set[str], prefixes: Sequence[bytes]) -> None:
    if prefixes and "BCAST" not in options:
        raise _Refused("ERR PREFIX option requires BCAST mode to be enabled")
    if "BCAST" in options and options & {"OPTIN", "OPTOUT"}:
        raise _Refused("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if {"OPTIN", "OPTOUT"} <= options:
        raise _Refused("ERR You can't specify both OPTIN mode and OPTOUT mode")
    for one, other in combinations(prefixes, 2):
        if one.startswith(other) or other.startswith(one):
            raise _Refused(
                f"ERR Prefix '{_text(one)}' overlaps with another provided prefix '{_text(other)}'. "
                "Prefixes for a single client must not overlap."
            )
