"""Which replica a session reads from, and which ones are passed over for a while.

A session has always the same one, so that it does not see time run backwards. While that one fails, is silent, or takes
much longer than another one, the next in order stands in.

One that failed, or was slow, is tried by the next reader: it is told at once that it failed, or is answered at any
rate. A reader of one that is silent would have to wait, so that one is tried by a connection that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from rfprotocol.backoff import Backoff
from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Identity

SHED: Final = 0.1
LONGEST_SHED: Final = 2.0
"""Seconds for which a replica that failed is passed over, unless the topology changes before: doubled from first to
longest."""
SLOW_REST: Final = 10.0
"""Seconds for which a slow replica is passed over the first time. When it is slow still, twice as long."""
LONGEST_REST: Final = 160.0
"""Seconds for which it is passed over at most. Each look whether it is well again costs its readers SLOW_FOR of
`upstream/latency.py`."""

FIRST_TRIAL: Final = 0.25
LONGEST_BETWEEN_TRIALS: Final = 2.0
"""Seconds until a silent replica is tried, and between later trials: one connection each."""

FIRST_DENIAL: Final = 1.0
LONGEST_DENIAL: Final = 60.0
"""Seconds for which a replica is passed over that does not know an account; doubled from first to longest."""


class Denials:
    """Replicas that do not accept an identity, each for a while.

    ACL SETUSER reaches the server that it is said to, and no replica of it: the others may learn of it later.
    """

    def __init__(self) -> None:
        self._tries: dict[tuple[Node, Identity], Backoff] = {}

    def __bool__(self) -> bool:
        return bool(self._tries)

    def denied(self, node: Node, identity: Identity, now: float) -> float:
        """It was refused there. Returns when to try again."""
        return self._tries.setdefault((node, identity), Backoff(FIRST_DENIAL, LONGEST_DENIAL)).failed(now)

    def accepted(self, node: Node, identity: Identity) -> bool:
        """It was accepted there; False when nobody had doubted that."""
        return self._tries.pop((node, identity), None) is not None

    def others(self, replicas: Sequence[Node], identity: Identity, now: float) -> list[Node]:
        """The replicas to which this identity may go."""
        return [node for node in replicas if (denial := self._tries.get((node, identity))) is None or denial.due <= now]

    def forget(self, now: float) -> None:
        """Forget those that nobody has tried again for long."""
        for place in [place for place, denial in self._tries.items() if now - denial.due >= LONGEST_DENIAL]:
            del self._tries[place]

    def clear(self) -> None:
        """The topology is another one: all may know everybody."""
        self._tries.clear()

    def times(self) -> Iterable[float]:
        """When to look again."""
        return (denial.due for denial in self._tries.values())


class Silent:
    """A replica that did not answer."""

    def __init__(self, now: float) -> None:
        self.since = now
        """When that was found; seconds."""
        self.trials = Backoff(FIRST_TRIAL, LONGEST_BETWEEN_TRIALS)
        self.trials.failed(now)


class Replicas:
    """Those that are passed over. Times are seconds of the caller's monotonic clock."""

    def __init__(self) -> None:
        self._failed: dict[Node, Backoff] = {}
        self._slow: dict[Node, Backoff] = {}
        self.silent: dict[Node, Silent] = {}
        """Those that are passed over until they reply."""

    def choose(self, replicas: Sequence[Node], number: int, now: float) -> Node | None:
        """The one for session `number`: a slow one when there is no other; None when all have failed."""
        order = [replicas[(number + turn) % len(replicas)] for turn in range(len(replicas))]
        well = [node for node in order if not self.failed(node, now)]
        return next((node for node in well if not self.slow(node, now)), well[0] if well else None)

    def passed_over(self, node: Node, now: float) -> bool:
        """Whether it is not to be read from when there is another one."""
        return self.failed(node, now) or self.slow(node, now)

    def failed(self, node: Node, now: float) -> bool:
        """Whether it did not serve a moment ago."""
        backoff = self._failed.get(node)
        return (backoff is not None and backoff.due > now) or node in self.silent

    def slow(self, node: Node, now: float) -> bool:
        """Whether others are quicker."""
        return node in self._slow and self._slow[node].due > now

    def pass_over(self, node: Node, now: float) -> float:
        """It failed. Returns until when it is passed over."""
        return self._failed.setdefault(node, Backoff(SHED, LONGEST_SHED)).failed(now)

    def rest(self, node: Node, now: float) -> float:
        """It is slow. Returns until when it is passed over: the longer, the sooner it is slow again after a rest."""
        backoff = self._slow.setdefault(node, Backoff(SLOW_REST, LONGEST_REST))
        if now >= backoff.due + backoff.wait:
            backoff.succeeded()
        return backoff.failed(now)

    def serves(self, node: Node) -> bool:
        """It has just shown that it does not fail; False when nobody had doubted that."""
        silent = self.silent.pop(node, None)
        return self._failed.pop(node, None) is not None or silent is not None

    def is_silent(self, node: Node, now: float) -> bool:
        """It does not answer; False when that is known."""
        if node in self.silent:
            return False
        self.silent[node] = Silent(now)
        return True

    def forget(self, replicas: Collection[Node]) -> None:
        """The topology is another one, with these replicas: all may be well, but for those that have still to reply."""
        self._failed.clear()
        self.silent = {node: silent for node, silent in self.silent.items() if node in replicas}
        self._slow.clear()

    def times(self) -> Iterable[float]:
        """When to look again."""
        yield from (backoff.due for backoff in self._failed.values())
        yield from (backoff.due for backoff in self._slow.values())
