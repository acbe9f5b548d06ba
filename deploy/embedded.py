"""A proxy in embedded mode as a process of its own, and what the system says of that process."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Self

import redis

from deploy.processes import Process, RedisGroup, free_port, wait_until
from deploy.site import BIN, HOST
from rfprotocol.topology.topology import Node

_HELD = ("01", "08")  # ESTABLISHED, and CLOSE_WAIT: the other side has closed


class EmbeddedProxy:
    """`with EmbeddedProxy(group, folder) as proxy`: it serves when the block begins. `options` are the program's."""

    def __init__(self, group: RedisGroup, folder: Path, *options: str) -> None:
        self.address = Node(HOST, free_port(HOST))
        nodes = ",".join(map(str, group.nodes))
        words = ["--nodes", nodes, "--listen", str(self.address), "--state-dir", str(folder / "state"), *options]
        self.process = Process([BIN / "rfproxy", *words], folder / "rfproxy.log")

    def __enter__(self) -> Self:
        self.process.start()
        with redis.Redis(host=self.address.host, port=self.address.port, socket_timeout=1) as client:
            wait_until(lambda: self._answers(client), "rfproxy")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    @property
    def memory(self) -> int:
        """Bytes in memory at present."""
        return self._status("VmRSS")

    @property
    def peak(self) -> int:
        """Bytes in memory at most so far."""
        return self._status("VmHWM")

    @property
    def descriptors(self) -> int:
        """Open files and connections."""
        return len(list(Path(f"/proc/{self._pid}/fd").iterdir()))

    @property
    def defects(self) -> list[str]:
        """Lines of its log in which it says that it is wrong itself."""
        lines = (self.process.log.read_text() if self.process.log else "").splitlines()
        return [line for line in lines if "Traceback" in line or '"defect"' in line]

    @property
    def clients(self) -> int:
        """Connections of clients that it has not closed, also of those that have gone."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(f":{self.address.port:04X}") and row[3] in _HELD for row in rows)

    @property
    def _pid(self) -> int:
        """Of the worker, who has the connections."""
        (pid,) = self.process.workers
        return pid

    def _status(self, field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        assert found, field
        return int(found[1]) << 10

    @staticmethod
    def _answers(client: redis.Redis) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(client.set("ready", 1))
        return False
