"""What a view says about freshness and retries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rfmanager.decision.plan import Progress, View
from rfmanager.evidence.agreement import Standing
from rfprotocol.topology.topology import Node, NodeReport

NODE = Node("h", 1)
UP = NodeReport(NODE, available=True)


def view(standing: Standing | None, progress: Progress) -> View:
    standings = {NODE: standing} if standing else {}
    return View(now=10.0, wall=0.0, manager="m", members=(NODE,), topology=None, standings=standings, progress=progress)


def test_a_sample_from_before_the_epoch_is_not_fresh() -> None:
    assert view(Standing(True, UP, sampled_at=4.9), Progress(since=5.0)).fresh(NODE) is None
    assert view(Standing(True, UP, sampled_at=5.0), Progress(since=5.0)).fresh(NODE) == UP


def test_a_sample_from_before_the_last_command_to_the_server_is_not_fresh() -> None:
    assert view(Standing(True, UP, sampled_at=6.0), Progress(since=5.0, acted={NODE: 7.0})).fresh(NODE) is None


def test_hearsay_is_never_fresh() -> None:
    assert view(Standing(True, UP), Progress()).fresh(NODE) is None


def test_without_a_verdict_a_server_is_neither_fresh_nor_unavailable() -> None:
    unknown = view(None, Progress())
    assert unknown.fresh(NODE) is None
    assert not unknown.unavailable(NODE)


def test_a_failed_command_is_tried_again_after_a_while() -> None:
    assert not view(None, Progress(failed={NODE: 9.8})).may_retry(NODE, interval=0.5)
    assert view(None, Progress(failed={NODE: 9.5})).may_retry(NODE, interval=0.5)


def test_a_failure_is_forgotten_when_a_later_command_succeeds() -> None:
    assert not view(None, Progress()).failed(NODE)
    assert view(None, Progress(failed={NODE: 6.0})).failed(NODE)
    assert view(None, Progress(failed={NODE: 6.0}, acted={NODE: 5.0})).failed(NODE)
    assert not view(None, Progress(failed={NODE: 6.0}, acted={NODE: 7.0})).failed(NODE)


def test_a_sealed_state_counts_until_the_server_is_seen_restarted_or_pointed_elsewhere() -> None:
    sealed = replace(UP, role="slave", run_id="one", offset=7)

    def now(**seen: Any) -> NodeReport | None:
        standing = Standing(True, replace(sealed, **seen), sampled_at=6.0)
        return view(standing, Progress(since=5.0, sealed={NODE: sealed})).sealed(NODE)

    assert now() == sealed
    assert now(run_id="another") is None
    assert now(role="master") is None
    assert now(follows=Node("h", 2)) is None
    assert now(priority=0) == replace(sealed, priority=0), "what an operator sets counts at once"
