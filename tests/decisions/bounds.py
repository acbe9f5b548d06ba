"""How far the search goes: in every test run, and when there is time for more. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from rfprotocol.topology.topology import Node
from tests.decisions.exploration import Explorer
from tests.decisions.roots import Bound


def _disagreeing(bound: Bound) -> Iterator[Bound]:
    """The same with some of the managers blind to the master, or to a replica. The first is the primary one."""
    for node in (Node("h", 1), Node("h", 2)):
        for count in range(1, bound.managers + 1):
            for blind in combinations(range(bound.managers), count):
                yield replace(bound, blind=frozenset((manager, node) for manager in blind))


USUAL = {
    Bound(size=1, afflicted=1, faults=2, struck=True): 5_900,
    Bound(size=2, afflicted=2): 19_000,
    Bound(size=2, afflicted=0, faults=1, struck=True): 1_450,
    Bound(size=2, afflicted=1, proxies=2): 7_000,
    Bound(size=3, afflicted=1, faults=1): 17_000,
    Bound(size=3, afflicted=0, faults=1, struck=True): 6_800,
    Bound(size=4, afflicted=1): 4_200,
    **{
        view: 280
        for managers in (1, 2, 3)
        for view in _disagreeing(Bound(size=3, afflicted=0, faults=1, managers=managers))
    },
}
"""In every test run; with the number of sites that are visited at least, so that it cannot shrink unnoticed."""

FULL = [
    *USUAL,
    Bound(size=1, afflicted=1, faults=3, struck=True),
    Bound(size=2, afflicted=2, faults=1, struck=True),
    Bound(size=2, afflicted=1, faults=2),
    Bound(size=2, afflicted=1, faults=1),
    Bound(size=2, afflicted=1, faults=1, struck=True, proxies=2),
    Bound(size=3, afflicted=3),
    Bound(size=3, afflicted=1, faults=1, struck=True),
    Bound(size=3, afflicted=2, faults=1),
    Bound(size=4, afflicted=1, faults=1),
    Bound(size=4, afflicted=0, faults=1, struck=True),
    Bound(size=4, afflicted=2),
    Bound(size=4, afflicted=3),
    *(
        view
        for managers in (1, 2, 3)
        for size in (2, 3)
        for view in _disagreeing(Bound(size=size, afflicted=1, faults=1, managers=managers))
    ),
]
"""When there is time: see `python -m tests.decisions`."""


@dataclass(frozen=True, slots=True)
class Count:
    """What a search has seen."""

    roots: int
    sites: int
    transitions: int
    longest: int  # way to rest, in steps


def searched(bound: Bound) -> Count:
    """Visit everything within the bound. Raises Violation."""
    explorer, roots = Explorer(bound.faults, bound.struck), 0
    for site in bound.roots():
        roots += 1
        explorer.explore(site)
    return Count(roots, explorer.visited, explorer.transitions, explorer.longest)
