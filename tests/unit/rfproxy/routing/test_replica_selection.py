"""Which replica a session reads from while one of them fails, or is slow."""

from __future__ import annotations

import pytest

from rfprotocol.backoff import JITTER
from rfprotocol.topology.topology import Node
from rfproxy.core.work_items import Need
from rfproxy.routing.replica_selection import (
    FIRST_TRIAL,
    LONGEST_BETWEEN_TRIALS,
    LONGEST_REST,
    LONGEST_SHED,
    SHED,
    SLOW_REST,
    Replicas,
)
from rfproxy.upstream.latency import SLOW, SLOW_FOR
from tests.support.playbook import FakeClient, Playbook

ONE, TWO = Node("r", 1), Node("r", 2)
NIL = b"$-1\r\n"


def test_sessions_are_spread_and_each_has_always_the_same_one() -> None:
    replicas = Replicas()
    assert [replicas.choose([ONE, TWO], number, 0.0) for number in (0, 1, 2, 0)] == [ONE, TWO, ONE, ONE]


def test_one_that_is_passed_over_is_stood_in_for_until_its_time_is_over_or_it_serves() -> None:
    replicas = Replicas()
    until = replicas.pass_over(ONE, 5.0)
    assert 5.0 < until <= 5.0 + SHED
    assert replicas.choose([ONE, TWO], 0, 5.0) == TWO
    assert replicas.choose([ONE], 0, 5.0) is None
    assert replicas.choose([ONE, TWO], 0, until) == ONE
    assert replicas.serves(ONE)
    assert not replicas.serves(ONE)
    assert replicas.choose([ONE, TWO], 0, 5.0) == ONE


def test_replica__fails_whenever_it_is_tried__is_tried_less_and_less() -> None:
    replicas, now, waits = Replicas(), 0.0, []
    for _ in range(8):
        until = replicas.pass_over(ONE, now)
        waits.append(until - now)
        now = until
    assert waits[0] <= SHED
    assert LONGEST_SHED / 2 < waits[-1] <= LONGEST_SHED


def test_a_slow_one_is_stood_in_for_until_its_rest_is_over_and_still_serves_when_the_other_one_fails() -> None:
    replicas = Replicas()
    assert 100.0 < replicas.rest(ONE, 100.0) <= 100.0 + SLOW_REST
    assert replicas.choose([ONE, TWO], 0, 100.0) == TWO
    assert not replicas.serves(ONE)
    assert replicas.choose([ONE, TWO], 0, 100.0) == TWO
    replicas.pass_over(TWO, 100.0)
    assert replicas.choose([ONE, TWO], 0, 100.0) == ONE
    assert replicas.choose([ONE, TWO], 0, 100.0 + SLOW_REST) == ONE


def test_one_that_is_slow_whenever_it_is_tried_is_tried_less_and_less() -> None:
    replicas = Replicas()
    now = 0.0
    rests = []
    for _ in range(7):
        until = replicas.rest(ONE, now)
        rests.append((until - now) / SLOW_REST)
        now = until + SLOW_FOR
    for rest, longest in zip(rests, [1, 2, 4, 8, 16, 16, 16], strict=True):
        assert longest * (1 - JITTER) <= rest <= longest
    assert replicas.rest(ONE, now + 3 * LONGEST_REST) <= now + 3 * LONGEST_REST + SLOW_REST


def test_replicas__silent__passed_over_until_it_serves() -> None:
    replicas = Replicas()
    assert replicas.is_silent(ONE, 0.0)
    assert not replicas.is_silent(ONE, 1.0)
    assert replicas.choose([ONE, TWO], 0, 1000.0) == TWO
    replicas.forget([ONE, TWO])
    assert replicas.choose([ONE, TWO], 0, 1000.0) == TWO
    assert replicas.serves(ONE)
    assert replicas.choose([ONE, TWO], 0, 1000.0) == ONE


def test_replicas__silent_one_leaves_the_group__forgotten() -> None:
    replicas = Replicas()
    replicas.is_silent(ONE, 0.0)
    replicas.forget([TWO])
    assert not replicas.failed(ONE, 0.0)


def test_replicas__trials_of_a_silent_one__further_and_further_apart() -> None:
    replicas = Replicas()
    replicas.is_silent(ONE, 0.0)
    trials, now, waits = replicas.silent[ONE].trials, 0.0, []
    for _ in range(6):
        waits.append(trials.due - now)
        now = trials.due
        trials.failed(now)
    assert waits[0] <= FIRST_TRIAL
    assert waits[0] < waits[1] < waits[2] <= max(waits) <= LONGEST_BETWEEN_TRIALS


# --- in the proxy


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def read(play: Playbook, client: FakeClient, server: str, takes: float) -> None:
    client.says("GET", "k")
    connection = play.server(server).hears("GET", "k")
    play.wait(takes)
    connection.answers(NIL)
    client.hears(NIL)


def test_who_reads_from_a_slow_replica_moves_to_another_one_and_comes_back(play: Playbook) -> None:
    client = play.client()
    for _ in range(4):
        read(play, client, "r:1", takes=0.1)
    assert play.log.events("replica_slow")
    read(play, client, "r:2", takes=0.001)
    play.wait(SLOW_REST)
    read(play, client, "r:1", takes=0.001)


def test_one_slow_reply_among_others_moves_nobody(play: Playbook) -> None:
    client = play.client()
    for _ in range(4):
        read(play, client, "r:1", takes=0.3)
        read(play, client, "r:1", takes=0.001)


def test_nobody_moves_when_all_are_slow(play: Playbook) -> None:
    client = play.client()
    for _ in range(4):
        read(play, client, "r:1", takes=0.1)
    for _ in range(6):
        read(play, client, "r:2", takes=0.1)
    assert len(play.log.events("replica_slow")) == 1


def test_a_command_behind_a_quick_one_is_timed_itself(play: Playbook) -> None:
    client = play.client()
    for _ in range(8):
        client.pipelines("GET a", "GET b")
        connection = play.server("r:1").hears("GET", "a")
        play.server("r:1").hears("GET", "b")
        connection.answers(NIL)
        play.wait(SLOW / 2)
        connection.answers(NIL)
        client.hears(NIL + NIL)
    assert not play.log.events("replica_slow")


def test_what_takes_long_on_a_connection_of_its_own_moves_nobody(play: Playbook) -> None:
    client = play.client()
    own = play.router.exclusive(client.session, play.time, Need.ANY_OWN)
    assert own is not None
    assert str(own.key.node) == "r:1"
    play.router.lane_slow(own, play.time)
    assert not play.log.events("replica_slow")
    read(play, client, "r:1", takes=0.001)


def test_it_is_said_once_that_a_replica_is_slow(play: Playbook) -> None:
    client, late = play.client(), play.client().says("GET", "late")
    for _ in range(4):
        client.says("GET", "k")
        play.wait(0.1)
    connection = play.server("r:1").hears("GET", "late")
    for _ in range(2):
        play.wait(0.3)
        connection.answers(NIL)
    play.wait(0.3)
    connection.answers(NIL)
    assert late.output
    assert len(play.log.events("replica_slow")) == 1


def test_a_single_replica_is_read_from_however_slow_it_is(play: Playbook) -> None:
    play.topology(1, master="m:1", replicas=["r:1"])
    client = play.client()
    for _ in range(6):
        read(play, client, "r:1", takes=0.1)
