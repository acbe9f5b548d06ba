"""What all connections to one server together have shown of it.

It is kept up to date by the connections themselves, once for each packet at most: when a server with thousands of them
is lost, nobody has to look at all others for each one.
"""

from __future__ import annotations

from math import inf


class Contact:
    """Of one server. Times are seconds of the core's clock."""

    __slots__ = ("answered", "ended", "ready")

    def __init__(self) -> None:
        self.ready = 0
        """Connections that are greeted and may be used."""
        self.answered = -inf
        """When the latest command that was answered had been sent."""

        self.ended = 0
        """Connections that it had greeted and then ended: after each it may be about to end the others."""

    def answers(self, sent: float) -> None:
        """A command was answered that had been sent then."""
        self.answered = max(self.answered, sent)

    @property
    def serves(self) -> bool:
        """Whether there is a connection that may be used."""
        return self.ready > 0
