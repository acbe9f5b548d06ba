"""Visits every site that can be reached from a root with some number of faults, and checks all of them.

Faults are: a successor after each step, lost answers, refused commands, a proxy that freezes, a write, and servers that
die, return or restart at any moment, also between a decision and its execution. Proxies read the record, replicas copy
and commands arrive in any order, which is no fault. From each site the group, left alone, must come to rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rfmanager.decision.decide import decide
from rfmanager.decision.plan import CatchUp, Demote, Promote, Record, Seal, Step, Unpause, Wait
from rfmanager.evidence.last_known import LastKnown
from rfprotocol.topology.topology import Node
from tests.decisions.servers import Life, Start, replicated
from tests.decisions.site import (
    POLICY,
    Mishap,
    Site,
    all_pointed,
    begun,
    carried_out,
    informed,
    new_tenure,
    view,
    with_proxy,
    with_server,
    writers,
    written,
)
from tests.decisions.truth import (
    BOUND,
    Violation,
    check_rest,
    check_site,
    check_withdrawal,
    checked,
    describe,
    onward,
)

# What can happen next, and how many faults it is.


Happening = tuple[str, int, Site]
"""What happens, how many faults that is, and the site afterwards."""


def happenings(site: Site, faults: int, struck: bool) -> Iterator[Happening]:
    """What can happen with so many faults at most; `struck`: also to servers, at any moment."""
    site = begun(site)
    step = decide(view(site), POLICY)
    check_withdrawal(site, step)
    yield from _progress(site, step)
    if faults:
        yield from _interruptions(site, step)
    if faults and struck:
        yield from _strikes(site, step)


def _progress(site: Site, step: Step) -> Iterator[Happening]:
    if not isinstance(step, Wait):
        yield _name(step), 0, checked(site, step, carried_out(site, step))
    for proxy in site.proxies:
        if site.topology and not proxy.stuck and proxy.believed != site.topology:
            yield f"{proxy.name} reads", 0, informed(site, proxy)
    yield "replicas copy", 0, replace(site, servers=replicated(site.servers))
    if site.pointing:
        yield "arrives", 0, all_pointed(site)


def _interruptions(site: Site, step: Step) -> Iterator[Happening]:
    yield "successor", 1, new_tenure(site)
    if site.pointing:
        yield "successor, what was on its way arrives", 1, new_tenure(site, arrived=True)
    for proxy, _ in writers(site):
        if not proxy.stuck:
            yield f"write through {proxy.name}", 1, written(site, proxy)
            yield f"{proxy.name} freezes", 1, with_proxy(site, replace(proxy, stuck=True))
    for label, mishap in mishaps(step):
        yield f"{_name(step)}, {label}", 1, checked(site, step, carried_out(site, step, mishap))


def _strikes(site: Site, step: Step) -> Iterator[Happening]:
    visible = frozenset(s.run_id for s in site.servers if s.obeys and site.reaches(site.primary, s))
    for label, struck in strikes(site):
        yield label, 1, struck
        if not isinstance(step, Wait):
            after = checked(struck, step, carried_out(struck, step), visible)
            yield f"{label} unseen before {_name(step)}", 1, after


def mishaps(step: Step) -> Iterator[tuple[str, Mishap]]:
    """What can go wrong with its commands."""
    nodes: tuple[Node, ...] = ()
    match step:
        case Seal():
            nodes = step.nodes
        case Promote() | Unpause():
            nodes = (step.node,)
        case CatchUp():
            nodes = (step.former, step.target)
        case Demote():
            nodes = (step.former,)
        case _:
            pass
    for node in nodes:
        yield f"{node} refuses", Mishap(refused=frozenset({node}))
        yield f"{node} is unheard", Mishap(unheard=frozenset({node}))
    if len(nodes) > 1 and isinstance(step, Seal):
        yield "all refuse", Mishap(refused=frozenset(nodes))


def strikes(site: Site) -> Iterator[tuple[str, Site]]:
    """What can happen to a server."""
    for server in site.servers:
        if server.life is Life.RUNNING:
            yield f"{server.node} dies", with_server(site, replace(server, life=Life.DEAD))
            for start in (Start.EMPTY, Start.OLD):
                yield f"{server.node} restarts {start.value}", with_server(site, server.restarted(start))
        elif server.life in (Life.DEAD, Life.FROZEN):
            yield f"{server.node} comes back", with_server(site, replace(server, life=Life.RUNNING))


def _name(step: Step) -> str:
    if isinstance(step, Wait):
        return f"Wait {step.reason}"
    return step.name if isinstance(step, Record) else type(step).__name__


def key(site: Site) -> int:
    """Equal for sites that differ only in when and how they came about."""
    progress, now, ledger = site.progress, site.now, site.ledger
    return hash(
        (
            site.servers,
            site.proxies,
            site.topology,
            site.request,
            site.primary,
            site.managers,
            site.blind,
            site.pointing,
            _plain(site.known),
            _plain(site.seen),
            site.dropped,
            round(now - progress.since, 2),
            round(now - progress.tenure, 2),
            tuple(progress.sealed.values()),
            progress.promoted,
            progress.stage,
            bool(progress.trouble),
            tuple((node.port, round(now - when, 2)) for node, when in progress.failed.items()),
            tuple((node.port, round(now - when, 2)) for node, when in progress.acted.items()),
            ledger.acknowledged,
            ledger.excused,
            ledger.sealed,
            ledger.caught_up,
            ledger.promoted,
            tuple(ledger.answers),
        )
    )


def _plain(known: LastKnown | None) -> tuple[object, ...] | None:
    """What can be hashed."""
    return None if known is None else (known.run_id, known.offset, tuple(known.members.items()), known.histories)


STILL = 8
"""Steps without any change after which a group rests: more than any patience lasts."""

Trail = tuple["Trail | None", str, Site]
"""How a site was reached: from where, by what."""


class Explorer:
    """Visits sites, each once with the most faults left, and remembers how each was reached."""

    def __init__(self, faults: int, struck: bool = True) -> None:
        self._faults = faults
        self._struck = struck
        self._left: dict[int, int] = {}
        self._restful: set[int] = set()
        self.transitions = 0
        self.longest = 0

    @property
    def visited(self) -> int:
        """The number of different sites."""
        return len(self._left)

    def explore(self, start: Site) -> None:
        """Everything that can happen from there. Raises Violation with the way that led to it."""
        site = begun(start)
        trail: Trail = (None, "from", site)
        todo = [(trail, key(site), self._faults)]
        while todo:
            trail, name, left = todo.pop()
            if self._left.get(name, -1) >= left:
                continue
            self._left[name] = left
            site = trail[2]
            try:
                self._rest(site, name)
                for label, cost, reached in happenings(site, left, self._struck):
                    self.transitions += 1
                    after = begun(reached)
                    there = key(after)
                    if self._left.get(there, -1) < left - cost:
                        check_site(after)
                        todo.append(((trail, label, after), there, left - cost))
            except Violation as error:
                raise Violation(f"{error}\n{_told(trail)}") from error

    def _rest(self, site: Site, name: int) -> None:
        """Left alone, the group comes to rest."""
        passed: list[int] = []
        trail: Trail | None = None
        still = 0
        while name not in self._restful:
            passed.append(name)
            before = site
            try:
                site, step = onward(site)
                site = begun(site)
                still = still + 1 if isinstance(step, Wait) and _same(before, site) else 0
                if still > STILL:
                    assert isinstance(step, Wait)
                    check_rest(site, step)
                    break
                if len(passed) > BOUND:
                    raise Violation("does not come to rest")
            except Violation as error:
                raise Violation(f"{error}\nleft alone:\n{_told(trail)}\nafter:") from error
            name = key(site)
            trail = (trail, _name(step), site)
        self._restful.update(passed)
        self.longest = max(self.longest, len(passed))


def _same(one: Site, other: Site) -> bool:
    return (one.servers, one.topology, one.request, one.proxies) == (
        other.servers,
        other.topology,
        other.request,
        other.proxies,
    )


def _told(trail: Trail | None) -> str:
    lines: list[str] = []
    while trail is not None:
        before, label, site = trail
        lines.append(f"  {label}\n      {describe(site)}")
        trail = before
    return "\n".join(reversed(lines))
