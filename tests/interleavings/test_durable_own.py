"""Durable writes on a connection of one's own: what blocks may take something, and the server may speak unasked."""

from __future__ import annotations

import pytest

from rfproxy.core.attempts import FATAL
from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy
from tests.support.durability import (
    ENOUGH,
    INVALID,
    OK,
    PONG,
    TOO_FEW,
    heard,
    short,
    tracker,
    waited,
)
from tests.support.playbook import FakeConnection, Playbook


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Policy(durable=Durability()))
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


# --- connections of one's own


@pytest.mark.parametrize("command", ["EVAL x 0", "BLPOP l 0"])
def test_what_needs_a_connection_of_its_own_is_waited_for_there(play: Playbook, command: str) -> None:
    client = play.client().says(*command.split())
    waited(play, command, own=True).answers(b":1\r\n" + PONG + TOO_FEW)
    client.hears(short(command.split(maxsplit=1)[0]))


def test_after_a_blocking_command_that_took_something_nobody_knows_about_the_client_goes_on(play: Playbook) -> None:
    client = play.client().says("BLPOP", "l", "0")
    waited(play, "BLPOP l 0", own=True).answers(b"*2\r\n$1\r\nl\r\n$1\r\nv\r\n")
    client.says("SET", "k", "v")
    play.server("m:1").hangs_up()
    client.hears_error("UNCERTAIN BLPOP")
    client.output = b""
    play.wait(1.0)
    heard(play, "SET k v", "WAIT 1 1000").answers(OK + ENOUGH)
    client.hears(OK)


def test_a_script_that_may_only_read_is_not_waited_for(play: Playbook) -> None:
    client = play.client().says("EVAL_RO", "x", "0")
    heard(play, "EVAL_RO x 0", own=True).answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_a_clients_own_wait_is_answered_by_the_server(play: Playbook) -> None:
    client = play.client().says("WAIT", "2", "100")
    play.server("m:1").hears("SPUBLISH", "rfproxy:durable", "", exclusive=True)
    heard(play, "WAIT 2 100", own=True).answers(b":0\r\n:2\r\n")
    client.hears(b":2\r\n")


def test_since_redis_72_something_is_written_before_the_question() -> None:
    play = Playbook(Policy(durable=Durability()))
    play.server("m:1").version = "7.2.4"
    play.topology(1, master="m:1")
    client = play.client().says("SADD", "s", "there already")
    connection = play.server("m:1").hears("SADD", "s", "there already")
    play.server("m:1").hears("SPUBLISH", "rfproxy:durable", "")
    play.server("m:1").hears("WAIT", "1", "1000")
    connection.answers(b":0\r\n:0\r\n" + ENOUGH)
    client.hears(b":0\r\n")


def test_a_user_who_may_not_use_the_channel_is_told_what_wait_says() -> None:
    play = Playbook(Policy(durable=Durability()))
    play.server("m:1").version = "7.2.4"
    play.topology(1, master="m:1")
    client = play.client().says("SET", "k", "v")
    connection = play.server("m:1").hears("SET", "k", "v")
    refused = b"-NOPERM this user has no permissions to access one of the channels used as arguments\r\n"
    connection.answers(OK + refused + ENOUGH)
    client.hears(OK)


@pytest.mark.parametrize("cut", [0, 1, len(INVALID) - 1])
def test_what_the_server_says_unasked_keeps_its_place_among_the_replies(play: Playbook, cut: int) -> None:
    client = tracker(play)
    (connection,) = [one for one in play.server("m:1").live if one.lane.guest is client.session]
    connection.answers(INVALID[:cut])  # half a message is there when the batch goes out
    client.pipelines("GET k", "SET j v")
    waited(play, "GET k", "SET j v", own=True)
    connection.answers(INVALID[cut:] + b"$1\r\n1\r\n" + INVALID + OK + PONG)
    client.hears(INVALID)  # nothing is there that it could overtake
    connection.answers(INVALID + ENOUGH + INVALID)
    client.hears(b"$1\r\n1\r\n" + INVALID + OK + INVALID * 2)


def test_a_connection_may_be_made_to_listen_by_what_follows_a_batch(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    play.server("r:1").hears("HELLO", "3").answers(b"%0\r\n")
    client.says("WATCH", "k")
    heard(play, "WATCH k", own=True).answers(OK)
    client.pipelines("SET a 1", "CLIENT TRACKING ON")
    waited(play, "SET a 1", own=True).answers(OK + PONG + ENOUGH)
    connection = heard(play, "CLIENT TRACKING ON", own=True)
    connection.answers(OK + INVALID)
    client.hears(b"%0\r\n" + OK * 3 + INVALID)


def test_settings_are_restored_before_a_write_is_waited_for(play: Playbook) -> None:
    client = tracker(play)
    play.topology(2, replicas=["r:1"])
    client.output = b""
    client.says("SET", "j", "v")
    play.topology(3, master="r:1")
    connection = play.server("r:1").hears("CLIENT", "TRACKING", "ON", exclusive=True)
    assert not connection.commands
    connection.answers(OK)
    for command in ("SET j v", "PING", "WAIT 1 1000"):
        play.server("r:1").hears(*command.split(), exclusive=True)
    connection.answers(OK + PONG + ENOUGH)
    assert client.output.endswith(OK)


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
    connection = waited(play, "BLPOP l 0", own=True)
    play.wait(FATAL + 0.1)
    dies(play, connection)
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
