"""A connection of one account vouches for those of others, who may not ask themselves."""

from __future__ import annotations

import pytest

from rfproxy.guard import Guard
from rfproxy.lane import LaneState
from tests.proxy.test_reception import ADMIN, LIMITED, OK, group, login, restart
from tests.support.playbook import FakeConnection, Playbook, User


def guarded() -> Playbook:
    """The default user may not speak, `app` not ask; `admin` may, and was there first."""
    play = group(admin=ADMIN, app=LIMITED)
    login(play, "admin")
    login(play, "app")
    return play


def guard_of(play: Playbook) -> FakeConnection:
    """The connection that vouches."""
    (guard,) = [connection for connection in play.server("m:1").live if isinstance(connection.lane, Guard)]
    return guard


def test_guard__another_account_may_ask__leaves_no_trace() -> None:
    play = guarded()
    assert guard_of(play).user == "admin"
    assert play.server("m:1").acl_log == []
    assert play.log.events("cannot_check") == []


def test_guard__stands_already__is_asked_for_each_connection() -> None:
    play = guarded()
    guard = guard_of(play)
    guard.greeted.clear()
    login(play, "app").says("BLPOP", "q", "0")
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    assert guard.greeted == [[b"ROLE"]]
    assert guard_of(play) is guard


def test_guard__master_restarted__user_without_rights_hears_nothing() -> None:
    play = guarded()
    restart(play)
    client = play.client().says("AUTH", "app", "pw")
    play.server("m:1").hears_nothing()
    client.hears_nothing()
    assert play.log.events("lane_lost")[-1]["reason"] == "it was restarted"


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n"], ids=["lost", "nonsense"])
def test_guard__no_answer__the_lane_is_lost_with_it(answer: bytes) -> None:
    play = guarded()
    guard = guard_of(play)
    client = login(play, "app")
    client.session.feed(b"BLPOP q 0\r\n", play.time)
    (lane,) = [lane for lane in play.router.lanes if lane.state is LaneState.CONNECTING]
    lane.connected(connection := FakeConnection(play, play.server("m:1"), lane))
    assert guard.commands.pop() == [b"ROLE"]
    guard.lane.feed(answer, play.time)
    guard.lane.lose(play.time)
    assert guard.closed
    assert connection.closed


def test_guard__server_was_demoted__the_lane_is_unfit() -> None:
    play = guarded()
    play.server("m:1").role = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"
    login(play, "app").says("BLPOP", "q", "0")
    play.server("m:1").hears_nothing()
    assert play.log.events("lane_lost")[-1]["reason"] == "it is not a master"


def test_guard__its_password_is_changed__others_are_greeted_without_it() -> None:
    play = guarded()
    play.server("m:1").users["admin"] = User("new")
    play.server("m:1").hangs_up()
    play.wait(0.3)
    client = play.client().says("AUTH", "app", "pw")
    play.server("m:1").hears("AUTH", "app", "pw").answers(OK)
    client.hears(OK)
    assert len(play.log.events("cannot_check")) == 1


def test_guard__topology_moves_on__is_closed() -> None:
    play = guarded()
    guard = guard_of(play)
    play.topology(2, replicas=["m:1"])
    assert guard.closed
    assert play.router.acknowledged == 2
