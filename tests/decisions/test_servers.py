"""The model of Redis servers is like Redis: the same commands lead to the same roles, histories and offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from rfmanager.monitoring.redis_admin import RedisAdmin
from rfprotocol.topology.topology import Node, NodeReport
from tests.decisions.servers import Link, Servers, Start, at, group, put, replicated
from tests.support.redis import RedisGroup, RedisServer

Shape = list[tuple[object, ...]]

A, B, C = 1, 2, 3
"""Ports in the model, and 1 more than the place in the real group."""


def shape(reports: Sequence[NodeReport]) -> Shape:
    """What can be compared: which histories are the same, and which offsets are greater."""
    ids = [replid for report in reports for replid in (report.replid, _before(report)) if replid]
    offsets = sorted({offset for report in reports for offset in (report.offset, report.replid2_offset - 1)})
    nodes = [report.node for report in reports]
    return [
        (
            report.role,
            nodes.index(report.follows) if report.follows else None,
            report.link_up,
            ids.index(report.replid),
            ids.index(_before(report)) if _before(report) else None,
            offsets.index(report.offset),
            offsets.index(report.replid2_offset - 1) if _before(report) else None,
        )
        for report in reports
    ]


def _before(report: NodeReport) -> str:
    """The history that it continued from; Redis says zeros when there is none."""
    return report.replid2 if report.replid2_offset >= 0 else ""


class Both:
    """A real group and its model, which are told the same."""

    def __init__(self, real: RedisGroup) -> None:
        self.real = real
        self.model: Servers = group(len(real.servers))
        self.admins = [RedisAdmin(node) for node in real.nodes]
        self.writes = 100

    def server(self, port: int) -> RedisServer:
        return self.real.servers[port - 1]

    async def reports(self) -> list[NodeReport]:
        return [await admin.probe() for admin in self.admins]

    async def agree(self) -> None:
        """Once all links are up that can be, both look the same, and hold the same data."""
        for _ in range(6):
            self.model = replicated(self.model, at_length=True)
        expected = shape([server.report() for server in self.model])

        for _ in range(2000):  # a link takes up to a second, a transfer a little more
            if shape(await self.reports()) == expected:
                break
            await asyncio.sleep(0.005)
        assert shape(await self.reports()) == expected
        keys = [len(server.data) for server in self.model]
        assert [server.command("DBSIZE") for server in self.real.servers] == keys
        assert all(server.link is not Link.COPYING for server in self.model)

    async def seal(self, port: int) -> None:
        await self.admins[port - 1].seal()
        self._change(port, lambda server: server.following(None))

    async def promote(self, port: int) -> None:
        await self.admins[port - 1].promote()
        self._change(port, lambda server: server.promoted())

    async def follow(self, port: int, master: int) -> None:
        await self.admins[port - 1].replicate(self.server(master).node)
        meant = self.model[master - 1]
        self._change(port, lambda server: server.following(meant.node, meant.run_id))

    def write(self, port: int) -> None:
        self.writes += 1
        self.server(port).command("SET", f"key{self.writes}", "x")
        self._change(port, lambda server: server.written(self.writes))

    def restart(self, port: int, start: Start) -> None:
        if start is Start.WHOLE:
            self.server(port).command("SAVE")
        self.server(port).kill()
        if start is Start.EMPTY:  # a replica keeps the file that its first transfer came in
            (self.server(port).folder / "dump.rdb").unlink(missing_ok=True)
        self.server(port).restart()
        self._change(port, lambda server: server.restarted(start))

    def _change(self, port: int, change: Callable[..., object]) -> None:
        server = at(self.model, Node("h", port))
        assert server is not None
        changed = change(server)
        assert isinstance(changed, type(server))
        self.model = put(self.model, changed)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    with RedisGroup(3, repl_ping_replica_period=1000) as real:
        both = Both(real)
        for key in both.model[0].data:
            real.master.command("SET", f"key{key}", "x")
        real.wait_in_sync()
        yield both
        for admin in both.admins:
            await admin.close()


async def test_sealed_replicas_follow_a_promoted_one_without_a_full_transfer(both: Both) -> None:
    await both.agree()
    await both.seal(B)
    await both.seal(C)
    await both.agree()
    await both.promote(B)
    both.write(B)
    await both.follow(C, B)
    await both.follow(A, B)
    await both.agree()
    assert both.server(B).info("stats")["sync_full"] == 0


async def test_a_former_master_with_more_data_is_copied_anew(both: Both) -> None:
    await both.agree()
    await both.seal(B)
    both.write(A)
    await both.promote(B)
    await both.agree()
    await both.follow(A, B)
    await both.agree()
    assert both.server(B).info("stats")["sync_full"] == 1


async def test_a_restart_from_a_file_continues_the_history_and_one_without_begins_another(both: Both) -> None:
    await both.agree()
    both.restart(B, Start.WHOLE)
    await both.agree()
    both.restart(C, Start.EMPTY)
    await both.agree()


async def test_a_promoted_server_that_is_sealed_and_promoted_again_forgets_the_first_history(both: Both) -> None:
    await both.seal(B)
    await both.promote(B)
    await both.seal(B)
    await both.promote(B)
    await both.agree()
