"""Is one server available? Probes and the time go in, a report comes out. No I/O.

    UNKNOWN ──answer──> AVAILABLE ──a verdict──> UNAVAILABLE
       └──────────────────a verdict────────────────^  │
                        AVAILABLE <── first good answer ┘

A probe is one attempt to have an open connection and an answer to INFO. Silences differ by what the other *kernel*
does, and each has its own bound:

* The connection is closed, and `max_failures` attempts `reconnect_interval` apart are refused: the process is gone.
  Known after (max_failures - 1) * reconnect_interval.
* Nothing is acknowledged any more, or there is no route: the host is gone. Known `unreachable_timeout` after the oldest
  unacknowledged byte was sent.
* Bytes are acknowledged and `max_failures` probes are not answered: the process is frozen, or busy with something
  unknown. Known after at most probe_interval + max_failures * probe_timeout.
* The same, and a proxy has said which command keeps the server busy: `busy_patience` after the first probe without an
  answer. The excuse holds until the silence ends, whatever becomes of the proxy or of its client: the server goes on
  with the command. It does not help a server that refuses connections, or whose host is gone.

An error reply is an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rfprotocol.errors import Failure
from rfprotocol.topology.topology import Node, NodeReport

HEARTBEAT = 0.1
"""Seconds between two signs that a server's host is asked for: two bytes, so that there is something to acknowledge."""

EARLY = 0.01
"""Seconds that a few timers may end too soon, together: each by a millisecond (uvloop). When the bound is a multiple of
`probe_timeout`, the probe that reaches it must not count as short of it, or another one is waited for."""

UNLINKED = 10.0
"""Seconds that a replica may be without a link to its master, and copy nothing, before that is worth a word. A fresh
one waits 5 s, by default, for the transfer to begin (`repl-diskless-sync-delay`)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a server counts as dead; times in seconds."""

    max_failures: int = 3
    probe_interval: float = 0.25
    probe_timeout: float = 0.45
    reconnect_interval: float = 0.01
    unreachable_timeout: float = 0.8
    busy_patience: float = 5.0

    @property
    def silence(self) -> float:
        """Seconds without an answer after which a process counts as dead."""
        return self.max_failures * self.probe_timeout

    @property
    def refusal(self) -> float:
        """Seconds from the first refused connection to the one after which a process counts as dead."""
        return (self.max_failures - 1) * self.reconnect_interval

    @property
    def unreachable(self) -> float:
        """Seconds without a sign of its host after which a server counts as dead: it answers no probe either."""
        return min(self.unreachable_timeout, self.silence)

    @property
    def longest(self) -> float:
        """Seconds within which a dead server is found out, at most, when nothing excuses its silence."""
        return self.probe_interval + max(self.silence, self.refusal)


class Verdict(Enum):
    """What is known about a server."""

    UNKNOWN = "unknown"
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why a server is silent: the command, and the proxy that has sent it."""

    command: str
    proxy: str


class Detector:
    """One server as this manager sees it."""

    def __init__(self, node: Node, limits: Limits, now: float) -> None:
        self.node = node
        self.verdict = Verdict.UNKNOWN
        self.next_probe = now
        self.sampled_at = float("-inf")  # when the last sample that arrived was asked for
        self.failing_since: float | None = None  # when the first sign came that nothing has refuted
        self.silent_since: float | None = None  # when the first probe was sent that the process has not answered
        self._limits = limits
        self._failures = 0
        self._not_before = float("-inf")  # refusals are counted apart, however great the hurry
        self._out_of_reach_since: float | None = None  # the host has shown no sign of life since then
        self._excuse: Excuse | None = None  # of this silence
        self._unlinked_since: float | None = None  # when it was first seen to be a replica without a link
        self._last = NodeReport(node, available=False, condition="unknown")

    @property
    def report(self) -> NodeReport | None:
        """None until the first verdict."""
        return None if self.verdict is Verdict.UNKNOWN else self._last

    @property
    def noticed_at(self) -> float:
        """When what the report says was first known: the last answer, or the first sign that it is gone."""
        answered = self.sampled_at + self._last.latency
        return answered if self.failing_since is None else max(answered, self.failing_since)

    @property
    def wants_excuse(self) -> bool:
        """Is it silent, and nobody has said why?"""
        return self.silent_since is not None and self._excuse is None

    @property
    def excused(self) -> bool:
        """Has a proxy said why it is silent?"""
        return self._excuse is not None

    def answered(self, asked: float, now: float, sample: NodeReport) -> bool:
        """A probe sent at `asked` returned `sample`. True when more changed than latency and offset."""
        self.sampled_at = asked
        return self._alive(now, replace(sample, available=True))

    def refused(self, now: float, code: str, latency: float = 0.0) -> bool:
        """The server answered with an error: it lives; what it said before still describes it. As `answered`."""
        said = replace(_without_excuse(self._last), available=True, condition=code.lower(), latency=latency)
        return self._alive(now, said)

    def unanswered(self, asked: float) -> None:
        """A probe sent at `asked` has no answer yet, later than is usual: time to ask for an excuse."""
        if self.silent_since is None:
            self.silent_since = asked

    def excuse(self, excuse: Excuse) -> None:
        """A proxy says why it is silent."""
        if self.silent_since is not None:
            self._excuse = excuse

    def unacknowledged(self, now: float, seconds: float) -> bool:
        """Its host has acknowledged nothing for so long, on a connection that is open; 0 when it is well.

        True when this made the server unavailable.
        """
        if seconds <= 0.0:
            self._out_of_reach_since = None
            return False
        since = now - seconds
        if self._out_of_reach_since is None or self._out_of_reach_since > since:
            self._out_of_reach_since = since
        return self._is_gone(now) and self._down(now, Failure.UNREACHABLE)

    def failed(self, now: float, how: Failure, asked: float | None = None) -> bool:
        """A probe, sent at `asked`, got no answer. True when this made the server unavailable, or it is so for another
        reason."""
        asked = now if asked is None else asked
        self._failing(asked if how in (Failure.TIMEOUT, Failure.UNREACHABLE) else now)
        if how is Failure.UNREACHABLE:
            if self._out_of_reach_since is None:
                self._out_of_reach_since = asked
            self.next_probe = max(now, asked + HEARTBEAT)  # no route: known at once, and to be tried again
            return self._is_gone(now) and self._down(now, how)
        self._out_of_reach_since = None
        self._failures += 1
        if how is Failure.TIMEOUT:
            self.unanswered(asked)
            self.next_probe = max(now, self._not_before)
        else:
            self._answers_again()
            # A name service that fails says nothing about the server: it gets as much time as the server would.
            slow = how is Failure.UNRESOLVED
            self._not_before = asked + self._limits.probe_timeout if slow else now + self._limits.reconnect_interval
            self.next_probe = max(now, self._not_before)
        if self._failures < self._limits.max_failures:
            return False
        if how is Failure.TIMEOUT and self._patience(now) > 0.0:
            return self._wait(now)
        return self._down(now, how)

    def hurry(self, now: float) -> None:
        """Probe at once: something happened that makes the last sample old."""
        self.next_probe = min(self.next_probe, max(now, self._not_before))

    def disconnected(self, now: float) -> None:
        """Its connection was closed: probe at once. If it does not answer, this was the first sign."""
        self._failing(now)
        self.hurry(now)

    def _failing(self, since: float) -> None:
        """The first sign counts, and clients have waited since then: a silence began with what is not answered."""
        if self.failing_since is None:
            self.failing_since = since

    def _answers_again(self) -> None:
        self.silent_since = self._excuse = None

    def _is_gone(self, now: float) -> bool:
        since = self._out_of_reach_since
        return since is not None and now - since >= self._limits.unreachable - EARLY

    def _patience(self, now: float) -> float:
        """Seconds that its silence is excused for from now on."""
        if self._excuse is None or self.silent_since is None or self.verdict is Verdict.UNAVAILABLE:
            return 0.0
        return self.silent_since + self._limits.busy_patience - now

    def _wait(self, now: float) -> bool:
        """It would be dead but for its excuse."""
        if self.verdict is Verdict.UNKNOWN or self._excuse is None or self.silent_since is None:
            return False
        before = self._last
        self._last = replace(
            before,
            condition="silent",
            busy_with=self._excuse.command,
            said_by=self._excuse.proxy,
            silent_for=now - self.silent_since,
            patience=self._patience(now),
        )
        return _significant(before) != _significant(self._last)

    def _down(self, now: float, how: Failure) -> bool:
        gone = self._out_of_reach_since if how is Failure.UNREACHABLE else None
        self._failing(now if gone is None else gone)
        self.next_probe = max(self.next_probe, now + self._limits.probe_interval)
        before, self.verdict = self.verdict, Verdict.UNAVAILABLE
        known, last = self._last, replace(_without_excuse(self._last), available=False, link_up=False, unlinked_for=0.0)
        self._unlinked_since = None
        overdue = self._excuse.command if how is Failure.TIMEOUT and self._excuse is not None else ""
        self._last = replace(last, condition=how.value, busy_with=overdue)
        return before is not Verdict.UNAVAILABLE or known.condition != self._last.condition

    def _alive(self, now: float, report: NodeReport) -> bool:
        self._failures = 0
        self.failing_since = self._out_of_reach_since = None
        self._answers_again()
        self.next_probe = now + self._limits.probe_interval
        before = self._last if self.verdict is Verdict.AVAILABLE else None
        report = replace(report, unlinked_for=self._unlinked(now, report))
        self.verdict, self._last = Verdict.AVAILABLE, report
        return before is None or _significant(before) != _significant(report)

    def _unlinked(self, now: float, report: NodeReport) -> float:
        """Seconds that it has had no link. A detached replica wants none, and one that copies is on its way to it."""
        wants = report.role == "slave" and report.follows is not None
        if not wants or report.link_up or report.syncing:
            self._unlinked_since = None
            return 0.0
        if self._unlinked_since is None:
            self._unlinked_since = now
        return now - self._unlinked_since


def _without_excuse(report: NodeReport) -> NodeReport:
    return replace(report, busy_with="", said_by="", silent_for=0.0, patience=0.0)


_COUNTS: dict[str, Any] = {"connected_replicas": 0, "empty": False, "keys": 0, "clients": 0}
"""What changes all the time, and is no news."""


def _significant(report: NodeReport) -> NodeReport:
    unlinked = UNLINKED if report.unlinked_for >= UNLINKED else 0.0
    return replace(report, latency=0.0, offset=0, silent_for=0.0, patience=0.0, unlinked_for=unlinked, **_COUNTS)
