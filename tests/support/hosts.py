"""Hosts on one machine: network namespaces, joined by a switch whose cables can be pulled.

    with Network() as network:
        host = network.host()
        process = Process(["redis-server", "--bind", host.address])
        host.take(process)
        process.start()
        host.cut()

The thread that enters the block sits in a namespace of its own meanwhile, and so do the threads and processes that it
starts: nothing of the machine's own network is touched, and several runs have the same addresses and never meet. It
reaches every host by a second line, which no fault concerns, so that a test can talk to servers that are cut off from
each other. Hosts have no other way to each other than the switch.

The namespaces are held by file descriptors, so they end with this process at the latest. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from deploy.processes import Process

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_OWN_ADDRESS = "10.97.1.1"
_NOBODY = "02:00:00:00:00:00"
"""An Ethernet address that no host has."""


class NetworkError(Exception):
    """There can be no hosts on this machine; says what is missing."""


class Network:
    """A switch and the hosts at it. To be entered in the main thread, as processes are started there."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self._parts = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Raises NetworkError."""
        assert threading.current_thread() is threading.main_thread()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_another_namespace())
            _ip(
                "link set lo up",
                "link add switch type bridge",
                "link set switch up",
                "link add desk type bridge",
                "link set desk up",
                f"addr add {_OWN_ADDRESS}/32 dev desk",
                "route add 10.97.0.0/24 dev desk",
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def host(self) -> Host:
        """One more host."""
        host = Host(len(self.hosts) + 1)
        self._stack.callback(host.close)
        host.plug_in()
        self.hosts.append(host)
        return host

    def host_of(self, process: Process) -> Host:
        """The one that took a process."""
        return next(host for host in self.hosts if process in host.processes)

    def split(self, *parts: Sequence[Host]) -> None:
        """Each of `parts` can only talk among itself, and so can the hosts that are in none of them."""
        for part in parts:
            self._parts += 1
            bridge = f"part-{self._parts}"
            _ip(f"link add {bridge} type bridge", f"link set {bridge} up")
            _ip(*(f"link set {host.port} master {bridge}" for host in part))

    def drop_to(self, *hosts: Host) -> None:
        """What the test itself sends to these hosts is lost, and nobody is told."""
        _ip(*(f"neigh replace {host.address} lladdr {_NOBODY} nud permanent dev desk" for host in hosts))

    def heal(self) -> None:
        """Undo every fault of every host."""
        _ip("neigh flush dev desk nud permanent")
        for host in self.hosts:
            host.heal()


class Host:
    """One network namespace. It is made by `Network.host`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"10.97.0.{number}"
        self.processes: list[Process] = []
        self.port = f"port-{number}"
        """Of the switch."""
        with _another_namespace():
            self._namespace = os.open(_HERE, os.O_RDONLY)
        self._path = f"/proc/{os.getpid()}/fd/{self._namespace}"

    def plug_in(self) -> None:
        """Lay its two cables: to the switch, and to the desk of the test."""
        desk = f"desk-{self.number}"
        _ip(
            f"link add {self.port} type veth peer name lan netns {self._path}",
            f"link set {self.port} master switch up",
            f"link add {desk} type veth peer name desk netns {self._path}",
            f"link set {desk} master desk up",
        )
        self._ip(
            "link set lo up",
            "link set lan up",
            "link set desk up",
            f"addr add {self.address}/24 dev lan",
            f"route add {_OWN_ADDRESS}/32 dev desk src {self.address}",
        )

    def close(self) -> None:
        """Let go of it. What runs there goes on until it is killed, and reaches nobody when the network is gone."""
        os.close(self._namespace)

    def take(self, process: Process) -> None:
        """Let a process run on this host from its next start on. It is itself what `process.pid` says: no wrapper."""
        process.argv = self.within(process.argv)
        self.processes.append(process)

    def within(self, argv: Iterable[str]) -> list[str]:
        """What starts a command on this host."""
        return ["nsenter", f"--net={self._path}", "--", *argv]

    # --- faults

    def cut(self) -> None:
        """Pull the cable: nothing comes in or goes out any more, and nobody is told."""
        _ip(f"link set {self.port} down")

    def drop_to(self, *others: Host) -> None:
        """What this host sends to `others` is lost; what they send arrives."""
        self._ip(*(f"neigh replace {other.address} lladdr {_NOBODY} nud permanent dev lan" for other in others))

    def slow(self, kilobits: int) -> None:
        """What is sent to this host comes at so many kilobits per second, at most.

        Two full packets may wait, and a small one behind them: who asks little is answered, a little later.
        """
        bucket = ["tbf", "rate", f"{kilobits}kbit", "burst", "2kb", "limit", "4000"]
        _run(["tc", "qdisc", "replace", "dev", self.port, "root", *bucket])

    def heal(self) -> None:
        """Undo every fault of this host."""
        _ip(f"link set {self.port} master switch up")
        self._ip("neigh flush dev lan nud permanent")
        _run(["tc", "qdisc", "replace", "dev", self.port, "root", "noqueue"])

    def _ip(self, *lines: str) -> None:
        _ip(*lines, within=self.within([]))


def _ip(*lines: str, within: Sequence[str] = ()) -> None:
    _run([*within, "ip", "-batch", "-"], "\n".join(lines))


def _run(argv: Sequence[str], text: str = "") -> None:
    try:
        subprocess.run(argv, input=text, text=True, capture_output=True, check=True)
    except FileNotFoundError:
        raise NetworkError("hosts on one machine need Debian's iproute2") from None
    except subprocess.CalledProcessError as error:
        raise NetworkError(f"{' '.join(argv)} <<< {text!r}: {error.stderr.strip()}") from None


_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def _another_namespace() -> Iterator[None]:
    """The calling thread is in a new one during the block. Raises NetworkError."""
    before = os.open(_HERE, os.O_RDONLY)
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            why = os.strerror(ctypes.get_errno())
            raise NetworkError(f"hosts on one machine need root, or CAP_SYS_ADMIN and CAP_NET_ADMIN: {why}")
        try:
            yield
        finally:
            # Python has os.setns since 3.12.
            if _libc.setns(before, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)
