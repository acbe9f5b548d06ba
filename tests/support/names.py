"""A name service of our own: slow, silent or failing when a test wants it to be; and look-ups that ask none at all.

    with NameService({"redis-1.test": "127.0.0.1"}) as names:
        names.take(process)
        process.start()
        names.fail()

The process that is taken sees its own /etc/resolv.conf, by a mount namespace, so it asks with the system's resolver as
it does anywhere. One that `knows` gets a hosts file besides and never asks. Needs root.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from deploy.processes import Process

_PORT = 53
_MOUNT = 'for file in resolv.conf hosts; do mount --bind "$0/$file" "/etc/$file" || exit 1; done; exec "$@"'
_SERVFAIL, _NXDOMAIN = 2, 3
_A, _IN = 1, 1


@dataclass
class LookUps:
    """Instead of the system's: `Resolver(look_up=LookUps({...}).look_up)`. Who asks waits while `speaks` is not set."""

    says: dict[str, Sequence[str] | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    speaks: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.speaks.set()

    def look_up(self, host: str) -> Sequence[str]:
        """What it was told to say. Raises that, if it is an error."""
        self.asked.append(host)
        self.speaks.wait()
        said = self.says[host]
        if isinstance(said, Exception):
            raise said
        return said


class NameService:
    """Answers with the addresses in `addresses`, which may change at any time."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.addresses = dict(addresses)
        self.asked: list[str] = []
        """The names, in order."""
        self._delay = 0.0
        self._failing = self._silent = False
        self._folder = tempfile.TemporaryDirectory(prefix="rf-names-")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        while True:
            address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
            with contextlib.suppress(OSError):
                self._socket.bind((address, _PORT))
                break
        Path(self._folder.name, "resolv.conf").write_text(f"nameserver {address}\n")
        Path(self._folder.name, "hosts").write_text("127.0.0.1 localhost\n")
        threading.Thread(target=self._serve, name="name service", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        self._folder.cleanup()

    # --- who asks it

    def take(self, process: Process, *, knows: Sequence[str] = ()) -> None:
        """Let a process ask here from its next start on; not for the names that it `knows`."""
        folder = Path(self._folder.name)
        if knows:
            folder = Path(tempfile.mkdtemp(dir=folder))
            (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
            (folder / "hosts").write_text("".join(f"{self.addresses[name]} {name}\n" for name in knows))
        process.argv = ["unshare", "--mount", "sh", "-c", _MOUNT, str(folder), *process.argv]

    # --- faults

    def delay(self, seconds: float) -> None:
        """Answer after so long."""
        self._delay = seconds

    def fail(self) -> None:
        """Answer SERVFAIL."""
        self._failing = True

    def fall_silent(self) -> None:
        """Answer nothing."""
        self._silent = True

    def recover(self) -> None:
        """Undo every fault."""
        self._delay, self._failing, self._silent = 0.0, False, False

    # --- the protocol: RFC 1035, one question, no compression but of the name that was asked for

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(512)
            except OSError:
                return
            if not query:
                return
            answer = self._answer(query)
            if not self._silent:
                threading.Timer(self._delay, self._send, (answer, client)).start()

    def _send(self, answer: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            self._socket.sendto(answer, client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = query[12 : at + 5]
        name = ".".join(labels).lower()
        self.asked.append(name)
        (kind,) = struct.unpack_from("!H", query, at + 1)
        address = self.addresses.get(name)
        code = _SERVFAIL if self._failing else _NXDOMAIN if address is None else 0
        records = b""
        if address is not None and not self._failing and kind == _A:
            records = struct.pack("!HHHIH", 0xC00C, _A, _IN, 0, 4) + socket.inet_aton(address)
        header = struct.pack("!HHHHHH", struct.unpack_from("!H", query)[0], 0x8180 | code, 1, bool(records), 0, 0)
        return header + question + records
