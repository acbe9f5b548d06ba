"""How fast rfproxy has to be: each target is a figure of one round, to be compared with its limit."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.records import Measurement
from bench.workloads import STEADY, get

Round = Mapping[str, Measurement]
"""What the systems, by name, did with the same workload in the same round."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that is at most `limit`, in the median of the rounds of a workload."""

    title: str
    workload: str
    limit: float
    unit: str
    figure: Callable[[Round], float]
    needs: tuple[str, ...]
    """The systems that are compared."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured of a target, round by round."""

    target: Target
    figures: Sequence[float]

    @property
    def median(self) -> float:
        """What counts."""
        return statistics.median(self.figures)

    @property
    def holds(self) -> bool:
        """Whether rfproxy is as fast as it should be."""
        return self.median <= self.target.limit


def _proxy(peer: str) -> Callable[[Round], float]:
    return lambda seen: seen["rfproxy"].proxy / seen[peer].proxy


def _together(peer: str) -> Callable[[Round], float]:
    return lambda seen: (seen["rfproxy"].proxy + seen["rfproxy"].redis) / (seen[peer].proxy + seen[peer].redis)


def _redis(peer: str) -> Callable[[Round], float]:
    return lambda seen: seen["rfproxy"].redis / seen[peer].redis


def _p99_above(peer: str) -> Callable[[Round], float]:
    return lambda seen: seen["rfproxy"].p99 - seen[peer].p99


def _target(
    title: str,
    workload: str,
    limit: float,
    figure: Callable[[str], Callable[[Round], float]],
    peer: str,
    unit: str = "x",
) -> Target:
    return Target(title, workload, limit, unit, figure(peer), ("rfproxy", peer))


TARGETS = (
    _target("CPU of the proxy, of twemproxy's", get(50, 1).name, 1.0, _proxy, "twemproxy"),
    _target("CPU of the proxy, of HAProxy's", get(50, 1).name, 1.15, _proxy, "haproxy"),
    _target("CPU of proxy and Redis, of HAProxy's and Redis'", get(50, 1).name, 0.8, _together, "haproxy"),
    _target("CPU of the proxy, of twemproxy's", get(50, 16).name, 0.35, _proxy, "twemproxy"),
    _target("CPU of the proxy, of twemproxy's", get(50, 64).name, 0.25, _proxy, "twemproxy"),
    _target("CPU of Redis behind the proxy, of Redis alone", get(500, 1).name, 0.25, _redis, "redis"),
    _target("p99 beyond that of Redis alone", STEADY.name, 1.0, _p99_above, "redis", "ms"),
    _target("p99 beyond that of HAProxy", STEADY.name, 0.3, _p99_above, "haproxy", "ms"),
)


def verdicts(measurements: Iterable[Measurement]) -> list[Verdict]:
    """Of all targets whose workload was run on all systems that they need."""
    rounds: defaultdict[tuple[str, int], dict[str, Measurement]] = defaultdict(dict)
    for one in measurements:
        rounds[one.workload, one.round][one.system] = one
    found = []
    for target in TARGETS:
        seen = [systems for (workload, _), systems in rounds.items() if workload == target.workload]
        figures = [target.figure(systems) for systems in seen if systems.keys() >= set(target.needs)]
        if figures:
            found.append(Verdict(target, figures))
    return found
