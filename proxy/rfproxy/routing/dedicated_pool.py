"""Dedicated connections: each carries the commands of one session. A pool per server and identity.

                     take                            give back
    session  ──────────────────>  idle connection  <───────────  session
        │                              ^
        ├── none is idle ──> open ─────┘ (at once if nothing failed; else one at a time, with back-off)
        └── none may be opened ──> wait, first come, first served

* Scripts and other commands that end by themselves share at most MOST_SCRIPTS connections of a pool: a session waits
  until one is given back, and does not open its own. Blocked, subscribed and transactional sessions hold theirs for as
  long as they like, so each gets one. The same holds for a script whose client does not read the reply, or which lasts
  for longer than a window (of `reap`): it is no longer counted, or a few clients could hold up all others.
* Where the limit of all connections is reached, one that is idle in another pool makes room.
* A pool keeps as many connections as were in use at the same time during the last minute (`Peak`): connections that are
  closed leave their port in TIME_WAIT, and a host has 28,000 of them.
* Once a pool has been used, some connections of it are opened ahead. Taking one then costs no round trip, so the
  command is sent in the order in which it came, also beside commands that travel on shared connections.
* After a failure one session at a time tries again. A reply to a command ends that, not a greeting: a server that
  greets and then closes has not recovered.

No I/O. Times are seconds of the core's clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from rfprotocol.backoff import Backoff
from rfproxy.core.identity import LaneKey
from rfproxy.core.work_items import ReplyTarget
from rfproxy.routing.waiter import Waiter
from rfproxy.upstream.connection import Lane

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


class Queue:
    """Sessions that wait for a connection of one pool, first come, first served.

    Those with a command that ends by itself stand in a line of their own, as they may have to wait when others need
    not. Whatever is done for one session costs the same for any number of them.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._ending: OrderedDict[Waiter, int] = OrderedDict()
        self._lasting: OrderedDict[Waiter, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ending) + len(self._lasting)

    def __contains__(self, session: Waiter) -> bool:
        return session in self._ending or session in self._lasting

    def join(self, session: Waiter, *, ends: bool) -> None:
        """A session waits; one that does so already keeps its place."""
        line, other = (self._ending, self._lasting) if ends else (self._lasting, self._ending)
        other.pop(session, None)
        if session not in line:
            line[session] = next(self._numbers)

    def leave(self, session: Waiter) -> None:
        """A session waits no more; no error if it did not."""
        self._ending.pop(session, None)
        self._lasting.pop(session, None)

    def first(self, *, scripts: bool) -> Waiter | None:
        """The one that has waited longest; `scripts`: also among those with a command that ends by itself."""
        lines = [line for line in (self._ending if scripts else None, self._lasting) if line]
        if not lines:
            return None
        return min((next(iter(line.items())) for line in lines), key=lambda head: head[1])[0]


class Pool:
    """The dedicated connections to one server under one identity."""

    def __init__(self, key: LaneKey, floor: int) -> None:
        """`floor`: connections to hold ready at least."""
        self.key = key
        self.idle: dict[Lane, None] = {}
        """The one that was given back last at the end."""
        self.opening: dict[Lane, None] = {}
        """Connections that are opened ahead and not ready."""
        self.in_use: dict[Lane, bool] = {}
        """Connections of sessions; True for those that count among the scripts."""
        self.scripts = 0
        """How many carry commands that end by themselves, as far as is known."""
        self.waiting = Queue()
        self.backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self.attempts: set[Lane] = set()
        """Connections that have not been greeted yet."""
        self.reason = ""
        """Why the latest attempt failed, or why none is made."""
        self.peak = Peak()
        self.spares = floor
        self._floor = floor
        self._missed = False
        self._before: dict[Lane, ReplyTarget | None] = {}  # scripts that were under way when this window began

    def use(self, lane: Lane, *, ends: bool) -> None:
        """A session has this connection; `ends`: for a command that ends by itself."""
        self.in_use[lane] = ends
        self.scripts += ends
        self.peak.saw(len(self.in_use))

    def used(self, lane: Lane) -> None:
        """No session has it any more; no error if none had."""
        self.scripts -= self.in_use.pop(lane, False)

    def lasts(self, lane: Lane) -> None:
        """What it carries does not end by itself, or not soon."""
        if self.in_use.get(lane):
            self.in_use[lane] = False
            self.scripts -= 1

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
        for lane in [lane for lane, session in self._before.items() if lane.guest is session]:
            self.lasts(lane)
        self._before = {lane: lane.guest for lane, ends in self.in_use.items() if ends}
        keep = max(self.peak.recent - len(self.in_use), self.spares)
        return list(self.idle)[: max(0, len(self.idle) - keep)]

    @property
    def abandoned(self) -> bool:
        """Whether nobody has used it for as long as peaks are remembered."""
        return not self.in_use and not self.waiting and not self.peak.recent


class Dedicated:
    """The pools of one proxy process."""

    def __init__(
        self,
        opened: Callable[[LaneKey], Lane],
        discard: Callable[[Lane, float], None],
        *,
        spares: int,
        most: int = 0,
    ) -> None:
        """`opened` makes a connection, `discard` closes one that is idle.

        `spares`: how many the default identity's pool holds ready, once it was used. `most`: connections in all that
        may exist, 0 for no limit.
        """
        self._open = opened
        self._discard = discard
        self._spares = spares
        self._most = most
        self._pools: dict[LaneKey, Pool] = {}
        self._of: dict[Lane, Pool] = {}
        self._short: dict[LaneKey, None] = {}
        """Pools for whose sessions there was no room."""
        self._making_room = False

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._of))

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._of

    def __len__(self) -> int:
        return len(self._of)

    def take(self, key: LaneKey, session: Waiter, now: float, *, ends: bool) -> Lane | None:
        """A connection for this session, or None: then it waits, and is called when it may try again.

        `ends`: what it will carry ends by itself.
        """
        pool = self._pool(key)
        lane = self._obtained(pool, now, ends=ends)
        if lane is None:
            pool.waiting.join(session, ends=ends)
            return None
        pool.waiting.leave(session)
        pool.use(lane, ends=ends)
        lane.guest = session
        self.replenish(pool, now)
        return lane

    def _obtained(self, pool: Pool, now: float, *, ends: bool) -> Lane | None:
        if ends and pool.scripts >= MOST_SCRIPTS:
            pool.reason = f"{MOST_SCRIPTS} scripts are under way"
            return None
        if pool.idle:
            return pool.idle.popitem()[0]
        if not pool.backoff.may_begin(now):
            return None
        if self._full:
            self._make_room(now)
        if self._full:
            self._short[pool.key] = None
            pool.reason = f"this proxy may have {self._most} connections for single clients (limit of open files)"
            return None
        if pool.peak.recent:
            pool.missed()
        return self._opened(pool)

    @property
    def _full(self) -> bool:
        return 0 < self._most <= len(self._of)

    def _make_room(self, now: float) -> None:
        """Close an idle connection of another pool, for the session that asks: nobody else is called meanwhile.

        It may be waiting itself, and in the middle of its queue: called now, it would say what comes next first.
        """
        lane = next((next(iter(pool.idle)) for pool in self._pools.values() if pool.idle), None)
        if lane is not None:
            self._making_room = True
            self._discard(lane, now)
            self._making_room = False

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
            and not self._full
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
            self._is_idle(pool, lane, now)
        else:
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
        pool.used(lane)
        self._is_idle(pool, lane, now)

    def _is_idle(self, pool: Pool, lane: Lane, now: float) -> None:
        """A connection may be used by whoever waits; if nobody does so here, it makes room for those of other pools."""
        pool.idle[lane] = None
        self._wake(pool, now)
        if self._short and self._full and lane in pool.idle:
            self._discard(lane, now)

    def lasts(self, lane: Lane, now: float) -> None:
        """What a connection carries does not end by itself any more: its client does not read the reply."""
        if (pool := self._of.get(lane)) is not None:
            pool.lasts(lane)
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
        pool.used(lane)
        pool.opening.pop(lane, None)
        pool.idle.pop(lane, None)

    def _attempted(self, pool: Pool, lane: Lane) -> None:
        if lane in pool.attempts:
            pool.attempts.discard(lane)
            pool.backoff.end()

    def wake(self, key: LaneKey, now: float) -> None:
        """A connection of that pool is closed: another one may be opened, in any pool if there was no room before."""
        if self._making_room:
            return
        if (pool := self._pools.get(key)) is not None:
            self._wake(pool, now)
        while self._short and not self._full:
            short = self._pools.get(next(iter(self._short)))
            del self._short[next(iter(self._short))]
            if short is not None:
                self._wake(short, now)

    def _wake(self, pool: Pool, now: float) -> None:
        """Call those that have waited longest, as long as there is a connection for them, or may be."""
        for _ in range(len(pool.waiting)):
            if not pool.idle and self._full:
                self._short[pool.key] = None
                return
            if not pool.idle and not pool.backoff.may_begin(now):
                return
            session = pool.waiting.first(scripts=pool.scripts < MOST_SCRIPTS)
            if session is None:
                return
            pool.waiting.leave(session)
            session.attend(session.pump, now)

    def leave(self, session: Waiter) -> None:
        """A session waits no more."""
        for pool in self._pools.values():
            pool.waiting.leave(session)

    def why(self, session: Waiter) -> str:
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
        excess: dict[Lane, None] = {}
        for key, pool in list(self._pools.items()):
            excess.update(dict.fromkeys(pool.turn()))
            if pool.abandoned:
                excess.update(dict.fromkeys((*pool.idle, *pool.opening)))
                del self._pools[key]
            else:
                self._wake(pool, now)
                self.replenish(pool, now)
        return [lane for lane in excess if lane.guest is None]

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
