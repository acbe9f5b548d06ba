"""Who waits behind a long reply, and who does not."""

from __future__ import annotations

import pytest

from rfprotocol.resp import resp
from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy, Reads
from rfproxy.routing.router import IDLE
from rfproxy.upstream.connection import LaneState
from rfproxy.upstream.long_reply_isolation import PARKED
from tests.support.playbook import FakeConnection, Playbook

BIG = b"$%d\r\n" % (3 << 20)
PART = b"x" * (1 << 20)


def bulk(text: str) -> bytes:
    """A string of a reply."""
    return resp.bulk(text.encode())


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def test_nobody_waits_behind_a_long_reply_who_has_nothing_in_flight_there(play: Playbook) -> None:
    reader, behind, other = play.client(), play.client(), play.client()
    reader.says("INCR", "big")
    behind.says("INCR", "k")
    play.server("m:1").hears("INCR", "big")
    busy = play.server("m:1").hears("INCR", "k")
    busy.answers(BIG + PART)
    other.says("INCR", "k")
    quick = play.server("m:1").hears("INCR", "k")
    assert quick is not busy
    quick.answers(b":2\r\n")
    other.hears(b":2\r\n")
    behind.hears_nothing()
    behind.says("INCR", "next")
    busy.answers(PART * 2 + b"\r\n:1\r\n")
    reader.hears(BIG + PART * 3 + b"\r\n")
    behind.hears(b":1\r\n")
    assert play.server("m:1").hears("INCR", "next") is quick


def test_connections_that_had_long_replies_take_turns(play: Playbook) -> None:
    client = play.client()
    for _ in range(20):
        client.says("INCR", "big")
        play.server("m:1").hears("INCR", "big").answers(BIG + PART).answers(PART * 2 + b"\r\n")
        client.hears(BIG + PART * 3 + b"\r\n")
    assert len(play.server("m:1").live) == 1
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


def test_as_many_connections_serve_long_replies_and_no_more(play: Playbook) -> None:
    answering = []
    for _ in range(10):
        play.client().says("INCR", "big")
        connection = play.server("m:1").hears("INCR", "big")
        if connection not in answering:
            answering.append(connection.answers(BIG + PART))
    assert play.server("m:1").live == answering
    assert len(answering) == PARKED + 1


def test_a_spare_connection_is_closed_when_nobody_needs_it(play: Playbook) -> None:
    reader, other = play.client().says("INCR", "big"), play.client()
    busy = play.server("m:1").hears("INCR", "big").answers(BIG + PART)
    other.says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    busy.answers(PART * 2 + b"\r\n")
    reader.hears(BIG + PART * 3 + b"\r\n")
    assert not busy.closed
    play.wait(IDLE + 1)
    play.router.reap(play.time)
    assert busy.closed


@pytest.mark.parametrize("long", [False, True])
def test_a_server_that_takes_no_more_connections_serves_on(play: Playbook, long: bool) -> None:
    reader = play.client().says("INCR", "big")
    busy = play.server("m:1").hears("INCR", "big")
    play.server("m:1").refuses = True
    if long:
        busy.answers(BIG + PART)
    waiting = play.client().says("INCR", "k")
    play.wait(0.2)
    busy.answers(PART * 2 + b"\r\n" if long else b":1\r\n")
    assert reader.output
    assert play.server("m:1").hears("INCR", "k") is busy
    busy.answers(b":1\r\n")
    waiting.hears(b":1\r\n")


@pytest.mark.parametrize("long", [False, True])
def test_a_script_can_be_killed_also_behind_a_long_reply(play: Playbook, long: bool) -> None:
    play.client().says("INCR", "big")
    busy = play.server("m:1").hears("INCR", "big")
    if long:
        busy.answers(BIG + PART)
    play.server("m:1").denies = {b"ROLE": b"-BUSY Redis is busy running a script.\r\n"}
    play.client().says("SCRIPT", "KILL")
    assert play.server("m:1").hears("SCRIPT", "KILL") is busy


def test_a_lane_for_writes_that_is_lost_is_not_replaced_by_one_for_reads() -> None:
    play = Playbook(Policy(durable=Durability(1, 1.0), reads=Reads.MASTER))
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("GET", "big")
    play.server("m:1").hears("GET", "big").answers(BIG + PART)
    play.client().says("GET", "k")
    reads = play.server("m:1").hears("GET", "k")
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").lane.lose(play.time)
    play.topology(2, replicas=["r:1"])
    assert reads.closed
    assert play.server("m:1").live == []
    assert play.acknowledged[-1] == 2


def test_a_long_reply_of_a_replica_does_not_delay_an_acknowledgement(play: Playbook) -> None:
    client = play.client().says("GET", "big")
    busy = play.server("r:1").hears("GET", "big")
    busy.answers(BIG + PART)
    play.topology(2, replicas=["r:1", "r:2"])
    assert play.acknowledged[-1] == 2
    busy.answers(PART * 2 + b"\r\n")
    client.hears(BIG + PART * 3 + b"\r\n")


def test_a_long_reply_of_the_master_is_waited_for_in_a_planned_change(play: Playbook) -> None:
    client = play.client().says("INCR", "big")
    busy = play.server("m:1").hears("INCR", "big")
    busy.answers(BIG + PART)
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:1", "r:2"])
    assert play.acknowledged[-1] == 1
    busy.answers(PART * 2 + b"\r\n")
    client.hears(BIG + PART * 3 + b"\r\n")
    assert play.acknowledged[-1] == 2


def test_a_long_reply_of_a_master_that_failed_ends_at_once(play: Playbook) -> None:
    client = play.client().says("INCR", "big")
    busy = play.server("m:1").hears("INCR", "big")
    busy.answers(BIG + PART)
    play.topology(2, replicas=["r:1", "r:2"])
    assert busy.closed
    assert play.acknowledged[-1] == 2
    assert client.closed  # it has the beginning of the reply


def test_a_parked_lane_that_is_drained_does_not_serve_again(play: Playbook) -> None:
    play.client().says("INCR", "big")
    behind = play.client().says("INCR", "behind")
    busy = play.server("m:1").hears("INCR", "big")
    assert play.server("m:1").hears("INCR", "behind") is busy
    busy.answers(BIG + PART)  # parked
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:1", "r:2"])
    busy.answers(PART * 2 + b"\r\n")
    assert busy.lane.state is LaneState.RETIRED
    play.topology(3, master="m:1", replicas=["r:1", "r:2"])  # the change was given up
    writer = play.client().says("INCR", "k")
    busy.answers(b":1\r\n")
    behind.hears(b":1\r\n")
    play.wait(3600)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    writer.hears(b":1\r\n")
    assert play.acknowledged[-1] == 3


# --- clients that do not read

LARGE = b"$900000\r\n" + b"x" * 900_000 + b"\r\n"
"""Not long by itself."""


def test_parking__a_client_does_not_read__others_go_elsewhere(play: Playbook) -> None:
    lazy, other = play.client(), play.client()
    lazy.pipelines(*["GET k"] * 10)
    stalled = play.server("r:1").hears("GET", "k")
    lazy.session.choke(play.time, full=True)
    stalled.answers(LARGE)
    assert not stalled.read, "the rest is left in the server"
    other.says("GET", "j")
    quick = play.server("r:1").hears("GET", "j")
    assert quick is not stalled
    quick.answers(bulk("j"))
    other.hears(bulk("j"))
    lazy.session.choke(play.time, full=False)
    assert stalled.read
    stalled.answers(LARGE * 9)
    lazy.hears(LARGE * 10)


def test_parking__reads_behind_unread_replies__are_asked_elsewhere(play: Playbook) -> None:
    lazy, behind = play.client(), play.client()
    lazy.pipelines(*["GET k"] * 10)
    behind.says("GET", "j")
    stalled = play.server("r:1").hears("GET", "k")
    lazy.session.choke(play.time, full=True)
    stalled.answers(LARGE)
    quick = play.server("r:1").hears("GET", "j", exclusive=False)
    if quick is stalled:
        quick = play.server("r:1").hears("GET", "j")
    quick.answers(bulk("j"))
    behind.hears(bulk("j"))
    stalled.answers(LARGE)
    assert not stalled.read
    lazy.session.choke(play.time, full=False)
    stalled.answers(LARGE * 8 + bulk("j"))
    lazy.hears(LARGE * 10)
    behind.hears_nothing()


def test_parking__a_write_behind_unread_replies__is_answered(play: Playbook) -> None:
    lazy, behind = play.client(), play.client()
    lazy.pipelines("INCR k", "GET k", "GET k")
    behind.says("INCR", "j")
    shared = play.server("m:1").hears("INCR", "k")
    lazy.session.choke(play.time, full=True)
    shared.answers(b":1\r\n" + LARGE)
    assert shared.read, "somebody waits"
    shared.answers(LARGE + b":1\r\n")
    behind.hears(b":1\r\n")


def test_parking__who_does_not_read_leaves__the_rest_is_dropped(play: Playbook) -> None:
    lazy = play.client().pipelines(*["GET k"] * 3)
    stalled = play.server("r:1").hears("GET", "k")
    lazy.session.choke(play.time, full=True)
    stalled.answers(LARGE)
    lazy.leaves()
    assert stalled.read
    stalled.answers(LARGE * 2)
    assert stalled.lane.idle


def stalled_and_ended() -> tuple[Playbook, FakeConnection]:
    """The connection of a client that does not read, after the master has ended the one that all others had."""
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1", replicas=["r:1"])
    lazy, other = play.client(), play.client()
    lazy.pipelines(*["GET k"] * 3)
    stalled = play.server("m:1").hears("GET", "k")
    lazy.session.choke(play.time, full=True)
    stalled.answers(LARGE)
    stalled.commands.clear()
    other.says("SET", "j", "v")
    quick = play.server("m:1").hears("SET", "j", "v").answers(b"+OK\r\n")
    assert not stalled.read
    play.server("m:1").silent = True
    quick.closed = True
    quick.lane.lose(play.time)
    return play, stalled


def test_stand_in__was_not_read_from__is() -> None:
    """Else all others waited for the client that does not read."""
    play, stalled = stalled_and_ended()
    play.client().says("SET", "j", "w")
    assert stalled.read


def test_stand_in__script_kill__goes_at_once() -> None:
    play, stalled = stalled_and_ended()
    play.client().says("SCRIPT", "KILL")
    play.wait(0.1)
    assert stalled.commands == [[b"SCRIPT", b"KILL"]]
