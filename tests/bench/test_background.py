"""The load that is measured while something else happens keeps its pace, and keeps account of every command."""

from __future__ import annotations

import time
from array import array

import pytest

from bench.background import Answers, Background, latency
from tests.support.redis import RedisServer, wait_until


def test_what_comes_while_the_server_stands_still_waits_and_is_counted(redis_server: RedisServer) -> None:
    with Background(redis_server.node, connections=5, rate=400) as load:
        begun = time.monotonic()
        redis_server.command("CLIENT", "PAUSE", 300)
        redis_server.command("PING")  # which waits, too
        ended = time.monotonic()
        answers = load.finish()
    seen = answers.during((begun, ended))
    assert not answers.errors
    assert seen.count > 5, "more than one command of each connection"
    assert seen.most > 0.2
    assert 0 < seen.p50 < seen.most


def test_four_commands_of_five_are_reads(redis_server: RedisServer) -> None:
    def calls(command: str) -> int:
        return int(redis_server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])

    with Background(redis_server.node, connections=1, rate=1000) as load:
        wait_until(lambda: calls("get") >= 40, "reads")
        load.finish()
    assert calls("get") == pytest.approx(4 * calls("set"), abs=4)


def test_what_a_dead_server_does_not_answer_has_failed(redis_server: RedisServer) -> None:
    with Background(redis_server.node, connections=2, rate=0) as load:
        redis_server.kill()
        assert load.finish().errors == []
    with pytest.raises(OSError, match="refused"), Background(redis_server.node, connections=1, rate=0):
        pass


def test_commands_are_looked_at_that_waited_at_some_moment_of_these_times() -> None:
    answers = Answers(array("d", [1.0, 2.0, 3.0, 4.0]), array("d", [0.5, 0.5, 0.5, 0.5]))
    assert answers.during((2.4, 2.6)).count == 1
    assert answers.during((0.0, 1.1), (3.4, 4.1)).count == 3
    assert answers.during((2.6, 2.9)).count == 0


def test_latency_is_summed_up_by_its_middle_its_tail_and_its_worst() -> None:
    seen = latency([number / 1000 for number in range(1000)])
    assert (seen.count, seen.p50, seen.p99, seen.most) == (1000, 0.5, 0.99, 0.999)
