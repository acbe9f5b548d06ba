"""Options of `rfmanager`: those of Ruby's node manager with their defaults and meaning, and a few more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from rfprotocol.optionparser import OptionParser
from rfprotocol.options import CommonOptions, Count, Flag, RubySymbol, Seconds, Servers
from rfprotocol.paths import Paths


class ManagerConfig(CommonOptions):
    """Times are seconds."""

    env_prefix: ClassVar[str] = "RFMANAGER_"

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
    def paths(self) -> Paths:
        """Where the records of this group are."""
        return Paths(self.znode_path)

    @property
    def least_log_level(self) -> Literal["debug", "info", "warning", "error"]:
        """`log_level`, unless `verbose` asks for more."""
        return "debug" if self.verbose else self.log_level


def parser() -> OptionParser[ManagerConfig]:
    """The command line of the daemon; the commands are added by `cli`."""
    return OptionParser(
        ManagerConfig,
        prog="rfmanager",
        description="Watch a group of Redis servers together with other managers and move the master role when "
        "it must be moved. Without a COMMAND, run the daemon.",
        required=("nodes", "zkservers"),
    )
