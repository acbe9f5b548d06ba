"""Port of the router: what health checks and maintenance ask of it, so that they need not know it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping

from rfprotocol.topology.topology import Node
from rfproxy.core.counters import Stats
from rfproxy.core.identity import Identity, LaneKey
from rfproxy.core.peers import Peers
from rfproxy.core.policy import Policy
from rfproxy.core.ports import Log
from rfproxy.core.work_items import Need
from rfproxy.upstream.connection import Lane, LaneOwner


class RouterPort(LaneOwner):
    """The connections to all servers, and the topology that they follow. Times are seconds of a monotonic clock."""

    def __init__(self, policy: Policy, stats: Stats, log: Log) -> None:
        self.policy = policy
        self.stats = stats
        self.log = log
        self.peers: Peers | None = None
        """The other workers, when there are any."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """That of the topology in force; -1 before the first."""

    # --- for maintenance

    @abstractmethod
    def open(self, now: float) -> bool:
        """Whether commands may be sent to the master."""

    @abstractmethod
    def run_id(self, key: LaneKey) -> str:
        """The process that a lane with this key is to find there; empty when any will do."""

    @abstractmethod
    def connect_service(self, lane: Lane) -> None:
        """Open a connection for what the proxy itself has to say to a server."""

    @abstractmethod
    def wake_chores(self, when: float) -> None:
        """Be sure to look at that time after work that nobody waits for."""

    # --- for health

    @property
    @abstractmethod
    def lanes(self) -> list[Lane]:
        """All that are not closed."""

    @property
    @abstractmethod
    def silent(self) -> Collection[Node]:
        """Replicas that do not answer."""

    @abstractmethod
    def find(self, number: int, identity: Identity, need: Need, now: float) -> Lane | None:
        """The shared lane for session `number`, or None when it has to wait."""

    @abstractmethod
    def knows(self, node: Node) -> bool:
        """Whether a server has a place in the topology in force."""

    @abstractmethod
    def reads_elsewhere(self, node: Node, now: float) -> bool:
        """Whether what was asked of this server could be asked of another one, for a client that only reads."""

    @abstractmethod
    def pass_over_silent(self, node: Node, now: float, *, acknowledges: bool) -> None:
        """Read no more from a replica that does not answer; `acknowledges`: its kernel does."""

    @abstractmethod
    def replicas_replied(self, heard: Mapping[Node, float], now: float) -> None:
        """Read again from replicas that were silent and have been heard since."""

    @abstractmethod
    def try_silent(self, now: float) -> None:
        """Try silent replicas whose time has come."""
