"""Addresses that outlast the process: shared safely, useless content ignored."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from rfprotocol.network.address_cache import STALE
from rfproxy.runtime.address_file import AddressFile
from tests.support.eventually import eventually

KNOWN = {"db-1": ("10.0.0.1", "fd00::1"), "db-2": ("10.0.0.2",)}


async def test_what_was_kept__next_process__finds_it(tmp_path: Path) -> None:
    AddressFile(tmp_path / "new", "zk:2181/redis_failover").save(KNOWN)
    after = AddressFile(tmp_path / "new", "zk:2181/redis_failover")
    await eventually(lambda: after.load() == {host: list(addresses) for host, addresses in KNOWN.items()})
    assert AddressFile(tmp_path / "new", "zk:2181/other").load() == {}
    assert [path.name for path in (tmp_path / "new").iterdir()] == [after.path.name]


async def test_many_at_once__the_newest__is_kept(tmp_path: Path) -> None:
    file = AddressFile(tmp_path, "g")
    for number in range(200):
        file.save({"db": (f"10.0.0.{number}",)})
    await eventually(lambda: file.load() == {"db": ["10.0.0.199"]})


def test_addresses_of_long_ago__not_used(tmp_path: Path) -> None:
    """They may be somebody else's by now."""
    file = AddressFile(tmp_path, "g")
    file.path.write_text(json.dumps(KNOWN))
    assert file.load()
    then = time.time() - STALE - 60
    os.utime(file.path, (then, then))
    assert file.load() == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"db": "10.0.0.1"}', '{"db": ["db"]}', '{"db": []}', '{"db": [1]}']
)
def test_useless_content__ignored(tmp_path: Path, content: str) -> None:
    file = AddressFile(tmp_path, "g")
    file.path.write_text(content)
    assert file.load() == {}


async def test_folder_that_cannot_be_written_to__no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = AddressFile(tmp_path / "file", "g")
    file.save(KNOWN)
    await eventually(lambda: not file._writing)
    assert file.load() == {}
