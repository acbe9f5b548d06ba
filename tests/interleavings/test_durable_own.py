"""Durable writes on a connection of one's own: what blocks may take something, and the server may speak unasked."""

from __future__ import annotations

import pytest

from rfproxy.durable import Durability
from rfproxy.router import Policy
from tests.proxy.test_durable import ENOUGH, INVALID, OK, PONG, TOO_FEW, heard, short, tracker, waited
from tests.support.playbook import FakeConnection, Playbook


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Policy(durable=Durability()))
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


# --- what a blocking command has taken

ELEMENT = b"*2\r\n$1\r\nl\r\n$1\r\nx\r\n"
TOOK_NOTHING = [b"*-1\r\n", b"$-1\r\n", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"]


def dies(play: Playbook, connection: FakeConnection) -> None:
    """This connection breaks, and no other; those who may ask again have done so."""
    connection.closed = True
    connection.lane.lose(play.time)
    play.wait(0.2)


@pytest.mark.parametrize("replies", [ELEMENT, ELEMENT + PONG, ELEMENT + PONG + b":"])
def test_an_element_that_was_taken_is_not_taken_again_when_the_connection_dies(play: Playbook, replies: bytes) -> None:
    client = play.client().says("BLPOP", "l", "0")
    dies(play, waited(play, "BLPOP l 0", own=True).answers(replies))
    play.server("m:1").hears_nothing()
    client.hears_error("UNCERTAIN BLPOP may or may not have been applied")


@pytest.mark.parametrize("reply", TOOK_NOTHING)
def test_who_has_taken_nothing_asks_again_when_the_connection_dies(play: Playbook, reply: bytes) -> None:
    client = play.client().says("BLPOP", "l", "0")
    dies(play, waited(play, "BLPOP l 0", own=True).answers(reply))
    waited(play, "BLPOP l 0", own=True).answers(ELEMENT + PONG + ENOUGH)
    client.hears(ELEMENT)


def test_a_planned_change_awaits_the_replicas_of_an_element_that_was_taken(play: Playbook) -> None:
    client = play.client().says("BLPOP", "l", "0")
    connection = waited(play, "BLPOP l 0", own=True).answers(ELEMENT)
    play.topology(2, draining=("m:1", "r:1"))
    assert play.acknowledged[-1] == 1
    connection.answers(PONG + ENOUGH)
    assert play.acknowledged[-1] == 2
    client.hears(ELEMENT)


def test_who_says_nothing_more_still_hears_what_was_taken(play: Playbook) -> None:
    client = play.client().says("BLPOP", "l", "0")
    connection = waited(play, "BLPOP l 0", own=True).answers(ELEMENT)
    client.session.finish(play.time)
    connection.answers(PONG + ENOUGH)
    client.hears(ELEMENT)
    assert client.closed


def test_the_next_blocking_command_may_be_asked_again(play: Playbook) -> None:
    client = play.client().says("BLPOP", "l", "0")
    waited(play, "BLPOP l 0", own=True).answers(ELEMENT + PONG + ENOUGH)
    client.hears(ELEMENT)
    client.says("BLPOP", "l", "0")
    dies(play, waited(play, "BLPOP l 0", own=True))
    waited(play, "BLPOP l 0", own=True).answers(ELEMENT + PONG + ENOUGH)
    client.hears(ELEMENT)


# --- what is said unasked


def test_messages_do_not_wait_for_a_command_that_blocks(play: Playbook) -> None:
    client = tracker(play)
    client.says("BLPOP", "l", "0")
    connection = waited(play, "BLPOP l 0", own=True)
    for _ in range(3):
        connection.answers(INVALID)
        client.hears(INVALID)
    connection.answers(ELEMENT + INVALID + PONG)
    client.hears_nothing()
    connection.answers(ENOUGH)
    client.hears(ELEMENT + INVALID)


NO_KEYS = b"-ERR Replica can't interact with the keyspace\r\n"
LINE = b'+1700000000.1 [0 1.1.1.1:1] "x"\r\n'


@pytest.mark.parametrize("reply", [OK, NO_KEYS])
def test_who_monitors_hears_of_its_write(play: Playbook, reply: bytes) -> None:
    client = play.client().says("MONITOR")
    heard(play, "MONITOR", own=True).answers(OK)
    client.hears(OK)
    client.says("SET", "k", "v")
    connection = waited(play, "SET k v", own=True).answers(LINE)
    client.hears(LINE)
    connection.answers(reply + LINE + PONG)
    client.hears_nothing()
    connection.answers(LINE + ENOUGH + LINE)
    client.hears(reply + LINE * 3)


def test_a_write_of_who_monitors_may_fall_short(play: Playbook) -> None:
    client = play.client().says("MONITOR")
    heard(play, "MONITOR", own=True).answers(OK)
    client.hears(OK)
    client.says("SET", "k", "v")
    waited(play, "SET k v", own=True).answers(OK + LINE + PONG + LINE + TOO_FEW)
    client.hears(short("SET") + LINE * 2)


def test_what_may_not_be_written_by_who_monitors_is_not_taken_for_a_lack_of_replicas(play: Playbook) -> None:
    play.server("m:1").version = "7.2.4"
    client = play.client().says("MONITOR")
    heard(play, "MONITOR", own=True).answers(OK)
    client.hears(OK)
    client.says("SET", "k", "v")
    connection = play.server("m:1").hears("SET", "k", "v", exclusive=True)
    play.server("m:1").hears("SPUBLISH", "rfproxy:durable", "", exclusive=True)
    play.server("m:1").hears("WAIT", "1", "1000", exclusive=True)
    connection.answers(NO_KEYS + NO_KEYS + ENOUGH)
    client.hears(NO_KEYS)
    assert not play.log.events("writes_not_replicated")
