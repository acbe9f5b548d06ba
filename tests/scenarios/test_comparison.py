"""What `bench.failover` compares the proxy with is a Sentinel that works, and its table counts what clients saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.crowd import Crowd
from bench.event import KINDS, Event, faults
from bench.figures import breakdown, plot, table
from bench.load import Load
from bench.seen import Ledger, Operation, Result
from bench.sentinel import SentinelSite
from bench.systems import masters
from rfprotocol.topology.records import Outcome, Receipt
from rfprotocol.topology.topology import Kind
from tests.support.redis import RedisGroup, wait_until

PATIENCE = 60.0
"""Seconds; where nothing is to fail, a machine that stands still for a moment is no failure."""


def test_clients_of_sentinel_write_to_the_master_and_read_from_replicas(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    with SentinelSite(tmp_path, redis_group, down_after=PATIENCE, client_timeout=PATIENCE) as site:
        load = site.load(connections=4, rate=400)
        load.start()
        wait_until(lambda: _calls(redis_group, "get") > 10, "operations")
        result = load.stop()
    writes = sum(operation.command != "GET" for operation in result.operations)
    assert not result.errors
    assert result.ledger == Ledger(acknowledged=writes)
    calls = {server.node: server.info("commandstats") for server in redis_group.servers}
    assert "cmdstat_get" not in calls[redis_group.master.node]
    assert any("cmdstat_get" in calls[replica.node] for replica in redis_group.replicas)


def _calls(group: RedisGroup, command: str) -> int:
    return sum(server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"] for server in group.servers)


def test_sentinel_moves_the_role_on_request(redis_group: RedisGroup, tmp_path: Path) -> None:
    with SentinelSite(tmp_path, redis_group) as site:
        site.switch_over()
        wait_until(lambda: bool(masters(redis_group, but=redis_group.master)), "another master")


def test_sentinel_replaces_a_master_that_was_killed(redis_group: RedisGroup, tmp_path: Path) -> None:
    with SentinelSite(tmp_path, redis_group) as site:
        redis_group.master.kill()
        wait_until(lambda: bool(masters(site.group)), "another master")


def event(system: str, kind: int, *, back: float, error: str, lost: int = 0, receipt: Receipt | None = None) -> Event:
    """At second 10; writes succeed again after `back` seconds, and until then each second one fails."""
    failures = [Operation("INCR", 10 + second, 10.5 + second, error) for second in range(int(back))]
    operations = [
        Operation("INCR", 9.0, 9.5, "before"),
        Operation("SET", 9.9, 10.0),
        *failures,
        Operation("GET", 10.0, 10.25),
        Operation("SET", 10.0, 10.0 + back),
        Operation("GET", 10.0, 10.0 + back),
    ]
    return Event(system, KINDS[kind], 10.0, Result(0.0, 10.0 + back, operations, Ledger(lost=lost)), receipt)


def test_the_table_has_a_line_for_each_event_and_system() -> None:
    lines = table(
        [
            event("rfproxy", 0, back=0.5, error="UNCERTAIN"),
            event("Sentinel", 0, back=3, error="TimeoutError", lost=5),
            event("rfproxy", 0, back=1.5, error="UNCERTAIN"),
            event("Sentinel", 0, back=2, error="ConnectionError", lost=7),
            event("rfproxy", 3, back=0.25, error="UNCERTAIN"),
        ]
    ).splitlines()[1:]
    killed, moved = KINDS[0].title, KINDS[3].title
    assert [line.split("  ") for line in map(squeezed, lines)] == [
        [killed, "rfproxy", "1000.0 ms", "1500.0 ms", "750.0 ms", "1250.0 ms", "0", "1", "1 UNCERTAIN"],
        [
            *(killed, "Sentinel", "2500.0 ms", "3000.0 ms", "2250.0 ms", "2750.0 ms", "12", "5"),
            "3 TimeoutError, 2 ConnectionError",
        ],
        [moved, "rfproxy", "250.0 ms", "250.0 ms", "250.0 ms", "250.0 ms", "0", "0", "none"],
    ]


def test_uncertain_writes_that_were_in_flight_are_no_fault() -> None:
    assert not faults(event("rfproxy", 0, back=3, error="UNCERTAIN", lost=1))


def test_any_other_error_and_any_error_or_loss_of_a_planned_change_is_a_fault() -> None:
    assert faults(event("rfproxy", 0, back=3, error="READONLY")) == ["errors: 3 READONLY"]
    assert faults(event("rfproxy", 3, back=1, error="UNCERTAIN")) == ["errors: 1 UNCERTAIN"]
    assert faults(event("rfproxy", 3, back=0.5, error="", lost=2)) == ["2 acknowledged writes lost"]


@pytest.mark.parametrize(
    "stray", [Operation("SET", 10.0, 10.2, "UNCERTAIN"), Operation("GET", 10.0, 10.2, "UNCERTAIN")]
)
def test_an_error_for_what_may_be_sent_again_is_a_fault(stray: Operation) -> None:
    seen = event("rfproxy", 0, back=0.5, error="")
    whole = Result(0.0, 10.5, [*seen.whole.operations, stray])
    [fault] = faults(Event("rfproxy", KINDS[0], 10.0, whole))
    assert f"1 {stray.command}" in fault


def test_an_uncertain_write_that_began_when_writes_succeeded_again_is_a_fault() -> None:
    operations = [
        Operation("SET", 10.0, 13.0),
        Operation("INCR", 13.5, 13.6, "UNCERTAIN"),
        *(Operation("SET", 13.0 + n, 13.9 + n) for n in range(2)),
    ]
    assert faults(Event("rfproxy", KINDS[0], 10.0, Result(0.0, 15.0, operations)))


def test_the_receipts_say_where_the_time_went() -> None:
    def receipt(agreed: float, held: int) -> Receipt:
        steps = (("noticed", 100.0), ("agreed", 100.0 + agreed), ("published", 101.0))
        proxies = {"p": {"held": held, "longest_wait": 0.25, "uncertain": 1}}
        return Receipt(3, Kind.FAILOVER, Outcome.DONE, "it died", steps=steps, proxies=proxies)

    text = breakdown(
        [
            event("rfproxy", 0, back=1, error="", receipt=receipt(0.25, 2)),
            event("rfproxy", 0, back=1, error="", receipt=receipt(0.75, 4)),
            event("Sentinel", 0, back=1, error=""),
        ]
    )
    assert "agreed 500.0 ms, published 500.0 ms; in all 1000.0 ms" in text
    assert "held 3, replayed 0, longest wait 250.0 ms (worst 250.0 ms), 2 uncertain in all" in text


def test_both_systems_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "drawn" / "failover.svg"
    plot([event(system, kind, back=1, error="") for system in ("rfproxy", "Sentinel") for kind in (0, 3)], path)
    assert path.read_text().count('<g id="axes_') == 4


def test_the_clients_of_all_processes_count_as_one_load(redis_group: RedisGroup) -> None:
    def part(numbers: range) -> Load:
        return Load(redis_group.master.bind, redis_group.master.port, connections=6, rate=600, numbers=numbers)

    load = Crowd(part, 6)
    load.start()
    wait_until(lambda: _calls(redis_group, "set") > 30, "operations")
    result = load.stop()
    assert result.ledger == Ledger(acknowledged=sum(operation.command != "GET" for operation in result.operations))
    with redis_group.master.client() as client:
        assert client.exists(*(f"load:{number}:counter" for number in range(6))) == 6


def squeezed(line: str) -> str:
    """Columns two blanks apart."""
    return "  ".join(word.strip() for word in line.split("  ") if word.strip())
