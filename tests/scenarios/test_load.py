"""The load generator tells the truth: about errors and gaps, and about writes that were lost or applied twice."""

from __future__ import annotations

import pytest

from bench import load
from bench.load import Load
from bench.seen import Book, Gap, Ledger, Operation, Result
from tests.support.redis import RedisServer, free_port, wait_until


def running(server: RedisServer, connections: int = 4) -> Load:
    generator = Load(server.bind, server.port, connections=connections, rate=1000)
    generator.start()
    wait_until(lambda: len(generator.result().operations) > 12, "operations")
    return generator


def test_a_healthy_server_gives_no_errors_and_nothing_is_lost(redis_server: RedisServer) -> None:
    result = running(redis_server).stop()
    assert not result.errors
    assert {operation.command for operation in result.operations} == {"SET", "INCR", "GET"}
    assert result.ledger is not None
    writes = sum(operation.command != "GET" for operation in result.operations)
    assert result.ledger == Ledger(acknowledged=writes)


def test_a_server_that_dies_gives_errors_whose_writes_are_uncertain(redis_server: RedisServer) -> None:
    generator = running(redis_server)
    redis_server.kill()
    wait_until(lambda: generator.result().errors.total() > 0, "errors")
    redis_server.restart()
    result = generator.stop()
    assert result.ledger is not None
    failed_writes = sum(n for (command, _), n in result.errors.items() if command != "GET")
    assert result.ledger.uncertain == failed_writes


def test_acknowledged_writes_that_are_gone_are_counted_as_lost(redis_server: RedisServer) -> None:
    generator = running(redis_server, connections=1)
    with redis_server.client() as client:
        client.decrby("load:0:counter", 3)
    result = generator.stop()
    assert result.ledger is not None
    assert (result.ledger.lost, result.ledger.doubled) == (3, 0)


def test_a_value_that_fell_back_in_the_end_is_counted_as_lost() -> None:
    book = Book()
    for value in (1, 2, 3):
        book.acknowledged(value)
    assert book.close(1, most=3) == Ledger(acknowledged=3, lost=2)


def test_an_uncertain_write_may_be_there_or_not() -> None:
    for found in (1, 2):
        book = Book()
        book.acknowledged(1)
        book.uncertain()
        assert book.close(found) == Ledger(acknowledged=1, uncertain=1)


def test_a_write_that_was_applied_twice_is_counted(redis_server: RedisServer) -> None:
    generator = running(redis_server, connections=1)
    with redis_server.client() as client:
        client.incr("load:0:counter")
    result = generator.stop()
    assert result.ledger is not None
    assert (result.ledger.lost, result.ledger.doubled) == (0, 1)


def test_writers_and_readers_are_at_every_port(redis_server: RedisServer) -> None:
    with RedisServer() as other:
        servers = (redis_server, other)
        ports = [server.port for server in servers]
        generator = Load(other.bind, ports, connections=4, rate=1000, duties=(("SET",), ("GET",)))
        generator.start()
        wait_until(lambda: len(generator.result().operations) > 12, "operations")
        result = generator.stop()
        assert {operation.command for operation in result.operations} == {"SET", "GET"}
        for server in servers:
            assert {"cmdstat_set", "cmdstat_get"} <= server.info("commandstats").keys()


def test_gaps_are_between_successes_and_at_the_edges() -> None:
    operations = [
        Operation("GET", 0.9, 1.0),
        Operation("GET", 1.0, 3.0, error="MASTERDOWN"),
        Operation("SET", 1.0, 3.5),
        Operation("GET", 3.5, 4.0),
    ]
    result = Result(0.0, 5.0, operations)
    assert result.gap(["GET"]) == Gap(3.0, 1.0)
    assert result.gap(["SET"]) == Gap(3.5, 0.0)
    assert result.slowest(["SET"]) == 2.5
    assert result.between(3.2, 5.0).gap(["GET"]) == Gap(1.0, 4.0)
    assert result.errors == {("GET", "MASTERDOWN"): 1}


def test_percentiles_are_of_successes() -> None:
    operations = [Operation("GET", 0.0, seconds) for seconds in (0.1, 0.2, 0.3, 0.4)]
    result = Result(0.0, 1.0, [*operations, Operation("GET", 0.0, 9.0, error="TimeoutError")])
    assert result.percentile(0.5) == 0.3
    assert result.percentile(0.999) == 0.4
    assert Result(0.0, 1.0, []).percentile(0.5) == 0.0


def test_the_program_prints_what_was_seen(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--port", str(redis_server.port), "--connections", "2", "--rate", "200", "--seconds", "0.2"]
    assert load.main(words) == 0
    out = capsys.readouterr().out
    assert "errors      none" in out
    assert "0 of them lost" in out


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(["--port", str(free_port())]) == 1
    assert capsys.readouterr().err.startswith("load: 127.0.0.1:")
