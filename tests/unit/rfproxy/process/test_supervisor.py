"""The program as an operator sees it: workers that end are replaced, and a reload disturbs nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from deploy.processes import wait_until
from deploy.site import HOST
from rfproxy.process.supervisor import Heritage
from tests.support.program import Program, recorded, worker_of
from tests.support.redis import RedisServer
from tests.support.zookeeper import ZooKeeperServer

Start = Callable[..., Program]


@pytest.fixture
async def store(zookeeper_hosts: str, redis_server: RedisServer) -> AsyncIterator[str]:
    """Where a proxy finds its only server."""
    async with recorded(zookeeper_hosts, redis_server.node):
        yield zookeeper_hosts


@pytest.fixture
def start(store: str, tmp_path: Path) -> Iterator[Start]:
    """Starts the program with these options."""
    programs: list[Program] = []

    def start(**options: str | int | float) -> Program:
        program = Program(tmp_path, zkservers=store, **options)
        programs.append(program)
        program.start()
        return program

    yield start
    for program in programs:
        program.process.kill()


def closed(client: redis.Redis) -> bool:
    """Whether the proxy has hung up on an idle client, which then sees the end of the stream."""
    assert client.connection is not None
    try:
        return bool(client.connection.can_read(0))
    except redis.ConnectionError:
        return True


def test_a_killed_worker_is_replaced_and_the_clients_of_its_siblings_notice_nothing(start: Start) -> None:
    program = start(workers=2)
    clients = program.connect_to_each()
    victim, sibling = clients
    os.kill(victim, signal.SIGKILL)
    event = program.wait_for("worker_ended")
    assert (event["worker"], event["status"], event["replaced_in"]) == (victim, "SIGKILL", 0)
    program.wait_for("topology", 3)
    assert worker_of(clients[sibling]) == sibling
    assert victim not in program.connect_to_each()


def test_who_comes_while_there_is_no_worker_waits_and_is_served_by_the_next_one(start: Start) -> None:
    program = start()
    (victim,) = program.process.workers
    program.process.signal(signal.SIGSTOP)  # the supervisor only, so that nobody is replaced yet
    os.kill(victim, signal.SIGKILL)
    with socket.create_connection((HOST, program.port)) as client:
        client.sendall(b"SET k v\r\n")
        program.process.signal(signal.SIGCONT)
        assert client.recv(100) == b"+OK\r\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_a_reload_brings_the_new_options_and_keeps_the_process(start: Start, number: signal.Signals) -> None:
    program = start(reads="replica")
    with program.connect() as client:
        assert client.info("proxy")["proxy_reads"] == "replica"
    program.rewrite(reads="master")
    program.process.signal(number)
    program.wait_for("worker_left")
    with program.connect() as client:
        assert client.info("proxy")["proxy_reads"] == "master"
    assert len(program.events("supervising")) == 2
    assert len(program.process.workers) == 1


def test_options_that_are_wrong_are_one_line_and_everything_stays_as_it_was(start: Start) -> None:
    program = start()
    workers = program.process.workers
    with program.connect() as client:
        program.rewrite(max_clients="many")
        program.process.signal(signal.SIGHUP)
        event = program.wait_for("reload_refused")
        assert event["error"].startswith(f"rfproxy: {program.file}: max_clients")
        assert program.process.workers == workers
        assert client.ping()
    assert program.log.read_text().count("max_clients") == 1


def asked(port: int) -> bytes:
    """What somebody new hears who asks."""
    with socket.create_connection((HOST, port)) as client:
        client.sendall(b"PING\r\n")
        return client.recv(100)


@pytest.mark.parametrize("workers", [1, 3])
def test_new_workers_that_do_not_find_the_servers_let_nobody_in(start: Start, workers: int) -> None:
    program = start()
    program.rewrite(znode_path="/mistyped", workers=workers)
    program.process.signal(signal.SIGHUP)
    program.wait_for("topology_unusable", workers)
    assert {asked(program.port) for _ in range(20)} == {b"+PONG\r\n"}
    program.rewrite(znode_path="/redis_failover", workers=1)
    program.reload()
    assert asked(program.port) == b"+PONG\r\n"


def test_new_workers_that_may_not_write_yet_let_nobody_in(tmp_path: Path, redis_server: RedisServer) -> None:
    with ZooKeeperServer(tmp_path / "zookeeper") as zookeeper:
        asyncio.run(_write_with_a_frozen_store(zookeeper, redis_server, tmp_path))


async def _write_with_a_frozen_store(zookeeper: ZooKeeperServer, server: RedisServer, folder: Path) -> None:
    async with recorded(zookeeper.hosts, server.node):
        program = Program(folder, zkservers=zookeeper.hosts, session_timeout=30)
        program.start()
        zookeeper.process.freeze()
        program.process.signal(signal.SIGHUP)
        program.wait_for("topology_from_cache")
        assert asked(program.port) == b"+PONG\r\n"
        assert program.log.read_text().count('"listening"') == 1
        assert not program.events("retiring")
        zookeeper.process.thaw()
        program.wait_for("worker_left")
        program.process.kill()


def test_after_a_reload_a_client_is_parted_with_when_it_is_silent_and_not_before(start: Start) -> None:
    program = start()
    (former,) = program.process.workers
    busy, silent = program.connect(), program.connect()
    assert worker_of(busy) == worker_of(silent) == former
    with socket.create_connection((HOST, program.port)) as undecided:
        undecided.sendall(b"WATCH k\r\n")
        assert undecided.recv(100) == b"+OK\r\n"
        program.process.signal(signal.SIGHUP)
        program.wait_for("retiring")
        wait_until(lambda: busy.ping() and closed(silent), "the end of a silent client")
        assert worker_of(busy) == former
        undecided.sendall(b"MULTI\r\n")
        assert undecided.recv(100) == b"+OK\r\n"
        undecided.sendall(b"EXEC\r\n")
        assert undecided.recv(100) == b"*0\r\n"
    with program.connect() as newcomer:
        assert worker_of(newcomer) != former
    busy.close()
    assert program.wait_for("worker_left")["worker"] == former


def test_who_is_never_silent_is_parted_with_in_the_end(start: Start) -> None:
    program = start(retire_timeout=0.2)
    (former,) = program.process.workers
    with program.connect() as client:
        client.blpop(["nothing"], 0.01)
        program.process.signal(signal.SIGHUP)
        with pytest.raises(redis.ConnectionError):
            client.blpop(["nothing"], 0)
    assert program.wait_for("worker_left")["worker"] == former


def test_a_reload_changes_how_many_workers_there_are(start: Start) -> None:
    program = start()
    program.rewrite(workers=3)
    program.reload()
    assert len(program.connect_to_each()) == 3
    program.rewrite(workers=2)
    program.reload()
    assert len(program.connect_to_each()) == 2


def test_another_address_needs_a_restart_and_that_is_said(start: Start) -> None:
    program = start()
    program.rewrite(listen=f"{HOST}:1")
    program.reload()
    assert program.wait_for("listen_kept")["listen"] == f"{HOST}:{program.port}"
    with program.connect() as client:
        assert client.ping()


def test_sigterm_ends_all_workers_and_the_status_is_0(start: Start) -> None:
    program = start(workers=2)
    clients = program.connect_to_each()
    program.process.signal(signal.SIGTERM)
    assert program.process.wait() == 0
    assert len(program.events("stopped")) == 2
    assert not program.events("worker_ended")
    assert all(map(closed, clients.values()))


def test_a_program_that_systemd_gave_a_socket_listens_on_that(store: str, tmp_path: Path) -> None:
    program = Program(tmp_path, zkservers=store, workers=2)
    with socket.create_server((HOST, 0)) as given:
        program.port = given.getsockname()[1]
        code = "import os; os.dup2(0, 3); os.environ['LISTEN_PID'] = str(os.getpid()); os.execv({0!r}, {1!r})"
        argv = program.process.argv
        child = subprocess.Popen(
            [sys.executable, "-c", code.format(argv[0], argv)],
            stdin=given.fileno(),
            env=os.environ | {"LISTEN_FDS": "1"},
            stderr=subprocess.DEVNULL,
        )
    with program.connect() as client:
        assert client.ping()
    child.terminate()
    assert child.wait() == 0


def test_a_worker_that_finds_its_options_wrong_at_the_start_ends_the_program_with_status_2() -> None:
    assert supervise("supervisor.worker.main = lambda *_, **__: 2").returncode == 2


def test_a_worker_that_cannot_be_started_is_tried_again() -> None:
    done = supervise(
        """
supervisor.worker.main = lambda *_, **__: 2
def fork(real=supervisor.os.fork):
    supervisor.os.fork = real
    raise OSError(11, "no more processes")
supervisor.os.fork = fork
"""
    )
    assert "no more processes" in done.stdout
    assert done.returncode == 2


def supervise(otherwise: str) -> subprocess.CompletedProcess[str]:
    """A supervisor for which something is otherwise."""
    code = f"""
from rfproxy.process import supervisor
from rfproxy.settings import ProxyConfig
{otherwise}
config = ProxyConfig.model_validate({{"nodes": "a:1", "listen": "127.0.0.1:0"}})
raise SystemExit(supervisor.Supervisor(config, {{}}).run())
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_what_is_left_to_the_next_program_is_taken_once() -> None:
    environ = {"REDIS_FAILOVER_PROXY_HERITAGE": '{"listen": "a:1", "sockets": [3], "workers": [7], "embedded": false}'}
    assert Heritage.take(environ) == Heritage("a:1", [3], [7], embedded=False)
    assert Heritage.take(environ) is None


def test_heritage__of_a_later_version__is_understood() -> None:
    left = '{"listen": "a:1", "sockets": [3], "workers": [7], "embedded": false, "siblings": "/d", "novelty": 1}'
    environ = {"REDIS_FAILOVER_PROXY_HERITAGE": left}
    assert Heritage.take(environ) == Heritage("a:1", [3], [7], embedded=False, siblings="/d")


def set_password(server: RedisServer, password: str) -> None:
    """The only one, and everybody has to come anew."""
    server.command("CONFIG", "SET", "requirepass", password)
    server.options["requirepass"] = password
    server.command("CLIENT", "KILL", "TYPE", "normal")


def test_password_file__proxy_reloaded_before_the_server_knows_the_new_one__nobody_notices(
    start: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first-secret")
    set_password(redis_server, "first-secret")
    program = start(password_file=str(file))
    file.write_text("second-secret")
    for _ in range(2):  # what is left to the next program is left to the one after that, too
        program.reload()
        with program.connect() as client:
            assert client.incr("k")
    set_password(redis_server, "second-secret")
    with program.connect() as client:
        assert client.incr("k") == 3
        assert client.info("proxy")["proxy_account_problems"] == ""
    assert program.events("account_refused") == []
    assert "-secret" not in program.log.read_text()
    (worker,) = program.process.workers
    for pid in (program.process.pid, worker):
        assert b"-secret" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_password_file__changed_for_a_worker_that_retires__it_reads_the_file_again(
    start: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first-secret")
    set_password(redis_server, "first-secret")
    program = start(password_file=str(file))
    (former,) = program.process.workers
    with program.connect() as busy:
        busy.set("k", "v")
        file.write_text("second-secret")
        program.process.signal(signal.SIGHUP)
        program.wait_for("retiring")
        set_password(redis_server, "second-secret")
        for _ in range(20):
            assert busy.get("k") == "v"
            busy.set("k", "v")
        assert worker_of(busy) == former
    program.wait_for("worker_left")


def test_in_the_embedded_mode_the_former_worker_is_gone_before_the_next_one_decides(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    program = Program(tmp_path, nodes=str(redis_server.node))
    program.start()
    program.process.signal(signal.SIGHUP)
    program.wait_for("topology", 2)
    program.process.kill()
    names = [event["event"] for event in program.events()]
    assert [name for name in names if name.startswith("worker")] == ["worker_started", "worker_left", "worker_started"]


def test_supervisor__trial_run_takes_long__signals_are_heard() -> None:
    """Workers that end meanwhile are replaced, and SIGTERM ends everything, the trial run too."""
    code = """
import signal, sys
from rfproxy.process import supervisor
from rfproxy.settings import ProxyConfig

def work(*_, **__):
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.pause()

supervisor.worker.main = work
supervisor._command = lambda *_: [sys.executable, "-c", "import signal; print('trial', flush=True); signal.pause()"]
config = ProxyConfig.model_validate({"nodes": "a:1", "listen": "127.0.0.1:0"})
raise SystemExit(supervisor.Supervisor(config, {}).run())
"""
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        heard = iter(program.stdout)
        first = next(line for line in heard if "worker_started" in line)
        program.send_signal(signal.SIGHUP)
        next(line for line in heard if line.startswith("trial"))
        os.kill(int(first.split("worker=")[1]), signal.SIGKILL)
        next(line for line in heard if "worker_started" in line)
        program.send_signal(signal.SIGTERM)
        assert "worker_left" in "".join(heard)
    assert program.returncode == 0
