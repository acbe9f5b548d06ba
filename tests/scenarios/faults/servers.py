"""What is done to single servers, and what they are like meanwhile: for managers, and in truth."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import redis

from rfprotocol.store.interface import Entry
from rfprotocol.topology.topology import ManagerReport
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.redis import RedisServer
from tests.support.stores import Changes

PAUSE = 0.002


def restart_with_nothing(server: RedisServer) -> None:
    """Kill it, remove its data, and start it at once. A replica keeps the last full transfer as a snapshot."""
    server.kill()
    (server.folder / "dump.rdb").unlink(missing_ok=True)
    server.restart()


async def promoted(servers: Iterable[RedisServer]) -> RedisServer:
    """Return the first of them that is a master, as soon as it is."""
    for server in itertools.cycle(servers):
        if server.command("ROLE")[0] == "master":
            return server
        await asyncio.sleep(0.001)
    raise ValueError("there is none")


async def in_full_transfer(replica: RedisServer, master: RedisServer, cause: Callable[[], object]) -> None:
    """Return when `cause` has led to one, which takes seconds from now on if there are thousands of keys."""
    master.command("CONFIG", "SET", "rdb-key-save-delay", 2000)  # microseconds
    cause()
    await eventually(lambda: replica.info().get("master_sync_in_progress"))


async def reported(site: Installation, server: RedisServer, condition: str) -> None:
    """Return when every manager says so of a server."""

    def all_say_so(entries: Mapping[str, Entry]) -> bool:
        reports = [ManagerReport.decode(name, entry.data) for name, entry in entries.items()]
        said = [view.condition for report in reports for view in report.nodes if view.node == server.node]
        return said == [condition] * len(site.managers)

    changes = Changes(site.store, site.paths.managers)
    while not all_say_so(await site.records(site.paths.managers)):
        await changes.next()
    changes.end()


class KeyCount:
    """`fewest`: the smallest number of keys that any of the servers has shown."""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self.fewest = min(server.command("DBSIZE") for server in servers)
        self._servers = servers

    async def watch(self) -> None:
        """Until cancelled. While a server loads what it was sent it shows nothing."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self._servers]
            while True:
                for client in clients:
                    with contextlib.suppress(redis.BusyLoadingError):
                        self.fewest = min(self.fewest, client.dbsize())
                await asyncio.sleep(PAUSE)


@contextlib.asynccontextmanager
async def key_count(servers: Sequence[RedisServer]) -> AsyncIterator[KeyCount]:
    """Of `servers`, for as long as the block takes."""
    count = KeyCount(servers)
    watching = asyncio.create_task(count.watch())
    yield count
    watching.cancel()
    await asyncio.wait([watching])
