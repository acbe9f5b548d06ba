"""All small groups, in all states, at all points of a change of master: where an exploration begins. Pure.

A root is a group that was well until some point of a change, when its servers were afflicted in some way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from rfmanager.decision.plan import CatchUp, Demote, Promote, Record, Seal, Step
from rfprotocol.topology.topology import Node
from tests.decisions.servers import ELSEWHERE, Life, Link, Server, Start, group
from tests.decisions.site import Proxy, Site, asked, with_server, written
from tests.decisions.truth import BOUND, onward

# Afflictions: what a server may have come to. None: not applicable.

Affliction = Callable[[Server], Server | None]


def _restarted(start: Start, life: Life = Life.RUNNING) -> Affliction:
    return lambda server: replace(server.restarted(start), life=life)


def _replica_only(change: Affliction) -> Affliction:
    return lambda server: change(server) if server.follows and server.life is Life.RUNNING else None


def _running_only(change: Affliction) -> Affliction:
    return lambda server: change(server) if server.life is Life.RUNNING else None


def _behind(server: Server) -> Server | None:
    if server.follows is None or not server.data:
        return None
    return replace(server, data=server.data[:-1], offset=server.offset - 1)


AFFLICTIONS: dict[str, Affliction] = {
    "well": lambda server: server,
    "dead": _running_only(lambda server: replace(server, life=Life.DEAD)),
    "frozen": _running_only(lambda server: replace(server, life=Life.FROZEN)),
    "back": lambda server: replace(server, life=Life.RUNNING) if server.life is Life.DEAD else None,
    "restarted whole": _restarted(Start.WHOLE),
    "restarted old": _restarted(Start.OLD),
    "restarted strange": _restarted(Start.STRANGE),
    "restarted empty": _restarted(Start.EMPTY),
    "restarted as nobody's": lambda server: server.restarted_as_replica(Start.WHOLE),
    "restarted empty as nobody's": lambda server: server.restarted_as_replica(Start.EMPTY),
    "loading": _restarted(Start.WHOLE, Life.LOADING),
    "priority 0": _running_only(lambda server: replace(server, priority=0)),
    "behind": _replica_only(_behind),
    "behind and unlinked": _replica_only(
        lambda server: replace(late, isolated=True, link=Link.DOWN, linked_to="") if (late := _behind(server)) else None
    ),
    "copying": _replica_only(
        lambda server: replace(late, link=Link.COPYING) if (late := _behind(server)) and server.linked_to else None
    ),
    "replacing": _replica_only(
        lambda server: replace(server, link=Link.REPLACING, data=(), torn=True) if server.linked_to else None
    ),
    "torn": _replica_only(lambda server: replace(server, link=Link.DOWN, linked_to="", data=(), torn=True)),
    "foreign": _replica_only(
        lambda server: replace(
            server, replid="foreign", offset=9, data=(-1, -2), follows=ELSEWHERE, link=Link.DOWN, linked_to=""
        )
    ),
    "replaced by a stranger": _replica_only(lambda server: server.replaced_by_a_stranger()),
    "detached": _replica_only(lambda server: server.following(None)),
    "promoted by hand": _replica_only(lambda server: server.promoted()),
}

# Points of a change at which the afflictions strike.


def _until(kind: type[Step], name: str = "") -> Callable[[Step], bool]:
    return lambda step: isinstance(step, kind) and (not name or (isinstance(step, Record) and step.name == name))


POINTS: dict[str, tuple[str, Callable[[Step], bool] | None]] = {
    "no record": ("nothing", None),
    "serving": ("nothing", _until(Record, "settle")),
    "fenced": ("master dies", _until(Record, "fence")),
    "sealed": ("master dies", _until(Seal)),
    "marked": ("master dies", _until(Record, "mark")),
    "promoted": ("master dies", _until(Promote)),
    "left behind": ("master dies after a replica", _until(Record, "fence")),
    "published": ("master dies", _until(Record, "publish")),
    "asked": ("switchover", _until(Record, "settle")),
    "draining": ("switchover", _until(Record, "drain")),
    "caught up": ("switchover", _until(CatchUp)),
    "switching": ("switchover", _until(Promote)),
    "demoted": ("switchover", _until(Demote)),
    "switched": ("switchover", _until(Record, "publish")),
}


def prepared(point: str, size: int, managers: int, proxies: int) -> Site:
    """A group that was well until that point."""
    how, reached = POINTS[point]
    site = Site(group(size), tuple(Proxy(f"p{n}", acknowledged=0) for n in range(proxies)), managers=managers)
    if reached is None:
        return site
    for _ in range(3):
        site, step = onward(site)
        if isinstance(step, Record):
            break
    if how == "nothing":
        return onward(site)[0]
    if how == "switchover":
        site = asked(onward(site)[0], Node("h", 2))
        if point == "asked":
            return site
    else:
        if how == "master dies after a replica":
            site = _written_without(site, site.servers[-1])
        site = with_server(onward(site)[0], replace(site.servers[0], life=Life.DEAD))
    for _ in range(BOUND):
        site, step = onward(site)
        if reached(step):
            return site
    raise AssertionError(f"never reached: {point}")


def _written_without(site: Site, replica: Server) -> Site:
    """The replica dies, the managers see it, and a client writes."""
    site = with_server(site, replace(replica, life=Life.DEAD))
    for _ in range(5):
        site, _ = onward(site)
    return written(site, site.proxies[0])


@dataclass(frozen=True, slots=True)
class Bound:
    """How far to go, for one kind of group."""

    size: int
    afflicted: int  # servers at most
    faults: int = 0  # afterwards
    struck: bool = False  # servers may also be struck later
    managers: int = 1
    blind: frozenset[tuple[int, Node]] = frozenset()
    proxies: int = 1

    def __str__(self) -> str:
        blind = "".join(f"-blind{manager}{node.port}" for manager, node in sorted(self.blind))
        faults = f"{self.faults}{'strikes' if self.struck else 'interruptions'}"
        return (
            f"{self.size}nodes-{self.afflicted}afflicted-{faults}-{self.managers}managers{blind}-{self.proxies}proxies"
        )

    def roots(self) -> Iterator[Site]:
        """All groups within the bound. Replicas are alike, so that their order does not matter."""
        for point, (how, _) in POINTS.items():
            if self.size == 1 and how != "nothing":
                continue
            healthy = prepared(point, self.size, self.managers, self.proxies)
            for names in self._afflictions():
                by_hand = "promoted by hand" in names and how == "switchover"  # nobody can promise anything then
                site = None if by_hand else planted(replace(healthy, blind=self.blind), names)
                if site is not None:
                    yield site

    def _afflictions(self) -> Iterator[tuple[str, ...]]:
        for first in AFFLICTIONS:
            for rest in combinations_with_replacement(AFFLICTIONS, self.size - 1):
                names = (first, *rest)
                if sum(name != "well" for name in names) <= self.afflicted:
                    yield names


def planted(site: Site, afflictions: tuple[str, ...]) -> Site | None:
    """The group with these afflictions, in the order of its servers; None when one does not apply."""
    for server, name in zip(site.servers, afflictions, strict=True):
        afflicted = AFFLICTIONS[name](server)
        lags = afflicted is not None and afflicted.starts == server.starts and afflicted.offset < server.offset
        if afflicted is None or (lags and server.run_id in site.ledger.caught_up):
            return None
        site = with_server(site, afflicted)
    return site
