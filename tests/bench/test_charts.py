"""The pictures show what was measured, and nothing where nothing was."""

from __future__ import annotations

from pathlib import Path

from bench.charts import bars, lines
from bench.peers import PEERS
from bench.records import Measurement
from bench.workloads import get

FACTS = {"name": "run", "date": "2030-01-31", "machine": "fast, 2 CPUs", "redis": "7"}


def seen(connections: int, pipeline: int) -> dict[tuple[str, str], Measurement]:
    name = get(connections, pipeline).name
    return {(name, system): Measurement(1, name, system, 1.0, 1.0, 1.0, 2.0, 3.0) for system in PEERS}


def panels(path: Path) -> int:
    return path.read_text().count('<g id="axes_')


def test_bars_have_a_panel_for_each_pipeline_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "bars.svg"
    bars({**seen(50, 1), **seen(50, 64), **seen(500, 16)}, FACTS, path)
    assert panels(path) == 2


def test_lines_have_a_panel_for_each_command_and_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "lines.svg"
    lines({**seen(50, 1), **seen(500, 1)}, FACTS, path)
    assert panels(path) == 12


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    bars(seen(500, 16), FACTS, tmp_path / "bars.svg")
    lines(seen(50, 1), FACTS, tmp_path / "lines.svg")
    assert not list(tmp_path.iterdir())
