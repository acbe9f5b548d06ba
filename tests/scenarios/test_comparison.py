"""What `bench.failover` compares the proxy with is a Sentinel that works, and its table counts what clients saw."""

from __future__ import annotations

from pathlib import Path

from bench.failover import KINDS, Event, masters, table
from bench.load import Ledger, Operation, Result
from bench.sentinel import SentinelSite
from tests.support.redis import RedisGroup, wait_until


def test_clients_of_sentinel_write_to_the_master_and_read_from_replicas(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    with SentinelSite(tmp_path, redis_group) as site:
        load = site.load(connections=3, rate=300)
        load.start()
        wait_until(lambda: len(load.result().operations) > 30, "operations")
        result = load.stop()
    writes = sum(operation.command != "GET" for operation in result.operations)
    assert not result.errors
    assert result.ledger == Ledger(acknowledged=writes)
    calls = {server.node: server.info("commandstats") for server in redis_group.servers}
    assert "cmdstat_get" not in calls[redis_group.master.node]
    assert any("cmdstat_get" in calls[replica.node] for replica in redis_group.replicas)


def test_sentinel_moves_the_role_on_request(redis_group: RedisGroup, tmp_path: Path) -> None:
    with SentinelSite(tmp_path, redis_group) as site:
        site.switch_over()
        wait_until(lambda: bool(masters(redis_group, but=redis_group.master)), "another master")


def test_sentinel_replaces_a_master_that_was_killed(redis_group: RedisGroup, tmp_path: Path) -> None:
    with SentinelSite(tmp_path, redis_group) as site:
        redis_group.master.kill()
        wait_until(lambda: bool(masters(site.group)), "another master")


def event(system: str, kind: int, *, back: float, error: str, lost: int = 0) -> Event:
    """At second 10; writes succeed again after `back` seconds, and until then each second one fails."""
    failures = [Operation("SET", 10 + second, 10.5 + second, error) for second in range(int(back))]
    operations = [
        Operation("SET", 9.0, 9.5, "before"),
        Operation("SET", 9.9, 10.0),
        *failures,
        Operation("GET", 10.0, 10.25),
        Operation("SET", 10.0, 10.0 + back),
        Operation("GET", 10.0, 10.0 + back),
    ]
    return Event(system, KINDS[kind].title, 10.0, Result(0.0, 10.0 + back, operations, Ledger(lost=lost)))


def test_the_table_has_a_line_for_each_event_and_system() -> None:
    lines = table(
        [
            event("rfproxy", 0, back=0.5, error="UNCERTAIN"),
            event("Sentinel", 0, back=3, error="TimeoutError", lost=5),
            event("rfproxy", 0, back=1.5, error="UNCERTAIN"),
            event("Sentinel", 0, back=2, error="ConnectionError", lost=7),
            event("rfproxy", 2, back=0.25, error="UNCERTAIN"),
        ]
    ).splitlines()[1:]
    killed, moved = KINDS[0].title, KINDS[2].title
    assert [line.split("  ") for line in map(squeezed, lines)] == [
        [killed, "rfproxy", "1000 ms", "1500 ms", "750 ms", "1250 ms", "0", "1 UNCERTAIN"],
        [killed, "Sentinel", "2500 ms", "3000 ms", "2250 ms", "2750 ms", "12", "3 TimeoutError, 2 ConnectionError"],
        [moved, "rfproxy", "250 ms", "250 ms", "250 ms", "250 ms", "0", "none"],
    ]


def squeezed(line: str) -> str:
    """Columns two blanks apart."""
    return "  ".join(word.strip() for word in line.split("  ") if word.strip())
