"""Which commands CLIENT PAUSE holds back."""

from __future__ import annotations

import pytest

from rfprotocol.resp.command_table import lookup
from rfproxy.core.work_items import Verb
from rfproxy.routing.client_pause import Pause


def verb(text: str) -> Verb:
    args = text.encode().split()
    return Verb(args, lookup(args), b"")


@pytest.mark.parametrize("command", ["SET k v", "PFCOUNT k", "PUBLISH c m", "EVAL script 0"])
def test_writes_and_what_may_write_wait(command: str) -> None:
    assert Pause(5.0, writes_only=True).holds(verb(command), 4.9)
    assert not Pause(5.0, writes_only=True).holds(verb(command), 5.0)


@pytest.mark.parametrize("command", ["GET k", "PING"])
def test_reads_wait_when_all_do(command: str) -> None:
    assert not Pause(5.0, writes_only=True).holds(verb(command), 0.0)
    assert Pause(5.0, writes_only=False).holds(verb(command), 0.0)


def test_what_ends_a_pause_does_not_wait_for_its_end() -> None:
    assert not Pause(5.0, writes_only=False).holds(verb("CLIENT UNPAUSE"), 0.0)
