"""What drives the router offers what it asks for."""

from __future__ import annotations

import inspect

import pytest

from rfproxy.routing.event_loop import Shell
from rfproxy.runtime.server import Server
from tests.support.playbook import Playbook


@pytest.mark.parametrize("program", [Server, Playbook])
@pytest.mark.parametrize("name", ["connect", "flush_soon", "wake_at", "acknowledge"])
def test_the_server_and_the_playbook_are_shells(program: type, name: str) -> None:
    asked, given = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (Shell, program))
    assert given == asked
