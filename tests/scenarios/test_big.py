"""Big values, big replies, big pipelines: all of it arrives, and memory follows what is in flight."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfprotocol.resp.resp import encode_command
from tests.support.embedded import EmbeddedProxy
from tests.support.rawclient import RawClient
from tests.support.redis import RedisGroup

MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[RedisGroup]:
    """A master alone: what passes is to be measured, not what is copied behind it."""
    with RedisGroup(1) as group:
        yield group


@pytest.fixture
def proxy(server: RedisGroup, tmp_path: Path) -> Iterator[EmbeddedProxy]:
    with EmbeddedProxy(server, tmp_path) as proxy:
        yield proxy
        assert not proxy.defects


def test_a_value_of_512_mib_passes_with_memory_for_a_few_of_it(server: RedisGroup, proxy: EmbeddedProxy) -> None:
    size = 512 * MIB
    piece = bytes(range(256)) * (MIB // 256)
    before = proxy.peak
    with RawClient(proxy.address) as client:
        client.say(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size)
        for _ in range(size // MIB):
            client.say(piece)
        client.say(b"\r\n")
        client.hears(b"+OK\r\n")
        written = (proxy.peak - before) / size
        assert server.master.command("STRLEN", "big") == size
        client.say(b"GET big\r\n")
        client.hears(b"$%d\r\n" % size)
        for _ in range(size // MIB):
            client.hears(piece)
        client.hears(b"\r\n")
    read = (proxy.peak - before) / size
    print(f"peak of the proxy: {written:.2f} times the value for SET, {read:.2f} times with GET")
    assert max(written, read) < 2.5


def test_replies_to_a_slow_reader_are_kept_once_and_others_are_served(server: RedisGroup, proxy: EmbeddedProxy) -> None:
    size, count = 64 * MIB, 8
    server.master.command("SETRANGE", "big", size - 1, "x")
    before = proxy.peak
    with RawClient(proxy.address) as slow, RawClient(proxy.address) as other:
        slow.say(b"GET big\r\n" * count)
        for _ in range(100):
            assert other.ask(b"PING\r\n") == b"+PONG\r\n"
        for _ in range(count):
            slow.hears(b"$%d\r\n" % size)
            slow.hear(size + 2)
    print(f"peak of the proxy: {(proxy.peak - before) / (size * count):.2f} times the replies")
    assert proxy.peak - before < 1.5 * size * count


def test_a_reply_of_two_million_elements_is_the_servers_own(server: RedisGroup, proxy: EmbeddedProxy) -> None:
    with server.master.client() as client:
        for first in range(1, 2_000_001, 100_000):
            client.rpush("long", *range(first, first + 100_000))
        assert client.llen("long") == 2_000_000
    heard = []
    for address in (server.master.node, proxy.address):
        with RawClient(address) as client:
            client.say(b"LRANGE long 0 -1\r\n")
            client.hang_up() if address == proxy.address else client.say(b"QUIT\r\n")
            data = client.hear_all().removesuffix(b"+OK\r\n")
        heard.append((data[:20], len(data), hashlib.sha256(data).hexdigest()))
    assert heard[0] == heard[1]


@pytest.mark.parametrize("words", [["SET", "n", "x" * 20], ["INCR", "n"], ["GET", "none"], ["NONSENSE"]])
def test_ten_thousand_commands_at_once_give_what_redis_gives(
    server: RedisGroup, proxy: EmbeddedProxy, words: list[str]
) -> None:
    pipeline = encode_command([word.encode() for word in words]) * 10_000 + b"QUIT\r\n"
    heard = []
    for address in (server.master.node, proxy.address):
        server.master.command("FLUSHALL")
        with RawClient(address) as client:
            client.say(pipeline)
            heard.append(client.hear_all())
    assert heard[0] == heard[1]


def test_a_command_of_a_million_arguments_passes(server: RedisGroup, proxy: EmbeddedProxy) -> None:
    names = [b"DEL", *(b"key:%d" % number for number in range(1_000_000))]
    with RawClient(proxy.address) as client:
        client.say(encode_command(names))
        client.hears(b":0\r\n")


def test_a_transaction_of_ten_thousand_commands_passes(server: RedisGroup, proxy: EmbeddedProxy) -> None:
    with RawClient(proxy.address) as client:
        client.say(b"MULTI\r\n" + b"INCR n\r\n" * 10_000 + b"EXEC\r\n")
        client.hears(b"+OK\r\n" + b"+QUEUED\r\n" * 10_000 + b"*10000\r\n")
        client.hears(b"".join(b":%d\r\n" % number for number in range(1, 10_001)))
