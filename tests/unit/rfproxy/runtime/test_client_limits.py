"""Limits as redis.conf writes them, and when a client that does not read is over one."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from rfproxy.runtime.client_limits import Limits, MemorySize, OutputLimit, OutputLimits, parse_output_limits

KB = 1024


def test_the_defaults_are_those_of_redis() -> None:
    limits = Limits()
    assert (limits.clients, limits.idle, limits.keepalive, limits.query) == (10_000, 0, 300, 1024 * KB * KB)
    assert str(limits.output) == "normal 0 0 0 pubsub 33554432 8388608 60"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1k", 1000),
        ("1kb", KB),
        ("1KB", KB),
        ("2 mb", 2 * KB * KB),
        ("1m", 10**6),
        ("1gb", KB * KB * KB),
        ("1g", 10**9),
        ("1KiB", KB),
        ("1MiB", KB * KB),
        ("500b", 500),
    ],
)
def test_sizes_have_the_units_of_redis_conf_and_the_usual_ones(text: str, size: int) -> None:
    assert TypeAdapter(MemorySize).validate_python(text) == size


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        ("", OutputLimits()),
        ("normal 1mb 512kb 10", OutputLimits(normal=OutputLimit(1024 * KB, 512 * KB, 10))),
        ("PubSub 0 0 0", OutputLimits(pubsub=OutputLimit())),
        (
            "normal 0 0 0 pubsub 33554432 8388608 60",
            OutputLimits(OutputLimit(), OutputLimit(32 * KB * KB, 8 * KB * KB, 60)),
        ),
        (["normal 1 2 3", "pubsub 4 5 6"], OutputLimits(OutputLimit(1, 2, 3), OutputLimit(4, 5, 6))),
        ("normal 1 1 1 normal 2 2 2", OutputLimits(normal=OutputLimit(2, 2, 2))),
    ],
)
def test_output_limits_are_written_as_in_redis_conf(value: object, limits: OutputLimits) -> None:
    assert parse_output_limits(value) == limits
    assert parse_output_limits(str(limits)) == limits
    assert parse_output_limits(limits) is limits


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("normal 0 0", "should be CLASS HARD SOFT SECONDS"),
        ("replica 256mb 64mb 60", "replica: there are the classes normal and pubsub"),
        ("normal x 0 0", "normal: x is not a number of bytes"),
        ("normal 0 -1 0", "normal: -1 is not a number of bytes"),
        ("pubsub 0 0 1.5", "pubsub: 1.5 is not a number of seconds"),
    ],
)
def test_what_is_wrong_with_an_output_limit_is_said(value: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        parse_output_limits(value)


def test_the_hard_limit_is_passed_at_once() -> None:
    limit = OutputLimit(hard=100)
    assert not limit.passed(99, None, now=0.0)
    assert limit.passed(100, None, now=0.0) == "hard 100"


def test_the_soft_limit_is_passed_after_its_time_without_interruption() -> None:
    limit = OutputLimit(soft=100, seconds=10)
    since = limit.above_since(100, None, now=5.0)
    assert since == 5.0
    assert limit.above_since(200, since, now=9.0) == 5.0
    assert not limit.passed(200, since, now=15.0)
    assert limit.passed(200, since, now=15.5) == "soft 100 for 10 s"
    assert limit.above_since(99, since, now=15.5) is None
    assert limit.above_since(100, None, now=16.0) == 16.0


def test_zero_is_no_limit() -> None:
    limit = OutputLimit(seconds=1)
    assert limit.above_since(1 << 40, None, now=0.0) is None
    assert not limit.passed(1 << 40, None, now=1e9)


@pytest.mark.parametrize(
    ("limits", "least"),
    [
        (OutputLimits(pubsub=OutputLimit()), 1000),
        (OutputLimits(normal=OutputLimit(hard=500)), 500),
        (OutputLimits(normal=OutputLimit(hard=500), pubsub=OutputLimit(soft=30)), 30),
        (OutputLimits(), 1000),
    ],
)
def test_nothing_has_to_be_looked_at_below_the_least_limit(limits: OutputLimits, least: int) -> None:
    assert limits.least(1000) == least
