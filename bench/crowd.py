"""The load in several processes, so that clients do not wait for each other instead of for the servers.

The threads of one Python process take turns. At 3200 commands a second that alone makes some of them wait for tens of
milliseconds, as long as what is to be measured.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import redis

from bench.load import Load
from bench.seen import Ledger, Result

PROCESSES = 4
HEADSTART = 0.1
"""Seconds from the word to the first command, so that all have heard it."""


class Crowd:
    """`load` makes the connections with these numbers, in a process of its own. It need not be picklable."""

    def __init__(self, load: Callable[[range], Load], connections: int) -> None:
        context = multiprocessing.get_context("fork")
        self._members: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        for first in range(PROCESSES):
            here, there = context.Pipe()
            numbers = range(first, connections, PROCESSES)
            process = context.Process(target=_work, args=(load, numbers, there), daemon=True)
            process.start()
            there.close()
            self._members.append((process, here))

    def start(self) -> None:
        """Begin together. Raises redis.RedisError when a first write is refused."""
        for _, member in self._members:
            problem = member.recv()
            if problem is not None:
                raise redis.RedisError(problem)
        at = time.monotonic() + HEADSTART
        for _, member in self._members:
            member.send(at)

    def stop(self) -> Result:
        """End, after the commands in flight, and compare what was written with what is there."""
        for _, member in self._members:
            member.send(None)
        results: list[Result] = [member.recv() for _, member in self._members]
        for process, _ in self._members:
            process.join()
        operations = [operation for result in results for operation in result.operations]
        return Result(
            max(result.since for result in results),
            min(result.until for result in results),
            sorted(operations, key=lambda operation: operation.ended),
            sum((result.ledger for result in results if result.ledger), Ledger()),
        )


def _work(make: Callable[[range], Load], numbers: range, parent: Connection) -> None:
    """In the process of its own: prepare, begin when told, end when told."""
    gc.disable()  # it would stop all connections of this process now and then
    load = make(numbers)
    try:
        load.prepare()
    except redis.RedisError as error:
        parent.send(str(error))
        return
    parent.send(None)
    load.start(parent.recv())
    parent.recv()
    parent.send(load.stop())
