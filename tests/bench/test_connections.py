"""What connections cost is measured on a proxy that serves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.connections import Idle, Line, Proxy, busy, growth, idle, save, table, verdicts
from tests.support.embedded import EmbeddedProxy
from tests.support.redis import RedisGroup


def test_idle_and_busy_connections_are_measured(redis_group: RedisGroup, tmp_path: Path) -> None:
    with EmbeddedProxy(redis_group, tmp_path, "--log-level", "warning") as embedded:
        (worker,) = embedded.process.workers
        proxy = Proxy(worker, embedded.address)
        still = idle(proxy, 20)
        line = busy(proxy, 5, rate=500, seconds=0.5)
    assert still.alone > 10_000_000
    assert 0 < line.cpu < 0.01
    assert 0 < line.p50 <= line.p99
    assert line.errors == 0


def line(connections: int, cpu: float) -> Line:
    return Line(connections, 1000, cpu, 0.001, 0.002, 0, 50_000_000)


def test_growth_is_told_from_the_medians_of_the_dearest_and_the_cheapest() -> None:
    lines = [line(10, cpu) for cpu in (1e-5, 2e-5, 9e-5)] + [line(1000, cpu) for cpu in (1e-5, 3e-5, 3e-5)]
    assert growth([*lines, line(10_000, 2.5e-5)]) == 1.5
    assert "1,000" in table(lines)


def test_a_target_holds_or_does_not() -> None:
    lines = [line(10, 1e-5), line(1000, 2e-5)]
    within = Idle(1000, alone=44_000_000, crowded=55_000_000, after=45_000_000)
    above = Idle(1000, alone=46_000_000, crowded=59_000_000, after=45_000_000)
    assert [holds for _, holds in verdicts(within, lines, 1000)] == [True, True, False, True, True]
    assert [holds for _, holds in verdicts(above, lines, 1000)] == [False, False, False, True, True]


def test_less_than_the_rate_or_an_error_is_said() -> None:
    still = Idle(1000, alone=44_000_000, crowded=55_000_000, after=45_000_000)
    failed = replace(line(1000, 1e-5), errors=1)
    assert [holds for _, holds in verdicts(still, [line(10, 1e-5), failed], 1100)] == [True, True, True, False, False]


def test_every_measurement_is_kept(tmp_path: Path) -> None:
    save(tmp_path / "found.csv", [line(10, 1e-5), line(1000, 2e-5)])
    *facts, head, one, _ = (tmp_path / "found.csv").read_text().splitlines()
    assert [fact.split(":")[0] for fact in facts] == ["# date", "# machine", "# rfproxy"]
    assert head == "connections,rate,cpu,p50,p99,errors,memory"
    assert one == "10,1000,1e-05,0.001,0.002,0,50000000"
