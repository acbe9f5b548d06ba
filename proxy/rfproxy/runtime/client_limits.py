"""What a client may cost: Redis' limits under Redis' names, and the rule by which one that reads too slowly is closed.

    normal  hard soft seconds     who asks and is answered
    pubsub  hard soft seconds     who listens: subscribed, or with MONITOR

A client is closed at once when the hard limit waits for it to be read, and when the soft limit has waited for longer
than so many seconds without interruption. 0 is no limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, PlainValidator, TypeAdapter, ValidationError

_REDIS_UNIT = re.compile(r"(?<=\d)\s*([kmg])b\s*$", re.IGNORECASE)


def _redis_units(value: object) -> object:
    """In redis.conf 1kb is 1024 bytes, and 1k is 1000; elsewhere the former is 1kib."""
    return _REDIS_UNIT.sub(r"\1ib", value) if isinstance(value, str) else value


MemorySize = Annotated[ByteSize, BeforeValidator(_redis_units)]
"""Bytes as redis.conf has them: 1kb = 1024, 1k = 1000, likewise m and g; 1KiB and the like too."""
_MEMORY_SIZE: TypeAdapter[ByteSize] = TypeAdapter(MemorySize)


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """Bounds on the bytes that may wait for one client. Bytes and seconds."""

    hard: int = 0
    soft: int = 0
    seconds: int = 0

    def above_since(self, unread: int, since: float | None, now: float) -> float | None:
        """Since when the soft limit has waited without interruption; `since` is the answer of the last look."""
        if not self.soft or unread < self.soft:
            return None
        return now if since is None else since

    def passed(self, unread: int, since: float | None, now: float) -> str:
        """The limit that a client is over, in words, or nothing; `since` is what `above_since` says."""
        if self.hard and unread >= self.hard:
            return f"hard {self.hard}"
        if since is not None and now - since > self.seconds:
            return f"soft {self.soft} for {self.seconds} s"
        return ""

    def __str__(self) -> str:
        """As redis.conf has it."""
        return f"{self.hard} {self.soft} {self.seconds}"


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """The limits of each class of clients."""

    normal: OutputLimit = OutputLimit()
    pubsub: OutputLimit = OutputLimit(32 << 20, 8 << 20, 60)

    def least(self, other: int) -> int:
        """The smallest number of bytes at which any limit, or the `other` one, has to be looked at."""
        limits = (self.normal.hard, self.normal.soft, self.pubsub.hard, self.pubsub.soft)
        return min([other, *filter(None, limits)])

    def __str__(self) -> str:
        """As redis.conf has it."""
        return f"normal {self.normal} pubsub {self.pubsub}"


def parse_output_limits(value: object) -> OutputLimits:
    """`CLASS HARD SOFT SECONDS ...`, or a list of such; a class that is not named keeps its default.

    Raises ValueError.
    """
    if isinstance(value, OutputLimits):
        return value
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    words = text.split()
    if len(words) % 4:
        raise ValueError("should be CLASS HARD SOFT SECONDS for each class, such as: pubsub 32mb 8mb 60")
    known = {field.name for field in fields(OutputLimits)}
    given: dict[str, OutputLimit] = {}
    for name, hard, soft, seconds in zip(*[iter(words)] * 4, strict=True):
        if name.lower() not in known:
            raise ValueError(f"{name}: there are the classes {' and '.join(sorted(known))}")
        if not seconds.isdecimal():
            raise ValueError(f"{name}: {seconds} is not a number of seconds")
        given[name.lower()] = OutputLimit(_size(name, hard), _size(name, soft), int(seconds))
    return OutputLimits(**given)


def _size(name: str, text: str) -> int:
    try:
        return int(_MEMORY_SIZE.validate_python(text))
    except ValidationError:
        raise ValueError(f"{name}: {text} is not a number of bytes, such as 32mb") from None


OutputLimitsOption = Annotated[OutputLimits, PlainValidator(parse_output_limits)]
"""The value of `client-output-buffer-limit`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of all clients together, and of each. Bytes and seconds; 0 is no limit, or never."""

    clients: int = 10_000
    idle: float = 0.0
    keepalive: int = 300  # without a packet, until the kernel asks whether the client is still there
    query: int = 1 << 30
    output: OutputLimits = OutputLimits()
    memory: int = 192 << 20  # what all clients of a process hold, see `budget`
    """By default so much that at the most, a quarter more, all of it may wait for a master (`hold_bytes`)."""
    clients_because: str = ""  # why `clients` is less than one worker's part of max_clients, if it is
