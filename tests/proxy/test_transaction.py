"""Queued transactions: refused when queued, in Redis' words, and sent as one block."""

from __future__ import annotations

from rfprotocol.commands import lookup
from rfprotocol.resp import encode_command
from rfproxy.transaction import Transaction

QUEUED = b"+QUEUED\r\n"


def add(transaction: Transaction, text: str) -> bytes:
    args = text.encode().split()
    return transaction.add(args, lookup(args))


def test_the_block_is_what_the_client_said_between_multi_and_exec() -> None:
    transaction = Transaction()
    assert add(transaction, "SET k v") == add(transaction, "BLPOP q 0") == add(transaction, "SOME.MODULE x") == QUEUED
    words = [b"MULTI", b"SET k v", b"BLPOP q 0", b"SOME.MODULE x", b"EXEC"]
    assert transaction.block() == b"".join(encode_command(word.split()) for word in words)


def test_an_empty_transaction_is_one_too() -> None:
    assert Transaction().block() == encode_command([b"MULTI"]) + encode_command([b"EXEC"])


def test_each_mistake_aborts_it() -> None:
    for mistake in ("GET", "SELECT 1", "SUBSCRIBE c", "REPLICAOF NO ONE", "CLIENT REPLY OFF", "AUTH pw"):
        transaction = Transaction()
        assert add(transaction, mistake).startswith(b"-ERR "), mistake
        assert add(transaction, "SET k v") == QUEUED
        assert transaction.block() is None, mistake
