"""The servers that a manager watches: what it learns of them, and when it leaves one alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import structlog
from structlog.testing import capture_logs

from rfmanager.daemon.server_watch import ServerWatch
from rfmanager.monitoring.failure_detector import Limits
from rfmanager.monitoring.redis_admin import Credentials
from rfprotocol.network.resolver import Resolver
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.records import Occupation, ProxyRecord
from rfprotocol.topology.topology import Node
from tests.support.eventually import eventually
from tests.support.names import LookUps
from tests.support.redis import RedisServer

NOBODY = Node("127.0.0.1", 1)  # nothing listens there


class Watched:
    """A watch whose samples are noted."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self.sampled: list[Node] = []
        self.timeout = 1.0
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.servers = ServerWatch(
            Keyring(Credentials()),
            Limits(probe_interval=0.05, probe_timeout=0.2),
            resolver or Resolver(),
            lambda: self.timeout,
            lambda node, significant: self.sampled.append(node),
            structlog.get_logger(),
        )

    def start(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        self.tasks[name] = asyncio.create_task(work())
        return self.tasks[name]

    def follow(self, *nodes: Node) -> None:
        self.servers.follow(set(nodes), self.start)

    async def close(self) -> None:
        self.servers.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.servers.close()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    yield watched
    await watched.close()


async def test_every_server_is_seen_once_it_was_probed(watched: Watched, redis_server: RedisServer) -> None:
    watched.follow(redis_server.node, NOBODY)
    assert not watched.servers.all_seen.is_set()
    await watched.servers.all_seen.wait()
    assert set(watched.sampled) == {redis_server.node, NOBODY}
    reports = watched.servers.reports
    assert (reports[redis_server.node].available, reports[NOBODY].condition) == (True, "refused")
    assert watched.servers.report(NOBODY) == reports[NOBODY]
    assert watched.servers.report(Node("other", 1)) is None


async def test_server_that_is_not_wanted_any_more_is_left_alone(watched: Watched, redis_server: RedisServer) -> None:
    watched.follow(redis_server.node, NOBODY)
    await watched.servers.all_seen.wait()
    with capture_logs() as logs:
        watched.follow(NOBODY)
    assert [line["node"] for line in logs] == [str(redis_server.node)]
    assert list(watched.servers.probers) == list(watched.servers.admins) == [NOBODY]
    await eventually(watched.tasks[f"prober of {redis_server.node}"].done)
    watched.servers.hurry(redis_server.node)


async def test_condition_is_logged_with_its_meaning(watched: Watched, redis_server: RedisServer) -> None:
    watched.follow(redis_server.node, NOBODY)
    await watched.servers.all_seen.wait()
    with capture_logs() as logs:
        watched.servers.log_condition(redis_server.node, epoch=7)
        watched.servers.log_condition(NOBODY, epoch=7)
    assert [(line["log_level"], line["condition"], line["epoch"]) for line in logs] == [
        ("info", "ok", 7),
        ("warning", "refused", 7),
    ]
    assert logs[1]["meaning"] == "it refuses connections: is it running?"


async def test_command_timeout_follows_the_session(watched: Watched) -> None:
    watched.follow(NOBODY)
    watched.timeout = 0.25
    watched.servers.renew_command_timeout()
    assert watched.servers.admins[NOBODY].timeout == 0.25


async def test_silent_server_is_excused_by_the_command_that_a_proxy_names(
    watched: Watched, redis_server: RedisServer
) -> None:
    watched.follow(redis_server.node)
    await watched.servers.all_seen.wait()
    assert not watched.servers.any_is_silent
    redis_server.freeze()
    await eventually(lambda: watched.servers.any_is_silent)
    with capture_logs() as logs:
        watched.servers.excuse({"p": ProxyRecord(1, busy={str(redis_server.node): Occupation("FLUSHALL")})})
    redis_server.thaw()
    assert [(line["command"], line["proxy"]) for line in logs] == [("FLUSHALL", "p")]
    assert watched.servers.probers[redis_server.node].detector.excused


async def test_unresolved_server_starts_over_when_its_host_is_known() -> None:
    failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    resolver = Resolver(look_up=LookUps({"redis": failure}).look_up)
    watched = Watched(resolver)
    watched.follow(Node("redis", 1))
    await watched.servers.all_seen.wait()
    watched.servers.start_over({"other"})
    assert watched.servers.all_seen.is_set()
    watched.servers.start_over({"redis"})
    assert not watched.servers.all_seen.is_set()
    assert watched.servers.report(Node("redis", 1)) is None
    await watched.close()
    resolver.close()
