"""A fixed share of the fuzzing; `python -m tests.fuzz` goes on from there for as long as one likes."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest

from rfprotocol.resp import reply_scanner, resp
from tests.fuzz import checks, reference
from tests.fuzz.builds import INTERPRETED, Build
from tests.support.redis import RedisServer

CASES = 2000
ON_A_SERVER = 300


@pytest.mark.parametrize("check", checks.ALL.values(), ids=[name.replace(" ", "-") for name in checks.ALL])
def test_nothing_that_clients_or_servers_say_is_misread(build: Build, check: Callable[[Build, Random], None]) -> None:
    for seed in range(CASES):
        check(build, Random(seed))


def test_a_real_server_reads_the_same(build: Build, redis_server: RedisServer) -> None:
    for seed in range(ON_A_SERVER):
        checks.redis(build, Random(seed), redis_server.node)


def fails(check: Callable[[Build, Random], None]) -> bool:
    for seed in range(CASES):
        try:
            check(INTERPRETED, Random(seed))
        except Exception:
            return True
    return False


def test_a_reader_that_trusts_hiredis_too_far_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "_NOT_FOR_HIREDIS", re.compile(rb"(?!)"))
    assert fails(checks.requests)


def test_a_scanner_that_miscounts_one_type_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reply_scanner._VALUES_EACH, ord("|"), 1)
    assert fails(checks.replies)


def test_the_reference_reads_what_the_text_of_redis_says() -> None:
    assert reference.read(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING a\n") == ([[b"GET", b"k"], [b"PING", b"a"]], None)
    assert reference.read(b"*1\r\n$4\r\nPI") == ([], None)
    assert reference.read(b"*1\r\n:4\r\n") == ([], "ERR Protocol error: expected '$', got ':'")
    assert reference.read(b"auth x\n*11\r\n", logins=iter([False])).error is not None
    assert reference.read(b"auth x\n*11\r\n", logins=iter([True])).error is None
