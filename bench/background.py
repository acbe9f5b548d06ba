"""A steady load in the background, from a process of its own, and how long each answer took.

    with Background(address, connections=50, rate=2000) as load:
        ...
        answers = load.finish()
    answers.during((since, until)).p99

Commands are sent when they are due, whatever became of those before (an open load): a server that stops for a second
is seen by all that came in that second, not by one command of each connection. Keys are `load:<connection>`, values
have 64 bytes, and one command in five is SET, the others GET.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self, cast

import hiredis
import uvloop

from rfprotocol.resp.resp import encode_command
from rfprotocol.topology.topology import Node

VALUE = b"x" * 64
SET_EVERY = 5
TURN = 0.001
"""Seconds between two looks at what is due."""
LATEST = 0.01
"""Seconds of commands that are made up for when this process was late: older ones are left out, not sent in a burst."""
PATIENCE = 5.0
"""Seconds at the end for what is not answered yet."""
AT_ONCE = 100
"""Connections that are opened at the same time."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of some commands; times in seconds, 0 when there were none."""

    count: float = 0
    p50: float = 0.0
    p99: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class Answers:
    """When each command was sent (monotonic clock), and how long it waited, in seconds; what failed."""

    sent: array[float] = field(default_factory=lambda: array("d"))
    waited: array[float] = field(default_factory=lambda: array("d"))
    errors: list[str] = field(default_factory=list)
    left_out: list[float] = field(default_factory=list)
    """When commands were due that were never sent, because this process had no time for them."""

    def add(self, sent: float, now: float) -> None:
        """Note one answer, or that there will be none."""
        self.sent.append(sent)
        self.waited.append(now - sent)

    def missing(self, *times: tuple[float, float]) -> int:
        """How many commands were left out in these times."""
        return sum(any(since < due <= until for since, until in times) for due in self.left_out)

    def during(self, *times: tuple[float, float]) -> Latency:
        """Of commands that waited for an answer at a moment of these times, each from its begin to its end."""
        return latency(
            [
                waited
                for sent, waited in zip(self.sent, self.waited, strict=True)
                if any(sent < until and sent + waited > since for since, until in times)
            ]
        )


def latency(waits: Sequence[float]) -> Latency:
    """Sum up."""
    if not waits:
        return Latency()
    waits = sorted(waits)
    return Latency(len(waits), waits[len(waits) // 2], waits[int(len(waits) * 0.99)], waits[-1])


class Background:
    """`connections` to `address`, `rate` commands per second of all together; all are open when the block begins."""

    def __init__(self, address: Node, *, connections: int, rate: float) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, address, connections, rate), daemon=True)

    def __enter__(self) -> Self:
        """Raises OSError when not all can connect."""
        self._process.start()
        problem = self._here.recv()
        if problem is not None:
            raise OSError(problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    def finish(self) -> Answers:
        """Send no more, and return what was seen when all is answered."""
        self._here.send(None)
        return cast(Answers, self._here.recv())


# --- in the process of its own


def _work(parent: Connection, address: Node, connections: int, rate: float) -> None:
    gc.disable()  # it would stop all connections now and then
    uvloop.run(_generate(parent, address, connections, rate))


async def _generate(parent: Connection, address: Node, connections: int, rate: float) -> None:
    answers = Answers()
    try:
        clients = await _connect(address, connections, answers)
    except OSError as error:
        parent.send(str(error))
        return
    parent.send(None)
    told = asyncio.create_task(asyncio.to_thread(parent.recv))
    if rate:
        await _send(clients, rate, told, answers.left_out)
    await told
    await asyncio.wait([asyncio.create_task(client.idle()) for client in clients], timeout=PATIENCE)
    for client in clients:
        client.give_up("no answer")
    parent.send(answers)


async def _connect(address: Node, count: int, answers: Answers) -> list[_Client]:
    """Open all and let each say something, so that none is a mere socket."""
    loop = asyncio.get_running_loop()
    clients = [_Client(number, answers) for number in range(count)]
    places = asyncio.Semaphore(AT_ONCE)

    async def connect(client: _Client) -> None:
        async with places:
            await loop.create_connection(lambda: client, address.host, address.port)
        client.send()
        await client.idle()

    await asyncio.gather(*map(connect, clients))
    return clients


async def _send(clients: Sequence[_Client], rate: float, until: asyncio.Task[None], left_out: list[float]) -> None:
    turns = itertools.cycle(clients)
    due = time.monotonic()
    while not until.done():
        now = time.monotonic()
        while due < now - LATEST:
            left_out.append(due)
            due += 1 / rate
        while due <= now:
            next(turns).send()
            due += 1 / rate
        await asyncio.sleep(TURN)


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, number: int, answers: Answers) -> None:
        self._answers = answers
        self._reader = hiredis.Reader()
        self._waiting: deque[float] = deque()
        self._idle = asyncio.Event()
        key = b"load:%d" % number
        commands = [[b"SET", key, VALUE], *[[b"GET", key]] * (SET_EVERY - 1)]
        self._commands = itertools.cycle([encode_command(words) for words in commands])
        self._transport: asyncio.Transport | None = None

    def send(self) -> None:
        """Send the next command; on a broken connection it fails at once."""
        self._waiting.append(time.monotonic())
        self._idle.clear()
        if self._transport is None:
            self.give_up("not connected")
        else:
            self._transport.write(next(self._commands))

    async def idle(self) -> None:
        """Return when all is answered."""
        await self._idle.wait()

    def give_up(self, why: str) -> None:
        """Count commands that are unanswered by now as errors."""
        self._answers.errors.extend([why] * len(self._waiting))
        self._note(len(self._waiting))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It may send."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Replies."""
        self._reader.feed(data)
        replies = 0
        while (reply := self._reader.gets()) is not False:
            replies += 1
            if isinstance(reply, hiredis.ReplyError):
                self._answers.errors.append(str(reply))
        self._note(replies)

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is answered any more."""
        self._transport = None
        self.give_up("connection lost")

    def _note(self, count: int) -> None:
        now = time.monotonic()
        for _ in range(count):
            self._answers.add(self._waiting.popleft(), now)
        if not self._waiting:
            self._idle.set()
