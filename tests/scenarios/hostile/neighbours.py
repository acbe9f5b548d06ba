"""Hostile clients, each a process of its own:

    python -m tests.scenarios.hostile.neighbours 127.0.0.1:6380 blocked 5

It harasses that address in the way of its name for about so many seconds, and prints in one line what it was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import selectors
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploy.processes import Process
from rfprotocol.resp.resp import encode_command
from rfprotocol.topology.topology import Node
from tests.support.eventually import eventually

PATIENCE = 30.0
"""Seconds that a neighbour waits for an answer."""
BIG = b"hostile:big"
"""A key with `stages.BIG_SIZE` bytes."""
LARGE = b"hostile:large"
"""A key with 1 MB."""
LIST = b"hostile:list"
"""A list that takes seconds to be sorted."""
PIPELINE = 300_000
"""Commands: more than the buffers of all sockets between hold."""
FLOODERS = 20
"""Clients that connect and close at the same time."""
TLS_HELLO = bytes.fromhex("16030100050100000103030000") + bytes(40)
PROBES = (
    TLS_HELLO,
    b"GET / HTTP/1.1\r\nHost: redis\r\nUser-Agent: scanner\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: redis\r\nContent-Length: 4\r\n\r\nabcd",
    b"OPTIONS * RTSP/1.0\r\n\r\n",
    b"\x00\x01\x02\x03" * 1000,
    b"",
)
"""First words of port scanners."""


# --- single commands


def _ask(address: Node, *command: bytes, database: int = 0, times: int = 1) -> str:
    """The beginning of the first answer and how many bytes came, or how the connection ended."""
    with _connected(address) as client:
        if database:
            client.sendall(encode_command([b"SELECT", b"%d" % database]))
            assert client.recv(100) == b"+OK\r\n"
        client.sendall(encode_command(list(command)) * times)
        return _heard(client)


def _heard(client: socket.socket) -> str:
    first, count = b"", 0
    try:
        while data := client.recv(1 << 20):
            first, count = first or data[:200], count + len(data)
            if count <= 1000 and data.endswith(b"\r\n"):
                return first.decode(errors="replace").strip()
            client.settimeout(1.0)
    except TimeoutError:
        return f"{count} bytes" if count else "no answer"
    except OSError as error:
        return f"closed: {error.strerror}"
    return f"closed after {count} bytes"


def set_range(address: Node, seconds: float) -> str:
    """A write that the server has no memory for."""
    return _ask(address, b"SETRANGE", b"hostile:huge", b"300000000", b"y")


def many_large(address: Node, seconds: float) -> str:
    """A read that the server has no memory for."""
    return _ask(address, b"MGET", BIG, BIG, BIG, BIG)


def big_reply(address: Node, seconds: float) -> str:
    """A reply above the output limit of the servers."""
    return _ask(address, b"GET", BIG)


def slow_read(address: Node, seconds: float) -> str:
    """A read that takes seconds."""
    return _ask(address, b"SORT_RO", LIST, b"ALPHA", b"LIMIT", b"0", b"1")


def flush(address: Node, seconds: float) -> str:
    """A database of many keys is emptied."""
    return _ask(address, b"FLUSHDB", database=1)


def pipeline(address: Node, seconds: float) -> str:
    """Hundreds of thousands of commands are written before any reply is read."""
    count, key, value = PIPELINE, b"hostile:piped:" + b"k" * 50, b"v" * 256
    with _connected(address) as client:
        client.sendall(encode_command([b"SET", key, value]) * count)
        _take(client, count * len(b"+OK\r\n"))
        client.sendall(encode_command([b"GET", key]) * count)
        _take(client, count * len(b"$256\r\n%b\r\n" % value))
    return "completed"


def _take(client: socket.socket, size: int) -> None:
    while size:
        data = client.recv(min(size, 1 << 20))
        if not data:
            raise EOFError(f"closed, {size} bytes are missing")
        size -= len(data)


# --- many clients


def scripts(address: Node, seconds: float) -> str:
    """300 clients that call scripts all the time."""
    return _repeat(address, 300, encode_command([b"EVAL", b"return 1", b"0"]), seconds)


def blocked(address: Node, seconds: float) -> str:
    """3,000 blocked pops."""
    return _repeat(address, 3000, encode_command([b"BLPOP", b"hostile:nothing", b"120"]), seconds)


def pops(address: Node, seconds: float) -> str:
    """300 blocked pops: more than the servers have room for."""
    return _repeat(address, 300, encode_command([b"BLPOP", b"hostile:nothing", b"120"]), seconds)


def short_pops(address: Node, seconds: float) -> str:
    """300 pops that block for a second, again and again."""
    return _repeat(address, 300, encode_command([b"BLPOP", b"hostile:nothing", b"1"]), seconds)


def _repeat(address: Node, clients: int, command: bytes, seconds: float) -> str:
    """Each client says the same again when it was answered; what errors they got, and how often."""
    heard: Counter[str] = Counter()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = stack.enter_context(_connected(address))
            client.sendall(command)
            selector.register(client, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                data = _received(key.fileobj)
                heard[data[:200].decode(errors="replace").strip() if data[:1] == b"-" else "ok" if data else "eof"] += 1
                try:
                    key.fileobj.sendall(command if data else b"")
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(key.fileobj)
    return ", ".join(f"{count} x {text}" for text, count in heard.most_common(5)) or "nothing"


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(1000)
    except OSError:
        return b""


def slow_readers(address: Node, seconds: float) -> str:
    """Clients that ask for 500 MB of values, and do not read."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_connected(address)) for _ in range(5)]
        for client in clients:
            client.sendall(encode_command([b"GET", LARGE]) * 100)
        time.sleep(seconds)
        return f"{len(clients)} that do not read"


def connections(address: Node, seconds: float) -> str:
    """Connections that are opened and closed at once, as fast as it goes."""
    return asyncio.run(_flood(address, (b"",), seconds))


def scans(address: Node, seconds: float) -> str:
    """Port scanners, that speak TLS, HTTP, and nonsense."""
    return asyncio.run(_flood(address, PROBES, seconds))


async def _flood(address: Node, words: Sequence[bytes], seconds: float) -> str:
    end = time.monotonic() + seconds
    counts = await asyncio.gather(*(_flooder(address, words, end) for _ in range(FLOODERS)))
    return f"{sum(counts)} connections"


async def _flooder(address: Node, words: Sequence[bytes], end: float) -> int:
    count = 0
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            if said := words[count % len(words)]:
                writer.write(said)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), 0.1)
            writer.transport.abort() if count % 2 else writer.close()
        count += 1
    return count


NEIGHBOURS: dict[str, Callable[[Node, float], str]] = {
    neighbour.__name__: neighbour
    for neighbour in (
        set_range,
        many_large,
        big_reply,
        slow_read,
        flush,
        pipeline,
        scripts,
        blocked,
        pops,
        short_pops,
        slow_readers,
        connections,
        scans,
    )
}


async def harass(name: str, address: Node, seconds: float) -> str:
    """Let that neighbour do its worst; what it was answered."""
    with tempfile.TemporaryDirectory(prefix="rf-neighbour-") as folder:
        words = [sys.executable, "-m", __name__, str(address), name, str(seconds)]
        process = Process(words, Path(folder) / "answer", {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        process.start()
        try:
            await eventually(lambda: not process.alive)
        finally:
            process.kill()
        return process.last_words().strip()


@contextlib.contextmanager
def _connected(address: Node) -> Iterator[socket.socket]:
    with socket.create_connection((address.host, address.port), PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def main(argv: Sequence[str] | None = None) -> None:
    """Print what the neighbour was answered."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("address", type=Node.parse)
    options.add_argument("name", choices=NEIGHBOURS)
    options.add_argument("seconds", type=float)
    arguments = options.parse_args(argv)
    try:
        print(NEIGHBOURS[arguments.name](arguments.address, arguments.seconds))
    except (OSError, EOFError) as error:
        print(f"failed: {error}")


if __name__ == "__main__":
    main()
