"""The cached topology: shared safely, useless content ignored."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.runtime.topology_cache import CacheWriter, TopologyCache

SERVING = Topology(3, Phase.SERVING, Node("m", 1), (Node("r", 2),))


def test_what_was_kept_is_found_again_by_the_next_process(tmp_path: Path) -> None:
    TopologyCache(tmp_path / "new", "zk:2181/redis_failover").save(SERVING)
    assert TopologyCache(tmp_path / "new", "zk:2181/redis_failover").load() == SERVING


def test_groups_do_not_share_a_file(tmp_path: Path) -> None:
    TopologyCache(tmp_path, "zk:2181/one").save(SERVING)
    assert TopologyCache(tmp_path, "zk:2181/two").load() is None


def test_a_moment_without_a_master_is_not_worth_keeping(tmp_path: Path) -> None:
    cache = TopologyCache(tmp_path, "g")
    cache.save(SERVING)
    cache.save(Topology(4, Phase.FENCING))
    assert cache.load() == SERVING


def test_a_broken_file_is_no_topology(tmp_path: Path) -> None:
    cache = TopologyCache(tmp_path, "g")
    cache.path.write_bytes(b"{")
    assert cache.load() is None


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TopologyCache(tmp_path / "file", "g")
    cache.save(SERVING)
    assert cache.load() is None


def test_nothing_is_left_behind_but_the_file(tmp_path: Path) -> None:
    TopologyCache(tmp_path, "g").save(SERVING)
    assert len(list(tmp_path.iterdir())) == 1


def test_cache__disk_full__leaves_no_files(tmp_path: Path) -> None:
    """A limit of the size of files stands for a disk that is full."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from rfprotocol.topology.topology import Node, Phase, Topology\n"
        "from rfproxy.runtime.topology_cache import TopologyCache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "cache = TopologyCache(Path(sys.argv[1]), 'g')\n"
        "for _ in range(3): cache.save(Topology(3, Phase.SERVING, Node('m', 1)))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert list(tmp_path.iterdir()) == []


class SlowDisk:
    """A thread that works when it is told to."""

    def __init__(self) -> None:
        self.saved: list[int] = []
        self.goes_on = asyncio.Event()

    async def thread(self, save: Callable[[Topology], None], topology: Topology) -> None:
        """Save when it may go on."""
        self.saved.append(topology.epoch)
        await self.goes_on.wait()
        save(topology)


async def test_writer__disk_is_slow__newest_wins(tmp_path: Path) -> None:
    disk, cache = SlowDisk(), TopologyCache(tmp_path, "g")
    writer = CacheWriter(cache, disk.thread)
    assert writer.keep(SERVING)
    writing = asyncio.ensure_future(writer.write())
    await asyncio.sleep(0)
    for epoch in (5, 7, 9):
        assert not writer.keep(replace(SERVING, epoch=epoch))
    disk.goes_on.set()
    await writing
    assert disk.saved == [SERVING.epoch, 9]
    assert cache.load() == replace(SERVING, epoch=9)
    assert writer.keep(SERVING), "nothing is under way any more"
