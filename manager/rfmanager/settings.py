"""Options of `rfmanager`: those of Ruby's node manager with their defaults and meaning, and a few more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from rfmanager.monitoring.failure_detector import Limits
from rfprotocol.settings.cli_parser import OptionParser
from rfprotocol.settings.fields import CommonOptions, Count, Flag, RubySymbol, Seconds, Servers
from rfprotocol.topology.znode_paths import Paths


class ManagerConfig(CommonOptions):
    """Times are seconds."""

    env_prefix: ClassVar[str] = "RFMANAGER_"
    gems_counts: ClassVar[frozenset[str] | None] = frozenset({"max_failures", "required_node_managers"})

    nodes: Annotated[Servers, Flag("the servers to manage", ("-n", "--nodes"), "HOST:PORT,...", "Redis servers")] = ()

    state_dir: Annotated[
        Path | None,
        Flag(
            "instead of ZooKeeper, for commands: the --state-dir of an rfproxy in embedded mode, to reach the manager "
            "inside it",
            (),
            "PATH",
            "ZooKeeper",
        ),
    ] = None

    max_failures: Annotated[
        Count, Flag("refusals or timeouts in a row that make a server unavailable", (), "COUNT", "detection")
    ] = 3
    probe_interval: Annotated[
        Seconds, Flag("between two pings of a server that answers", (), "SECONDS", "detection")
    ] = 0.25
    probe_timeout: Annotated[
        Seconds, Flag("a ping without an answer has failed after it", (), "SECONDS", "detection")
    ] = 0.45
    reconnect_interval: Annotated[
        Seconds, Flag("between two connections to a server that refuses them", (), "SECONDS", "detection")
    ] = 0.01
    unreachable_timeout: Annotated[
        Seconds,
        Flag("a server whose host acknowledges nothing for so long is unavailable", (), "SECONDS", "detection"),
    ] = 0.8
    busy_patience: Annotated[
        Seconds,
        Flag(
            "a silent server is unavailable after it, if a proxy has said that a command keeps it busy",
            (),
            "SECONDS",
            "detection",
        ),
    ] = 5.0
    node_strategy: Annotated[
        Literal["majority", "consensus", "single"],
        RubySymbol,
        Flag("how many managers must see a server as down for it to be down", (), "", "detection"),
    ] = "majority"
    required_node_managers: Annotated[
        Count, Flag("managers that must report on a server for its state to be decided", (), "COUNT", "detection")
    ] = 1

    failover_strategy: Annotated[
        Literal["offset", "latency"],
        RubySymbol,
        Flag(
            "what decides between replicas that hold the same data; none is preferred over more data",
            (),
            "",
            "changing the master",
        ),
    ] = "offset"
    fence_wait: Annotated[
        Seconds | None,
        Flag(
            "promote after it even if a proxy has not acknowledged that the old master is withdrawn; "
            "default: wait until its session ends",
            (),
            "SECONDS",
            "changing the master",
        ),
    ] = None
    brake_limit: Annotated[
        Count,
        Flag(
            "after false alarms, and when changes follow each other, a silent master is given more time: so many times "
            "the usual at most; 1: never",
            (),
            "COUNT",
            "changing the master",
        ),
    ] = 8
    catch_up_timeout: Annotated[
        Seconds,
        Flag(
            "a planned change is given up when the replica lags behind for longer", (), "SECONDS", "changing the master"
        ),
    ] = 1.0
    max_staleness: Annotated[
        Seconds | None,
        Flag(
            "a replica that lags further behind the master is not read from; default: no bound",
            (),
            "SECONDS",
            "replicas",
        ),
    ] = None
    history_limit: Annotated[Count, Flag("receipts of changes that are kept", (), "COUNT", "changing the master")] = 100

    verbose: Annotated[bool, Flag("the same as --log-level debug", ("-v", "--verbose"), "", "log")] = False

    @model_validator(mode="after")
    def _one_store(self) -> ManagerConfig:
        if self.state_dir and self.zkservers:
            raise ValueError(
                "--zk and --state-dir: not both; the latter is for commands to an rfproxy in embedded mode"
            )
        return self

    @model_validator(mode="after")
    def _samples_are_frequent_enough(self) -> ManagerConfig:
        if self.max_staleness is not None and self.max_staleness < 2 * self.probe_interval:
            least = 2 * self.probe_interval
            raise ValueError(f"--max-staleness: at least {least:g} s, twice the --probe-interval by which it is told")
        return self

    @property
    def limits(self) -> Limits:
        """When a server counts as dead."""
        return Limits(
            self.max_failures,
            self.probe_interval,
            self.probe_timeout,
            self.reconnect_interval,
            self.unreachable_timeout,
            self.busy_patience,
        )

    @property
    def paths(self) -> Paths:
        """Where the records of this group are."""
        return Paths(self.znode_path)

    @property
    def least_log_level(self) -> Literal["debug", "info", "warning", "error"]:
        """`log_level`, unless `verbose` asks for more."""
        return "debug" if self.verbose else self.log_level


GEMS_TIMEOUT = 5.0
"""Seconds that the gem waits for an answer (`MAX_OP_WAIT_TIME`)."""
GEMS_INTERVAL = 2.0
"""Seconds that it sleeps between two attempts (`WATCHER_SLEEP_TIME`)."""


def with_gems_patience(config: ManagerConfig) -> tuple[ManagerConfig, str]:
    """The times that `max_failures` was chosen for by somebody who ran the gem, as far as no other ones are given; and
    a notice that says what they are, empty when all are given.

    Nor is a silent master given more time after false alarms: the brake is for times that are shorter than these, and
    several times these would be longer than proxies hold commands for.
    """
    attempt = GEMS_TIMEOUT + GEMS_INTERVAL  # here the next one begins at once
    times = {
        "probe_timeout": attempt,
        "reconnect_interval": GEMS_INTERVAL,
        "unreachable_timeout": config.max_failures * attempt,
    }
    changed = {name: value for name, value in times.items() if name not in config.model_fields_set}
    if not changed:
        return config, ""
    if "probe_timeout" in changed and "brake_limit" not in config.model_fields_set:
        changed["brake_limit"] = 1
    patient = config.model_copy(update=changed)
    now, own = patient.limits, config.limits
    lines = ", ".join(f"{name}: {getattr(config, name):g}" for name in changed)
    where = "" if times.keys() <= changed.keys() else "where no others are given, "
    return patient, (
        f"{where}the times of redis_failover are kept for max_failures {config.max_failures}: a server "
        f"counts as down when it refuses connections for {now.refusal:g} s, is silent for {now.silence:g} s, or "
        f"its host is for {now.unreachable:g} s. For the times of rfmanager "
        f"({max(own.refusal, 0.1):.1f} s, {own.silence:.1f} s, {own.unreachable:.1f} s) write {lines}"
    )


def parser(prog: str = "rfmanager") -> OptionParser[ManagerConfig]:
    """The command line of the daemon; the commands are added by `cli`."""
    return OptionParser(
        ManagerConfig,
        prog=prog,
        description="Watch a group of Redis servers together with other managers and move the master role when "
        "it must be moved. Without a COMMAND, run the daemon.",
        required=("nodes", "zkservers"),
    )
