"""Twenty ordinary clients beside one hostile neighbour after the other: real Redis, ZooKeeper, managers and proxy.

They see no error that is not theirs, lose no acknowledged write, and wait no longer than beside the same neighbour on
a Redis of their own. A server that truly dies may take along what it had not replicated, and may leave writes in flight
uncertain; it never takes along the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tabulate import tabulate

from bench.seen import milliseconds
from deploy.processes import Process
from rfprotocol.topology.topology import Node
from tests.scenarios.hostile.bystanders import Bystanders, Seen
from tests.scenarios.hostile.neighbours import harass
from tests.scenarios.hostile.stages import QUICK, STAGES, Stage
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer

BOUND = 0.1
"""Seconds: p99 of the ordinary clients, or twice that beside the same neighbour on a plain Redis."""
LINES = 10.0
"""Log lines a second, of all processes together."""
AFTERMATH = 1.0
"""Seconds that ordinary clients go on when the neighbour has ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage: what the neighbour and the bystanders were told, in how many seconds and log lines."""

    stage: Stage
    told: str
    seen: Seen
    seconds: float
    lines: int = 0
    died: int = 0
    changes: int = 0

    def complaints(self) -> list[str]:
        """What is not as promised; nothing that depends on the speed of this machine."""
        found = [f"{count} x {command}: {text}" for (command, text), count in self.unexcused().items()]
        ledger = self.seen.ledger
        if ledger.doubled or (ledger.lost and not self.died):
            found.append(f"{ledger.lost} acknowledged writes lost, {ledger.doubled} applied twice")
        if not self.told.startswith(self.stage.answered):
            found.append(f"the neighbour was told: {self.told}")
        if self.died > (2 if self.stage.fatal else 0):
            found.append(f"{self.died} servers died")
        if self.changes > self.died:
            found.append(f"{self.changes} changes of master, {self.died} servers died")
        return [f"{self.stage.title}: {text}" for text in found]

    def unexcused(self) -> dict[tuple[str, str], int]:
        """Errors of bystanders: only a server that died may leave one, of what may not be repeated.

        Nor may the oldest command in flight there be repeated, whichever it was: the server may have died of it.
        """
        suspects = sum(count for (command, _), count in self.seen.errors.items() if command == "SET")

        def excused(command: str, text: str) -> bool:
            lost = command in ("INCR", "RPUSH", "BLPOP") or (command == "SET" and suspects <= self.died)
            return bool(self.died) and lost and text.startswith("UNCERTAIN ")

        return self.seen.unexpected(excused)


class Hostilities:
    """Stages on one installation."""

    def __init__(self, site: Installation) -> None:
        self.site = site
        self.outcomes: list[Outcome] = []

    async def run(self, stage: Stage) -> Outcome:
        """One stage; in the end all servers run and follow the master, and nothing of the neighbour is left."""
        site = self.site
        master = await self._in_order()
        servers = [master, *(server for server in site.group.servers if server is not master)]
        epochs, lines = len(await site.receipts()), self._lines()
        began = time.monotonic()
        async with Bystanders(site.ports[0], prefix=f"bystander:{stage.neighbour}") as bystanders:
            manager = stage.setting(servers)
            await asyncio.to_thread(manager.__enter__)
            told = await harass(stage.neighbour, Node("127.0.0.1", site.ports[0]), stage.seconds)
            await asyncio.sleep(AFTERMATH)
            dead = [server for server in servers if not server.alive]
            assert len(dead) < len(servers), f"{stage.title}: all servers are dead, with all data"
            await bystanders.progress()
            await asyncio.to_thread(manager.__exit__, None, None, None)
        seconds = time.monotonic() - began
        for server in dead:
            await asyncio.to_thread(server.restart)
        master = await self._in_order()
        seen = await asyncio.to_thread(bystanders.audit, master)
        outcome = Outcome(
            stage, told, seen, seconds, self._lines() - lines, len(dead), len(await site.receipts()) - epochs
        )
        self.outcomes.append(outcome)
        await asyncio.to_thread(clear, master)
        return outcome

    async def _in_order(self) -> RedisServer:
        topology = await self.site.serving(lambda topology: len(topology.replicas) == 2)
        return self.site.server_of(topology)

    def _lines(self) -> int:
        return sum(map(count_lines, self.site.processes))


def count_lines(process: Process) -> int:
    """What a process has logged."""
    return len(process.log.read_text().splitlines()) if process.log and process.log.exists() else 0


def clear(server: RedisServer) -> None:
    """Remove what neighbours need."""
    with server.client() as client:
        client.unlink(*client.scan_iter("hostile:*"), "hostile:")
    with server.client(db=1) as client:
        client.flushdb(asynchronous=True)


async def on_a_plain_redis(stage: Stage) -> Outcome:
    """The same beside the same neighbour, without anything between."""
    with RedisServer() as server:
        began = time.monotonic()
        async with Bystanders(server.port) as bystanders:
            manager = stage.setting([server])
            await asyncio.to_thread(manager.__enter__)
            told = await harass(stage.neighbour, server.node, stage.seconds)
            await asyncio.sleep(AFTERMATH)
            await bystanders.progress()
            await asyncio.to_thread(manager.__exit__, None, None, None)
        return Outcome(stage, told, bystanders.seen, time.monotonic() - began)


def table(outcomes: list[Outcome], plain: dict[str, Outcome]) -> str:
    """A line for each stage."""
    rows = []
    for outcome in outcomes:
        seen, beside = outcome.seen, plain.get(outcome.stage.neighbour)
        rows.append(
            [
                outcome.stage.title,
                len(seen.waits),
                seen.errors.total(),
                f"{seen.ledger.lost} of {seen.ledger.acknowledged}",
                milliseconds(seen.latency.p99),
                milliseconds(beside.seen.latency.p99) if beside else "",
                milliseconds(seen.latency.most),
                milliseconds(beside.seen.latency.most) if beside else "",
                f"{outcome.lines / outcome.seconds:.1f}",
                outcome.died,
                outcome.changes,
                outcome.told[:60],
            ]
        )
    headers = ["NEIGHBOUR", "COMMANDS", "ERRORS", "LOST", "P99", "PLAIN", "MOST", "PLAIN", "LINES/S", "DIED", "CHANGES"]
    return tabulate(rows, [*headers, "THE NEIGHBOUR HEARD"], tablefmt="plain", disable_numparse=True)


@pytest.fixture
async def hostilities(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Hostilities]:
    """Three servers, three managers, one proxy, with the options that they have by default."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path) as site:
        yield Hostilities(site)


@pytest.mark.parametrize("stage", QUICK, ids=lambda stage: stage.neighbour)
async def test_bystanders__beside_a_neighbour__go_on(hostilities: Hostilities, stage: Stage) -> None:
    outcome = await hostilities.run(stage)
    print(table([outcome], {}))
    assert outcome.complaints() == []


@pytest.mark.elaborate
@pytest.mark.fault
@pytest.mark.timeout(1800)
async def test_hostile_neighbours(hostilities: Hostilities) -> None:
    plain: dict[str, Outcome] = {}
    for stage in STAGES:
        if not stage.fatal:  # a plain Redis is dead then
            plain[stage.neighbour] = await on_a_plain_redis(stage)
        await hostilities.run(stage)
    outcomes = hostilities.outcomes
    print(table(outcomes, plain))
    found = [text for outcome in outcomes for text in outcome.complaints()]
    for outcome in outcomes:
        beside = plain.get(outcome.stage.neighbour)
        bound = max(BOUND, 2 * beside.seen.latency.p99) if beside else float("inf")
        if outcome.seen.latency.p99 > bound:
            found.append(f"{outcome.stage.title}: p99 {milliseconds(outcome.seen.latency.p99)}, {milliseconds(bound)}")
    rate = sum(outcome.lines for outcome in outcomes) / sum(outcome.seconds for outcome in outcomes)
    if rate > LINES:
        found.append(f"{rate:.1f} log lines a second")
    assert found == [], "\n".join(found)
