"""One installation for all clients: it is whole again at the beginning of each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.clients.place import Change, Place
from tests.support.redis import RedisGroup
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture(scope="package")
def group() -> Iterator[RedisGroup]:
    """A master and two replicas that know the user `app`."""
    with RedisGroup(3, user="app on >secret ~* &* +@all") as group:
        yield group


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def place(
    group: RedisGroup, zookeeper: ZooKeeperServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """Three managers and two proxies in front of three servers."""
    folder = tmp_path_factory.mktemp("clients")
    async with Place(group, f"{zookeeper.hosts}/{uuid.uuid4().hex}", folder) as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session")
async def site(place: Place) -> Place:
    """The installation with all its servers in sync."""
    await place.heal()
    return place


@pytest.fixture(params=["killed master", "switchover"])
def change(request: pytest.FixtureRequest) -> Change:
    """How the master changes in the middle of a test."""
    return Place.kill_master if request.param == "killed master" else Place.switch_over
