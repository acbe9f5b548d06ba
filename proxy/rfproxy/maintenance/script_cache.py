"""Scripts that clients have loaded, kept so that a new master can be given them before it is asked for them.

A server knows a script by its SHA-1 once it was sent the body by EVAL or SCRIPT LOAD. Replicas are not told, so behind
a change of master EVALSHA would be answered NOSCRIPT for what the client was promised is there.

    commands to send ── needed ──> bodies to send first, each by SCRIPT LOAD, the replies to be dropped
    commands that were answered well ── executed ──> scripts to remember

A load too many does no harm, one too few only lets the NOSCRIPT through that clients of EVALSHA know how to deal with.
What a client has flushed is forgotten altogether, as is what was used least recently when the bodies take too much
memory. `copies` gives them to the replicas ahead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from math import inf
from typing import TYPE_CHECKING

from rfproxy.core.identity import Account

if TYPE_CHECKING:
    from rfproxy.upstream.connection import Lane

DEFAULT_CAPACITY = 16 * 1024 * 1024
_MOST_HANDED = 2 * 1024 * 1024  # bytes of bodies that one worker gives to another one
_OVERHEAD = 512  # bytes that Python needs for an entry besides the body
_PROCESSES = 64

_EVAL = frozenset([b"EVAL", b"EVAL_RO"])
_EVALSHA = frozenset([b"EVALSHA", b"EVALSHA_RO"])


class Claim(Enum):
    """How a client came to rely on a script: each of them is stronger than the one before."""

    EVALUATED = "it came by EVAL"
    CALLED = "it came by EVAL and was called by its digest later"
    LOADED = "it came by SCRIPT LOAD"


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
        self.flushed = 0
        """How often the master has done so."""
        self.forgotten = 0
        """The same, also because a client of another worker said so: then what came later than that stays."""
        self.flushed_at = -inf
        """When the last flush was answered, here or at another worker."""
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()  # by digest, the one used last at the end
        self._digests: dict[bytes, bytes] = {}  # by body: hashing one again and again would cost more
        self._loading: dict[str, Loading] = {}  # by process
        self._there: dict[str, set[bytes]] = {}  # digests by process, the one seen first in front
        self._claims: dict[bytes, Claim] = {}  # by digest; those that only came by EVAL are missing
        self._learned: dict[bytes, float] = {}  # by digest, when it came last
        self._news: dict[bytes, None] = {}
        self.bringer: Account | None = None
        """Who has used one last."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when there is something for `take_news`, or some were forgotten."""
        self.on_flush: Callable[[], None] = lambda: None
        """Called when the master has done so."""

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

    def executed(self, args: Sequence[bytes], flushes: int, now: float, account: Account | None = None) -> None:
        """A command was answered without an error: remember the script that it brought, or forget all.

        `flushes` as it was when the command was sent: what a flush has overtaken is not there any more. `now` is of the
        clock that all workers share. `account` is the client's.
        """
        if flushes != self.flushes:
            return
        name = args[0].upper()
        if name in _EVAL and len(args) > 1:
            self.bringer = account
            self._carried(args[1], now)
        elif name in _EVALSHA and len(args) > 1:
            self._called(args[1].lower())
        elif name == b"SCRIPT" and len(args) > 1:
            match args[1].upper():
                case b"LOAD" if len(args) == 3:
                    self.bringer = account
                    self._claim(self._carried(args[2], now), Claim.LOADED)
                case b"FLUSH":
                    self.bringer = account
                    self._forget_all()  # also what stood before it in its packet
                    self.flushed += 1
                    self.flushed_at = max(self.flushed_at, now)
                    self.on_flush()
                    self.on_news()

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

    @property
    def known(self) -> KeysView[bytes]:
        """The digests of all."""
        return self._bodies.keys()

    @property
    def latest(self) -> list[bytes]:
        """The same, the ones used last in front."""
        return list(reversed(self._bodies))

    def body(self, digest: bytes) -> bytes | None:
        """The script itself; None if it is not known any more."""
        return self._bodies.get(digest)

    def claim(self, digest: bytes) -> Claim:
        """How a client came to rely on it."""
        return self._claims.get(digest, Claim.EVALUATED)

    def forget(self, moment: float) -> None:
        """Another worker's client has flushed all, which was answered at that moment; what came later is there."""
        self.flushed_at = max(self.flushed_at, moment)
        self.forgotten += 1
        self._there.clear()
        for digest in [digest for digest, learned in self._learned.items() if learned < moment]:
            self._drop(digest)
        self.on_news()

    def hand_over(self) -> list[bytes]:
        """For another worker: claim and moment, body, claim and moment, body ..., the ones used last."""
        words: list[bytes] = []
        size = 0
        for digest, body in reversed(self._bodies.items()):
            size += len(body) + _OVERHEAD
            if size > _MOST_HANDED:
                break
            words += [body, f"{self.claim(digest).name} {self._learned[digest]}".encode()]
        return words[::-1]

    def take_over(self, words: Sequence[bytes]) -> None:
        """What another worker has handed over, without what was flushed since."""
        for word, body in zip(words[::2], words[1::2], strict=False):
            claim, _, moment = word.decode(errors="replace").partition(" ")
            learned = _seconds(moment)
            if learned < self.flushed_at:
                continue
            digest = self._carried(body, learned)
            if claim in (Claim.CALLED.name, Claim.LOADED.name) and self.claim(digest) is Claim.EVALUATED:
                self._claim(digest, Claim[claim])

    def take_news(self) -> Mapping[bytes, None]:
        """The digests that are new, or have a stronger claim, since the last time."""
        news, self._news = self._news, {}
        return news

    def _claim(self, digest: bytes, claim: Claim) -> None:
        if digest in self._bodies and self._claims.get(digest) is not claim:
            self._claims[digest] = claim
            self._tell(digest)

    def _called(self, digest: bytes) -> None:
        if digest in self._bodies and digest not in self._claims:
            self._claim(digest, Claim.CALLED)

    def _tell(self, digest: bytes) -> None:
        self._news[digest] = None
        if len(self._news) == 1:
            self.on_news()

    def _forget_all(self) -> None:
        self.forgotten += 1
        self._claims.clear()
        self._learned.clear()
        self._news.clear()
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

    def _carried(self, body: bytes, now: float) -> bytes:
        """A body has come by; returns its digest."""
        digest = self._digests.get(body)
        if digest is None:
            digest = sha1(body, usedforsecurity=False).hexdigest().encode()
            self._remember(digest, body, now)
        else:
            self._bodies.move_to_end(digest)
            self._learned[digest] = max(now, self._learned[digest])
        return digest

    def _remember(self, digest: bytes, body: bytes, now: float) -> None:
        if len(body) + _OVERHEAD > self._capacity:
            return
        self._bodies[digest] = body
        self._digests[body] = digest
        self._learned[digest] = now
        self._free -= len(body) + _OVERHEAD
        self._tell(digest)
        while self._free < 0:
            self._drop(next(iter(self._bodies)))

    def _drop(self, digest: bytes) -> None:
        body = self._bodies.pop(digest)
        self._claims.pop(digest, None)
        self._news.pop(digest, None)
        del self._digests[body], self._learned[digest]
        self._free += len(body) + _OVERHEAD
        for there in self._there.values():
            there.discard(digest)

    def _known(self, process: str) -> set[bytes]:
        there = self._there.get(process)
        if there is None:
            if len(self._there) == _PROCESSES:
                del self._there[next(iter(self._there))]
            there = self._there[process] = set()
        return there


def _seconds(moment: str) -> float:
    """When a script came; workers of a former version do not say it."""
    try:
        return float(moment)
    except ValueError:
        return -inf
