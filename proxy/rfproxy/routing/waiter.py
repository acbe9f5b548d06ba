"""Port of a session for routing: what the router, the hold queue and the pools of connections ask of it."""

from __future__ import annotations

from abc import abstractmethod

from rfproxy.core.identity import Identity
from rfproxy.core.work_items import ReplyTarget
from rfproxy.routing.route_cache import Ways


class Waiter(ReplyTarget):
    """A session that is given connections, or has to wait for one. Times are in seconds."""

    def __init__(self, number: int, identity: Identity, born: float) -> None:
        super().__init__(number, identity)
        self.born = born
        self.ways = Ways()
        self.waits_since: float | None = None
        """Since when it has waited for a master, in vain or not, since something was answered."""

    @property
    @abstractmethod
    def first_sent(self) -> float:
        """When the command that waits was sent for the first time, if its connection failed then; else 0."""

    @property
    @abstractmethod
    def only_pings(self) -> bool:
        """Whether the command that waits is a PING."""

    @abstractmethod
    def check_limits(self) -> None:
        """Choose the limits for its commands anew: servers ask for AUTH, or no longer do."""

    @abstractmethod
    def release_expired(self, now: float) -> None:
        """Forget the workers whose clients had this one told, and that have not asked for it for long."""

    @abstractmethod
    def give_up(self, now: float) -> None:
        """The longest wait is over."""
