"""Long replies go to the client as they come, and go on from another server when the first one is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfprotocol.resp.reply_scanner import LONG
from rfproxy.core.policy import Policy, Reads
from tests.support.playbook import FakeClient, FakeConnection, Playbook

VALUE = bytes(range(256)) * (LONG // 128)
REPLY = b"$%d\r\n%b\r\n" % (len(VALUE), VALUE)
CUT = LONG + 1000


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "s:1"])
    return play


def half_way(play: Playbook, *command: str) -> tuple[FakeClient, FakeConnection]:
    """A client that has the beginning of a reply."""
    client = play.client().says(*command)
    connection = play.server("r:1").hears(*command).answers(REPLY[:CUT])
    client.hears(REPLY[:CUT])
    return client, connection


def test_a_long_reply_is_passed_on_as_it_comes(play: Playbook) -> None:
    client, connection = half_way(play, "GET", "big")
    connection.answers(REPLY[CUT:-5])
    client.hears(REPLY[CUT:-5])
    connection.answers(REPLY[-5:])
    client.hears(REPLY[-5:])


def test_replies_behind_it_go_where_they_belong(play: Playbook) -> None:
    client, other = play.client().says("GET", "big"), play.client().says("GET", "small")
    play.server("r:1").hears("GET", "big")
    connection = play.server("r:1").hears("GET", "small").answers(REPLY[:CUT])
    client.hears(REPLY[:CUT])
    connection.answers(REPLY[CUT:] + b"$1\r\nx\r\n")
    client.hears(REPLY[CUT:])
    other.hears(b"$1\r\nx\r\n")


def test_the_rest_comes_from_another_server_when_the_first_one_is_lost(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    play.server("r:1").dies()
    other = play.server("s:1").hears("GET", "big", exclusive=True)
    other.answers(REPLY[:10]).answers(REPLY[10:LONG]).answers(REPLY[LONG : CUT + 7])
    client.hears(REPLY[CUT : CUT + 7])
    other.answers(REPLY[CUT + 7 :])
    client.hears(REPLY[CUT + 7 :])
    client.says("GET", "next")
    play.server("s:1").hears("GET", "next").answers(b"$1\r\nx\r\n")
    client.hears(b"$1\r\nx\r\n")


def test_reply__lost_after_a_long_time__goes_on_from_another_server(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    play.wait(40)  # the client reads slowly
    play.server("r:1").dies()
    play.server("s:1").hears("GET", "big", exclusive=True).answers(REPLY)
    client.hears(REPLY[CUT:])


def test_reply__nobody_goes_on_for_too_long__ends_the_connection(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    play.server("r:1").hangs_up()
    connection = play.server("s:1").hears("GET", "big", exclusive=True)
    play.wait(40)
    connection.lane.abandon(play.time)
    client.hears_nothing()
    assert client.closed


def test_reply__second_server_ends_before_it_begins__ends_the_connection(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    play.server("r:1").hangs_up()
    play.server("s:1").hears("GET", "big", exclusive=True)
    play.server("s:1").hangs_up()
    client.hears_nothing()
    assert client.closed


def test_the_second_loss_ends_the_connection_of_its_client(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    play.server("r:1").dies()
    play.server("s:1").hears("GET", "big", exclusive=True).answers(REPLY[: CUT + 9])
    client.hears(REPLY[CUT : CUT + 9])
    play.server("s:1").dies()
    assert client.closed
    play.server("m:1").hears_nothing()


OTHER_VALUES = [REPLY.replace(b"\x01", b"\x00", 1), b"$1\r\nx\r\n", b"-WRONGTYPE\r\n", b"$-1\r\n"]


@pytest.mark.parametrize("reply", OTHER_VALUES, ids=range(4))
def test_a_client_is_hung_up_on_when_the_value_has_changed(play: Playbook, reply: bytes) -> None:
    client, _ = half_way(play, "GET", "big")
    play.server("r:1").dies()
    play.server("s:1").hears("GET", "big", exclusive=True).answers(reply)
    assert client.closed
    client.hears(b"")
    other = play.client().says("GET", "k")
    play.server("s:1").hears("GET", "k").answers(b"$1\r\nx\r\n")
    other.hears(b"$1\r\nx\r\n")


def test_a_server_that_cannot_say_at_present_is_not_taken_for_another_value(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    play.server("r:1").dies()
    server = play.server("s:1").hears("GET", "big", exclusive=True)
    server.answers(b"-LOADING Redis is loading the dataset in memory\r\n")
    play.server("m:1").hears("GET", "big", exclusive=True).answers(REPLY)
    client.hears(REPLY[CUT:])


def test_a_write_that_was_answered_half_way_cannot_be_asked_again(play: Playbook) -> None:
    client = play.client().says("GETDEL", "big")
    play.server("m:1").hears("GETDEL", "big").answers(REPLY[:CUT])
    client.hears(REPLY[:CUT])
    play.server("m:1").dies()
    assert client.closed


def test_who_waits_too_long_for_the_rest_is_hung_up_on() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says("GET", "big")
    play.server("m:1").hears("GET", "big").answers(REPLY[:CUT])
    client.hears(REPLY[:CUT])
    play.server("m:1").dies()
    play.topology(2)
    play.wait(31)
    assert client.closed
    client.hears(b"")


def test_commands_behind_it_wait_for_its_rest(play: Playbook) -> None:
    client = play.client().pipelines("GET big", "GET small")
    play.server("r:1").hears("GET", "big").answers(REPLY[:CUT])
    client.hears(REPLY[:CUT])
    play.server("r:1").dies()
    play.server("s:1").hears("GET", "big", exclusive=True).answers(REPLY)
    play.server("s:1").hears("GET", "small", exclusive=True).answers(b"$1\r\nx\r\n")
    client.hears(REPLY[CUT:] + b"$1\r\nx\r\n")


def test_a_client_is_hung_up_on_when_no_other_server_lets_it_in(play: Playbook) -> None:
    client, _ = half_way(play, "GET", "big")
    for server in ("s:1", "m:1"):
        play.server(server).denies[b"ROLE"] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        play.server(server).denies[b"SELECT"] = play.server(server).denies[b"ROLE"]
    client.session.identity = replace(client.session.identity, db=1)
    play.server("r:1").dies()
    assert client.closed
    client.hears(b"")
