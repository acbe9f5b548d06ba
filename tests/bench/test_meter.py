"""Commands are counted where clients send them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.meter import Meter
from bench.peers import Peer
from bench.workloads import STEADY, Stream, Workload, get
from deploy.processes import ProcessError
from tests.support.redis import RedisGroup


@pytest.fixture
def meter(redis_group: RedisGroup) -> Iterator[Meter]:
    meter = Meter(redis_group, Peer("redis", redis_group.master.node))
    yield meter
    meter.close()


def test_a_write_counts_once_and_a_read_wherever_it_was_sent(meter: Meter, redis_group: RedisGroup) -> None:
    before = meter.account()
    for number in range(10):
        redis_group.master.command("SET", "k", number)
    redis_group.wait_in_sync()
    redis_group.master.command("GET", "k")
    for replica in redis_group.replicas:
        replica.command("GET", "k")
    after = meter.account()
    assert after.commands - before.commands == 10 + 3
    assert after.redis > before.redis
    assert after.proxy == 0


@pytest.mark.parametrize("workload", [get(5, 1), get(5, 16), STEADY], ids=lambda workload: workload.name)
def test_a_load_has_a_rate_latencies_and_a_price(meter: Meter, workload: Workload) -> None:
    seen = meter.measure(workload, 2000, 0.5, 1)
    assert (seen.workload, seen.system, seen.round) == (workload.name, "redis", 1)
    assert seen.rate > 100
    assert seen.p99 >= seen.p50 > 0
    assert 0 < seen.redis < 1000


def test_a_load_that_is_over_at_once_is_measured_as_a_whole(meter: Meter) -> None:
    assert meter.measure(get(1, 1), 10, 0.1, 1).redis > 0


def test_a_load_that_is_answered_with_an_error_is_not_a_measurement(meter: Meter) -> None:
    with pytest.raises(ProcessError, match="wrong number of arguments"):
        meter.rate(Workload("half a command", (Stream(("GET",), 1),)), 10)


def test_a_load_that_is_not_answered_ends(
    meter: Meter, redis_group: RedisGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, redis-benchmark tries for ever."""
    monkeypatch.setattr("bench.meter.PATIENCE", 0.2)
    redis_group.master.kill()
    with pytest.raises(ProcessError, match="redis-benchmark"):
        meter.rate(get(1, 1), 10)
