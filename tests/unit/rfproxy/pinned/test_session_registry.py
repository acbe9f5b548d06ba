"""Sessions of a process: there while their clients are."""

from __future__ import annotations

from rfproxy.pinned.session_registry import sessions_of
from tests.support.playbook import Playbook


def test_sessions_are_listed_while_clients_are_there() -> None:
    play = Playbook()
    session = play.client().session
    assert sessions_of(play.router) == {session.number: session}
    session.close(play.time)
    assert not sessions_of(play.router)
