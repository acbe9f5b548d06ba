"""Lanes take turns: a write finds one that is free, and no read is behind a write that waits for replicas."""

from __future__ import annotations

import pytest

from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy, Reads
from rfproxy.routing.durable_router import LANES, create_router
from rfproxy.routing.hold_queue import FIRST_REST
from rfproxy.routing.lease import NEWS
from rfproxy.routing.router import FIRST_REOPENING, Router
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
    play.wait(NEWS)
    assert connection.closed
    client.hears_error("UNCERTAIN INCR")


def test_lanes_of_accounts_and_databases_that_nobody_uses_are_closed(play: Playbook) -> None:
    client = play.client().says("SELECT", "1")
    play.server("m:1").hears("SELECT", "1").answers(OK)
    connection = writes(play, client, "k")
    connection.answers(b":1\r\n" + ENOUGH)
    client.leaves()
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


# --- a server that is busy with a script


def becomes_busy(play: Playbook) -> None:
    """No WAIT is answered from now on, and no greeting is what one hopes for."""
    busy = b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n"
    play.server("m:1").denies = dict.fromkeys([b"SELECT", b"ROLE", b"INFO", b"CLIENT"], busy)


@pytest.mark.parametrize("command", ["SCRIPT KILL", "FUNCTION KILL", "FUNCTION STATS"])
@pytest.mark.parametrize("lanes", [1, LANES])
def test_a_script_can_be_killed_however_many_writes_wait(play: Playbook, lanes: int, command: str) -> None:
    for number in range(lanes):
        writes(play, play.client(), f"k{number}")
    becomes_busy(play)
    killer = play.client().says(*command.split())
    play.server("m:1").hears(*command.split()).answers(OK)
    killer.hears(OK)


def test_it_is_not_a_replica_that_is_asked_to_kill_it() -> None:
    for policy in (Policy(), Policy(durable=Durability())):
        play = Playbook(policy)
        play.topology(1, master="m:1", replicas=["r:1"])
        play.client().says("SCRIPT", "KILL")
        play.server("m:1").hears("SCRIPT", "KILL")


def test_a_kill_behind_a_write_of_the_same_client_keeps_its_place(play: Playbook) -> None:
    client = play.client()
    connection = writes(play, client, "k")
    client.says("SCRIPT", "KILL")
    play.server("m:1").hears_nothing()
    connection.answers(b":1\r\n" + ENOUGH)
    assert play.server("m:1").hears("SCRIPT", "KILL") is connection


def test_who_writes_to_another_database_can_kill_scripts_as_long_as_it_writes(play: Playbook) -> None:
    client = play.client().says("SELECT", "1")
    play.server("m:1").hears("SELECT", "1").answers(OK)
    for _ in range(3):
        writes(play, client, "k").answers(b":1\r\n" + ENOUGH)
        play.time += 50
        play.router.reap(play.time)
    writes(play, client, "k")
    killer = play.client().says("SELECT", "1")
    play.server("m:1").hears("SELECT", "1").answers(OK)
    becomes_busy(play)
    killer.says("SCRIPT", "KILL")
    play.server("m:1").hears("SCRIPT", "KILL")


def test_also_when_others_try_to_write_meanwhile(play: Playbook) -> None:
    writes(play, play.client(), "a")
    becomes_busy(play)
    play.client().says("INCR", "b").hears_nothing()
    play.client().says("SCRIPT", "KILL")
    play.wait(FIRST_REST)
    play.server("m:1").hears("SCRIPT", "KILL")


def test_nobody_waits_longer_for_a_busy_server_than_for_any_other(play: Playbook) -> None:
    writes(play, play.client(), "a")
    becomes_busy(play)
    client = play.client().says("INCR", "b")
    play.wait(play.router.policy.hold_timeout + 1)
    client.hears_error("MASTERDOWN")


# --- lanes that are lost


def lost(play: Playbook, connection: FakeConnection) -> None:
    connection.closed = True
    connection.lane.lose(play.time)


def test_when_all_are_lost_at_once_the_master_rests_once(play: Playbook) -> None:
    for number in range(LANES):
        writes(play, play.client(), f"k{number}")
    play.server("m:1").hangs_up()
    assert play.time < play.router.gate.rest_until <= play.time + FIRST_REST
    play.wait(FIRST_REST)
    writes(play, play.client(), "again")


def test_also_those_that_were_just_being_opened(play: Playbook) -> None:
    for number in range(LANES):
        play.server("m:1").denies = {b"ROLE": b"-LOADING Redis is loading the dataset in memory\r\n"} if number else {}
        play.client().says("INCR", f"k{number}")
    play.server("m:1").hangs_up()
    assert play.time < play.router.gate.rest_until <= play.time + FIRST_REST


def test_when_one_is_lost_the_others_go_on(play: Playbook) -> None:
    waiting, free = writes(play, play.client(), "a"), writes(play, play.client(), "b")
    free.answers(b":1\r\n" + ENOUGH)
    lost(play, waiting)
    assert play.router.open(play.time)
    assert writes(play, play.client(), "c") is free


def test_no_other_is_opened_in_its_place_for_a_moment(play: Playbook) -> None:
    first, second = writes(play, play.client(), "a"), writes(play, play.client(), "b")
    lost(play, first)
    client = play.client().says("INCR", "c")
    play.server("m:1").hears_nothing()
    second.answers(b":1\r\n" + ENOUGH)
    assert play.server("m:1").hears("INCR", "c") is second
    client.hears_nothing()
    play.wait(FIRST_REOPENING)
    assert writes(play, play.client(), "d") not in (first, second)


def test_a_server_that_has_room_for_no_other_is_used_as_far_as_it_goes(play: Playbook) -> None:
    connection = writes(play, play.client(), "a")
    full = b"-ERR max number of clients reached\r\n"
    play.server("m:1").denies = dict.fromkeys([b"ROLE", b"INFO", b"CLIENT"], full)
    client = play.client().says("INCR", "b")
    client.hears_nothing()
    connection.answers(b":1\r\n" + ENOUGH)
    assert play.server("m:1").hears("INCR", "b") is connection


def test_reads_that_lost_their_lane_take_turns_with_writes_for_a_moment(play: Playbook) -> None:
    connection = writes(play, play.client(), "a")
    connection.answers(b":1\r\n" + ENOUGH)
    reader = play.client().says("GET", "a")
    play.server("m:1").hears("GET", "a").answers(b"$1\r\n1\r\n")
    reader.hears(b"$1\r\n1\r\n")
    (of_reads,) = [lane for lane in play.server("m:1").live if lane is not connection and not lane.commands]
    lost(play, of_reads)
    play.settle()
    assert play.router.open(play.time)
    reader.says("GET", "a")
    assert play.server("m:1").hears("GET", "a") is connection
    connection.answers(b"$1\r\n1\r\n")
    reader.hears(b"$1\r\n1\r\n")
    play.wait(FIRST_REOPENING)
    reader.says("GET", "a")
    assert play.server("m:1").hears("GET", "a") is not connection
