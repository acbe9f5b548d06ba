"""A write is acknowledged when replicas have it, whatever it is part of, and an error says so when they do not."""

from __future__ import annotations

import pytest

from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy
from tests.support.durability import DENIED, ENOUGH, OK, PONG, QUEUED, READONLY, TOO_FEW, heard, short, waited
from tests.support.playbook import FakeClient, Playbook


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Policy(durable=Durability()))
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


# --- one write


def test_a_write_is_acknowledged_when_a_replica_has_it(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    connection = waited(play, "SET k v").answers(OK)
    client.hears_nothing()
    connection.answers(ENOUGH)
    client.hears(OK)


@pytest.mark.parametrize("cut", range(len(OK + ENOUGH)))
def test_wherever_the_replies_are_cut(play: Playbook, cut: int) -> None:
    client = play.client().says("SET", "k", "v")
    connection = waited(play, "SET k v").answers((OK + ENOUGH)[:cut])
    client.hears_nothing()
    connection.answers((OK + ENOUGH)[cut:])
    client.hears(OK)


def test_a_write_that_no_replica_has_in_time_is_uncertain(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    waited(play, "SET k v").answers(OK + TOO_FEW)
    client.hears(short("SET"))


def test_as_many_replicas_are_asked_for_as_long_as_the_options_say() -> None:
    play = Playbook(Policy(durable=Durability(replicas=2, timeout=0.25)))
    play.topology(1, master="m:1")
    client = play.client().says("DEL", "k")
    heard(play, "DEL k", "WAIT 2 250").answers(b":1\r\n:1\r\n")
    assert client.hears_error("UNCERTAIN DEL").endswith("not replicated to 2 replicas within 0.25 s\r\n")


def test_a_read_from_the_master_is_not_waited_for(play: Playbook) -> None:
    client = play.client().says("DBSIZE")
    heard(play, "DBSIZE").answers(b":7\r\n")
    client.hears(b":7\r\n")


def test_what_the_proxy_does_not_know_may_be_a_write(play: Playbook) -> None:
    client = play.client().says("MODULE.DO", "k")
    waited(play, "MODULE.DO k", own=True).answers(OK + PONG + ENOUGH)
    client.hears(OK)


# --- batches


def test_one_question_is_asked_for_all_clients_of_a_turn(play: Playbook) -> None:
    one, two = play.client(), play.client()
    for client, key in ((one, b"a"), (two, b"b")):
        client.session.feed(b"*2\r\n$4\r\nINCR\r\n$1\r\n%b\r\n" % key, play.time)
    waited(play, "INCR a", "INCR b").answers(b":1\r\n:2\r\n" + ENOUGH)
    one.hears(b":1\r\n")
    two.hears(b":2\r\n")


def test_what_is_said_behind_a_write_makes_the_next_batch(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = waited(play, "INCR a")
    client.says("INCR", "b").says("GET", "a")
    play.server("m:1").hears_nothing()
    connection.answers(b":1\r\n" + ENOUGH)
    client.hears(b":1\r\n")
    assert waited(play, "INCR b", "GET a") is connection
    connection.answers(b":2\r\n$1\r\n1\r\n" + ENOUGH)
    client.hears(b":2\r\n$1\r\n1\r\n")


def test_reads_and_errors_of_a_batch_that_falls_short_stay_what_they_are(play: Playbook) -> None:
    client = play.client().pipelines("INCR a", "GET a", "LPUSH a x", "INCR b")
    wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    waited(play, "INCR a", "GET a", "LPUSH a x", "INCR b").answers(b":1\r\n$1\r\n1\r\n" + wrong + b":5\r\n" + TOO_FEW)
    client.hears(short("INCR") + b"$1\r\n1\r\n" + wrong + short("INCR"))
    assert (play.stats.batches, play.stats.unreplicated, play.stats.errors) == (1, 2, 2)


def test_a_refused_write_is_sent_again_also_when_the_batch_falls_short(play: Playbook) -> None:
    client = play.client().pipelines("INCR a", "DEL c", "INCR b")
    waited(play, "INCR a", "DEL c", "INCR b").answers(b":1\r\n:1\r\n" + READONLY + TOO_FEW)
    play.topology(2, replicas=["r:1"])
    play.topology(3, master="r:1")
    play.server("r:1").hears("INCR", "b").answers(b":9\r\n" + ENOUGH)
    client.hears(short("INCR") + short("DEL") + b":9\r\n")


def test_who_does_not_want_to_hear_replies_hears_no_error_either(play: Playbook) -> None:
    client = play.client().pipelines("CLIENT REPLY OFF", "SET k v")
    play.server("r:1").hears("CLIENT", "REPLY", "ON").answers(OK)
    waited(play, "SET k v").answers(OK + TOO_FEW)
    client.hears_nothing()


def test_a_reply_that_is_long_comes_when_the_batch_is_on_a_replica(play: Playbook) -> None:
    size = 3 << 20
    client = play.client().pipelines("GET big", "SET k v")
    connection = waited(play, "GET big", "SET k v").answers(b"$%d\r\n" % size)
    for _ in range(3):
        connection.answers(b"x" * (1 << 20))
    connection.answers(b"\r\n" + OK)
    client.hears_nothing()
    connection.answers(ENOUGH)
    client.hears(b"$%d\r\n" % size + b"x" * size + b"\r\n" + OK)


# --- failures


@pytest.mark.parametrize("replies", [b"", OK[:2], OK, OK + b":", OK + b":1\r"])
def test_a_connection_that_dies_before_wait_is_answered_has_answered_nothing(play: Playbook, replies: bytes) -> None:
    client, other = play.client().says("SET", "k", "v"), play.client()
    other.says("INCR", "n")
    connection = waited(play, "SET k v").answers(replies)
    connection.closed = True
    connection.lane.lose(play.time)
    waited(play, "INCR n").answers(b":1\r\n" + ENOUGH)
    client.hears_nothing()
    play.wait(0.1)
    waited(play, "SET k v", own=True).answers(OK + PONG + ENOUGH)
    client.hears(OK)


def test_a_write_that_cannot_be_repeated_is_uncertain_when_wait_was_not_answered(play: Playbook) -> None:
    client = play.client().says("INCR", "n")
    waited(play, "INCR n").answers(b":1\r\n")
    play.server("m:1").hangs_up()
    client.hears_error("UNCERTAIN INCR may or may not have been applied")


def test_a_question_that_is_refused_is_no_answer(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    waited(play, "SET k v").answers(OK + DENIED)
    error = client.hears_error("UNCERTAIN SET was executed by master m:1 but not replicated as far as is known")
    assert "NOPERM" in error


@pytest.mark.parametrize("command", ["INCR n", "SET k v"])
def test_an_answer_that_makes_no_sense_costs_the_connection(play: Playbook, command: str) -> None:
    client = play.client().says(*command.split())
    connection = waited(play, command).answers(b":1\r\n" + QUEUED)
    assert connection.closed
    name = command.split(maxsplit=1)[0]
    error = client.hears_error(f"UNCERTAIN {name} was executed by master m:1 but not replicated as far as is known")
    assert "WAIT was answered +QUEUED" in error
    play.wait(0.2)
    play.server("m:1").hears_nothing()


def test_behind_such_an_answer_everyone_goes_on_elsewhere(play: Playbook) -> None:
    client, other = play.client().says("SET", "k", "v"), play.client()
    connection = waited(play, "SET k v")
    client.says("INCR", "n")
    other.says("GET", "k")
    connection.answers(OK + QUEUED)
    client.hears_error("UNCERTAIN SET was executed")
    play.wait(0.2)
    waited(play, "INCR n").answers(b":1\r\n" + ENOUGH)
    client.hears(b":1\r\n")


def test_a_planned_change_awaits_the_replicas(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v").says("INCR", "n")
    connection = waited(play, "SET k v")
    play.topology(2, draining=("m:1", "r:1"))
    connection.answers(OK)
    assert play.acknowledged[-1] == 1
    connection.answers(ENOUGH)
    assert connection.closed
    assert play.acknowledged[-1] == 2
    client.hears(OK)
    play.topology(3, master="r:1")
    play.server("r:1").hears("INCR", "n")


def test_what_replicas_confirm_behind_the_end_of_the_lease_is_not_believed(play: Playbook) -> None:
    client = play.client().says("INCR", "n")
    connection = waited(play, "INCR n").answers(b":1\r\n")
    play.lease.revoke()
    connection.answers(ENOUGH)
    client.hears_nothing()
    play.topology(3, master="r:1")
    assert connection.closed
    client.hears_error("UNCERTAIN INCR may or may not have been applied")


# --- transactions


def test_a_transaction_of_one_packet_is_one_write(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR n", "GET n", "EXEC")
    replies = OK + QUEUED * 2
    waited(play, "MULTI", "INCR n", "GET n", "EXEC").answers(replies + b"*2\r\n:1\r\n$1\r\n1\r\n" + TOO_FEW)
    client.hears(replies + short("EXEC"))


def test_a_transaction_of_reads_is_not_waited_for(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "GET n", "EXEC")
    replies = OK + QUEUED + b"*1\r\n$1\r\n1\r\n"
    heard(play, "MULTI", "GET n", "EXEC").answers(replies)
    client.hears(replies)


def test_what_is_executed_after_a_refused_multi_is_judged_one_by_one(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR n", "GET n", "EXEC")
    stray = b"-ERR EXEC without MULTI\r\n"
    replies = DENIED + b":1\r\n$1\r\n1\r\n" + stray
    waited(play, "MULTI", "INCR n", "GET n", "EXEC").answers(replies + TOO_FEW)
    client.hears(DENIED + short("INCR") + b"$1\r\n1\r\n" + stray)


def opened(play: Playbook, *commands: str) -> FakeClient:
    """A client with a transaction in which these are queued."""
    client = play.client()
    for command in ("MULTI", *commands):
        client.says(*command.split())
        heard(play, command, own=True).answers(OK if command == "MULTI" else QUEUED)
    client.hears(OK + QUEUED * len(commands))
    return client


def test_a_transaction_of_several_packets_is_waited_for_behind_exec(play: Playbook) -> None:
    client = opened(play, "INCR n").says("EXEC")
    connection = waited(play, "EXEC", own=True).answers(b"*1\r\n:1\r\n")
    client.hears_nothing()
    connection.answers(PONG + ENOUGH)
    client.hears(b"*1\r\n:1\r\n")


def test_a_transaction_of_several_packets_that_falls_short_is_uncertain(play: Playbook) -> None:
    client = opened(play, "INCR n").says("EXEC")
    waited(play, "EXEC", own=True).answers(b"*1\r\n:1\r\n" + PONG + TOO_FEW)
    client.hears(short("EXEC"))


def test_a_transaction_that_was_not_executed_cannot_fall_short(play: Playbook) -> None:
    client = opened(play, "INCR n").says("EXEC")
    waited(play, "EXEC", own=True).answers(b"*-1\r\n" + PONG + TOO_FEW)
    client.hears(b"*-1\r\n")


def test_nothing_is_waited_for_when_reads_or_nothing_were_queued(play: Playbook) -> None:
    client = opened(play, "GET n").says("EXEC")
    heard(play, "EXEC", own=True).answers(b"*1\r\n$1\r\n1\r\n")
    client.hears(b"*1\r\n$1\r\n1\r\n")
    client = opened(play, "INCR n").says("DISCARD")
    heard(play, "DISCARD", own=True).answers(OK)
    client.hears(OK)


def test_exec_waits_until_it_is_known_what_was_queued(play: Playbook) -> None:
    client = opened(play).says("INCR", "n")
    connection = heard(play, "INCR n", own=True)
    client.says("EXEC")
    play.server("m:1").hears_nothing()
    connection.answers(QUEUED)
    waited(play, "EXEC", own=True).answers(b"*1\r\n:1\r\n" + PONG + ENOUGH)
    client.hears(QUEUED + b"*1\r\n:1\r\n")


def test_a_transaction_goes_on_behind_multi_that_was_refused_as_nested(play: Playbook) -> None:
    client = opened(play).pipelines("INCR n", "MULTI", "INCR m")
    heard(play, "INCR n", own=True).answers(QUEUED)
    nested = b"-ERR MULTI calls can not be nested\r\n"
    heard(play, "MULTI", own=True).answers(nested)
    heard(play, "INCR m", own=True).answers(QUEUED)
    client.hears(QUEUED + nested + QUEUED)
    client.says("EXEC")
    waited(play, "EXEC", own=True).answers(b"*2\r\n:1\r\n:1\r\n" + PONG + ENOUGH)
    client.hears(b"*2\r\n:1\r\n:1\r\n")


def test_what_is_discarded_in_the_same_packet_is_not_waited_for(play: Playbook) -> None:
    client = opened(play).pipelines("INCR n", "DISCARD")
    heard(play, "INCR n", "DISCARD", own=True).answers(QUEUED + OK)
    client.hears(QUEUED + OK)


def test_a_write_behind_watch_is_waited_for_before_the_transaction_begins(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    heard(play, "WATCH k", own=True).answers(OK)
    client.pipelines("SET a 1", "MULTI", "INCR n", "EXEC")
    waited(play, "SET a 1", own=True).answers(OK + PONG + ENOUGH)
    connection = heard(play, "MULTI", own=True)
    connection.answers(OK)
    waited(play, "INCR n", "EXEC", own=True).answers(QUEUED + b"*1\r\n:1\r\n" + PONG + ENOUGH)
    client.hears(OK + OK + OK + QUEUED + b"*1\r\n:1\r\n")


def test_also_when_the_transaction_is_left_open(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    heard(play, "WATCH k", own=True).answers(OK)
    client.pipelines("SET a 1", "MULTI", "INCR n")
    waited(play, "SET a 1", own=True).answers(OK + PONG + ENOUGH)
    heard(play, "MULTI", own=True).answers(OK)
    heard(play, "INCR n", own=True).answers(QUEUED)
    client.hears(OK + OK + OK + QUEUED)


def test_behind_multi_nothing_is_said_until_the_server_has_taken_it(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    heard(play, "WATCH k", own=True).answers(OK)
    client.pipelines("MULTI", "INCR n")
    connection = heard(play, "MULTI", own=True)
    client.says("INCR", "n")
    play.server("m:1").hears_nothing()
    connection.answers(DENIED)
    waited(play, "INCR n", "INCR n", own=True).answers(b":1\r\n:2\r\n" + PONG + TOO_FEW)
    client.hears(OK + DENIED + short("INCR") * 2)


def test_not_even_what_comes_later(play: Playbook) -> None:
    client = play.client().says("MULTI")
    connection = heard(play, "MULTI", own=True)
    client.says("INCR", "n")
    play.server("m:1").hears_nothing()
    connection.answers(DENIED)
    waited(play, "INCR n", own=True).answers(b":1\r\n" + PONG + TOO_FEW)
    client.hears(DENIED + short("INCR"))


def test_a_transaction_is_queued_again_on_the_next_master_and_waited_for_there(play: Playbook) -> None:
    client = opened(play, "INCR n")
    play.topology(2, replicas=["r:1"])
    client.says("EXEC")
    play.topology(3, master="r:1")
    for command in ("MULTI", "INCR n"):
        connection = play.server("r:1").hears(*command.split(), exclusive=True)
    assert not connection.commands
    connection.answers(OK + QUEUED)
    for command in ("EXEC", "PING", "WAIT 1 1000"):
        play.server("r:1").hears(*command.split(), exclusive=True)
    connection.answers(b"*1\r\n:1\r\n" + PONG + ENOUGH)
    client.hears(b"*1\r\n:1\r\n")


def test_durable_lane__replicas_are_waited_for__no_reply_is_due(play: Playbook) -> None:
    play.client().says("DEL", "k")
    connection = play.server("m:1").hears("DEL", "k")
    assert connection.lane.awaits_reply
    connection.answers(b":1\r\n")
    assert not connection.lane.awaits_reply
    play.listen(1.0)
    assert play.told_busy == []
