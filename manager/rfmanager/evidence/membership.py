"""Which servers belong to the group: those that live managers are configured with. Pure.

The record of the topology only remembers. A server that it names, and that no live manager is configured with, is
dropped after a grace, in which managers are restarted one by one with another configuration. The master stays, and
nobody is dropped while it changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from rfprotocol.topology.topology import ManagerReport, Node, Phase, Topology


class Membership:
    """`grace`: seconds. Times are of the caller's clock."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._orphaned: dict[Node, float] = {}

    def members(self, now: float, reports: Iterable[ManagerReport], topology: Topology | None) -> frozenset[Node]:
        """The members, as live managers say in their reports. One that does not say what it is configured with (of an
        earlier release, or the gem) counts for all that it reports."""
        configured: set[Node] = set()
        for report in reports:
            own = [view.node for view in report.nodes] if report.configured is None else report.configured
            configured.update(own)
        listed = topology.nodes if topology is not None else frozenset()
        needed = {topology.master} if topology is not None else set()
        orphans = listed - configured
        self._orphaned = {node: self._orphaned.get(node, now) for node in orphans}
        changes = topology is None or topology.phase is not Phase.SERVING
        kept = {
            node for node, since in self._orphaned.items() if changes or node in needed or now - since < self._grace
        }
        return frozenset(configured | kept)
