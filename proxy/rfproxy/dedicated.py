"""Dedicated connections: each carries the commands of one session. A pool per server and identity.

                     take                            give back
    session  ──────────────────>  idle connection  <───────────  session
        │                              ^
        ├── none is idle ──> open ─────┘ (at once if nothing failed; else one at a time, with back-off)
        └── none may be opened ──> wait, first come, first served

* Scripts and other commands that end by themselves share at most MOST_SCRIPTS connections of a pool: a session waits
  until one is given back, and does not open its own. Blocked, subscribed and transactional sessions hold theirs for as
  long as they like, so each gets one.
* A pool keeps as many connections as were in use at the same time during the last minute (`Peak`): connections that are
  closed leave their port in TIME_WAIT, and a host has 28,000 of them.
* Once a pool has been used, some connections of it are opened ahead. Taking one then costs no round trip, so the
  command is sent in the order in which it came, also beside commands that travel on shared connections.
* After a failure one session at a time tries again. A reply to a command ends that, not a greeting: a server that
  greets and then closes has not recovered.

No I/O. Times are seconds of the core's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rfprotocol.backoff import Backoff
from rfproxy.greeting import LaneKey
from rfproxy.lane import Lane

if TYPE_CHECKING:
    from rfproxy.session import Session

MOST_SCRIPTS: Final = 64
"""Connections of one pool that carry commands which end by themselves."""
MOST_SPARES: Final = 64
"""Connections that a pool holds ready at most, if its sessions often find none."""
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0
"""Seconds between attempts to open a connection after a failure; doubled from first to longest."""
WINDOWS: Final = 4
"""Calls of `Dedicated.reap` for which a peak is remembered: with one every 15 s, a minute."""


class Peak:
    """The greatest number of connections in use, over the latest windows of time."""

    def __init__(self) -> None:
        self._windows = [0] * WINDOWS

    def saw(self, number: int) -> None:
        """So many are in use now."""
        self._windows[0] = max(self._windows[0], number)

    def turn(self, number: int) -> None:
        """The next window begins, with so many in use."""
        self._windows = [number, *self._windows[:-1]]

    @property
    def recent(self) -> int:
        """The greatest number in all windows."""
        return max(self._windows)


class Pool:
    """The dedicated connections to one server under one identity."""

    def __init__(self, key: LaneKey, floor: int) -> None:
        """`floor`: connections to hold ready at least."""
        self.key = key
        self.idle: list[Lane] = []
        self.opening: dict[Lane, None] = {}
        """Connections that are opened ahead and not ready."""
        self.in_use: dict[Lane, bool] = {}
        """Connections of sessions; True for those that carry commands which end by themselves."""
        self.waiting: dict[Session, None] = {}
        self.backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self.attempts: set[Lane] = set()
        """Connections that have not been greeted yet."""
        self.reason = ""
        """Why the latest attempt failed, or why none is made."""
        self.peak = Peak()
        self.spares = floor
        self._floor = floor
        self._missed = False

    @property
    def scripts(self) -> int:
        """How many connections carry commands that end by themselves."""
        return sum(self.in_use.values())

    def missed(self) -> None:
        """A session found no connection ready: more are held ready from now on."""
        self._missed = True
        self.spares = min(2 * self.spares, MOST_SPARES)

    def turn(self) -> list[Lane]:
        """The next window of time begins. Returns idle connections that are more than the recent peak: to be closed."""
        self.peak.turn(len(self.in_use))
        if not self._missed:
            self.spares = max(self._floor, self.spares // 2)
        self._missed = False
        keep = max(self.peak.recent - len(self.in_use), self.spares)
        return self.idle[: max(0, len(self.idle) - keep)]

    @property
    def abandoned(self) -> bool:
        """Whether nobody has used it for as long as peaks are remembered."""
        return not self.in_use and not self.waiting and not self.peak.recent


class Dedicated:
    """The pools of one proxy process."""

    def __init__(self, opened: Callable[[LaneKey], Lane], *, spares: int, most: int = 0) -> None:
        """`opened` makes a connection; `spares`: how many the default identity's pool holds ready, once it was used.

        `most`: connections in all that may exist, 0 for no limit.
        """
        self._open = opened
        self._spares = spares
        self._most = most
        self._pools: dict[LaneKey, Pool] = {}
        self._of: dict[Lane, Pool] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._of))

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._of

    def __len__(self) -> int:
        return len(self._of)

    def take(self, key: LaneKey, session: Session, now: float, *, ends: bool) -> Lane | None:
        """A connection for this session, or None: then it waits, and is called when it may try again.

        `ends`: what it will carry ends by itself.
        """
        pool = self._pool(key)
        lane = pool.idle.pop() if pool.idle else self._another(pool, now, ends=ends)
        if lane is None:
            pool.waiting[session] = None
            return None
        pool.waiting.pop(session, None)
        pool.in_use[lane] = ends
        pool.peak.saw(len(pool.in_use))
        lane.guest = session
        self.replenish(pool, now)
        return lane

    def _another(self, pool: Pool, now: float, *, ends: bool) -> Lane | None:
        if ends and pool.scripts >= MOST_SCRIPTS:
            pool.reason = f"{MOST_SCRIPTS} scripts are under way"
            return None
        if self._most and len(self._of) >= self._most:
            pool.reason = f"this proxy may have {self._most} connections for single clients (limit of open files)"
            return None
        if not pool.backoff.may_begin(now):
            return None
        if pool.peak.recent:
            pool.missed()
        return self._opened(pool)

    def _opened(self, pool: Pool) -> Lane:
        lane = self._open(pool.key)
        self._of[lane] = pool
        pool.attempts.add(lane)
        pool.backoff.begin()
        return lane

    def replenish(self, pool: Pool, now: float) -> None:
        """Open connections ahead."""
        while (
            len(pool.idle) + len(pool.opening) < pool.spares
            and not pool.backoff.failing
            and pool.backoff.may_begin(now)
            and (not self._most or len(self._of) < self._most)
        ):
            pool.opening[self._opened(pool)] = None

    def warm(self, key: LaneKey, now: float) -> None:
        """There is a new server for the sessions of an identity that has used such connections: open some ahead."""
        self.replenish(self._pool(key), now)

    @property
    def pools(self) -> list[Pool]:
        """All pools."""
        return list(self._pools.values())

    @property
    def used(self) -> list[LaneKey]:
        """The keys of all pools."""
        return list(self._pools)

    def ready(self, lane: Lane, now: float) -> None:
        """The server has greeted this connection."""
        pool = self._of[lane]
        self._attempted(pool, lane)
        if lane in pool.opening:
            del pool.opening[lane]
            pool.idle.append(lane)
        self._wake(pool, now)

    def proven(self, lane: Lane, now: float) -> None:
        """The server has replied to a command on this connection."""
        if (pool := self._of.get(lane)) is not None:
            pool.backoff.succeeded()
            pool.reason = ""
            self._wake(pool, now)

    def give_back(self, lane: Lane, now: float) -> None:
        """A session needs its connection no more, and left nothing on it that the next one could meet."""
        pool = self._of[lane]
        del pool.in_use[lane]
        pool.idle.append(lane)
        self._wake(pool, now)

    def failed(self, lane: Lane, reason: str, now: float) -> float:
        """The connection ended before it was of use. Returns when the next attempt may be made. Before `forget`."""
        pool = self._of[lane]
        pool.reason = reason
        return pool.backoff.failed(now)

    def forget(self, lane: Lane) -> None:
        """The connection is closed, or about to be."""
        pool = self._of.pop(lane, None)
        if pool is None:
            return
        self._attempted(pool, lane)
        pool.in_use.pop(lane, None)
        pool.opening.pop(lane, None)
        if lane in pool.idle:
            pool.idle.remove(lane)

    def _attempted(self, pool: Pool, lane: Lane) -> None:
        if lane in pool.attempts:
            pool.attempts.discard(lane)
            pool.backoff.end()

    def wake(self, key: LaneKey, now: float) -> None:
        """A connection of that pool is closed: another one may be opened."""
        if (pool := self._pools.get(key)) is not None:
            self._wake(pool, now)

    def _wake(self, pool: Pool, now: float) -> None:
        """Call those that have waited longest, as long as there is a connection for them, or may be."""
        for session in list(pool.waiting):
            if not pool.idle and not pool.backoff.may_begin(now):
                return
            if session in pool.waiting:  # it may have left since
                del pool.waiting[session]
                session.attend(session.pump, now)

    def leave(self, session: Session) -> None:
        """A session waits no more."""
        for pool in self._pools.values():
            pool.waiting.pop(session, None)

    def why(self, session: Session) -> str:
        """Why this session waits for a connection, if it does."""
        for pool in self._pools.values():
            if session in pool.waiting:
                return f"no connection to {pool.key.node} for it alone: {pool.reason or 'one is being opened'}"
        return ""

    def dues(self) -> list[float]:
        """When sessions that wait may try again."""
        return [pool.backoff.due for pool in self._pools.values() if pool.waiting]

    def reap(self, now: float) -> list[Lane]:
        """Another window of time is over: connections that were more than enough during the last ones, to be closed."""
        excess: list[Lane] = []
        for key, pool in list(self._pools.items()):
            excess += pool.turn()
            if pool.abandoned:
                excess += [lane for lane in (*pool.idle, *pool.opening) if lane not in excess]
                del self._pools[key]
            else:
                self.replenish(pool, now)
        return excess

    def keep_only(self, wanted: Callable[[LaneKey], bool]) -> None:
        """The topology is another one: forget the pools of servers that are not used any more."""
        for key, pool in list(self._pools.items()):
            if not wanted(key) and not pool.waiting and not pool.in_use:
                del self._pools[key]

    def _pool(self, key: LaneKey) -> Pool:
        pool = self._pools.get(key)
        if pool is None:
            default = key.identity.db == 0 and key.identity.protocol == 2 and key.identity.account is None
            pool = self._pools[key] = Pool(key, self._spares if default else min(1, self._spares))
        return pool
