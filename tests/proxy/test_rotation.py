"""Lanes take turns: a write finds one that is free, and no read is behind a write that waits for replicas."""

from __future__ import annotations

import pytest

from rfproxy.durable import Durability
from rfproxy.rotation import LANES, create_router
from rfproxy.router import Policy, Reads, Router
from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"
ENOUGH = b":1\r\n"
TOO_FEW = b":0\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Policy(reads=Reads.MASTER, durable=Durability()))
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def writes(play: Playbook, client: FakeClient, key: str) -> FakeConnection:
    """The client writes; returns the connection on which the master hears that."""
    client.says("INCR", key)
    connection = play.server("m:1").hears("INCR", key)
    assert connection.commands == [[b"WAIT", b"1", b"1000"]]
    connection.commands.clear()
    return connection


def test_without_durable_writes_there_is_nothing_of_it(play: Playbook) -> None:
    assert type(create_router(Policy(), play, play.lease, play.stats, play.log)) is Router


def test_while_a_batch_waits_the_next_one_goes_out_on_another_lane(play: Playbook) -> None:
    connections = [writes(play, play.client(), f"k{number}") for number in range(LANES)]
    assert len(set(connections)) == LANES


def test_a_lane_that_is_free_again_is_used_before_another_is_opened(play: Playbook) -> None:
    client = play.client()
    connection = writes(play, client, "a")
    connection.answers(b":1\r\n" + ENOUGH)
    assert writes(play, client, "b") is connection
    assert writes(play, play.client(), "c") is not connection


def test_when_all_wait_a_write_goes_out_behind_the_one_that_waits_longest(play: Playbook) -> None:
    connections = []
    for number in range(LANES):
        connections.append(writes(play, play.client(), f"k{number}"))
        play.time += 0.01
    play.client().says("INCR", "late")
    play.server("m:1").hears_nothing()
    connections[0].answers(b":1\r\n" + ENOUGH)
    assert play.server("m:1").hears("INCR", "late") is connections[0]


def test_a_read_from_the_master_does_not_wait_behind_writes(play: Playbook) -> None:
    waiting = [writes(play, play.client(), f"k{number}") for number in range(LANES)]
    reader = play.client().says("GET", "k0")
    connection = play.server("m:1").hears("GET", "k0")
    assert connection not in waiting
    connection.answers(b"$1\r\n1\r\n")
    reader.hears(b"$1\r\n1\r\n")


def test_a_read_behind_a_write_of_the_same_client_follows_it(play: Playbook) -> None:
    client = play.client()
    connection = writes(play, client, "k")
    client.says("GET", "k")
    play.server("m:1").hears_nothing()
    connection.answers(b":1\r\n" + ENOUGH)
    assert play.server("m:1").hears("GET", "k") is connection


def test_a_write_behind_an_unanswered_read_is_waited_for_all_the_same(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    connection = play.server("m:1").hears("GET", "k")
    client.says("INCR", "k")
    play.server("m:1").hears_nothing()
    connection.answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    other = play.server("m:1").hears("INCR", "k")
    assert other is not connection
    assert other.commands == [[b"WAIT", b"1", b"1000"]]


def test_a_fence_closes_the_lanes_of_all_turns(play: Playbook) -> None:
    clients = [play.client() for _ in range(LANES)]
    for number, client in enumerate(clients):
        writes(play, client, f"k{number}")
    play.topology(2, replicas=["r:1"])
    assert play.server("m:1").live == []
    assert play.acknowledged[-1] == 2
    for client in clients:
        client.hears_error("UNCERTAIN INCR")


def test_a_lease_that_runs_out_closes_them_too(play: Playbook) -> None:
    client = play.client()
    connection = writes(play, client, "k")
    play.lease.revoke()
    play.router.lapse(play.time)
    assert connection.closed
    client.hears_error("UNCERTAIN INCR")


def test_lanes_of_accounts_and_databases_that_nobody_uses_are_closed(play: Playbook) -> None:
    client = play.client().says("SELECT", "1")
    play.server("m:1").hears("SELECT", "1").answers(OK)
    connection = writes(play, client, "k")
    connection.answers(b":1\r\n" + ENOUGH)
    play.time += 61
    play.router.reap(play.time)
    assert connection.closed


def test_the_log_says_once_that_writes_are_not_replicated_and_once_that_they_are_again(play: Playbook) -> None:
    client = play.client()
    for answer in (ENOUGH, TOO_FEW, TOO_FEW, ENOUGH, ENOUGH):
        writes(play, client, "k").answers(b":1\r\n" + answer)
    events = [event for event, _ in play.log.lines if event.startswith("writes_")]
    assert events == ["writes_not_replicated", "writes_replicated"]
    (line,) = play.log.events("writes_not_replicated")
    assert line["error"] == "not replicated to 1 replica within 1 s"
    assert (play.stats.batches, play.stats.unreplicated) == (5, 2)
