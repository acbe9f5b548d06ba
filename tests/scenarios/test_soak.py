"""Clients that come, use and vanish leave nothing behind in the proxy; `bench/soak.py` does the same for longer."""

from __future__ import annotations

from pathlib import Path

from bench.soak import DESCRIPTORS, LEVEL, MEMORY, OPEN, TALKS, Figures, Soak, flat, growth
from tests.support.embedded import EmbeddedProxy
from tests.support.redis import RedisGroup


def test_memory_descriptors_and_connections_to_servers_stay_where_they_are(
    redis_group: RedisGroup, tmp_path: Path
) -> None:
    every = 4 * len(TALKS)
    with EmbeddedProxy(redis_group, tmp_path, "--log-level", "warning", *LEVEL) as proxy:
        figures = list(Soak(redis_group, proxy).run(9 * every, every))
        assert not proxy.defects
    print(*figures, sep="\n")
    assert every > OPEN
    assert flat(figures), growth(figures)


def test_growth_is_told_from_ups_and_downs() -> None:
    def line(number: int, memory: int, descriptors: int, at_server: int) -> Figures:
        return Figures(number, memory, descriptors, (5, at_server))

    level = [line(n, 50 << 20, 20 + n % 3, 5) for n in range(9)]
    assert flat(level)
    assert not flat([*level[:-1], line(9, (51 << 20) + MEMORY, 20, 5)])
    assert not flat([*level[:-1], line(9, 50 << 20, 23 + DESCRIPTORS, 5)])
    assert not flat([*level[:-1], line(9, 50 << 20, 20, 6 + DESCRIPTORS)])
