"""A lane: one write per turn of the loop, replies in order, nothing lost when it closes."""

from __future__ import annotations

import pytest

from rfproxy.lane import LaneState
from tests.support.playbook import Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1")
    return play


def test_what_several_clients_say_in_one_turn_is_sent_in_one_write(play: Playbook) -> None:
    warm = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    warm.hears(b":1\r\n")
    connection.writes.clear()
    for session in (play.client().session, play.client().session):
        session.feed(b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n", play.time)
    play.settle()
    assert connection.writes == [b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n" * 2]


def test_what_is_said_before_the_server_is_greeted_is_sent_after_that(play: Playbook) -> None:
    session = play.client().session
    session.feed(b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n", play.time)
    connection = play.server("m:1").hears("INCR", "a")
    assert connection.greeted[-1] == [b"INFO", b"server"]


def test_a_reply_in_pieces_is_relayed_when_it_is_whole(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a").answers(b":12")
    client.hears_nothing()
    connection.answers(b"34\r\n")
    client.hears(b":1234\r\n")


def test_nonsense_from_a_server_costs_the_connection_and_nothing_else(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    connection = play.server("m:1").hears("SET", "k", "v").answers(b"nonsense\r\n")
    assert connection.closed
    play.wait(0.05)
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)


def test_a_retired_lane_answers_what_is_in_flight_and_closes(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a")
    connection.lane.retire(play.time)
    assert connection.lane.state is LaneState.RETIRED
    connection.answers(b":1\r\n")
    client.hears(b":1\r\n")
    assert connection.closed


def test_a_connection_that_stands_too_late_is_dropped(play: Playbook) -> None:
    play.server("m:1").refuses = True
    client = play.client().says("INCR", "a")
    client.hears_nothing()
    assert play.server("m:1").live == []
    play.server("m:1").refuses = False
    play.wait(1.0)
    play.server("m:1").hears("INCR", "a")


def test_what_the_server_says_unasked_on_a_shared_lane_reaches_nobody(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    play.server("m:1").hears("INCR", "a").answers(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:1\r\n")
    client.hears(b":1\r\n")
