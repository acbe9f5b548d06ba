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
from rfproxy.cli import main
from tests.support.program import accepts
from tests.support.redis import RedisGroup


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "--nodes"),
        (["--nodes", "a:1", "--zk", "z:1"], "not both"),
        (["--nodes", "a:nonsense"], "--nodes"),
        (["--nodes", "a:1,db..example:6379"], "'db..example:6379' has no host name that can be looked up"),
        (["--nodes", "a:1", "--listen", "a" * 64 + ":6380"], "more than 63 characters"),
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


def test_options_can_be_tried_without_a_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "--nodes", "a:1", "--listen", "127.0.0.1:1", "--state-dir", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["check", "--nodes", "a:1", "--workers", "2"]) == 2
    assert capsys.readouterr().err == "rfproxy: --workers: the embedded mode has one, as only one manager may decide\n"


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
    wait_until(lambda: accepts(port), "the proxy")
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
