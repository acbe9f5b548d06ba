"""Options of a program, as a pydantic model: one field gives a flag, an environment variable, a file key and help.

A program derives its model from `CommonOptions` and describes each field with a `Flag`; `cli_parser` reads
the values. The types here accept what both programs, and the gem's files, write: text, or lists and mappings of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, SecretStr

from rfprotocol.errors import ConfigError
from rfprotocol.settings.yaml_file import is_zero
from rfprotocol.topology.topology import REDIS_PORT, Node
from rfprotocol.topology.znode_paths import DEFAULT_ROOT

_HAS_PORT = re.compile(r":[^\]:]*$")
_PATH = re.compile(r"(/[^/\s,]+)+")


def _server(item: object, port: int | None = None) -> Node:
    if isinstance(item, Node):
        return item
    if isinstance(item, Mapping):
        if "host" not in item or not set(item) <= {"host", "port"}:
            raise ValueError(f"a server has the keys host and port, not {', '.join(map(str, item)) or 'none'}")
        item = str(Node(str(item["host"]), 0)).removesuffix("0") + str(item.get("port", REDIS_PORT))
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not host:port")
    try:
        return Node.parse(item, port)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _servers(value: object, port: int | None = None) -> tuple[Node, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("should be a list of host:port")
    return tuple(dict.fromkeys(_server(item, port) for item in items if not isinstance(item, str) or item.strip()))


def _redis_servers(value: object) -> tuple[Node, ...]:
    return _servers(value, REDIS_PORT)


def _address(value: object) -> Node:
    if isinstance(value, str) and value.endswith(":0"):
        return Node(_server(value[:-1] + "1").host, 0)
    return _server(value)


def _znode_path(value: object) -> str:
    if not isinstance(value, str) or (value and not _PATH.fullmatch(value)):
        raise ValueError(f"{value!r} is not a znode path: it starts with a slash and does not end in one")
    return value


def _zookeeper(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    servers, slash, chroot = text.strip().partition("/")
    for server in filter(None, map(str.strip, servers.split(","))):
        if not _HAS_PORT.search(server):
            raise ValueError(f"{server!r} has no port: write {server}:2181, if that is where ZooKeeper listens")
    return ",".join(map(str, _servers(servers))) + _znode_path(slash + chroot)


def _count(value: object) -> object:
    if value == 0 or (isinstance(value, str) and is_zero(value)):
        raise ValueError(f"should be at least 1, not {value!r}: write 1")
    return value


def _ruby_symbol(value: object) -> object:
    return value.removeprefix(":") if isinstance(value, str) else value


Servers = Annotated[tuple[Node, ...], PlainValidator(_redis_servers)]
"""`host:port,...`, or a list of `host:port` or of mappings with host and port. Without a port it is Redis' own;
duplicates count once."""
Address = Annotated[Node, PlainValidator(_address)]
"""`host:port` to listen on; port 0 lets the system choose one."""
ZooKeeper = Annotated[str, PlainValidator(_zookeeper)]
"""`host:port,...` or a list, with an optional chroot (`/path`) after the last one; kazoo's form."""
ZnodePath = Annotated[str, PlainValidator(_znode_path)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_count), Field(ge=1)]
RubySymbol = BeforeValidator(_ruby_symbol)
"""Lets a choice be written as a Ruby symbol, `:majority`, as in the gem's files."""


@dataclass(frozen=True, slots=True)
class Flag:
    """How an option is shown and written on the command line. Stands in the field's `Annotated`."""

    help: str
    names: tuple[str, ...] = ()  # when it is not just the field's name with dashes
    metavar: str = ""
    group: str = "options"


class Options(BaseModel):
    """Root of the models. Values are immutable; secrets do not show in representations."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)
    env_prefix: ClassVar[str] = ""
    gems_counts: ClassVar[frozenset[str] | None] = None
    """For a program that reads files of the gem as the gem does: those of its counts of which none means one."""


class CommonOptions(Options):
    """What both programs need: the way to ZooKeeper and into the Redis servers, and the log."""

    zkservers: Annotated[
        ZooKeeper, Flag("ZooKeeper servers", ("-z", "--zkservers", "--zk"), "HOST:PORT,...", "ZooKeeper")
    ] = ""
    chroot: Annotated[ZnodePath, Flag("chroot, appended to the servers", ("--with-chroot",), "ROOT", "ZooKeeper")] = ""
    znode_path: Annotated[
        ZnodePath, Field(min_length=2), Flag("root of the records of this group", metavar="PATH", group="ZooKeeper")
    ] = DEFAULT_ROOT
    session_timeout: Annotated[
        Seconds, Flag("session with ZooKeeper; bounds how long a dead peer is waited for", (), "SECONDS", "ZooKeeper")
    ] = 4.0
    username: Annotated[str | None, Flag("user of the Redis servers (ACL)", metavar="NAME", group="Redis servers")] = (
        None
    )
    password: Annotated[
        SecretStr | None,
        Flag(
            "password of the Redis servers; visible to every user of this host: better use --password-file, "
            "the environment or the file",
            ("-p", "--password"),
            "PASSWORD",
            "Redis servers",
        ),
    ] = None
    password_file: Annotated[
        str | None, Flag("file that holds the password and nothing else", metavar="PATH", group="Redis servers")
    ] = None
    log_format: Annotated[
        Literal["json", "text"] | None, RubySymbol, Flag("default: text on a terminal, else json", (), "", "log")
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], RubySymbol, Flag("least level that is logged", (), "", "log")
    ] = "info"

    @property
    def zookeeper(self) -> str:
        """Servers and chroot in kazoo's form: `host:port,host:port/chroot`."""
        return self.zkservers + self.chroot


STORE_OPTIONS = ("zkservers", "chroot", "znode_path", "session_timeout", "log_format", "log_level")
"""Enough for a command that only talks to ZooKeeper."""
