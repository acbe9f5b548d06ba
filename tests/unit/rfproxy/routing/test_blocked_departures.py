"""Blocked clients that leave: what comes for them is not lost, and those who bring it wait for no more than that."""

from __future__ import annotations

import pytest

from rfprotocol.resp.resp import encode_command
from rfproxy.routing.blocked_departures import LONGEST, NOTICED
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


def test_holds__write_to_another_key__goes_at_once(play: Playbook) -> None:
    _, connection = left(play, "BLPOP", "q", "0")
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert not connection.closed


@pytest.mark.parametrize("command", ["RPUSH q x", "SORT k STORE q", "RENAME k q", "FLUSHALL"])
def test_holds__what_may_serve_them__waits_until_they_are_seen_off(play: Playbook, command: str) -> None:
    leaver, connection = left(play, "BLPOP", "q", "0")
    play.client().says("SET", "k", "v")
    shared = play.server("m:1").hears("SET", "k", "v").answers(OK)
    play.client().session.feed(encode_command(command.encode().split()), play.time)
    play.router.flush(play.time)
    assert (shared.commands, connection.closed) == ([], False)
    leaver.session.finish(play.time)
    play.time += 2 * NOTICED
    assert connection.closed
    play.server("m:1").hears(*command.split())


def test_holds__script__waits_on_its_own_connection(play: Playbook) -> None:
    leaver, _ = left(play, "BZPOPMIN", "q", "0")
    play.client().session.feed(encode_command([b"EVAL", b"x", b"1", b"k"]), play.time)
    play.server("m:1").accept()
    play.router.flush(play.time)
    assert not any(one.commands for one in play.server("m:1").live)
    leaver.session.finish(play.time)
    play.time += 2 * NOTICED
    play.server("m:1").hears("EVAL", "x", "1", "k", exclusive=True)


def test_holds__transaction_with_the_key__waits(play: Playbook) -> None:
    leaver, _ = left(play, "BLPOP", "q", "0")
    play.client().session.feed(
        b"".join(encode_command(text.split()) for text in (b"MULTI", b"SET k v", b"EXEC")), play.time
    )
    play.router.flush(play.time)
    assert not any(one.commands for one in play.server("m:1").live)
    leaver.session.finish(play.time)
    play.time += 2 * NOTICED
    play.settle()
    assert any(one.commands for one in play.server("m:1").live)


def test_holds__clients_leave_all_the_time__not_for_ever(play: Playbook) -> None:
    left(play, "BLPOP", "q", "0")
    play.time += 2 * LONGEST
    play.client().says("RPUSH", "q", "x")
    play.server("m:1").hears("RPUSH", "q", "x")


def test_leaving__its_server_ends_the_connection__is_not_asked_again(play: Playbook) -> None:
    client, connection = left(play, "BLPOP", "q", "0")
    play.wait(1.0)
    connection.closed = True
    connection.lane.lose(play.time)
    play.wait(1.0)
    play.server("m:1").hears_nothing()
    assert client.closed


def test_gone__all_were_seen_off_and_the_server_knows__nothing_waits(play: Playbook) -> None:
    client, _ = left(play, "BLPOP", "q", "0")
    assert play.router.leaving
    client.session.finish(play.time)
    play.time += 2 * NOTICED
    play.client().says("RPUSH", "q", "x")
    play.server("m:1").hears("RPUSH", "q", "x")
    assert not play.router.leaving


def test_add__others_have_left_long_ago__holds_anew(play: Playbook) -> None:
    earlier, _ = left(play, "BLPOP", "p", "0")
    earlier.session.finish(play.time)
    play.time += 60.0
    leaver, _ = left(play, "BLPOP", "q", "0")
    play.client().says("SET", "k", "v")
    shared = play.server("m:1").hears("SET", "k", "v").answers(OK)
    play.client().session.feed(encode_command([b"RPUSH", b"q", b"x"]), play.time)
    play.router.flush(play.time)
    assert shared.commands == []
    leaver.session.finish(play.time)
    play.time += 2 * NOTICED
    play.server("m:1").hears("RPUSH", "q", "x")


def test_depart__something_is_held__at_once() -> None:
    play = Playbook()
    play.topology(1)
    client = play.client().says("INCR", "k")
    assert not client.session.depart(play.time)
