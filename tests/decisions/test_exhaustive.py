"""All small groups, in all states, interrupted everywhere: the invariants hold, and all that can heal heals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.decision.decide import decide
from rfprotocol.topology.topology import Node, Phase
from tests.decisions.bounds import USUAL, searched
from tests.decisions.roots import AFFLICTIONS, POINTS, Bound, prepared
from tests.decisions.site import POLICY, all_informed, asked, begun, carried_out, view
from tests.decisions.truth import checked, onward


@pytest.mark.parametrize("bound", USUAL, ids=str)
def test_whatever_happens_the_invariants_hold_and_the_group_comes_to_rest(bound: Bound) -> None:
    assert searched(bound).sites >= USUAL[bound]


def test_every_point_of_a_change_and_every_affliction_is_among_the_roots() -> None:
    phases = {site.topology and site.topology.phase for site in Bound(size=2, afflicted=1).roots()}
    assert phases == {None, Phase.SERVING, Phase.FENCING, Phase.PROMOTING, Phase.DRAINING}
    assert len(POINTS) >= 13
    assert len(AFFLICTIONS) >= 18


@pytest.mark.parametrize("request_too", [True, False])
def test_a_paused_group_is_not_touched(request_too: bool) -> None:
    for root in Bound(size=2, afflicted=1).roots():
        site = replace(root, paused=True)
        if request_too and site.request is None:
            site = asked(site, Node("h", 2))
        for _ in range(3):
            site = begun(all_informed(site))
            step = decide(view(site), POLICY)
            after = checked(site, step, carried_out(site, step))
            assert after.servers == site.servers
            site = after


@pytest.mark.parametrize("target", [None, *(Node("h", port) for port in (1, 2, 3, 9))])
@pytest.mark.parametrize("point", POINTS)
def test_a_request_made_at_any_point_is_answered_once(point: str, target: Node | None) -> None:
    site = prepared(point, 3, 1, 1)
    if site.request is None:
        site = asked(site, target)
    for _ in range(40):
        site, _ = onward(site)
    assert site.request is None
    assert set(site.ledger.answers) == set(range(1, site.ledger.asked + 1))
