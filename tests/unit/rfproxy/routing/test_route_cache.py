"""A session goes the way it went before, until something has changed that lanes are chosen by."""

from __future__ import annotations

import pytest

from rfproxy.core.work_items import Need
from rfproxy.routing.route_cache import Ways
from tests.support.playbook import Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def test_what_is_known_ends_with_the_turn(play: Playbook) -> None:
    session = play.client().says("SET", "k", "v").session
    lane = play.router.lane(session, Need.MASTER, play.time)
    assert lane is not None
    ways = Ways()
    assert ways.known(Need.MASTER, 1) is None
    ways.keep(Need.MASTER, 1, lane)
    assert ways.known(Need.MASTER, 1) is lane
    assert ways.known(Need.ANY, 1) is None
    assert ways.known(Need.MASTER, 2) is None
    ways.forget()
    assert ways.known(Need.MASTER, 1) is None


def test_a_way_of_its_own_is_not_kept(play: Playbook) -> None:
    session = play.client().says("SET", "k", "v").session
    lane = play.router.lane(session, Need.MASTER, play.time)
    assert lane is not None
    ways = Ways()
    ways.keep(Need.URGENT, 1, lane)
    assert ways.known(Need.URGENT, 1) is None


def test_after_a_change_of_master_writes_go_to_the_new_one(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    play.topology(2)
    play.topology(3, master="r:1", replicas=["r:2"])
    client.says("SET", "k", "w")
    play.server("r:1").hears("SET", "k", "w")


def test_without_a_lease_the_way_to_the_master_is_closed(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    play.lease.revoke()
    client.says("SET", "k", "w")
    play.server("m:1").hears_nothing()


def test_a_replica_that_was_passed_over_is_read_from_again(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    play.server("r:1").hangs_up()
    client.says("GET", "k")
    play.server("r:2").hears("GET", "k").answers(b"$-1\r\n")
    play.wait(0.2)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_who_becomes_somebody_else_goes_another_way(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    connection = play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    client.says("SELECT", "3")
    other = play.server("r:1").hears("SELECT", "3").answers(OK)
    assert other is not connection
    client.says("GET", "k")
    assert play.server("r:1").hears("GET", "k") is other
