"""One server watched over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest
import uvloop

from rfmanager.monitoring.failure_detector import HEARTBEAT, Excuse, Limits, Verdict
from rfmanager.monitoring.prober import Prober
from rfmanager.monitoring.redis_admin import RedisAdmin
from rfprotocol.network.resolver import Resolver
from rfprotocol.topology.topology import Node
from tests.support.eventually import eventually
from tests.support.hosts import Network
from tests.support.names import LookUps
from tests.support.redis import RedisServer


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


OFTEN = Limits()
SELDOM = Limits(probe_interval=30.0, probe_timeout=0.2)
"""Longer than a test may take: what is found out was not found by the next probe."""


class Watch:
    """A running prober; `until` waits for a verdict or anything else that a probe shows."""

    def __init__(self, node: Node, limits: Limits = SELDOM, resolver: Resolver | None = None) -> None:
        self.probed = asyncio.Event()
        self.news = 0
        self.samples = 0
        self.prober = Prober(RedisAdmin(node, resolver=resolver), limits, time.monotonic, self._sampled)

    def _sampled(self, significant: bool) -> None:
        self.news += significant
        self.samples += 1
        self.probed.set()

    async def until(self, satisfied: Callable[[], bool]) -> None:
        while not satisfied():
            self.probed.clear()
            await self.probed.wait()

    def verdict_is(self, verdict: Verdict) -> Callable[[], bool]:
        return lambda: self.prober.detector.verdict is verdict


@pytest.fixture
async def watch(redis_server: RedisServer) -> AsyncIterator[Watch]:
    watch = Watch(redis_server.node)
    task = asyncio.create_task(watch.prober.run())
    await watch.until(watch.verdict_is(Verdict.AVAILABLE))
    yield watch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watch.prober.admin.close()


async def test_a_killed_server_is_found_dead_without_waiting_for_the_next_probe(
    redis_server: RedisServer, watch: Watch
) -> None:
    redis_server.kill()
    await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))  # the interval is 30 s, longer than this test may take
    assert watch.news == 2


async def test_a_frozen_server_is_found_dead_by_its_silence(redis_server: RedisServer, watch: Watch) -> None:
    redis_server.freeze()
    watch.prober.hurry()
    await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
    report = watch.prober.detector.report
    assert report is not None
    assert report.condition == "timeout"
    redis_server.thaw()
    watch.prober.hurry()
    await watch.until(watch.verdict_is(Verdict.AVAILABLE))


async def test_a_server_that_restarts_at_once_is_seen_as_another_process(
    redis_server: RedisServer, watch: Watch
) -> None:
    before = watch.prober.detector.report
    assert before is not None
    await asyncio.to_thread(redis_server.kill)
    await asyncio.to_thread(redis_server.restart)

    def another() -> bool:
        report = watch.prober.detector.report
        watch.prober.hurry()
        return report is not None and report.available and report.run_id != before.run_id

    await watch.until(another)


async def test_a_wish_that_comes_during_a_probe_leads_to_another_one(watch: Watch) -> None:
    watch.prober.hurry()
    asked = time.monotonic()
    await watch.until(lambda: watch.prober.detector.sampled_at > asked)
    for _ in range(3):  # wherever the prober is by now
        asked = time.monotonic()
        watch.prober.hurry()
        await asyncio.sleep(0)
        watch.prober.hurry()
        await watch.until(lambda asked=asked: watch.prober.detector.sampled_at > asked)  # type: ignore[misc]  # a default argument


async def test_a_connection_that_is_closed_as_soon_as_it_is_accepted_is_no_reason_to_probe_without_pause() -> None:
    accepted = 0

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The second connection is the one that asks; the silent ones are closed at once."""
        nonlocal accepted
        accepted += 1
        if accepted != 2:
            writer.close()
            return
        while line := await reader.readline():
            for _ in range(int(line[1:])):
                await reader.readline()
                word = await reader.readline()
            writer.write(b"+OK\r\n" if word.strip().upper() != b"INFO" else b"$13\r\nrole:master\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as relay:
        watch = Watch(Node(*relay.sockets[0].getsockname()[:2]))
        task = asyncio.create_task(watch.prober.run())
        for wished in range(3):
            await watch.until(lambda wished=wished: watch.samples > wished)  # type: ignore[misc]  # a default argument
            await asyncio.sleep(0.1)  # what would not pause would probe hundreds of times
            watch.prober.hurry()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watch.prober.admin.close()
    assert watch.samples < 12


@contextlib.asynccontextmanager
async def watching(node: Node, limits: Limits = OFTEN, names: LookUps | None = None) -> AsyncIterator[Watch]:
    resolver = Resolver(look_up=names.look_up) if names else Resolver()
    watch = Watch(node, limits, resolver)
    task = asyncio.create_task(watch.prober.run())
    yield watch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watch.prober.admin.close()


def condition(watch: Watch) -> str:
    report = watch.prober.detector.report
    return report.condition if report else ""


@pytest.mark.parametrize("said", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46"])
async def test_prober__another_protocol__is_not_called_refused(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        watching(Node(*server.sockets[0].getsockname()[:2])) as watch,
    ):
        await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
        assert condition(watch) in ("foreign", "closed")


async def test_prober__canary__sends_empty_lines() -> None:
    """There is always something that the host has to acknowledge."""
    beats = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readline()
        if first == await reader.readline() == await reader.readline() == b"\r\n":
            beats.set()
        writer.close()

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        watching(Node(*server.sockets[0].getsockname()[:2])),
    ):
        await beats.wait()


def test_redis__empty_lines__are_no_commands(redis_server: RedisServer) -> None:
    with (
        redis_server.client() as client,
        socket.create_connection((redis_server.node.host, redis_server.node.port)) as canary,
    ):
        client.acl_setuser("default", commands=["-@all", "+echo", "+info", "+acl", "+config"])
        client.config_resetstat()
        canary.sendall(b"\r\n\r\nECHO x\r\n\r\n")
        assert canary.recv(100) == b"$1\r\nx\r\n"
        assert set(client.info("commandstats")) == {"cmdstat_config|resetstat", "cmdstat_echo"}
        assert client.acl_log() == []


async def test_prober__frozen__is_late_before_it_is_dead(redis_server: RedisServer, watch: Watch) -> None:
    redis_server.freeze()
    watch.prober.hurry()
    await watch.until(lambda: watch.prober.detector.silent_since is not None)
    assert watch.prober.detector.verdict is Verdict.AVAILABLE
    redis_server.thaw()
    await watch.until(lambda: watch.prober.detector.silent_since is None)


async def test_prober__frozen_and_excused__is_given_patience(redis_server: RedisServer, watch: Watch) -> None:
    redis_server.freeze()
    watch.prober.hurry()
    await watch.until(lambda: watch.prober.detector.wants_excuse)
    watch.prober.detector.excuse(Excuse("FLUSHALL", "p"))
    await watch.until(lambda: condition(watch) == "silent")
    redis_server.thaw()
    await watch.until(lambda: condition(watch) == "ok")
    assert watch.prober.detector.verdict is Verdict.AVAILABLE


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_prober__on_either_loop__a_killed_server_is_noticed_by_its_canary(
    redis_server: RedisServer, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The programs run on uvloop, whose transports are not asyncio's."""

    async def trial() -> None:
        broken: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
        async with watching(redis_server.node, SELDOM) as watch:
            await watch.until(watch.verdict_is(Verdict.AVAILABLE))
            assert watch.prober._canary is not None
            assert watch.prober._canary.beat(time.monotonic()) < 1.0
            redis_server.kill()
            await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
            assert condition(watch) == "refused"
        assert broken == []

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(trial())


class Mute:
    """A canary whose host has acknowledged nothing for so many seconds."""

    def __init__(self) -> None:
        self.alive = True
        self.seconds = 0.0

    def beat(self, now: float) -> float:
        return self.seconds

    def close(self) -> None:
        self.alive = False


class Heart:
    """A prober whose clock and beats are the test's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.canary = Mute()
        self.prober = Prober(RedisAdmin(Node("h", 1)), OFTEN, lambda: self.now, lambda significant: None)
        self.prober._canary = self.canary  # type: ignore[assignment]  # has what a beat needs

    def beat(self, after: float) -> Verdict:
        """So much later."""
        self.now += after
        self.canary.seconds += after
        self.prober._beat()
        assert self.prober._heartbeat is not None
        self.prober._heartbeat.cancel()
        return self.prober.detector.verdict


async def test_prober__nothing_is_acknowledged_beat_by_beat__is_unreachable() -> None:
    heart = Heart()
    verdicts = [heart.beat(HEARTBEAT) for _ in range(9)]
    assert verdicts[6] is Verdict.UNKNOWN, "0.7 s"
    assert verdicts[8] is Verdict.UNAVAILABLE
    assert not heart.canary.alive, "whether the host is back is asked with new connections"


async def test_prober__its_own_host_stood_still__proves_nothing_about_the_other() -> None:
    heart = Heart()
    assert heart.beat(30.0) is Verdict.UNKNOWN
    verdicts = [heart.beat(HEARTBEAT) for _ in range(9)]
    assert verdicts[6] is Verdict.UNKNOWN, "0.7 s"
    assert verdicts[8] is Verdict.UNAVAILABLE


@pytest.mark.elaborate
@pytest.mark.parametrize("frozen", [False, True])
async def test_prober__a_host_that_is_gone__is_known_within_a_second(network: Network, frozen: bool) -> None:
    host = network.host()
    server = RedisServer(bind=host.address, port=6379, protected_mode="no")
    host.take(server.process)
    with server:
        async with watching(server.node) as watch:
            await watch.until(watch.verdict_is(Verdict.AVAILABLE))
            began = time.monotonic()
            if frozen:
                server.freeze()
            network.drop_to(host)
            await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
            assert 0.7 < time.monotonic() - began < 1.1
            assert condition(watch) == "unreachable"
            network.heal()
            if frozen:
                server.thaw()
            await watch.until(watch.verdict_is(Verdict.AVAILABLE))


def failing_lookups() -> Sequence[Exception]:
    return (
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        UnicodeError("label empty or too long"),
    )


@pytest.mark.parametrize("error", failing_lookups(), ids=str)
async def test_prober__name_cannot_be_looked_up__unresolved_and_it_goes_on(
    error: Exception, redis_server: RedisServer
) -> None:
    names = LookUps({"redis": error})
    async with watching(Node("redis", redis_server.port), names=names) as watch:
        await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
        assert watch.prober.detector.report is not None
        assert watch.prober.detector.report.condition == "unresolved"
        names.says["redis"] = ["127.0.0.1"]
        await watch.until(watch.verdict_is(Verdict.AVAILABLE))


async def test_prober__name_service_silent__killed_server_is_found_out_as_quickly(redis_server: RedisServer) -> None:
    names = LookUps({"redis": ["127.0.0.1"]})
    async with watching(Node("redis", redis_server.port), names=names) as watch:
        await watch.until(watch.verdict_is(Verdict.AVAILABLE))
        asked = len(names.asked)
        names.speaks.clear()
        await eventually(lambda: len(names.asked) > asked)
        redis_server.kill()
        before = time.monotonic()
        await watch.until(watch.verdict_is(Verdict.UNAVAILABLE))
        assert time.monotonic() - before < OFTEN.probe_timeout
        assert watch.prober.detector.report is not None
        assert watch.prober.detector.report.condition == "refused"


async def test_prober__first_look_up_slow__no_time_of_the_probe_lost(redis_server: RedisServer) -> None:
    names = LookUps({"redis": ["127.0.0.1"]})
    names.speaks.clear()
    hasty = Limits(probe_interval=0.02, probe_timeout=0.1)
    async with watching(Node("redis", redis_server.port), hasty, names) as watch:
        await asyncio.sleep(2 * hasty.longest)  # it would be dead by then
        assert watch.prober.detector.verdict is Verdict.UNKNOWN
        names.speaks.set()
        await watch.until(watch.verdict_is(Verdict.AVAILABLE))
        assert watch.news == 1


async def test_prober__server_moves_with_its_name__followed_within_2_seconds(redis_server: RedisServer) -> None:
    names = LookUps({"redis": ["127.0.0.1"]})
    async with watching(Node("redis", redis_server.port), names=names) as watch:
        await watch.until(watch.verdict_is(Verdict.AVAILABLE))
        run_id = redis_server.info("server")["run_id"]
        with RedisServer(bind="127.0.0.2", port=redis_server.port):
            redis_server.kill()
            names.says["redis"] = ["127.0.0.2"]
            before = time.monotonic()
            detector = watch.prober.detector
            await watch.until(lambda: detector.report is not None and detector.report.run_id != run_id)
            assert time.monotonic() - before < 2.0
