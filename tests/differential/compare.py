"""Plays cases against both sides, finds the differences, and makes them small."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from rfprotocol.errors import ProtocolError
from rfprotocol.resp.reply_scanner import split
from rfprotocol.topology.topology import Node
from tests.differential.case import Burst, Case, Command
from tests.differential.masks import masked
from tests.differential.player import REPLIES_TO_MARKER, Heard, play

PATIENCE = 5.0
"""Seconds for a reply of the proxy; a plain Redis that takes as long shows that the case is wrong."""
SMALLER_PATIENCE = 0.3
"""The same while a case is made smaller: most attempts break what the case counts on."""
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """What one connection heard on either side, from where they part; `case` is the smallest one found."""

    case: Case
    seed: int
    connection: int
    cause: str  # the command at which they part
    plain: bytes
    proxy: bytes
    note: str = ""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, connection {self.connection}, at {self.cause} {self.note}", str(self.case)]
        return "\n".join([*lines, f"  Redis: {self.plain[:600]!r}", f"  proxy: {self.proxy[:600]!r}"])


class WrongCase(AssertionError):
    """A plain Redis does not answer as often as the case says."""


class Comparison:
    """A plain Redis and a proxy; `clean` empties both, `settle` returns when replicas have all that was written.

    `fit` makes of a case one that this Redis can play.
    """

    def __init__(
        self,
        plain: Node,
        proxy: Node,
        clean: Callable[[], None],
        settle: Callable[[], None] | None = None,
        fit: Callable[[Case], Case] = lambda case: case,
    ) -> None:
        self.plain = plain
        self.proxy = proxy
        self.commands = 0
        self._clean = clean
        self._settle = settle
        self._fit = fit

    def differences(self, cases: Iterable[tuple[int, Case]], commands: int, most: int = 3) -> list[Difference]:
        """Play cases with so many commands altogether; stops at `most` differences. Raises WrongCase."""
        found: list[Difference] = []
        for seed, whole in cases:
            case = self._fit(whole)
            if self.commands >= commands or len(found) >= most:
                break
            self.commands += case.size
            if (difference := self.difference(seed, case)) is not None:
                found.append(self.smaller(difference))
        return found

    def difference(self, seed: int, case: Case, patience: float = PATIENCE) -> Difference | None:
        """Play one case on either side. Raises WrongCase."""
        self._clean()
        plain = play(case, self.plain, timeout=patience)
        if plain.stuck:
            raise WrongCase(f"seed {seed}: {plain.stuck}\n{case}\n{plain.by}")
        for number in case.connections:
            _check_count(seed, case, number, plain)
        proxy = play(case, self.proxy, timeout=patience, between=self._settle)
        for number in case.connections:
            if plain.by[number] != proxy.by[number] and (found := _parted(seed, case, number, plain, proxy)):
                return found
        return None

    def smaller(self, difference: Difference) -> Difference:
        """The shortest case found in which the same command makes a difference."""
        best = [difference]
        for candidate in islice(_candidates(lambda: best[-1].case), ATTEMPTS):
            with contextlib.suppress(WrongCase):
                found = self.difference(difference.seed, candidate, SMALLER_PATIENCE)
                if found is not None and found.cause == difference.cause:
                    best.append(found)
        return best[-1]


def _check_count(seed: int, case: Case, connection: int, plain: Heard) -> None:
    """A case that is wrong about the number of replies would compare the wrong ones."""
    commands = case.said_by(connection)
    expected = sum(each.replies for each in commands)
    if not any(each.closes for each in commands):
        expected += REPLIES_TO_MARKER
    values = split(plain.by[connection])
    if len(values) != expected:
        heard = list(zip([each.raw for each in commands for _ in range(each.replies)], values, strict=False))
        raise WrongCase(f"seed {seed}: {len(values)} values, not {expected}, on {connection}\n{case}\n{heard}")


def _parted(seed: int, case: Case, connection: int, plain: Heard, proxy: Heard) -> Difference | None:
    commands = case.said_by(connection)
    ours, theirs = _values(commands, plain.by[connection]), _values(commands, proxy.by[connection])
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return Difference(case, seed, connection, _cause(commands, index), one, other, proxy.stuck)
    if len(ours) == len(theirs):
        return None
    index = min(len(ours), len(theirs))
    rest, missing = b"".join(ours[index:]), b"".join(theirs[index:])
    return Difference(case, seed, connection, _cause(commands, index), rest, missing, proxy.stuck)


def _values(commands: list[Command], data: bytes) -> list[bytes]:
    """What was heard, value by value, without what may differ; what is no RESP stays in one piece."""
    try:
        values = split(data)
    except ProtocolError:
        values = _broken_off(data)
    masks = [each.mask for each in commands for _ in range(each.replies)]
    for index, mask in enumerate(masks[: len(values)]):
        if mask is not None:
            values[index] = masked(mask, values[index])
    return values


def _broken_off(data: bytes) -> list[bytes]:
    """The values of a reply that ends in the middle of one."""
    for end in range(data.rfind(b"\r\n"), 0, -1):
        if data[end - 2 : end] != b"\r\n":
            continue
        try:
            return [*split(data[:end]), data[end:]]
        except ProtocolError:
            continue
    return [data]


def _cause(commands: list[Command], index: int) -> str:
    heard = [each for each in commands for _ in range(each.replies)]
    return repr(heard[index].raw[:200]) if index < len(heard) else "the end"


def _candidates(best: Callable[[], Case]) -> Iterable[Case]:
    """Smaller and smaller cases, made from the smallest one that still differs."""
    size = len(best().rounds) // 2
    while size:  # rounds, from the end
        for start in range(len(best().rounds) - size, -1, -size):
            rounds = best().rounds
            if start + size <= len(rounds):
                yield Case((*rounds[:start], *rounds[start + size :]))
        size //= 2
    for turn in range(len(best().rounds) - 1, -1, -1):
        yield from _thinner(best, turn)


def _thinner(best: Callable[[], Case], turn: int) -> Iterable[Case]:
    """The case with fewer commands in one of its rounds, and without cuts."""
    for place in range(len(best().rounds[turn])):
        size = len(best().rounds[turn][place].commands) // 2
        while size:
            for start in range(len(best().rounds[turn][place].commands) - size, -1, -size):
                commands = best().rounds[turn][place].commands
                if len(commands) > size:
                    thinner = (*commands[:start], *commands[start + size :])
                    yield _changed(best(), turn, place, replace(best().rounds[turn][place], commands=thinner))
            size //= 2
        yield _changed(best(), turn, place, replace(best().rounds[turn][place], cuts=()))


def _changed(case: Case, turn: int, place: int, burst: Burst) -> Case:
    changed = (*case.rounds[turn][:place], burst, *case.rounds[turn][place + 1 :])
    return Case((*case.rounds[:turn], changed, *case.rounds[turn + 1 :]))
