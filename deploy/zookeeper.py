"""Real ZooKeeper servers from Debian's packages: started, killed, frozen, thawed and restarted.

    with ZooKeeperEnsemble(3, folder) as ensemble:
        connect(ensemble.hosts)
        ensemble.leader().kill()

For the tests and the demo. As with every process, launch from the main thread; only the waiting may go elsewhere.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.processes import Process, ProcessError, free_port, wait_until

_JAR = Path("/usr/share/java/zookeeper.jar")
"""Debian's libzookeeper-java; its manifest names the jars it depends on."""
_LOGGING_JAR = Path("/usr/share/java/slf4j-simple.jar")

_TICK = 250
"""Milliseconds. Peers give each other up after a few ticks, sessions are expired in steps of one."""

_FORGETFUL = "-Dzookeeper.forceSync=no"
"""A write need not have reached the disk: these servers are killed, their machine is not."""

_JVM = (
    "-Xmx96m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Dzookeeper.admin.enableServer=false",
    "-Dzookeeper.4lw.commands.whitelist=ruok,srvr,cons",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)

_POLL = 0.02
"""Seconds between attempts; a port that will be opened cannot be waited for in another way."""


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
        tick: int = _TICK,
        durable: bool = False,
        max_connections: int = 0,
    ) -> None:
        """`tick` in milliseconds; with `durable` a write has reached the disk when it counts, as in production.

        `max_connections` from one address; 0: any number.
        """
        self.number = number
        self.address = address
        self.port = port or free_port(address)
        self._folder = folder
        self._peers = tuple(peers)
        self._max_session_timeout = max_session_timeout
        self._tick = tick
        self._max_connections = max_connections
        jvm = _JVM if durable else (*_JVM, _FORGETFUL)
        classpath = ":".join(str(jar) for jar in (_JAR, _LOGGING_JAR) if jar.exists())
        self.process = Process(
            ["java", *jvm, "-cp", classpath, "org.apache.zookeeper.server.quorum.QuorumPeerMain", folder / "zoo.cfg"],
            folder / "log",
        )

    @property
    def hosts(self) -> str:
        """`host:port` as a client wants it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def is_down(self) -> bool:
        """No process of this server is running or frozen."""
        return not self.process.alive

    def launch(self) -> None:
        """Start the process and return at once. Raises ProcessError when it runs already or Debian's jar is missing."""
        if not self.is_down:
            raise ProcessError(f"ZooKeeper {self.hosts} runs already")
        if not _JAR.exists() or shutil.which("java") is None:
            raise ProcessError("ZooKeeper is not installed: apt-get install default-jre-headless libzookeeper-java")
        self._configure()
        self.process.start()

    def wait(self, patience: float = 60.0) -> None:
        """Return when the server answers clients. Raises ProcessError when it died or took too long."""
        deadline = time.monotonic() + patience
        while not self.role():
            if self.is_down or time.monotonic() > deadline:
                raise ProcessError(f"ZooKeeper {self.hosts} does not serve: {self.process.last_words()}")
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

    def received(self, session: int) -> int:
        """How many packets it has got in this session, over the connection that it has now."""
        found = re.search(rf"recved=(\d+),[^)]*sid=0x{session:x},", self._ask(b"cons"))
        return int(found[1]) if found else 0

    def stop(self) -> None:
        """End the process in an orderly way."""
        self.process.stop()

    def kill(self) -> None:
        """End the process as a power cut would, but for what the kernel has already taken to the disk."""
        self.process.kill()

    def freeze(self) -> None:
        """Stop the process in its tracks; its connections stay open and silent."""
        self.process.freeze()

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.thaw()

    def wipe(self) -> None:
        """Forget all data; the process must be down."""
        if not self.is_down:
            raise ProcessError(f"ZooKeeper {self.hosts} runs: it cannot be wiped")
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _configure(self) -> None:
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(f"{self.number}\n")
        lines = [
            f"dataDir={data}",
            f"clientPortAddress={self.address}",
            f"clientPort={self.port}",
            f"tickTime={self._tick}",
            "initLimit=40",
            "syncLimit=8",
            "minSessionTimeout=1000",
            f"maxSessionTimeout={int(self._max_session_timeout * 1000)}",
            f"maxClientCnxns={self._max_connections}",
            *self._peers,
        ]
        (self._folder / "zoo.cfg").write_text("\n".join(lines) + "\n")

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


class ZooKeeperEnsemble:
    """Several servers that elect a leader among them, each in a folder of its own below `folder`."""

    def __init__(self, size: int, folder: Path, *, tick: int = _TICK, durable: bool = False) -> None:
        """The options are those of the servers."""
        peers = [f"server.{n}=127.0.0.1:{free_port()}:{free_port()}" for n in range(1, size + 1)]
        self.servers = [
            ZooKeeperServer(folder / f"zookeeper{number}", number=number, peers=peers, tick=tick, durable=durable)
            for number in range(1, size + 1)
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
        """The server that leads now. Raises ProcessError when there is none."""
        return self._with_role("leader")[0]

    def wait_for_leader_other_than(self, former: ZooKeeperServer) -> None:
        """Return when another server leads. Raises ProcessError when that takes too long."""
        others = [server for server in self.servers if server is not former]
        wait_until(lambda: any(server.role() == "leader" for server in others), "another ZooKeeper server leads")

    def followers(self) -> list[ZooKeeperServer]:
        """The servers that follow the leader now."""
        return self._with_role("follower")

    def _with_role(self, role: str) -> list[ZooKeeperServer]:
        found = [server for server in self.servers if server.role() == role]
        if not found:
            raise ProcessError(f"no ZooKeeper server is {role}")
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
