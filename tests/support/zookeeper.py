"""Real ZooKeeper servers from Debian's packages: started, killed, frozen, thawed and restarted.

    with ZooKeeperEnsemble(3, folder) as ensemble:
        connect(ensemble.hosts)
        ensemble.leader().kill()

Nothing here needs pytest; the demo uses it too. A server dies with the thread that launched it (the kernel ties
the parent-death signal to that thread), so launch from the main thread; only the waiting may go elsewhere.
"""

from __future__ import annotations

import contextlib
import enum
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port

_JAR = Path("/usr/share/java/zookeeper.jar")
"""Debian's libzookeeper-java; its manifest names the jars it depends on."""
_LOGGING_JAR = Path("/usr/share/java/slf4j-simple.jar")

_TICK = 250
"""Milliseconds. Peers give each other up after a few ticks, sessions are expired in steps of one."""

_JVM = (
    "-Xmx96m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.admin.enableServer=false",
    "-Dzookeeper.4lw.commands.whitelist=ruok,srvr",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)

_POLL = 0.02
"""Seconds between attempts; a port that will be opened cannot be waited for in another way."""


class _Run(enum.Enum):
    """What the process is doing."""

    DOWN = "down"
    UP = "up"
    FROZEN = "frozen"


class ZooKeeperServer:
    """One server process on `address`. `peers` are the `server.N=...` lines of its ensemble, if it has one."""

    def __init__(
        self,
        folder: Path,
        *,
        number: int = 1,
        address: str = "127.0.0.1",
        port: int | None = None,
        peers: Sequence[str] = (),
        max_session_timeout: float = 40.0,
    ) -> None:
        self.number = number
        self.address = address
        self.port = port or free_port(address)
        self._folder = folder
        self._peers = tuple(peers)
        self._max_session_timeout = max_session_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._run = _Run.DOWN

    @property
    def hosts(self) -> str:
        """`host:port` as a client wants it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def is_down(self) -> bool:
        """No process of this server is running or frozen."""
        return self._run is _Run.DOWN

    def launch(self) -> None:
        """Start the process and return at once. Raises RuntimeError when it runs already or Debian's jar is missing."""
        if self._run is not _Run.DOWN:
            raise RuntimeError(f"ZooKeeper {self.hosts} is {self._run.value} already")
        if not _JAR.exists() or shutil.which("java") is None:
            raise RuntimeError("ZooKeeper is not installed: apt-get install default-jre-headless libzookeeper-java")
        configuration = self._configure()
        classpath = ":".join(str(jar) for jar in (_JAR, _LOGGING_JAR) if jar.exists())
        command = ["setpriv", "--pdeathsig", "KILL", "java", *_JVM, "-cp", classpath]
        command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(configuration)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._run = _Run.UP

    def wait(self, patience: float = 60.0) -> None:
        """Return when the server answers clients. Raises RuntimeError when it died or took too long."""
        deadline = time.monotonic() + patience
        while not self.role():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"ZooKeeper {self.hosts} ended: see {self._folder / 'log'}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"ZooKeeper {self.hosts} does not serve: see {self._folder / 'log'}")
            time.sleep(_POLL)

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.launch()
        self.wait()

    def role(self) -> str:
        """`standalone`, `leader` or `follower`; empty while it does not serve."""
        return self._field("Mode:")

    def last_transaction(self) -> int:
        """The zxid of the newest change that the server knows."""
        return int(self._field("Zxid:"), 16)

    def stop(self) -> None:
        """End the process in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power cut would, but for what the kernel has already taken to the disk."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process in its tracks; its connections stay open and silent."""
        self._signal(signal.SIGSTOP)
        self._run = _Run.FROZEN

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)
        self._run = _Run.UP

    def wipe(self) -> None:
        """Forget all data; the process must be down."""
        if self._run is not _Run.DOWN:
            raise RuntimeError(f"ZooKeeper {self.hosts} is {self._run.value}: it cannot be wiped")
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _configure(self) -> Path:
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(f"{self.number}\n")
        lines = [
            f"dataDir={data}",
            f"clientPortAddress={self.address}",
            f"clientPort={self.port}",
            f"tickTime={_TICK}",
            "initLimit=40",
            "syncLimit=8",
            "minSessionTimeout=1000",
            f"maxSessionTimeout={int(self._max_session_timeout * 1000)}",
            "maxClientCnxns=0",
            *self._peers,
        ]
        configuration = self._folder / "zoo.cfg"
        configuration.write_text("\n".join(lines) + "\n")
        return configuration

    def _field(self, label: str) -> str:
        for line in self._ask(b"srvr").splitlines():
            if line.startswith(label):
                return line.removeprefix(label).strip()
        return ""

    def _ask(self, word: bytes) -> str:
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), timeout=1.0) as link:
            link.sendall(word)
            answer = b""
            while chunk := link.recv(4096):
                answer += chunk
            return answer.decode(errors="replace")
        return ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError(f"ZooKeeper {self.hosts} is down")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._run is _Run.FROZEN:
            self.thaw()
        self._process.send_signal(number)
        self._process.wait()
        self._process = None
        self._run = _Run.DOWN


class ZooKeeperEnsemble:
    """Several servers that elect a leader among them, each in a folder of its own below `folder`."""

    def __init__(self, size: int, folder: Path) -> None:
        peers = [f"server.{n}=127.0.0.1:{free_port()}:{free_port()}" for n in range(1, size + 1)]
        self.servers = [
            ZooKeeperServer(folder / f"zookeeper{number}", number=number, peers=peers) for number in range(1, size + 1)
        ]

    @property
    def hosts(self) -> str:
        """`host:port,host:port,...` as a client wants it."""
        return ",".join(server.hosts for server in self.servers)

    def start(self) -> None:
        """Start every server that is down and wait until all serve."""
        for server in self.servers:
            if server.is_down:
                server.launch()
        for server in self.servers:
            server.wait()

    def stop(self) -> None:
        """Kill every server: there is nothing to save."""
        for server in self.servers:
            server.kill()

    def leader(self) -> ZooKeeperServer:
        """The server that leads now. Raises RuntimeError when there is none."""
        return self._with_role("leader")[0]

    def followers(self) -> list[ZooKeeperServer]:
        """The servers that follow the leader now."""
        return self._with_role("follower")

    def _with_role(self, role: str) -> list[ZooKeeperServer]:
        found = [server for server in self.servers if server.role() == role]
        if not found:
            raise RuntimeError(f"no ZooKeeper server is {role}")
        return found

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
