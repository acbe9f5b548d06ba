"""Histories with very long replies, in pieces: each client hears what it asked for, once, whole and in order."""

from __future__ import annotations

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st

from rfproxy.upstream.long_reply_reissue import WORTH
from tests.interleavings.echo import EchoServers
from tests.support.playbook import Playbook

PART = 1 << 20
HUGE = WORTH + 2 * PART
CLIENTS = 4

says = st.tuples(
    st.integers(0, CLIENTS - 1), st.lists(st.sampled_from(["GET", "GET", "SET", "GET huge"]), min_size=1, max_size=3)
)
answers = st.tuples(st.integers(0, 3), st.booleans())
"""Which connection says something, of those that have something to say; and whether all that is left of one reply."""


def value(key: bytes) -> bytes:
    """What a key has, filled up if that is to be huge."""
    return key.ljust(HUGE, b".") if key.startswith(b"huge") else key


@settings(max_examples=40)
@given(reads_replica=st.booleans(), steps=st.lists(st.one_of(says, says, answers), max_size=40))
def test_each_client_hears_what_it_asked_for(
    reads_replica: bool, steps: list[tuple[int, list[str]] | tuple[int, bool]]
) -> None:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"] if reads_replica else [])
    servers, clients = EchoServers(play, ("m:1", "r:1"), PART, value), [play.client() for _ in range(CLIENTS)]
    asked: list[list[bytes]] = [[] for _ in clients]
    written = []
    for number, (who, what) in enumerate(steps):
        if isinstance(what, bool):
            servers.answer(who, whole=what)
            continue
        lines = []
        for place, words in enumerate(what):
            verb, _, kind = words.partition(" ")
            key = f"{kind}{number}:{place}"
            lines.append(f"{verb} {key}" + " v" * (verb == "SET"))
            asked[who].append(key.encode())
            written += [key.encode()] * (verb == "SET")
        clients[who].pipelines(*lines)
    while servers.answer(0, whole=True):
        pass
    for client, keys in zip(clients, asked, strict=True):
        assert [reply.rstrip(b".") for reply in replies(client.output)] == keys
        assert client.session.outstanding == 0
    assert sorted(servers.written) == sorted(written)


def replies(output: bytes) -> list[bytes]:
    """What a client heard, one after the other."""
    reader = hiredis.Reader()
    reader.feed(output)
    return list(iter(reader.gets, False))
