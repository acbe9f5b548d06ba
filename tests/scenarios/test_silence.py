"""Servers that fall silent without a word: real Redis, real ZooKeeper, and managers that cannot help."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest

from rfprotocol.resp.resp import encode_command
from rfprotocol.store.interface import Entry
from rfprotocol.topology.records import ProxyRecord
from tests.support.eventually import eventually
from tests.support.hosts import NetworkError
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer
from tests.support.spread import Spread, spread

READERS = 8
SAMPLES = 200
"""Reads of all readers after the fault, for as long as it lasts."""


class Readers:
    """`async with Readers(port) as readers`: clients of one proxy that only read, each one command after the other."""

    def __init__(self, port: int, count: int = READERS) -> None:
        self.waits: list[float] = []
        """Seconds for each read, in the order of the replies."""
        self.wrong: list[bytes] = []
        """Replies that are not the value."""
        self._port = port
        self._count = count
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._read()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def progress(self, reads: int = SAMPLES) -> None:
        """Return when so many more were answered, of each reader some."""
        before = len(self.waits)
        await eventually(lambda: len(self.waits) >= before + reads)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._ending:
            began = time.monotonic()
            writer.write(encode_command([b"GET", b"k"]))
            reply = await reader.readline()
            if reply == b"$1\r\n":
                reply += await reader.readline()
            self.waits.append(time.monotonic() - began)
            if reply != b"$1\r\nv\r\n":
                self.wrong.append(reply)
            await asyncio.sleep(0.002)
        writer.close()


def paralyse(site: Installation) -> None:
    """No manager does anything any more."""
    for manager in site.managers:
        manager.signal(signal.SIGSTOP)


async def filled(site: Installation) -> RedisServer:
    """A replica, which has what is read."""
    site.group.master.command("SET", "k", "v")
    site.group.master.command("WAIT", len(site.group.replicas), 5000)
    return site.group.replicas[0]


@pytest.fixture
async def site(redis_group: RedisGroup, zookeeper_hosts: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """Three managers, one proxy."""
    async with Installation(redis_group, zookeeper_hosts, tmp_path) as site:
        yield site


@pytest.fixture
def wide_site(tmp_path: Path) -> Iterator[Spread]:
    """The same, each process on a host of its own."""
    try:
        with spread(tmp_path) as site:
            yield site
    except NetworkError as error:
        pytest.fail(str(error), pytrace=False)


async def test_reads__replica_frozen__answered_without_managers(site: Installation) -> None:
    replica = await filled(site)
    async with Readers(site.ports[0]) as readers:
        await readers.progress()
        paralyse(site)
        replica.freeze()
        await readers.progress(20 * SAMPLES)
        replica.thaw()
        await site.said(site.processes[-1], "replica_replies")
        await readers.progress()
    print(f"longest wait of {len(readers.waits)} reads: {max(readers.waits):.3f} s")
    assert readers.wrong == []
    assert len([wait for wait in readers.waits if wait > 0.9]) <= READERS
    assert max(readers.waits) < 1.5


@pytest.mark.elaborate
async def test_reads__host_of_replica_cut__answered_without_managers(wide_site: Spread) -> None:
    async with wide_site as site:
        replica = await filled(site)
        async with Readers(site.ports[0]) as readers:
            await readers.progress()
            paralyse(site)
            site.host_of(replica).cut()
            await readers.progress(20 * SAMPLES)
            site.host_of(replica).heal()
            await site.said(site.proxies[site.ports[0]], "replica_replies")
            await readers.progress()
    print(f"longest wait of {len(readers.waits)} reads: {max(readers.waits):.3f} s")
    assert readers.wrong == []
    assert len([wait for wait in readers.waits if wait > 0.5]) <= READERS
    assert max(readers.waits) < 1.5


BUSY_LOOP = (
    "local t = redis.call('TIME')[1] + 3 while redis.call('TIME')[1] + 0 < t do end return redis.call('INCR', 'done')"
)
"""Takes two to three seconds: managers bear with silence of no known cause for 1.5, and with a busy server for 5."""


def names_busy(records: Mapping[str, Entry]) -> bool:
    """Whether a proxy says that a server is busy with a script."""
    busy = [what.command for record in records.values() for what in ProxyRecord.decode(record.data).busy.values()]
    return busy == ["EVAL"]


async def told(port: int, *command: bytes) -> bytes:
    """One line of what the proxy answers to one command."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode_command(list(command)))
    reply = await reader.readline()
    writer.close()
    return reply


async def test_master__busy_with_a_script__stays_master(site: Installation) -> None:
    before = await site.serving()
    asked = asyncio.create_task(told(site.ports[0], b"EVAL", BUSY_LOOP.encode(), b"0"))
    await site.children(site.paths.proxies, names_busy)
    others = asyncio.create_task(told(site.ports[0], b"INCR", b"other"))
    assert await asked == b":1\r\n"
    assert await others == b":1\r\n"
    await site.children(site.paths.proxies, lambda records: not names_busy(records))
    after = await site.serving()
    assert (after.epoch, after.master) == (before.epoch, before.master)


async def test_master__frozen_without_known_cause__replaced(site: Installation) -> None:
    before = await site.serving()
    assert await told(site.ports[0], b"INCR", b"k") == b":1\r\n"
    master = site.server_of(before)
    began = time.monotonic()
    master.freeze()
    waiting = asyncio.create_task(told(site.ports[0], b"SET", b"k", b"v"))
    after = await site.serving(lambda topology: topology.epoch > before.epoch)
    assert await waiting == b"+OK\r\n"
    print(f"no write for {time.monotonic() - began:.3f} s")
    assert after.master != before.master
    master.thaw()
