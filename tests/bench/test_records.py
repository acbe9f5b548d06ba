"""What was measured can be read again, whenever the run ended."""

from __future__ import annotations

from pathlib import Path

from bench.records import Measurement, Notebook, facts, medians, read


def seen(number: int, system: str = "rfproxy", proxy: float = 1.0) -> Measurement:
    return Measurement(number, "GET, one", system, 1000.5, 0.25, 1.0, proxy, 2.0)


def test_a_measurement_is_in_the_file_as_soon_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    with path.open("w") as file:
        notebook = Notebook(file, {"name": "run", "machine": "fast, 2 CPUs"})
        for number in (1, 2):
            notebook.add(seen(number))
            assert read(path) == [seen(n) for n in range(1, number + 1)]
    assert path.read_text().startswith("# name: run\n# machine: fast, 2 CPUs\nround,")


def test_medians_are_those_of_a_workload_and_system() -> None:
    found = medians([seen(1, proxy=1.0), seen(1, "haproxy", 7.0), seen(2, proxy=9.0), seen(3, proxy=2.0)])
    assert [(system, one.proxy) for (_, system), one in found.items()] == [("rfproxy", 2.0), ("haproxy", 7.0)]


def test_the_facts_name_the_machine_and_all_versions() -> None:
    known = facts("run")
    assert known["name"] == "run"
    assert "CPUs, Linux" in known["machine"]
    assert known["rfproxy"].endswith(("compiled", "interpreted"))
    assert all("." in known[system] for system in ("redis", "twemproxy", "haproxy"))
