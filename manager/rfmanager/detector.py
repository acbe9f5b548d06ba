"""Is one server available? Probes and the time go in, a report comes out. No I/O.

    UNKNOWN ──answer──> AVAILABLE ──max_failures failures in a row──> UNAVAILABLE
       └───────────────max_failures failures in a row────────────────────^  │
                        AVAILABLE <──────────── first good answer ──────────┘

A probe is one attempt to have an open connection and an answer to INFO. A closed connection is answered by a
probe at once, and refusals by further ones `reconnect_interval` apart: a killed process is found after
(max_failures - 1) * reconnect_interval. One that accepts and stays silent is found after at most
probe_interval + max_failures * probe_timeout. An error reply is an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from rfprotocol.topology import Node, NodeReport


@dataclass(frozen=True, slots=True)
class Limits:
    """When a server counts as dead; times in seconds."""

    max_failures: int = 3
    probe_interval: float = 0.25
    probe_timeout: float = 0.45
    reconnect_interval: float = 0.01

    @property
    def longest(self) -> float:
        """Seconds within which a dead server is found out, at most."""
        return self.probe_interval + self.max_failures * self.probe_timeout


class Verdict(Enum):
    """What is known about a server."""

    UNKNOWN = "unknown"
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


class Failure(Enum):
    """How a probe failed; the value is the condition that the report shows."""

    REFUSED = "refused"  # also: closed while it was asked
    TIMEOUT = "timeout"


class Detector:
    """One server as this manager sees it."""

    def __init__(self, node: Node, limits: Limits, now: float) -> None:
        self.node = node
        self.verdict = Verdict.UNKNOWN
        self.next_probe = now
        self.sampled_at = float("-inf")  # when the last sample that arrived was asked for
        self.failing_since: float | None = None  # when the first sign came that nothing has refuted
        self._limits = limits
        self._failures = 0
        self._not_before = float("-inf")  # refusals are counted apart, however great the hurry
        self._last = NodeReport(node, available=False, condition="unknown")

    @property
    def report(self) -> NodeReport | None:
        """None until the first verdict."""
        return None if self.verdict is Verdict.UNKNOWN else self._last

    def answered(self, asked: float, now: float, sample: NodeReport) -> bool:
        """A probe sent at `asked` returned `sample`. True when more changed than latency and offset."""
        self.sampled_at = asked
        return self._alive(now, replace(sample, available=True))

    def refused(self, now: float, code: str, latency: float = 0.0) -> bool:
        """The server answered with an error: it lives; what it said before still describes it. As `answered`."""
        return self._alive(now, replace(self._last, available=True, condition=code.lower(), latency=latency))

    def failed(self, now: float, how: Failure) -> bool:
        """A probe got no answer. True when this made the server unavailable, or it is so for another reason."""
        self._failures += 1
        self._failing(now)
        if self._failures < self._limits.max_failures:
            if how is Failure.REFUSED:
                self._not_before = now + self._limits.reconnect_interval
            self.next_probe = max(now, self._not_before)
            return False
        self.next_probe = now + self._limits.probe_interval
        before, self.verdict = self.verdict, Verdict.UNAVAILABLE
        known, self._last = self._last, replace(self._last, available=False, condition=how.value, link_up=False)
        return before is not Verdict.UNAVAILABLE or known.condition != self._last.condition

    def hurry(self, now: float) -> None:
        """Probe at once: something happened that makes the last sample old."""
        self.next_probe = min(self.next_probe, max(now, self._not_before))

    def disconnected(self, now: float) -> None:
        """Its connection was closed: probe at once. If it does not answer, this was the first sign."""
        self._failing(now)
        self.hurry(now)

    def _failing(self, now: float) -> None:
        if self.failing_since is None:
            self.failing_since = now

    def _alive(self, now: float, report: NodeReport) -> bool:
        self._failures = 0
        self.failing_since = None
        self.next_probe = now + self._limits.probe_interval
        before = self._last if self.verdict is Verdict.AVAILABLE else None
        self.verdict, self._last = Verdict.AVAILABLE, report
        return before is None or _significant(before) != _significant(report)


def _significant(report: NodeReport) -> NodeReport:
    return replace(report, latency=0.0, offset=0, connected_replicas=0, empty=False)
