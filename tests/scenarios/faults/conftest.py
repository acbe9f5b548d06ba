"""Fixtures of the faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.faults.trial import Findings
from tests.support.installation import Installation
from tests.support.redis import RedisGroup
from tests.support.zookeeper import ZooKeeperServer


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest when it finds this file."""
    config.addinivalue_line("markers", "servers(**options): directives of redis.conf, for all servers of the test")


@pytest.fixture
def redis_group(request: pytest.FixtureRequest) -> Iterator[RedisGroup]:
    """A master and two replicas in sync, empty; as the mark `servers` has them."""
    mark = request.node.get_closest_marker("servers")
    with RedisGroup(3, **(mark.kwargs if mark else {})) as group:
        yield group


@pytest.fixture
def findings(record_property: Findings) -> Findings:
    """Where a trial tells what it saw."""
    return record_property


@pytest.fixture
def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> Installation:
    """Three servers, three managers of which two have to agree, and two proxies; nothing but the servers runs yet."""
    return Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2)


@pytest.fixture
def own_zookeeper(tmp_path: Path) -> Iterator[ZooKeeperServer]:
    """One server for this test alone."""
    with ZooKeeperServer(tmp_path / "zookeeper") as server:
        yield server


@pytest.fixture
def own_site(redis_group: RedisGroup, own_zookeeper: ZooKeeperServer, tmp_path: Path) -> Installation:
    """As `site`, with a ZooKeeper of its own."""
    return Installation(redis_group, own_zookeeper.hosts, tmp_path, proxies=2)
