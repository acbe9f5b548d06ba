"""The command table: what each command is, which connection may carry it, and whether it may be repeated.

What Redis says of itself is data (`commands.json`, written by `deploy/generate_commands.py`); what the proxy makes
of it is decided here, once, when the module is loaded. A command that the table does not know, such as one of a
module or of a later Redis, is taken for a write of unknown effect: it goes to the master and is never sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

KeySpec = tuple[frozenset[str], tuple[Any, ...], tuple[Any, ...]]
"""Flags, how to find the first argument of interest, how to find the keys from there (Redis: key specifications)."""


class Route(Enum):
    """Which connection a command needs."""

    REPLICA = "replica"  # a read of data, or something any server answers: a shared lane to any node
    MASTER = "master"  # a shared lane to the master
    SESSION = "session"  # about the connection itself: the session answers it, or sees to it
    PINNED = "pinned"  # the connection belongs to this client from now on
    BLOCKING = "blocking"  # the connection belongs to this client until the reply
    REFUSED = "refused"  # it would undo what the managers do; answered with `Command.refusal`


class Replay(Enum):
    """What may become of a command that was sent and not answered."""

    READ = "read"  # no effect: may always be repeated
    WRITE = "write"  # changes data; whether twice is as good as once depends on its arguments
    NEVER = "never"  # its effect is unknown, or goes beyond the data


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One command, or one subcommand (`CONFIG|GET`). The name is in upper case."""

    name: str
    arity: int  # arguments, the names included; negative: at least so many
    flags: frozenset[str]
    route: Route
    replay: Replay
    first_key: int = 0
    last_key: int = 0
    step: int = 0
    key_specs: tuple[KeySpec, ...] = ()
    group: str = ""
    since: str = ""
    acl: frozenset[str] = frozenset()
    refusal: str = ""  # of a REFUSED one: the error, without the dash
    subcommands: Mapping[bytes, Command] = field(default_factory=dict, repr=False)
    when_blocking: Command | None = None  # the same with BLOCK among its options
    reads_only: bool = field(init=False)
    """It changes nothing on any server, so it may be sent twice."""
    is_write: bool = field(init=False)
    """It may change something on a server, so it needs one that is surely the master."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads_only", self.replay is Replay.READ)
        object.__setattr__(self, "is_write", self.replay is not Replay.READ)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Reads that depend on one server (a cursor, a count, a script, its own state) stay on the master, where repeated
# questions get answers that fit each other.
_READS_OF_ONE_SERVER = _names("SCAN HSCAN SSCAN ZSCAN DBSIZE EVAL_RO EVALSHA_RO FCALL_RO")

_ANY_SERVER = _names("PING ECHO")

_NO_EFFECT = _names(
    """PING ECHO TIME INFO ROLE LASTSAVE LOLWUT WAIT WAITAOF
    COMMAND COMMAND|COUNT COMMAND|DOCS COMMAND|GETKEYS COMMAND|GETKEYSANDFLAGS COMMAND|INFO COMMAND|LIST
    CONFIG|GET ACL|CAT ACL|DRYRUN ACL|GENPASS ACL|GETUSER ACL|LIST ACL|USERS ACL|WHOAMI
    CLIENT|INFO CLIENT|LIST CLUSTER|COUNT-FAILURE-REPORTS CLUSTER|COUNTKEYSINSLOT CLUSTER|GETKEYSINSLOT CLUSTER|INFO
    CLUSTER|KEYSLOT CLUSTER|LINKS CLUSTER|MYID CLUSTER|NODES CLUSTER|REPLICAS CLUSTER|SHARDS CLUSTER|SLAVES
    CLUSTER|SLOTS FUNCTION|DUMP FUNCTION|LIST FUNCTION|STATS LATENCY|DOCTOR LATENCY|GRAPH LATENCY|HISTOGRAM
    LATENCY|HISTORY LATENCY|LATEST MEMORY|DOCTOR MEMORY|MALLOC-STATS MEMORY|STATS MODULE|LIST PUBSUB|CHANNELS
    PUBSUB|NUMPAT PUBSUB|NUMSUB PUBSUB|SHARDCHANNELS PUBSUB|SHARDNUMSUB SCRIPT|EXISTS SLOWLOG|GET SLOWLOG|LEN"""
)
"""What has no effect although it is not flagged `readonly`, which Redis reserves for reads of keys; besides these, all
HELP subcommands. ACL LOG is not among them, because it can reset the log."""

_SESSION = _names(
    """AUTH HELLO SELECT QUIT RESET MULTI EXEC DISCARD WATCH UNWATCH
    CLIENT|CACHING CLIENT|GETNAME CLIENT|GETREDIR CLIENT|ID CLIENT|NO-EVICT CLIENT|NO-TOUCH CLIENT|REPLY
    CLIENT|SETINFO CLIENT|SETNAME CLIENT|TRACKING CLIENT|TRACKINGINFO"""
)
_PINNED = _names("SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR")
_BLOCKING = _names("WAIT WAITAOF SCRIPT|KILL FUNCTION|KILL CLIENT|UNPAUSE")
"""Redis flags them as blocking only since 7.2."""

_BLOCKING_BY_OPTION = _names("XREAD XREADGROUP")

_FAILOVER = "use `rfmanager failover`"
_DIRECTLY = "connect to that server itself"
_NO_CLUSTER = "it serves one master and its replicas, without cluster mode"
_REFUSED = {
    "REPLICAOF": _FAILOVER,
    "SLAVEOF": _FAILOVER,
    "FAILOVER": _FAILOVER,
    "SHUTDOWN": "stop the server on its host, after `rfmanager failover` if it is the master",
    "SYNC": _DIRECTLY,
    "PSYNC": _DIRECTLY,
    "REPLCONF": _DIRECTLY,
    "SCRIPT|DEBUG": _DIRECTLY,  # it would change the mode of a connection that others share
    "READONLY": _NO_CLUSTER,
    "READWRITE": _NO_CLUSTER,
    "ASKING": _NO_CLUSTER,
}
_LATER = {  # what must not be taken for unknown although the table's server does not have it
    "waitaof": {"arity": 4, "flags": ["blocking"], "since": "7.2.0", "group": "generic"},
    "client|no-touch": {"arity": 3, "flags": ["loading", "noscript", "stale"], "since": "7.2.0", "group": "connection"},
    "client|setinfo": {"arity": 4, "flags": ["loading", "noscript", "stale"], "since": "7.2.0", "group": "connection"},
}


def _route(name: str, flags: frozenset[str]) -> Route:
    if name in _REFUSED or (name.startswith("CLUSTER|") and not _changes_nothing(name, flags)):
        return Route.REFUSED
    if name in _SESSION:
        return Route.SESSION
    if name in _PINNED:
        return Route.PINNED
    if name in _BLOCKING or ("blocking" in flags and name not in _BLOCKING_BY_OPTION):
        return Route.BLOCKING
    if name in _ANY_SERVER or ("readonly" in flags and name not in _READS_OF_ONE_SERVER):
        return Route.REPLICA
    return Route.MASTER


def _replay(name: str, flags: frozenset[str]) -> Replay:
    if _changes_nothing(name, flags):
        return Replay.READ
    return Replay.WRITE if "write" in flags else Replay.NEVER


def _changes_nothing(name: str, flags: frozenset[str]) -> bool:
    if "readonly" in flags or name in _NO_EFFECT or name.endswith("|HELP"):
        return True
    return (name in _SESSION and name != "EXEC") or name in _PINNED


def _command(name: str, row: Mapping[str, Any], subcommands: Mapping[bytes, Command]) -> Command:
    flags = frozenset(row["flags"])
    route = _route(name, flags)
    first, last, step = row.get("keys", (0, 0, 0))
    command = Command(
        name=name,
        arity=row["arity"],
        flags=flags,
        route=route,
        replay=_replay(name, flags),
        first_key=first,
        last_key=last,
        step=step,
        key_specs=tuple((frozenset(spec[0]), tuple(spec[1]), tuple(spec[2])) for spec in row.get("specs", ())),
        group=row["group"],
        since=row["since"],
        acl=frozenset(row.get("acl", ())),
        refusal=_refusal(name) if route is Route.REFUSED else "",
        subcommands=subcommands,
    )
    if name in _BLOCKING_BY_OPTION:
        return replace(command, when_blocking=replace(command, route=Route.BLOCKING))
    return command


def _refusal(name: str) -> str:
    return f"ERR {name.replace('|', ' ')} is refused by rfproxy: {_REFUSED.get(name, _NO_CLUSTER)}"


def _load() -> dict[bytes, Command]:
    rows: dict[str, Any] = json.loads(Path(__file__).with_name("commands.json").read_text())["commands"] | _LATER
    subcommands: dict[str, dict[bytes, Command]] = {}
    for name, row in rows.items():
        container, separator, _ = name.partition("|")
        if separator:
            _put(subcommands.setdefault(container, {}), _command(name.upper(), row, {}))
    table: dict[bytes, Command] = {}
    for name, row in rows.items():
        if "|" not in name:
            _put(table, _command(name.upper(), row, MappingProxyType(subcommands.get(name, {}))))
    return table


def _put(table: dict[bytes, Command], command: Command) -> None:
    name = command.name.rpartition("|")[2].encode()
    table[name] = table[name.lower()] = command


_LONGEST = 128  # bytes of a name that are looked at; Redis shows as many in its errors
_TABLE = _load()

UNKNOWN = Command("UNKNOWN", -1, frozenset(), Route.MASTER, Replay.NEVER)
"""What every command is like that the table does not know."""


def commands() -> list[Command]:
    """All commands and subcommands of the table."""
    return [*dict.fromkeys(chain.from_iterable((one, *one.subcommands.values()) for one in _TABLE.values()))]


def lookup(args: Sequence[bytes]) -> Command:
    """The command that these arguments call, whatever the case of its letters. Never fails: see UNKNOWN."""
    command = _TABLE.get(args[0])
    if command is None:
        name = args[0][:_LONGEST].upper()
        command = _TABLE.get(name) or _unknown(name)
    if command.subcommands and len(args) > 1:
        name = args[1]
        return command.subcommands.get(name) or _subcommand(command, name[:_LONGEST])
    if command.when_blocking is not None and _asks_to_block(args):
        return command.when_blocking
    return command


@lru_cache(maxsize=256)
def _unknown(name: bytes) -> Command:
    if name.split(b"\0", 1)[0] in (b"POST", b"HOST:"):  # C strings; networking.c: securityWarningCommand
        return _HTTP
    return replace(UNKNOWN, name=name.decode("ascii", "backslashreplace"))


_HTTP = replace(UNKNOWN, name="POST", route=Route.SESSION)
"""The beginning of an HTTP request, which Redis hangs up on."""


def _subcommand(command: Command, name: bytes) -> Command:
    return command.subcommands.get(name.upper()) or _unknown_subcommand(command.name, name)


@lru_cache(maxsize=256)
def _unknown_subcommand(container: str, name: bytes) -> Command:
    """One of CLIENT could change a connection that others share: it is refused in Redis' words."""
    command = replace(UNKNOWN, name=f"{container}|{name.upper().decode('ascii', 'backslashreplace')}")
    if container not in ("CLIENT", "CLUSTER"):
        return command
    refusal = f"ERR unknown subcommand '{_shown(name, _LONGEST)}'. Try {container} HELP."
    return replace(command, route=Route.REFUSED, refusal=refusal)


def _asks_to_block(args: Sequence[bytes]) -> bool:
    """Whether BLOCK is among the options of XREAD or XREADGROUP, which end at STREAMS (t_stream.c).

    A group that is called BLOCK is taken for the option: that costs a connection, the reverse would block others.
    """
    for arg in args[1:]:
        option = arg.upper()
        if option == b"STREAMS":
            return False
        if option == b"BLOCK":
            return True
    return False


def keys(args: Sequence[bytes]) -> list[bytes]:
    """The keys that a command names, as far as its key specifications tell; those of SORT's patterns are not found."""
    found: list[bytes] = []
    for flags, begin, find in lookup(args).key_specs:
        if "not_key" not in flags and (first := _first_argument(args, begin)):
            found += _keys_from(args, first, find)
    return found


def _first_argument(args: Sequence[bytes], begin: tuple[Any, ...]) -> int:
    if begin[0] == "index":
        return int(begin[1])
    if begin[0] != "keyword":
        return 0
    _, keyword, start = begin
    places = range(start, len(args)) if start > 0 else range(len(args) + start, 0, -1)
    return next((place + 1 for place in places if args[place].upper() == keyword.encode()), 0)


def _keys_from(args: Sequence[bytes], first: int, find: tuple[Any, ...]) -> Sequence[bytes]:
    if find[0] == "range":
        _, last, step, limit = find
        if last >= 0:
            end = first + last + 1
        elif limit > 1:  # the keys are only the first part of what is left, as in XREAD ... STREAMS key key id id
            end = first + (len(args) - first) // limit
        else:
            end = len(args) + last + 1
        return args[first:end:step]
    if find[0] != "keynum":
        return ()
    _, place, offset, step = find
    try:
        count = int(args[first + place])
    except (IndexError, ValueError):
        return ()
    return args[first + offset :: step][:count] if count > 0 else ()


def arity_error(spec: Command, args: Sequence[bytes]) -> str | None:
    """Redis' error for a wrong number of arguments, or None."""
    given = len(args)
    if given == spec.arity or (spec.arity < 0 and given >= -spec.arity):
        return None
    return f"ERR wrong number of arguments for '{spec.name.lower()}' command"


def unknown_command_error(args: Sequence[bytes]) -> str:
    """Redis' error for a command that it does not have (commandCheckExistence in server.c)."""
    shown = ""
    for arg in args[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{_shown(arg, 128 - len(shown))}' "
    return f"ERR unknown command '{_shown(args[0], 128)}', with args beginning with: {shown}"


def _shown(arg: bytes, most: int) -> str:
    """As `%.*s` shows it: up to a NUL. Each byte is one character here, and `resp.error` turns it back."""
    return arg[:most].partition(b"\0")[0].decode("ascii", "surrogateescape")
