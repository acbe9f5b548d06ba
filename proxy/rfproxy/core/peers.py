"""The other workers of this proxy, as the core sees them.

Each worker process knows the clients that the kernel gave to it, and only those. A command about clients in general is
a question to the others, too. A question and its answer are lists of words, as a command is; `gathering` has both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Protocol

_BITS = 31

Answers = Sequence[list[bytes]]
"""What those workers said that answered in time."""


def first_number(process: int) -> int:
    """The first CLIENT ID of a process: below 2^53, and of no other worker that lives."""
    return (process << _BITS) + 1


def owner(number: int) -> int:
    """The process that a client with this CLIENT ID belongs to, if there is such a client."""
    return number >> _BITS


class RemoteClient:
    """A client of another worker that is told what clients of this one track, as the router sees it."""

    def __init__(self) -> None:
        self.due = inf
        """When to ask again where it is, because somebody waits; seconds, monotonic."""

    @abstractmethod
    def renew(self) -> None:
        """Ask where it is."""

    @abstractmethod
    def poll(self, now: float) -> None:
        """Ask again if it is time to."""


class Peers(Protocol):
    """What the core asks of the program around it when there is more than one worker."""

    def ask(
        self, question: list[bytes], owners: Collection[int] | None, on_answers: Callable[[Answers, float], None]
    ) -> None:
        """Ask the other workers, or those `owners` among them, and call back once, in a later turn of the loop.

        `on_answers` is given the answers and the time (seconds, monotonic). It is called within a fraction of a second,
        whatever the others do: the answer of a worker that is frozen, gone or of another version is missing.
        """
