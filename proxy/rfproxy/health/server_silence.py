"""The proxy's own judgement of silent servers: reads go elsewhere, and managers are told which servers are busy.

The managers judge slowly, because a change of master costs much. To ask another server for a read costs little, so
reads do not wait for them:

    seen on a connection                                        its reads go to another server after
    the other kernel acknowledges nothing (the host is gone)    UNREACHABLE, all of them
    it acknowledges, and no reply comes (frozen, or busy)       SILENT, those that take little time
                                                                HEAVY, the others too

A replica's connection is given up where nothing else waits for it; a master's never is, since the writes on it wait for
the managers. Each read goes elsewhere once. A silent replica is read from again when it replies: to what was left on
its connections, or on a new one, which is tried with growing intervals and without making a client wait.

What is silent because of a command that may take long is *busy*. The managers grant it patience when they are told.
What is told stays true when the client of that command leaves, until the server replies to anybody.

The owner calls `look` every LISTEN_EVERY while anything is unanswered: nothing is done for each command. When a server
falls silent on which thousands of clients wait, the proxy has to hear of a new master in time. So a look reads no more
than MOST_READ commands on a connection, the next look goes on there, and the kernel is asked about a bounded number of
connections.
Time in which the proxy itself stood still does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, takewhile
from math import inf
from typing import Final

from rfprotocol.network.tcp_info import TcpInfo, Unacknowledged
from rfprotocol.resp.command_table import lookup
from rfprotocol.topology.records import Occupation
from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Duty
from rfproxy.core.work_items import LEFTOVER, Need, ReplyTarget, Run
from rfproxy.upstream import long_reply_reissue
from rfproxy.upstream.connection import Lane, LaneState
from rfproxy.upstream.router_port import RouterPort

LISTEN_EVERY: Final = 0.1
"""Seconds between two looks."""
BUSY_AFTER: Final = 0.3
"""Seconds of silence after which a command that may take long is reported."""
TOLD_FOR: Final = 1.0
"""Seconds that a report stands at least: one command after the other of 0.3 s each is no reason for as many writes."""
READ_TOGETHER: Final = 0.1
"""What was sent within so many seconds a server may read at once, and it executes all of that before it sends the first
reply. Redis reads up to 16 KiB at a time: all that came during a long turn of its loop."""
UNREACHABLE: Final = 0.6
"""Seconds without an acknowledgement by the other kernel: two retransmissions at Linux' least interval of 0.2 s."""
SILENT: Final = 1.0
"""Seconds that a command may take which is not expected to take long."""
HEAVY: Final = 5.0
"""Seconds that a command may take which is; the same as the managers' patience with a server that is busy."""
MOST_SAMPLED: Final = 64
"""Connections to one server about which the kernel is asked in one look: what is true of all of them is true of the
others."""
MOST_READ: Final = 5000
"""Commands in flight on one connection that are read in one look."""


@dataclass(slots=True)
class Quiet:
    """One connection on which something is unanswered."""

    since: float
    """The last time it was heard, or when what is unanswered was sent, if that is later."""
    began: float
    """The same in the time of the looks, which does not pass while the proxy stands still."""
    kernel: Unacknowledged = field(default_factory=Unacknowledged)
    age: float = 0.0
    """Seconds for which its server has been silent on all connections."""
    unreachable: bool = False
    command: str = ""
    """That may take long, and keep the server busy."""
    executing: Iterator[str] | None = None
    """What else there may be, see `_executing`."""
    heavy: set[ReplyTarget] = field(default_factory=set)
    """Whose reads may take long."""

    def read_on(self, lane: Lane) -> str:
        """A command that may keep the server busy, among those that were read by now."""
        if not self.command:
            if self.executing is None:
                self.executing = _executing(lane)
            self.command = next(filter(None, islice(self.executing, MOST_READ)), "")
        return self.command


@dataclass(slots=True)
class _Sample:
    """The connections to one server about which the kernel was asked in a look."""

    lanes: int = 0
    unreachable: bool = True
    """Whether the kernel of the server acknowledges nothing on any of them."""


class Watch:
    """Of one router. Times are seconds of the caller's monotonic clock."""

    def __init__(
        self, router: RouterPort, kernel: Callable[[Lane], TcpInfo | None], report: Callable[[], None]
    ) -> None:
        """`kernel` tells what the kernel knows of a lane's connection; `report` is called when `busy` changes."""
        self.busy: Mapping[Node, Occupation] = {}
        """Servers that are silent because of a command that may take long."""
        self._router = router
        self._kernel = kernel
        self._report = report
        self._quiet: dict[Lane, Quiet] = {}
        self._noticed: dict[Node, float] = {}  # when a server was found to be busy
        self._clock = 0.0
        self._looked = -inf

    def look(self, now: float) -> bool:
        """Judge what is unanswered; whether to look again soon."""
        self._clock += min(now - self._looked, 2 * LISTEN_EVERY)
        self._looked = now
        heard: dict[Node, float] = {}
        awaited = False
        quiet: dict[Lane, Quiet] = {}
        samples: dict[Node, _Sample] = {}
        for lane in self._router.lanes:
            node = lane.key.node
            heard[node] = max(lane.heard, heard.get(node, -inf))
            if lane.awaits_reply:
                awaited = True
                if now - lane.silent_since >= LISTEN_EVERY:
                    quiet[lane] = self._judged(lane, samples.setdefault(node, _Sample()), now)
        self._quiet = quiet
        for lane, state in quiet.items():
            state.age = min(state.age, now - heard[lane.key.node])
        self._router.replicas_replied(heard, now)
        self._pass_over(now)
        self._notice_busy(heard, now)
        self._go_elsewhere(now)
        self._router.try_silent(now)
        return awaited or bool(self.busy) or bool(self._router.silent)

    def _judged(self, lane: Lane, sample: _Sample, now: float) -> Quiet:
        since = lane.silent_since
        quiet = self._quiet.get(lane)
        if quiet is None or quiet.since != since:
            quiet = Quiet(since, self._clock - min(now - since, 2 * LISTEN_EVERY))
        quiet.age = self._clock - quiet.began
        if sample.lanes >= MOST_SAMPLED:
            quiet.unreachable = sample.unreachable and quiet.age >= UNREACHABLE
            return quiet
        info = self._kernel(lane)
        unacknowledged = quiet.kernel.seconds(info, now) if info is not None else 0.0
        quiet.unreachable = min(unacknowledged, quiet.age) >= UNREACHABLE
        sample.lanes += 1
        sample.unreachable = sample.unreachable and quiet.unreachable
        return quiet

    # --- reads

    def _pass_over(self, now: float) -> None:
        """Read from no replica that is silent."""
        for lane, quiet in self._quiet.items():
            if quiet.age >= (UNREACHABLE if quiet.unreachable else SILENT):
                self._router.pass_over_silent(lane.key.node, now, acknowledges=not quiet.unreachable)

    def _go_elsewhere(self, now: float) -> None:
        for lane, quiet in self._quiet.items():
            if lane.probed:
                if quiet.age >= SILENT and lane.key.node not in self.busy:
                    self._router.discard(lane, now)  # what waits there was not sent
                continue
            if lane.state is LaneState.CLOSED or not self._router.reads_elsewhere(lane.key.node, now):
                continue
            if lane.serving and lane.in_flight[0].attempts.suspect:
                continue  # a third server is not asked: it waits for this one, or for the managers
            if lane.duty is not Duty.MASTER and (quiet.unreachable or quiet.age >= HEAVY):
                self._router.discard(lane, now)
            elif quiet.unreachable or quiet.age >= SILENT:
                self._move(lane, quiet, now, light=not quiet.unreachable and quiet.age < HEAVY)

    def _move(self, lane: Lane, quiet: Quiet, now: float, *, light: bool) -> None:
        """Ask for reads once more at another server; `light`: only for what should have been answered by now."""
        waiting: dict[ReplyTarget, list[Run]] = {}
        for run in lane.in_flight:
            if run.form is not LEFTOVER:
                waiting.setdefault(run.session, []).append(run)
        moving: dict[ReplyTarget, Lane] = {}
        for session, runs in waiting.items():
            if long_reply_reissue.may_go(session, runs) and not (light and _heavy(session, runs, quiet)):
                target = self._router.find(session.number, session.identity, Need.ANY, now)
                if target is not None and target.usable and target.key.node != lane.key.node:
                    moving[session] = target
        lane.leave_behind({run for session in moving for run in waiting[session]})
        suspected = next(iter(waiting), None)
        for session, target in moving.items():
            for run in waiting[session]:
                if session is suspected:
                    session.decide_unanswered(run, lane.key.node, now, oldest=run is waiting[session][0])
                else:
                    session.reissue(run, long_reply_reissue.once_more(run, lane, now), target)
        for session in moving:
            session.attend(session.settle if session is suspected else session.pump, now)

    # --- servers that are busy

    def _notice_busy(self, heard: Mapping[Node, float], now: float) -> None:
        """Keep `busy` true, and say when it has changed."""
        busy = {node: what for node, what in self.busy.items() if self._still_busy(node, heard, now)}
        for lane, quiet in self._quiet.items():
            node = lane.key.node
            if quiet.age < BUSY_AFTER or quiet.unreachable or node in busy:
                continue
            if command := quiet.read_on(lane):
                busy[node] = Occupation(command, round(quiet.age, 3))
                self._noticed[node] = now
        if busy.keys() != self.busy.keys():
            self._log_changes(busy)
            self._noticed = {node: self._noticed[node] for node in busy}
            self.busy = busy
            self._report()

    def _still_busy(self, node: Node, heard: Mapping[Node, float], now: float) -> bool:
        if heard.get(node, -inf) > self._noticed[node]:
            return now - self._noticed[node] < TOLD_FOR
        quiet = [quiet for lane, quiet in self._quiet.items() if lane.key.node == node]
        if any(one.unreachable for one in quiet):
            return False
        return self._router.knows(node) and (bool(quiet) or now - self._noticed[node] < HEAVY)

    def _log_changes(self, busy: Mapping[Node, Occupation]) -> None:
        log, epoch = self._router.log, self._router.epoch
        for node in busy.keys() - self.busy.keys():
            log.info("server_busy", node=str(node), command=busy[node].command, epoch=epoch)
        for node in self.busy.keys() - busy.keys():
            log.info("server_not_busy", node=str(node), epoch=epoch)


def _heavy(session: ReplyTarget, runs: list[Run], quiet: Quiet) -> bool:
    """Whether what a session waits for may take long. Each of its commands is read once."""
    if session not in quiet.heavy and any(map(any, map(_long_commands, runs))):
        quiet.heavy.add(session)
    return session in quiet.heavy


def _executing(lane: Lane) -> Iterator[str]:
    """Of each command that may keep the server busy, see `_long_commands`.

    It may be any of those that were sent until READ_TOGETHER after the server fell silent. A later one is not the
    reason: the server was silent before it came.
    """
    until = lane.silent_since + READ_TOGETHER
    for run in list(takewhile(lambda run: run.sent <= until, lane.in_flight)):
        yield from _long_commands(run)


def _long_commands(run: Run) -> Iterator[str]:
    """Of each command that is unanswered: its name if it may take long, else nothing."""
    for args in run.unanswered():
        command = lookup(args)
        yield command.name if command.takes_long else ""
        if command.name == "EXEC":
            for queued in run.session.queued_commands:
                yield lookup(queued).name if lookup(queued).takes_long else ""
