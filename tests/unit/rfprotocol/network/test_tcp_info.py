"""TcpInfo: read as the kernel writes it; a host that acknowledges nothing differs from a process that is silent."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.network.tcp_info import SIZE, TcpInfo, Unacknowledged, look


def written(**fields: int) -> bytes:
    """`struct tcp_info` with these fields, all others 0; offsets as in linux/tcp.h."""
    places = {
        "retransmits": (2, "B"),
        "probes": (3, "B"),
        "rto": (8, "I"),
        "unacked": (24, "I"),
        "last_data_sent": (44, "I"),
        "last_data_recv": (52, "I"),
        "last_ack_recv": (56, "I"),
        "notsent_bytes": (144, "I"),
    }
    data = bytearray(SIZE)
    for name, value in fields.items():
        offset, form = places[name]
        struct.pack_into(f"={form}", data, offset, value)
    return bytes(data)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def test_parse__each_field__is_found_in_its_place() -> None:
    data = written(
        retransmits=2,
        probes=3,
        rto=204_000,
        unacked=5,
        notsent_bytes=7,
        last_data_sent=10,
        last_data_recv=20,
        last_ack_recv=30,
    )
    assert TcpInfo.parse(data) == TcpInfo(
        unacked=5,
        unsent=7,
        retransmits=2,
        probes=3,
        rto=0.204,
        last_sent=0.01,
        last_received=0.02,
        last_acked=0.03,
    )


def test_parse__an_older_kernel__has_no_unsent_bytes() -> None:
    assert TcpInfo.parse(written(unacked=1, notsent_bytes=7)[:104]) == TcpInfo(unacked=1)


@given(st.binary(max_size=103))
def test_parse__too_short__is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected 104 or more"):
        TcpInfo.parse(data)


@given(st.binary(min_size=104, max_size=300))
def test_parse__any_bytes__are_counts_and_times(data: bytes) -> None:
    info = TcpInfo.parse(data)
    assert min(info.unacked, info.unsent, info.probes, info.last_sent, info.last_acked, info.last_received) >= 0


def test_look__all_acknowledged__nothing_is_awaited(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(b"PING\r\n")
    far.recv(6)
    info = look(near)
    assert info is not None
    assert (info.unacked, info.probes, info.unsent) == (0, 0, 0)


def test_look__a_process_that_does_not_read__is_not_unacknowledged(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    near.sendall(b"PING\r\n")
    info = look(near)
    assert info is not None
    assert Unacknowledged().seconds(info, 100.0) == 0.0


def test_look__a_closed_socket__is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    near.close()
    assert look(near) is None


def test_unacknowledged__nothing_sent__is_no_silence() -> None:
    silence = Unacknowledged()
    assert silence.seconds(TcpInfo(last_acked=60.0, last_received=60.0), 100.0) == 0.0


def test_unacknowledged__a_byte_is_out__counts_from_its_sending() -> None:
    silence = Unacknowledged()
    assert silence.seconds(TcpInfo(unacked=1, last_sent=0.05, last_acked=60.0, last_received=60.0), 100.0) == (
        pytest.approx(0.05)
    )
    # A retransmission is a sending, too: the first one counts.
    later = TcpInfo(unacked=1, retransmits=1, last_sent=0.1, last_acked=60.4, last_received=60.4)
    assert silence.seconds(later, 100.4) == pytest.approx(0.45)


def test_unacknowledged__acknowledged_and_more_is_out__begins_anew() -> None:
    silence = Unacknowledged()
    silence.seconds(TcpInfo(unacked=1, last_acked=9.0, last_received=9.0), 100.0)
    assert silence.seconds(TcpInfo(unacked=1, last_acked=0.1, last_received=9.5), 100.5) == pytest.approx(0.1)


def test_unacknowledged__data_arrives__is_a_sign_of_life() -> None:
    silence = Unacknowledged()
    silence.seconds(TcpInfo(unacked=1, last_acked=9.0, last_received=9.0), 100.0)
    assert silence.seconds(TcpInfo(unacked=1, last_acked=9.5, last_received=0.2), 100.5) == pytest.approx(0.2)


def test_unacknowledged__all_is_acknowledged__forgets_the_past() -> None:
    silence = Unacknowledged()
    silence.seconds(TcpInfo(unacked=1, last_acked=9.0, last_received=9.0), 100.0)
    assert silence.seconds(TcpInfo(last_acked=0.1, last_received=9.1), 100.1) == 0.0
    idle = TcpInfo(unacked=1, last_sent=0.0, last_acked=900.0, last_received=900.0)
    assert silence.seconds(idle, 1000.0) == 0.0


def test_unacknowledged__a_closed_window__is_no_silence() -> None:
    """A frozen process whose buffers are full: its kernel answers the probes into the window."""
    silence = Unacknowledged()
    silence.seconds(TcpInfo(unsent=70_000, last_acked=0.0, last_received=9.0), 100.0)
    assert silence.seconds(TcpInfo(unsent=70_000, last_acked=1.0, last_received=10.0), 101.0) == 0.0


def test_unacknowledged__probes_into_a_closed_window_lost__is_silence() -> None:
    silence = Unacknowledged()
    silence.seconds(TcpInfo(unsent=70_000, last_acked=0.0, last_received=9.0), 100.0)
    lost = TcpInfo(unsent=70_000, probes=2, last_acked=1.0, last_received=10.0)
    assert silence.seconds(lost, 101.0) == pytest.approx(1.0)


def test_unacknowledged__a_packet_that_cannot_leave_this_host__is_silence() -> None:
    """The own link is down: the bytes stay unsent, and the kernel tries again with probes."""
    silence = Unacknowledged()
    assert silence.seconds(TcpInfo(unsent=14, last_acked=60.0, last_received=60.0), 100.0) == 0.0
    stuck = TcpInfo(unsent=14, probes=1, last_acked=60.5, last_received=60.5)
    assert silence.seconds(stuck, 100.5) == pytest.approx(0.5)
