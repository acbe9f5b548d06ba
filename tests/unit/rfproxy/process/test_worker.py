"""What one worker is given of the options, and when it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from deploy.processes import free_port, wait_until
from rfproxy.core.durability import Durability
from rfproxy.core.identity import Account
from rfproxy.core.policy import ClientAuth, Policy
from rfproxy.process import worker
from rfproxy.process.worker import RETIRE, limits_of, policy_of
from rfproxy.runtime.client_limits import Limits, OutputLimit, OutputLimits
from rfproxy.settings import ProxyConfig
from tests.support.clock import Clock
from tests.support.program import Program, accepts, recorded, worker_of
from tests.support.redis import RedisServer


def test_descriptors__soft_limit__raised_to_the_hard_one() -> None:
    code = (
        "import resource; from rfproxy.process.worker import allow_descriptors as allow;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300));"
        "print(allow(50), allow(200), allow(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "300", "300", "300"]


def test_the_password_reaches_the_lanes_and_no_representation() -> None:
    config = ProxyConfig.model_validate({"nodes": "a:1", "username": "app", "password": "secret"})
    policy = policy_of(config)
    assert policy.account == Account(b"app", b"secret", own=True)
    assert "secret" not in repr(policy)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("given", "hosts", "expected", "warned"),
    [
        ({"password": "x"}, ["0.0.0.0"], ClientAuth.REQUIRED, False),
        ({"password": "x"}, ["127.0.0.1"], ClientAuth.PROXY_USER, False),
        ({"password": "x", "client_auth": "proxy-user"}, ["0.0.0.0"], ClientAuth.PROXY_USER, True),
        ({"password": "x", "client_auth": "proxy-user"}, ["::1"], ClientAuth.PROXY_USER, False),
        ({"password": "x", "client_auth": ":required"}, ["::1"], ClientAuth.REQUIRED, False),
        ({"client_auth": "proxy-user"}, ["0.0.0.0"], ClientAuth.PROXY_USER, False),
        ({}, ["0.0.0.0"], ClientAuth.PROXY_USER, False),
    ],
)
def test_client_auth__option_and_listeners__decide(
    given: dict[str, str], hosts: list[str], expected: ClientAuth, warned: bool
) -> None:
    config = ProxyConfig.model_validate({"nodes": "a:1", **given})
    with structlog.testing.capture_logs() as lines:
        assert policy_of(config, hosts).client_auth is expected
    assert [line["event"] for line in lines] == ["open_to_clients"] * warned


def test_the_limits_reach_the_server_and_the_core() -> None:
    given = {
        "nodes": "a:1",
        "max_clients": 7,
        "timeout": 8,
        "tcp_keepalive": 9,
        "client_query_buffer_limit": "2mb",
        "client_output_buffer_limit": "normal 1 2 3",
        "maxmemory_clients": "3mb",
        "allow_admin": True,
    }
    config = ProxyConfig.model_validate(given)
    assert limits_of(config) == Limits(7, 8, 9, 2 << 20, OutputLimits(normal=OutputLimit(1, 2, 3)), 3 << 20)
    assert limits_of(ProxyConfig.model_validate({"nodes": "a:1"})) == Limits()
    assert policy_of(config).allow_admin


def test_writes_are_durable_when_that_is_asked_for() -> None:
    assert policy_of(ProxyConfig.model_validate({"nodes": "a:1"})).durable is None
    given = {"nodes": "a:1", "write_safety": "durable", "durable_replicas": 2, "durable_timeout": 0.5}
    assert policy_of(ProxyConfig.model_validate(given)).durable == Durability(replicas=2, timeout=0.5)
    assert policy_of(ProxyConfig.model_validate({"nodes": "a:1", "write_safety": "durable"})).durable == Durability()


def test_where_files_are_few_fewer_clients_are_admitted(tmp_path: Path) -> None:
    port = free_port()
    command = f"ulimit -n 260; exec {sys.executable} -m rfproxy --nodes 127.0.0.1:1 --listen 127.0.0.1:{port}"
    with subprocess.Popen(["sh", "-c", f"{command} --state-dir {tmp_path}"], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: accepts(port), "the proxy")
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        assert clients[-1].recv(100) == b"-ERR max number of clients reached\r\n"
        for client in clients:
            client.close()
        process.terminate()


def test_worker__few_descriptors__budget_is_said_and_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "allow_descriptors", lambda wanted: 300)
    limits, policy = worker.affordable(Limits(clients=400), Policy())
    assert (limits.clients, policy.most_dedicated) == (33, 11)
    assert limits.clients_because == "the limit of open files, 300, leaves room for no more"
    monkeypatch.setattr(worker, "allow_descriptors", lambda wanted: wanted)
    assert worker.affordable(Limits(clients=400), Policy()) == (Limits(clients=400), Policy(most_dedicated=400))


def test_worker__listening_fails__ends_and_says_why(tmp_path: Path) -> None:
    """A worker of a reload listens when it knows the servers; that it cannot do so must not be lost with a task."""
    code = """
import os, socket, sys
from rfproxy.process import worker
from rfproxy.runtime import server
from rfproxy.settings import ProxyConfig

async def listen(self, sockets):
    if sockets:
        raise OSError(98, "Address already in use")

async def start(self, address):
    self.informed.set()

async def stop(self):
    pass

server.Server.listen = listen
worker.Membership.start, worker.Membership.stop = start, stop
options = {"zkservers": "127.0.0.1:1", "state_dir": sys.argv[1], "on_store_loss": "continue"}
config = ProxyConfig.model_validate(options)
sock = socket.create_server(("127.0.0.1", 0))
raise SystemExit(worker.main(config, [sock], os.getppid(), relieves=True))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == worker.FAILED
    (line,) = [json.loads(line) for line in done.stderr.splitlines() if "worker_failed" in line]
    assert "Address already in use" in line["error"]


def test_worker__manager_inside_dies__ends_and_says_why(tmp_path: Path) -> None:
    """The proxy would go on, and nothing would ever be failed over."""
    code = """
import os, socket, sys
from rfmanager.monitoring.prober import Prober
from rfproxy.process import worker
from rfproxy.settings import ProxyConfig

async def probe(self):
    raise RuntimeError("nobody thought of this")

Prober._probe = probe
config = ProxyConfig.model_validate({"nodes": "127.0.0.1:1", "state_dir": sys.argv[1], "log_format": "json"})
sock = socket.create_server(("127.0.0.1", 0))
raise SystemExit(worker.main(config, [sock], os.getppid()))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == worker.FAILED
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (died,) = [line for line in lines if line["event"].startswith("a task of the manager has died")]
    assert "RuntimeError: nobody thought of this" in died["exception"]
    (failed,) = [line["error"] for line in lines if line["event"] == "worker_failed"]
    assert failed.startswith("the manager inside has ended: the prober of 127.0.0.1:1 of the manager has died")
    assert "stopped" in [line["event"] for line in lines]


def test_each_worker_has_its_part_of_what_is_for_all() -> None:
    config = ProxyConfig.model_validate({"zkservers": "z:1", "workers": 3, "max_clients": 10, "hold_bytes": "9mb"})
    assert limits_of(config).clients == 4
    assert policy_of(config).hold_bytes == 3 << 20
    assert policy_of(config).workers == config.workers


@pytest.fixture
async def program(zookeeper_hosts: str, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Program]:
    """A running one with a single worker."""
    async with recorded(zookeeper_hosts, redis_server.node):
        program = Program(tmp_path, zkservers=zookeeper_hosts)
        program.start()
        yield program
        program.process.kill()


def test_a_worker_whose_supervisor_is_killed_leaves_as_after_sigterm(program: Program) -> None:
    (worker,) = program.process.workers
    with socket.create_connection(("127.0.0.1", program.port)) as client:
        client.sendall(b"INCR n\r\n")
        assert client.recv(100) == b":1\r\n"
        program.process.signal(signal.SIGKILL)
        assert client.recv(100) == b""
    wait_until(lambda: bool(program.events("stopped")), "its end")
    assert [event["worker"] for event in program.events("supervisor_gone")] == [worker]


def test_a_worker_that_is_told_to_retire_is_replaced_when_its_clients_have_left(program: Program) -> None:
    (worker,) = program.process.workers
    with program.connect() as client:
        assert worker_of(client) == worker
        os.kill(worker, RETIRE)
        program.wait_for("retiring")
        assert client.ping()
    program.wait_for("topology", 2)
    assert program.process.workers != [worker]


def test_what_a_terminal_sends_to_all_of_a_group_is_for_the_supervisor(program: Program) -> None:
    (worker,) = program.process.workers
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        os.kill(worker, number)
    with program.connect() as client:
        assert worker_of(client) == worker


def test_every_line_of_its_log_names_it(program: Program) -> None:
    (worker,) = program.process.workers
    lines = [event for event in program.events() if event["event"] not in ("supervising", "worker_started")]
    assert {event["worker"] for event in lines} == {worker}
    assert "connected to ZooKeeper" in {event["event"] for event in lines}


async def test_worker__machine_was_suspended__lease_has_run_out(
    zookeeper_hosts: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Only CLOCK_BOOTTIME counts the time of a suspension: with another clock no lease would have been missed."""
    async with recorded(zookeeper_hosts, redis_server.node):
        program, clock = Program(tmp_path, zkservers=zookeeper_hosts), Clock(tmp_path / "clock")
        clock.given_to(program.process)
        program.start()
        try:
            program.wait_for("lease_valid")
            clock.suspend(1000)
            program.wait_for("lease_valid", 2)
            with program.connect() as client:
                assert client.set("k", "v")
        finally:
            program.process.kill()
