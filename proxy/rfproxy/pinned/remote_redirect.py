"""CLIENT TRACKING ... REDIRECT to a client of another worker.

    tracker ── FarTarget ── worker A ── questions ──> worker B ── FarCaller ── target ── own connection ── server
                                     <── MOVED ──

The target's worker opens its own connection and keeps it; the tracker's worker gives the server the id of that. Ids
mean something to one server process only, so they travel together with its name.

    REACH id worker          process, and the id there of the target's connection once it is open; nothing: it is gone
    LEAVE id worker          nobody of that worker needs it any more
    FORGET id protocol       the target is told to forget all keys, in the form for a tracker with that protocol
    MOVED id [process [id]]  to the tracker's worker: what REACH would be answered now

Messages may be lost, and workers die. So REACH is asked again from time to time (`RENEWED` seconds): the answer puts
right what the tracker's worker takes for true, and a target whose callers do not ask any more is released. A target
whose worker does not answer is given up after `MISSES` times, and at once when somebody waits for it, it should forget
something, or the server says that it is gone. Perhaps it is not, and never hears of it. So the tracker must: one that
speaks RESP3 is told that the redirection is broken, others are closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rfproxy.core.peers import Answers, RemoteClient, owner
from rfproxy.core.work_items import Place
from rfproxy.pinned import redirect_connection
from rfproxy.pinned.session_registry import sessions_of
from rfproxy.semantics import tracking
from rfproxy.semantics.tracking import NOBODY

if TYPE_CHECKING:
    from rfproxy.core.peers import Peers
    from rfproxy.routing.router import Router
    from rfproxy.session.session import Session

RENEWED = 15.0
"""Seconds between questions whether a target is still there (the router's `reap`)."""
POLLED = 1.0
"""The same while somebody waits for it: its worker may be gone meanwhile."""
EXPIRES = 4 * RENEWED
"""Seconds after which a target is released that nobody has asked for."""
MISSES = 3


class FarTarget(RemoteClient):
    """A client of another worker, as the one sees it whose clients have it told. Stands in for a Session there."""

    def __init__(self, router: Router, peers: Peers, number: int, process: int) -> None:
        """`process`: this worker's."""
        super().__init__()
        self.number = number
        self.place: Place | None = None
        """Where the server finds it, as far as is known."""
        self.gone = False
        self.callers: dict[Session, None] = {}
        self._router = router
        self._peers = peers
        self._process = process
        self._asking = False
        self._overtaken = False  # by something that its worker said unasked
        self._asked_for = ""  # the server's process
        self._missed = 0
        self._refused: Place | None = None  # by the server
        self._broken: dict[Session, None] = {}  # trackers that the server has told that it is gone

    def reach(self, session: Session, now: float) -> bytes | None:
        """The server's id of its connection, NOBODY if it is gone; None until that is known, then `pump` is called."""
        process = self._router.process
        if self.gone:
            self.release(session)
            return NOBODY
        self.callers[session] = None
        self._router.far_targets[self.number] = self
        if self.place is not None and self.place.process == process:
            return self.place.number
        if self._asked_for != process:
            self._asked_for = process
            self.renew()
        self.due = min(self.due, now + POLLED)
        self._router.wake_at(self.due)
        return None

    def release(self, session: Session) -> None:
        """One tracker needs it no more."""
        self.callers.pop(session, None)
        self._broken.pop(session, None)
        if self.callers:
            return
        if self._router.far_targets.get(self.number) is self:
            del self._router.far_targets[self.number]
        if not self.gone:
            self._ask([b"LEAVE", b"%d" % self.number, b"%d" % self._process], _ignore)

    def forget_all(self, protocol: int) -> None:
        """What a tracker with that protocol has tracked may have changed."""

        def heard(answers: Answers, now: float) -> None:
            if not answers:
                self._give_up(now)

        self._ask([b"FORGET", b"%d" % self.number, b"%d" % protocol], heard)

    def said_broken(self, session: Session) -> None:
        """The server could not tell it: is it gone, or does it have another connection?"""
        self._broken[session] = None
        self.renew()

    def has_moved(self, session: Session) -> bool:
        """The server knows no connection with that id: ask for a newer one. False if its worker has insisted on it."""
        if self.place is not None and self.place == self._refused:
            return False
        self._refused, self.place = self.place or self._refused, None
        self.said_broken(session)
        return True

    def renew(self) -> None:
        """Ask where it is."""
        if self._asking or self.gone:
            return
        self._asking, self._overtaken = True, False
        self._ask([b"REACH", b"%d" % self.number, b"%d" % self._process], self._heard)

    def poll(self, now: float) -> None:
        """Ask again if it is time to."""
        if now < self.due:
            return
        self.due = now + POLLED if self._is_waited_for else math.inf
        if self._is_waited_for:
            self.renew()

    @property
    def _is_waited_for(self) -> bool:
        return self.place is None or self.place.process != self._router.process

    def _ask(self, words: list[bytes], heard: Callable[[Answers, float], None]) -> None:
        self._peers.ask(words, frozenset([owner(self.number)]), heard)

    def _heard(self, answers: Answers, now: float) -> None:
        self._asking = False
        if answers:
            self._missed = 0
            if not self._overtaken:
                self._found(answers[0], now)
            return
        self._missed += 1
        if self._is_waited_for or self._broken or self._missed >= MISSES:
            self._give_up(now)

    def moved(self, words: list[bytes], now: float) -> None:
        """Its worker says where it is, unasked. What it was asked before may be answered later."""
        self._overtaken = True
        self._found(words, now)

    def _found(self, words: list[bytes], now: float) -> None:
        if self.gone:
            return
        if not words:
            self._end(now)
            return
        place = Place(words[0].decode(errors="replace"), words[1]) if len(words) == 2 else None
        self._broken.clear()
        if place != self.place:
            self.place = place
            self._call_back(now)

    def _give_up(self, now: float) -> None:
        """Nobody knows whether it is there, and what it has been told."""
        if self.gone:
            return
        for caller in self._trackers():
            if caller.identity.protocol == 3:
                self._broken[caller] = None
            else:
                caller.complain("CLIENT TRACKING", "closed: the worker of the client to be told does not answer")
                caller.client.close()
                caller.close(now)
        self._end(now)

    def _trackers(self) -> list[Session]:
        """Those for which the server tells it."""
        return [one for one in self.callers if one.ties is not None and one.ties.target is self]

    def _end(self, now: float) -> None:
        self.gone = True
        callers, trackers = list(self.callers), self._trackers()
        for caller in trackers:
            if caller.ties is not None:
                caller.ties.target = None
            if caller in self._broken and caller.identity.protocol == 3:
                caller.wire_to_client.write(tracking.broken(self.number))
            self.release(caller)
        for caller in callers:  # those that wait hear from the server that there is no such client
            caller.attend(caller.pump, now)

    def _call_back(self, now: float) -> None:
        for caller in list(self.callers):
            caller.attend(caller.pump, now)


class FarCaller:
    """Another worker, some clients of which have a client of this one told. Stands in for a Session there."""

    def __init__(self, target: Session, process: int, now: float) -> None:
        self.process = process
        self.renewed = now
        self._target = target
        self._told: list[bytes] = []
        self._next: list[bytes] | None = None  # to be told when what is under way has arrived
        self._telling = False

    def where(self, now: float) -> list[bytes]:
        """What its worker is to know of the target."""
        process = self._target.router.process
        place = redirect_connection.reach(self._target, now)
        self._told = [process.encode(), place] if process and place is not None else [process.encode()]
        return self._told

    def pump(self, now: float) -> None:
        """The target's connection may be another one."""
        told = self._told
        if self.where(now) != told:
            self._tell(self._told)

    def forsaken(self) -> None:
        """The target is gone."""
        self._tell([])

    def _tell(self, words: list[bytes]) -> None:
        """One after the other: each has a connection of its own, and the later one could arrive first."""
        peers = self._target.router.peers
        if self._telling or peers is None:
            self._next = words
            return
        self._telling = True
        peers.ask([b"MOVED", b"%d" % self._target.number, *words], frozenset([self.process]), self._arrived)

    def _arrived(self, answers: Answers, now: float) -> None:
        self._telling = False
        words, self._next = self._next, None
        if words is not None:
            self._tell(words)


def _ignore(answers: Answers, now: float) -> None:
    pass


def find(session: Session, number: int) -> FarTarget | None:
    """The client of another worker with that id; whether it exists shows when it is reached."""
    router, here = session.router, owner(session.number)
    if router.peers is None or owner(number) == here:
        return None
    known = router.far_targets.get(number)
    return known if isinstance(known, FarTarget) else FarTarget(router, router.peers, number, here)


def release_expired(session: Session, now: float) -> None:
    """Release a target of other workers that have not asked for it for long."""
    callers = session.ties.callers if session.ties is not None else {}
    for caller in [one for one in callers if isinstance(one, FarCaller) and now - one.renewed > EXPIRES]:
        _leave(session, caller, now)


def _leave(target: Session, caller: FarCaller, now: float) -> None:
    if target.ties is not None:
        target.ties.callers.pop(caller, None)
        if not target.outstanding:
            target.settle(now)


# --- answering (`gathering`)


def _numbers(args: list[bytes], count: int) -> list[int] | None:
    sound = len(args) == count and all(arg.isdigit() and len(arg) < 20 for arg in args)
    return [int(arg) for arg in args] if sound else None


def _caller(target: Session, process: int) -> FarCaller | None:
    callers = target.ties.callers if target.ties is not None else {}
    return next((one for one in callers if isinstance(one, FarCaller) and one.process == process), None)


def _reach(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    numbers = _numbers(args, 2)
    if numbers is None:
        return None
    target = sessions_of(router).get(numbers[0])
    if target is None:
        return []
    caller = _caller(target, numbers[1])
    if caller is None:
        caller = FarCaller(target, numbers[1], now)
        redirect_connection.ties_of(target).callers[caller] = None
    caller.renewed = now
    return caller.where(now)


def _left(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    numbers = _numbers(args, 2)
    if numbers is None:
        return None
    target = sessions_of(router).get(numbers[0])
    caller = _caller(target, numbers[1]) if target is not None else None
    if target is not None and caller is not None:
        _leave(target, caller, now)
    return []


def _forget(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    numbers = _numbers(args, 2)
    if numbers is None:
        return None
    target = sessions_of(router).get(numbers[0])
    if target is not None:
        redirect_connection.forget_all(target, numbers[1])
    return []


def _moved(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    numbers = _numbers(args[:1], 1)
    if numbers is None or len(args) > 3:
        return None
    far = router.far_targets.get(numbers[0])
    if isinstance(far, FarTarget):
        far.moved(args[1:], now)
    return []


ANSWERS: dict[bytes, Callable[[Router, list[bytes], float], list[bytes] | None]] = {
    b"REACH": _reach,
    b"LEAVE": _left,
    b"FORGET": _forget,
    b"MOVED": _moved,
}
