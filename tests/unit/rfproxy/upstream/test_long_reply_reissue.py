"""Reads behind a very long reply: who is asked again elsewhere, and what becomes of the first replies."""

from __future__ import annotations

import tracemalloc

import pytest

from rfproxy.upstream.long_reply_reissue import WORTH
from tests.support.playbook import FakeClient, FakeConnection, Playbook

HUGE = WORTH + (2 << 20)
HEADER = b"$%d\r\n" % HUGE
PART = b"x" * (1 << 20)
REST = b"x" * (HUGE - len(PART)) + b"\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def asked(play: Playbook, *clients: FakeClient) -> FakeConnection:
    """The connection on which a huge value was asked for, and then each client's name."""
    play.client().says("GET", "huge")
    for number, client in enumerate(clients):
        client.says("GET", str(number))
    lane = play.server("r:1").hears("GET", "huge")
    for number in range(len(clients)):
        assert play.server("r:1").hears("GET", str(number)) is lane
    return lane


def test_a_read_behind_it_is_answered_on_another_connection_and_once(play: Playbook) -> None:
    client = play.client()
    lane = asked(play, client)
    lane.answers(HEADER + PART)
    other = play.server("r:1").hears("GET", "0")
    assert other is not lane
    other.answers(b"$3\r\nnew\r\n")
    client.hears(b"$3\r\nnew\r\n")
    lane.answers(REST + b"$3\r\nold\r\n")
    client.hears_nothing()
    client.says("GET", "next")
    play.server("r:1").hears("GET", "next").answers(b"$1\r\n1\r\n")
    client.hears(b"$1\r\n1\r\n")


def test_who_asked_for_it_gets_it_whole_and_what_it_asked_behind_it_afterwards(play: Playbook) -> None:
    client, other = play.client(), play.client()
    client.pipelines("GET huge", "GET after")
    other.says("GET", "k")
    for words in ("GET huge", "GET after", "GET k"):
        lane = play.server("r:1").hears(*words.split())
    lane.answers(HEADER + PART)
    play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    other.hears(b"$-1\r\n")
    lane.answers(REST + b"$1\r\n2\r\n" + b"$-1\r\n")
    client.hears(HEADER + PART + REST + b"$1\r\n2\r\n")
    other.hears_nothing()


def test_a_pipeline_of_reads_goes_as_a_whole_and_in_order(play: Playbook) -> None:
    client = play.client()
    play.client().says("GET", "huge")
    client.pipelines("GET a", "GET b")
    client.says("GET", "c")
    for words in ("GET huge", "GET a", "GET b", "GET c"):
        lane = play.server("r:1").hears(*words.split())
    lane.answers(HEADER + PART)
    for words in ("GET a", "GET b", "GET c"):
        other = play.server("r:1").hears(*words.split())
        assert other is not lane
    other.answers(b":1\r\n:2\r\n:3\r\n")
    client.hears(b":1\r\n:2\r\n:3\r\n")


def test_a_reply_that_will_soon_be_over_is_waited_for(play: Playbook) -> None:
    client = play.client()
    lane = asked(play, client)
    lane.answers(b"$%d\r\n" % WORTH + PART)
    play.server("r:1").hears_nothing()


def test_writes_are_never_asked_for_twice(play: Playbook) -> None:
    reader, writer = play.client().says("INCR", "huge"), play.client().says("SET", "k", "v")
    lane = play.server("m:1").hears("INCR", "huge")
    play.server("m:1").hears("SET", "k", "v")
    lane.answers(HEADER + PART)
    play.server("m:1").hears_nothing()
    lane.answers(REST + b"+OK\r\n")
    writer.hears(b"+OK\r\n")
    assert reader.output


def test_nobody_is_asked_for_more_than_twice(play: Playbook) -> None:
    second, third = play.client(), play.client()
    lane = asked(play, second, third)
    lane.answers(HEADER + PART)
    other = play.server("r:1").hears("GET", "0")
    assert play.server("r:1").hears("GET", "1") is other
    other.answers(HEADER + PART)
    play.server("r:1").hears_nothing()
    other.answers(REST + b":1\r\n")
    second.hears(HEADER + PART + REST)
    third.hears(b":1\r\n")


def test_a_huge_reply_that_nobody_waits_for_any_more_is_dropped_as_it_comes(play: Playbook) -> None:
    second = play.client()
    lane = asked(play, second)
    lane.answers(HEADER + PART)
    play.server("r:1").hears("GET", "0").answers(b":1\r\n")
    lane.answers(REST + HEADER)
    tracemalloc.start()
    try:
        for _ in range(8):
            lane.answers(bytes(len(PART)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * len(PART)
    second.hears(b":1\r\n")


def test_a_server_that_is_lost_then_is_asked_for_nothing_twice(play: Playbook) -> None:
    client = play.client()
    lane = asked(play, client)
    lane.answers(HEADER + PART)
    play.server("r:1").hears("GET", "0")
    play.server("r:1").dies()
    play.server("m:1").hears("GET", "0", exclusive=True).answers(b":1\r\n")
    play.server("m:1").hears("GET", "huge", exclusive=True)
    play.server("m:1").hears_nothing()
    client.hears(b":1\r\n")


def test_who_has_left_meanwhile_asks_for_nothing(play: Playbook) -> None:
    client = play.client()
    lane = asked(play, client)
    client.leaves()
    lane.answers(HEADER + PART)
    play.server("r:1").hears_nothing()
    lane.answers(REST + b":1\r\n")
    play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_a_read_behind_an_own_write_stays_on_its_server(play: Playbook) -> None:
    client, other = play.client(), play.client()
    client.says("SET", "k", "v")
    other.says("GETSET", "huge", "x")
    client.says("GET", "k")
    for words in ("SET k v", "GETSET huge x", "GET k"):
        lane = play.server("m:1").hears(*words.split())
    lane.answers(b"+OK\r\n" + HEADER + PART)
    client.hears(b"+OK\r\n")
    play.server("r:1").hears_nothing()
    assert play.server("m:1").hears("GET", "k") is not lane


def test_nothing_is_asked_for_before_there_is_another_connection(play: Playbook) -> None:
    client = play.client()
    lane = asked(play, client)
    play.server("r:1").refuses = True
    lane.answers(HEADER + PART)
    play.server("r:1").hears_nothing()
    lane.answers(REST + b":1\r\n")
    client.hears(b":1\r\n")


def test_a_planned_change_does_not_wait_for_replies_that_nobody_waits_for() -> None:
    play = Playbook()
    play.topology(1, master="m:1")
    client, other = play.client(), play.client()
    other.says("GET", "huge")
    client.says("GET", "k")
    lane = play.server("m:1").hears("GET", "huge")
    play.server("m:1").hears("GET", "k")
    lane.answers(HEADER + PART)
    play.server("m:1").hears("GET", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")
    lane.answers(REST)
    play.topology(2, draining=("m:1", "n:1"))
    assert play.acknowledged[-1] == 2
    assert lane.closed


def test_a_connection_that_is_drained_is_not_overtaken() -> None:
    play = Playbook()
    play.topology(1, master="m:1")
    other, client = play.client(), play.client()
    other.pipelines("MULTI", "GET a", "GET b", "EXEC")
    client.says("GET", "k")
    for words in ("MULTI", "GET a", "GET b", "EXEC", "GET k"):
        lane = play.server("m:1").hears(*words.split())
    first = b"y" * (2 << 20)
    lane.answers(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$%d\r\n" % len(first) + first[: 3 << 19])
    play.topology(2, draining=("m:1", "n:1"))
    lane.answers(first[3 << 19 :] + b"\r\n" + HEADER + PART)
    lane.answers(REST + b":1\r\n")
    client.hears(b":1\r\n")
