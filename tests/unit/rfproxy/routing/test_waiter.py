"""Sessions as routing sees them: what they begin with."""

from __future__ import annotations

from rfproxy.routing.waiter import Waiter
from tests.support.playbook import Playbook


def test_session_waits_for_nothing_at_first() -> None:
    play = Playbook()
    waiter: Waiter = play.client().session
    assert isinstance(waiter, Waiter)
    assert (waiter.born, waiter.waits_since, waiter.first_sent) == (play.time, None, 0.0)
    assert not waiter.only_pings


def test_session_tells_that_only_ping_waits() -> None:
    client = Playbook().client().says("PING")
    assert client.session.only_pings
    assert client.session.waits_since is not None
