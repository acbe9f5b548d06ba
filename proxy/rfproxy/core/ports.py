"""Ports of the core: the logger, and an upstream connection as the sessions see it that it gives runs back to."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from rfproxy.core.identity import Duty, LaneKey


class Log(Protocol):
    """The part of structlog's loggers that the core uses."""

    def info(self, event: str, **fields: object) -> object:
        """Something an operator may want to know."""

    def warning(self, event: str, **fields: object) -> object:
        """Something an operator should look at."""


class UpstreamConnection:
    """A connection to a server, as far as it matters to the commands that were on it. Times are in seconds."""

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.duty = key.duty
        self.writes = key.duty is Duty.MASTER
        """Whether it takes more than reads."""
        self.closed_at = float("-inf")
        self.sent_head = 0.0
        """When the oldest run in flight was sent, as the connection closed."""
        self.lapsed = False
        """Whether it was ended because the proxy had no lease any more."""

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Whether runs may be enqueued."""

    @property
    @abstractmethod
    def took_nothing(self) -> bool:
        """Whether a blocking command, the oldest in flight, has been answered that it took nothing."""

    @property
    @abstractmethod
    def denial(self) -> str | None:
        """The error by which the server refused the user, or None. A replica may only not have heard of the user."""

    @property
    @abstractmethod
    def refused_as_busy(self) -> bool:
        """Whether the server refused the connection because a script runs."""
