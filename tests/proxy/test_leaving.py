"""Blocked clients that leave: what comes for them is not lost, and those who bring it wait for no more than that."""

from __future__ import annotations

import pytest

from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1")
    return play


def left(play: Playbook, *command: str) -> tuple[FakeClient, FakeConnection]:
    """A client that was blocked by this command and has left, but has not been seen off."""
    client = play.client().says(*command)
    connection = play.server("m:1").hears(*command, exclusive=True)
    assert client.session.depart(play.time)
    return client, connection


def test_before__write_to_another_key__nothing_happens(play: Playbook) -> None:
    _, connection = left(play, "BLPOP", "q", "0")
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert not connection.closed


@pytest.mark.parametrize("command", ["RPUSH q x", "SORT k STORE q", "RENAME k q", "FLUSHALL"])
def test_before__what_may_serve_them__waits_until_the_server_knows(play: Playbook, command: str) -> None:
    play.client().says("SET", "k", "v")
    shared = play.server("m:1").hears("SET", "k", "v").answers(OK)
    _, connection = left(play, "BLPOP", "q", "0")
    play.server("m:1").silent = True
    play.client().says(*command.split())
    assert connection.closed
    assert (shared.probed, shared.commands) == (True, [])
    play.server("m:1").silent = False
    play.server("m:1").hears(*command.split())


def test_before__script__parts_with_them(play: Playbook) -> None:
    _, connection = left(play, "BZPOPMIN", "q", "0")
    play.client().says("EVAL", "x", "1", "k")
    play.server("m:1").hears("EVAL", "x", "1", "k", exclusive=True)
    assert connection.closed


def test_before__transaction_with_the_key__parts_with_them(play: Playbook) -> None:
    _, connection = left(play, "BLPOP", "q", "0")
    play.client().pipelines("MULTI", "SET k v", "EXEC")
    play.settle()
    assert connection.closed


def test_leaving__its_server_ends_the_connection__is_not_asked_again(play: Playbook) -> None:
    client, connection = left(play, "BLPOP", "q", "0")
    play.wait(1.0)
    connection.closed = True
    connection.lane.lose(play.time)
    play.wait(1.0)
    play.server("m:1").hears_nothing()
    assert client.closed


def test_gone__all_were_seen_off__nobody_is_looked_for(play: Playbook) -> None:
    client, _ = left(play, "BLPOP", "q", "0")
    assert play.router.leaving
    client.session.finish(play.time)
    assert not play.router.leaving
    play.client().says("RPUSH", "q", "x")
    assert play.server("m:1").hears("RPUSH", "q", "x")


def test_depart__something_is_held__at_once() -> None:
    play = Playbook()
    play.topology(1)
    client = play.client().says("INCR", "k")
    assert not client.session.depart(play.time)
