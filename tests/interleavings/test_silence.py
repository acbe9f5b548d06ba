"""Histories with servers that fall silent and come back: each client hears what it asked for, once and in order."""

from __future__ import annotations

from typing import Any

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st

from rfprotocol.network.tcp_info import TcpInfo
from tests.interleavings.echo import EchoServers
from tests.support.playbook import Playbook

CLIENTS = 4
NAMES = ("m:1", "r:1", "r:2")
GONE = TcpInfo(unacked=1, last_sent=0.1, last_acked=3600.0, last_received=3600.0)
PIECE = 7
"""Bytes of a reply that come first, when it comes in two parts."""

says = st.tuples(
    st.just("says"),
    st.integers(0, CLIENTS - 1),
    st.lists(st.sampled_from(["GET", "GET", "GET", "GET", "HGETALL", "EVAL_RO", "SET"]), min_size=1, max_size=3),
)
answers = st.tuples(st.just("answers"), st.integers(0, 5), st.booleans())
"""Which connection says something, of those that have something to say; and whether a whole reply."""
passes = st.tuples(st.just("passes"), st.sampled_from([0.2, 0.8, 1.2, 1.2, 6.0]), st.none())
kernel = st.tuples(st.just("kernel"), st.sampled_from(NAMES), st.booleans())
hush = st.tuples(st.just("hush"), st.sampled_from(NAMES), st.booleans())
ends = st.tuples(st.just("ends"), st.integers(0, 5), st.none())
"""A server ends one of its connections, with nothing in flight: it may be about to end the others."""
leaves = st.tuples(st.just("leaves"), st.integers(0, CLIENTS - 1), st.none())


class History:
    """Clients and servers, and what was asked for."""

    def __init__(self) -> None:
        self.play = Playbook()
        self.play.topology(1, master="m:1", replicas=["r:1", "r:2"])
        self.servers = EchoServers(self.play, NAMES, PIECE)
        self.clients = [self.play.client() for _ in range(CLIENTS)]
        self.asked: list[list[bytes]] = [[] for _ in self.clients]
        self.written: list[bytes] = []
        self.gone: set[int] = set()
        self.give_up = self.play.time + 20.0

    def says(self, who: int, verbs: list[str]) -> None:
        """A client sends these in one packet."""
        if who in self.gone:
            return
        number, lines = sum(map(len, self.asked)), []
        for place, verb in enumerate(verbs, number):
            key = f"key:{place}"
            lines.append(f"{verb} {key}" + {"SET": " v", "EVAL_RO": " 0"}.get(verb, ""))
            self.asked[who].append(key.encode())
            self.written += [key.encode()] * (verb == "SET")
        self.clients[who].pipelines(*lines)

    def answers(self, which: int, whole: bool) -> None:
        """A server sends a reply, or a part of it."""
        self.servers.answer(which, whole=whole)

    def passes(self, seconds: float, _: None) -> None:
        """Nothing is heard of anybody. After hold_timeout, 30 s, reads may be given up."""
        if self.play.time + seconds < self.give_up:
            self.play.listen(seconds)

    def kernel(self, name: str, gone: bool) -> None:
        """A host is cut off, or back."""
        self.play.server(name).kernel = GONE if gone else None

    def hush(self, name: str, silent: bool) -> None:
        """A server greets no new connections, or does again."""
        self.play.server(name).silent = silent

    def ends(self, which: int, _: None) -> None:
        """A connection to a server ends."""
        self.servers.end_idle(which)

    def leaves(self, who: int, _: None) -> None:
        """A client closes its connection."""
        if who not in self.gone:
            self.gone.add(who)
            self.clients[who].leaves()

    def end(self) -> None:
        """All is well again, and everything is answered."""
        for name in NAMES:
            self.kernel(name, False)
            self.hush(name, False)
        for _ in range(3):
            while self.servers.answer(0, whole=True):
                pass
            self.play.listen(3.0)


@settings(max_examples=200)
@given(
    steps=st.lists(
        st.one_of(says, says, says, answers, answers, passes, passes, kernel, hush, ends, leaves),
        min_size=12,
        max_size=40,
    )
)
def test_silence__any_history__each_client_hears_what_it_asked(steps: list[tuple[str, Any, Any]]) -> None:
    history = History()
    for kind, one, other in steps:
        getattr(history, kind)(one, other)
    history.end()
    for number, (client, keys) in enumerate(zip(history.clients, history.asked, strict=True)):
        heard = replies(client.output)
        assert heard == keys[: len(heard)]
        assert number in history.gone or (len(heard) == len(keys) and client.session.outstanding == 0)
    executed, router = history.servers.written, history.play.router
    assert len(set(executed)) == len(executed)
    assert set(executed) <= set(history.written)
    assert not history.play.log.events("defect")
    assert not router.silent
    assert not router.watch.busy


def replies(output: bytes) -> list[bytes]:
    """What a client heard, one after the other."""
    reader = hiredis.Reader()
    reader.feed(output)
    return list(iter(reader.gets, False))
