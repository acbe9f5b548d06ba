"""How often the log repeats itself: lines whose rate others decide are written a few times, and then counted.

    the same line   1  2  3  4  5  6 ... 70,037                       | a window, from the first line on
    written         1  2  3  4  5                   the last, repeated=70032

Lines are the same when event, reason and server are: clients differ, and so do the numbers in a reason. A line with
neither a reason nor a client tells what the program itself did; those pass, as their rate is the program's own.

No I/O. Times are seconds of the caller's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FIRST = 5
"""Lines of one kind that are written in a window."""
WINDOW = 10.0
"""Seconds."""
MOST_REASONS = 8
"""Reasons of one event that are told apart in a window. Clients can put any words into them."""
MOST_KINDS = 1024
"""Kinds of lines that are told apart in a window: the bound of the memory for them."""

_NUMBER = re.compile(r"[0-9]+")
_LONGEST_REASON = 200
_OTHERS = "others"
_REASONS = ("reason", "error", "reply")
"""Fields that say why a line was written; `reply` is a server's."""

Fields = Mapping[str, object]
Kind = tuple[str, str, str]
"""Event, reason and server."""


@dataclass(slots=True)
class _Window:
    ends: float
    lines: int = 0
    last: tuple[str, Fields] | None = None  # of those that were left out: level and fields


@dataclass(frozen=True, slots=True)
class Repeated:
    """The last of the lines that were left out in a window, which stands for all of them."""

    level: str
    fields: Fields
    lines: int
    """How many were left out, this one included."""


class LogLimiter:
    """Which lines are written, and which are counted."""

    def __init__(self, first: int = FIRST, window: float = WINDOW) -> None:
        """`first` lines of a kind are written in a `window` of so many seconds."""
        self._first = first
        self._window = window
        self._windows: dict[Kind, _Window] = {}
        self._reasons: dict[str, int] = {}  # of each event that has a window
        self.left_out = 0
        """Lines that were not written, since the start."""

    @property
    def window(self) -> float:
        """Its length in seconds."""
        return self._window

    def admits(self, level: str, fields: Fields, now: float) -> bool:
        """Whether a line, with its event among its fields, is written now; otherwise it is counted."""
        kind = self._kind(fields)
        if kind is None:
            return True
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(now + self._window)
            self._reasons[kind[0]] = self._reasons.get(kind[0], 0) + 1
        window.lines += 1
        if window.lines <= self._first:
            return True
        self.left_out += 1
        window.last = level, fields
        return False

    def due(self) -> float:
        """When the next window ends; infinite when there is none."""
        return min((window.ends for window in list(self._windows.values())), default=float("inf"))

    def ended(self, now: float) -> Iterator[Repeated]:
        """What is to be written of the windows that have ended by `now`, which may be infinite. Each is told once."""
        # A list, since the thread of a library may log at the same time.
        for kind, window in list(self._windows.items()):
            if window.ends > now:
                continue
            self._windows.pop(kind, None)
            if (reasons := self._reasons.get(kind[0], 0) - 1) > 0:
                self._reasons[kind[0]] = reasons
            else:
                self._reasons.pop(kind[0], None)
            if window.last is not None:
                yield Repeated(*window.last, window.lines - self._first)

    def _kind(self, fields: Fields) -> Kind | None:
        reason = next((fields[name] for name in _REASONS if fields.get(name)), None)
        if reason is None and "client" not in fields:
            return None
        event, words = _without_numbers(fields.get("event", "")), _without_numbers(reason or "")
        kind = event, words, str(fields.get("node", ""))
        if kind in self._windows:
            return kind
        if len(self._windows) >= MOST_KINDS:
            return "", _OTHERS, ""
        return kind if self._reasons.get(event, 0) < MOST_REASONS else (event, _OTHERS, "")


def _without_numbers(value: object) -> str:
    return _NUMBER.sub("#", str(value)[:_LONGEST_REASON])
