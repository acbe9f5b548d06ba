"""What a remote store and its server say to each other, and what neither believes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.embedded import socket_protocol
from rfprotocol.errors import FenceLost, StoreConflict, StoreUnavailable
from rfprotocol.store.interface import Change, Delete, Entry, Put

WORDS = st.text()
COUNTS = st.integers(0, 1 << 63)
CHANGES = st.one_of(
    st.builds(Put, WORDS, st.binary(), st.none() | COUNTS), st.builds(Delete, WORDS, st.none() | COUNTS)
)


def sent(message: socket_protocol.Message) -> socket_protocol.Message:
    """What arrives of it."""
    packed = socket_protocol.pack(message, 1 << 20)
    assert (
        socket_protocol.size_of(packed[: socket_protocol.SIZE.size], 1 << 20) == len(packed) - socket_protocol.SIZE.size
    )
    return socket_protocol.unpack(packed[socket_protocol.SIZE.size :])


@given(st.builds(Entry, st.binary(), COUNTS, COUNTS, COUNTS) | st.none())
def test_entry__sent__is_the_same(entry: Entry | None) -> None:
    assert socket_protocol.entry(sent({"result": socket_protocol.plain_entry(entry)})["result"]) == entry


@given(CHANGES)
def test_change__sent__is_the_same(change: Change) -> None:
    assert socket_protocol.change(sent({"change": socket_protocol.plain_change(change)})["change"]) == change


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {},
        "put",
        ["put"],
        ["put", "/a", 1, 0],
        ["put", "/a", "x", "0"],
        ["delete", 1, 0],
        ["move", "/a", "/b"],
    ],
)
def test_change__is_none__is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="is no change"):
        socket_protocol.change(plain)


def test_size__more_than_allowed__is_refused() -> None:
    with pytest.raises(ValueError, match="4294967295 bytes, more than 100"):
        socket_protocol.size_of(b"\xff\xff\xff\xff", 100)
    with pytest.raises(ValueError, match="more than 100"):
        socket_protocol.pack({"data": "x" * 100}, 100)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"\xff", b"{"])
def test_message__no_object__is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        socket_protocol.unpack(data)


@pytest.mark.parametrize("kind", [FenceLost, StoreConflict, StoreUnavailable])
def test_refusal__by_name__is_the_same_error(kind: type[Exception]) -> None:
    assert type(socket_protocol.refusal(kind.__name__, "why")) is kind
    assert str(socket_protocol.refusal(kind.__name__, "why")) == "why"


def test_refusal__unknown__leaves_it_open_what_happened() -> None:
    assert type(socket_protocol.refusal("Novelty", "why")) is StoreUnavailable
