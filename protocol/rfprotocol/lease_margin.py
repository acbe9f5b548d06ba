"""How long an answer of the store proves that the session with it lives: the one margin of both programs' leases.

From the moment at which the request was *sent*, for the session timeout, less a margin. The margin covers what happens
inside ZooKeeper: a follower passes the signs of life of its clients on to the leader only with the leader's pings,
twice per tick, and the shortest session a server grants is two ticks. A proof can therefore count up to a quarter of
the session timeout less than the client thinks. That much is lost, so more has to be kept: a third.

Pure. Times are seconds of one clock, which must not stand still while the machine is suspended: `rfprotocol.clock`.
"""

from __future__ import annotations

MARGIN = 1 / 3
"""Part of the session timeout that is not relied upon."""


def good_until(sent: float, session_timeout: float) -> float:
    """When a proof that was sent at `sent`, and answered within the session, has run out."""
    return sent + session_timeout * (1 - MARGIN)
