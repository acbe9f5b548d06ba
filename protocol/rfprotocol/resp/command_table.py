"""The command table: what each command is, which connection may carry it, and whether it may be repeated.

What Redis says of itself is data (`commands.json`, written by `deploy/generate_commands.py`); what the proxy makes
of it is decided here, once, when the module is loaded. A command that the table does not know, such as one of a
module or of a later Redis, is taken for a write of unknown effect and duration: it goes to the master, on a connection
on which nobody else waits, and is never sent twice.

The table holds for all versions that it was taken from: a command has one route and one replay, whatever the version.
Where versions differ, this is why that is safe:

* Later options (`XREADGROUP ... CLAIM`, `SET ... IFEQ`) are the server's to judge.
* The number of arguments is checked as that version would (`arity_error`). If the version is not known, or lies
  between two that differ, both are right: what the server refuses it can refuse itself.
* `WAIT` and `WAITAOF` are flagged as blocking since 7.4, and are treated so for all. No other command has changed
  between reading, writing and blocking, and none finds its keys in another place; a test sees to that.
* Whether that version has the command at all: `exists_in`, `existence_error`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

Release = tuple[int, ...]
"""Major and minor number of a version."""

_EVERYWHERE: Release = (6, 2)
"""The release that every server is taken to have at least: what it has is not asked about."""

KeySpec = tuple[frozenset[str], tuple[Any, ...], tuple[Any, ...]]
"""Flags, how to find the first argument of interest, how to find the keys from there (Redis: key specifications)."""


class Route(Enum):
    """Which connection a command needs."""

    REPLICA = "replica"  # a read of data, or something any server answers: a shared lane to any node
    MASTER = "master"  # a shared lane to the master
    URGENT = "urgent"  # the same, but it is obeyed while a script keeps the server busy: it must not wait behind others
    CURSOR = "cursor"  # the same, but its cursor means something to one server process only
    OWN = "own"  # may take long, and must not make others wait: a lane to the master for this client alone meanwhile
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
    arity: int  # arguments, the names included; negative: at least so many. As of the oldest version that has it
    flags: frozenset[str]
    route: Route
    replay: Replay
    first_key: int = 0
    last_key: int = 0
    step: int = 0
    key_specs: tuple[KeySpec, ...] = ()
    group: str = ""
    since: str = ""  # the first version that has it
    acl: frozenset[str] = frozenset()
    refusal: str = ""  # of a REFUSED one: the error, without the dash
    subcommands: Mapping[bytes, Command] = field(default_factory=dict, repr=False)
    variant: Command | None = None  # what the same command is when its arguments ask for it, see `_VARIANTS`
    spelling: str = ""  # the name as the server writes it in errors
    arities: Mapping[Release, int] = field(default_factory=dict, repr=False)  # by release, if it has changed
    takes_long: bool = False
    """A server may be busy with it for longer than the time after which silence counts as a fault, see `_LONG`."""
    reads_only: bool = field(init=False)
    """It changes nothing on any server, so it may be sent twice."""
    may_have_effect: bool = field(init=False)
    """Executing it may change something, on a server or for other clients: scripts, PUBLISH, and what is unknown count.

    So it needs a server that is surely the master, and what stood before it must not be executed behind it."""

    may_replicate: bool = field(init=False)
    """Executing it may send something to replicas. Of unknown commands that has to be assumed."""

    not_everywhere: bool = field(init=False)
    """A read that servers of a rolling upgrade may not have yet, while others do."""

    def __post_init__(self) -> None:
        recent = parsed_version(self.since)[:2] > _EVERYWHERE
        object.__setattr__(self, "not_everywhere", recent and self.route is Route.REPLICA)
        object.__setattr__(self, "reads_only", self.replay is Replay.READ)
        object.__setattr__(self, "may_have_effect", self.replay is not Replay.READ)
        spreads = "write" in self.flags or self.name in _SPREADS or not self.group
        object.__setattr__(self, "may_replicate", spreads)


_SPREADS = frozenset(["EVAL", "EVALSHA", "FCALL", "PUBLISH", "SPUBLISH"])
"""What replicas may be sent besides writes."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABOUT_THE_SERVER: Mapping[str, str] = {
    "DBSIZE": "a count of its keys, where repeated questions are to get answers that fit each other",
    "TOUCH": "it sets the time of the last use, by which the master evicts (maxmemory-policy); replicas evict nothing",
    "OBJECT|IDLETIME": "the time since the last use, which replicas are not told",
    "OBJECT|FREQ": "how often it was used, which replicas are not told",
    "OBJECT|ENCODING": "how it keeps a value: that depends on its settings, its version and the value's past",
    "OBJECT|REFCOUNT": "how it keeps a value",
    "MEMORY|USAGE": "how it keeps a value, and how its allocator does",
    "XINFO|CONSUMERS": "replicas are not told of consumers that asked for messages and got none",
    "XINFO|GROUPS": "the number of its consumers, see XINFO CONSUMERS",
    "XINFO|STREAM": "its consumers (FULL) and how it keeps the entries",
    "XPENDING": "what was just delivered: who asks wants to claim it, and decides by the idle times",
    "VINFO": "the graph by which it finds vectors: each server builds one of its own",
    "VLINKS": "the graph by which it finds vectors",
    "ARINFO": "how it keeps an array",
}
"""Reads that ask about the server rather than about the data, and why a replica's answer is another one than the
master's, however little it lags: they go to the master, always. Redis flags them as `readonly`, which means that they
change no data, not that any server may be asked."""

_CURSOR = _names("SCAN HSCAN SSCAN ZSCAN")
_OWN = _names("EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO SCRIPT|LOAD SCRIPT|EXISTS SCRIPT|FLUSH")

_URGENT = _names("SCRIPT|KILL FUNCTION|KILL FUNCTION|STATS")

_ANY_SERVER = _names("PING ECHO")

_NO_EFFECT = _names(
    """PING ECHO TIME INFO ROLE LASTSAVE LOLWUT WAIT WAITAOF READONLY READWRITE
    COMMAND COMMAND|COUNT COMMAND|DOCS COMMAND|GETKEYS COMMAND|GETKEYSANDFLAGS COMMAND|INFO COMMAND|LIST
    CONFIG|GET ACL|CAT ACL|DRYRUN ACL|GENPASS ACL|GETUSER ACL|LIST ACL|USERS ACL|WHOAMI
    CLIENT|CACHING CLIENT|TRACKINGINFO CLUSTER|COUNT-FAILURE-REPORTS CLUSTER|COUNTKEYSINSLOT CLUSTER|GETKEYSINSLOT
    CLUSTER|INFO CLUSTER|KEYSLOT CLUSTER|LINKS CLUSTER|MYID CLUSTER|MYSHARDID CLUSTER|NODES CLUSTER|REPLICAS
    CLUSTER|SHARDS CLUSTER|SLAVES CLUSTER|SLOT-STATS CLUSTER|SLOTS BACKUP|LIST BACKUP|STATUS FUNCTION|DUMP
    FUNCTION|LIST FUNCTION|STATS HOTKEYS|GET LATENCY|DOCTOR LATENCY|GRAPH LATENCY|HISTOGRAM LATENCY|HISTORY
    LATENCY|LATEST MEMORY|DOCTOR MEMORY|MALLOC-STATS MEMORY|STATS MODULE|LIST PUBSUB|CHANNELS PUBSUB|NUMPAT
    PUBSUB|NUMSUB PUBSUB|SHARDCHANNELS PUBSUB|SHARDNUMSUB SCRIPT|EXISTS SLOWLOG|GET SLOWLOG|LEN"""
)
"""What has no effect although it is not flagged `readonly`, which Redis reserves for reads of keys; besides these, all
HELP subcommands. ACL LOG is not among them, because it can reset the log."""

_SESSION = _names(
    """AUTH HELLO SELECT QUIT RESET MULTI EXEC DISCARD WATCH UNWATCH
    CLIENT|GETNAME CLIENT|GETREDIR CLIENT|ID CLIENT|INFO CLIENT|KILL CLIENT|LIST CLIENT|NO-EVICT CLIENT|NO-TOUCH
    CLIENT|PAUSE CLIENT|REPLY CLIENT|SETINFO CLIENT|SETNAME CLIENT|TRACKING CLIENT|TRACKINGINFO CLIENT|UNBLOCK
    CLIENT|UNPAUSE"""
)
_PINNED = _names("SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR")
_BLOCKING = _names("WAIT WAITAOF")
"""Redis flags them as blocking only since 7.4."""


def block_place(args: Sequence[bytes]) -> int | None:
    """Where the timeout of XREAD or XREADGROUP stands, or None if they are not to block.

    As xreadCommand in t_stream.c reads them: options end at STREAMS, are compared as C strings, and the last BLOCK
    counts. What is no option there is an error of the server's, whatever is made of it here.
    """
    found, place = None, 1
    while place < len(args):
        option = args[place].partition(b"\0")[0].upper()
        if option == b"STREAMS":
            break
        if option == b"BLOCK" and place + 1 < len(args):
            found = place + 1
        place += _WORDS_OF_XREAD.get(option, 1)
    return found


_WORDS_OF_XREAD: Mapping[bytes, int] = {b"BLOCK": 2, b"COUNT": 2, b"CLAIM": 2, b"GROUP": 3}
"""How many words an option of XREAD and XREADGROUP takes, itself included, if that is not one."""


def _asks_to_block(args: Sequence[bytes]) -> bool:
    return block_place(args) is not None


def _asks_for_proxy(args: Sequence[bytes]) -> bool:
    return len(args) == 2 and args[1].upper() == b"PROXY"


def _asks_for_all(args: Sequence[bytes]) -> bool:
    """Whether VSIM is to compare all vectors. It does so in a thread, and only who asked has to wait."""
    return any(len(arg) == 5 and arg.upper() == b"TRUTH" for arg in args)


_ACCOUNTS = frozenset([b"REQUIREPASS", b"MASTERAUTH", b"MASTERUSER", b"PRIMARYAUTH", b"PRIMARYUSER"])
_ADDRESSES = frozenset([b"PORT", b"TLS-PORT", b"BIND", b"PROTECTED-MODE", b"TLS-AUTH-CLIENTS"])


def _sets_accounts(args: Sequence[bytes]) -> bool:
    """Whether CONFIG SET is to change who may speak to this one server, or from where."""
    return any(arg.upper() in _ACCOUNTS or arg.upper() in _ADDRESSES for arg in args[2::2])


def _sets_default_user(args: Sequence[bytes]) -> bool:
    """Whether ACL SETUSER is about the user that all are who say no AUTH: `requirepass` is a name for its password.

    Other users are the application's: a server that does not know one answers that one alone. ACL LOAD reads what an
    administrator has put on that server's disk.
    """
    return len(args) > 2 and args[2] == b"default"


_VARIANTS: Mapping[str, tuple[Route, Callable[[Sequence[bytes]], bool]]] = {
    "XREAD": (Route.BLOCKING, _asks_to_block),
    "XREADGROUP": (Route.BLOCKING, _asks_to_block),
    "INFO": (Route.SESSION, _asks_for_proxy),
    "VSIM": (Route.OWN, _asks_for_all),
    "CONFIG|SET": (Route.REFUSED, _sets_accounts),
    "ACL|SETUSER": (Route.REFUSED, _sets_default_user),
}

_LONG = _names(
    """EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO FUNCTION|LOAD FUNCTION|RESTORE FUNCTION|FLUSH SCRIPT|FLUSH
    KEYS FLUSHALL FLUSHDB SAVE BGSAVE BGREWRITEAOF DEBUG CONFIG|SET MEMORY|USAGE MEMORY|PURGE PFSELFTEST
    MODULE|LOAD MODULE|LOADEX MODULE|UNLOAD ACL|LOAD BACKUP|START BACKUP|SEAL BACKUP|ABORT BACKUP|CLEANUP
    DEL UNLINK RENAME RENAMENX COPY DUMP RESTORE MIGRATE SORT SORT_RO BITOP LCS VSIM
    LRANGE LTRIM LREM LINSERT LPOS SMEMBERS HGETALL HKEYS HVALS
    SINTER SINTERCARD SINTERSTORE SUNION SUNIONCARD SUNIONSTORE SDIFF SDIFFCARD SDIFFSTORE
    ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZREVRANGEBYLEX ZRANGESTORE
    ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
    ZINTER ZINTERCARD ZINTERSTORE ZUNION ZUNIONSTORE ZDIFF ZDIFFSTORE
    GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEOSEARCH GEOSEARCHSTORE
    XRANGE XREVRANGE XREAD XREADGROUP XTRIM XINFO|STREAM XGROUP|DESTROY XGROUP|DELCONSUMER
    ARGETRANGE ARGREP ARSCAN AROP ARDELRANGE"""
)
"""What may keep a server busy for a second, and who is silent meanwhile is not dead. In this order:

* Programs of the client's: they take as long as they like. Loading and dropping them compiles and frees interpreters.
* What goes through the whole database, forks the whole process (BGSAVE, BGREWRITEAOF, `CONFIG SET appendonly`), evicts
  (`CONFIG SET maxmemory`), frees memory at once, or runs what others wrote (modules).
* What frees or copies whole values, of which one may have millions of elements. UNLINK frees in another thread, but
  not the many small values that it is given.
* What reads or writes a part of a value that the server first has to find, or that may be all of it.

The time of all others grows with their arguments, which the proxy has seen, at a pace of gigabytes per second; SET
over a value with millions of elements is the exception. A command that waits for other clients (BLPOP, WAIT) keeps
nobody busy, so XREAD and XREADGROUP are only here as long as they do not ask to block.
"""

_STANDALONE = "ERR This instance has cluster support disabled"
"""What a server outside a cluster says (cluster.c)."""

_FAILOVER = "use `rfmanager failover`"
_DIRECTLY = "connect to that server itself"
_ONE_SERVER = "it would change one server alone, and may lock the proxy out of it: connect to each server itself"
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
    "HIMPORT|PREPARE": "use HSET",  # what it prepares would belong to a connection that others share
}
_REFUSED_BY_REDIS = _names("ASKING TRIMSLOTS")


_ROUTES: Mapping[str, Route] = {
    **dict.fromkeys(_REFUSED.keys() | _REFUSED_BY_REDIS, Route.REFUSED),
    **dict.fromkeys(_SESSION, Route.SESSION),
    **dict.fromkeys(_PINNED, Route.PINNED),
    **dict.fromkeys(_BLOCKING, Route.BLOCKING),
    **dict.fromkeys(_CURSOR, Route.CURSOR),
    **dict.fromkeys(_OWN, Route.OWN),
    **dict.fromkeys(_URGENT, Route.URGENT),
    **dict.fromkeys(_ANY_SERVER, Route.REPLICA),
    **dict.fromkeys(_ABOUT_THE_SERVER, Route.MASTER),
}
"""What the flags do not tell."""


def _route(name: str, flags: frozenset[str]) -> Route:
    if name in _ROUTES:
        return _ROUTES[name]
    if name.startswith("CLUSTER|") and not _changes_nothing(name, flags):
        return Route.REFUSED
    if "blocking" in flags and name not in _VARIANTS:
        return Route.BLOCKING
    return Route.REPLICA if "readonly" in flags else Route.MASTER


def _replay(name: str, flags: frozenset[str]) -> Replay:
    if _changes_nothing(name, flags):
        return Replay.READ
    return Replay.WRITE if "write" in flags else Replay.NEVER


def _changes_nothing(name: str, flags: frozenset[str]) -> bool:
    if "readonly" in flags or name in _NO_EFFECT or name.endswith("|HELP"):
        return True
    return (name in _SESSION and name != "EXEC") or name in _PINNED


def _command(
    name: str, row: Mapping[str, Any], releases: Sequence[str], subcommands: Mapping[bytes, Command]
) -> Command:
    flags = frozenset(row["flags"])
    route = _route(name.upper(), flags)
    first, last, step = row.get("keys", (0, 0, 0))
    command = Command(
        name=name.upper(),
        spelling=name,
        arity=row["arity"],
        flags=flags,
        route=route,
        replay=_replay(name.upper(), flags),
        first_key=first,
        last_key=last,
        step=step,
        key_specs=tuple((frozenset(spec[0]), tuple(spec[1]), tuple(spec[2])) for spec in row.get("specs", ())),
        group=row["group"],
        since=row["since"],
        acl=frozenset(row.get("acl", ())),
        refusal=_refusal(name.upper()) if route is Route.REFUSED else "",
        arities=_arities(row, releases),
        subcommands=subcommands,
        takes_long=name.upper() in _LONG,
    )
    if command.name not in _VARIANTS:
        return command
    route = _VARIANTS[command.name][0]
    takes_long = command.takes_long and route is not Route.BLOCKING
    refusal = _refusal_of_variant(command.name) if route is Route.REFUSED else ""
    return replace(command, variant=replace(command, route=route, takes_long=takes_long, refusal=refusal))


def _arities(row: Mapping[str, Any], releases: Sequence[str]) -> dict[Release, int]:
    """The arity in each release that has the command, if they differ."""
    changes = {version: changed["arity"] for version, changed in row.get("later", {}).items() if "arity" in changed}
    arity = row["arity"]
    arities = {}
    for version in releases:
        if parsed_version(version) >= parsed_version(row["since"]):
            arity = changes.get(version, arity)
            arities[parsed_version(version)[:2]] = arity
    return arities if changes else {}


def _refusal(name: str) -> str:
    if name in _REFUSED_BY_REDIS:
        return _STANDALONE
    return f"ERR {name.replace('|', ' ')} is refused by rfproxy: {_REFUSED.get(name, _NO_CLUSTER)}"


def _refusal_of_variant(name: str) -> str:
    what = "of accounts and addresses" if name == "CONFIG|SET" else "default"
    return f"ERR {name.replace('|', ' ')} {what} is refused by rfproxy: {_ONE_SERVER}"


@lru_cache(maxsize=64)
def parsed_version(text: str) -> tuple[int, ...]:
    """A version such as `8.10.2`, so that it can be compared; () if it is not made of numbers."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _load() -> dict[bytes, Command]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("commands.json").read_text())
    rows, releases = content["commands"], content["versions"]
    subcommands: dict[str, dict[bytes, Command]] = {}
    for name, row in rows.items():
        container, separator, _ = name.partition("|")
        if separator:
            _put(subcommands.setdefault(container, {}), _command(name, row, releases, {}))
    table: dict[bytes, Command] = {}
    for name, row in rows.items():
        if "|" not in name:
            _put(table, _command(name, row, releases, MappingProxyType(subcommands.get(name, {}))))
    return table


def _put(table: dict[bytes, Command], command: Command) -> None:
    name = command.name.rpartition("|")[2].encode()
    table[name] = table[name.lower()] = command


_LONGEST = 128  # bytes of a name that are looked at; Redis shows as many in its errors
_TABLE = _load()

UNKNOWN = Command("UNKNOWN", -1, frozenset(), Route.OWN, Replay.NEVER, takes_long=True)
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
        command = command.subcommands.get(name) or _subcommand(command, name[:_LONGEST])
    if command.variant is not None and _VARIANTS[command.name][1](args):
        return command.variant
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
    return replace(command, route=Route.REFUSED, refusal=_unknown_subcommand_error(container, name))


def _unknown_subcommand_error(container: str, name: bytes) -> str:
    return f"ERR unknown subcommand '{_shown(name, _LONGEST)}'. Try {container} HELP."


def exists_in(command: Command, version: str) -> bool:
    """Whether a server of this version (`redis_version` of INFO) has the command; if the version says nothing, any."""
    told = parsed_version(version)
    return bool(command.since) and (not told or parsed_version(command.since) <= told)


def existence_error(args: Sequence[bytes], version: str) -> str | None:
    """What a server of this version says if it does not have what these arguments call, or None."""
    if exists_in(lookup(args), version):
        return None
    whole = lookup(args[:1])
    if len(args) > 1 and whole.subcommands and exists_in(whole, version):
        return _unknown_subcommand_error(whole.name, args[1])
    return unknown_command_error(args, version)


def keys(args: Sequence[bytes]) -> list[bytes]:
    """The keys that a command names, as far as its key specifications tell; those of SORT's patterns are not found."""
    found: list[bytes] = []
    for flags, begin, find in lookup(args).key_specs:
        if "not_key" not in flags and (first := _first_argument(args, begin)):
            found += _keys_from(args, first, find)
    return found


def tells_all_keys(command: Command) -> bool:
    """Whether `keys` finds all keys of such commands, and there are any: not for SORT, scripts, or EXEC."""
    specs = command.key_specs
    return bool(specs) and not any("incomplete" in flags or begin[0] == "unknown" for flags, begin, _ in specs)


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


def arity_error(spec: Command, args: Sequence[bytes], version: str = "") -> str | None:
    """What a server of this version (any, if not given) says to a wrong number of arguments, or None."""
    given = len(args)
    if any(given == arity or (arity < 0 and given >= -arity) for arity in _possible_arities(spec, version)):
        return None
    code = "EXECABORT Transaction discarded because of:" if spec.name == "EXEC" else "ERR"
    return f"{code} wrong number of arguments for '{spec.spelling}' command"


def _possible_arities(spec: Command, version: str) -> Collection[int]:
    if not spec.arities:
        return (spec.arity,)
    release = parsed_version(version)[:2]
    if not release:
        return spec.arities.values()
    neighbours = {
        max((known for known in spec.arities if known <= release), default=min(spec.arities)),
        min((known for known in spec.arities if known >= release), default=max(spec.arities)),
    }
    return [spec.arities[known] for known in neighbours]


def unknown_command_error(args: Sequence[bytes], version: str = "") -> str:
    """What a server of this version says to a command that it does not have (commandCheckExistence in server.c)."""
    error = f"ERR unknown command '{_shown(args[0], 128)}'"
    if len(args) == 1 and parsed_version(version) >= (8, 6):
        return error
    shown = ""
    for arg in args[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{_shown(arg, 128 - len(shown))}' "
    return f"{error}, with args beginning with: {shown}"


def _shown(arg: bytes, most: int) -> str:
    """As `%.*s` shows it: up to a NUL. Each byte is one character here, and `resp.error` turns it back."""
    return arg[:most].partition(b"\0")[0].decode("ascii", "surrogateescape")
