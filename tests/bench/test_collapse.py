"""What others do to a client is told from what Redis does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import collapse
from bench.background import Latency
from bench.collapse import DIRECT, DISTURBANCES, PROXY, Seen, rows, save, scene_of, table, watch


def seen(through: str, before: float, meanwhile: float, errors: int = 0, missing: float = 0.0) -> Seen:
    def latency(p99: float) -> Latency:
        return Latency(100, p99 / 2, p99, p99 * 2)

    return Seen("a storm", through, latency(before), Latency(), latency(meanwhile), errors, missing)


@pytest.mark.parametrize(
    ("direct", "proxied", "holds"),
    [
        ((1.0, 1.0), (2.0, 4.0), True),
        ((1.0, 1.0), (2.0, 4.1), False),
        ((1.0, 6.0), (2.0, 9.0), True),  # 5 are Redis' own
        ((1.0, 6.0), (2.0, 9.1), False),
        ((6.0, 1.0), (2.0, 4.0), True),  # the machine was calmer meanwhile: that is nobody's debt
    ],
)
def test_others_may_wait_twice_as_long_and_what_redis_adds(
    direct: tuple[float, float], proxied: tuple[float, float], holds: bool
) -> None:
    (row,) = rows([seen(DIRECT, *direct), seen(PROXY, *proxied)])
    assert row.holds is holds
    assert ("DOES NOT HOLD" in table([row])) is not holds


def test_an_error_never_holds() -> None:
    (row,) = rows([seen(DIRECT, 1, 1), seen(PROXY, 1, 1, errors=3)])
    assert not row.holds


def test_what_a_starved_load_did_not_see_does_not_hold() -> None:
    (row,) = rows([seen(DIRECT, 1, 1), seen(PROXY, 1, 1, missing=0.02)])
    assert not row.holds
    assert "2.0% of the load is missing" in table([row])


def test_several_rounds_count_by_their_median() -> None:
    found = [seen(way, before, 2 * before) for way in (DIRECT, PROXY) for before in (1.0, 2.0, 30.0)]
    (row,) = rows(found)
    assert row.before[PROXY].p99 == 2.0
    assert row.meanwhile[PROXY].p99 == 4.0


def test_a_dead_replica_is_survived_by_the_load_that_is_measured(
    zookeeper_hosts: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(collapse, "CALM", 0.3)
    monkeypatch.setattr(collapse, "LASTING", 1.3)
    disturbance = next(each for each in DISTURBANCES if each.title == "a dead replica")
    with scene_of(zookeeper_hosts, disturbance) as scene:
        found = watch(disturbance, scene, PROXY)
    assert found.errors == 0
    assert found.before.count > 100
    assert found.onset.count > 100
    assert found.meanwhile.count > 100
    save(tmp_path / "found.csv", [found])
    assert (tmp_path / "found.csv").read_text().splitlines()[4].startswith("a dead replica,proxy,before,")
