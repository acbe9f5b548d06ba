"""Histories with very long replies, in pieces: each client hears what it asked for, once, whole and in order."""

from __future__ import annotations

import hiredis
from hypothesis import given, settings
from hypothesis import strategies as st

from rfproxy.overtaking import WORTH
from tests.support.playbook import FakeConnection, Playbook

PART = 1 << 20
HUGE = WORTH + 2 * PART
CLIENTS = 4

says = st.tuples(
    st.integers(0, CLIENTS - 1), st.lists(st.sampled_from(["GET", "GET", "SET", "GET huge"]), min_size=1, max_size=3)
)
answers = st.tuples(st.integers(0, 3), st.booleans())
"""Which connection says something, of those that have something to say; and whether all that is left of one reply."""


class Servers:
    """Everything that is asked for is answered with its key, in the order of each connection."""

    def __init__(self, play: Playbook) -> None:
        self._play = play
        self._begun: dict[FakeConnection, bytes] = {}
        self.written: list[bytes] = []

    def answer(self, which: int, *, whole: bool) -> bool:
        """Let one of them say something; False when nobody has anything to say."""
        self._play.settle()
        live = [one for node in ("m:1", "r:1") for one in self._play.server(node).live]
        busy = [one for one in live if one in self._begun or one.commands]
        if not busy:
            return False
        one = busy[which % len(busy)]
        data = self._begun.pop(one, b"") or self._reply(one.commands.pop(0))
        size = len(data) if whole else PART
        if data[size:]:
            self._begun[one] = data[size:]
        one.answers(data[:size])
        return True

    def _reply(self, command: list[bytes]) -> bytes:
        key = command[1]
        if command[0] == b"SET":
            self.written.append(key)
        value = key.ljust(HUGE, b".") if key.startswith(b"huge") else key
        return b"$%d\r\n%s\r\n" % (len(value), value)


@settings(max_examples=40)
@given(reads_replica=st.booleans(), steps=st.lists(st.one_of(says, says, answers), max_size=40))
def test_each_client_hears_what_it_asked_for(
    reads_replica: bool, steps: list[tuple[int, list[str]] | tuple[int, bool]]
) -> None:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"] if reads_replica else [])
    servers, clients = Servers(play), [play.client() for _ in range(CLIENTS)]
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
