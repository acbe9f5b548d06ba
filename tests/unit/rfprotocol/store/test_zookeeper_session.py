"""What kazoo does differently from what leases and leaderships need, each against a real server or a fake one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import Callback
from packaging.requirements import Requirement
from structlog.testing import capture_logs

from rfprotocol.errors import ConfigError, StoreConflict, StoreUnavailable
from rfprotocol.store.interface import StoreState
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.store.zookeeper_session import Answer, Client, Link, NoRecord, RolledBack, _TurnedAway, _Wire
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.stores import Changes, end_session, freeze
from tests.support.zookeeper import ZooKeeperEnsemble, ZooKeeperServer


class Follower:
    """A link, and what it has reported."""

    def __init__(
        self, servers: str, *, session_timeout: float = 2.0, request_timeout: float = 0.5, patient: bool = False
    ) -> None:
        self.seen: list[StoreState] = []
        self._changed = asyncio.Event()
        self.link = Link(
            servers,
            session_timeout=session_timeout,
            request_timeout=request_timeout,
            moved=self._note,
            fired=lambda path, about: None,
            patient=patient,
        )

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()

    async def until_state(self, state: StoreState) -> None:
        await self.until(lambda: self.link.state is state)

    async def exists(self, path: str) -> bool:
        [stat] = await self.link.ask(lambda client: client.exists_async(path))
        return stat is not None

    async def keep_asking(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.exists("/")
            await asyncio.sleep(0.02)

    def _note(self, state: StoreState) -> None:
        self.seen.append(state)
        self._changed.set()


@contextlib.asynccontextmanager
async def following(servers: str, *, session_timeout: float = 2.0, patient: bool = False) -> AsyncIterator[Follower]:
    follower = Follower(servers, session_timeout=session_timeout, patient=patient)
    follower.link.start()
    try:
        yield follower
    finally:
        await follower.link.close()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


@contextlib.asynccontextmanager
async def fake_server(talk: Talk) -> AsyncIterator[str]:
    """A server that treats each connection so, and hangs up afterwards."""
    conversations: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        conversations.add(task)
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", free_port()) as door:
        host, port = door.sockets[0].getsockname()
        yield f"{host}:{port}"
    for conversation in conversations:
        conversation.cancel()
    await asyncio.gather(*conversations, return_exceptions=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ZooKeeperServer]:
    """A server that the test may treat badly."""
    with ZooKeeperServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(3, tmp_path_factory.mktemp("ensemble")) as ensemble:
        yield ensemble


# Options


@pytest.mark.parametrize("servers", ["", "host:port", "host:2181,", ":2181", "::1:2181", "[::1:2181", "host:99999"])
def test_an_unreadable_list_of_servers_is_a_configuration_error(servers: str) -> None:
    with pytest.raises(ConfigError):
        Follower(servers)


# Sessions


async def test_the_session_timeout_is_the_one_that_was_granted_and_a_shorter_one_is_said(tmp_path: Path) -> None:
    with ZooKeeperServer(tmp_path, max_session_timeout=3) as server, capture_logs() as logs:
        async with following(server.hosts, session_timeout=30) as follower:
            assert follower.link.session_timeout == 30
            await follower.until_state(StoreState.CONNECTED)
            assert follower.link.session_timeout == 3
    assert [line["event"] for line in logs if "maxSessionTimeout" in line["event"]]


async def test_a_session_survives_that_the_server_is_restarted_in_time(server: ZooKeeperServer) -> None:
    async with following(server.hosts, session_timeout=30) as follower:
        await follower.until_state(StoreState.CONNECTED)
        session = follower.link.session
        server.kill()
        await follower.until_state(StoreState.SUSPENDED)
        server.launch()
        await follower.until_state(StoreState.CONNECTED)
        assert follower.link.session == session
        assert follower.seen == [StoreState.CONNECTED, StoreState.SUSPENDED, StoreState.CONNECTED]


async def test_a_session_that_zookeeper_ended_is_lost_and_another_one_follows(server: ZooKeeperServer) -> None:
    async with following(server.hosts) as follower:
        await follower.until_state(StoreState.CONNECTED)
        identity = follower.link._client.client_id
        assert identity
        await asyncio.to_thread(end_session, server, *identity)
        await follower.until(lambda: follower.link.session != identity[0])
        assert follower.seen[-2:] == [StoreState.LOST, StoreState.CONNECTED]
        assert await follower.exists("/")


# Calls


async def test_a_server_that_has_lost_its_data_is_good_enough_for_a_new_session(tmp_path: Path) -> None:
    with ZooKeeperServer(tmp_path / "zookeeper") as server:
        async with following(server.hosts) as follower:
            await follower.until_state(StoreState.CONNECTED)
            await follower.link.ask(lambda client: client.create_async("/a"))
            before = follower.link.session
            server.kill()
            server.wipe()
            server.launch()
            await follower.until(
                lambda: follower.link.state is StoreState.CONNECTED and follower.link.session != before
            )
            assert not await follower.exists("/a")


async def test_what_is_asked_while_cut_off_is_refused_and_not_sent_later(server: ZooKeeperServer) -> None:
    async with following(server.hosts, session_timeout=30) as follower:
        await follower.until_state(StoreState.CONNECTED)
        server.kill()
        await follower.until_state(StoreState.SUSPENDED)
        for _ in range(1000):  # kazoo's queue would block the loop at some 280
            with pytest.raises(StoreUnavailable, match="cut off"):
                await follower.link.ask(lambda client: client.create_async("/late"))
        server.launch()
        await follower.until_state(StoreState.CONNECTED)
        assert not await follower.exists("/late")


async def test_a_call_ends_in_time_when_the_server_does_not_answer(server: ZooKeeperServer) -> None:
    async with following(server.hosts, session_timeout=30) as follower:
        await follower.until_state(StoreState.CONNECTED)
        freeze(server)
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await follower.exists("/")
        server.thaw()
        await follower.until_state(StoreState.SUSPENDED)
        await follower.until_state(StoreState.CONNECTED)
        assert await follower.exists("/")


async def test_a_call_in_flight_fails_when_the_connection_breaks(server: ZooKeeperServer) -> None:
    async with following(server.hosts, session_timeout=30) as follower:
        await follower.until_state(StoreState.CONNECTED)
        freeze(server)
        asking = asyncio.create_task(follower.exists("/"))
        await asyncio.sleep(0)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await asking


async def test_errors_are_outcomes_also_those_of_each_operation_in_a_transaction(server: ZooKeeperServer) -> None:
    async with following(server.hosts) as follower:
        await follower.until_state(StoreState.CONNECTED)
        missing, root, [[before, culprit, after]] = [
            *await follower.link.ask(lambda client: client.get_async("/none"), lambda client: client.get_async("/")),
            await follower.link.ask(_failing_transaction),
        ]
        assert isinstance(missing, NoRecord)
        assert root[0] == b""
        assert isinstance(before, RolledBack)
        assert isinstance(culprit, NoRecord)
        assert isinstance(after, RolledBack)
        assert not await follower.exists("/new")


def _failing_transaction(client: Client) -> Answer:
    transaction = client.transaction()
    transaction.create("/new")
    transaction.delete("/none", 0)
    transaction.create("/newer")
    return transaction.commit_async()


async def test_a_record_that_exists_is_a_conflict(server: ZooKeeperServer) -> None:
    async with following(server.hosts) as follower:
        await follower.until_state(StoreState.CONNECTED)
        [outcome] = await follower.link.ask(lambda client: client.create_async("/zookeeper"))
        assert isinstance(outcome, StoreConflict)


# Losing contact


@pytest.mark.parametrize("busy", [False, True])
async def test_a_session_is_lost_by_the_clock_while_the_server_is_still_silent(
    server: ZooKeeperServer, busy: bool
) -> None:
    async with following(server.hosts, session_timeout=1) as follower:
        await follower.until_state(StoreState.CONNECTED)
        traffic = asyncio.create_task(follower.keep_asking() if busy else asyncio.sleep(0))
        freeze(server)
        await follower.until_state(StoreState.LOST)
        server.thaw()
        await follower.until_state(StoreState.CONNECTED)
        traffic.cancel()


async def test_a_busy_client_leaves_a_frozen_server_for_another_one_in_the_same_session(
    ensemble: ZooKeeperEnsemble,
) -> None:
    async with following(ensemble.hosts, session_timeout=10) as follower:
        await follower.until_state(StoreState.CONNECTED)
        session = follower.link.session
        wire = follower.link._client.wire._socket
        assert wire
        port = wire.getpeername()[1]
        traffic = asyncio.create_task(follower.keep_asking())
        [frozen] = [server for server in ensemble.servers if server.port == port]
        freeze(frozen)
        try:
            await follower.until_state(StoreState.SUSPENDED)
            await follower.until_state(StoreState.CONNECTED)
        finally:
            frozen.thaw()
            traffic.cancel()
        assert StoreState.LOST not in follower.seen
        assert follower.link.session == session


async def test_attempts_to_connect_do_not_become_rare_in_a_long_outage() -> None:
    attempts = asyncio.Semaphore(0)

    async def refuse(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        attempts.release()

    async with fake_server(refuse) as address, following(address):
        for _ in range(12):  # kazoo's own pauses would add up to minutes; ours to some seconds
            await attempts.acquire()


async def test_the_reason_for_not_being_connected_is_part_of_the_error() -> None:
    attempts = asyncio.Semaphore(0)

    async def refuse(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        attempts.release()

    async with fake_server(refuse) as address, following(address) as follower:
        await attempts.acquire()
        await attempts.acquire()
        with pytest.raises(StoreUnavailable, match=r"not connected \(Connection dropped"):
            await follower.exists("/")


async def test_a_server_that_accepts_and_does_not_answer_is_given_up_after_the_time_of_a_request() -> None:
    attempts = asyncio.Semaphore(0)

    async def be_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        attempts.release()
        with contextlib.suppress(OSError):
            await reader.read()

    async with fake_server(be_silent) as address, following(address, session_timeout=3600):
        await attempts.acquire()
        await attempts.acquire()


def test_what_zookeeper_says_is_heard_in_its_order_events_and_answers_alike() -> None:
    wire, heard = _Wire(patience=1.0), list[int]()
    wire.start()
    for number in range(0, 1000, 2):
        wire.dispatch_callback(Callback("watch", heard.append, (number,)))
        wire.completion_queue.put(partial(heard.append, number + 1))
    wire.stop()
    assert heard == list(range(1000))


def test_kazoo_is_told_which_sockets_are_ready() -> None:
    wire, (here, there) = _Wire(patience=1.0), socket.socketpair()
    with here, there:
        assert wire.select([here], [], [], 0) == ([], [], [])
        assert wire.select([here], [there], [], None) == ([], [there], [])
        there.send(b"x")
        assert wire.select([here, there], [], [], 3600) == ([here], [], [])
        there.close()
        here.recv(1)
        assert wire.select([here], [], []) == ([here], [], [])
        with pytest.raises(ValueError, match="negative"):
            wire.select([there], [], [], 0)


def test_a_host_that_swallows_packets_is_given_up_after_its_share_of_the_session_timeout() -> None:
    with socket.socket() as door, contextlib.ExitStack() as waiting:
        door.bind(("127.0.0.1", free_port()))
        door.listen(0)
        for _ in range(4):  # the kernel drops what comes when the queue is full
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(door.getsockname())
        with pytest.raises(OSError, match="timed out"):
            _Wire(patience=0.1).create_connection(door.getsockname(), timeout=3600)


async def test_a_process_that_was_frozen_itself_notices_that_its_session_is_over(
    zookeeper: ZooKeeperServer, zookeeper_hosts: str
) -> None:
    program = Path(__file__).parents[3] / "support" / "announcer.py"
    child = await asyncio.create_subprocess_exec(sys.executable, str(program), zookeeper_hosts, stdout=subprocess.PIPE)
    assert child.stdout
    watcher = ZkStore(zookeeper_hosts)
    changes = Changes(watcher, "/announced")
    await watcher.start()
    assert await child.stdout.readline() == b"connected\n"
    while not await watcher_has(watcher):
        await changes.next()
    assert await child.stdout.readline() == b"announced\n"
    child.send_signal(signal.SIGSTOP)
    while await watcher_has(watcher):
        await changes.next()
    child.send_signal(signal.SIGCONT)
    for state in (b"lost\n", b"connected\n"):
        while (line := await child.stdout.readline()) != state:
            assert line, "the program has ended"
    child.kill()
    await child.wait()
    await watcher.close()


async def watcher_has(store: ZkStore) -> bool:
    try:
        return await store.read("/announced") is not None
    except StoreUnavailable:
        return False


# Trouble inside kazoo


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is what the test provokes
async def test_a_malformed_answer_costs_the_session_but_not_the_link() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(struct.unpack("!i", await reader.readexactly(4))[0])
        greeting = struct.pack("!iiq", 0, 4000, 0xCAFE) + struct.pack("!i", 16) + bytes(16) + b"\0"
        writer.write(struct.pack("!i", len(greeting)) + greeting)
        await reader.readexactly(4)
        writer.write(struct.pack("!iiqi", 16, 12345, 0, 0))  # an answer to no question
        with contextlib.suppress(OSError):
            await reader.read()

    async with fake_server(answer) as address, following(address) as follower:
        for _ in range(2):
            await follower.until_state(StoreState.CONNECTED)
            with pytest.raises(StoreUnavailable):
                await follower.exists("/")
            await follower.until_state(StoreState.LOST)


# Closing


async def test_closing_ends_in_time_when_the_server_is_frozen_and_leaves_no_thread(server: ZooKeeperServer) -> None:
    before = set(threading.enumerate())
    async with following(server.hosts, session_timeout=30) as follower:
        await follower.until_state(StoreState.CONNECTED)
        freeze(server)
    assert follower.link.state is StoreState.LOST
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join)


async def test_a_link_that_never_connected_can_be_closed() -> None:
    async with following(f"127.0.0.1:{free_port()}") as follower:
        pass
    assert follower.seen == []
    await follower.link.close()


async def test_waiting_for_a_connection_ends_when_the_link_is_closed() -> None:
    async with following(f"127.0.0.1:{free_port()}") as follower:
        waiting = asyncio.create_task(follower.link.reachable())
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting


def test_events_that_arrive_after_the_loop_was_closed_are_dropped(server: ZooKeeperServer) -> None:
    loop = asyncio.new_event_loop()

    async def connect() -> Follower:
        follower = Follower(server.hosts)
        follower.link.start()
        await follower.until_state(StoreState.CONNECTED)
        return follower

    client = loop.run_until_complete(connect()).link._client
    loop.close()
    cut_off = threading.Event()
    client.add_listener(lambda state: cut_off.set())
    server.kill()
    cut_off.wait()
    client.stop()
    client.close()


CROWDED = "accepts and closes at once: its maxClientCnxns (60 by default) may be reached by this address"


async def test_crowded__a_server_with_connections_enough__is_named_and_who_needs_it_most_gets_in_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfprotocol.store.zookeeper_session._FIRST_REST", 0.05)
    monkeypatch.setattr("rfprotocol.store.zookeeper_session._LONGEST_LEAVE", 0.05)
    monkeypatch.setattr("rfprotocol.store.zookeeper_session._YIELD", 60.0)  # much longer than all the rest takes
    with ZooKeeperServer(tmp_path, max_connections=2) as server, capture_logs() as logs:
        async with following(server.hosts) as first, following(server.hosts) as second:
            for follower in (first, second):
                await follower.until_state(StoreState.CONNECTED)
            async with following(server.hosts, patient=True) as proxy:
                await eventually(lambda: proxy.link.trouble == CROWDED)
                with pytest.raises(StoreUnavailable, match="maxClientCnxns"):
                    await proxy.exists("/")
                await second.link.close()
                await eventually(
                    lambda: "has room again" in proxy.link.trouble
                )  # which it sees before the manager is there
                async with following(server.hosts) as manager:
                    await manager.until_state(StoreState.CONNECTED)
                    assert manager.link.trouble == ""
                    assert await manager.exists("/")
                    assert proxy.link.state is StoreState.LOST
            assert first.link.state is StoreState.CONNECTED
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_crowded__a_patient_link__gets_in_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfprotocol.store.zookeeper_session._FIRST_REST", 0.1)
    monkeypatch.setattr("rfprotocol.store.zookeeper_session._LONGEST_LEAVE", 0.1)
    monkeypatch.setattr("rfprotocol.store.zookeeper_session._YIELD", 0.1)
    with ZooKeeperServer(tmp_path, max_connections=1) as server:
        async with following(server.hosts) as first:
            await first.until_state(StoreState.CONNECTED)
            async with following(server.hosts, patient=True) as proxy:
                await eventually(lambda: proxy.link.trouble == CROWDED)
                await first.link.close()
                await proxy.until_state(StoreState.CONNECTED)


async def test_not_serving__a_server_closes_when_it_is_asked__is_another_thing() -> None:
    async def hear_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)

    async with fake_server(hear_and_close) as hosts, following(hosts) as follower:
        await eventually(lambda: follower.link.trouble)
        assert follower.link.trouble.startswith("accepts and closes without an answer: it has no quorum, or ")
        assert "it accepts and closes without an answer" in follower.link._complaint()


async def test_away__a_server_that_refuses__is_none_of_these() -> None:
    with capture_logs() as logs:
        async with following(f"127.0.0.1:{free_port()}") as follower:
            await eventually(lambda: "refused" in follower.link._complaint())
            assert follower.link.trouble == ""
    assert logs == []


class Sleeper:
    """Instead of the event that ends a pause: how long it would have lasted."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def set(self) -> None:
        """The end."""


def pauses(wire: _Wire, *tried: _TurnedAway | None) -> list[float]:
    """What a round of attempts is followed by when kazoo wants a pause of half a second."""
    sleeper = Sleeper()
    wire._tried, wire._ended = list(tried), sleeper  # type: ignore[assignment]  # no threading.Event
    wire.sleep_func(0.1)
    for _ in range(4):
        wire.sleep_func(0.1)
    return sleeper.pauses


def test_pauses__while_all_servers_are_crowded__are_short_for_who_must_get_in() -> None:
    assert sum(pauses(_Wire(1.0), _TurnedAway.CROWDED, _TurnedAway.CROWDED)) == pytest.approx(0.125)
    assert sum(pauses(_Wire(1.0), _TurnedAway.CROWDED, _TurnedAway.NOT_SERVING)) == pytest.approx(0.5)
    assert sum(pauses(_Wire(1.0), None)) == pytest.approx(0.5)


def test_pauses__while_all_servers_are_crowded__grow_for_who_is_patient_and_has_no_session_to_lose() -> None:
    wire = _Wire(1.0, yields=True)
    assert 1.2 < sum(pauses(wire, _TurnedAway.CROWDED)) <= 1.5
    assert sum(pauses(wire, _TurnedAway.CROWDED, _TurnedAway.YIELDED)) == pytest.approx(5.5)
    wire.has_session = True
    assert sum(pauses(wire, _TurnedAway.CROWDED)) == pytest.approx(0.125)
    wire.has_session = False
    assert sum(pauses(wire, _TurnedAway.NOT_SERVING)) == pytest.approx(0.5)
    assert sum(pauses(wire, None)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["spawn", "dispatch_callback", "create_connection", "select"])
def test_kazoo__what_is_overridden__is_there_and_the_release_is_bounded(name: str) -> None:
    """Kazoo promises nothing about these: a release that renames one would quietly go on without ours. So a later one
    is only let in (pyproject.toml) when these tests have passed with it."""
    assert name in vars(_Wire)
    assert callable(getattr(SequentialThreadingHandler, name))
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    needed = Requirement(next(line for line in project["dependencies"] if line.startswith("kazoo")))
    assert not needed.specifier.contains("2.12.0")
