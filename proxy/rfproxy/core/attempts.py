"""The attempts that were made at a command, and what follows from them.

A proxy that repeats a command whose server failed multiplies whatever harms a server. So each command carries its
record. A connection that the server ended blames the command at its head: the oldest one in flight.

    blamed once            it travels alone, on a connection that carries nothing else
    blamed twice           it is not sent again
    beside it twice        it travels alone, too: replies are lost together, so the head may be innocent
    behind a command of the same client
                           as if it was blamed: what comes from one client is one suspect
    blamed within FATAL of its sending, by a master, and such that a server may die of it; or beside it when two masters
    ended within FATAL     it is never sent to another master: the data outweigh one repetition

A small write or read (SET, HSET, INCR, GET) at the head of a killed master is innocent, as far as anybody can know: it
is repeated, so that clients do not notice the failover. Were it guilty all the same, a second server would be lost, and
no third one.

All times are seconds of the core's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from rfprotocol.topology.topology import Node

MOST_BLAMED: Final = 2
"""Connections that one command may cost, each of which carried it at its head."""
MOST_BESIDE: Final = 2
"""Connections that a command may lose from behind the head before it travels alone."""
FATAL: Final = 1.5
"""Seconds within which the end of a server may be the effect of a command that it was sent."""

JUST_SENT: Final = 0.2
"""Seconds after its sending within which a blocking command may have been served, and its reply be lost: a server that
has something for it replies at once."""
SUSPICIOUS: Final = 1.0
"""Seconds for which a server is silent over a command that may be the cause of it."""


class Loss(Enum):
    """How a command comes back from a connection that is over."""

    UNSENT = "it was not sent"
    WITHDRAWN = "the proxy ended the connection"
    BESIDE = "the server ended the connection, and an older command was in flight"
    BEHIND_OWN = "the server ended the connection, and an older command of the same client was the oldest in flight"
    AT_HEAD = "the server ended the connection, and it was the oldest command in flight"


@dataclass(frozen=True, slots=True)
class Attempts:
    """What has become of the earlier sendings of one command."""

    first_sent: float = 0.0
    blamed: int = 0
    """Connections that ended while it was at their head."""
    own: int = 0
    """Connections that ended while a command of the same client was at their head, and it was behind that one."""
    beside: int = 0
    """Connections that ended while it was in flight behind another command."""
    lost_on: str = ""
    """Of a write that a server may have executed: why that never replied, in words."""
    suspect_at: Node | None = None
    """The server whose connection it was blamed for last."""
    ended: str = ""
    """The first master process whose connection ended while it was in flight, wherever among the others."""
    fatal_to: str = ""
    """The master process that may have died of it: no other one may be sent it."""

    @property
    def sent(self) -> bool:
        """Whether it was sent before and not answered."""
        return self.first_sent > 0

    @property
    def failed(self) -> bool:
        """Whether its server ended a connection that it was in flight on."""
        return self.blamed > 0 or self.own > 0 or self.beside > 0

    @property
    def suspect(self) -> bool:
        """Whether a server may have ended a connection because of it."""
        return self.blamed > 0 or self.own > 0

    @property
    def alone(self) -> bool:
        """Whether the next attempt is made on a connection that carries nothing else."""
        return self.suspect or self.beside >= MOST_BESIDE

    @property
    def spent(self) -> bool:
        """Whether no further attempt is made."""
        return self.blamed + self.own >= MOST_BLAMED

    def after(
        self, loss: Loss, node: Node, sent: float, now: float, master_process: str = "", *, deadly: bool = True
    ) -> Attempts:
        """The connection to the server at `node` is over since `now`; the command had been sent at `sent`.

        `master_process` names the server's process if it was the master; `deadly`: a server may die of the command.
        """
        if loss is Loss.UNSENT:
            return self
        first_sent = self.first_sent or sent
        if loss is Loss.WITHDRAWN:
            return replace(self, first_sent=first_sent)
        ended = master_process if now - sent <= FATAL else ""
        second = ended if self.ended not in ("", ended) else ""
        if loss is Loss.BESIDE:
            return replace(
                self,
                first_sent=first_sent,
                beside=self.beside + 1,
                ended=self.ended or ended,
                fatal_to=self.fatal_to or second,
                suspect_at=node if second else self.suspect_at,
            )
        behind = loss is Loss.BEHIND_OWN
        return replace(
            self,
            first_sent=first_sent,
            blamed=self.blamed + (not behind),
            own=self.own + behind,
            suspect_at=node,
            ended=self.ended or ended,
            fatal_to=self.fatal_to or (ended if deadly else second),
        )

    def refused(self, sent: float) -> Attempts:
        """The server that it was sent to at `sent` said that it did not execute it."""
        return self if self.first_sent else replace(self, first_sent=sent)

    def expired(self, now: float, patience: float) -> bool:
        """Whether `patience` seconds have passed since it was sent first."""
        return bool(self.first_sent) and now - self.first_sent > patience


NEVER_SENT: Final = Attempts()
