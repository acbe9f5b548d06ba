"""Fixtures that every test may use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.redis import RedisGroup, RedisServer
from tests.support.zookeeper import ZooKeeperServer

# How long an example takes depends on what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


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


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """A running ZooKeeper that all tests share; who stops or freezes one starts a server of its own."""
    with ZooKeeperServer(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server


@pytest.fixture
def zookeeper_hosts(zookeeper: ZooKeeperServer) -> str:
    """How to connect to the shared ZooKeeper in a chroot that belongs to the test."""
    return f"{zookeeper.hosts}/{uuid.uuid4().hex}"
