"""What must hold for any bytes at all. Each check takes a seeded source of chance, and raises AssertionError."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from itertools import accumulate, cycle
from random import Random
from typing import NamedTuple

import hiredis

from rfprotocol.errors import ProtocolError
from rfprotocol.resp.reply_scanner import Taken
from rfprotocol.resp.resp import encode_commands, error
from rfprotocol.topology.topology import Node
from tests.fuzz import corpus, reference
from tests.fuzz.builds import Build

# -- requests


class Read(NamedTuple):
    """All that a reader made of some pieces."""

    commands: list[list[bytes]]
    raw: bytes
    error: str | None


def read(build: Build, pieces: Iterable[bytes], *, logins: Iterable[bool] | None = None) -> Read:
    """Feed a new reader. `logins`: of a stranger, whether each AUTH or HELLO succeeds; they are answered at once."""
    reader = build.RequestReader(authenticated=logins is None)
    outcomes = iter(logins or ())
    commands: list[list[bytes]] = []
    raw: list[bytes] = []
    for piece in pieces:
        found = reader.feed(piece)
        while True:
            commands += found.commands
            raw.append(found.raw)
            if found.error is not None:
                return Read(commands, b"".join(raw), found.error.reply)
            if not reader.awaits_login:
                break
            found = reader.login_answered(authenticated=next(outcomes))
    return Read(commands, b"".join(raw), None)


def requests(build: Build, rng: Random) -> None:
    """Whatever the pieces, the reader reads what the reference reads in one, and passes on exactly that."""
    logins = cycle([rng.random() < 0.5 for _ in range(5)]) if rng.random() < 0.3 else None
    data = corpus.requests(rng, logins=logins is not None)
    outcomes = None if logins is None else [next(logins) for _ in range(data.count(b"\n") + 1)]
    expected = reference.read(data, logins=None if outcomes is None else iter(outcomes))
    for pieces in ([data], corpus.cuts(rng, data)):
        found = read(build, pieces, logins=outcomes)
        assert (found.commands, found.error) == expected, pieces
        assert reference.read(found.raw) == (found.commands, None), pieces


def redis(build: Build, rng: Random, node: Node) -> None:
    """A real server answers the bytes of a client as it answers the commands that were read, and the same error."""
    data = corpus.requests(rng)
    found = read(build, corpus.cuts(rng, data))
    clean = answer(node, encode_commands(found.commands))
    assert answer(node, data) == clean + (error(found.error) if found.error else b""), data


def answer(node: Node, data: bytes) -> bytes:
    """All that a server says to these bytes, until it hangs up."""
    received = b""
    with socket.create_connection((node.host, node.port), timeout=30) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except OSError:
            pass  # it hung up while more was on its way
    return received


# -- replies


class Framed(NamedTuple):
    """All that a scanner gave out; `refused` when it found bytes that are no reply."""

    data: bytes
    count: int  # type: ignore[assignment]  # hides tuple.count, as in framing
    has_error: bool
    pushes: list[bytes]
    refused: bool = False


def told(taken: Taken) -> tuple[bytes, int, bool, bool]:
    """All that a scanner has said."""
    return taken.data, taken.count, taken.has_error, taken.partial


def frame(build: Build, pieces: Iterable[bytes], most: int = 1 << 30, *, long: int = 0) -> Framed:
    """Feed a new scanner and take all it has, after each piece; with `long`, also parts of replies of that length."""
    scanner = build.ReplyScanner(long=long) if long else build.ReplyScanner()
    given: list[bytes] = []
    count, has_error, refused = 0, False, False
    try:
        for piece in pieces:
            scanner.feed(piece)
            while (taken := scanner.take(most, parts=long > 0)).data:
                assert taken.count <= (1 if taken.partial else most)
                assert long or not taken.partial
                assert taken.partial or taken.count == len(build.split(taken.data))
                given.append(taken.data)
                count += taken.count
                has_error = has_error or taken.has_error
            assert told(taken) == (b"", 0, False, False)
    except ProtocolError:
        refused = True
    return Framed(b"".join(given), count, has_error, scanner.pushes, refused)


def replies(build: Build, rng: Random) -> None:
    """Good replies are counted, and pushes set aside, in any pieces; hiredis finds the same ends."""
    protocol = rng.choice([2, 3])
    items = [corpus.reply(rng, protocol) for _ in range(rng.randrange(6))]
    data = b"".join(item.data for item in items)
    plain = [item for item in items if not item.push]
    pushes = [item.data for item in items if item.push]
    expected = Framed(b"".join(item.data for item in plain), len(plain), any(item.error for item in plain), pushes)
    for pieces in ([data], corpus.cuts(rng, data)):
        for long in (0, 1, 50):
            assert frame(build, pieces, rng.choice([1, 2, 1 << 30]), long=long) == expected, pieces
    assert build.split(data) == [item.data for item in items]
    _same_ends(build, data, [*accumulate(len(item.data) for item in items)])


def damaged_replies(build: Build, rng: Random) -> None:
    """Noise is framed or refused, the same in any pieces; and where hiredis makes sense of it, it is framed alike."""
    protocol = rng.choice([2, 3])
    data = corpus.mutate(rng, b"".join(corpus.reply(rng, protocol).data for _ in range(rng.randrange(1, 5))))
    whole = frame(build, [data])
    for long in (0, 1, 50):
        found = frame(build, corpus.cuts(rng, data), rng.choice([1, 2, 1 << 30]), long=long)
        if not whole.refused and not long:
            assert found == whole, data
        elif not whole.refused:  # more of the last reply may have been given out
            assert found.data.startswith(whole.data), data
            assert found._replace(data=whole.data) == whole, data
        assert found.refused == whole.refused, data
    if b"|" not in data and not _ALLOCATES.search(data):
        _same_ends(build, data)


_MORE = object()
_ALLOCATES = re.compile(rb"[*%~>][0-9]{4}")
"""hiredis takes such headers at their word."""


def _same_ends(build: Build, data: bytes, ends: list[int] | None = None) -> None:
    by_hiredis, sound = _ends_by_hiredis(data)
    found, refused = _ends(build, data)
    assert ends is None or (found, refused) == (ends, False), data
    assert (found if sound else found[: len(by_hiredis)]) == by_hiredis, data


def _ends(build: Build, data: bytes) -> tuple[list[int], bool]:
    """Where replies and pushes end, and whether there are bytes behind them that are neither."""
    found: list[int] = []
    scanner = build.ReplyScanner(pushes_apart=False)
    for place in range(len(data)):
        try:
            scanner.feed(data[place : place + 1])
            found += [place + 1] * scanner.take(1 << 30).count
        except ProtocolError:
            return found, True
    return found, False


def _ends_by_hiredis(data: bytes) -> tuple[list[int], bool]:
    """Where hiredis sees them end, and whether it read all. It sees an attribute as a reply of its own.

    It also gives up where a type is new to it (`!`), and where a key of a map is a list.
    """
    reader = hiredis.Reader(notEnoughData=_MORE)
    ends: list[int] = []
    start = 0
    for place in range(len(data)):
        try:
            reader.feed(data[place : place + 1])
            complete = reader.gets() is not _MORE
        except (hiredis.ProtocolError, TypeError):
            return ends, False
        if complete:
            if data[start : start + 1] != b"|":
                ends.append(place + 1)
            start = place + 1
    return ends, True


ALL = {"requests": requests, "replies": replies, "damaged replies": damaged_replies}
