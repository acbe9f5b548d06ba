"""Stands for the role of primary manager: takes the seats, proves the tenure, and notices its end.

    take_seats ──> begin ──> [tenure: proved again and again] ──> over ──> leave ──> take_seats ...

There are two locks. The gem's managers wait for a seat in the first: as long as it is held, none of them acts. All
managers of this release take their seats in the same order, so two of them cannot wait for each other. Those of earlier
releases know the second lock only.

`Candidacy` alone moves the tenure. It makes no decision and commands no server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from structlog.typing import FilteringBoundLogger

from rfmanager.daemon.event_wait import wait_for
from rfmanager.daemon.leadership import Event, State, Tenure
from rfmanager.evidence import gem_lock
from rfprotocol import clock
from rfprotocol.errors import StoreError, StoreUnavailable
from rfprotocol.store.interface import Fence, StoreState, TopologyStore
from rfprotocol.topology.znode_paths import Paths

PROOFS_PER_SESSION: Final = 8
"""Proofs within the timeout of a session. More make a lease last longer, and cost the store a write each."""

RETRY_S: Final = 0.1
"""Seconds until the store is asked again after an error."""


class Candidacy:
    """The seats and the tenure of one manager.

    `ended` is called when a tenure ends, `covered` when a proof makes a tenure certain that was not, `session_began`
    when the store has a new session, and `gem_leads` at each look at the lock of the gem's managers.
    """

    def __init__(
        self,
        store: TopologyStore,
        paths: Paths,
        name: str,
        log: FilteringBoundLogger,
        *,
        ended: Callable[[], None],
        covered: Callable[[], None],
        session_began: Callable[[], None],
        gem_leads: Callable[[bool], None],
    ) -> None:
        self.tenure = Tenure()
        self.led_since = 0
        """When the last seat was taken, in the store's order."""
        self._store = store
        self._paths = paths
        self._name = name
        self._log = log
        self._ended = ended
        self._covered = covered
        self._session_began = session_began
        self._gem_leads = gem_leads
        self._seats: list[Fence] = []  # in the gem's lock, and in that of these managers
        self._unlocked = ""  # why the store refuses a seat in the gem's lock
        self._proof_due = asyncio.Event()
        self._over = asyncio.Event()

    # The course of one candidacy.

    async def take_seats(self) -> None:
        """Return when this manager has the lowest seat in both locks, however long that takes."""
        while True:
            try:
                await self._leave_seats()
                await self._take_gems_seat()
                self._seats.append(await self._store.campaign(self._paths.lock, self._name))
            except StoreError as error:
                self._log.warning("cannot stand for primary manager: trying again", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                self._over.clear()
                return

    async def _take_gems_seat(self) -> None:
        try:
            self._seats.append(await self._store.campaign(self._paths.gem_lock, self._name))
            self._unlocked = ""
        except StoreUnavailable:
            raise
        except StoreError as error:  # refused for good; the gem's managers are not kept from acting then
            if str(error) != self._unlocked:
                self._log.error(
                    "no seat in the lock of redis_failover: let the managers create records below it",
                    path=self._paths.gem_lock,
                    error=str(error),
                )
            self._unlocked = str(error)

    def begin(self) -> None:
        """Begin a tenure on the seats that were taken. It covers actions after its first proof."""
        self.tenure.elected(self._seats[-1], self._store.session)
        self._log.info("became the primary manager", manager=self._name)
        self._proof_due.set()

    async def over(self) -> None:
        """Return when the tenure has ended."""
        await self._over.wait()

    async def leave(self) -> None:
        """Leave the seats of a tenure that has ended, to stand again."""
        await self._leave_seats()
        self.tenure.move(Event.CAMPAIGN)

    async def give_up(self) -> None:
        """End the tenure, if there is one, and leave every seat, because this manager ends."""
        leads = self.tenure.fence is not None
        self.tenure.move(Event.ENDED)
        await self._leave_seats()
        if leads:
            self._log.info("gave up the role of primary manager", manager=self._name)

    async def _leave_seats(self) -> None:
        while self._seats:
            with contextlib.suppress(StoreError):
                await self._store.resign(self._seats.pop())

    # Events of a tenure.

    def end(self, why: str) -> None:
        """End the tenure, if there is one."""
        if self.tenure.move(Event.ENDED):
            self._ended()
            self._log.warning("lost the role of primary manager", manager=self._name, why=why)
        self._over.set()

    def doubt(self) -> None:
        """Prove the tenure as soon as possible."""
        self._proof_due.set()

    def store_moved(self, state: StoreState) -> None:
        """Follow the session: a tenure is suspended with its connection, and ends with the session."""
        if state is StoreState.SUSPENDED:
            self.tenure.move(Event.CUT_OFF)
        elif state is StoreState.LOST:
            self.end("the session with the store is over")
        elif self._store.session == self.tenure.session:
            self.tenure.move(Event.RECONNECTED)
        else:
            self.end("the store began a new session")
            self._session_began()
        self._proof_due.set()

    async def prove(self) -> None:
        """Prove the tenure again and again while there is one, until cancelled."""
        while True:
            self._proof_due.clear()
            if self.tenure.state is State.PRIMARY and self.tenure.fence is not None:
                with contextlib.suppress(StoreError):  # then the lease runs out
                    await self._prove_once()
            await wait_for(self._proof_due, self._store.session_timeout / PROOFS_PER_SESSION)

    async def _prove_once(self) -> None:
        sent, session, covered = clock.now(), self._store.session, self.tenure.covers(clock.now())
        await self._store.prove_alive()
        seats = [await self._store.read(seat.path) for seat in self._seats]
        if any(seat is None or seat.owner != session for seat in seats):
            self.end("another manager took over")
            return
        self.led_since = max((seat.created for seat in seats if seat), default=0)
        self.tenure.proved(sent, session, self._store.session_timeout)
        if not covered:
            self._covered()

    # The gem's managers.

    async def look_for_gem(self) -> None:
        """Log when a node manager of the gem leads, or waits to lead, until cancelled."""
        changed, before = asyncio.Event(), ""
        end = self._store.watch(self._paths.gem_lock, changed.set)
        try:
            while True:
                changed.clear()
                try:
                    seats = await self._store.read_children(self._paths.gem_lock)
                except StoreError:  # when the store is away, it says so itself when it is back
                    await wait_for(changed, RETRY_S if self._store.state is StoreState.CONNECTED else None)
                    continue
                self._gem_leads(gem_lock.is_led_by_the_gem(seats))
                trouble = gem_lock.trouble(seats)
                if trouble and trouble != before:
                    self._log.warning(trouble, manager=self._name)
                elif before and not trouble:
                    self._log.info("no node manager of redis_failover is there any more", manager=self._name)
                before = trouble
                await changed.wait()
        finally:
            end()
