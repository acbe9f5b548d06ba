"""Keys of connections: equal where sessions may share one, and no password where they are printed."""

from __future__ import annotations

import pytest

from rfprotocol.topology.topology import Node
from rfproxy.core.identity import MASTER, REPLICA, Account, Duty, Identity, LaneKey

NODE = Node("m", 1)
KEY = LaneKey(NODE, MASTER)


def test_key_is_shared_by_same_server_and_identity() -> None:
    assert {KEY: 1}[LaneKey(NODE, Duty.MASTER, Identity(0, 2))] == 1


@pytest.mark.parametrize(
    "other",
    [
        LaneKey(Node("m", 2), MASTER),
        LaneKey(NODE, REPLICA),
        LaneKey(NODE, MASTER, Identity(db=1)),
        LaneKey(NODE, MASTER, Identity(protocol=3)),
        LaneKey(NODE, MASTER, Identity(account=Account(b"u", b"p"))),
    ],
)
def test_key_is_not_shared_if_anything_differs(other: LaneKey) -> None:
    assert other != KEY


def test_account_of_proxy_differs_from_clients() -> None:
    assert Account(b"u", b"p", own=True) != Account(b"u", b"p")


def test_account_prints_no_password() -> None:
    assert "secret" not in repr(Identity(account=Account(b"u", b"secret")))
