"""What is sent: commands, in bursts that are cut into packets, in rounds that several connections take part in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rfprotocol.resp.resp import encode_command
from tests.differential.masks import Mask


@dataclass(frozen=True, slots=True)
class Command:
    """What a client says, and how many values it hears because of it (subscribing to two channels: 2)."""

    raw: bytes
    replies: int = 1
    mask: Mask | None = None
    closes: bool = False  # the server closes the connection behind the replies


def command(*words: str | bytes | int, replies: int = 1, mask: Mask | None = None, closes: bool = False) -> Command:
    """A command as clients send it."""
    args = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return Command(encode_command(args), replies, mask, closes)


@dataclass(frozen=True, slots=True)
class Burst:
    """What one connection says at once: packets end at `cuts`, offsets into all its bytes."""

    connection: int
    commands: tuple[Command, ...]
    cuts: tuple[int, ...] = ()

    @property
    def packets(self) -> list[bytes]:
        """The bytes, packet by packet."""
        data = b"".join(each.raw for each in self.commands)
        bounds = sorted({0, *(cut for cut in self.cuts if cut < len(data)), len(data)})
        return [data[start:end] for start, end in pairwise(bounds)]

    @property
    def replies(self) -> int:
        """How many values the connection hears until the round is over."""
        return sum(each.replies for each in self.commands)

    @property
    def closes(self) -> bool:
        """Whether the connection is closed in the end."""
        return any(each.closes for each in self.commands)


Round = tuple[Burst, ...]
"""Sent all at once; the next round begins when all replies are there."""


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation of some connections with an empty server."""

    rounds: tuple[Round, ...]

    @property
    def size(self) -> int:
        """How many commands there are."""
        return sum(len(burst.commands) for turn in self.rounds for burst in turn)

    @property
    def connections(self) -> list[int]:
        """The connections that say something, or are spoken to."""
        return sorted({burst.connection for turn in self.rounds for burst in turn})

    def said_by(self, connection: int) -> list[Command]:
        """All commands of one connection."""
        bursts = [burst for turn in self.rounds for burst in turn if burst.connection == connection]
        return [each for burst in bursts for each in burst.commands]

    def __str__(self) -> str:
        lines = []
        for turn in self.rounds:
            for burst in turn:
                packets = [_short(packet) for packet in burst.packets] or ["(listens)"]
                lines += [f"  {burst.connection}> {packet}" for packet in packets]
            lines.append("  --")
        return "\n".join(lines[:-1])


def _short(data: bytes) -> str:
    return repr(data) if len(data) < 2000 else f"{data[:1000]!r}... {len(data)} bytes"


def single(connection: int, commands: Sequence[Command]) -> Round:
    """A round in which one connection sends one packet."""
    return (Burst(connection, tuple(commands)),)
