"""Scripts that clients have loaded, kept so that a new master can be given them before it is asked for them.

A server knows a script by its SHA-1 once it was sent the body by EVAL or SCRIPT LOAD. Replicas are not told, so behind
a change of master EVALSHA would be answered NOSCRIPT for what the client was promised is there.

    commands to send ── needed ──> bodies to send first, each by SCRIPT LOAD, the replies to be dropped
    commands that were answered well ── executed ──> scripts to remember

A load too many does no harm, one too few only lets the NOSCRIPT through that clients of EVALSHA know how to deal with.
What a client has flushed is forgotten altogether, as is what was used least recently when the bodies take too much
memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rfproxy.lane import Lane

DEFAULT_CAPACITY = 16 * 1024 * 1024
_OVERHEAD = 512  # bytes that Python needs for an entry besides the body
_PROCESSES = 64

_EVAL = frozenset([b"EVAL", b"EVAL_RO"])
_EVALSHA = frozenset([b"EVALSHA", b"EVALSHA_RO"])


@dataclass(slots=True)
class Loading:
    """All scripts are being loaded into a server on one connection: so many replies are still to come."""

    lane: Lane
    left: int


class Scripts:
    """The scripts that this proxy has seen, by digest, and which server has which.

    `capacity` bounds the memory they take, in bytes.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._free = capacity
        self._capacity = capacity
        self.flushes = 0
        """How often all were forgotten because a client said so."""
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()  # by digest, the one used last at the end
        self._digests: dict[bytes, bytes] = {}  # by body: hashing one again and again would cost more
        self._loading: dict[str, Loading] = {}  # by process
        self._there: dict[str, set[bytes]] = {}  # digests by process, the one seen first in front

    def needed(self, commands: Sequence[Sequence[bytes]], process: str) -> list[bytes]:
        """The bodies to be loaded right before these commands are sent to the master process `process`.

        On the same connection. They count as being there once `loaded` says so; until then others load them too.
        """
        loads: dict[bytes, None] = {}
        for args in commands:
            name = args[0].upper()
            if name in _EVALSHA:
                self._need(args[1:2], process, loads)
            elif name == b"SCRIPT" and len(args) > 1:
                if args[1].upper() == b"EXISTS":
                    self._need(args[2:], process, loads)
                elif args[1].upper() == b"FLUSH":
                    self.flushes += 1
                    self._forget_all()
        return list(loads)

    def executed(self, args: Sequence[bytes], flushes: int) -> None:
        """A command was answered without an error: remember the script that it brought, or forget all.

        `flushes` as it was when the command was sent: what a flush has overtaken is not there any more.
        """
        if flushes != self.flushes:
            return
        name = args[0].upper()
        if name in _EVAL and len(args) > 1:
            self._carried(args[1])
        elif name == b"SCRIPT" and len(args) > 1:
            match args[1].upper():
                case b"LOAD" if len(args) == 3:
                    self._carried(args[2])
                case b"FLUSH":
                    self._forget_all()  # also what stood before it in its packet

    def load_all(self, process: str, lane: Lane) -> list[bytes]:
        """All bodies that are not known to be there, to be loaded on `lane` ahead of what may call any of them.

        Until they are there, `loading` says so, and others wait.
        """
        bodies = self.missing(process)
        if bodies:
            self._loading[process] = Loading(lane, len(bodies))
        return bodies

    def loading(self, process: str) -> bool:
        """Whether all scripts are being loaded there: what needs them waits, and does not load them again."""
        return process in self._loading

    def lost(self, lane: Lane) -> bool:
        """A connection is closed; whether scripts were being loaded on it."""
        lost = [process for process, loading in self._loading.items() if loading.lane is lane]
        for process in lost:
            del self._loading[process]
        return bool(lost)

    def answered(self, process: str, lane: Lane) -> bool:
        """A script that was loaded on this connection is accounted for; whether it was the last one of all."""
        loading = self._loading.get(process)
        if loading is None or loading.lane is not lane:
            return False
        loading.left -= 1
        if loading.left > 0:
            return False
        del self._loading[process]
        return True

    def loaded(self, body: bytes, process: str) -> None:
        """SCRIPT LOAD was answered: the script is there, or an error would be answered again."""
        if (digest := self._digests.get(body)) is not None:
            self._known(process).add(digest)

    def missing(self, process: str) -> list[bytes]:
        """All bodies that are not known to be there: for who cannot say yet which of them will be called."""
        there = self._known(process)
        return [body for digest, body in self._bodies.items() if digest not in there]

    def _forget_all(self) -> None:
        self._bodies.clear()
        self._digests.clear()
        self._there.clear()
        self._free = self._capacity

    def _need(self, digests: Sequence[bytes], process: str, loads: dict[bytes, None]) -> None:
        there = self._known(process)
        for digest in map(bytes.lower, digests):
            body = self._bodies.get(digest)
            if body is None:
                continue
            self._bodies.move_to_end(digest)
            if digest not in there:
                loads[body] = None

    def _carried(self, body: bytes) -> None:
        digest = self._digests.get(body)
        if digest is None:
            self._remember(sha1(body, usedforsecurity=False).hexdigest().encode(), body)
        else:
            self._bodies.move_to_end(digest)

    def _remember(self, digest: bytes, body: bytes) -> None:
        if len(body) + _OVERHEAD > self._capacity:
            return
        self._bodies[digest] = body
        self._digests[body] = digest
        self._free -= len(body) + _OVERHEAD
        while self._free < 0:
            oldest, unused = self._bodies.popitem(last=False)
            del self._digests[unused]
            self._free += len(unused) + _OVERHEAD
            for there in self._there.values():
                there.discard(oldest)

    def _known(self, process: str) -> set[bytes]:
        there = self._there.get(process)
        if there is None:
            if len(self._there) == _PROCESSES:
                del self._there[next(iter(self._there))]
            there = self._there[process] = set()
        return there
