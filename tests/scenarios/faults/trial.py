"""A fault under load: clients write down what they hear, and their history is judged when the dust has settled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from rfprotocol.topology.topology import Topology
from tests.scenarios.history import Fate, Kill, Kind, Operation, Verdict, check
from tests.scenarios.recorder import Recorder, final
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisServer

CLIENTS = 8
NOTICE = 0.002
"""Seconds until it is noticed that a server is dead."""
IDEMPOTENT = (Kind.SET, Kind.GET)
"""Sent again by the proxies rather than answered -UNCERTAIN, but for the oldest one in flight on each connection to a
master that dies: that may have died of it."""

Findings = Callable[[str, object], None]
"""What a trial tells for the table of results: pytest's `record_property`."""


class Trial:
    """`async with Trial(site, findings) as trial`: an installation that serves, with clients at all its proxies.

    When the block ends, everything has to come in order, and the clients' history has to be one that a single Redis
    could have told: no error but -UNCERTAIN for what cannot be repeated, nothing missing but what a killed master took
    along (`losses`), no place in the data given to two writes.
    """

    def __init__(
        self,
        site: Installation,
        findings: Findings,
        *,
        options: Sequence[str] = (),
        ports: Sequence[int] | None = None,
        refusals: tuple[str, ...] = (),
        hold_timeout: float = 30.0,
        clients: int = CLIENTS,
        seed: int = 1,
    ) -> None:
        """`options` of the proxies; `ports` of those with clients; errors beginning with `refusals` are in order.

        What could not be sent again within `hold_timeout` (seconds) may be uncertain, too.
        """
        for proxy in site.proxies.values():
            proxy.argv += ["--reads", "master", "--hold-timeout", str(hold_timeout), *options]
        self.site = site
        self.verdict = Verdict()
        self._clients = clients
        self.recorder = Recorder(ports or site.ports, clients, seed)
        self._findings = findings
        self._refusals = refusals
        self._hold_timeout = hold_timeout
        self._kills: list[Kill] = []
        self._begun = self._ended = -math.inf
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.site)
            await stack.enter_async_context(self.recorder)
            self._begun = time.monotonic()
            await self.flows()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        async with self._stack:
            if error is not None:
                self.recorder.cut_short()  # clients that wait for what will not come must not hide what went wrong
                return
            master = await self.in_order()
            await self.flows()
            self._ended = time.monotonic()
            await self.recorder.stop()
            self.verdict = check(self.recorder.history, final(master), self._kills, repeats=True)
            await self._tell()
            self._judge()

    # --- while it runs

    async def flows(self, operations: int = 200) -> None:
        """Return when so many more operations were asked and acknowledged."""
        await self.recorder.progress(operations)

    async def stands_still(self) -> None:
        """Return when every client waits for an answer."""
        await eventually(lambda: self.recorder.waiting == self._clients)

    @contextlib.asynccontextmanager
    async def losses(
        self, since: float | None = None, before: Topology | None = None, *, lag: float = 1.0
    ) -> AsyncIterator[None]:
        """What happens to the master in this block may cost writes that no replica had: to be reported, not excused
        in silence. Begins at `since` (monotonic, seconds), when replicas had not heard from it for `lag` seconds at
        most, and ends when there is another master than `before`."""
        before = before or await self.site.serving()
        at = time.monotonic() if since is None else since
        yield
        await self.another_master(before)
        self._kills.append(Kill(at, time.monotonic(), lag))

    @contextlib.asynccontextmanager
    async def deaths(self, *, lag: float = 1.0) -> AsyncIterator[list[RedisServer]]:
        """Servers that die in this block of what they are sent may cost writes that no replica had (see `losses`).

        Ends when there is a master that lives.
        """
        dead: list[RedisServer] = []
        moments: list[float] = []
        watching = asyncio.create_task(self._notice(dead, moments))
        try:
            yield dead
            await self.site.serving(lambda topology: topology.master not in {server.node for server in dead})
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        self._kills += [Kill(moment, time.monotonic(), lag) for moment in moments]

    async def _notice(self, dead: list[RedisServer], moments: list[float]) -> None:
        while True:
            for server in self.site.group.servers:
                if server not in dead and not server.alive:
                    dead.append(server)
                    moments.append(time.monotonic())
            await asyncio.sleep(NOTICE)

    async def another_master(self, before: Topology) -> Topology:
        """Return the first topology with another master."""
        return await self.site.serving(lambda topology: topology.master != before.master)

    async def in_order(self) -> RedisServer:
        """Return the master when all other servers that run follow it and may be read."""

        def settled(topology: Topology) -> bool:
            running = {server.node for server in self.site.group.servers if server.alive}
            return running == {topology.master, *topology.replicas}

        return self.site.server_of(await self.site.serving(settled))

    def client(self, port: int | None = None) -> aioredis.Redis:
        """Another client, of the first proxy or that on `port`: no retries, text, 30 seconds of patience."""
        return aioredis.Redis(
            port=port or self.site.ports[0],
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=30,
            decode_responses=True,
        )

    # --- when it is over

    def uncertain(self) -> list[Operation]:
        """What clients were told may or may not have happened."""
        return [operation for operation in self.recorder.history if operation.heard.fate is Fate.UNCERTAIN]

    def longest_gap(self, since: float | None = None) -> float:
        """Seconds without a write that was acknowledged to any client; `since` a moment (monotonic, seconds)."""
        begun = self._begun if since is None else since
        done = (o for o in self.recorder.history if o.heard.fate is Fate.DONE and o.asked.kind is not Kind.GET)
        moments = [begun, *sorted(o.heard.at for o in done if o.heard.at > begun)]
        moments += [self._ended] * (self._ended > begun)
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def _refused(self) -> list[str]:
        heard = [o.heard for o in self.recorder.history if o.heard.fate is Fate.REFUSED]
        return [str(outcome.reply) for outcome in heard if not str(outcome.reply).startswith(self._refusals or ("\0",))]

    async def _tell(self) -> None:
        receipts = await self.site.receipts()
        self._findings("operations", len(self.recorder.history))
        self._findings("no write for", f"{self.longest_gap() * 1000:.0f} ms")
        self._findings("uncertain", len(self.uncertain()))
        self._findings("lost", sum(self.verdict.lost.values()))
        self._findings("changes", ", ".join(f"{r.kind.value} {r.outcome.value}" for r in receipts) or "none")

    def _judge(self) -> None:
        soon = [o for o in self.uncertain() if o.heard.at - o.asked.at < self._hold_timeout]
        repeatable = [operation for operation in soon if operation.asked.kind in IDEMPOTENT]
        suspects = len(self._kills) * len(self.site.proxies)
        assert self.verdict.violations == [], "\n".join(map(str, self.verdict.violations))
        assert self._refused() == [], self._refused()
        assert len(repeatable) <= suspects, repeatable
