"""The systems that are compared, each with one process in front of the same Redis, and how each is started.

Every proxy may use one CPU: rfproxy and twemproxy have one thread, HAProxy is given one (by itself it takes as many as
there are CPUs). twemproxy connects once to Redis, as is its default, and before the first client comes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from deploy.processes import Process, ProcessError, RedisGroup, free_port, wait_until
from deploy.site import HOST, Site
from deploy.zookeeper import ZooKeeperServer
from rfprotocol.topology.topology import Node

_MBUF = 1024
"""Bytes of twemproxy's buffers. With the 16 KiB that it takes by itself, pipelined GETs cost it twice as much; with 512
bytes, values of 4 KB do."""
_NUTCRACKER = """\
redis:
  listen: {address}
  redis: true
  preconnect: true
  auto_eject_hosts: false
  server_connections: 1
  backlog: 4096
  servers:
   - {master}:1
"""
_HAPROXY = """\
global
  nbthread 1
  maxconn 9000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen redis
  bind {address} backlog 4096
  server master {master}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A system that serves Redis at `address`. No process of its own: clients are connected to Redis."""

    name: str
    address: Node
    process: Process | None = None


@contextlib.contextmanager
def _redis(group: RedisGroup, folder: Path) -> Iterator[Peer]:
    yield Peer("redis", group.master.node)


@contextlib.contextmanager
def _rfproxy(group: RedisGroup, folder: Path) -> Iterator[Peer]:
    """As it is meant to run: with a manager and a lease from ZooKeeper.

    The manager is paused: an overloaded Redis is not to be taken for a dead one and made a replica.
    """
    with ZooKeeperServer(folder / "zookeeper") as zookeeper, contextlib.ExitStack() as stack:
        site = Site(folder, zookeeper.hosts, group, "json", required_managers=1)
        stack.callback(site.stop)
        site.manager().start()
        proxy = site.proxy()
        proxy.start()
        site.wait_until_ready()
        if (done := site.manage("pause")).returncode:
            raise ProcessError(f"rfmanager pause: {done.stderr}")
        yield Peer("rfproxy", Node(HOST, *site.proxies), proxy)


def _twemproxy(group: RedisGroup, folder: Path) -> AbstractContextManager[Peer]:
    path = folder / "nutcracker.yml"
    words: list[str | Path] = ["-c", path, "-s", str(free_port(HOST)), "-a", HOST, "-m", str(_MBUF)]
    return _configured("twemproxy", "nutcracker", words, group, path, _NUTCRACKER)


def _haproxy(group: RedisGroup, folder: Path) -> AbstractContextManager[Peer]:
    path = folder / "haproxy.cfg"
    return _configured("haproxy", "haproxy", ["-db", "-f", path], group, path, _HAPROXY)


@contextlib.contextmanager
def _configured(
    name: str, command: str, words: Sequence[str | Path], group: RedisGroup, path: Path, configuration: str
) -> Iterator[Peer]:
    """A proxy that reads everything from the file `path`."""
    address = Node(HOST, free_port(HOST))
    path.write_text(configuration.format(address=address, master=group.master.node))
    process = Process([program(command), *words], path.with_suffix(".log"))
    process.start()
    try:
        wait_until(lambda: _answers(address) or not process.alive, name)
        if not process.alive:
            raise ProcessError(f"{name} ended: {process.last_words()}")
        yield Peer(name, address, process)
    finally:
        process.kill()


def program(name: str) -> str:
    """Where Debian has put it, which need not be where a user's commands are. Raises ProcessError."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise ProcessError(f"{name} is not installed: sh deploy/setup.sh --tests does that")
    return path


def _answers(address: Node) -> bool:
    """Not asked with redis-py, whose first words twemproxy does not understand."""
    with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), timeout=1) as link:
        link.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n")
        return link.recv(100).startswith(b"$")
    return False


PEERS: dict[str, Callable[[RedisGroup, Path], AbstractContextManager[Peer]]] = {
    "redis": _redis,
    "rfproxy": _rfproxy,
    "twemproxy": _twemproxy,
    "haproxy": _haproxy,
}
"""By name, in the order of the tables."""
