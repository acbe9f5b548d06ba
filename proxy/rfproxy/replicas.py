"""Which replica a session reads from, and which ones are passed over for a while.

A session has always the same one, so that it does not see time run backwards. While that one fails, or takes much
longer than another one, the next in order stands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from rfprotocol.topology import Node

SHED: Final = 0.1
"""Seconds for which a replica that failed is passed over, unless the topology changes before."""
SLOW: Final = 0.05
"""Seconds that a reply may take."""
SLOW_FOR: Final = 0.25
"""Seconds without a reply that took less, after which a replica is passed over. A proxy that stood still finds all
replies late once."""
SLOW_REST: Final = 10.0
"""Seconds for which a slow replica is passed over."""


class Pace:
    """How long the replies on one lane have been slow."""

    def __init__(self) -> None:
        self._since = inf

    @property
    def slow(self) -> bool:
        """Whether the latest reply was."""
        return self._since < inf

    def replied(self, took: float, now: float) -> bool:
        """A reply came after so many seconds; True when it is time to read elsewhere."""
        if took < SLOW:
            self._since = inf
            return False
        self._since = min(self._since, now)
        return now - self._since >= SLOW_FOR


class Replicas:
    """Those that are passed over. Times are seconds of the caller's monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[Node, float] = {}

    def choose(self, replicas: Sequence[Node], number: int, now: float) -> Node | None:
        """The one for session `number`; None when all are passed over."""
        for turn in range(len(replicas)):
            node = replicas[(number + turn) % len(replicas)]
            if not self.passed_over(node, now):
                return node
        return None

    def passed_over(self, node: Node, now: float) -> bool:
        """Whether it is not to be read from at the moment."""
        return self._until.get(node, now) > now

    def pass_over(self, node: Node, until: float) -> None:
        """It failed, or is slow."""
        self._until[node] = until

    def serves(self, node: Node) -> bool:
        """It has just shown that it is well; False when nobody had doubted that."""
        return self._until.pop(node, None) is not None

    def forget(self) -> None:
        """The topology is another one: all may be well."""
        self._until.clear()

    def times(self) -> Iterable[float]:
        """When to look again."""
        return self._until.values()
