"""Server processes on this host, started and stopped on purpose: for `make run`, `make demo` and the tests.

Every process dies with the thread that started it (PR_SET_PDEATHSIG, by way of util-linux' setpriv), so that
nothing is left behind when a test run is killed: start them in the main thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rfprotocol.topology.topology import Node

# Below the range that Linux takes the ports of outgoing connections from: a server that was killed finds its
# port free when it is started again, and no client that keeps trying meanwhile connects to itself.
_PORTS = range(10_000, 32_000)
_given_out: set[int] = set()

PROGRAMS = "RF_REDIS_SERVERS"
"""The environment variable with the server programs to run instead of the system's, parted as in PATH. In a group they
are those of its servers in turn, the last one of all others, and of each that is started again: a group that is in the
middle of a rolling upgrade."""


class ProcessError(Exception):
    """A process did not start, ended too early or never became ready; says what it last wrote."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on and that this process has not been given before."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in random.sample(_PORTS, 1000):
        if port in _given_out:
            continue
        with socket.socket(family, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            _given_out.add(port)
            return port
    raise ProcessError(f"no free port on {host}")


def wait_until(ready: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    """Poll until `ready`; raises ProcessError when that takes longer than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise ProcessError(f"{what}: not within {timeout:g} s")
        time.sleep(0.01)


class Process:
    """One child process, with the workers that it may start.

    Its output goes to the file `log`, or where the parent's goes if that is None.
    """

    def __init__(self, argv: Sequence[str | Path], log: Path | None = None, env: Mapping[str, str] | None = None):
        self.argv = [str(word) for word in argv]
        self.log = log
        self.env = env
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in the terminal reaches the parent only."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", *self.argv]
        if self.log is None:
            self._child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, env=self.env)
            return
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
            )

    @property
    def pid(self) -> int:
        """Of the running or last process."""
        if self._child is None:
            raise ProcessError(f"{self.argv[0]} was never started")
        return self._child.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return None if self._child is None else self._child.poll()

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return self._child is not None and self._child.poll() is None

    @property
    def workers(self) -> list[int]:
        """The processes that it has started and that still run, the oldest first."""
        if not self.alive:
            return []
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def _signal_all(self, number: signal.Signals) -> None:
        if self.alive:
            os.killpg(self.pid, number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self._child is not None:
            self._child.send_signal(number)

    def freeze(self) -> None:
        """Stop it in its tracks, with its workers: connections stay open, nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to it and its workers, also while frozen, and wait until they are gone."""
        workers = self.workers
        self._signal_all(signal.SIGKILL)
        self.wait()
        for worker in workers:
            wait_until(partial(_has_ended, worker), f"the end of process {worker}")

    def stop(self, timeout: float = 15.0) -> int:
        """SIGTERM, SIGKILL after `timeout` seconds; returns the exit status."""
        self.thaw()
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; returns the exit status. Raises subprocess.TimeoutExpired."""
        return 0 if self._child is None else self._child.wait(timeout)

    def last_words(self) -> str:
        """The end of its output."""
        if self.log is None or not self.log.exists():
            return ""
        return self.log.read_text(errors="replace")[-2000:]


def _has_ended(pid: int) -> bool:
    """Also of one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def _removal(owner: object, folder: Path) -> Callable[[], object]:
    """What removes the folder; called by itself when the owner was forgotten or never started."""
    return weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)


def server_programs() -> list[str]:
    """The server programs to run: the system's redis-server, unless the environment says otherwise."""
    return os.environ.get(PROGRAMS, "redis-server").split(os.pathsep)


class RedisServer:
    """A redis-server with a folder of its own, without persistence unless `options` say otherwise.

    Options are directives of redis.conf with underscores, such as `maxmemory="10mb"` or
    `replicaof="127.0.0.1 6379"`. The process is started by `start` or by entering the context; `restart` starts it
    again on the same port with the same options, empty if nothing was persisted.
    """

    def __init__(
        self,
        *,
        bind: str = "127.0.0.1",
        port: int | None = None,
        folder: Path | None = None,
        program: str | Path | None = None,
        **options: str | int,
    ) -> None:
        """`program`: the server itself, such as another version, or Valkey's; default: the first of those to run."""
        self.bind = bind
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rf-redis-"))
        self.folder.mkdir(exist_ok=True)
        self._remove_folder = _removal(self, self.folder)
        self.options: dict[str, str | int] = {
            "save": '""',
            "appendonly": "no",
            "repl_backlog_size": "1mb",
            "repl_diskless_sync": "yes",
            "repl_diskless_sync_delay": 0,
            "repl_ping_replica_period": 1,
            **options,
        }
        self.front: Node | None = None  # what stands before it and is reached instead, if anything
        self._fixed_port = port
        self.port = port or free_port(bind)
        self._program = str(program or server_programs()[0])
        self.process = Process([self._program, self.folder / "redis.conf"], self.folder / "redis.log")

    @property
    def node(self) -> Node:
        """Its address for all others."""
        return self.front or Node(self.bind, self.port)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs, frozen or not."""
        return self.process.alive

    def start(self) -> None:
        """Start it and wait until it answers. Raises ProcessError with what the server said."""
        for attempt in range(5):
            self._write_configuration()
            self.process.start()
            wait_until(lambda: self._answers() or not self.process.alive, f"redis-server on {self.node}")
            if self.process.alive:
                return
            # Someone else may have taken the port meanwhile.
            if self._fixed_port or attempt == 4 or "in use" not in self.process.last_words():
                break
            self.port = free_port(self.bind)
        raise ProcessError(f"redis-server on {self.node} ended: {self.process.last_words()}")

    def upgrade(self, program: str | Path) -> None:
        """Another program, from the next start on."""
        self.process.argv[self.process.argv.index(self._program)] = str(program)
        self._program = str(program)

    def restart(self) -> None:
        """Start it again where it was; a running one is killed first."""
        self.process.kill()
        self._fixed_port = self.port
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM: the server's own shutdown, which waits for its replicas."""
        self.process.stop()

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        self.process.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.thaw()

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.process.kill()
        self._remove_folder()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def client(self, **settings: Any) -> redis.Redis:
        """A client of this server, to be closed by the caller; answers are text, nothing is tried twice."""
        password = self.options.get("requirepass")
        defaults: dict[str, Any] = {
            "password": password and str(password),
            "socket_timeout": 30.0,
            "decode_responses": True,
            "retry": Retry(NoBackoff(), 0),
        }
        return redis.Redis(host=self.bind, port=self.port, **{**defaults, **settings})

    def command(self, *words: str | int | float) -> Any:
        """One command on a connection of its own, such as `command("SET", "k", 1)`."""
        with self.client() as client:
            return client.execute_command(*words)

    def info(self, section: str = "replication") -> dict[str, Any]:
        """The fields of INFO."""
        fields: dict[str, Any] = self.command("INFO", section)
        return fields

    def _write_configuration(self) -> None:
        fixed = {"bind": self.bind, "port": self.port, "dir": self.folder, "daemonize": "no"}
        lines = [f"{name.replace('_', '-')} {value}\n" for name, value in {**fixed, **self.options}.items()]
        (self.folder / "redis.conf").write_text("".join(lines))

    def _answers(self) -> bool:
        try:
            self.command("PING")
        except (redis.AuthenticationError, redis.BusyLoadingError, redis.ResponseError):
            return True
        except redis.RedisError:
            return False
        return True


class RedisGroup:
    """A master and its replicas, all links up. `program` and `options` are those of every server."""

    def __init__(
        self, size: int = 3, *, bind: str = "127.0.0.1", program: str | Path | None = None, **options: str | int
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rf-redis-"))
        self._remove_folder = _removal(self, self.folder)
        *first, self._last = [str(program)] if program else server_programs()
        self.servers = [
            RedisServer(bind=bind, port=None, folder=self.folder / f"server-{number}", program=each, **options)
            for number, each in enumerate(islice(chain(first, repeat(self._last)), size), 1)
        ]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Their addresses; the one that was master at the start comes first."""
        return tuple(server.node for server in self.servers)

    @property
    def master(self) -> RedisServer:
        """The server that was master at the start."""
        return self.servers[0]

    @property
    def replicas(self) -> list[RedisServer]:
        """The servers that were replicas at the start."""
        return self.servers[1:]

    def __getitem__(self, node: Node) -> RedisServer:
        """The server with this address."""
        return next(server for server in self.servers if server.node == node)

    def start(self) -> None:
        """Start all and wait until the replicas have what the master has. Raises ProcessError."""
        for server in self.servers:
            server.start()
        for master in self.servers[:1]:  # there may be none
            master.command("REPLICAOF", "NO", "ONE")  # its file may say that it comes up as nobody's master
        for replica in self.replicas:
            # By command, not in the file: after a restart a server is a master, as after a crash in the field.
            replica.command("REPLICAOF", self.master.bind, self.master.port)
        self.wait_in_sync()
        for server in self.servers:
            server.upgrade(self._last)

    def wait_in_sync(self) -> None:
        """Wait until every replica's link is up and its offset is that of the master it follows."""
        for replica in self.replicas:
            wait_until(partial(self._in_sync, replica), f"replica {replica.node} in sync")

    def _in_sync(self, replica: RedisServer) -> bool:
        seen = replica.info()
        if seen["role"] != "slave" or seen["master_link_status"] != "up":
            return False
        return bool(seen["slave_repl_offset"] >= self.master.info()["master_repl_offset"])

    def close(self) -> None:
        """Kill all and remove their folders."""
        for server in self.servers:
            server.close()
        self._remove_folder()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
