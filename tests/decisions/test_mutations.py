"""The search finds mistakes: each of these, made on purpose, is caught."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from rfmanager.decision import decide, fencing, switchover
from rfmanager.decision.plan import Policy, Record, View, Wait
from rfmanager.evidence import candidates, last_known
from rfprotocol.topology.topology import Change, Node, NodeReport, Topology
from tests.decisions.bounds import searched
from tests.decisions.roots import Bound
from tests.decisions.truth import Violation

Patch = pytest.MonkeyPatch


def nobody_is_waited_for(patch: Patch) -> None:
    for module in (decide, switchover):
        patch.setattr(module, "fence_holds", lambda view, topology, policy: None)


def one_proxy_is_enough(patch: Patch) -> None:
    real = fencing.not_acknowledged

    def any_of(view: View, topology: Topology) -> list[str]:
        missing = real(view, topology)
        return missing if len(missing) == len(view.proxies) else []

    patch.setattr(fencing, "not_acknowledged", any_of)


def planned_changes_do_not_wait_for_proxies(patch: Patch) -> None:
    patch.setattr(switchover, "_drained", lambda view, topology, policy: None)


def the_lowest_offset_is_chosen(patch: Patch) -> None:
    patch.setattr(candidates, "reach", lambda report, replid: -report.offset)


def other_histories_are_promoted(patch: Patch) -> None:
    patch.setattr(candidates, "continues", lambda report, replid: True)


def torn_data_is_promoted(patch: Patch) -> None:
    real = candidates.why_not
    patch.setattr(
        candidates, "why_not", lambda report, replid: real(replace(report, offset=abs(report.offset)), replid)
    )


def a_priority_of_0_is_ignored(patch: Patch) -> None:
    real = candidates.why_not
    patch.setattr(candidates, "why_not", lambda report, replid: real(replace(report, priority=1), replid))


def what_was_seen_counts_as_sealed(patch: Patch) -> None:
    patch.setattr(View, "sealed", View.fresh)


def a_better_candidate_that_failed_once_is_passed_over(patch: Patch) -> None:
    patch.setattr(decide, "_may_have_more", lambda *situation: False)


def a_candidate_that_failed_once_is_given_up(patch: Patch) -> None:
    for module in (candidates, decide):
        patch.setattr(module, "CHANCES", 1)


def a_target_that_restarted_is_published(patch: Patch) -> None:
    patch.setattr(switchover, "_is_chosen", lambda report, change: True)


def a_master_that_restarted_is_believed(patch: Patch) -> None:
    real = decide._why_lost

    def believing(view: View, topology: Topology, master: Node) -> str | None:
        return real(view, replace(topology, run_id=""), master)

    patch.setattr(decide, "_why_lost", believing)


def the_epoch_stays(patch: Patch) -> None:
    patch.setattr(fencing, "next_epoch", lambda view: view.topology.epoch if view.topology else 1)


def requests_are_kept(patch: Patch) -> None:
    real = fencing.publish

    def keeping(view: View, topology: Topology, what: Change, master: NodeReport) -> Record:
        return replace(real(view, topology, what, master), settles=False)

    patch.setattr(switchover, "publish", keeping)


def a_failed_candidate_is_not_given_up(patch: Patch) -> None:
    real = decide._promoting

    def stubborn(view: View, topology: Topology, what: Change, policy: Policy) -> Any:
        step = real(view, topology, what, policy)
        return Wait("again and again") if isinstance(step, Record) and step.name == "fence" else step

    patch.setattr(decide, "_promoting", stubborn)


def who_was_left_behind_is_promoted(patch: Patch) -> None:
    patch.setattr(decide, "_proven", lambda view, topology, change, choice, sealed: choice)


def data_of_others_is_overwritten(patch: Patch) -> None:
    patch.setattr(last_known, "belongs", lambda known, report: True)


HEALTHY = Bound(size=3, afflicted=0)
AFFLICTED = Bound(size=2, afflicted=1)
BOTH = Bound(size=2, afflicted=2)
UNEQUAL = Bound(size=3, afflicted=1)
INTERRUPTED = Bound(size=3, afflicted=1, faults=1)
STRUCK = Bound(size=2, afflicted=0, faults=1, struck=True)

MUTATIONS: Mapping[Callable[[Patch], None], tuple[Bound, str]] = {
    nobody_is_waited_for: (AFFLICTED, "can be written to|can write to"),
    one_proxy_is_enough: (replace(AFFLICTED, proxies=2), "can be written to|can write to"),
    planned_changes_do_not_wait_for_proxies: (HEALTHY, "can be written to"),
    the_lowest_offset_is_chosen: (UNEQUAL, "although"),
    other_histories_are_promoted: (AFFLICTED, "data of others|is empty|although"),
    torn_data_is_promoted: (BOTH, "part of a transfer|is empty"),
    a_priority_of_0_is_ignored: (AFFLICTED, "priority"),
    what_was_seen_counts_as_sealed: (HEALTHY, "without proof|nobody is promoted"),
    a_better_candidate_that_failed_once_is_passed_over: (INTERRUPTED, "although"),
    a_candidate_that_failed_once_is_given_up: (INTERRUPTED, "although"),
    a_target_that_restarted_is_published: (AFFLICTED, "published"),
    a_master_that_restarted_is_believed: (AFFLICTED, "another process"),
    who_was_left_behind_is_promoted: (AFFLICTED, "which lacks what"),
    data_of_others_is_overwritten: (AFFLICTED, "has the data of others"),
    the_epoch_stays: (HEALTHY, "epoch"),
    requests_are_kept: (HEALTHY, "request"),
    a_failed_candidate_is_not_given_up: (STRUCK, "rests in"),
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mistake_is_found(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bound, what = MUTATIONS[mutation]
    mutation(monkeypatch)
    with pytest.raises(Violation, match=what):
        searched(bound)
