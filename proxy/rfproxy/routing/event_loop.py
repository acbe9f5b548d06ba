"""Port of the event loop: what the router asks of the program that drives it."""

from __future__ import annotations

from typing import Protocol

from rfprotocol.network.tcp_info import TcpInfo
from rfproxy.upstream.connection import Lane


class Shell(Protocol):
    """What the core asks of the event loop that drives it."""

    def connect(self, lane: Lane) -> None:
        """Open a connection to `lane.key.node`, then call `lane.connected`, or `lane.lose` with the reason."""

    def flush_soon(self) -> None:
        """Call `Router.flush` once, when what has arrived in this turn of the loop is dealt with."""

    def wake_at(self, when: float) -> None:
        """Call `Router.tick` at that time (seconds, monotonic), or earlier."""

    def kernel(self, lane: Lane) -> TcpInfo | None:
        """What the kernel knows of a lane's connection; None when there is none."""

    def report_busy(self) -> None:
        """Tell the managers which servers are busy: `Watch.busy` has changed."""

    def acknowledge(self, epoch: int) -> None:
        """Tell the managers that nothing is sent to a master of an earlier epoch any more."""
