"""redis-benchmark with all its tests, undisturbed and while the master is moved and killed."""

from __future__ import annotations

import asyncio
import csv
import io

import pytest

from tests.clients.place import Change, Place

pytestmark = pytest.mark.asyncio(loop_scope="session")

TESTS = {
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)",
    "LRANGE_300 (first 300 elements)",
    "LRANGE_500 (first 500 elements)",
    "LRANGE_600 (first 600 elements)",
    "MSET (10 keys)",
}


async def run(site: Place, change: Change | None, *words: str) -> tuple[set[str], list[str]]:
    """The tests that it has completed and the errors that it names; the master changes after the first test."""
    command = ["stdbuf", "-oL", "redis-benchmark", "-p", str(site.port), "--csv", "-c", "20", *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    try:
        lines = [(await process.stdout.readline()).decode() for _ in range(2)]
        if change is not None:
            await change(site)
        lines += (await process.stdout.read()).decode().splitlines(keepends=True)
        assert await process.wait() == 0, lines
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    errors = [line for line in lines if "rror" in line]
    table = csv.DictReader(io.StringIO("".join(line for line in lines if line.startswith('"'))))
    return {row["test"] for row in table}, errors


@pytest.mark.parametrize("pipeline", ["1", "16"])
async def test_every_test_runs_without_an_error(site: Place, pipeline: str) -> None:
    assert await run(site, None, "-n", "400", "-P", pipeline) == (TESTS, [])


@pytest.mark.parametrize(("pipeline", "requests"), [("1", "2000"), ("16", "20000")])
async def test_tests_run_through_a_failover(site: Place, change: Change, pipeline: str, requests: str) -> None:
    words = ["-n", requests, "-P", pipeline, "-t", "get,set,incr,lpush,hset"]
    tests, errors = await run(site, change, *words)
    assert tests == {"GET", "SET", "INCR", "LPUSH", "HSET"}
    assert all("UNCERTAIN" in error for error in errors)
    assert not errors or change is Place.kill_master
