"""A connection of the proxy's own: what it tells, and what it hears."""

from __future__ import annotations

from typing import Any

import pytest

from rfprotocol.topology.topology import Node
from rfproxy.core.identity import REPLICA, LaneKey
from rfproxy.maintenance.service_connection import Messenger, Refused, open_messenger
from tests.support.playbook import Playbook


class Bench:
    """A messenger to r:1, and all that it has reported."""

    def __init__(self) -> None:
        self.play = Playbook()
        self.play.topology(1, master="m:1", replicas=["r:1"])
        self.events: list[object] = []
        key = LaneKey(Node.parse("r:1"), REPLICA)
        self.lane: Messenger = open_messenger(
            self.play.router, key, ready=self._ready, over=self._over, defect=self.events.append
        )
        self.play.settle()

    def _ready(self, now: float) -> None:
        self.events.append("ready")

    def _over(self, now: float) -> None:
        self.events.append("over")

    def _heard(self, replies: list[Any], now: float) -> None:
        self.events.append(replies)

    def tell(self, *commands: str) -> None:
        self.lane.tell([command.encode().split() for command in commands], self._heard, self.play.time)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_packet__replies_in_pieces__heard_together(bench: Bench) -> None:
    bench.tell("A 1", "B 2")
    bench.play.server("r:1").hears("A", "1")
    connection = bench.play.server("r:1").hears("B", "2")
    assert not bench.lane.free
    connection.answers(b"*1\r\n:1\r").answers(b"\n-NOPERM no\r\n")
    assert bench.events == ["ready", [[1], Refused("NOPERM no")]]
    assert bench.lane.free


@pytest.mark.parametrize(
    ("text", "lasting"),
    [("NOPERM this user has no permissions", True), ("ERR unknown command 'SCRIPT'", True), ("BUSY a script", False)],
)
def test_refusal__lasting__or_not(text: str, lasting: bool) -> None:
    assert Refused(text).lasting is lasting


def test_connection__ends__over_and_nothing_is_heard(bench: Bench) -> None:
    bench.tell("A 1")
    bench.play.server("r:1").hangs_up()
    assert bench.events == ["ready", "over"]
    assert bench.lane not in bench.play.router.lanes


def test_connection__server_is_no_replica_any_more__closed(bench: Bench) -> None:
    bench.play.topology(2, master="r:1")
    assert bench.events == ["ready", "over"]


def test_connection__speaks_nonsense__closed(bench: Bench) -> None:
    bench.tell("A 1")
    bench.play.server("r:1").hears("A", "1").answers(b"nonsense\r\n")
    assert bench.events == ["ready", "over"]


def test_silence__on_it__is_not_held_against_the_server(bench: Bench) -> None:
    bench.tell("A 1")
    bench.play.listen(10.0)
    assert not bench.play.router.silent
    assert bench.play.alarm is None, "nobody is woken for it"


@pytest.mark.parametrize("what", ["ready", "over", "heard"])
def test_defect__of_whoever_uses_it__reported_and_the_server_serves_on(what: str) -> None:
    play, defects = Playbook(), list[Exception]()
    play.topology(1, master="m:1", replicas=["r:1"])
    problem = ValueError("a defect")

    def fail(now: float) -> None:
        raise problem

    def hear(replies: list[Any], now: float) -> None:
        raise problem

    def pass_over(now: float) -> None:
        pass

    lane = open_messenger(
        play.router,
        LaneKey(Node.parse("r:1"), REPLICA),
        ready=fail if what == "ready" else pass_over,
        over=fail if what == "over" else pass_over,
        defect=defects.append,
    )
    play.settle()
    lane.tell([[b"A"]], hear if what == "heard" else lambda replies, now: None, play.time)
    play.server("r:1").hears("A").answers(b":1\r\n")
    play.topology(2, master="r:1")
    assert defects == [problem]
