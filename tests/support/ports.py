"""Free TCP ports for servers that a test or the demo starts.

They are taken from below the kernel's ephemeral range: a port in that range could be handed to an outgoing
connection while its server is down, and a client that retries against it can even connect to itself.
"""

from __future__ import annotations

import random
import socket

_RANGE = range(14000, 30000)
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nothing listens on and that this process has not given out before."""
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in _given and _is_free(host, port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free TCP port on {host}")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
