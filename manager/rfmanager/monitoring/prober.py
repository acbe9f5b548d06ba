"""Keeps an eye on one server: runs its detector's probes and reports what changed. An asyncio shell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rfmanager.monitoring.failure_detector import HEARTBEAT, Detector, Limits
from rfmanager.monitoring.redis_admin import Canary, RedisAdmin
from rfprotocol.errors import Failure, NodeRefused, NodeUnreachable
from rfprotocol.topology.topology import NodeReport

ATTENTION = 0.3
"""Seconds without an answer after which a probe counts as late, and proxies are asked for the reason. By then a proxy
whose command keeps the server busy has said so. At most half of a probe's time."""

DOUBT = 0.25
"""Seconds without an acknowledgement after which an unanswered probe is put down to the host and not to the process:
kernels put off acknowledgements by up to 0.2 s."""

PAUSE = 4 * HEARTBEAT
"""Seconds without a beat after which this host must have stood still itself. What was not acknowledged meanwhile proves
nothing about the other one."""


class Prober:
    """Watches the server behind `admin`. `sampled(significant)` is called after each probe that said something, and
    when one is late."""

    def __init__(
        self, admin: RedisAdmin, limits: Limits, clock: Callable[[], float], sampled: Callable[[bool], None]
    ) -> None:
        self.admin = admin
        self.detector = Detector(admin.node, limits, clock())
        self._limits = limits
        self._clock = clock
        self._sampled = sampled
        self._canary: Canary | None = None
        self._wake = asyncio.Event()
        self._alarmed = float("-inf")
        self._heartbeat: asyncio.TimerHandle | None = None
        self._beaten = self._steady_since = clock()

    def hurry(self) -> None:
        """Probe at once."""
        self.detector.hurry(self._clock())
        self._wake.set()

    def start_over(self) -> None:
        """Forget what was found out, and probe at once: the server could not be reached, and now it may be."""
        self.detector = Detector(self.admin.node, self._limits, self._clock())
        self._wake.set()

    def _canary_closed(self) -> None:
        # One that is closed as soon as it is accepted (maxclients, protected mode, a relay) must not make us spin.
        if self._clock() - self._alarmed >= self._limits.probe_interval:
            self._alarmed = self._clock()
            self.detector.disconnected(self._alarmed)
            self._wake.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        self._beat()
        try:
            while True:
                await self._sleep()
                await self._probe()
        finally:
            if self._heartbeat is not None:
                self._heartbeat.cancel()
            self._give_up_canary()

    def _beat(self) -> None:
        self._heartbeat = asyncio.get_running_loop().call_later(HEARTBEAT, self._beat)
        now = self._clock()
        if now - self._beaten > PAUSE:
            self._steady_since = now
        self._beaten = now
        if self._canary is None or not self._canary.alive:
            return
        seconds = min(self._canary.beat(now), now - self._steady_since)
        if self.detector.unacknowledged(now, seconds):
            # Its retransmissions come ever more rarely: whether the host is back is asked with new connections.
            self._give_up_canary()
            self._sampled(True)

    def _give_up_canary(self) -> None:
        if self._canary is not None:
            self._canary.close()
            self._canary = None

    async def _sleep(self) -> None:
        while (delay := self.detector.next_probe - self._clock()) > 0:
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()

    async def _probe(self) -> None:
        self._wake.clear()
        asked = self._clock()
        said = self.detector.verdict
        try:
            await self.admin.locate()  # of a name that has been looked up this takes no time
            asked = self._clock()
            sample = await self._ask(asked)
        except NodeRefused as error:
            significant = self.detector.refused(self._clock(), error.code, self._clock() - asked)
        except NodeUnreachable as error:
            significant = self._failed(error.reason, asked)
        except TimeoutError:
            significant = self._failed(Failure.TIMEOUT, asked)
        else:
            significant = self.detector.answered(asked, self._clock(), sample)
        if self._wake.is_set():  # asked for while this probe was under way, whose answer may be older than the wish
            self.detector.hurry(self._clock())
        if self.detector.report is not None or said is not self.detector.verdict:
            self._sampled(significant)

    async def _ask(self, asked: float) -> NodeReport:
        late = asyncio.get_running_loop().call_later(min(ATTENTION, self._limits.probe_timeout / 2), self._late, asked)
        try:
            async with asyncio.timeout(self._limits.probe_timeout):
                if self._canary is None or not self._canary.alive:
                    self._canary = await Canary.connect(self.admin.node, self._canary_closed, self.admin.resolver)
                return await self.admin.probe()
        finally:
            late.cancel()

    def _failed(self, how: Failure, asked: float) -> bool:
        now = self._clock()
        if how is Failure.TIMEOUT and not self._host_lives(now):
            how = Failure.UNREACHABLE
        return self.detector.failed(now, how, max(asked, self._steady_since))

    def _host_lives(self, now: float) -> bool:
        """Has the host accepted a connection, and acknowledged what it was sent there?"""
        canary = self._canary
        return canary is not None and canary.alive and canary.unacknowledged(now) < DOUBT

    def _late(self, asked: float) -> None:
        if self._host_lives(self._clock()):
            self.detector.unanswered(asked)
            self._sampled(False)
