"""The account of ordinary clients tells the truth: about errors, and about writes that were lost or applied twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis

from tests.scenarios.hostile.bystanders import Bystanders, Seen
from tests.scenarios.hostile.neighbours import harass
from tests.support.redis import RedisServer

VALUE, COUNTER, QUEUE = "bystander:0:value", "bystander:0:counter", "bystander:queue:0"


async def seen_after(server: RedisServer, change: Callable[[redis.Redis], object]) -> Seen:
    """The account, when something was changed behind the clients' backs after they had ended."""
    async with Bystanders(server.port) as bystanders:
        await bystanders.progress()
    with server.client() as client:
        change(client)
    return bystanders.audit(server)


async def test_account__of_a_healthy_server__has_no_faults(redis_server: RedisServer) -> None:
    seen = await seen_after(redis_server, lambda client: None)
    assert not seen.errors
    assert (seen.ledger.lost, seen.ledger.doubled, seen.ledger.uncertain) == (0, 0, 0)
    assert seen.ledger.acknowledged > 40
    assert seen.latency.count == len(seen.waits) >= 120


@pytest.mark.parametrize("key", [VALUE, COUNTER])
async def test_account__of_values_that_fell_back__tells_losses(redis_server: RedisServer, key: str) -> None:
    seen = await seen_after(redis_server, lambda client: client.decrby(key, 1))
    assert (seen.ledger.lost, seen.ledger.doubled) == (1, 0)


async def test_account__of_a_counter_ahead__tells_a_double(redis_server: RedisServer) -> None:
    seen = await seen_after(redis_server, lambda client: client.incr(COUNTER))
    assert (seen.ledger.lost, seen.ledger.doubled) == (0, 1)


async def test_account__of_an_element_that_is_back__tells_a_double(redis_server: RedisServer) -> None:
    seen = await seen_after(redis_server, lambda client: client.rpush(QUEUE, "1"))
    assert (seen.ledger.lost, seen.ledger.doubled) == (0, 1)


async def test_account__of_a_stolen_element__tells_a_loss(redis_server: RedisServer) -> None:
    async with Bystanders(redis_server.port) as bystanders:
        assert await asyncio.to_thread(redis_server.command, "BLPOP", QUEUE, 10)
    seen = bystanders.audit(redis_server)
    assert seen.ledger.lost == 1


async def test_account__of_a_server_that_hangs_up__tells_errors(redis_server: RedisServer) -> None:
    async with Bystanders(redis_server.port) as bystanders:
        redis_server.command("CLIENT", "KILL", "TYPE", "normal")
        await bystanders.progress()
    seen = bystanders.audit(redis_server)
    assert "BLPOP" in {command for command, _ in seen.unexpected()}
    assert not seen.unexpected(lambda command, text: True)
    assert seen.ledger.doubled == 0


@pytest.mark.parametrize(
    ("neighbour", "told"), [("pipeline", "completed"), ("scans", "connections"), ("set_range", ":300000001")]
)
async def test_neighbour__at_a_plain_redis__is_answered(redis_server: RedisServer, neighbour: str, told: str) -> None:
    assert told in await harass(neighbour, redis_server.node, 0.3)
