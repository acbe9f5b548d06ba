"""How long this proxy may believe its view of the topology.

The manager that deposes a master waits until every registered proxy has acknowledged that, or until the
store has ended the proxy's session. So a proxy may act on what it last read only while its session certainly
lives: from the moment it *sent* the last request that was answered within that session, for the session
timeout, less the margin of `rfprotocol.lease_margin`. The clock is the caller's, and must go on in suspension.

Without a lease nothing is written. Reads from the last known master go on, but not at once: a proxy that was
frozen, or cut off, finds its lease run out and the news of a successor both at the same moment.
"""

from __future__ import annotations

from rfprotocol.lease_margin import good_until

NEWS = 1.0
"""Seconds for which reads, and what the master replies, wait for news of the store when the lease has run out."""


class Lease:
    """Valid until a moment in time; renewed by proofs of life, revoked with the session."""

    def __init__(self) -> None:
        self.until = float("-inf")
        self.reads_from = float("-inf")
        """Seconds of the clock from when on the last known master may be read from without a lease."""

    def renew(self, sent: float, session_timeout: float) -> None:
        """A round trip that began at `sent` (seconds) was answered within the session."""
        self.until = max(self.until, good_until(sent, session_timeout))
        self.reads_from = float("inf")

    def revoke(self) -> None:
        """The session is over; only a proof from the next one counts."""
        self.until = float("-inf")

    def lapsed(self, now: float) -> None:
        """It has been noticed that the lease ran out."""
        self.reads_from = min(self.reads_from, now + NEWS)

    def valid(self, now: float) -> bool:
        """Whether nobody can have deposed the known master without this proxy's consent."""
        return now < self.until
