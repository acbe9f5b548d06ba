"""Clients that nobody wrote a library for: they type, stammer, hang up, vanish, and never read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded import EmbeddedProxy
from tests.support.eventually import eventually
from tests.support.rawclient import RawClient
from tests.support.redis import RedisGroup

MIB = 1 << 20


@pytest.fixture
def proxy(redis_group: RedisGroup, tmp_path: Path) -> Iterator[EmbeddedProxy]:
    with EmbeddedProxy(redis_group, tmp_path, "--reads", "master") as proxy:
        yield proxy
        assert not proxy.defects


@pytest.fixture
def client(proxy: EmbeddedProxy) -> Iterator[RawClient]:
    with RawClient(proxy.address) as client:
        yield client


def test_nothing_said_is_nothing_answered(client: RawClient) -> None:
    client.say(b"\r\n\n*0\r\n*-1\r\n   \r\nPING\r\n")
    client.hears(b"+PONG\r\n")


def test_commands_may_be_typed(client: RawClient) -> None:
    client.say(b'set "a key" \'it\\\'s\'\r\nGET "a\\x20key"\nget "open\r\n')
    client.hears(b"+OK\r\n$4\r\nit's\r\n-ERR Protocol error: unbalanced quotes in request\r\n")
    assert client.hear_all() == b""


def test_keys_and_values_are_any_bytes(client: RawClient) -> None:
    everything = bytes(range(256))
    client.say(b"*3\r\n$3\r\nSET\r\n$256\r\n%b\r\n$256\r\n%b\r\n" % (everything, everything[::-1]))
    client.say(b"*2\r\n$3\r\nGET\r\n$256\r\n%b\r\n" % everything)
    client.hears(b"+OK\r\n$256\r\n" + everything[::-1] + b"\r\n")


def test_one_byte_at_a_time(client: RawClient) -> None:
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\nMULTI\r\nGET k\r\n*1\r\n$4\r\nEXEC\r\n":
        client.say(bytes([byte]))
    client.hears(b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$5\r\nhello\r\n")


def test_who_says_no_more_still_hears_the_rest(client: RawClient) -> None:
    client.say(b"SET k v\r\n" + b"GET k\r\n" * 1000 + b"*2\r\n$3\r\nGET\r\n$1\r\n")
    client.hang_up()
    assert client.hear_all() == b"+OK\r\n" + b"$1\r\nv\r\n" * 1000


def test_who_waits_and_says_no_more_is_served(proxy: EmbeddedProxy, client: RawClient) -> None:
    client.say(b"BLPOP list 0\r\n")
    client.hang_up()
    with RawClient(proxy.address) as other:
        assert other.ask(b"RPUSH list x\r\n") == b":1\r\n"
    assert client.hear_all() in (b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n", b"")


def test_who_sends_and_never_reads_costs_a_bounded_amount_and_others_are_served(proxy: EmbeddedProxy) -> None:
    size = MIB // 16
    with RawClient(proxy.address) as deaf, RawClient(proxy.address) as other:
        deaf.say(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n%b\r\n" % (size, b"x" * size))
        deaf.hears(b"+OK\r\n")
        before = proxy.peak
        deaf.socket.settimeout(0.2)
        with pytest.raises((TimeoutError, ConnectionError)):  # nobody takes any more, in the end
            deaf.say(b"GET big\r\n" * 4 * MIB)
        began = time.monotonic()
        assert other.ask(b"PING\r\n") == b"+PONG\r\n"
        assert other.ask(b"SET k v\r\n") == b"+OK\r\n"
        waited, cost = time.monotonic() - began, proxy.peak - before
        print(f"{cost / MIB:.0f} MiB for unread replies, others waited {waited:.2f} s")
        assert cost < 1280 * MIB
        assert waited < 5


async def test_a_thousand_connections_that_vanish_leave_nothing(proxy: EmbeddedProxy, redis_group: RedisGroup) -> None:
    said = (
        b"",
        b"SET k v\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf",
        b"WATCH k\r\nMULTI\r\nSET k v\r\n",
        b"SUBSCRIBE channel\r\n",
        b"BLPOP nothing 0\r\n",
        b"MONITOR\r\n",
        b"HELLO 3\r\nCLIENT TRACKING ON\r\nGET k\r\n",
    )

    def connections() -> list[int]:
        return [server.info("clients")["connected_clients"] for server in redis_group.servers]

    descriptors, at_servers = proxy.descriptors, connections()
    for number in range(1000):
        client = RawClient(proxy.address)
        client.say(said[number % len(said)])
        if number % 3:
            client.vanish()
        else:
            client.socket.close()
    with RawClient(proxy.address) as other:
        assert other.ask(b"PING\r\n") == b"+PONG\r\n"
    await eventually(lambda: proxy.clients == 0)
    await eventually(lambda: proxy.descriptors <= descriptors + 3)  # lanes of other kinds may stay open a while
    await eventually(lambda: all(now <= then + 3 for now, then in zip(connections(), at_servers, strict=True)))


def test_multi__while_a_script_is_busy__exec_aborts(proxy: EmbeddedProxy, redis_group: RedisGroup) -> None:
    """As in Redis' own suite, "MULTI and script timeout"; here a busy server also greets no new connection."""
    redis_group.master.command("CONFIG", "SET", "busy-reply-threshold", 10)
    with RawClient(proxy.address) as script, RawClient(proxy.address) as client, RawClient(proxy.address) as killer:
        killer.ask(b"TYPE k\r\n")  # over a connection that stands when the script begins
        script.say(b"EVAL 'while true do end' 0\r\n")
        while not killer.ask(b"TYPE k\r\n").startswith(b"-BUSY"):
            pass
        assert client.ask(b"MULTI\r\n") == b"+OK\r\n"
        client.ask(b"INCR xx\r\n")
        assert killer.ask(b"SCRIPT KILL\r\n") == b"+OK\r\n"
        script.hears(b"-ERR Script killed by user")
        assert client.ask(b"INCR xx\r\n") == b"+QUEUED\r\n"
        assert client.ask(b"EXEC\r\n").startswith(b"-EXECABORT Transaction discarded because of previous errors.")
        assert client.ask(b"GET xx\r\n") == b"$-1\r\n"


def test_monitor_sees_what_others_do(proxy: EmbeddedProxy, client: RawClient) -> None:
    assert client.ask(b"MONITOR\r\n") == b"+OK\r\n"
    with RawClient(proxy.address) as other:
        assert other.ask(b"SET seen yes\r\n") == b"+OK\r\n"
    line = b""
    while b'"seen"' not in line:  # the manager's own commands are seen as well
        line = client.ask(b"")
        assert re.fullmatch(rb'\+\d+\.\d{6} \[\d+ [\d.:]+\] "[^\n]*"\r\n', line), line
    assert line.endswith(b'"SET" "seen" "yes"\r\n')


def test_configuration_is_the_servers(redis_group: RedisGroup, client: RawClient) -> None:
    assert client.ask(b"CONFIG SET maxmemory-samples 7\r\n") == b"+OK\r\n"
    client.say(b"CONFIG GET maxmemory-samples\r\n")
    client.hears(b"*2\r\n$17\r\nmaxmemory-samples\r\n$1\r\n7\r\n")
    assert redis_group.master.command("CONFIG", "GET", "maxmemory-samples") == {"maxmemory-samples": "7"}
    assert client.ask(b"CONFIG REWRITE\r\n") == b"+OK\r\n"


@pytest.mark.parametrize("allowed", ["no", "yes"])
def test_debug_is_what_the_server_permits(tmp_path: Path, allowed: str) -> None:
    with RedisGroup(1, enable_debug_command=allowed) as group, EmbeddedProxy(group, tmp_path) as proxy:
        heard = []
        for address in (proxy.address, group.master.node):
            with RawClient(address) as client:
                words = (b"DEBUG SLEEP 0", b"DEBUG SET-ACTIVE-EXPIRE 1", b"DEBUG NONSENSE", b"DEBUG")
                heard.append([client.ask(each + b"\r\n") for each in words])
    assert heard[0] == heard[1]
