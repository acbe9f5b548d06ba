"""Servers of several versions: each is what it says, and one that cannot be had says why."""

from __future__ import annotations

import pytest

from deploy.servers import LINES, Line, fetch, installed, the
from tests.support.redis import RedisServer
from tests.support.servers import Server, only


@pytest.mark.parametrize("server", [only(str(line)) for line in LINES])
def test_server__started__is_of_its_line(server: Server) -> None:
    with RedisServer(program=server.program) as running:
        info = running.info("server")
    assert ("valkey_version" in info) == (server.line.product == "Valkey")
    assert info.get("valkey_version", info["redis_version"]) == server.version
    assert f"{server.version}.".startswith(f"{server.line.version}.")
    assert the(str(server.line)) is server


def test_fetch__no_release_has_it__says_why() -> None:
    line = Line("Redis", "99", "no-such-release")
    reasons = fetch([line])
    assert "apt-get" in reasons[line]
    assert line not in installed()
