"""Faults that one client or one command brings about, by their number in the table: all others go on.

All clients share the connections of the proxies to the master, that of the hostile neighbour included.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from rfprotocol.topology.topology import Node
from tests.scenarios.faults.trial import CLIENTS, Findings, Trial
from tests.scenarios.hostile.neighbours import harass
from tests.scenarios.hostile.stages import (
    Servers,
    Setting,
    big_and_little_memory,
    big_and_output_limit,
    few_clients,
    little_memory,
    with_list,
    with_many_keys,
)
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.zookeeper import ZooKeeperServer

GIVEN_UP = 50
"""Clients that do not wait for what is held."""


@contextlib.asynccontextmanager
async def prepared(setting: Setting, servers: Servers) -> AsyncIterator[None]:
    """The servers are like this for as long as the block takes."""
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, setting(servers))
        yield
        await asyncio.to_thread(stack.pop_all().close)


def address(site: Installation) -> Node:
    """Of the first proxy."""
    return Node("127.0.0.1", site.ports[0])


def opened(servers: Servers) -> int:
    """Connections that servers have accepted since they were started."""
    return sum(server.info("stats")["total_connections_received"] for server in servers)


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.parametrize(
    ("neighbour", "setting", "answer"),
    [("set_range", little_memory, "-UNCERTAIN SETRANGE"), ("many_large", big_and_little_memory, "-ERR rfproxy: MGET")],
)
async def test_26_a_command_that_its_server_does_not_survive(
    site: Installation, findings: Findings, neighbour: str, setting: Setting, answer: str
) -> None:
    # Reads that were in flight at both: nobody knows that it was not they.
    met_both = ("rfproxy: GET was sent to 2 servers", "rfproxy: GET was in execution when master")
    async with Trial(site, findings, refusals=met_both) as trial, trial.client() as client:
        await client.set("kept", 1)
        await trial.in_order()
        async with prepared(setting, site.group.servers), trial.deaths() as dead:
            told = await harass(neighbour, address(site), 0)
            await eventually(lambda: dead)  # its connections end first
        assert len(dead) <= 2, told
        assert told.startswith(answer)
        await trial.flows()
        assert await client.get("kept") == "1"
        assert len(trial.uncertain()) <= CLIENTS * len(dead)
        for server in dead:
            server.restart()


@pytest.mark.fault
async def test_27_a_reply_above_the_output_limit(site: Installation, findings: Findings) -> None:
    async with Trial(site, findings) as trial:
        servers = site.group.servers
        async with prepared(big_and_output_limit, servers):
            before = opened(servers)
            told = await harass("big_reply", address(site), 0)
            assert told.startswith("-ERR rfproxy: GET")
            await trial.flows()
            assert opened(servers) - before < 20
        assert len(trial.uncertain()) <= CLIENTS / 2, "those that shared the connection, once"
        assert await site.receipts() == []


@pytest.mark.fault
@pytest.mark.elaborate
@pytest.mark.parametrize(
    ("neighbour", "setting", "answer"), [("slow_read", with_list, "*1"), ("flush", with_many_keys, "+OK")]
)
async def test_28_a_long_command(
    site: Installation, findings: Findings, neighbour: str, setting: Setting, answer: str
) -> None:
    async with Trial(site, findings) as trial:
        async with prepared(setting, site.group.servers):
            told = await harass(neighbour, address(site), 0)
            assert told.startswith(answer)
            await trial.flows()
        assert trial.uncertain() == []
        assert await site.receipts() == []


@pytest.mark.fault
@pytest.mark.elaborate
async def test_29_maxclients_reached_at_the_servers(site: Installation, findings: Findings) -> None:
    full = "max number of clients reached"
    async with Trial(site, findings, hold_timeout=4.0) as trial:
        proxy = site.proxies[site.ports[0]]
        lines, began = len(site.log(proxy)), time.monotonic()
        async with prepared(few_clients, site.group.servers):
            told = await harass("pops", address(site), 15.0)
            await trial.flows()
        assert full in told
        assert full in str(site.log(proxy)[lines:])
        assert len(site.log(proxy)) - lines < 10 * (time.monotonic() - began)
        assert trial.uncertain() == []
        assert await site.receipts() == []


@pytest.mark.fault
@pytest.mark.elaborate
async def test_31_commands_given_up_while_held(
    own_site: Installation, own_zookeeper: ZooKeeperServer, findings: Findings
) -> None:
    async with Trial(own_site, findings) as trial, trial.client() as client:
        own_zookeeper.freeze()
        await own_site.said(own_site.proxies[own_site.ports[0]], "no word from the store: writes wait")
        clients = [await asyncio.open_connection("127.0.0.1", own_site.ports[0]) for _ in range(GIVEN_UP)]
        for reader, writer in clients:
            writer.write(b"INCR given-up\r\n")
            writer.write_eof()
            assert await reader.read() == b"", "there is nothing to wait for: it may not be sent"
            writer.close()
        own_zookeeper.thaw()
        await trial.flows()
        assert await client.incr("given-up") == 1
