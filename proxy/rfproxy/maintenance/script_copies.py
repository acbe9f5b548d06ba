"""Scripts that clients were promised are given to the replicas, too: whichever becomes the master knows them then.

A server learns a script from SCRIPT LOAD or EVAL, and does not tell its replicas. One proxy could load what it has
seen into a new master, but another worker, another proxy or the same one after a restart cannot. So each worker sees to
it that the replicas have what it has seen, ahead:

    a script is new ──┐
                      ├──> SCRIPT EXISTS ──> SCRIPT LOAD of those that are not there
    a replica is new ─┘    one packet at a time for each replica, PAUSE between two

A replica is new when its process is; a connection that ended, and the same process behind the next one, changes
nothing. SCRIPT FLUSH goes to the replicas as well, by the worker whose client has said it. The other workers hear of it
at once, and again when a replica has done it: what they had given to that one since is gone, so they look again. All of
it is done under the proxy's own account, or, where that may not, under the client's that brought the last script. Where
neither may, it is not done, which is said once; clients do not notice, and the proxy's own memory (`scripts`) remains.

What bounds it: the memory of `scripts`; AT_ONCE scripts or MOST_BYTES in a packet; and since Redis forgets none that
came by SCRIPT LOAD, while it forgets those that came by EVAL when there are many (since 7.4), MOST_COPIED and
MOST_BYTES_COPIED of the latter for each replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Final

from rfprotocol.backoff import Backoff
from rfprotocol.topology.topology import Node, Topology
from rfproxy.core.identity import REPLICA, Account, Identity, LaneKey
from rfproxy.core.peers import Answers
from rfproxy.maintenance.script_cache import Claim, Scripts
from rfproxy.maintenance.service_connection import Messenger, Refused, open_messenger
from rfproxy.upstream.handshake import Refusal
from rfproxy.upstream.router_port import RouterPort

AT_ONCE: Final = 100
"""Scripts in a packet. To compile one takes a server some 30 us, and nobody is served meanwhile."""
MOST_BYTES: Final = 256 * 1024
"""Of script bodies in a packet, unless there is only one."""
PAUSE: Final = 0.1
"""Seconds between two packets to a replica, and before new scripts are looked at: many come together."""
MOST_COPIED: Final[Mapping[Claim, float]] = {Claim.EVALUATED: 500, Claim.CALLED: 5000, Claim.LOADED: inf}
"""Scripts for one replica process. 500 is what Redis keeps itself of those that came by EVAL (LRU_LIST_LENGTH in
eval.c): a client that makes up a new script for each call must not fill the memory of replicas."""
MOST_BYTES_COPIED: Final[Mapping[Claim, float]] = {Claim.EVALUATED: 4 << 20, Claim.CALLED: 16 << 20, Claim.LOADED: inf}
"""Of their bodies, from all workers together."""
MOST_WAITING: Final[Mapping[Claim, int]] = {Claim.LOADED: 50_000, Claim.CALLED: 5000, Claim.EVALUATED: 500}
"""Scripts that wait to be copied to one replica, in this order. What comes when so many wait is not copied."""
FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 10.0
"""Seconds until a connection that failed is opened again, doubled from first to longest."""
MOST_LOST: Final = 2
"""Connections that may end over loading a script, the second time over it alone; after that it is not loaded again."""
REFUSED_FOR: Final = 60.0
"""Seconds until it is tried again where no account may: each refusal stands in the server's ACL LOG."""


class Copies:
    """Those of one worker, for all replicas. Times are seconds of the caller's monotonic clock."""

    def __init__(self, router: RouterPort, scripts: Scripts) -> None:
        self.due = inf
        """When there is something to do."""
        self._router = router
        self._scripts = scripts
        self._replicas: dict[Node, _Replica] = {}
        self._rested = 0.0  # when the next look may be
        self._telling = self._untold = False
        self._off = False
        scripts.on_news = self._heard
        scripts.on_flush = self.tell_flush

    def _heard(self) -> None:
        """There are new scripts, or some have been forgotten."""
        self.wake(self._rested)

    def wake(self, when: float) -> None:
        """There will be something to do at that time."""
        when = max(when, self._rested)
        if when < self.due and not self._off:
            self.due = when
            self._router.wake_chores(when)

    def follow(self, topology: Topology, now: float) -> None:
        """The topology is another one."""
        if not self._off:
            self._attend_to(lambda now: self._follow(topology, now), now)

    def _follow(self, topology: Topology, now: float) -> None:
        known = {*topology.replicas, *topology.unavailable, topology.master}
        self._replicas = {node: replica for node, replica in self._replicas.items() if node in known}
        for replica in self._replicas.values():
            replica.lists(listed=replica.node in topology.replicas)
        for node in topology.replicas:
            if node not in self._replicas:
                self._replicas[node] = _Replica(node, self, self._router, self._scripts)
        if self._scripts.known or self._scripts.flushed:
            self.wake(now)

    def attend(self, now: float) -> None:
        """Do what is due."""
        if now >= self.due:
            self._attend_to(self._go_on, now)

    def _attend_to(self, what: Callable[[float], None], now: float) -> None:
        """Do something for which nobody waits, while others have to be attended to."""
        try:
            what(now)
        except Exception as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Something went wrong that should not be possible. No command fails for want of this."""
        if self._off:
            return
        self._off, self.due = True, inf
        self._replicas = {}
        problem = f"scripts are not loaded into replicas ahead any more, until rfproxy is restarted: {error!r}"
        self._router.log.warning("defect", error=problem, exc_info=error)

    def _go_on(self, now: float) -> None:
        self._rested, self.due = now + PAUSE, inf
        news = self._scripts.take_news()
        for replica in self._replicas.values():
            replica.heard(news)
            replica.go_on(now)

    def tell_flush(self) -> None:
        """The master or a replica has forgotten all: the other workers hear of it, several times at once only once."""
        peers = self._router.peers
        self._untold = self._telling
        if peers is not None and not self._telling:
            self._telling = True
            peers.ask([b"FLUSHED", str(self._scripts.flushed_at).encode()], None, self._told)

    def _told(self, answers: Answers, now: float) -> None:
        self._telling = False
        if self._untold:
            self.tell_flush()


class _Replica:
    """One replica, and what its process has of the scripts."""

    def __init__(self, node: Node, copies: Copies, router: RouterPort, scripts: Scripts) -> None:
        self.node = node
        self._listed = True
        self._lane: Messenger | None = None
        self._copies = copies
        self._router = router
        self._scripts = scripts
        self._process = ""  # that the rest is true of
        self._unsure = False  # whether it is still that one
        self._flushes = scripts.flushed
        self._forgotten = scripts.forgotten
        self._waiting: dict[Claim, dict[bytes, None]] = {claim: {} for claim in MOST_WAITING}
        self._under_way: list[bytes] = []
        self._loads: list[bytes] = []  # those among them that it was told to load
        self._lost: dict[bytes, int] = {}  # times that the connection ended over them
        self._there: set[bytes] = set()
        self._copied = dict.fromkeys(Claim, 0)
        self._bytes_copied = dict.fromkeys(Claim, 0)
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self._refused: set[Account | None] = set()  # accounts that may not do it
        self._rests_until = -inf  # because none may
        self._said = False
        self._queue(scripts.latest)

    def lists(self, *, listed: bool) -> None:
        """Whether it is one of the replicas now."""
        if listed and not self._listed:
            self._backoff.succeeded()  # it is known to be well again
        self._listed = listed

    def heard(self, digests: Iterable[bytes]) -> None:
        """These scripts are new, or have a stronger claim."""
        if self._forgotten != self._scripts.forgotten:
            self._forgotten = self._scripts.forgotten
            self._there.clear()
            self._lost = {digest: times for digest, times in self._lost.items() if digest in self._scripts.known}
            digests = self._scripts.latest  # another worker's flush may have removed these, too
        self._queue(digests)

    def _queue(self, digests: Iterable[bytes]) -> None:
        for digest in digests:
            claim = self._scripts.claim(digest)
            waiting = self._waiting[claim]
            if digest not in self._there and len(waiting) < MOST_WAITING[claim]:
                waiting[digest] = None

    def go_on(self, now: float) -> None:
        """Do what can be done."""
        lane = self._lane
        unsure = self._unsure and bool(self._scripts.known)
        waits = any(self._waiting.values())
        if not self._listed or not (unsure or waits or self._flushes != self._scripts.flushed):
            return
        if lane is None:
            self._open(now)
        elif lane.free:
            self._next(lane, now)

    def _open(self, now: float) -> None:
        start = max(self._backoff.due, self._rests_until)
        if start > now:
            self._copies.wake(start)
            return
        accounts = self._accounts()
        self._refused.intersection_update(accounts)
        if self._refused.issuperset(accounts):
            self._refused.clear()
        account = next(one for one in accounts if one not in self._refused)
        key = LaneKey(self.node, REPLICA, Identity(account=account))
        self._lane = open_messenger(self._router, key, ready=self._ready, over=self._over, defect=self._copies.give_up)

    def _accounts(self) -> list[Account | None]:
        """Under which to try, in this order."""
        return list(dict.fromkeys([self._router.policy.account, self._scripts.bringer]))

    def _ready(self, now: float) -> None:
        lane = self._lane
        if lane is None or lane.welcome is None:
            return
        self._unsure = False
        process = lane.welcome.run_id
        if not process or process != self._process:
            if process and self._process:  # it was started again, and has none
                self._flushes = self._scripts.flushed
                self._count_anew()
            self._process = process
            self._there.clear()
            self._queue(self._scripts.latest)
        self._next(lane, now)

    def _count_anew(self) -> None:
        """The process has none of the scripts that were copied."""
        self._copied = dict.fromkeys(Claim, 0)
        self._bytes_copied = dict.fromkeys(Claim, 0)

    def _over(self, now: float) -> None:
        lane, self._lane = self._lane, None
        self._unsure = True
        for digest in self._loads:
            self._lost[digest] = self._lost.get(digest, 0) + 1
        self._queue(self._under_way)
        self._under_way, self._loads = [], []
        denied = lane is not None and lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED
        if denied and lane is not None:
            self._refuse(lane, lane.welcome.text if lane.welcome is not None else "", now)
        self._copies.wake(self._backoff.failed(now))

    def _refuse(self, lane: Messenger, text: str, now: float) -> None:
        account = lane.key.identity.account
        self._refused.add(account)
        if account == self._scripts.bringer:
            self._scripts.bringer = self._router.policy.account  # a client's password is not kept for nothing
        if not self._refused.issuperset(self._accounts()):
            return
        self._refused.clear()
        self._rests_until = now + REFUSED_FOR
        if not self._said:
            self._said = True
            self._router.log.warning(
                "scripts_not_copied",
                node=str(self.node),
                error=f"scripts are not loaded into this replica ahead ({text}): give the proxy's account "
                "+script|load +script|exists +script|flush",
            )

    def _next(self, lane: Messenger, now: float) -> None:
        """Send the next packet, if there is anything to say."""
        if self._flushes != self._scripts.flushed:
            flushes = self._scripts.flushed

            def flushed(replies: list[Any], now: float) -> None:
                if self._judged(replies, lane, now):
                    self._flushes = flushes
                    self._count_anew()
                    self._backoff.succeeded()
                    self._copies.tell_flush()
                    self._copies.wake(now)

            lane.tell([[b"SCRIPT", b"FLUSH"]], flushed, now)
            return
        asked, forgotten = self._chosen(), self._scripts.forgotten
        self._under_way = asked
        if not asked:
            return

        def heard(replies: list[Any], now: float) -> None:
            if self._judged(replies, lane, now) and isinstance(replies[0], list):
                there = {digest for digest, known in zip(asked, replies[0], strict=False) if known}
                if forgotten == self._scripts.forgotten:
                    self._there |= there
                self._load([digest for digest in asked if digest not in there], lane, now)
            elif lane is self._lane:
                self._done(now)

        lane.tell([[b"SCRIPT", b"EXISTS", *asked]], heard, now)

    def _chosen(self) -> list[bytes]:
        """The next scripts, which wait no more; without those that are forgotten, useless or too many.

        One over which a connection has ended comes alone.
        """
        chosen: list[bytes] = []
        size = 0
        for claim, waiting in self._waiting.items():
            for digest in list(waiting):
                body = self._scripts.body(digest)
                useless = digest in self._there or self._lost.get(digest, 0) >= MOST_LOST
                if body is None or useless or not self._fits(claim, 1, len(body)):
                    del waiting[digest]
                    continue
                size += len(body)
                if len(chosen) == AT_ONCE or (chosen and (size > MOST_BYTES or digest in self._lost)):
                    return chosen
                del waiting[digest]
                chosen.append(digest)
                if digest in self._lost:
                    return chosen
        return list(dict.fromkeys(chosen))  # one may have got a stronger claim meanwhile

    def _fits(self, claim: Claim, count: int, size: int) -> bool:
        """Whether so many more scripts of one claim, with so many bytes, may be copied to this process."""
        most = MOST_BYTES_COPIED[claim] / self._router.policy.workers
        return self._copied[claim] + count <= MOST_COPIED[claim] and self._bytes_copied[claim] + size <= most

    def _fitting(self, digests: list[bytes]) -> dict[bytes, bytes]:
        """The bodies of those that are not forgotten, nor too many."""
        bodies: dict[bytes, bytes] = {}
        counts, sizes = dict.fromkeys(Claim, 0), dict.fromkeys(Claim, 0)
        for digest in digests:
            body, claim = self._scripts.body(digest), self._scripts.claim(digest)
            if body is not None and self._fits(claim, counts[claim] + 1, sizes[claim] + len(body)):
                bodies[digest] = body
                counts[claim] += 1
                sizes[claim] += len(body)
        return bodies

    def _load(self, digests: list[bytes], lane: Messenger, now: float) -> None:
        forgotten = self._scripts.forgotten
        bodies = self._fitting(digests)

        def loaded(replies: list[Any], now: float) -> None:
            if self._judged(replies, lane, now):
                self._backoff.succeeded()
                for digest, body in bodies.items():
                    claim = self._scripts.claim(digest)
                    self._copied[claim] += 1
                    self._bytes_copied[claim] += len(body)
                    self._lost.pop(digest, None)
                if forgotten == self._scripts.forgotten:
                    self._there |= bodies.keys()
                self._router.stats.scripts_copied += len(bodies)
                self._done(now)

        if bodies and self._flushes == self._scripts.flushed and self._forgotten == forgotten:
            self._loads = list(bodies)
            lane.tell([[b"SCRIPT", b"LOAD", body] for body in bodies.values()], loaded, now)
        else:
            if not bodies and not any(self._waiting.values()):
                self._backoff.succeeded()
            self._done(now)

    def _done(self, now: float) -> None:
        """Go on with the next ones; do not remember more of this replica than of the scripts themselves."""
        self._under_way, self._loads = [], []
        self._copies.wake(now)
        if len(self._there) > 2 * len(self._scripts.known) + 1000:
            self._there &= self._scripts.known

    def _judged(self, replies: list[Any], lane: Messenger, now: float) -> bool:
        """Whether the server has done what it was told; if not, it is told again, later or under another account."""
        refused = next((one for one in replies if isinstance(one, Refused) and not one.about_arguments), None)
        self._loads = []  # it has answered
        if refused is None:
            return True
        if refused.lasting:
            self._refuse(lane, refused.text, now)
        self._router.discard(lane, now)
        return False
