"""What clients read from replicas counts at the master, too, where it evicts what was not used for long.

A master with a `maxmemory-policy` that ends in -lru or -lfu drops the keys that it was least asked for. Those that are
only read on replicas it would take for unused, and drop first. So the keys that were read on replicas are named to the
master by TOUCH, each of them once in PERIOD at most:

    packets for a replica ── not seen in this period ──> keys ── at its end ──> TOUCH key key ... ──> master

Reads are looked at when they are sent, only under such a policy, and only as long as there is room: of what is read in
a period beyond MOST_LOOKED or MOST_BYTES nothing is noted, so that what is read most often has the best chance.
The client's own account is used, since it may read the keys; where it may not say TOUCH, the proxy's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Final

from rfprotocol.backoff import Backoff
from rfprotocol.resp.command_table import keys, lookup
from rfprotocol.topology.topology import Node, Topology
from rfproxy.core.identity import MASTER, Account, Identity, LaneKey
from rfproxy.core.work_items import Run
from rfproxy.maintenance.service_connection import Messenger, Refused, open_messenger
from rfproxy.upstream.connection import ReadObserver
from rfproxy.upstream.handshake import Refusal
from rfproxy.upstream.router_port import RouterPort

PERIOD: Final = 1.0
"""Seconds. LRU clocks of Redis count in seconds (LRU_CLOCK_RESOLUTION in server.h)."""
MOST_LOOKED: Final = 10_000
"""Commands and keys, counted together, that are looked at in a period: about 2 % of a CPU of the proxy. What is read
again in the same packet costs no look."""
MOST_BYTES: Final = 4 << 20
"""Bytes of them, which are kept until the end of the period."""
MOST_PACKET: Final = 64 * 1024
"""Bytes of what is looked at: to read more at once would hold up everybody."""
AT_ONCE: Final = 100
"""Keys in one TOUCH: others are served in between."""
MOST_IDENTITIES: Final = 16
"""Accounts and databases that are served at the same time: each needs a connection to the master."""
MOST_KNOWN: Final = 1000
"""Accounts and databases that are remembered; that whose last connection was opened longest ago is forgotten first."""
IDLE: Final = 60.0
"""Seconds after which a connection that is not used any more is closed."""
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds until a connection that failed is opened again, doubled from first to longest."""
REFUSED_FOR: Final = 60.0
"""Seconds until an account is tried again that may not say TOUCH: each refusal stands in the master's ACL LOG."""

_SILENT: Final = frozenset(["EXISTS", "TYPE", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"])
"""Reads that do not count as a use at a Redis server either (LOOKUP_NOTOUCH in db.c and expire.c)."""


def evicts_by_use(topology: Topology) -> bool:
    """Whether the master drops what was not used for long."""
    return topology.eviction.endswith(("-lru", "-lfu"))


class Reads(ReadObserver):
    """What one identity has read in this period; its lanes share it."""

    __slots__ = ("_whole", "identity", "keys", "seen")

    def __init__(self, identity: Identity, whole: Recency) -> None:
        super().__init__(room=whole.room)
        self.identity = identity
        self.seen: set[bytes] = set()  # packets
        self.keys: dict[bytes, None] = {}
        self._whole = whole

    def saw(self, runs: Sequence[Run], now: float) -> None:
        """These reads are sent to a replica."""
        try:
            seen = self.seen
            for run in runs:
                if run.raw not in seen:
                    self._whole.note(self, run, now)
        except Exception as error:  # they have to be sent nevertheless
            self._whole.give_up(error)


class Recency:
    """Of one worker. Times are seconds of the caller's monotonic clock."""

    def __init__(self, router: RouterPort) -> None:
        self.due = inf
        """When the period ends."""
        self.room = True
        """Whether what is read is looked at."""
        self.most_looked = MOST_LOOKED
        self._router = router
        self._master: Node | None = None
        self._size = 0
        self._looked = 0
        self._all: dict[Identity, Reads] = {}  # the one that was asked for last is the last one
        self._active: list[Reads] = []  # those with something in this period
        self._off = False
        self._failing: dict[Identity, Backoff] = {}  # connections
        self._lanes: dict[Identity, Messenger] = {}
        self._refused: dict[Account | None, float] = {}  # until when it is not tried
        self._said = False

    def follow(self, topology: Topology) -> None:
        """The topology is another one; connections to a former master are closed by the router."""
        master = topology.master if evicts_by_use(topology) else None
        if master != self._master:
            self._failing.clear()
        self._master = master

    def reads_of(self, identity: Identity) -> Reads:
        """To be told what it reads."""
        reads = self._all.pop(identity, None)
        if reads is None:
            reads = Reads(identity, self)
            if len(self._all) >= MOST_KNOWN:
                self._all.pop(next(iter(self._all))).room = False  # what its lanes read counts no more
        self._all[identity] = reads
        return reads

    def note(self, reads: Reads, run: Run, now: float) -> None:
        """A packet that was not seen in this period."""
        if not reads.room or len(run.raw) > MOST_PACKET:
            return
        if not reads.seen:
            if len(self._active) == MOST_IDENTITIES:
                reads.room = False
                return
            self._active.append(reads)
            if self.due == inf:
                self.due = now + PERIOD
                self._router.wake_chores(self.due)
        reads.seen.add(run.raw)
        self._size += len(run.raw)
        for args in run.commands:
            left = self.most_looked - self._looked
            named = keys(args)[:left] if lookup(args).name not in _SILENT else ()
            self._looked += 1 + len(named)
            reads.keys.update(dict.fromkeys(named))
            if self._looked >= self.most_looked:
                break
        if self._looked >= self.most_looked or self._size >= MOST_BYTES:
            self._has_room(False)

    def _has_room(self, room: bool) -> None:
        self.room = room
        for reads in self._all.values():
            reads.room = room

    def attend(self, now: float) -> None:
        """Time has passed: name to the master what was read."""
        if now < self.due:
            return
        try:
            self._name(now)
        except Exception as error:  # others are to be attended to
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Something went wrong that should not be possible. No command fails for want of this."""
        if self._off:
            return
        self._off = True
        self.due = inf
        self._has_room(False)  # for good: it is the end of a period that would change that
        for reads in self._active:
            reads.seen, reads.keys = set(), {}
        self._active = []
        problem = f"reads on replicas are not named to the master any more, until rfproxy is restarted: {error!r}"
        self._router.log.warning("defect", error=problem, exc_info=error)

    def _name(self, now: float) -> None:
        active, self._active, self.due = self._active, [], inf
        self._size = self._looked = 0
        self._has_room(True)
        told: dict[Identity, dict[bytes, None]] = {}
        for reads in active:
            if reads.keys and (speaker := self._speaker(reads.identity, now)) is not None:
                told.setdefault(speaker, {}).update(reads.keys)
            reads.seen, reads.keys = set(), {}
        if self._router.open(now):
            for speaker, named in told.items():
                self._tell(speaker, list(named), now)

    def reap(self, now: float) -> None:
        """Close connections that nobody has used for long."""
        for lane in [lane for lane in self._lanes.values() if now - max(lane.used, lane.heard) > IDLE and lane.free]:
            self._router.discard(lane, now)
        self._failing = {one: backoff for one, backoff in self._failing.items() if now < backoff.due + LONGEST_WAIT}

    def _speaker(self, identity: Identity, now: float) -> Identity | None:
        """As whom to name what this client has read."""
        own = self._router.policy.account
        allowed = [one for one in (identity.account, own) if self._refused.get(one, -inf) <= now]
        return Identity(identity.db, account=allowed[0]) if allowed else None

    def _tell(self, speaker: Identity, named: list[bytes], now: float) -> None:
        lane, backoff = self._lanes.get(speaker), self._failing.get(speaker)
        if lane is None and backoff is not None and now < backoff.due:
            return
        if lane is None and self._master is not None and len(self._lanes) < MOST_IDENTITIES:
            self._open(speaker, self._master, named)
        elif lane is not None and lane.free:
            self._touch(lane, named, now)

    def _open(self, speaker: Identity, master: Node, named: list[bytes]) -> None:
        def ready(now: float) -> None:
            self._touch(lane, named, now)

        def over(now: float) -> None:
            if self._lanes.get(speaker) is lane:
                del self._lanes[speaker]
            if lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED:
                self._refuse(lane, lane.welcome.text, now)
            if lane.failed:
                self._failing.setdefault(speaker, Backoff(FIRST_WAIT, LONGEST_WAIT)).failed(now)

        key = LaneKey(master, MASTER, speaker)
        lane = open_messenger(self._router, key, ready=ready, over=over, defect=self.give_up)
        self._lanes[speaker] = lane

    def _touch(self, lane: Messenger, named: list[bytes], now: float) -> None:
        def heard(replies: list[Any], now: float) -> None:
            refused = next((reply for reply in replies if isinstance(reply, Refused)), None)
            if refused is not None and refused.lasting:
                self._refuse(lane, refused.text, now)
            if refused is None:
                self._failing.pop(lane.key.identity, None)

        self._router.stats.reads_touched += len(named)
        lane.tell([[b"TOUCH", *named[at : at + AT_ONCE]] for at in range(0, len(named), AT_ONCE)], heard, now)

    def _refuse(self, lane: Messenger, text: str, now: float) -> None:
        self._refused = {one: until for one, until in self._refused.items() if until > now}
        self._refused[lane.key.identity.account] = now + REFUSED_FOR
        if not self._said and self._refused.get(self._router.policy.account, -inf) > now:
            self._said = True
            self._router.log.warning(
                "reads_not_touched",
                node=str(lane.key.node),
                error=f"the master evicts keys that are read on replicas only ({text}): give the users +touch, or set "
                "--reads master",
            )
