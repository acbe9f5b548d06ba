"""The connection on which a client is told what others track."""

from __future__ import annotations

from dataclasses import replace

from rfproxy.pinned import redirect_connection
from rfproxy.semantics.tracking import NOBODY
from tests.support.playbook import Playbook


def test_reach__client_without_connection__is_given_one_and_keeps_it() -> None:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    client, caller = play.client(), play.client()
    redirect_connection.ties_of(client.session).callers[caller.session] = None
    assert redirect_connection.reach(client.session, play.time) is None
    play.settle()
    (connection,) = play.server("m:1").live
    assert redirect_connection.reach(client.session, play.time) == b"%d" % connection.client_id
    client.says("GET", "k")
    play.server("m:1").hears("GET", "k", exclusive=True)


def test_place__user_that_may_not_know_its_id__is_nobody() -> None:
    play = Playbook()
    play.topology(1, master="m:1")
    client = play.client().says("BLPOP", "q", "0")
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    lane = client.session.own
    assert lane is not None
    assert lane.welcome is not None
    lane.welcome = replace(lane.welcome, client_id=0)
    assert redirect_connection.place(client.session) == NOBODY
    assert redirect_connection.place(play.client().session) is None


def test_forget_all__form__is_that_of_the_tracker_for_the_listener() -> None:
    play = Playbook()
    client = play.client()
    redirect_connection.forget_all(client.session, 2)
    client.hears_nothing()
    client.session.become(replace(client.session.identity, protocol=3))
    redirect_connection.forget_all(client.session, 2)
    client.hears(b">2\r\n$10\r\ninvalidate\r\n$-1\r\n")
