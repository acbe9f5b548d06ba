"""What clients saw: their operations, the gaps between successes, and the account of what they wrote. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WRITES = ("SET", "INCR")
COMMANDS = ("SET", "INCR", "GET")
KINDS = {"reads": ("GET",), "writes": WRITES}


@dataclass(frozen=True, slots=True)
class Operation:
    """One command of one connection; times are of the monotonic clock, in seconds."""

    command: str
    begun: float
    ended: float
    error: str = ""  # the error's code or class; empty when the command succeeded
    detail: str = ""

    @property
    def seconds(self) -> float:
        """How long the client waited."""
        return self.ended - self.begun


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without a success of any connection."""

    seconds: float = 0.0
    begun: float = 0.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Acknowledged and uncertain writes of one or several connections, compared with the server's data."""

    acknowledged: int = 0
    uncertain: int = 0  # answered with an error: they may have been applied, or not
    lost: int = 0  # acknowledged, but the data is older
    doubled: int = 0  # the counter is further than all attempts together can have moved it

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.acknowledged + other.acknowledged,
            self.uncertain + other.uncertain,
            self.lost + other.lost,
            self.doubled + other.doubled,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What all connections saw between `since` and `until`."""

    since: float
    until: float
    operations: Sequence[Operation] = field(repr=False)
    ledger: Ledger | None = None  # None: not compared yet

    @property
    def errors(self) -> Counter[tuple[str, str]]:
        """How often each (command, error) came."""
        return Counter((operation.command, operation.error) for operation in self.operations if operation.error)

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.operations) / (self.until - self.since) if self.until > self.since else 0.0

    def gap(self, commands: Iterable[str]) -> Gap:
        """The longest time without a success among these commands, edges included."""
        wanted = frozenset(commands)
        ends = sorted(o.ended for o in self.operations if not o.error and o.command in wanted)
        moments = [self.since, *ends, self.until]
        return max((Gap(later - earlier, earlier) for earlier, later in itertools.pairwise(moments)), key=_seconds)

    def slowest(self, commands: Iterable[str] = COMMANDS) -> float:
        """The longest that one client waited for one answer."""
        wanted = frozenset(commands)
        return max((operation.seconds for operation in self.operations if operation.command in wanted), default=0.0)

    def percentile(self, share: float) -> float:
        """Latency that this share (0 to 1) of the successful operations did not exceed."""
        latencies = sorted(operation.seconds for operation in self.operations if not operation.error)
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else 0.0

    def between(self, since: float, until: float) -> Result:
        """The part that ended in this time."""
        part = [operation for operation in self.operations if since <= operation.ended <= until]
        return Result(max(since, self.since), min(until, self.until), part)


def _seconds(gap: Gap) -> float:
    return gap.seconds


class Book:
    """Writes of growing values to one key. The server's value lies between the last one that was acknowledged and
    that plus all later attempts; less is a loss, more is a write that was applied twice."""

    def __init__(self) -> None:
        self._least = 0  # the server has at least this
        self._open = 0  # attempts since then whose outcome is unknown
        self._ledger = Ledger()

    def uncertain(self) -> None:
        self._open += 1
        self._ledger += Ledger(uncertain=1)

    def acknowledged(self, value: int) -> None:
        self._ledger += Ledger(acknowledged=1) + self._compare(value, self._least + 1, self._least + 1 + self._open)
        self._least, self._open = value, 0

    def close(self, value: int, most: int | None = None) -> Ledger:
        """Compare with what is there in the end; `most` is the last value that was tried, where that is known."""
        return self._ledger + self._compare(value, self._least, self._least + self._open if most is None else most)

    def _compare(self, value: int, least: int, most: int) -> Ledger:
        return Ledger(lost=max(0, least - value), doubled=max(0, value - most))


def describe(result: Result) -> str:
    """The result in lines."""
    lines = [f"operations  {len(result.operations)} ({result.rate:.0f}/s)"]
    lines += [f"errors      {count} x {command} {error}" for (command, error), count in sorted(result.errors.items())]
    if not result.errors:
        lines.append("errors      none")
    for name, commands in KINDS.items():
        gap, slowest = result.gap(commands), result.slowest(commands)
        lines.append(
            f"{name:<10}  longest gap {milliseconds(gap.seconds)}, longest wait of one client {milliseconds(slowest)}"
        )
    shares = ", ".join(f"p{share * 100:g} {milliseconds(result.percentile(share))}" for share in (0.5, 0.99, 0.999))
    lines.append(f"latency     {shares}")
    if ledger := result.ledger:
        lines.append(
            f"data        {ledger.acknowledged} acknowledged writes, {ledger.lost} of them lost; "
            f"{ledger.uncertain} uncertain, {ledger.doubled} applied twice"
        )
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1000:.1f} ms"
