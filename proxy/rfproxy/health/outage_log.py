"""Connections that failed, as episodes: one line when an episode begins, one with the counts when it ends.

A server that is down, or full, fails each connection that is tried. A line for each would hide all others.
"""

from __future__ import annotations

from dataclasses import dataclass

from rfprotocol.topology.topology import Node


@dataclass(slots=True)
class Outage:
    """What has failed at one server for one reason. Seconds of the core's clock."""

    reason: str
    since: float
    lost: int = 1


class Outages:
    """The episodes that have not ended, by server."""

    def __init__(self) -> None:
        self._outages: dict[Node, Outage] = {}

    def lost(self, node: Node, reason: str, now: float) -> bool:
        """A connection failed; whether that begins an episode, or gives another reason for it."""
        outage = self._outages.get(node)
        if outage is None:
            self._outages[node] = Outage(reason, now)
            return True
        outage.lost += 1
        another, outage.reason = outage.reason != reason, reason
        return another

    def reason(self, node: Node | None) -> str:
        """Why connections to this server have failed lately; empty when they do not."""
        outage = self._outages.get(node) if node is not None else None
        return outage.reason if outage is not None else ""

    def over(self, node: Node) -> Outage | None:
        """The server has replied to a command, or is not used any more: the episode that ends, if there was one."""
        return self._outages.pop(node, None)

    @property
    def nodes(self) -> list[Node]:
        """The servers with an episode."""
        return list(self._outages)
