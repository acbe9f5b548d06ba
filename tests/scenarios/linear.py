"""Is there an order in which accesses to one register make sense? A search after Wing and Gong, with a memory.

Each access has an effect at one moment between its invocation and its end. The search puts them one behind another:
next may come whatever was invoked before the first of the others ended. Dead ends are remembered, so the work grows
with the number of accesses times the orders of those that overlap; few clients to a register keep it small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count


class Act(Enum):
    """What an access does."""

    READ = auto()
    WRITE = auto()
    LAPSE = auto()
    """The register falls back to an earlier value, at most to that of the last write that cannot be lost."""


@dataclass(frozen=True, slots=True)
class Access:
    """Moments are seconds of any one clock; `value` is what was read or written, None when there was none."""

    act: Act
    value: str | None
    invoked: float
    ended: float = math.inf
    required: bool = True
    """False: it may have had an effect or not."""
    losable: bool = False
    """A lapse may undo this write."""


@dataclass(frozen=True, slots=True)
class Order:
    """Why there is one: so many required writes were `lost` in lapses; at most, where to count them exactly took too
    long."""

    lost: int


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why there is none: in the longest attempt this access fitted nowhere. Not `decided`: the search gave up."""

    at: Access
    decided: bool = True


@dataclass(frozen=True, slots=True)
class _State:
    """Bits of the accesses that have their place; the register holds `past[-1]`, and may fall back to the others."""

    required: int
    optional: int
    now: float
    past: tuple[str | None, ...]
    lost: int


def linearize(accesses: Sequence[Access], initial: str | None = None, limit: int = 200_000) -> Order | Stuck:
    """An order with the fewest losses, or any after `limit` states; gives up after as many more."""
    start = _State(0, 0, -math.inf, (initial,), 0)
    found = _Search(accesses).run(start, limit)
    exhausted = isinstance(found, Stuck) and not found.decided
    return _Search(accesses, counts=False).run(start, limit) if exhausted else found


class _Search:
    """`counts`: states are told apart that only differ in what they may lose."""

    def __init__(self, accesses: Sequence[Access], *, counts: bool = True) -> None:
        self.counts = counts
        in_time = sorted(accesses, key=lambda access: access.invoked)
        self.required = [access for access in in_time if access.required]
        self.counted = {access.value for access in self.required if access.act is Act.WRITE and access.losable}
        self.readers: dict[str | None, int] = {}  # bits of the accesses that read a value
        for number, access in enumerate(self.required):
            if access.act is Act.READ:
                self.readers[access.value] = self.readers.get(access.value, 0) | 1 << number
        # What may not have happened, and nobody has noticed, need not have.
        self.optional = [
            access
            for access in in_time
            if not access.required and (access.act is not Act.WRITE or access.value in self.readers)
        ]

    def run(self, start: _State, limit: int) -> Order | Stuck:
        everything = (1 << len(self.required)) - 1
        longest, seen, pushed = start, set[object](), count()
        waiting = [(0, 0, next(pushed), start)]
        while waiting:
            *_, state = heappop(waiting)
            if state.required == everything:
                return Order(state.lost)
            key = self._key(state)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > limit:
                return Stuck(self._first(longest), decided=False)
            longest = max(longest, state, key=lambda state: state.required.bit_count())
            for later in self._next(state):
                heappush(waiting, (later.lost, -later.required.bit_count(), next(pushed), later))
        return Stuck(self._first(longest))

    def _key(self, state: _State) -> object:
        """The same for states that have the same future: of values that nobody will read, at most the number counts."""
        if not self.counts:
            kept = tuple(value for value in state.past if self._will_be_read(value, state))
            return state.required, state.optional, kept, self._will_be_read(state.past[-1], state)
        past = tuple(value if self._will_be_read(value, state) else value in self.counted for value in state.past)
        return state.required, state.optional, past

    def _will_be_read(self, value: str | None, state: _State) -> bool:
        return bool(self.readers.get(value, 0) & ~state.required)

    def _first(self, state: _State) -> Access:
        """Of those without a place, the one that ended first."""
        rest = (access for number, access in enumerate(self.required) if not state.required >> number & 1)
        return min(rest, key=lambda access: access.ended)

    def _next(self, state: _State) -> Iterator[_State]:
        """One state if there is a read that fits: it changes nothing, so nothing can be gained by putting it off."""
        following = []
        for later, access in self._following(state):
            if access.act is Act.READ and (later.now == state.now or not self._missed(state, later.now)):
                return iter([later])
            following.append(later)
        return iter(following)

    def _missed(self, state: _State, now: float) -> bool:
        """Whether anything that may yet have an effect can have none from `now` on."""
        return any(
            not state.optional >> number & 1 and state.now <= access.ended < now
            for number, access in enumerate(self.optional)
        )

    def _following(self, state: _State) -> Iterator[tuple[_State, Access]]:
        horizon = math.inf
        placed = state.required
        first_open = (~placed & (placed + 1)).bit_length() - 1
        for number in range(first_open, len(self.required)):
            access = self.required[number]
            if access.invoked > horizon:
                break
            if not placed >> number & 1:
                horizon = min(horizon, access.ended)
                for past, lost in self._effects(access, state):
                    now = max(state.now, access.invoked)
                    yield _State(placed | 1 << number, state.optional, now, past, state.lost + lost), access
        for number, access in enumerate(self.optional):
            # Nobody waits for these, so they can be too late: behind one that was invoked after their end.
            if not state.optional >> number & 1 and access.invoked <= horizon and state.now <= access.ended:
                now = max(state.now, access.invoked)
                for past, lost in self._effects(access, state):
                    yield _State(placed, state.optional | 1 << number, now, past, state.lost + lost), access

    def _effects(self, access: Access, state: _State) -> Iterator[tuple[tuple[str | None, ...], int]]:
        """What the register may hold afterwards, and how many required writes that loses."""
        past = state.past
        if access.act is Act.WRITE:
            yield (*past, access.value) if access.losable else (access.value,), 0
        elif access.act is Act.LAPSE:
            for kept in range(len(past), 0, -1):
                # To fall back further than need be costs more, and only who reads notices it.
                if kept == len(past) or self._will_be_read(past[kept - 1], state):
                    yield (past[kept - 1],), sum(value in self.counted for value in past[kept:])
        elif access.value == past[-1]:
            yield past, 0
