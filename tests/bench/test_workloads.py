"""The workloads are those that were agreed on."""

from __future__ import annotations

import itertools

from bench.workloads import KEYS, WORKLOADS, Workload, fill
from tests.support.redis import RedisServer


def named(start: str) -> Workload:
    (found,) = [workload for workload in WORKLOADS if workload.name.startswith(start)]
    return found


def test_gets_and_sets_of_both_sizes_come_with_all_connections_and_pipelines() -> None:
    names = [workload.name for workload in WORKLOADS]
    for kind, connections, pipeline in itertools.product(
        ("GET 64 B", "SET 64 B", "GET 4 KB", "SET 4 KB"), (1, 50, 500, 5000), (1, 16, 64)
    ):
        assert names.count(f"{kind}, {connections} conn, P={pipeline}") == 1


def test_names_tell_workloads_apart() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


def test_four_of_five_connections_of_the_mix_read() -> None:
    reads, writes = named("80 % reads").streams
    assert (reads.command[0], writes.command[0]) == ("GET", "SET")
    assert reads.connections == 4 * writes.connections


def test_whatever_is_read_is_there(redis_server: RedisServer) -> None:
    fill(redis_server)
    with redis_server.client() as client:
        for number in (0, KEYS - 1):
            assert (client.strlen(f"64:{number:012}"), client.strlen(f"4096:{number:012}")) == (64, 4096)
        assert len(client.lrange("list", 0, 99)) == 100
