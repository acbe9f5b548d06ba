"""How a leader is elected among the sessions of a store; both stores use it.

Each contender holds a seat: a record below the lock's path that lives with its session and whose name ends in a
number the store hands out in order. The lowest number leads, and its seat is the fencing token. The seats of
other recipes, such as the `ex0000000001` of Ruby's zk gem, count by their number too.

    <path>/<token of A>_0000000007   leads
    <path>/<token of B>_0000000009   is next

When the answer to the creation of a seat is lost, the seat may exist nevertheless. A second one would wait behind
the first for ever, so a contender finds its seats by its unique token before it takes one, and counts only those
that its present session owns: the others die with an earlier session, at a time of the store's choosing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from rfprotocol.errors import StoreUnavailable
from rfprotocol.store.interface import Entry, Fence

_NUMBER = re.compile(r"\d{10}$")


class Event(Protocol):
    """What `asyncio.Event` offers; named here because the core does not import asyncio."""

    def set(self) -> None:
        """Wake whoever waits."""

    def clear(self) -> None:
        """Let the next `wait` wait."""

    async def wait(self) -> object:
        """Return as soon as it is set."""


class Contest(Protocol):
    """What an election needs of a store, besides `TopologyStore`'s own methods of the same names."""

    @property
    def session(self) -> int:
        """Identity of the session."""

    async def read_children(self, path: str) -> Mapping[str, Entry]:
        """The records directly below `path`."""

    async def withdraw(self, path: str) -> None:
        """Remove a record, if it is there."""

    def watch(self, path: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after a change at or below `path`, and after each (re)connection."""

    async def enlist(self, stem: str, data: bytes) -> None:
        """Create a record of this session, named `stem` and ten digits that grow; parents as needed."""

    async def reachable(self) -> None:
        """Return when another attempt makes sense. Raises StoreUnavailable when the store was closed."""


async def campaign(contest: Contest, path: str, name: str, token: str, changed: Event) -> Fence:
    """Wait until the contender with this `token` leads. `name` is the seat's content, for people.

    When it is cancelled the seat stays: see `vacate`. Raises StoreUnavailable when the store is closed meanwhile.
    """
    end_watch = contest.watch(path, changed.set)
    try:
        while True:
            changed.clear()
            try:
                seats = await contest.read_children(path)
                seat = await _seat(contest, path, token, seats)
                if seat is None:
                    await contest.enlist(f"{path}/{token}_", name.encode())
                    continue
            except StoreUnavailable:
                await contest.reachable()
                continue
            rivals = set(seats) - set(seats_of(token, seats))
            if all(_number(seat) < _number(rival) for rival in rivals if _NUMBER.search(rival)):
                return Fence(f"{path}/{seat}")
            await changed.wait()
    finally:
        end_watch()


async def vacate(contest: Contest, path: str, token: str) -> None:
    """Remove every seat of this token, in as many attempts as it takes. Raises StoreUnavailable as `campaign`."""
    while True:
        try:
            for seat in seats_of(token, await contest.read_children(path)):
                await contest.withdraw(f"{path}/{seat}")
        except StoreUnavailable:
            await contest.reachable()
        else:
            return


def seats_of(token: str, seats: Iterable[str]) -> list[str]:
    """Those of `seats` that belong to the contender with this token, the lowest first."""
    return sorted((seat for seat in seats if seat.startswith(f"{token}_")), key=_number)


async def _seat(contest: Contest, path: str, token: str, seats: Mapping[str, Entry]) -> str | None:
    """The one seat of this contender and session; what else carries its token is removed."""
    mine = seats_of(token, seats)
    seat = next((seat for seat in mine if seats[seat].owner == contest.session), None)
    for ghost in mine:
        if ghost != seat:
            await contest.withdraw(f"{path}/{ghost}")
    return seat


def _number(seat: str) -> int:
    return int(seat[-10:])
