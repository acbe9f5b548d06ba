"""Connections as their sessions see them: why a server refused one."""

from __future__ import annotations

import pytest

from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Duty, LaneKey
from rfproxy.core.ports import UpstreamConnection
from rfproxy.upstream.connection import Lane
from rfproxy.upstream.handshake import Refusal, Welcome
from tests.support.playbook import Playbook

BUSY = "BUSY Redis is busy running a script."


def connection(duty: Duty, welcome: Welcome | None = None) -> UpstreamConnection:
    lane = Lane(LaneKey(Node("m", 1), duty), Playbook().router)
    lane.welcome = welcome
    return lane


@pytest.mark.parametrize(("duty", "denial"), [(Duty.MASTER, "no"), (Duty.ANY, "no"), (Duty.REPLICA, None)])
def test_denial_counts_at_master_only(duty: Duty, denial: str | None) -> None:
    assert connection(duty, Welcome(Refusal.DENIED, "no")).denial == denial


def test_denial_is_none_if_accepted_or_unfit() -> None:
    for welcome in (None, Welcome(), Welcome(Refusal.UNFIT, "it is not a master")):
        assert connection(Duty.MASTER, welcome).denial is None


def test_refused_as_busy_only_while_script_runs() -> None:
    assert connection(Duty.MASTER, Welcome(Refusal.UNFIT, BUSY)).refused_as_busy
    assert not connection(Duty.MASTER, Welcome(Refusal.UNFIT, "LOADING")).refused_as_busy
    assert not connection(Duty.MASTER).refused_as_busy


def test_connection_writes_to_master_only() -> None:
    assert [connection(duty).writes for duty in Duty] == [True, False, False]
