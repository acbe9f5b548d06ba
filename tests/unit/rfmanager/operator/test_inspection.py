"""What is asked of real servers, and what becomes of those that do not answer or refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rfmanager.monitoring.redis_admin import Credentials
from rfmanager.operator.doctor import NEEDED, SETTINGS
from rfmanager.operator.doctor_facts import GroupFacts, ServerFacts
from rfmanager.operator.inspection import inspect, users
from rfmanager.operator.snapshot import Pause
from rfprotocol.errors import OperationFailed, StoreUnavailable
from rfprotocol.store.interface import Put
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.records import Outcome, Receipt
from rfprotocol.topology.topology import Kind, ManagerReport, Node, NodeReport, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.redis import RedisGroup, RedisServer, free_port

PATHS = Paths()
NO_CREDENTIALS = Credentials()


@pytest.fixture
async def store() -> AsyncIterator[MemStore]:
    store = MemStore(MemTree(asyncio.Event))
    await store.start()
    yield store
    await store.close()


async def inspected(store: MemStore, *nodes: Node, credentials: Credentials = NO_CREDENTIALS) -> GroupFacts:
    return await inspect(store, PATHS, nodes, credentials, asked_timeout=3.0, silence=2.0)


async def alone(store: MemStore, server: RedisServer, credentials: Credentials = NO_CREDENTIALS) -> ServerFacts:
    [facts] = (await inspected(store, server.node, credentials=credentials)).servers
    return facts


async def test_a_server_says_what_it_is_how_it_is_set_and_what_time_it_is(
    store: MemStore, redis_server: RedisServer
) -> None:
    redis_server.command("CONFIG", "SET", "repl-backlog-size", "2mb")
    facts = await alone(store, redis_server)
    assert (facts.node, facts.trouble, facts.role, facts.supervised) == (redis_server.node, "", "master", "no")
    assert facts.settings is not None
    assert set(facts.settings) == set(SETTINGS)
    assert (facts.settings["repl-backlog-size"], facts.settings["save"]) == ("2097152", "")
    assert (facts.user, facts.denied) == ("default", {})
    assert abs(facts.clock) <= facts.clock_error + 0.01


async def test_the_servers_are_those_that_the_store_knows(store: MemStore, redis_group: RedisGroup) -> None:
    master, *replicas = redis_group.nodes
    topology = Topology(1, Phase.SERVING, master, replicas=tuple(replicas))
    await store.commit(Put(PATHS.nodes, topology.encode()))
    facts = await inspected(store)
    assert {server.node: server.role for server in facts.servers} == {master: "master"} | dict.fromkeys(
        replicas, "slave"
    )
    assert (facts.asked_timeout, facts.granted_timeout, facts.silence) == (3.0, store.session_timeout, 2.0)


async def test_without_any_server_there_is_nothing_to_say(store: MemStore) -> None:
    with pytest.raises(OperationFailed, match="no server is known at /redis_failover: name them with -n"):
        await inspected(store)


async def test_a_server_that_is_away_is_a_fact(store: MemStore) -> None:
    node = Node("127.0.0.1", free_port())
    [facts] = (await inspected(store, node)).servers
    assert facts.trouble.startswith("cannot be reached: ")


async def test_a_server_that_refuses_the_password_is_a_fact_too(store: MemStore, redis_server: RedisServer) -> None:
    facts = await alone(store, redis_server, Credentials("nobody", "wrong"))
    assert "invalid username-password pair" in facts.trouble


async def test_a_user_without_rights_is_told_each_that_is_missing(store: MemStore, redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "low", "on", ">secret", "+@all", *(f"-{name}" for name in NEEDED))
    facts = await alone(store, redis_server, Credentials("low", "secret"))
    assert facts.user == "low"
    assert facts.denied is not None
    assert list(facts.denied) == list(NEEDED)
    assert "has no permissions" in facts.denied["replicaof"]


async def test_nothing_is_guessed_of_what_the_user_may_not_ask(store: MemStore, redis_server: RedisServer) -> None:
    rules = ("+@all", "-acl", "-config", "-time")
    redis_server.command("ACL", "SETUSER", "low", "on", ">secret", *rules)
    facts = await alone(store, redis_server, Credentials("low", "secret"))
    assert (facts.settings, facts.denied, facts.trouble) == (None, None, "")
    assert facts.clock_error == float("inf")


async def test_a_command_that_was_renamed_is_a_right_that_is_missing(store: MemStore) -> None:
    with RedisServer(rename_command="REPLICAOF hidden") as server:
        facts = await alone(store, server)
    assert facts.denied is not None
    assert list(facts.denied) == ["replicaof"]
    assert "not found" in facts.denied["replicaof"]


async def test_of_passwords_it_is_only_known_that_there_is_one(store: MemStore) -> None:
    with RedisServer(requirepass="secret", masterauth="secret") as server:
        facts = await inspected(store, server.node, credentials=Credentials(password="secret"))
    assert facts.with_password
    assert (facts.servers[0].settings or {})["masterauth"] == "set"
    assert "secret" not in repr(facts)


async def test_nothing_is_changed(store: MemStore, redis_server: RedisServer) -> None:
    before = redis_server.command("CONFIG", "GET", "*"), redis_server.info("replication")["role"]
    await alone(store, redis_server)
    assert (redis_server.command("CONFIG", "GET", "*"), redis_server.info("replication")["role"]) == before


async def test_inspection__a_server__says_which_process_and_version_it_is_and_what_it_could_not_save(
    store: MemStore,
) -> None:
    with RedisServer(save="3600 1") as server:
        well = await alone(store, server)
        assert well.run_id == server.info("server")["run_id"]
        assert well.version == f"Redis {server.info('server')['redis_version']}"
        assert well.unsaved == ""
        (server.folder / "dump.rdb").mkdir()  # a file cannot replace it
        with server.client() as client:
            client.bgsave()
        while not (facts := await alone(store, server)).unsaved:
            assert facts.trouble == ""
        assert facts.unsaved == "its RDB dump"


async def test_inspection__users__are_compared_without_their_passwords(
    store: MemStore, redis_server: RedisServer
) -> None:
    redis_server.command("ACL", "SETUSER", "app", "on", ">topsecret", "~app:*", "+get")
    facts = await alone(store, redis_server)
    assert facts.users is not None
    assert sorted(facts.users) == ["app", "default"]
    before = facts.users["app"]
    assert "~app:*" in before.rules
    assert "+get" in before.rules
    redis_server.command("ACL", "SETUSER", "app", ">another", "<topsecret")
    after = (await alone(store, redis_server)).users or {}
    assert after["app"].rules == before.rules
    assert after["app"].passwords != before.passwords


def test_users__in_any_order_of_passwords__are_alike() -> None:
    one, other = (users([f"user app on {words} ~* +@all"]) for words in ("#aa #bb", "#bb #aa"))
    assert one == other
    assert one["app"].rules == "on ~* +@all"
    assert users(["user app on nopass ~* +@all"])["app"].passwords != one["app"].passwords
    assert "aa" not in repr(one)


async def test_inspection__the_store__says_what_is_wrong_with_the_managers(store: MemStore) -> None:
    node, other = Node("127.0.0.1", free_port()), Node("localhost", 1)
    seen = tuple(NodeReport(one, True, role="master", run_id="f00d") for one in (node, other))
    report = ManagerReport("m1", 1, seen, configured=(node,), required=3, strategy="majority")
    await store.announce(PATHS.manager("m1"), report.encode())
    await store.announce(PATHS.manager("m2"), replace(report, manager="m2", required=2).encode())
    await store.commit(Put(PATHS.paused, Pause("me@host").encode()))
    facts = await inspected(store, node)
    assert facts.too_few.startswith("2 of 3 required managers report")
    assert [line.partition(":")[0] for line in facts.disagreements] == [
        "the managers have different values of --required-node-managers"
    ]
    assert facts.doubles == {"f00d": [node, other]}
    assert facts.paused == "by me@host"


async def test_inspection__false_alarms__are_why_changes_are_slowed_down(
    store: MemStore, redis_server: RedisServer
) -> None:
    steps = (("noticed", time.time() - 1.0), ("published", time.time()))
    receipt = Receipt(3, Kind.FAILOVER, Outcome.DONE, "silent", redis_server.node, steps=steps, returned=0.5)
    await store.commit(Put(PATHS.receipt(3), receipt.encode()))
    assert "1 false alarm: a silent master is given 2 times" in (await inspected(store, redis_server.node)).slowed_down


async def test_inspection__no_manager_was_ever_started__is_nothing_wrong_with_them(
    store: MemStore, redis_server: RedisServer
) -> None:
    assert (await inspected(store, redis_server.node)).too_few == ""


async def test_inspection__the_store_is_away__servers_that_are_named_are_examined(
    store: MemStore, redis_server: RedisServer
) -> None:
    store.suspend()
    facts = await inspected(store, redis_server.node)
    assert facts.store_trouble
    assert facts.servers[0].role == "master"
    with pytest.raises(StoreUnavailable):
        await inspected(store)


async def test_inspection__the_gems_managers_lead__is_found_and_missing_managers_are_not(
    store: MemStore, redis_server: RedisServer
) -> None:
    record = f'{{"master": "{redis_server.node}", "slaves": [], "unavailable": []}}'
    await store.commit(Put(PATHS.nodes, record.encode()))
    await store.enlist(f"{PATHS.gem_lock}/ex", b"")
    group = await inspected(store)
    assert [finding.what for finding in group.migration] == ["node managers of Ruby's redis_failover lead"]
    assert group.too_few == ""
