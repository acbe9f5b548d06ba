"""`make run`: three Redis servers and a proxy in its embedded mode, to try things by hand."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from deploy.processes import Process, ProcessError, RedisGroup, wait_until

HOST = "127.0.0.1"
USAGE_ERROR = 2
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run until Ctrl-C or SIGTERM; exit status 2 when the port is taken, 1 when something fails to start."""
    arguments = argparse.ArgumentParser(prog="deploy.run", description=__doc__)
    arguments.add_argument("--port", type=int, default=6380, help="of the proxy (default: 6380)")
    port: int = arguments.parse_args().port
    if problem := _why_not(port):
        print(f"make run: {problem}: try another one, make run PORT=7380", file=sys.stderr)
        return USAGE_ERROR
    for number in _ENDINGS:
        signal.signal(number, _interrupt)
    try:
        with RedisGroup(3) as group, _proxy(group, port) as proxy:
            _wait_for_answer(proxy, port)
            print(_welcome(group, port), flush=True)
            status = proxy.wait()
            print(f"make run: the proxy ended with status {status}", file=sys.stderr)
            return 1
    except ProcessError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake run: everything is stopped", flush=True)
        return 0


def _interrupt(*_: object) -> NoReturn:
    # Once is enough: a second Ctrl-C would only leave the folder behind.
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _why_not(port: int) -> str:
    """What speaks against this port; empty when nothing does."""
    if not 0 < port < 65536:
        return f"{port} is not a port"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return f"port {port} of {HOST} is not free ({error.strerror})"
    return ""


@contextlib.contextmanager
def _proxy(group: RedisGroup, port: int) -> Iterator[Process]:
    process = Process(
        [
            Path(sys.executable).with_name("rfproxy"),
            *("--nodes", ",".join(map(str, group.nodes))),
            *("--listen", f"{HOST}:{port}"),
            *("--log-format", "text"),
            *("--state-dir", _state(group)),
        ],
        # What the user has set for other proxies is not meant for this one.
        env={name: value for name, value in os.environ.items() if not name.startswith("RFPROXY_")},
    )
    process.start()
    try:
        yield process
    finally:
        process.stop(timeout=5)


def _wait_for_answer(proxy: Process, port: int) -> None:
    def answered() -> bool:
        if not proxy.alive:
            raise ProcessError("the proxy did not start, its output above says why")
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    wait_until(answered, f"rfproxy on {HOST}:{port}")


def _state(group: RedisGroup) -> Path:
    return group.folder / "proxy"


def _welcome(group: RedisGroup, port: int) -> str:
    rfmanager = Path(sys.executable).with_name("rfmanager")
    servers = "\n".join(
        f"  redis-server  {server.node}  pid {server.pid}  {'master' if server is group.master else 'replica'}"
        for server in group.servers
    )
    return f"""
Below {group.folder}:
{servers}
  rfproxy       {HOST}:{port}  in front of them

Try it:                         redis-cli -p {port} set k v
                                redis-cli -p {port} get k
Look at it, move the master:    {rfmanager} status --state-dir {_state(group)}
                                {rfmanager} failover --state-dir {_state(group)}
Kill the master, and go on:     kill -9 {group.master.pid}; redis-cli -p {port} set k w
Stop everything:                Ctrl-C
"""


if __name__ == "__main__":
    sys.exit(main())
