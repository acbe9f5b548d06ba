"""An open load goes on while the server does not."""

from __future__ import annotations

import threading

import pytest

from bench.openloop import main, run
from tests.support.redis import RedisServer


def address(server: RedisServer) -> tuple[str, int]:
    return server.bind, server.port


def test_every_command_is_answered_and_its_latency_known(redis_server: RedisServer) -> None:
    latencies = run(*address(redis_server), 5, 2000, 400, ["SET", "64:__rand_int__", "x"])
    assert len(latencies) == 400
    assert redis_server.info("commandstats")["cmdstat_set"]["calls"] == 400 + 5  # each connection begins with one
    assert min(latencies) > 0
    assert redis_server.command("DBSIZE") > 300


def test_a_server_that_stands_still_is_seen_by_all_commands_that_come_meanwhile(redis_server: RedisServer) -> None:
    """Two connections that wait for their answers would have seen it twice."""

    def pause() -> None:
        while redis_server.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"] < 50:
            pass
        redis_server.command("CLIENT", "PAUSE", 300)  # milliseconds

    pausing = threading.Thread(target=pause)
    pausing.start()
    latencies = run(*address(redis_server), 2, 1000, 900, ["GET", "k"])
    pausing.join()
    assert sum(latency > 0.1 for latency in latencies) > 50


def test_an_error_is_not_taken_for_an_answer(redis_server: RedisServer) -> None:
    with pytest.raises(SystemExit, match="wrong number"):
        run(*address(redis_server), 1, 1000, 10, ["GET"])


def test_it_prints_what_redis_benchmark_prints(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    host, port = address(redis_server)
    assert main([host, str(port), "--connections", "3", "--rate", "1000", "--requests", "200", "GET", "k"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == '"test","rps","p50_latency_ms","p99_latency_ms"'
    assert len(row.split(",")) == 4
