"""The view of a manager, from records in memory and from detectors that are told what servers say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import structlog
from structlog.testing import capture_logs

from rfmanager.daemon.server_watch import ServerWatch
from rfmanager.daemon.store_mirror import Mirror
from rfmanager.daemon.view_builder import ViewBuilder
from rfmanager.decision.plan import Policy, Progress, View
from rfmanager.evidence.agreement import Rule
from rfmanager.monitoring.failure_detector import Limits
from rfmanager.monitoring.redis_admin import Credentials
from rfprotocol.errors import Failure
from rfprotocol.network.resolver import Resolver
from rfprotocol.settings.keyring import Keyring
from rfprotocol.store.interface import Put
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.records import ManualRequest, ProxyRecord
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport, Phase, Topology
from rfprotocol.topology.znode_paths import Paths

PATHS = Paths()
M, R = Node("127.0.0.1", 1), Node("127.0.0.1", 2)
LIMITS = Limits()


class Place:
    """One manager's copy of the store, and the detectors of its servers; nothing is probed."""

    def __init__(self, max_staleness: float | None = None, required: int = 1) -> None:
        self.store = MemStore(MemTree(asyncio.Event))
        log = structlog.get_logger()
        self.mirror = Mirror(self.store, PATHS, lambda: None, log)
        self.servers = ServerWatch(
            Keyring(Credentials()), LIMITS, Resolver(), lambda: 1.0, lambda node, significant: None, log
        )
        self.rule = Rule(required=required)
        self.views = ViewBuilder(
            "m1",
            self.mirror,
            self.servers,
            log,
            rule=self.rule,
            limits=LIMITS,
            policy=Policy(),
            max_staleness=max_staleness,
        )

    async def start(self) -> None:
        await self.store.start()
        self.servers.follow({M, R}, idle)

    def says(self, report: NodeReport, asked: float) -> None:
        """A server answers a probe."""
        self.servers.probers[report.node].detector.answered(asked, asked, report)
        self.views.sampled(report.node)

    async def put(self, path: str, data: bytes) -> None:
        await self.store.announce(path, data)

    async def view(self, led_since: int = 0) -> View:
        self.mirror.spoil_all()
        await self.mirror.refresh()
        own = ManagerReport(
            "m1", 1, tuple(self.servers.reports.values()), configured=(M, R), required=self.rule.required
        )
        return self.views.build(own, Progress(), led_since)


def idle(name: str, work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
    """A prober that never asks."""
    return asyncio.create_task(asyncio.sleep(0))


def master(offset: int = 100) -> NodeReport:
    return NodeReport(M, True, role="master", offset=offset, run_id="one")


def replica(offset: int = 100) -> NodeReport:
    return NodeReport(R, True, role="slave", offset=offset, run_id="two", follows=M, link_up=True)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    await place.start()
    yield place
    await place.servers.close()


async def serving(place: Place) -> None:
    await place.put(PATHS.nodes, Topology(1, Phase.SERVING, M, (R,), (), "one", "history").encode())
    await place.view()


async def test_view_has_records_and_verdicts(place: Place) -> None:
    await serving(place)
    await place.put(PATHS.proxy("p"), ProxyRecord(1).encode())
    now = time.monotonic()
    place.says(master(), now)
    place.says(replica(), now)
    view = await place.view()
    assert view.members == (M, R)
    assert {node: standing.available for node, standing in view.standings.items()} == {M: True, R: True}
    assert (view.proxies, view.failing, view.silent) == ({"p": 1}, {}, {})
    assert view.topology is not None
    assert view.topology.master == M


async def test_silence_of_dead_server_begins_with_its_first_sign(place: Place) -> None:
    now = time.monotonic()
    place.says(master(), now - 10.0)
    detector = place.servers.probers[M].detector
    for number in range(LIMITS.max_failures):
        detector.failed(now - 2.0 + number, Failure.TIMEOUT, now - 3.0 + number)
    view = await place.view()
    assert not view.standings[M].available
    assert view.silent == {M: now - 3.0}
    earliest = LIMITS.probe_interval + LIMITS.silence
    assert view.failing[M] == pytest.approx(view.wall - earliest, abs=0.1)


async def test_silence_that_others_report_begins_before_their_verdict(place: Place) -> None:
    gone = ManagerReport("m2", 1, (NodeReport(M, False, condition="timeout"),), configured=(M, R))
    await place.put(PATHS.manager("m2"), gone.encode())
    first = await place.view()
    assert first.silent == {M: first.now - LIMITS.silence}
    assert (await place.view()).silent == first.silent


async def test_report_of_another_manager_counts_anew_after_an_outage_of_the_store(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = ManagerReport("m2", 1, (NodeReport(M, True, role="master"),), configured=(M, R))
    await place.put(PATHS.manager("m2"), up.encode())
    assert M in (await place.view()).standings
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + place.rule.max_age + 1.0)
    assert M not in (await place.view()).standings
    place.views.reconnected()
    assert M in (await place.view()).standings


async def test_group_is_known_as_it_was_seen_while_its_master_lived(place: Place) -> None:
    await serving(place)
    now = time.monotonic()
    place.says(master(100), now)
    place.says(replica(90), now)
    known = (await place.view()).known
    assert known is not None
    assert (known.run_id, known.offset, set(known.members)) == ("one", 100, {R})


async def test_replica_that_lags_too_far_behind_is_stale() -> None:
    place = Place(max_staleness=1.0)
    await place.start()
    await serving(place)
    now = time.monotonic()
    for age, offset in ((3.0, 100), (2.0, 200), (0.0, 300)):
        place.says(master(offset), now - age)
    place.says(replica(300), now)
    assert (await place.view()).stale == frozenset()
    place.says(replica(100), now)
    assert (await place.view()).stale == {R}
    await place.servers.close()


async def test_request_from_before_the_tenure_is_told_apart(place: Place) -> None:
    await place.store.commit(Put(PATHS.manual_failover, ManualRequest(R).encode()))
    view = await place.view()
    assert view.request == ManualRequest(R)
    assert not view.request_precedes
    assert (await place.view(led_since=view.request_id + 1)).request_precedes


async def test_complaint_is_logged_once_and_when_it_is_over(place: Place) -> None:
    place.rule = Rule(required=2)
    with capture_logs() as logs:
        await place.view()
        await place.view()
        other = ManagerReport("m2", 1, (), configured=(M, R), required=2)
        await place.put(PATHS.manager("m2"), other.encode())
        await place.view()
    few = "1 of 2 required managers report: nobody is promoted; start the others"
    assert [line["event"] for line in logs] == [few, "no longer so"]
