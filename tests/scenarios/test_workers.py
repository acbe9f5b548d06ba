"""Several workers behind one address: replaced while clients come without pause, and while the master changes; and what
a client of one is told of, and does to, those of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bench.load import Load
from deploy.processes import wait_until
from deploy.site import HOST
from rfprotocol.topology.topology import Node
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.program import Program, recorded, worker_of
from tests.support.rawclient import RawClient
from tests.support.redis import RedisGroup, RedisServer

WORKERS = 2
VISITORS = 8
"""That come at the same time."""


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers, one proxy of two workers."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path, workers=WORKERS) as site:
        yield site


class Visitors:
    """`async with Visitors(port)`: clients that connect, ask once, get their answer and leave, again and again."""

    def __init__(self, port: int) -> None:
        self.served = 0
        self.refused: list[OSError] = []
        self.cut_off: list[str] = []
        self._port = port
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Visitors:
        self._tasks = [asyncio.create_task(self._come_and_go()) for _ in range(VISITORS)]
        await self.flow()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def flow(self) -> None:
        """Return when all have been served some more times."""
        enough = self.served + 20 * VISITORS
        await eventually(lambda: self.served >= enough)

    async def _come_and_go(self) -> None:
        while not self._over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self.refused.append(error)
                continue
            try:
                writer.write(b"SET visitor 1\r\n")
                answer = await reader.readline()
            except OSError as error:
                answer = repr(error).encode()
            if answer == b"+OK\r\n":
                self.served += 1
            else:
                self.cut_off.append(answer.decode())
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
async def test_no_connection_is_refused_or_broken_off_by_a_reload(site: Installation, number: signal.Signals) -> None:
    (proxy,) = site.proxies.values()
    async with Visitors(site.ports[0]) as visitors:
        former = set(proxy.workers)
        proxy.signal(number)
        await site.said(proxy, '"worker_left"', WORKERS)
        await visitors.flow()
        assert len(set(proxy.workers) - former) == WORKERS
        assert (visitors.refused, visitors.cut_off) == ([], [])


async def test_a_killed_worker_costs_those_that_it_serves_and_nobody_else(site: Installation) -> None:
    (proxy,) = site.proxies.values()
    async with Visitors(site.ports[0]) as visitors:
        for times in range(1, 4):
            os.kill(proxy.workers[0], signal.SIGKILL)
            await site.said(proxy, '"worker_ended"', times)
            await visitors.flow()
        assert visitors.refused == []
        assert len(visitors.cut_off) <= 3 * VISITORS


async def test_a_master_that_is_killed_during_a_reload_costs_no_acknowledged_write_and_no_connection(
    site: Installation,
) -> None:
    (proxy,) = site.proxies.values()
    load = Load(port=site.ports[0], connections=16, rate=400.0)
    await asyncio.to_thread(load.start)
    before = await site.serving()
    proxy.signal(signal.SIGHUP)
    await site.said(proxy, '"supervising"', 2)
    site.server_of(before).kill()
    await site.serving(lambda topology: topology.master != before.master)
    seen = await asyncio.to_thread(load.stop)
    assert seen.ledger is not None
    assert seen.ledger.lost == 0
    assert {operation.error for operation in seen.operations} <= {"", "UNCERTAIN"}
    assert len(proxy.workers) == 2 * WORKERS, "clients that are never silent are still with the former workers"


# --- what a client knows of, and does to, those of other workers


CLIENTS = 20


@pytest.fixture
async def program(zookeeper_hosts: str, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Program]:
    """A proxy with two workers, in front of one server."""
    async with recorded(zookeeper_hosts, redis_server.node):
        program = Program(tmp_path, zkservers=zookeeper_hosts, workers=WORKERS)
        (tmp_path / "tmp").mkdir()
        program.process.env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
        program.start()
        yield program
        program.process.kill()


def one_of_each(program: Program) -> tuple[redis.Redis, redis.Redis]:
    """A client of one worker, and a client of the other."""
    here, there = program.connect_to_each().values()
    return here, there


def asks(client: redis.Redis, *words: str) -> Any:
    """The reply to a command."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]  # of redis-py


def listed(client: redis.Redis) -> set[int]:
    """The ids that CLIENT LIST shows."""
    return {int(line["id"]) for line in asks(client, "CLIENT LIST")}


def test_list__twenty_clients_of_two_workers__each_sees_all(program: Program) -> None:
    clients = [program.connect() for _ in range(CLIENTS - WORKERS)] + list(one_of_each(program))
    numbers = {client.client_id() for client in clients}
    assert len(numbers) == CLIENTS
    assert len({number >> 31 for number in numbers}) == WORKERS
    wait_until(lambda: listed(clients[0]) == numbers, "the end of clients that only looked for a worker")
    assert all(listed(client) == numbers for client in clients)


def test_kill__client_of_the_other_worker__is_closed_and_counted(program: Program) -> None:
    here, there = one_of_each(program)
    assert here.client_kill_filter(_id=str(there.client_id())) == 1
    with pytest.raises(redis.ConnectionError):
        there.ping()
    assert here.client_kill_filter(_id=str(1 << 31)) == 0


def of(client: redis.Redis, number: int) -> dict[str, str]:
    """What a client is told of another one."""
    (line,) = asks(client, "CLIENT LIST", "ID", str(number))
    return dict(line)


def test_unblock__client_of_the_other_worker__goes_on(program: Program) -> None:
    here, there = one_of_each(program)
    number, heard = there.client_id(), list[object]()
    blocked = threading.Thread(target=lambda: heard.append(there.blpop(["nothing"], 0)))
    blocked.start()
    wait_until(lambda: of(here, number)["flags"] == "b", "a blocked client")
    assert here.client_unblock(number) == 1
    blocked.join()
    assert heard == [None]
    assert here.client_unblock(number) == 0


def test_pause__asked_of_one_worker__holds_the_other(program: Program) -> None:
    here, there = one_of_each(program)
    number, heard = there.client_id(), list[object]()
    assert here.client_pause(600_000, all=False)
    held = threading.Thread(target=lambda: heard.append(asks(there, "INCR", "k")))
    held.start()
    wait_until(lambda: of(here, number)["cmd"] == "incr", "a command that is held")
    assert (here.get("k"), heard) == (None, [])
    assert here.client_unpause()
    held.join()
    assert heard == [1]


def raw_client_of_each(program: Program) -> tuple[RawClient, RawClient]:
    """A client of one worker, and a client of the other."""
    clients: dict[int, RawClient] = {}
    while len(clients) < WORKERS:
        client = RawClient(Node(HOST, program.port))
        if clients.setdefault(int(client.ask(b"CLIENT ID\r\n")[1:]) >> 31, client) is not client:
            client.socket.close()
    here, there = clients.values()
    return here, there


def test_redirect__client_of_the_other_worker__is_told(program: Program) -> None:
    here, there = raw_client_of_each(program)
    number = int(there.ask(b"CLIENT ID\r\n")[1:])
    there.ask(b"SUBSCRIBE __redis__:invalidate\r\n")
    there.hear(len(b"$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n"))
    assert here.ask(b"CLIENT TRACKING ON REDIRECT %d\r\n" % number) == b"+OK\r\n"
    assert here.ask(b"CLIENT GETREDIR\r\n") == b":%d\r\n" % number
    assert here.ask(b"GET k\r\n") == b"$-1\r\n"
    with program.connect() as other:
        other.set("k", "v")
    there.hears(b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\nk\r\n")
    for client in (here, there):
        client.socket.close()


def test_list__workers_of_before_a_reload__are_still_there(program: Program) -> None:
    former = program.connect_to_each()
    for client in former.values():
        asks(client, "WATCH", "k")  # so that it is not parted with while its worker retires
    program.process.signal(signal.SIGHUP)
    program.wait_for("retiring", WORKERS)
    latter = program.connect_to_each(set(program.process.workers) - former.keys())
    clients = [*former.values(), *latter.values()]
    numbers = {client.client_id() for client in clients}
    assert len({number >> 31 for number in numbers}) == 2 * WORKERS
    wait_until(lambda: listed(clients[0]) == numbers, "the end of clients that only looked for a worker")
    assert all(listed(client) == numbers for client in clients)
    old, other, new, _ = clients
    assert new.client_kill_filter(_id=str(old.client_id())) == 1
    assert other.client_kill_filter(_id=str(new.client_id())) == 1


def test_list__other_worker_frozen__is_answered_within_a_second(program: Program) -> None:
    here, there = one_of_each(program)
    number, frozen = there.client_id(), worker_of(there)
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    assert number not in listed(here)
    assert here.client_kill_filter(_id=str(number)) == 0
    assert time.monotonic() - began < 1.0
    assert [event["worker"] for event in program.events("worker_unheard")] == [frozen]
    os.kill(frozen, signal.SIGCONT)
    wait_until(lambda: number in listed(here), "the worker that stood still")
    assert there.ping(), "what it was asked while it stood still was not done"


def test_list__worker_killed__is_as_if_its_clients_had_left(program: Program) -> None:
    here, there = one_of_each(program)
    number = there.client_id()
    os.kill(worker_of(there), signal.SIGKILL)
    wait_until(lambda: number not in listed(here), "the end of a worker")
    program.wait_for("worker_started", WORKERS + 1)
    assert len(program.connect_to_each()) == WORKERS


def test_supervisor__directory_of_the_workers__is_removed_at_the_end(program: Program, tmp_path: Path) -> None:
    (directory,) = (tmp_path / "tmp").iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    program.reload()
    assert {int(path.name) for path in directory.iterdir()} == set(program.process.workers)
    assert program.process.stop() == 0
    assert not directory.exists()


async def test_supervisor__one_worker__has_nobody_to_ask_and_opens_nothing(
    zookeeper_hosts: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with recorded(zookeeper_hosts, redis_server.node):
        program = Program(tmp_path, zkservers=zookeeper_hosts)
        (tmp_path / "tmp").mkdir()
        program.process.env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
        program.start()
        (worker,) = program.process.workers
        assert list((tmp_path / "tmp").iterdir()) == []
        with program.connect() as client:
            assert listed(client) == {client.client_id()}
            assert client.client_id() >> 31 == worker
        program.process.kill()
