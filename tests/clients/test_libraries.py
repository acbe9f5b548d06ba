"""Client libraries, each with the features that its users use, while the master is killed and while it is moved."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from typing import Any

import pytest

from tests.clients.place import Change, Place
from tests.clients.player import Player
from tests.clients.programs import HERE, node, python, script

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNCERTAIN = re.compile(
    r"UNCERTAIN (INCR|INCRBY|EXEC|EVALSHA) may or may not have been applied: master [\d.:]+ was lost before"
)

FEATURES = {
    "string": "value",
    "many": ["1", "2", None],
    "hash": {"field": "1", "other": "2"},
    "list": ["a", "b", "c"],
    "pipeline": [1, 6, "6"],
    "transaction": [1, 6, "6"],
    "optimistic": [2, "11"],
    "eval": [1, "x", [2]],
    "script": "lua",
    "large": True,
    "binary": "ff000d0a242d310d0a",
    "database": ["three", None],
    "name": "player",
    "listed": ["player"],
    "user": "app",
}
"""What `play` does before the failover and after it, and what comes back."""

LIBRARIES = {
    "redis-py-resp2": (python("redis_sync"), 2),
    "redis-py-resp3": (python("redis_sync"), 3),
    "redis-py-asyncio-resp2": (python("redis_async"), 2),
    "redis-py-asyncio-resp3": (python("redis_async"), 3),
    "node-redis-resp2": (node("redis.js"), 2),
    "node-redis-resp3": (node("redis.js"), 3),
    "ioredis": (node("ioredis.js"), 2),
    "ruby": (script("ruby/play.rb"), 2),
    "php": (script("php/play.php"), 2),
    "perl": (script("perl/play.pl"), 2),
    "hiredis": ([], 2),
}
"""How their programs are called, and the version of RESP that they speak; the one in C is compiled first."""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program in C."""
    program = tmp_path_factory.mktemp("hiredis") / "play"
    source = HERE / "c" / "play.c"
    subprocess.run(["gcc", "-Wall", "-Werror", "-O1", "-o", program, source, "-lhiredis"], check=True)
    return str(program)


async def remember(site: Place, name: str) -> None:
    """What `scan` will look for, on all servers."""
    with site.server_of(await site.serving()).client() as client:
        client.mset({f"{name}:scan:{number}": number for number in range(1000)})
        client.hset(f"{name}:fields", mapping={f"field {number}": number for number in range(1000)})
    await site.in_sync()


class Cast:
    """The players of one test."""

    def __init__(self, words: list[str], name: str, protocol: int, stage: contextlib.AsyncExitStack) -> None:
        self.words = words
        self.name = name
        self.protocol = protocol
        self.stage = stage

    async def start(self, role: str, port: int) -> Player:
        player = Player([*self.words, str(port), role, self.name, str(self.protocol)])
        return await self.stage.enter_async_context(player)


async def until_heard(site: Place, listener: Player, name: str, text: str) -> None:
    """Publish until it has heard it: what is published while it is not subscribed is lost."""
    hearing = asyncio.create_task(listener.heard(text))
    while not hearing.done():
        await site.publish(name, text)
        await asyncio.wait([hearing], timeout=0.01)
    await hearing


def check_play(outcome: dict[str, Any], *, planned: bool) -> None:
    """Nothing but at most one increment that was in flight when its master was killed, and this one says so."""
    assert outcome["before"] == FEATURES
    assert outcome["after"] == FEATURES
    assert outcome["across"] == {
        "watched": None,  # as if somebody had touched the key
        "same connection": True,
        "database": "kept",
        "script": "loaded",
    }
    errors = outcome["errors"]
    assert len(errors) <= (0 if planned else 1), errors
    assert all(UNCERTAIN.search(error) for error in errors), errors
    acknowledged = outcome["acknowledged"]
    assert outcome["rounds"] > 40
    assert acknowledged == 4 * outcome["rounds"] - len(errors)
    # Replication is asynchronous: a killed master may take along the last increment that it has acknowledged.
    lost = 0 if planned else 1
    assert acknowledged - lost <= outcome["counted"] <= acknowledged + len(errors)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_an_application_sees_nothing_of_a_failover(
    site: Place, compiled: str, change: Change, library: str
) -> None:
    words, protocol = LIBRARIES[library]
    name = f"{library}:{change.__name__}"
    await remember(site, name)
    planned = change is Place.switch_over
    async with contextlib.AsyncExitStack() as stage:
        cast = Cast(words or [compiled], name, protocol, stage)
        listener = await cast.start("listen", site.default_port)
        popper = await cast.start("pop", site.default_port)
        # The server that it has begun with is lost to the one, and has another role for the other.
        scanner = await cast.start("scan", site.default_port if planned else site.port)
        await until_heard(site, listener, name, "first probe")
        play = await cast.start("play", site.port)
        await scanner.ready()
        await play.ready()
        await listener.heard("before")
        await site.blocked(1)
        await change(site)
        await until_heard(site, listener, name, "second probe")
        scanner.go_on()
        play.go_on()
        check_play(await play.outcome(), planned=planned)
        assert await popper.outcome() == {"popped": [f"{name}:queue", "element"]}
        assert await scanner.outcome() == {"keys": 1000, "fields": 1000}
        await site.publish(name, "end")
        heard = (await listener.outcome())["messages"]
        assert [text for text in heard if "probe" not in text] == ["before", "after", "end"]
