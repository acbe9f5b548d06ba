"""The two sides: a plain Redis, and three servers behind a proxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tests.differential.compare import Comparison
from tests.differential.peculiar import fit
from tests.support.embedded import EmbeddedProxy
from tests.support.rawclient import RawClient
from tests.support.redis import RedisGroup, RedisServer

_HZ = 500  # how often servers look for who has waited long enough; ten times a second would take most of the test

_RIGHTS = ("on", ">secret", "~0:*", "~1:*", "&*", "+@all", "-@dangerous", "-append", "-incr", "-client|getname")
LIMITED = ["ACL", "SETUSER", "limited", *_RIGHTS]
"""A user that may not do everything, nor everywhere."""


@contextlib.contextmanager
def both_sides(folder: Path, reads: str, program: Path | None = None) -> Iterator[Comparison]:
    """Both, running and empty. `reads`: as the proxy's option; `program`: of all servers."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(RedisServer(program=program, hz=_HZ))
        group = stack.enter_context(RedisGroup(3, program=program, hz=_HZ))
        proxy = stack.enter_context(EmbeddedProxy(group, folder, "--reads", reads))
        clients = [stack.enter_context(contextlib.closing(each.client())) for each in (plain, *group.servers)]
        for client in clients:
            _pipelined(client, LIMITED)
        through = stack.enter_context(redis.Redis(host=proxy.address.host, port=proxy.address.port))
        settle = partial(_settle, stack.enter_context(RawClient(group.master.node)))

        def clean() -> None:
            for client in clients:
                _clean(client)
            _pipelined(through, ["SCRIPT", "FLUSH"])  # the proxy remembers scripts, until a client says otherwise
            settle()

        yield Comparison(plain.node, proxy.address, clean, settle if reads == "replica" else None, fit(plain.node))
        assert not proxy.defects, proxy.defects[0]


def _clean(client: redis.Redis) -> None:
    """Leave nothing of the case before. A replica refuses all of this but to forget scripts."""
    _pipelined(client, ["FLUSHALL"], ["SCRIPT", "FLUSH"], ["FUNCTION", "FLUSH"])


def _settle(master: RawClient) -> None:
    """Return when the replicas have executed all that the master has so far.

    Since Redis 7.2, WAIT asks about the last command of the connection that was replicated, as a message is.
    """
    master.say(b"PUBLISH settled now\r\nWAIT 2 5000\r\n")
    master.hears(b":0\r\n:2\r\n")


def _pipelined(client: redis.Redis, *commands: list[str]) -> list[Any]:
    pipe: Any = client.pipeline(transaction=False)  # for mypy redis-py has no types here
    for words in commands:
        pipe.execute_command(*words)
    answers: list[Any] = pipe.execute(raise_on_error=False)
    return answers
