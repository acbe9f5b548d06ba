"""Options of `rfproxy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ByteSize, Field, model_validator

from rfprotocol.settings.cli_parser import OptionParser
from rfprotocol.settings.fields import Address, CommonOptions, Count, Flag, RubySymbol, Seconds, Servers
from rfprotocol.topology.topology import Node
from rfproxy.runtime.client_limits import MemorySize, OutputLimits, OutputLimitsOption

CHECK = "check"
"""The command that reads the options and does nothing else."""


def default_state_dir() -> Path:
    """systemd's folder for this service, else the user's one."""
    if folders := os.environ.get("STATE_DIRECTORY"):
        return Path(folders.split(":")[0])
    if home := os.environ.get("XDG_STATE_HOME"):
        return Path(home) / "rfproxy"
    return Path("~/.local/state/rfproxy").expanduser()


def _workers(value: object) -> object:
    return len(os.sched_getaffinity(0)) if value == "auto" else value


class ProxyConfig(CommonOptions):
    """Times are seconds, sizes are bytes."""

    env_prefix: ClassVar[str] = "RFPROXY_"

    nodes: Annotated[
        Servers,
        Flag(
            "instead of ZooKeeper: embedded mode, for one host and one proxy; the manager of these servers runs inside",
            ("-n", "--nodes"),
            "HOST:PORT,...",
            "Redis servers",
        ),
    ] = ()
    max_failures: Annotated[
        Count,
        Flag("in embedded mode: failures in a row that make a server unavailable", (), "COUNT", "Redis servers"),
    ] = 3

    listen: Annotated[
        Address,
        Flag("where clients connect; host *: all addresses", metavar="HOST:PORT", group="clients"),
    ] = Node("127.0.0.1", 6380)
    workers: Annotated[
        Count,
        BeforeValidator(_workers),
        Flag("processes that share the clients among them; auto: as many as there are CPUs", (), "COUNT", "clients"),
    ] = 1
    max_clients: Annotated[Count, Flag("more are refused with Redis' own error", (), "COUNT", "clients")] = 10000
    timeout: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False),
        Flag(
            "a client that is silent for so long is closed, unless it is subscribed, blocked or has MONITOR; 0: never",
            (),
            "SECONDS",
            "clients",
        ),
    ] = 0.0
    tcp_keepalive: Annotated[
        int,
        Field(ge=0, le=32767),
        Flag("silence after which the kernel asks whether a client is still there; 0: never", (), "SECONDS", "clients"),
    ] = 300
    client_query_buffer_limit: Annotated[
        MemorySize,
        Field(ge=1 << 20),
        Flag(
            "a client is closed whose command is longer; 1gb, 1GiB and the like are understood", (), "BYTES", "clients"
        ),
    ] = ByteSize(1 << 30)
    maxmemory_clients: Annotated[
        MemorySize,
        Field(ge=0),
        Flag(
            "what the clients of a process may hold together, unanswered or unread; above it those with most are not "
            "read from, and who does not read for long is closed; 0: no limit",
            (),
            "BYTES",
            "clients",
        ),
    ] = ByteSize(192 * 1024 * 1024)
    client_output_buffer_limit: Annotated[
        OutputLimitsOption,
        Flag(
            "what may wait for a client to read it, as redis.conf has it; the classes are normal and pubsub (who is "
            "subscribed or has MONITOR); 0: no limit",
            (),
            '"CLASS HARD SOFT SECONDS ..."',
            "clients",
        ),
    ] = OutputLimits()
    client_auth: Annotated[
        Literal["required", "proxy-user"] | None,
        RubySymbol,
        Flag(
            "whether a client has to say AUTH: 'required', or 'proxy-user', as which it acts otherwise; default: "
            "'required' where --password is given and --listen is not the loopback, else 'proxy-user'",
            (),
            "",
            "clients",
        ),
    ] = None
    allow_admin: Annotated[
        bool,
        Flag(
            "REPLICAOF, FAILOVER, SHUTDOWN, cluster changes, SYNC and the like are passed on instead of refused",
            (),
            "",
            "clients",
        ),
    ] = False
    reads: Annotated[Literal["replica", "master"], RubySymbol, Flag("where reads are sent to", group="clients")] = (
        "replica"
    )
    drain_timeout: Annotated[Seconds, Flag("after SIGTERM, for the commands in flight", (), "SECONDS", "clients")] = (
        10.0
    )
    retire_timeout: Annotated[
        Seconds,
        Flag(
            "after a reload, for clients that are connected to the former workers and are never silent for a second",
            (),
            "SECONDS",
            "clients",
        ),
    ] = 60.0

    hold_timeout: Annotated[
        Seconds, Flag("a command waits that long for a master, then gets -MASTERDOWN", (), "SECONDS", "failover")
    ] = 30.0
    hold_bytes: Annotated[
        MemorySize,
        Field(gt=0),
        Flag("all that may wait together; 256mb, 256MiB and the like are understood", (), "BYTES", "failover"),
    ] = ByteSize(256 * 1024 * 1024)
    spare_connections: Annotated[
        int,
        Field(ge=0, le=64),
        Flag(
            "connections to the master that are held ready for clients that need one of their own (SUBSCRIBE, BLPOP, "
            "WATCH, scripts), once one has been needed; 0: each is opened when needed, and its command comes later",
            (),
            "COUNT",
            "clients",
        ),
    ] = 4
    retry_writes: Annotated[
        Literal["never", "idempotent", "always"],
        RubySymbol,
        Flag("which writes are sent again when their master was lost before it replied", (), "", "failover"),
    ] = "idempotent"
    write_safety: Annotated[
        Literal["async", "durable"],
        RubySymbol,
        Flag(
            "when a write is acknowledged: 'async', when the master has executed it, as Redis does; 'durable', when "
            "replicas have it, too, so that a failover does not lose it; if they are late, it is answered -UNCERTAIN",
            (),
            "",
            "failover",
        ),
    ] = "async"
    durable_replicas: Annotated[
        Count, Flag("with 'durable': how many replicas must have a write", (), "COUNT", "failover")
    ] = 1
    durable_timeout: Annotated[Seconds, Flag("with 'durable': how long they may take", (), "SECONDS", "failover")] = 1.0
    on_store_loss: Annotated[
        Literal["hold", "continue"],
        RubySymbol,
        Flag(
            "what writes do while ZooKeeper is away for longer than a session: 'continue' is only safe with "
            "a single proxy and no managers",
            (),
            "",
            "failover",
        ),
    ] = "hold"
    state_dir: Annotated[
        Path,
        Flag(
            "folder for the last known servers, to start while ZooKeeper is away; in embedded mode for all that the "
            "manager has to remember, and one proxy's own; default: $STATE_DIRECTORY, $XDG_STATE_HOME/rfproxy or "
            "~/.local/state/rfproxy",
            (),
            "PATH",
            "failover",
        ),
    ] = Field(default_factory=default_state_dir)

    @model_validator(mode="after")
    def _consistent(self) -> ProxyConfig:
        if bool(self.nodes) == bool(self.zkservers):
            which = "not both" if self.nodes else "one of them is needed"
            raise ValueError(f"--zk and --nodes: {which}; --nodes is the embedded mode without ZooKeeper")
        if self.nodes and self.workers > 1:
            raise ValueError("--workers: the embedded mode has one, as only one manager may decide")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the manager runs inside."""
        return bool(self.nodes)


def parser() -> OptionParser[ProxyConfig]:
    """The command line."""
    parser = OptionParser(
        ProxyConfig,
        prog="rfproxy",
        description="A proxy for Redis that unmodified clients connect to and that hides failovers from them.",
    )
    parser.command(CHECK, "say whether the options are good, and exit", tuple(ProxyConfig.model_fields), ())
    return parser
