"""What clients asked and heard, and whether one Redis could have said that and hold what is there in the end.

    verdict = check(history, final, kills=[Kill(at, until)])
    assert not verdict.violations

Clients write values that nobody else writes. Registers (SET, GET) must be linearizable. Counters (INCR), strings
(APPEND) and lists (RPUSH) say in each reply how many writes came before, so that every acknowledged write has its
place; two masters that both acknowledge give one place twice. An uncertain write was applied once or never. `lost` are
acknowledged writes that a killed master took along before a replica had them: replication is asynchronous, so that is
no violation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from tests.scenarios.linear import Access, Act, Stuck, linearize

END = ";"
"""The last character of each value that is written, and nowhere else in one."""


class Kind(Enum):
    """Commands. All of one key are of one kind, but SET and GET go together."""

    SET = "SET"
    GET = "GET"
    INCR = "INCR"
    APPEND = "APPEND"
    PUSH = "RPUSH"


class Fate(Enum):
    """What the client was told."""

    DONE = "done"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Invocation:
    """Sent by `session` at a moment in seconds; `value` is what it writes, empty for GET and INCR."""

    session: int
    kind: Kind
    key: str
    value: str
    at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Heard at a moment in seconds; `reply` is what Redis says: a number, what GET found, None for the rest."""

    fate: Fate
    at: float
    reply: str | int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One command from its beginning to its end."""

    asked: Invocation
    heard: Outcome

    @property
    def place(self) -> int:
        """The number that was replied."""
        assert isinstance(self.heard.reply, int)
        return self.heard.reply


@dataclass(frozen=True, slots=True)
class Kill:
    """The master was killed after `at`, and there was another one by `until`; writes acknowledged at most `lag` seconds
    before may be gone."""

    at: float
    until: float
    lag: float = 1.0

    def excuses(self, operation: Operation) -> bool:
        """Whether the killed master may have acknowledged it, and taken it along."""
        return operation.asked.at <= self.at and self.at - self.lag <= operation.heard.at <= self.until


class Rule(StrEnum):
    """What was violated."""

    MISSING = "an acknowledged write is missing"
    UNASKED = "there is what nobody wrote, or what was refused"
    TWICE = "a write was applied twice"
    ORDER = "a write comes behind one that was sent after its reply, or after it by the same client"
    PLACE = "a reply does not tell how many writes came before"
    EPOCHS = "two writes were acknowledged for the same place"
    REGISTER = "reads and writes are not linearizable"
    UNDECIDED = "too many accesses overlap to tell whether they are linearizable"


@dataclass(frozen=True, slots=True)
class Violation:
    """Of a rule by what happened to a key; `by` is the operation it shows at, if there is one."""

    rule: Rule
    key: str
    by: Operation | None = None


@dataclass(slots=True)
class Verdict:
    """What was found; `lost` counts acknowledged writes by key."""

    violations: list[Violation] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


Final = Mapping[str, str | list[str] | None]
"""What keys hold when all clients are done: as GET or LRANGE tell it, None when they do not exist."""


def check(history: Iterable[Operation], final: Final, kills: Sequence[Kill] = (), *, repeats: bool = False) -> Verdict:
    """Judge all keys. `repeats`: a SET under way when a master is killed may take effect twice before its reply."""
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in sorted(history, key=lambda operation: operation.asked.at):
        keys[operation.asked.key].append(operation)
    verdict = Verdict()
    for key, operations in keys.items():
        judge = _Judge(key, operations, kills, verdict)
        found = final.get(key)
        if operations[0].asked.kind in (Kind.SET, Kind.GET):
            assert not isinstance(found, list)
            judge.register(found, repeats)
        elif operations[0].asked.kind is Kind.INCR:
            assert not isinstance(found, list)
            judge.counter(int(found or 0))
        elif isinstance(found, list):
            judge.sequence(found, [1] * len(found))
        else:
            pieces = (found or "").split(END)
            values = [piece + END for piece in pieces[:-1]] + [piece for piece in pieces[-1:] if piece]
            judge.sequence(values, [len(value) for value in values])
    return verdict


class _Judge:
    """Of one key; operations are in the order in which they were sent."""

    def __init__(self, key: str, operations: list[Operation], kills: Sequence[Kill], verdict: Verdict) -> None:
        self.key = key
        self.operations = operations
        self.kills = kills
        self.verdict = verdict

    def register(self, found: str | None, repeats: bool) -> None:
        """Its history with a read at the end is linearizable, but for what was lost with a killed master."""
        read = {operation.heard.reply for operation in self.operations if operation.asked.kind is Kind.GET} | {found}
        accesses = [access for operation in self.operations for access in self._accesses(operation, read, repeats)]
        accesses += [Access(Act.LAPSE, None, kill.at, kill.until) for kill in self.kills]
        last = max([access.ended for access in accesses if access.ended < math.inf], default=0.0)
        result = linearize([*accesses, Access(Act.READ, found, math.nextafter(last, math.inf))])
        if isinstance(result, Stuck):
            by = (operation for operation in self.operations if operation.asked.at == result.at.invoked)
            self._violated(Rule.REGISTER if result.decided else Rule.UNDECIDED, next(by, None))
        else:
            self._lost(result.lost)

    def _accesses(self, operation: Operation, read: set[str | int | None], repeats: bool) -> Iterator[Access]:
        asked, heard = operation.asked, operation.heard
        if asked.kind is Kind.GET:
            if heard.fate is Fate.DONE:
                assert not isinstance(heard.reply, int)
                yield Access(Act.READ, heard.reply, asked.at, heard.at)
        elif heard.fate is Fate.DONE:
            yield Access(Act.WRITE, asked.value, asked.at, heard.at, losable=self._excused(operation))
            if repeats and any(asked.at <= kill.until and kill.at <= heard.at for kill in self.kills):
                yield Access(Act.WRITE, asked.value, asked.at, heard.at, required=False, losable=True)
        elif heard.fate is Fate.UNCERTAIN and asked.value in read:
            yield Access(Act.WRITE, asked.value, asked.at, required=False, losable=True)

    def counter(self, found: int) -> None:
        """Each number up to `found` was one INCR: acknowledged with it, or uncertain."""
        done = self._done()
        kept, superseded = self._one_for_each_place(done)
        beyond = [kept.pop(place) for place in sorted(kept) if place > found]
        self._gone(beyond)
        uncertain = sum(operation.heard.fate is Fate.UNCERTAIN for operation in self.operations)
        if found - len(kept) > uncertain:
            self._violated(Rule.TWICE)
        self._lost(superseded)
        # Which of those before a kill were lost does not show when an uncertain one has taken the place.
        self._in_order(kept[place] for place in sorted(kept) if not self._excused(kept[place]))

    def sequence(self, found: Sequence[str], sizes: Sequence[int]) -> None:
        """Each acknowledged value is there once, where its reply said; `sizes` are what each adds to that."""
        asked = {operation.asked.value: operation for operation in self.operations}
        places: dict[str, int] = {}
        size = 0
        for value, more in zip(found, sizes, strict=True):
            size += more
            if value in places:
                self._violated(Rule.TWICE, asked.get(value))
            elif value not in asked or asked[value].heard.fate is Fate.REFUSED:
                self._violated(Rule.UNASKED, asked.get(value))
            else:
                places[value] = size
        done = self._done()
        self._one_for_each_place(done)
        self._gone([operation for operation in done if operation.asked.value not in places])
        for operation in done:
            if places.get(operation.asked.value, operation.place) != operation.place:
                self._violated(Rule.PLACE, operation)
        self._in_order([asked[value] for value in places])

    def _done(self) -> list[Operation]:
        return [operation for operation in self.operations if operation.heard.fate is Fate.DONE]

    def _one_for_each_place(self, done: Iterable[Operation]) -> tuple[dict[int, Operation], int]:
        """The last acknowledged write of each place, and how many others a kill had taken from there before."""
        kept: dict[int, Operation] = {}
        superseded = 0
        for operation in sorted(done, key=lambda operation: operation.heard.at):
            before = kept.get(operation.place)
            if before and any(kill.excuses(before) and kill.at <= operation.heard.at for kill in self.kills):
                superseded += 1
            elif before:
                self._violated(Rule.EPOCHS, operation)
            kept[operation.place] = operation
        return kept, superseded

    def _gone(self, operations: Sequence[Operation]) -> None:
        """These were acknowledged and are not there."""
        for operation in operations:
            if not self._excused(operation):
                self._violated(Rule.MISSING, operation)
        self._lost(sum(map(self._excused, operations)))

    def _in_order(self, applied: Iterable[Operation]) -> None:
        """The order in which writes were applied is one that clients could have expected."""
        latest = -math.inf
        of_session: dict[int, float] = {}
        for operation in applied:
            asked, heard = operation.asked, operation.heard
            answered = heard.fate is Fate.DONE and heard.at < latest
            if answered or asked.at < of_session.get(asked.session, -math.inf):
                self._violated(Rule.ORDER, operation)
            latest = max(latest, asked.at)
            of_session[asked.session] = asked.at

    def _excused(self, operation: Operation) -> bool:
        return any(kill.excuses(operation) for kill in self.kills)

    def _violated(self, rule: Rule, by: Operation | None = None) -> None:
        self.verdict.violations.append(Violation(rule, self.key, by))

    def _lost(self, count: int) -> None:
        if count:
            self.verdict.lost[self.key] = self.verdict.lost.get(self.key, 0) + count
