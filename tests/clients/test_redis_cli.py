"""redis-cli as its users call it, while the master is killed and while it is moved."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.clients.place import Change, Place

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATABASE = "5"
"""Apart from what the other tests leave behind."""
KEYS = 2000


class Cli:
    """One call of redis-cli."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin, self.stdout = process.stdin, process.stdout

    async def ask(self, command: str, lines: int = 1) -> list[str]:
        """Type a command; returns so many lines of its reply."""
        self.stdin.write(f"{command}\n".encode())
        return [(await self.stdout.readline()).decode().rstrip("\n") for _ in range(lines)]

    async def end(self) -> str:
        """All that it still prints; its exit status must be 0."""
        self.stdin.close()
        rest = (await self.stdout.read()).decode()
        assert await self.process.wait() == 0, rest
        return rest


Start = Callable[..., AbstractAsyncContextManager[Cli]]


@pytest.fixture
def cli(site: Place) -> Start:
    """Starts redis-cli on a database of its own."""

    @asynccontextmanager
    async def start(*words: str) -> AsyncIterator[Cli]:
        pipe = asyncio.subprocess.PIPE
        command = ["stdbuf", "-oL", "redis-cli", "-p", str(site.port), "-n", DATABASE, *words]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        try:
            yield Cli(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return start


async def fill(site: Place) -> None:
    """Strings of which one is the longest, on all servers."""
    with site.server_of(await site.serving()).client(db=int(DATABASE)) as client:
        client.flushdb()
        client.mset({f"key {number}": "x" * (1 + (number == 77)) for number in range(KEYS)})
    await site.in_sync()


@pytest.mark.parametrize("protocol", ["-2", "-3"])
async def test_a_session(site: Place, cli: Start, change: Change, protocol: str) -> None:
    async with cli(protocol, "--user", "app", "--pass", "secret", "--no-auth-warning") as session:
        assert await session.ask("DEL hash list") != [""]
        assert await session.ask("CLIENT SETNAME me") == ["OK"]
        assert await session.ask("HSET hash field 1") == ["1"]
        assert await session.ask("MULTI") == ["OK"]
        assert await session.ask("RPUSH list a b") == ["QUEUED"]
        await change(site)
        assert await session.ask("LRANGE list 0 -1") == ["QUEUED"]
        assert await session.ask("EXEC", 3) == ["2", "a", "b"]
        fields = ["field 1"] if protocol == "-3" else ["field", "1"]
        assert await session.ask("HGETALL hash", len(fields)) == fields
        assert await session.ask("CLIENT GETNAME") == ["me"]
        assert await session.ask("ACL WHOAMI") == ["app"]
        assert await session.ask("GETT") == ["ERR unknown command 'GETT', with args beginning with: "]
        await session.end()


async def test_mass_insertion(site: Place, cli: Start, change: Change) -> None:
    await fill(site)
    async with cli("--pipe") as pipe:
        for half in range(2):
            for number in range(20_000):
                key, value = f"mass {half} {number}", "y" * 20
                pipe.stdin.write(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n$20\r\n{value}\r\n".encode())
            await pipe.stdin.drain()
            if not half:
                await change(site)
        assert "errors: 0, replies: 40000" in await pipe.end()
    with site.server_of(await site.serving()).client(db=int(DATABASE)) as client:
        assert client.dbsize() == KEYS + 40_000


async def test_big_keys(site: Place, cli: Start, change: Change) -> None:
    await fill(site)
    # It rests after every hundred of its steps.
    async with cli("--bigkeys", "-i", "0.3") as search:
        first = await search.stdout.readuntil(b"so far")
        await change(site)
        text = first.decode() + await search.end()
    assert """Biggest string found '"key 77"' has 2 bytes""" in text
    sampled = re.search(r"Sampled (\d+) keys in the keyspace", text)
    assert sampled
    # One iteration sees every key, and may see some twice.
    assert KEYS <= int(sampled[1]) <= 2 * KEYS


async def test_the_keys_that_match(site: Place, cli: Start, change: Change) -> None:
    await fill(site)
    async with cli("--scan", "--pattern", "key *1*", "-i", "0.005") as scan:
        first = await scan.stdout.readline()
        await change(site)
        found = {first.decode().rstrip("\n"), *(await scan.end()).splitlines()}
    assert found == {f"key {number}" for number in range(KEYS) if "1" in str(number)}


async def test_latency(site: Place, cli: Start, change: Change) -> None:
    async with cli("--latency", "--raw", "-i", "1") as measurement:
        await change(site)
        least, most, mean, count = map(float, (await measurement.end()).split())
    assert least <= mean <= most
    assert count > 10


async def test_monitor(site: Place, cli: Start, change: Change) -> None:
    async with cli("MONITOR") as monitor, cli() as other:
        assert await monitor.stdout.readline() == b"OK\n"
        for moment in ("before", "after"):
            seen = asyncio.create_task(monitor.stdout.readuntil(f'"ECHO" "{moment}"'.encode()))
            while not seen.done():
                assert await other.ask(f"ECHO {moment}") == [moment]
                await asyncio.wait([seen], timeout=0.05)
            assert f'"{moment}"' in (await seen).decode()
            if moment == "before":
                await change(site)


async def test_a_value_from_the_standard_input(cli: Start) -> None:
    async with cli("-x", "SET", "large") as store:
        store.stdin.write(b"z" * 5_000_000)
        assert await store.end() == "OK\n"
    async with cli("STRLEN", "large") as ask:
        assert await ask.end() == "5000000\n"
    async with cli("DEL", "large") as delete:
        assert await delete.end() == "1\n"


async def test_a_script_from_a_file(cli: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    script = tmp_path_factory.mktemp("script") / "script.lua"
    script.write_text("return {KEYS[1], ARGV[1]}")
    async with cli("--eval", str(script), "key", ",", "argument") as run:
        assert await run.end() == "key\nargument\n"
