"""The embedded mode through the end of everything: what was promoted, the epoch and the history are known afterwards,
and operators' commands reach the manager inside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.processes import Process, free_port, wait_until
from deploy.site import BIN, HOST
from rfprotocol.embedded import record_file
from rfprotocol.store.interface import Entry
from rfprotocol.store.memory import TreeState
from rfprotocol.topology.topology import Node, Phase, Topology
from tests.support.logged import logged
from tests.support.redis import RedisGroup, RedisServer

PROMOTED = 3
"""The epoch of the first change of master."""


OF_OTHERS = record_file.encode(
    TreeState(
        2,
        {
            "/redis_failover": Entry(b"", 0, 1, 0),
            "/redis_failover/nodes": Entry(Topology(3, Phase.SERVING, Node("10.0.0.1", 6379)).encode(), 0, 2, 0),
        },
    )
).decode()
"""A record of another group."""


class Site:
    """Servers that keep what they have on disk, and a proxy before them with a manager inside."""

    def __init__(self, group: RedisGroup, folder: Path) -> None:
        self.group = group
        self.state = folder / "state"
        self.log = folder / "rfproxy.log"
        self.port = free_port(HOST)
        nodes = ",".join(map(str, group.nodes))
        words = ["--nodes", nodes, "--listen", f"{HOST}:{self.port}", "--state-dir", self.state, "--log-format", "json"]
        self.words = list(map(str, (BIN / "rfproxy", *words)))
        self.proxy = Process(self.words, self.log)

    def rfmanager(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of an operator."""
        command = [str(BIN / "rfmanager"), *words, "--state-dir", str(self.state)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RFMANAGER_")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def status(self) -> Mapping[str, Any]:
        """What `rfmanager status` knows."""
        found = self.rfmanager("status", "--json")
        assert found.stdout, found.stderr
        status: Mapping[str, Any] = json.loads(found.stdout)
        return status

    def wait_for(self, what: str, true: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """The status, once that is true of it."""
        found: list[Mapping[str, Any]] = []

        def looked() -> bool:
            assert self.proxy.alive, self.proxy.last_words()
            found.append(self.status())
            return true(found[-1])

        wait_until(looked, what)
        return found[-1]

    def serving(self, otherwise: Node | None = None) -> RedisServer:
        """The master, once there is one that is not this one and has all others that run as replicas."""

        def true(status: Mapping[str, Any]) -> bool:
            running = {str(server.node) for server in self.group.servers if server.alive}
            listed = {server["address"] for server in status["servers"] if server["listed"] in ("master", "replica")}
            return status["master"] not in (None, str(otherwise)) and running <= listed

        return self.group[Node.parse(self.wait_for("a master", true)["master"])]

    def says(self, text: str) -> bool:
        """Whether that is in its log."""
        return any(text in event["event"] for event in logged(self.log))

    def client(self) -> redis.Redis:
        """Of the proxy; nothing is tried twice."""
        return redis.Redis(port=self.port, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def write(self, key: str, value: str) -> None:
        """Acknowledged."""
        with self.client() as client:
            assert client.set(key, value)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """It serves. The parameter is how the servers keep their data."""
    with RedisGroup(3, **getattr(request, "param", {"save": "3600 1"})) as group:
        site = Site(group, tmp_path)
        site.proxy.start()
        wait_until((site.state / "rfmanager.sock").exists, "the socket")
        assert site.serving() is group.master
        yield site
        site.proxy.kill()


def end(server: RedisServer, number: signal.Signals) -> None:
    """SIGTERM: it saves what it has; SIGKILL: it has saved that a moment before."""
    if number is signal.SIGTERM:
        server.stop()
    else:
        server.command("SAVE")
        server.kill()


def replaced(site: Site) -> RedisServer:
    """The master that is promoted for the first one, which comes back as a replica."""
    first = site.group.master
    first.command("SAVE")
    first.kill()
    promoted = site.serving(otherwise=first.node)
    first.restart()
    assert site.serving() is promoted
    return promoted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("proxy_first", [True, False])
def test_everything_ends__started_in_another_order__promoted_master_is_master(
    site: Site, number: signal.Signals, proxy_first: bool
) -> None:
    """The others lack a write, and the file of the first one says that it is a master. They come first."""
    site.write("k", "old")
    promoted = replaced(site)
    others = [server for server in site.group.servers if server is not promoted]
    for server in others:
        end(server, number)
    site.wait_for("the manager sees it", lambda status: sum(not one["available"] for one in status["servers"]) == 2)
    site.write("k", "acknowledged")
    epoch = site.status()["epoch"]
    if proxy_first:
        site.proxy.signal(number)
        site.proxy.kill()
    end(promoted, number)
    site.proxy.stop() if number is signal.SIGTERM else site.proxy.kill()

    site.log.unlink()
    for server in others:
        server.restart()
    site.proxy.start()
    wait_until(lambda: site.says("no server can be promoted"), "it waits")
    assert site.status()["master"] is None
    promoted.restart()

    assert site.serving() is promoted
    with site.client() as client:
        assert client.get("k") == "acknowledged"
    assert site.status()["epoch"] > epoch >= PROMOTED
    receipts = json.loads(site.rfmanager("history", "--json").stdout)
    assert [receipt["master"] for receipt in receipts] == [str(promoted.node)] * len(receipts)
    assert receipts[0]["former"] == str(site.group.master.node)
    assert promoted.info()["role"] == "master"


@pytest.mark.parametrize("site", [{"appendonly": "yes"}], indirect=True)
def test_everything_is_killed__append_only_files__operator_names_the_master_that_history_names(site: Site) -> None:
    """Such a file does not keep the replication history: nobody can tell from a server whose data it continues."""
    first = site.group.master
    first.kill()
    promoted = site.serving(otherwise=first.node)
    site.write("k", "acknowledged")
    site.proxy.kill()
    site.log.unlink()
    for server in site.group.servers:
        server.kill()
    for server in site.group.servers:
        server.restart()
    site.proxy.start()
    wait_until(lambda: site.says("no server can be promoted"), "it waits")
    (receipt,) = json.loads(site.rfmanager("history", "--json").stdout)
    assert receipt["master"] == str(promoted.node)
    done = site.rfmanager("failover", "--to", receipt["master"])
    assert (done.returncode, done.stderr) == (0, "")
    assert site.serving() is promoted
    with site.client() as client:
        assert client.get("k") == "acknowledged"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_proxy_alone_ends__next_one_knows_epoch_and_history(site: Site, number: signal.Signals) -> None:
    promoted = replaced(site)
    before = site.rfmanager("history").stdout
    site.proxy.stop() if number is signal.SIGTERM else site.proxy.kill()
    site.proxy.start()
    assert site.serving() is promoted
    assert site.status()["epoch"] == PROMOTED
    assert site.rfmanager("history").stdout == before


def test_reload__master_epoch_and_history_stay(site: Site) -> None:
    promoted = replaced(site)
    before, (worker,) = site.rfmanager("history").stdout, site.proxy.workers
    site.proxy.signal(signal.SIGHUP)
    wait_until(lambda: site.proxy.workers not in ([worker], []), "the next worker")
    assert site.serving() is promoted
    assert site.status()["epoch"] == PROMOTED
    assert site.rfmanager("history").stdout == before
    site.write("k", "v")


def test_commands__reach_the_manager_inside(site: Site) -> None:
    first, second = (str(node) for node in site.group.nodes[:2])
    status = site.rfmanager("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout.splitlines()[0].split() == ["master", first]

    done = site.rfmanager("failover", "--to", second)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["switchover", "done,", "epoch", str(PROMOTED)]
    assert site.status()["master"] == second
    site.write("k", "v")
    assert site.rfmanager("history", str(PROMOTED)).stdout.splitlines()[0] == done.stdout.splitlines()[0]

    assert site.rfmanager("pause").returncode == 0
    paused = site.rfmanager("failover")
    assert (paused.returncode, paused.stdout) == (1, "")
    assert paused.stderr.startswith("rfmanager: the managers are paused by ")
    assert site.rfmanager("resume").returncode == 0

    site.serving()
    assert "unsafe: " not in site.rfmanager("doctor").stdout
    site.group[Node.parse(second)].command("CONFIG", "SET", "min-replicas-to-write", 2)
    sick = site.rfmanager("doctor")
    assert sick.returncode == 1
    assert sick.stdout.startswith(f"unsafe: {second}: as the master it refuses writes with fewer than 2 replicas")


def test_pause__outlives_the_proxy(site: Site) -> None:
    assert site.rfmanager("pause").returncode == 0
    site.proxy.kill()
    site.group.master.kill()
    site.proxy.start()
    wait_until(lambda: site.says("paused: watching only"), "it says so")
    assert site.status()["paused"]
    assert site.rfmanager("resume").returncode == 0
    assert site.serving(otherwise=site.group.master.node)


def test_no_proxy_runs__one_line_and_status_1(site: Site) -> None:
    site.proxy.kill()
    found = site.rfmanager("status", "--connect-timeout", "0.2")
    assert (found.returncode, found.stdout) == (1, "")
    said = "Connection refused: does an rfproxy run with --nodes and this --state-dir? (waited 0.2 s)\n"
    assert found.stderr == f"rfmanager: {site.state / 'rfmanager.sock'}: {said}"


def test_advice_in_the_log__is_a_command_that_works(site: Site) -> None:
    """Nothing is known, and each server calls itself a master."""
    site.proxy.kill()
    (site.state / "embedded.json").unlink()
    site.log.unlink()
    for server in site.group.servers:
        server.command("REPLICAOF", "NO", "ONE")
    site.proxy.start()
    wait_until(lambda: site.says("several masters"), "it asks")
    (advice,) = {event["event"] for event in logged(site.log) if "several masters" in event["event"]}
    words = re.findall("'(rfmanager .*)'", advice)[0].replace("h:p", str(site.group.nodes[1])).split()
    done = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert site.status()["master"] == str(site.group.nodes[1])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"format": 1, "last"', "it is damaged: not JSON"),
        ('{"format": 99}', "a later release has written it: format 99, this one reads up to 1"),
        (OF_OTHERS, "is about other servers (10.0.0.1:6379)"),
    ],
)
def test_record__of_no_use__is_named_left_alone_and_not_started_with(site: Site, content: str, why: str) -> None:
    record = site.state / "embedded.json"
    record.with_name("embedded.json.new").mkdir()  # the proxy that runs cannot put it right
    record.write_text(content)
    site.proxy.signal(signal.SIGHUP)
    wait_until(lambda: any(why in event.get("error", "") for event in logged(site.log)), "the reload is refused")
    site.write("k", "the former worker goes on")
    site.proxy.kill()
    for words in (site.words[1:], ["check", *site.words[1:]]):
        done = subprocess.run([site.words[0], *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert why in next(line for line in done.stderr.splitlines() if line.startswith("rfproxy: "))
    assert record.read_text() == content


def test_second_proxy__same_state_directory__is_refused(site: Site) -> None:
    words = [word if word != f"{HOST}:{site.port}" else f"{HOST}:{free_port(HOST)}" for word in site.words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = next(line for line in done.stderr.splitlines() if line.startswith("rfproxy: "))
    assert said.startswith(f"rfproxy: --state-dir: another rfproxy in embedded mode uses {site.state}: end that one")
    assert site.status()["master"]


def test_record_cannot_be_written__said_with_each_command_and_masters_change(site: Site) -> None:
    (site.state / "embedded.json.new").mkdir()
    done = site.rfmanager("failover")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["switchover", "done,"])
    status = site.rfmanager("status")
    assert status.returncode == 0
    said = "cannot be written, what changes now is not remembered: Is a directory\n"
    assert status.stderr == f"rfmanager: {site.state / 'embedded.json'} {said}"
    (site.state / "embedded.json.new").rmdir()
    wait_until(lambda: site.says("record_kept"), "it is written")
    assert site.rfmanager("status").stderr == ""
