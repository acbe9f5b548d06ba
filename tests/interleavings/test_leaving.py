"""Clients that leave, or say what cannot be understood, while there is no master."""

from __future__ import annotations

import pytest

from rfproxy.core.policy import Policy
from rfproxy.routing.lease import NEWS
from tests.support.playbook import FakeClient, Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def settled(play: Playbook, *settings: str) -> FakeClient:
    """A client with a connection of its own."""
    client = play.client().says(*settings)
    play.server("m:1").hears(*settings, exclusive=True).answers(OK)
    client.hears(OK)
    return client


def alarms(play: Playbook, seconds: float) -> int:
    """Let time pass; how often the proxy wanted to be woken meanwhile, up to a thousand times."""
    end, count = play.time + seconds, 0
    while play.alarm is not None and play.alarm <= end and count < 1000:
        play.time, play.alarm, count = max(play.time, play.alarm), None, count + 1
        play.router.tick(play.time)
        play.settle()
    return count


@pytest.mark.parametrize("settings", [["CLIENT", "TRACKING", "ON"], ["CLIENT", "NO-TOUCH", "ON"]])
def test_who_has_settings_and_leaves_while_there_is_no_master_is_parted_with_at_once(
    play: Playbook, settings: list[str]
) -> None:
    client = settled(play, *settings)
    play.topology(2, replicas=["r:1", "r:2"])
    client.session.finish(play.time)
    assert client.closed
    assert alarms(play, 40) < 10
    assert not play.log.events("masterdown")


def test_who_has_settings_and_leaves_while_there_is_no_lease_is_parted_with_at_once(play: Playbook) -> None:
    client = settled(play, "CLIENT", "TRACKING", "ON")
    play.lease.revoke()
    play.router.lapse(play.time)
    play.wait(NEWS)
    client.session.finish(play.time)
    assert client.closed
    assert alarms(play, 40) < 10
    assert not play.log.events("masterdown")


def test_a_command_that_there_is_no_room_for_and_nonsense_behind_it_are_answered() -> None:
    play = Playbook(Policy(hold_bytes=100))
    play.topology(1, master="m:1")
    client = settled(play, "CLIENT", "NO-TOUCH", "ON")
    play.topology(2)
    client.sends(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200\r\n" + b"x" * 200 + b"\r\n*1\r\n!\r\n")
    play.settle()
    assert client.output.startswith(b"-MASTERDOWN")
    assert b"-ERR Protocol error" in client.output
    assert client.closed
