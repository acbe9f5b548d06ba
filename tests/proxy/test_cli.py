"""The command `rfproxy`: wrong configurations are one line, and SIGTERM ends it in good order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deploy.processes import free_port, wait_until
from rfproxy.cli import limits_of, main, policy_of
from rfproxy.config import ProxyConfig
from rfproxy.durable import Durability
from rfproxy.greeting import Account
from rfproxy.limits import Limits, OutputLimit, OutputLimits
from tests.support.redis import RedisGroup


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "--nodes"),
        (["--nodes", "a:1", "--zk", "z:1"], "not both"),
        (["--nodes", "nonsense"], "--nodes"),
        (["--nodes", "a:1", "--reads", "everywhere"], "--reads"),
        (["-C", "/nonexistent.yml"], "/nonexistent.yml"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_it(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    line = capsys.readouterr().err
    assert line.startswith("rfproxy: ")
    assert named in line
    assert line.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "rfproxy", "--nodes", "127.0.0.1:1", "--listen", address],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on {address}" in done.stderr


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    code = (
        "import resource; from rfproxy.cli import allow_descriptors as allow;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300));"
        "print(allow(50), allow(200), allow(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["50", "200", "300", "300"]


def test_the_password_reaches_the_lanes_and_no_representation() -> None:
    config = ProxyConfig.model_validate({"nodes": "a:1", "username": "app", "password": "secret"})
    policy = policy_of(config)
    assert policy.account == Account(b"app", b"secret")
    assert "secret" not in repr(policy)
    assert "secret" not in repr(config)


def test_the_limits_reach_the_server_and_the_core() -> None:
    given = {
        "nodes": "a:1",
        "max_clients": 7,
        "timeout": 8,
        "tcp_keepalive": 9,
        "client_query_buffer_limit": "2mb",
        "client_output_buffer_limit": "normal 1 2 3",
        "allow_admin": True,
    }
    config = ProxyConfig.model_validate(given)
    assert limits_of(config) == Limits(7, 8, 9, 2 << 20, OutputLimits(normal=OutputLimit(1, 2, 3)))
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
        wait_until(lambda: _accepts(port), "the proxy")
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        assert clients[-1].recv(100) == b"-ERR max number of clients reached\r\n"
        for client in clients:
            client.close()
        process.terminate()


@pytest.fixture
def proxy(redis_group: RedisGroup, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running program, and its port."""
    port = free_port()
    nodes = ",".join(map(str, redis_group.nodes))
    command = [sys.executable, "-m", "rfproxy", "--nodes", nodes, "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*command, "--state-dir", str(tmp_path), "--log-format", "json"], stderr=subprocess.PIPE, text=True
    )
    yield process, port
    process.kill()
    process.communicate()


def test_sigterm_answers_what_is_in_flight_and_exits_0(
    proxy: tuple[subprocess.Popen[str], int], redis_group: RedisGroup
) -> None:
    process, port = proxy
    wait_until(lambda: _accepts(port), "the proxy")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"SET k v\r\n")
        assert client.recv(100) == b"+OK\r\n"
        redis_group.master.freeze()
        client.sendall(b"INCR n\r\n")
        with redis.Redis(port=port) as other:  # answered behind it, so the INCR has been read
            assert other.ping()
        os.kill(process.pid, signal.SIGTERM)
        redis_group.master.thaw()
        assert client.recv(100) == b":1\r\n"
        assert client.recv(100) == b""
    assert process.wait() == 0


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
