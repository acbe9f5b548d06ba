"""The listening sockets, which belong to the supervisor and outlive every worker.

Each worker has a socket of its own per address (SO_REUSEPORT), so that the kernel spreads clients over them. The kernel
resets the connections that wait in the queue of a socket when it is closed; so none is, but when the program ends: what
waits for a worker that died is accepted by the next one in its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from rfprotocol.errors import ConfigError
from rfprotocol.topology.topology import Node
from rfproxy.runtime.server import BACKLOG

_SYSTEMD_FIRST = 3
_Place = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def open_sockets(address: Node, count: int = 1, given: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """`count` sockets for each address that a name stands for, or for those of the `given` ones. Raises ConfigError."""
    try:
        sockets = list(given) or [_open(family, place, joining=False) for family, place in _resolve(address)]
    except OSError as error:
        hint = "; is another proxy running?" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"--listen: cannot listen on {address}: {error.strerror}{hint}") from None
    for alike in _by_address(sockets).values():
        # systemd's sockets let nobody join them who runs as another user: workers share them.
        with contextlib.suppress(OSError):
            for _ in range(count - len(alike)):
                sockets.append(_open(alike[0].family, alike[0].getsockname(), joining=True))
    return sockets


def from_systemd(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd opened for this process, if any. The variables that say so are removed."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "0")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    return [adopt(fd) for fd in range(_SYSTEMD_FIRST, _SYSTEMD_FIRST + int(count))]


def adopt(fd: int) -> socket.socket:
    """A socket from the program before this one. Raises ConfigError when it is none that clients can come in by."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        sock.close()
        raise ConfigError("the sockets that are passed to the program should be listening TCP sockets")
    return sock


def share(sockets: Sequence[socket.socket], workers: int, number: int) -> list[socket.socket]:
    """Those of worker `number` of `workers`: one of each address at least, and every socket is somebody's."""
    mine: list[socket.socket] = []
    for alike in _by_address(sockets).values():
        mine += alike[number::workers] or [alike[number % len(alike)]]
    return mine


def address_of(sock: socket.socket) -> Node:
    """Where it listens."""
    host, port = sock.getsockname()[:2]
    return Node(host, port)


def _by_address(sockets: Sequence[socket.socket]) -> Mapping[Node, list[socket.socket]]:
    alike: dict[Node, list[socket.socket]] = {}
    for sock in sockets:
        alike.setdefault(address_of(sock), []).append(sock)
    return alike


def _resolve(address: Node) -> list[tuple[int, _Place]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), place) for family, _, _, _, place in found))


def _open(family: int, place: _Place, *, joining: bool) -> socket.socket:
    """Who is first is bound alone, so that an address in use is noticed; others of ours may join it only then."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, joining)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if not joining:  # who joins is heard of when a worker serves there
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
