"""Bytes that wait unread come out as they went in."""

from __future__ import annotations

import pytest

from rfproxy.session.input_buffer import Inbox

SMALL, LARGE = b"PING\r\n", b"x" * 100_000


def everything(inbox: Inbox) -> list[tuple[bytes, str]]:
    """What it holds, taken piece by piece."""
    found = []
    while inbox.size:
        found.append(inbox.take())
    return found


@pytest.mark.parametrize("pieces", [[SMALL], [LARGE], [SMALL, LARGE], [LARGE, SMALL, SMALL], [SMALL] * 10_000])
def test_inbox__any_pieces__come_out_in_order(pieces: list[bytes]) -> None:
    inbox = Inbox()
    for piece in pieces:
        inbox.put(piece)
    assert inbox.size == sum(map(len, pieces))
    assert b"".join(data for data, _ in everything(inbox)) == b"".join(pieces)
    assert inbox.size == 0


def test_inbox__many_small_pieces__are_put_together() -> None:
    inbox = Inbox()
    for _ in range(10_000):
        inbox.put(SMALL)
    assert len(everything(inbox)) < 5


def test_inbox__refused__only_what_is_inside_is() -> None:
    inbox = Inbox()
    inbox.put(LARGE)
    inbox.put(SMALL)
    inbox.refuse("ERR no")
    inbox.put(b"ECHO x\r\n")
    assert everything(inbox) == [(LARGE, "ERR no"), (SMALL, "ERR no"), (b"ECHO x\r\n", "")]


def test_inbox__refused_when_all_was_large__nothing_more_is() -> None:
    inbox = Inbox()
    inbox.put(LARGE)
    inbox.refuse("ERR no")
    inbox.put(SMALL)
    assert everything(inbox) == [(LARGE, "ERR no"), (SMALL, "")]


def test_inbox__its_rest__is_taken_out_at_once() -> None:
    inbox = Inbox()
    inbox.put(LARGE)
    inbox.put(SMALL)
    assert inbox.rest() == LARGE + SMALL
    assert inbox.size == 0
