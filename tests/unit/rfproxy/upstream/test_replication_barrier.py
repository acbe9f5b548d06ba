"""What goes out in front of WAIT, and what the client hears when the server will not have it."""

from __future__ import annotations

import pytest

from rfproxy.upstream.replication_barrier import MESSAGE, PING, answer, counts_writes_only, replication_barrier


@pytest.mark.parametrize("version", ["6.2.14", "7.0.0", "7.0.15"])
def test_barrier__before_7_2__ping(version: str) -> None:
    assert not counts_writes_only(version)
    assert replication_barrier(version) == PING == b"*1\r\n$4\r\nPING\r\n"


@pytest.mark.parametrize("version", ["7.2.0", "7.2.4", "7.4.0", "8.0.0", "8.10.2", ""])
def test_barrier__since_7_2_or_unknown__message(version: str) -> None:
    assert counts_writes_only(version)
    assert replication_barrier(version) == MESSAGE == b"*3\r\n$8\r\nSPUBLISH\r\n$15\r\nrfproxy:durable\r\n$0\r\n\r\n"


@pytest.mark.parametrize("barrier", [b"+PONG\r\n", b":0\r\n"])
@pytest.mark.parametrize("reply", [b":1\r\n", b"*2\r\n:1\r\n:2\r\n", b"-ERR timeout is negative\r\n"])
def test_answer__barrier_passed__what_wait_was_answered(barrier: bytes, reply: bytes) -> None:
    assert answer("WAIT", [barrier, reply]) == reply


@pytest.mark.parametrize("name", ["WAIT", "WAITAOF"])
def test_answer__barrier_refused__error_that_says_why(name: str) -> None:
    error = answer(name, [b"-NOPERM No permissions to access a channel\r\n", b":2\r\n"])
    assert error.startswith(f"-NOPERM {name} cannot be asked through rfproxy".encode())
    assert error.endswith(b": No permissions to access a channel\r\n")
