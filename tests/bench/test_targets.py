"""A target is judged by pairs of the same round, in the median of all rounds."""

from __future__ import annotations

import pytest

from bench.records import Measurement
from bench.targets import TARGETS, Verdict, verdicts
from bench.workloads import STEADY, WORKLOADS, get


def seen(number: int, system: str, workload: str = get(50, 16).name, **figures: float) -> Measurement:
    known = {"rate": 1.0, "p50": 1.0, "p99": 1.0, "proxy": 1.0, "redis": 1.0, **figures}
    return Measurement(number, workload, system, **known)


def pair(number: int, rfproxy: float, twemproxy: float) -> list[Measurement]:
    return [seen(number, "rfproxy", proxy=rfproxy), seen(number, "twemproxy", proxy=twemproxy)]


def verdict(*measurements: Measurement) -> Verdict:
    (found,) = verdicts(measurements)
    return found


def test_ratios_are_those_within_a_round() -> None:
    """While the machine is slow, both are."""
    found = verdict(*pair(1, 1.0, 4.0), *pair(2, 30.0, 100.0), *pair(3, 2.0, 5.0))
    assert found.figures == pytest.approx([0.25, 0.3, 0.4])
    assert found.median == pytest.approx(0.3)
    assert found.holds


def test_one_bad_round_does_not_decide() -> None:
    assert verdict(*pair(1, 1.0, 4.0), *pair(2, 9.0, 4.0), *pair(3, 1.0, 4.0)).holds
    assert not verdict(*pair(1, 1.0, 4.0), *pair(2, 9.0, 4.0), *pair(3, 2.0, 4.0)).holds


def test_a_round_that_lacks_one_of_the_two_does_not_count() -> None:
    assert verdict(*pair(1, 1.0, 4.0), seen(2, "rfproxy", proxy=9.0)).figures == [0.25]
    assert not verdicts([seen(1, "rfproxy"), seen(1, "haproxy")])


def test_proxy_and_redis_count_together_against_haproxy() -> None:
    one = get(50, 1).name
    found = verdicts([seen(1, "rfproxy", one, proxy=5.0, redis=1.0), seen(1, "haproxy", one, proxy=5.0, redis=5.0)])
    assert [(found.target.limit, found.median) for found in found] == [(1.15, 1.0), (0.8, 0.6)]


def test_latency_is_what_is_added() -> None:
    found = verdicts(
        [seen(1, name, STEADY.name, p99=p99) for name, p99 in (("redis", 0.5), ("haproxy", 0.75), ("rfproxy", 1.25))]
    )
    assert [(verdict.median, verdict.holds) for verdict in found] == [(0.75, True), (0.5, False)]


def test_every_target_has_a_workload() -> None:
    assert {target.workload for target in TARGETS} <= {workload.name for workload in WORKLOADS}
