"""Servers that are known by name, while the name service is slow, silent, or fails: a failover does not wait for it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.processes import wait_until
from deploy.site import HOST, Site
from rfprotocol.topology.topology import Node
from tests.support.logged import logged
from tests.support.names import NameService
from tests.support.program import Program, recorded
from tests.support.redis import RedisGroup, RedisServer

SOON = 2.0
"""Seconds. With addresses instead of names it takes some 0.1; while each connection asked the name service, a look-up
of 3 s made it 30, and one that failed, too."""


@dataclass
class Place:
    """One manager, one proxy, three servers with names."""

    site: Site
    names: NameService
    port: int

    @contextlib.contextmanager
    def client(self, db: int = 0) -> Iterator[redis.Redis]:
        retry = Retry(NoBackoff(), 0)
        with redis.Redis(host=HOST, port=self.port, db=db, retry=retry, decode_responses=True) as client:
            yield client

    def asked_again(self) -> None:
        """Return when each name has been asked for since now."""
        before = len(self.names.asked)
        hosts = {node.host for node in self.site.group.nodes}
        wait_until(lambda: hosts <= set(self.names.asked[before:]), "questions to the name service")


@pytest.fixture
def place(zookeeper_hosts: str, tmp_path: Path) -> Iterator[Place]:
    group = RedisGroup(3)
    hosts = [f"redis-{number}.test" for number in range(1, 4)]
    with NameService(dict.fromkeys(hosts, HOST)) as names:
        for server, host in zip(group.servers, hosts, strict=True):
            server.front = Node(host, server.port)
            names.take(server.process, knows=hosts)
        with group:
            site = Site(tmp_path, zookeeper_hosts, group, "json", required_managers=1)
            for process in (site.manager(), site.proxy()):
                names.take(process)
                process.start()
            try:
                site.wait_until_ready()
                yield Place(site, names, next(iter(site.proxies)))
            finally:
                site.stop()
    for process in (*site.managers, *site.proxies.values()):
        assert process.log is not None
        assert "never retrieved" not in process.log.read_text()


FAULTS: dict[str, Callable[[NameService], None]] = {
    "takes 3 s": lambda names: names.delay(3.0),
    "answers SERVFAIL": NameService.fail,
    "is silent": NameService.fall_silent,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_master_killed__name_service_out_of_order__writes_resume_as_with_addresses(place: Place, fault: str) -> None:
    with place.client() as client, place.client(db=1) as of_another_database:
        client.set("k", 1)
        FAULTS[fault](place.names)
        place.asked_again()
        before = time.monotonic()
        assert of_another_database.set("k", 1), "which needs a connection that was not there before"
        assert time.monotonic() - before < SOON
        master = place.site.master()
        before = time.monotonic()
        master.kill()
        assert client.set("k", 2)
        assert time.monotonic() - before < SOON
        assert place.site.master() is not master
        master.restart()
        wait_until(lambda: master.info()["role"] == "slave", "the former master's return")


def test_proxy_reloaded__name_service_fails__new_workers_serve(place: Place) -> None:
    (proxy,) = place.site.proxies.values()
    place.names.fail()
    before = proxy.workers
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: bool(proxy.workers) and not set(proxy.workers) & set(before), "the reload")
    with place.client() as client:
        began = time.monotonic()
        assert client.set("k", 1)
        assert time.monotonic() - began < SOON


def test_manager_restarted__name_service_fails__master_stays_and_is_failed_over_when_it_dies(place: Place) -> None:
    """It would find all servers unresolved, and withdraw a master that is well."""
    (manager,) = place.site.managers
    place.names.fail()
    manager.kill()
    manager.start()
    assert manager.log is not None
    log = manager.log
    wait_until(lambda: sum(line["event"] == "became the primary manager" for line in logged(log)) == 2, "its return")
    master = place.site.master()
    with place.client() as client:
        before = time.monotonic()
        assert client.set("k", 1)
        assert time.monotonic() - before < SOON
        before = time.monotonic()
        master.kill()
        assert client.set("k", 2)
        assert time.monotonic() - before < SOON
    history = place.site.manage("history").stdout.splitlines()
    assert sum("failover" in line for line in history) == 1


def test_manager_started__name_unknown__status_says_unresolved(place: Place) -> None:
    (manager,) = place.site.managers
    manager.stop()
    at = manager.argv.index("--nodes") + 1
    manager.argv[at] += ",redis-4.test:6379"
    manager.start()
    wait_until(lambda: "its name cannot be resolved" in place.site.manage("status").stdout, "unresolved")
    assert manager.log is not None
    unavailable = [line for line in logged(manager.log) if line["event"] == "server is unavailable"]
    assert unavailable[-1]["node"] == "redis-4.test:6379"
    assert unavailable[-1]["condition"] == "unresolved"
    with place.client() as client:
        assert client.set("k", 1)


@pytest.fixture
async def moving(zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[tuple[Program, NameService, RedisServer]]:
    """A proxy whose only server has a name."""
    with RedisServer() as server, NameService({"redis.test": HOST}) as names:
        async with recorded(zookeeper_hosts, Node("redis.test", server.port)):
            program = Program(tmp_path, zkservers=zookeeper_hosts)
            names.take(program.process)
            program.start()
            yield program, names, server
            program.process.kill()


def test_server_moves__its_name_with_it__followed_within_2_seconds(
    moving: tuple[Program, NameService, RedisServer],
) -> None:
    program, names, server = moving
    with program.connect() as client:
        client.set("k", 1)
        with RedisServer(bind="127.0.0.2", port=server.port) as moved:
            server.kill()
            names.addresses["redis.test"] = "127.0.0.2"
            began = time.monotonic()
            assert client.set("k", 2)
            assert time.monotonic() - began < 2.0
            assert moved.command("GET", "k") == "2"
