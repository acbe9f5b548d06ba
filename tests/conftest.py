"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis import RedisGroup, RedisServer


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running Redis server, empty."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_group() -> Iterator[RedisGroup]:
    """A master and two replicas in sync, empty."""
    with RedisGroup(3) as group:
        yield group
