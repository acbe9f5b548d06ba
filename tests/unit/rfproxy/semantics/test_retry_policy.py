"""Which commands may be sent twice: the ones that leave the same data and the same answer."""

from __future__ import annotations

import pytest

from rfprotocol.resp.command_table import lookup
from rfproxy.core.policy import RetryWrites
from rfproxy.semantics.retry_policy import idempotent, lacks_replicas, may_have_changed, may_resend, refused


def words(text: str) -> list[bytes]:
    return text.encode().split()


REPEATABLE = [
    *("SET k v", "set k v EX 10", "SET k NX", "SET GET v KEEPTTL", "SETEX k 1 v", "PSETEX k 1 v", "MSET a 1 b 2"),
    *("HSET k f v", "HMSET k f v", "LSET k 0 v", "SETRANGE k 0 v", "EXPIRE k 10", "PEXPIREAT k 10"),
    *("RESTORE k 0 x REPLACE", "SCRIPT LOAD x", "ARSET k 1 v", "VSETATTR k e {}"),
    *("HEXPIRE k 10 FIELDS 1 NX", "HSETEX k EX 10 FIELDS 1 FNX v", "MSETEX 1 NX XX EX 10"),
]
ONCE = [
    *("SET k v NX", "SET k v xx", "SET k v EX 10 GET", "INCR k", "APPEND k v", "LPUSH k v", "DEL k", "UNLINK k"),
    *("SADD k v", "ZADD k 1 v", "GETSET k v", "GETDEL k", "SETNX k v", "EXPIRE k 10 NX", "HINCRBY k f 1"),
    *("XADD k * f v", "PUBLISH c m", "EVAL x 0", "FLUSHALL", "RESTORE k 0 x", "MSETNX a 1", "SETBIT k 0 1"),
    *("HEXPIRE k 10 NX FIELDS 1 f", "HSETEX k EX 10 FNX FIELDS 1 f v", "MSETEX 1 k v NX", "MSETEX x k v NX"),
    *("HGETDEL k FIELDS 1 f", "DELEX k", "VADD k VALUES 1 1 e", "XACKDEL k g KEEPREF IDS 1 1-1"),
    *("MODULE.CMD k", "SPOP k", "RPOPLPUSH a b", "RENAME a b", "COPY a b", "FCALL f 0"),
]
READS = ["GET k", "MGET a b", "PING", "INFO", "DBSIZE", "SCAN 0", "TTL k", "HGETALL k", "XRANGE k - +", "TIME"]


@pytest.mark.parametrize("text", REPEATABLE)
def test_writes_that_leave_the_same_are_sent_again(text: str) -> None:
    args = words(text)
    assert idempotent(lookup(args), args)
    assert may_resend(lookup(args), args, RetryWrites.IDEMPOTENT)
    assert not may_resend(lookup(args), args, RetryWrites.NEVER)


@pytest.mark.parametrize("text", ONCE)
def test_writes_whose_second_time_is_another_effect_are_not(text: str) -> None:
    args = words(text)
    assert not may_resend(lookup(args), args, RetryWrites.IDEMPOTENT)
    assert may_resend(lookup(args), args, RetryWrites.ALWAYS)


@pytest.mark.parametrize("text", READS)
def test_reads_are_always_sent_again(text: str) -> None:
    args = words(text)
    assert may_resend(lookup(args), args, RetryWrites.NEVER)


def test_only_errors_given_instead_of_executing_count_as_refusals() -> None:
    assert refused(b"-READONLY You can't write against a read only replica.\r\n")
    assert refused(b"-LOADING Redis is loading the dataset in memory\r\n")
    assert refused(
        b"-EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.\r\n"
    )
    assert not refused(b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    assert refused(b"-UNBLOCKED force unblock from blocking operation, instance state changed\r\n")
    assert not refused(b"-BUSY Redis is busy running a script.\r\n")
    assert not refused(b"-MISCONF Redis is configured to save RDB snapshots\r\n")
    assert not refused(b"$9\r\n-READONLY\r\n")


def test_lacks_replicas__whole_text_only__also_of_exec() -> None:
    text = b"NOREPLICAS Not enough good replicas to write."
    assert lacks_replicas(b"-" + text + b"\r\n")
    assert lacks_replicas(b"-" + text + b" script: x, on @user_script:1.\r\n")
    assert lacks_replicas(b"-EXECABORT Transaction discarded because of: " + text + b"\r\n")
    assert not lacks_replicas(b"-NOREPLICAS mine\r\n")
    assert not refused(b"-" + text + b"\r\n"), "it may be so for long"


@pytest.mark.parametrize(
    ("text", "reply", "changed"),
    [
        ("SET k v", b"+OK\r\n", True),
        ("SET k v", b"-WRONGTYPE no\r\n", False),
        ("PUBLISH c m", b":0\r\n", True),
        ("EVAL x 0", b"-ERR half-way\r\n", True),
        ("MODULE.CMD k", b"-ERR half-way\r\n", True),
        ("GET k", b"$1\r\nv\r\n", False),
        ("EVAL_RO x 0", b"-ERR no\r\n", False),
    ],
)
def test_may_have_changed__by_command_and_reply(text: str, reply: bytes, *, changed: bool) -> None:
    assert may_have_changed(lookup(words(text)), reply) is changed
