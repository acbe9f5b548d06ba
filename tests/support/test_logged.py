"""What tests read of the log of a program that is writing it."""

from __future__ import annotations

from pathlib import Path

from tests.support.logged import logged


def test_a_line_counts_when_it_is_complete(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert logged(log) == []
    log.write_text('setup: ready\n{"event": "listening"}\n{"event": "topo')
    assert logged(log) == [{"event": "listening"}]
    log.write_text('{"event": "listening"}\n{"event": "topology"}\n')
    assert [event["event"] for event in logged(log)] == ["listening", "topology"]
