"""Connections are opened a bounded number at a time; lanes that nobody needs any more are left out."""

from __future__ import annotations

import pytest

from rfprotocol.topology.topology import Node
from rfproxy.core.identity import MASTER, LaneKey
from rfproxy.health.connect_queue import AT_ONCE, ERRANDS_AT_ONCE, Opening
from rfproxy.maintenance.service_connection import Messenger
from rfproxy.upstream.connection import Lane
from tests.support.playbook import Playbook

MASTER_KEY = LaneKey(Node("m", 1), MASTER)


class World:
    """A server, and the lanes that are to lead to it."""

    def __init__(self) -> None:
        self.play = Playbook()
        self.play.topology(1, master="m:1")
        self.begun: list[Lane] = []
        self.opening = Opening(self.begun.append, at_once=2)

    def ask(self, lanes: int, *, dedicated: bool = True) -> list[Lane]:
        """Ask for the connections of so many new lanes."""
        guest = self.play.client().session if dedicated else None
        asked = [Lane(MASTER_KEY, self.play.router, guest=guest) for _ in range(lanes)]
        for lane in asked:
            self.opening.ask(lane)
        self.opening.go_on(0.0)
        return asked


@pytest.fixture
def world() -> World:
    return World()


def test_opening__thousands_asked__few_under_way(world: World) -> None:
    lanes = world.ask(5_000)
    assert world.begun == lanes[:2]
    world.opening.answered(0.0)
    assert world.begun == lanes[:3]
    for _ in range(5_000 - 1):
        world.opening.answered(0.0)
    assert world.begun == lanes
    assert world.opening.idle
    assert AT_ONCE < 511


def test_opening__shared_lane__goes_first(world: World) -> None:
    world.ask(10)
    (shared,) = world.ask(1, dedicated=False)
    world.opening.answered(0.0)
    assert world.begun[-1] is shared


def test_opening__lane_lost_meanwhile__left_out(world: World) -> None:
    lanes = world.ask(4)
    lanes[2].lose(0.0)
    world.opening.answered(0.0)
    assert world.begun == [*lanes[:2], lanes[3]]


def test_opening__one_fails__those_that_wait_fail_with_its_reason(world: World) -> None:
    lanes = world.ask(10)
    world.opening.failed("Connection refused", 0.0)
    assert {lane.lost_because for lane in lanes[2:]} == {"Connection refused"}
    assert len(world.begun) == 2


def test_opening__server_failed__one_at_a_time_until_it_answers(world: World) -> None:
    world.ask(2)
    world.opening.failed("Connection refused", 0.0)
    world.opening.failed("Connection refused", 0.0)
    lanes = world.ask(10)
    assert world.begun[2:] == lanes[:1]
    world.opening.answered(1.0)
    assert world.begun[2:] == lanes[:3]


def test_opening__given_up__the_next_one_begins(world: World) -> None:
    lanes = world.ask(3)
    world.opening.given_up(0.0)
    assert world.begun == lanes


def errand(world: World, lanes: int = 1) -> list[Lane]:
    """Ask for connections that no client needs."""

    def nothing(_: object) -> None:
        pass

    asked = [
        Messenger(MASTER_KEY, world.play.router, ready=nothing, over=nothing, defect=nothing) for _ in range(lanes)
    ]
    for lane in asked:
        world.opening.ask(lane)
    world.opening.go_on(0.0)
    return list(asked)


def test_errand__clients_wait__goes_last(world: World) -> None:
    lanes = world.ask(4)
    (lane,) = errand(world)
    assert world.begun == lanes[:2]
    world.opening.answered(0.0)
    world.opening.answered(0.0)
    assert world.begun == [*lanes, lane]
    assert not world.opening.idle
    world.opening.line(lane).answered(0.0)


def test_errand__fails__no_client_is_told(world: World) -> None:
    first, second, *more = errand(world, ERRANDS_AT_ONCE + 1)
    lanes = world.ask(3)
    world.opening.line(first).failed("max number of clients reached", 0.0)
    assert [lane.lost_because for lane in more if lane not in world.begun] == ["max number of clients reached"]
    assert not any(lane.lost_because for lane in lanes)
    assert [lane for lane in world.begun if lane in lanes] == lanes[:2], "as many at a time as before"
    world.opening.line(second).given_up(0.0)
    world.opening.answered(0.0)
    assert [lane for lane in world.begun if lane in lanes] == lanes


def test_errands__under_way__bounded_and_no_client_waits_for_them(world: World) -> None:
    errands = errand(world, 10)
    assert world.begun == errands[:ERRANDS_AT_ONCE]
    lanes = world.ask(2)
    assert world.begun[ERRANDS_AT_ONCE:] == lanes
