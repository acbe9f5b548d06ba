"""Fixtures of the faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.faults.trial import Findings
from tests.support.installation import Installation
from tests.support.redis import RedisGroup


@pytest.fixture
def findings(record_property: Findings) -> Findings:
    """Where a trial tells what it saw."""
    return record_property


@pytest.fixture
def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> Installation:
    """Three servers, three managers of which two have to agree, and two proxies; nothing but the servers runs yet."""
    return Installation(redis_group, zookeeper_hosts, tmp_path, proxies=2)
