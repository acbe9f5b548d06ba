"""`rfmanager` as it is typed: exit status, one clear line when something is wrong, and each command on a real group."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.processes import Process, wait_until
from rfmanager import cli
from rfmanager.operator import operations
from rfprotocol.store.interface import Put
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.topology.topology import Node
from rfprotocol.topology.znode_paths import Paths
from tests.support.logged import logged
from tests.support.redis import RedisGroup, free_port
from tests.support.zookeeper import ZooKeeperServer

RFMANAGER = (sys.executable, "-m", "rfmanager")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RFMANAGER_")}


def run(*words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The program, to its end."""
    return subprocess.run(
        [*RFMANAGER, *words], env={**ENVIRONMENT, **(environ or {})}, capture_output=True, text=True, check=False
    )


NODE_MANAGER = (sys.executable, "-c", "import sys; from rfmanager import cli; sys.exit(cli.redis_node_manager())")


def node_manager(*words: str) -> subprocess.CompletedProcess[str]:
    """The program under its name in the gem, to its end."""
    return subprocess.run(
        [*NODE_MANAGER, *words], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60
    )


def start(*words: str) -> subprocess.Popen[str]:
    """The program, while it runs."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*RFMANAGER, *words], env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def said(process: Process, text: str) -> bool:
    assert process.alive, process.last_words()
    assert process.log is not None
    return text in process.log.read_text()


class Managers:
    """Daemons on one host, all over the same servers."""

    def __init__(self, hosts: str, group: RedisGroup, folder: Path) -> None:
        self.hosts, self.group, self._folder = hosts, group, folder
        self.processes: list[Process] = []

    def start(self, *options: str) -> Process:
        log = self._folder / f"manager{len(self.processes)}.log"
        nodes = ",".join(map(str, self.group.nodes))
        process = Process(
            [*RFMANAGER, "-n", nodes, "--zk", self.hosts, "--log-format", "json", *options], log, ENVIRONMENT
        )
        process.start()
        self.processes.append(process)
        return process

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(*words, "--zk", self.hosts)

    def status(self) -> dict[str, object]:
        result = self.command("status", "--json")
        plain: dict[str, object] = json.loads(result.stdout)
        assert plain["master"] is not None or result.returncode == 1, "there is no master"
        return plain

    def wait_until_serving(self) -> None:
        wait_until(lambda: self.status()["phase"] == "serving", "a master is published")


@pytest.fixture
def managers(zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path) -> Iterator[Managers]:
    managers = Managers(zookeeper_hosts, redis_group, tmp_path)
    yield managers
    for process in managers.processes:
        process.kill()


def test_a_group_is_run_looked_at_switched_paused_and_resumed(managers: Managers) -> None:
    first, second = (str(node) for node in managers.group.nodes[:2])
    managers.start()
    managers.wait_until_serving()

    status = managers.command("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout.splitlines()[0].split() == ["master", first]
    assert managers.command("history").stdout == "no change of master is on record\n"

    done = managers.command("failover", "--to", second)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["switchover", "done,", "epoch", "3"]
    assert managers.status()["master"] == second

    refused = managers.command("failover", "--to", second)
    assert refused.returncode == 1
    assert f"{second} is the master already" in refused.stdout

    assert "nobody is promoted" in managers.command("pause").stdout
    paused = managers.command("failover")
    assert (paused.returncode, paused.stdout) == (1, "")
    assert paused.stderr.startswith("rfmanager: the managers are paused by ")
    assert managers.command("resume").returncode == 0
    assert managers.command("failover").returncode == 0

    outcomes = [item["outcome"] for item in json.loads(managers.command("history", "--json").stdout)]
    assert outcomes == ["done", "refused", "done"]
    assert managers.command("history", "3").stdout.splitlines()[0].split() == ["switchover", "done,", "epoch", "3"]
    assert managers.command("history", "99").returncode == 1
    assert len(managers.command("history", "-n", "1").stdout.splitlines()) == 2


def test_daemon__one_of_its_tasks_dies__ends_with_1_and_says_why(zookeeper_hosts: str) -> None:
    """It would watch one server less, and look as if all were well."""
    code = """
import sys
from rfmanager import cli
from rfmanager.monitoring.prober import Prober

async def probe(self):
    raise RuntimeError("nobody thought of this")

Prober._probe = probe
sys.exit(cli.main(sys.argv[1:]))
"""
    words = ["--nodes", "127.0.0.1:1", "--zk", zookeeper_hosts, "--log-format", "json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    *lines, last = done.stderr.splitlines()
    died = [line for line in map(json.loads, lines) if line["event"].startswith("a task of the manager has died")]
    assert [line["task"] for line in died] == ["prober of 127.0.0.1:1"]
    assert "Traceback" in died[0]["exception"]
    assert last.startswith("rfmanager: the prober of 127.0.0.1:1 of the manager has died: RuntimeError(")


def test_status__all_servers_down__exits_1(managers: Managers) -> None:
    empty = managers.command("status")
    assert empty.returncode == 1
    assert empty.stdout.splitlines()[0].startswith("master")
    managers.start()
    managers.wait_until_serving()
    for server in managers.group.servers:
        server.kill()
    said = "refuses connections: is it running?"
    wait_until(lambda: said in managers.command("status").stdout, "the managers see it")
    assert managers.command("status").returncode == 1


def test_status__too_few_managers__is_said_before_and_after_the_master_dies(managers: Managers) -> None:
    left, gone = managers.start("--required-node-managers", "2"), managers.start("--required-node-managers", "2")
    managers.wait_until_serving()
    wait_until(lambda: managers.command("status").returncode == 0, "all is well")
    gone.stop()
    few = "1 of 2 required managers report: nobody is promoted"
    before = managers.command("status")  # whatever options it is called with
    assert before.returncode == cli.TROUBLE
    assert before.stdout.splitlines()[1].startswith(f"trouble          {few}")
    assert few in str(managers.status()["trouble"])
    wait_until(lambda: said(left, few), "the manager that is left says so")

    managers.group.master.kill()
    wait_until(lambda: managers.command("status").returncode == 1, "the manager sees it")
    assert few in managers.command("status").stdout
    assert left.log is not None
    warned = [event for event in logged(left.log) if event["level"] == "warning" and few in event["event"]]
    assert len(warned) <= 2  # once at the start, when it was alone, and once now

    managers.start("--required-node-managers", "2")
    promoted = str(managers.group.nodes[0])
    wait_until(lambda: managers.status()["master"] not in (None, promoted), "two managers promote")


def test_the_doctor_says_what_is_unsafe_and_the_line_that_puts_it_right(managers: Managers) -> None:
    servers = ",".join(map(str, managers.group.nodes))
    healthy = managers.command("doctor", "-n", servers)
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert healthy.stdout.startswith("warning: ")  # these servers keep nothing on disk
    assert "unsafe: " not in healthy.stdout

    managers.start()
    managers.wait_until_serving()
    managers.group.master.command("CONFIG", "SET", "min-replicas-to-write", 2)
    sick = managers.command("doctor", "--json")
    assert (sick.returncode, sick.stderr) == (1, "")
    worst = json.loads(sick.stdout)[0]
    assert (worst["severity"], worst["server"]) == ("unsafe", str(managers.group.nodes[0]))
    assert worst["set"] == "min-replicas-to-write 1"


def test_doctor__zookeeper_is_away__examines_the_servers_that_are_named(managers: Managers) -> None:
    hosts, servers = f"127.0.0.1:{free_port()}", ",".join(map(str, managers.group.nodes))
    managers.group.master.command("CONFIG", "SET", "notify-keyspace-events", "AKE")
    result = run("doctor", "-n", servers, "--zk", hosts, "--connect-timeout", "0.3")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith(f"unsafe: the group: ZooKeeper at {hosts} does not answer (waited 0.3 s)\n")
    assert 'notify-keyspace-events is "", on the master' in result.stdout
    assert run("doctor", "--zk", hosts, "--connect-timeout", "0.3").stderr.startswith("rfmanager: ZooKeeper at")


def test_a_server_under_two_names__is_said_by_status_and_doctor_and_the_log(managers: Managers) -> None:
    master, *replicas = managers.group.nodes
    names = ",".join(map(str, (master, *replicas, f"localhost:{replicas[0].port}")))
    process = managers.start("-n", names)
    managers.wait_until_serving()
    double = f"{replicas[0]} and localhost:{replicas[0].port} are one server"
    wait_until(lambda: double in managers.command("status").stdout, "status says so")
    assert managers.command("status").returncode == cli.TROUBLE
    wait_until(lambda: said(process, double), "the log says so")
    doctor = managers.command("doctor")
    assert doctor.returncode == 1
    assert f"localhost:{replicas[0].port}: is the same server as {replicas[0]}" in doctor.stdout


def test_failover__away_from_a_full_disk__is_refused_then_forced_and_said_everywhere(managers: Managers) -> None:
    first = managers.group.master
    first.command("CONFIG", "SET", "save", "3600 1")
    first.command("CONFIG", "SET", "replica-ignore-disk-write-errors", "yes")
    process = managers.start()
    managers.wait_until_serving()
    (first.folder / "dump.rdb").unlink(missing_ok=True)
    (first.folder / "dump.rdb").mkdir()  # a file cannot replace it
    first.command("BGSAVE")
    wait_until(lambda: "MISCONF" in managers.command("status").stdout, "the managers see it")
    status = managers.command("status")
    assert status.returncode == cli.TROUBLE
    assert "it could not write its RDB dump" in status.stdout
    wait_until(lambda: said(process, "it could not write its RDB dump to its disk"), "the log says so")
    doctor = managers.command("doctor")
    assert doctor.returncode == 1
    assert "could not write its RDB dump to its disk, and refuses all writes (MISCONF)" in doctor.stdout

    refused = managers.command("failover")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "repeat this with --force" in refused.stderr
    assert managers.status()["master"] == str(first.node)
    assert managers.command("failover", "--force").returncode == 0
    assert managers.status()["master"] != str(first.node)


PATHS = Paths()


async def test_a_gems_manager_that_leads__is_said_by_status_and_doctor_and_failover_is_refused(
    managers: Managers,
) -> None:
    master, *replicas = map(str, managers.group.nodes)
    gem = ZkStore(managers.hosts)
    async with operations.connected(gem, 10.0, managers.hosts):
        record = {"master": master, "slaves": replicas, "unavailable": []}
        wish = Put(PATHS.manual_failover, replicas[0].encode())
        await gem.commit(Put(PATHS.nodes, json.dumps(record).encode()), wish)
        await gem.enlist(f"{PATHS.gem_lock}/ex", b"")
        report = {"available": dict.fromkeys((master, *replicas), 0.001), "unavailable": []}
        await gem.announce(PATHS.manager("h1-12"), json.dumps(report).encode())

        status = managers.command("status")
        assert (status.returncode, status.stderr) == (cli.TROUBLE, "")
        [trouble] = [line for line in status.stdout.splitlines() if line.startswith("trouble ")]
        assert "node managers of Ruby's redis_failover (h1-12) lead: rfmanager does nothing" in trouble
        assert f"make {replicas[0]} the master: a matter of the node managers that lead" in status.stdout
        doctor = managers.command("doctor")
        assert doctor.returncode == 1
        assert "unsafe: the group: node managers of Ruby's redis_failover (h1-12) lead\n" in doctor.stdout
        began = time.monotonic()
        refused = managers.command("failover", "--timeout", "100")
        assert time.monotonic() - began < 50, "nothing is waited for"
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "ask them with RedisFailover::ManualFailover or client.manual_failover" in refused.stderr
        left = await gem.read(PATHS.manual_failover)
        assert left is not None
        assert (left.data, left.version) == (replicas[0].encode(), 0)
        assert "lead and do not know of pauses" in managers.command("pause").stderr
    stopped = managers.command("status")
    assert stopped.returncode == cli.TROUBLE
    assert "no rfmanager has adopted it" in stopped.stdout
    assert f"make {replicas[0]} the master: left over from before rfmanager led; the next" in stopped.stdout


async def test_failover__a_client_of_the_gem_left_an_empty_request__is_done(managers: Managers) -> None:
    managers.start()
    managers.wait_until_serving()
    before = managers.status()["master"]
    gem = ZkStore(managers.hosts)
    async with operations.connected(gem, 10.0, managers.hosts):
        await gem.commit(Put(PATHS.manual_failover, b""))
    status = managers.command("status")
    assert status.returncode == 0
    assert "empty: a client of Ruby's redis_failover did not fill it" in status.stdout
    done = managers.command("failover")
    assert (done.returncode, done.stderr) == (0, "")
    after = managers.status()
    assert (after["request_state"], after["phase"]) == (None, "serving")
    assert after["master"] != before


def test_two_managers_on_one_host_share_the_work_and_sigterm_hands_it_over_at_once(managers: Managers) -> None:
    first = managers.start()
    wait_until(lambda: said(first, "became the primary manager"), "the first manager leads")
    second = managers.start()
    wait_until(lambda: managers.status()["phase"] == "serving" and _count(managers) == 2, "both managers report")
    assert first.stop() == 0
    wait_until(lambda: said(second, "became the primary manager"), "the second manager leads")
    assert _count(managers) == 1
    assert second.stop() == 0


def _count(managers: Managers) -> int:
    reporting = managers.status()["managers"]
    assert isinstance(reporting, list)
    return len(reporting)


def test_the_daemon_waits_for_zookeeper_says_so_and_can_be_stopped_meanwhile(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    managers = Managers(f"127.0.0.1:{free_port()}", redis_group, tmp_path)
    process = managers.start()
    wait_until(lambda: said(process, "waiting for ZooKeeper"), "it says what it waits for")
    assert process.stop() == 0


def test_daemon__sighup__reads_the_password_file_again(managers: Managers, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("first-secret")
    for server in managers.group.servers:
        server.command("ACL", "SETUSER", "default", "resetpass", ">first-secret", ">second-secret")
    manager = managers.start("--password-file", str(path))
    managers.wait_until_serving()
    path.write_text("second-secret")
    manager.signal(signal.SIGHUP)
    wait_until(lambda: said(manager, "the current one"), "servers accept it")
    assert said(manager, "read the password file again")
    path.write_text("")
    manager.signal(signal.SIGHUP)
    wait_until(lambda: said(manager, "the password file cannot be read"), "it says what is wrong")
    assert not said(manager, "-secret")


def test_an_interrupted_failover_takes_its_request_back(managers: Managers) -> None:
    manager = managers.start("--session-timeout", "30")
    managers.wait_until_serving()
    manager.freeze()  # nobody answers the request, and nobody knows that for the time of its session
    with start("failover", "--zk", managers.hosts) as command:
        wait_until(lambda: managers.status()["request"] == "ANY_SLAVE", "the request is made")
        command.send_signal(signal.SIGINT)
        _, stderr = command.communicate()
    assert (command.returncode, stderr) == (1, "rfmanager: interrupted: the request is withdrawn\n")
    assert managers.status()["request"] is None


def test_a_zookeeper_that_is_away_is_one_line_and_status_1() -> None:
    hosts = f"127.0.0.1:{free_port()}"
    result = run("status", "--zk", hosts, "--connect-timeout", "0.3")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"rfmanager: ZooKeeper at {hosts} does not answer (waited 0.3 s)\n"


def test_a_zookeeper_with_connections_enough_is_named_and_the_manager_gets_in_at_last(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    limit = "its maxClientCnxns (60 by default)"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ZooKeeperServer(tmp_path / "zookeeper", max_connections=1))
        managers = Managers(server.hosts, redis_group, tmp_path)
        first = managers.start()
        stack.callback(first.kill)
        wait_until(lambda: said(first, "became the primary manager"), "the first manager leads")
        status = run("status", "--zk", server.hosts, "--connect-timeout", "1.5")
        assert (status.returncode, status.stdout) == (1, "")
        assert status.stderr.startswith(f"rfmanager: ZooKeeper at {server.hosts} accepts and closes ")
        assert limit in status.stderr
        second = managers.start()
        stack.callback(second.kill)
        wait_until(
            lambda: said(second, "waiting for ZooKeeper, which accepts and closes "), "it says what it waits for"
        )
        assert said(second, limit)
        first.kill()
        wait_until(lambda: said(second, "became the primary manager"), "the second manager leads")


def test_a_reader_that_has_seen_enough_is_no_error(managers: Managers) -> None:
    with start("status", "--zk", managers.hosts) as command:
        assert command.stdout
        assert command.stderr
        command.stdout.close()
        assert command.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["failover", "--zk", "h:1", "--to", "non sense"], "'non sense' is not host:port"),
        (["adopt", "--zk", "h:1", "::1"], "'::1' is not host:port (an IPv6 address is written [::1]:6379)"),
        (["--zk", "h:1", "-n", "::1"], "'::1' is not host:port (an IPv6 address is written [::1]:6379)"),
        (
            ["--zk", "h:1", "-n", "a", "-E", "x"],
            "--environment: names a part of a file, which has to be given too (-C)",
        ),
        (["--zk", "h:1", "-n", "a", "--max-f", "4"], "--max-f: no such option (did you mean --max-failures?)"),
        (["--zk", "h:1", "-n", "a", "--znode", "/x"], "--znode: no such option (did you mean --znode-path?)"),
        (
            ["--zk", "h:1", "-n", "a", "--max"],
            "--max: no such option (did you mean --max-failures or --max-staleness?)",
        ),
        (["--zk", "h:1", "-n", "a", "rubbish"], "rubbish"),
        (["failover", "--zk", "h:1", "--timeout", "0"], "'0' is not a time in seconds"),
        (["failover", "--zk", "h:1", "--timeout", "soon"], "'soon' is not a time in seconds"),
        (["history", "--zk", "h:1", "-n", "0"], "'0' is not a count"),
        (["status"], "zkservers is missing"),
        (["status"], "has it, or else --state-dir"),
        (["status", "--zk", "h:1", "--state-dir", "/s"], "--zk and --state-dir: not both"),
        (["-n", "h:1", "--state-dir", "/s"], "zkservers is missing"),
        (["status", "--zk", "h:1", "--max-failures", "2"], "--max-failures: not expected here"),
        (["--zk", "h:1"], "nodes is missing"),
        (["restart"], "restart"),
        (["--zk", "h:1", "-n", "a:1,db..example:6379"], "'db..example:6379' has no host name that can be looked up"),
        (["failover", "--zk", "h:1", "--to", "a" * 64 + ":6379"], "more than 63 characters"),
    ],
)
def test_wrong_words_are_one_line_and_status_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ) - set(ENVIRONMENT):
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    stderr = capsys.readouterr().err
    assert complaint in stderr
    assert stderr.count("\n") == 1


def test_check__says_whether_the_daemon_would_take_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    good = ["check", "--zk", "z:1", "-n", "a:1,b:2", "--required-node-managers", "2"]
    assert cli.main(good) == 0
    assert capsys.readouterr().out == ""
    for wrong, complaint in (
        (["check", "--zk", "z:1"], "nodes is missing"),
        ([*good, "--max-staleness", "0.1"], "--max-staleness: at least 0.5 s"),
        ([*good, "--max-failure", "2"], "no such option (did you mean --max-failures?)"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(wrong)
        assert ended.value.code == 2
        assert complaint in capsys.readouterr().err


def test_check__a_file_of_the_gem__says_what_is_passed_over_and_what_the_times_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yml"
    file.write_text(":nodes: [redis1]\n:zkservers: ['zk1:2181']\n:max_failures: 0\n:logfile: /var/log/x\n")
    assert cli.main(["check", "-C", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    unknown, zero, times = err.splitlines()
    assert unknown == f"rfmanager: warning: {file}: ignored: logfile: no such option"
    assert zero == f"rfmanager: warning: {file}: max_failures: 0 means 1, as with redis_failover: write 1"
    assert times.startswith("rfmanager: warning: the times of redis_failover are kept for max_failures 1: ")
    assert cli.main(["check", "-C", str(file), "--probe-timeout", "1", "--reconnect-interval", "1"]) == 0
    assert capsys.readouterr().err.splitlines()[2].endswith(" write unreachable_timeout: 0.8")
    file.write_text("nodes: [redis1]\nzkservers: ['zk1:2181']\nlogfile: /var/log/x\n")
    with pytest.raises(SystemExit):
        cli.main(["check", "-C", str(file)])
    assert "logfile: no such option" in capsys.readouterr().err


def gems_file(folder: Path, group: RedisGroup, hosts: str, *lines: str) -> str:
    servers, _, chroot = hosts.partition("/")
    nodes = [f"  - {node}" for node in group.nodes]
    zookeeper = [":zkservers:", *(f"  - {server}" for server in servers.split(",")), f":chroot: /{chroot}"]
    (folder / "config.yml").write_text("\n".join([":nodes:", *nodes, *zookeeper, *lines, ""]))
    return str(folder / "config.yml")


def warnings(process: Process, text: str) -> list[str]:
    assert process.log is not None
    return [e["event"] for e in logged(process.log) if e["level"] == "warning" and text in e["event"]]


@pytest.mark.parametrize("program", [RFMANAGER, NODE_MANAGER], ids=["rfmanager", "redis_node_manager"])
def test_daemon__a_file_of_the_gem_and_a_master_that_sleeps_for_3_s__no_failover(
    zookeeper_hosts: str, tmp_path: Path, program: tuple[str, ...]
) -> None:
    with RedisGroup(enable_debug_command="local") as group, contextlib.ExitStack() as stack:
        file = gems_file(tmp_path, group, zookeeper_hosts, ":max_failures: 3", ":logfile: /var/log/x")
        managers = Managers(zookeeper_hosts, group, tmp_path)
        environment = {**ENVIRONMENT, "RFMANAGER_LOG_FORMAT": "json"}
        process = Process([*program, "-C", file], tmp_path / "log", environment)
        stack.callback(process.kill)
        process.start()
        managers.wait_until_serving()
        before = managers.status()
        group.master.command("DEBUG", "SLEEP", 3)
        wait_until(lambda: managers.command("status").returncode == 0, "all is well")
        after = managers.status()
        assert [after[name] for name in ("epoch", "master")] == [before[name] for name in ("epoch", "master")]
        assert managers.command("history").stdout == "no change of master is on record\n"
        assert len(warnings(process, "the times of redis_failover are kept")) == 1
        assert len(warnings(process, "ignored: logfile: no such option")) == 1
        assert process.stop() == 0


def test_redis_node_manager__the_gems_flags__runs_the_daemon_with_the_gems_patience(
    zookeeper_hosts: str, redis_group: RedisGroup, tmp_path: Path
) -> None:
    servers, _, chroot = zookeeper_hosts.partition("/")
    words = ["start", f"-n{','.join(map(str, redis_group.nodes))}", f"--zk={servers}", "--with", f"/{chroot}"]
    log = tmp_path / "log"
    environment = {**ENVIRONMENT, "RFMANAGER_LOG_FORMAT": "json", "RFMANAGER_UNREACHABLE_TIMEOUT": "3"}
    process = Process([*NODE_MANAGER, *words, "--max-f", "2", "-E", "production"], log, environment)
    process.start()
    managers = Managers(zookeeper_hosts, redis_group, tmp_path)
    try:
        managers.wait_until_serving()
        assert managers.status()["master"] == str(redis_group.master.node)
        assert len(warnings(process, "ignored: 1 word that belongs to no flag")) == 1
        assert len(warnings(process, "ignored without --config: --environment")) == 1
        [times] = warnings(process, "the times of redis_failover")
        assert "for 2 s, is silent for 14 s, or its host is for 3 s." in times
    finally:
        assert process.stop() == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "nodes is missing: give --nodes, RFMANAGER_NODES or a file (-C) that has it"),
        (["-n", "redis1"], "zkservers is missing: give --zkservers, RFMANAGER_ZKSERVERS or a file (-C) that has it"),
        (["-n", "redis1", "-z", "zk1"], "--zkservers: 'zk1' has no port: write zk1:2181, if that is where ZooKeeper"),
        (["--verbose"], "option --verbose not recognized (try --help)"),
        (["--node", "redis1"], "option --node not a unique prefix (try --help)"),
        (["-C", "/absent.yml"], "/absent.yml: cannot be read: No such file or directory"),
        (["-n", "redis1", "-z", "zk1:2181", "--max-f", "few"], "--max-failures: should be a valid integer"),
    ],
)
def test_redis_node_manager__wrong_words__one_line_and_status_2(words: list[str], complaint: str) -> None:
    result = node_manager(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"redis_node_manager: {complaint}")
    assert result.stderr.count("\n") == 1


def test_redis_node_manager__help__says_what_it_runs_and_ends_with_0() -> None:
    result = node_manager("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: redis_node_manager [OPTIONS]\n\nRuns rfmanager")


def test_redis_node_manager__the_package__installs_it_as_a_command() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["redis_node_manager"].partition(":")
    assert (module, getattr(cli, function)) == (cli.__name__, cli.redis_node_manager)


def test_a_server_without_a_port__is_that_of_redis_also_for_commands() -> None:
    options = cli._parser()
    for words in (["failover", "--to", "redis1"], ["adopt", "redis1"], ["forget", "redis1"]):
        arguments = vars(options.parse([*words, "--zk", "h:1"], {}).arguments)
        assert arguments.get("to", arguments.get("server")) == Node("redis1", 6379)


class _Another(socketserver.BaseRequestHandler):
    """A program that is no Redis server."""

    def handle(self) -> None:
        self.request.recv(1)
        self.request.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


def _all_in(words: Mapping[str, str], text: str) -> bool:
    return all(sentence in text for sentence in words.values())


def test_a_port_of_another_program_or_name_is_said_by_status_doctor_and_log_alike(
    zookeeper_hosts: str, tmp_path: Path
) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Another) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_address[1]
        words = {
            f"127.0.0.1:{port}": "is no Redis server: what listens there answers in another protocol",
            "nowhere.invalid:6379": "name cannot be resolved: check its spelling and the name service",
            f"127.0.0.1:{free_port()}": "refuses connections: is it running?",
        }
        log = tmp_path / "log"
        process = Process([*RFMANAGER, "-n", ",".join(words), "--zk", zookeeper_hosts], log, ENVIRONMENT)
        process.start()
        try:
            wait_until(lambda: _all_in(words, run("status", "--zk", zookeeper_hosts).stdout), "status has all")
            wait_until(lambda: _all_in(words, log.read_text()), "the log has all")
            doctor = run("doctor", "--zk", zookeeper_hosts, "-n", ",".join(words))
        finally:
            process.stop()
            other.shutdown()
    assert doctor.returncode == 1
    for server, sentence in words.items():
        line = next(line for line in doctor.stdout.splitlines() if line.startswith(f"unsafe: {server}: cannot be"))
        assert line.endswith(sentence)


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], *([command, "--help"] for command in cli.COMMANDS)):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0
        assert "--zk" in capsys.readouterr().out
