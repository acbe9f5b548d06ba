"""What all connections to one server show of it, and that it costs the same for any number of them."""

from __future__ import annotations

import pytest

from rfproxy.core.attempts import JUST_SENT
from rfproxy.core.server_contact import Contact
from rfproxy.routing.dedicated_pool import Dedicated
from rfproxy.routing.router import Router
from tests.support.playbook import Playbook


def test_answers__in_another_order__keep_the_latest() -> None:
    contact = Contact()
    contact.answers(2.0)
    contact.answers(1.0)
    assert contact.answered == 2.0


def test_ready__connections_come_and_go__are_counted() -> None:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    contact = play.router.contact(play.server("m:1").node)
    assert not contact.serves
    clients = [play.client().says("BLPOP", "q", "0") for _ in range(3)]
    play.settle()
    assert contact.ready == 3
    clients[0].leaves()
    play.server("m:1").live[0].lane.lose(play.time)
    assert contact.ready == 1
    play.topology(2, draining=("m:1", "r:1"))
    play.topology(3, master="r:1")
    play.wait(2)
    assert contact.ready == 0
    play.topology(4, master="r:1")
    assert play.router.contact(play.server("m:1").node) is not contact


def test_loss__of_all_connections__looks_at_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Playbook()
    play.topology(1, master="m:1")
    clients = [play.client().says("BLPOP", "q", "0") for _ in range(100)]
    play.settle()
    play.time += JUST_SENT / 2
    monkeypatch.setattr(Router, "lanes", property(lambda router: pytest.fail("all were listed")))
    monkeypatch.setattr(Dedicated, "__iter__", lambda dedicated: pytest.fail("all were looked at"))
    play.server("m:1").dies()
    for client in clients:
        client.hears_error("UNCERTAIN BLPOP")
