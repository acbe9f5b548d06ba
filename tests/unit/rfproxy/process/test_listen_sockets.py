"""Listening sockets: of one worker each, of nobody else, and never closed while the program runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rfprotocol.errors import ConfigError
from rfprotocol.topology.topology import Node
from rfproxy.process.listen_sockets import address_of, adopt, from_systemd, open_sockets, share
from rfproxy.runtime.server import BACKLOG

ANY_PORT = Node("127.0.0.1", 0)


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three for one address."""
    opened = open_sockets(ANY_PORT, 3)
    yield opened
    for sock in opened:
        sock.close()


def test_each_worker_has_a_socket_of_the_same_address(sockets: list[socket.socket]) -> None:
    assert len({address_of(sock) for sock in sockets}) == 1
    assert [share(sockets, 3, number) for number in range(3)] == [[sock] for sock in sockets]


def test_clients_are_spread_over_the_sockets(sockets: list[socket.socket]) -> None:
    address = address_of(sockets[0])
    for sock in sockets[1:]:
        sock.listen(BACKLOG)  # as workers do when they serve
    clients = [socket.create_connection((address.host, address.port)) for _ in range(200)]
    counts = [accepted(sock) for sock in sockets]
    assert sum(counts) == 200
    assert all(counts)
    for client in clients:
        client.close()


def accepted(sock: socket.socket) -> int:
    """How many clients wait in the queue."""
    sock.setblocking(False)
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_an_address_that_is_in_use_is_one_clear_line_also_when_it_is_by_another_proxy(
    sockets: list[socket.socket],
) -> None:
    address = address_of(sockets[0])
    with pytest.raises(ConfigError, match=f"cannot listen on {address}: Address already in use; is another proxy"):
        open_sockets(address)


def test_a_name_that_nobody_knows_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on nowhere\.invalid:1: Name or service not known"):
        open_sockets(Node("nowhere.invalid", 1))


def test_with_more_workers_than_before_sockets_are_added(sockets: list[socket.socket]) -> None:
    more = open_sockets(Node("ignored", 1), 5, sockets)
    assert more[:3] == sockets
    assert len({address_of(sock) for sock in more}) == 1
    assert len(more) == 5
    for sock in more[3:]:
        sock.close()


def test_with_fewer_workers_than_before_each_has_several_and_none_is_left_over(sockets: list[socket.socket]) -> None:
    assert share(sockets, 2, 0) == [sockets[0], sockets[2]]
    assert share(sockets, 2, 1) == [sockets[1]]


def test_a_socket_that_cannot_be_joined_is_shared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        sockets = open_sockets(ANY_PORT, 2, [given])
        assert sockets == [given]
        assert share(sockets, 2, 0) == share(sockets, 2, 1) == [given]


def test_each_worker_has_a_socket_of_every_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        assert share([one, other], 2, 0) == [one, other]
        assert share([one, other], 2, 1) == [one, other]


def test_ipv6_is_listened_on_without_ipv4() -> None:
    (sock,) = open_sockets(Node("::", 0))
    with sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", address_of(sock).port))


def test_sockets_of_systemd_are_taken_over_once() -> None:
    code = """if True:
        import os, socket, rfproxy.process.listen_sockets as listening
        sock = socket.create_server(("127.0.0.1", 0))
        os.dup2(sock.fileno(), 3)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
        (taken,) = listening.from_systemd(environ)
        assert taken.getsockname() == sock.getsockname(), taken
        assert not taken.get_inheritable()
        assert not environ, environ
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sockets_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}
    assert from_systemd(environ) == []
    assert not environ


def test_what_is_no_tcp_socket_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as local, pytest.raises(ConfigError, match="TCP"):
        adopt(os.dup(local.fileno()))


def test_listen__star__is_all_addresses_of_both_families() -> None:
    opened = open_sockets(Node("*", 0))
    try:
        assert {address_of(sock).host for sock in opened} == {"0.0.0.0", "::"}
    finally:
        for sock in opened:
            sock.close()
