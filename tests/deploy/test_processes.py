"""Processes under control: what the tests and `make run` build upon."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import redis

from deploy.processes import PROGRAMS, Process, ProcessError, RedisGroup, RedisServer, free_port, wait_until
from rfprotocol.topology.topology import Node


def test_a_server_answers_as_soon_as_it_is_started(redis_server: RedisServer) -> None:
    assert redis_server.command("SET", "k", "v") is True
    assert redis_server.command("GET", "k") == "v"
    assert Node(redis_server.bind, redis_server.port) == redis_server.node


def test_group__two_programs__started_again_as_the_later_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = [tmp_path / name / "redis-server" for name in ("old", "new")]
    for program in programs:
        program.parent.mkdir()
        program.symlink_to(str(shutil.which("redis-server")))
    monkeypatch.setenv(PROGRAMS, f"{programs[0]}:{programs[1]}")
    with RedisGroup(3) as group:
        running = [server.info("server")["executable"] for server in group.servers]
        assert running == [str(programs[number]) for number in (0, 1, 1)]
        group.master.restart()
        assert group.master.info("server")["executable"] == str(programs[1])


def test_options_are_directives_of_the_configuration_file() -> None:
    with RedisServer(maxmemory="10mb", requirepass="secret") as server:
        assert server.command("CONFIG", "GET", "maxmemory") == {"maxmemory": str(10 * 1024 * 1024)}


def test_a_wrong_option_is_reported_in_the_servers_own_words() -> None:
    with pytest.raises(ProcessError, match="maxmemory"), RedisServer(maxmemory="ten"):
        pass


def test_a_killed_server_refuses_connections_and_comes_back_empty_on_the_same_port(redis_server: RedisServer) -> None:
    redis_server.command("SET", "k", "v")
    node = redis_server.node
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        redis_server.command("PING")
    redis_server.restart()
    assert redis_server.node == node
    assert redis_server.command("GET", "k") is None


def test_a_frozen_server_accepts_and_answers_only_after_it_is_thawed(redis_server: RedisServer) -> None:
    redis_server.freeze()
    with socket.create_connection((redis_server.bind, redis_server.port)) as connection:
        connection.sendall(b"PING\r\n")
        redis_server.thaw()
        assert connection.recv(64) == b"+PONG\r\n"


def test_a_stopped_server_has_exited_by_itself(redis_server: RedisServer) -> None:
    redis_server.stop()
    assert redis_server.process.exit_status == 0


def test_closing_kills_a_frozen_server_and_removes_its_folder() -> None:
    with RedisServer() as server:
        server.freeze()
    assert not server.alive
    assert not server.folder.exists()


def test_a_server_can_listen_on_ipv6() -> None:
    with RedisServer(bind="::1") as server:
        assert str(server.node) == f"[::1]:{server.port}"
        assert server.command("PING") is True


def test_a_group_has_one_master_whose_writes_reach_the_replicas(redis_group: RedisGroup) -> None:
    redis_group.master.command("SET", "k", "v")
    redis_group.wait_in_sync()
    assert [server.info()["role"] for server in redis_group.servers] == ["master", "slave", "slave"]
    assert [replica.command("GET", "k") for replica in redis_group.replicas] == ["v", "v"]
    assert redis_group[redis_group.nodes[2]] is redis_group.replicas[1]


def test_a_port_is_given_out_once() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_a_process_does_not_outlive_its_parent() -> None:
    script = textwrap.dedent(
        """
        import os, pathlib, signal
        from deploy.processes import PROGRAMS, Process, wait_until
        child = Process(["sleep", "600"])
        child.start()
        wait_until(lambda: pathlib.Path(f"/proc/{child.pid}/cmdline").read_bytes().startswith(b"sleep"), "exec")
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    # Reads until the child, which has the same stdout, has closed it.
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    pid = int(parent.stdout)
    wait_until(lambda: _is_over(Path(f"/proc/{pid}/stat")), "the end of the child")


def _is_over(status: Path) -> bool:
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo hello; exit 3"], tmp_path / "log")
    process.start()
    assert process.wait() == 3
    assert process.last_words() == "hello\n"
    assert not process.alive
