"""Which workers there should be, and when: the rules of the supervisor, without its processes.

    place   room for one worker: vacant until one is due, then starting, then serving
    former  a worker from before a reload; it goes when every place serves, so a reload that fails changes nothing

Processes are known by their ids. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from rfprotocol.backoff import Backoff

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds until a worker is replaced that ended soon after the one before it in this place; the first is at once."""
STEADY = 30.0
"""Seconds after which the end of a worker has nothing to do with that of the one before."""


class Stage(Enum):
    """What is in a place."""

    VACANT = "nobody"
    STARTING = "a worker that accepts clients, and does not know the servers yet"
    SERVING = "a worker that knows them"


class Succession(Enum):
    """How the workers of a reload follow those from before."""

    SIDE_BY_SIDE = "the former ones serve until the new ones do"
    ONE_AFTER_ANOTHER = "the former ones are gone before the new ones start"


@dataclass(slots=True)
class _Place:
    stage: Stage = Stage.VACANT
    pid: int = 0
    started: float = 0.0
    starts: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE, LONGEST_PAUSE, free=1))

    def vacate(self, now: float) -> float:
        if now - self.started >= STEADY:
            self.starts.succeeded()
        self.stage = Stage.VACANT
        return max(0.0, self.starts.failed(now) - now)


class Crew:
    """The workers of one supervisor; `formers` were there before it."""

    def __init__(
        self, places: int, formers: Iterable[int] = (), succession: Succession = Succession.SIDE_BY_SIDE
    ) -> None:
        self._places = [_Place() for _ in range(places)]
        self._formers = set(formers)
        self._leaving: set[int] = set()
        self._succession = succession
        self.proven = bool(self._formers)
        """Whether a worker has ever served."""

    @property
    def pids(self) -> set[int]:
        """All workers, also those that are about to leave."""
        present = {place.pid for place in self._places if place.stage is not Stage.VACANT}
        return present | self._formers | self._leaving

    @property
    def dismissed(self) -> bool:
        """Whether nobody is needed any more."""
        return not self._places

    @property
    def relieves(self) -> bool:
        """Whether others serve until the new workers do."""
        return bool(self._formers) and self._succession is Succession.SIDE_BY_SIDE

    def vacancies(self, now: float) -> list[int]:
        """The places that a worker is due in."""
        return [number for number, due in self._due() if due <= now]

    def next_due(self, now: float) -> float | None:
        """Seconds until the next worker is due, or None when that depends on something else."""
        return min((max(0.0, due - now) for _, due in self._due()), default=None)

    def _due(self) -> list[tuple[int, float]]:
        if self._succession is Succession.ONE_AFTER_ANOTHER and self._formers | self._leaving:
            return []
        return [(n, place.starts.due) for n, place in enumerate(self._places) if place.stage is Stage.VACANT]

    def started(self, number: int, pid: int, now: float) -> None:
        """A place has its worker."""
        place = self._places[number]
        place.stage, place.pid, place.started = Stage.STARTING, pid, now

    def serves(self, pid: int) -> None:
        """A worker is ready."""
        for place in self._places:
            if place.pid == pid and place.stage is Stage.STARTING:
                place.stage = Stage.SERVING
                self.proven = True

    def released(self) -> set[int]:
        """The former workers that are not needed any more; each is named once."""
        together = self._succession is Succession.SIDE_BY_SIDE
        if together and not all(place.stage is Stage.SERVING for place in self._places):
            return set()
        released, self._formers = self._formers, set()
        self._leaving |= released
        return released

    def ended(self, pid: int, now: float) -> float | None:
        """A worker is gone. Returns the seconds until it is replaced; None when it is not."""
        self._formers.discard(pid)
        self._leaving.discard(pid)
        for place in self._places:
            if place.pid == pid and place.stage is not Stage.VACANT:
                return place.vacate(now)
        return None

    def dismiss(self) -> None:
        """Nobody is needed or replaced any more."""
        self._leaving, self._formers, self._places = self.pids, set(), []
