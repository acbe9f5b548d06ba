"""Errors of durable writes name the command, the master and the reason."""

from __future__ import annotations

from rfprotocol.resp.command_table import lookup
from rfprotocol.topology.topology import Node
from rfproxy.core.durability import Durability, Shortfall


def test_durability_defaults_to_one_replica_within_a_second() -> None:
    assert Durability() == Durability(replicas=1, timeout=1.0)


def test_shortfall_names_subcommand_as_written() -> None:
    error = Shortfall(Node("m", 1), "to 1 replica within 1 s").error(lookup([b"XGROUP", b"CREATE"]))
    assert error == (
        b"-UNCERTAIN XGROUP CREATE was executed by master m:1 but not replicated to 1 replica within 1 s\r\n"
    )
