"""`bench.proxies` in small: real proxies, one workload, all that it writes. Nothing is said about speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.meter import Meter
from bench.peers import PEERS
from bench.proxies import main, rounds_of
from bench.records import Measurement, read
from bench.workloads import WORKLOADS, Workload, get
from deploy.processes import ProcessError


def test_all_systems_are_measured_written_down_drawn_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--small", "--name", "before", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    seen = {one.system: one for one in read(tmp_path / "before.csv")}
    assert seen.keys() == PEERS.keys()
    assert all(one.rate > 0 and one.p99 > 0 and one.redis > 0 for one in seen.values())
    assert {name for name, one in seen.items() if one.proxy > 0} == {"rfproxy", "twemproxy", "haproxy"}
    assert "CPU of the proxy, of twemproxy's" in printed
    assert "of 3 targets hold" in printed
    assert (tmp_path / "before.svg").read_text().count('<g id="axes_') == 1


def test_what_is_judged_is_measured_most_often() -> None:
    most = rounds_of(get(50, 1))
    assert rounds_of(get(500, 1)) == most
    assert all(rounds_of(workload) < most for workload in WORKLOADS if workload.title.startswith("SET"))


def test_what_fails_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Meter.measure

    def fail(meter: Meter, workload: Workload, requests: int, seconds: float, number: int) -> Measurement:
        if meter.peer.name == "haproxy":
            raise ProcessError("it took too long")
        return measure(meter, workload, requests, seconds, number)

    monkeypatch.setattr(Meter, "measure", fail)
    assert main(["--small", "--name", "partly", "--results", str(tmp_path)]) == 0
    assert {one.system for one in read(tmp_path / "partly.csv")} == PEERS.keys() - {"haproxy"}
    assert "left out: haproxy, GET 64 B, 50 conn, P=1: it took too long" in capsys.readouterr().err
