"""The cached topology: shared safely, useless content ignored."""

from __future__ import annotations

from pathlib import Path

from rfprotocol.topology import Node, Phase, Topology
from rfproxy.cache import TopologyCache

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
