"""Durable writes, as values: what operators ask for, and why a write falls short of it."""

from __future__ import annotations

from dataclasses import dataclass

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Command
from rfprotocol.topology.topology import Node


@dataclass(frozen=True, slots=True)
class Durability:
    """How many replicas must have a write, and how many seconds they get for it."""

    replicas: int = 1
    timeout: float = 1.0


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why the writes of a batch are not known to be on enough replicas."""

    node: Node
    reason: str

    def error(self, command: Command) -> bytes:
        """What a client hears instead of the reply to its write."""
        name = command.name.replace("|", " ")
        return resp.error(f"UNCERTAIN {name} was executed by master {self.node} but not replicated {self.reason}")
