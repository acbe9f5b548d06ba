"""The tables of a run of `bench.proxies`."""

from __future__ import annotations

from bench.records import Measurement
from bench.tables import comparison, judgement, overview
from bench.targets import verdicts
from bench.workloads import get


def seen(workload: str, system: str, proxy: float) -> Measurement:
    return Measurement(1, workload, system, 12_345.0, 0.5, 1.5, proxy, 3.0)


def test_a_line_has_each_figure_of_all_systems() -> None:
    lines = overview([seen("GET", "redis", 0.0), seen("GET", "rfproxy", 4.0), seen("SET", "rfproxy", 5.0)]).splitlines()
    assert [line.split() for line in lines[-2:]] == [
        ["GET", "4.00", "3.00", "3.00", "12.3", "12.3", "1.50", "1.50"],
        ["SET", "5.00", "3.00", "12.3", "1.50"],
    ]


def test_a_target_that_is_missed_stands_out() -> None:
    one = get(50, 16).name
    text = judgement(verdicts([seen(one, "rfproxy", 2.0), seen(one, "twemproxy", 4.0)]))
    assert "<= 0.35 x  0.50 x    0.50 - 0.50  DOES NOT HOLD" in text
    assert text.endswith("0 of 1 targets hold")


def test_a_run_is_compared_with_an_earlier_one_as_far_as_both_went() -> None:
    before = [seen("GET", "rfproxy", 4.0), seen("GET", "haproxy", 2.0)]
    after = [seen("GET", "rfproxy", 3.0), seen("GET", "haproxy", 2.5), seen("SET", "rfproxy", 9.0)]
    got, put = comparison(before, after).splitlines()[-2:]
    assert got.split() == ["GET", "4.00", "3.00", "0.75", "2.00", "2.50", "1.25"]
    assert put.split() == ["SET"]
