"""Keeps an eye on one server: runs its detector's probes and reports what changed. An asyncio shell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rfmanager.detector import Detector, Failure, Limits
from rfmanager.redis_admin import Canary, RedisAdmin
from rfprotocol.errors import NodeRefused, NodeUnreachable


class Prober:
    """Watches the server behind `admin`. `sampled(significant)` is called after each probe that said something."""

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

    def hurry(self) -> None:
        """Probe at once."""
        self.detector.hurry(self._clock())
        self._wake.set()

    def _canary_closed(self) -> None:
        # One that is closed as soon as it is accepted (maxclients, protected mode, a relay) must not make us spin.
        if self._clock() - self._alarmed >= self._limits.probe_interval:
            self._alarmed = self._clock()
            self.detector.disconnected(self._alarmed)
            self._wake.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                await self._sleep()
                await self._probe()
        finally:
            if self._canary is not None:
                self._canary.close()

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
            async with asyncio.timeout(self._limits.probe_timeout):
                if self._canary is None or not self._canary.alive:
                    self._canary = await Canary.connect(self.admin.node, self._canary_closed)
                sample = await self.admin.probe()
        except NodeRefused as error:
            significant = self.detector.refused(self._clock(), error.code, self._clock() - asked)
        except NodeUnreachable:
            significant = self.detector.failed(self._clock(), Failure.REFUSED)
        except TimeoutError:
            significant = self.detector.failed(self._clock(), Failure.TIMEOUT)
        else:
            significant = self.detector.answered(asked, self._clock(), sample)
        if self._wake.is_set():  # asked for while this probe was under way, whose answer may be older than the wish
            self.detector.hurry(self._clock())
        if self.detector.report is not None or said is not self.detector.verdict:
            self._sampled(significant)
