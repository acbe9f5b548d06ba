"""Keeps the records of a store in memory in a file, in a thread of its own: `memory.Keeper`.

Of the states that wait for the disk only the newest is written. Whoever commits or reads waits until that is done, but
not for a disk that is slow: after PATIENCE the store goes on without it, until the disk has caught up. So a disk that
stands still costs a change of master that time once. Changes that may be forgotten, because whoever comes next finds
the same and makes them again, are not waited for at all.

Needs asyncio: it waits for a thread, in bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from rfprotocol.store.interface import Change
from rfprotocol.store.memory import TreeState

PATIENCE = 0.5
"""Seconds that the disk is waited for."""
RETRY = 1.0
"""Seconds until it is tried again after an error, such as of a disk that is full."""
LAST_CHANCE = 2.0
"""Seconds that the disk has for the last state, at the end."""


class TreeKeeper:
    """`save(state)` waits for the disk and may raise OSError; `where` is what the log calls the file."""

    def __init__(
        self,
        save: Callable[[TreeState], None],
        where: str,
        may_be_forgotten: Callable[[tuple[Change, ...]], bool] = lambda changes: False,
    ) -> None:
        self.problem = ""
        """Why what has changed last is not kept; empty when it is."""
        self._save = save
        self._where = where
        self._may_be_forgotten = may_be_forgotten
        self._disk = _thread()
        self._closed = False
        self._newest: TreeState | None = None  # what is not written yet
        self._changes = 0  # so many there were,
        self._needed = 0  # up to this one they are waited for,
        self._written = 0  # and up to this one they are kept
        self._writing: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    def changed(self, state: TreeState, changes: tuple[Change, ...]) -> None:
        """See `Keeper`."""
        self._newest = state
        self._changes += 1
        if not self._may_be_forgotten(changes):
            self._needed = self._changes
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def kept(self) -> None:
        """See `Keeper`."""
        needed = self._needed
        try:
            async with asyncio.timeout(PATIENCE):
                while self._written < needed and not self.problem:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._complain(f"the disk has not answered for {PATIENCE:g} s")

    async def close(self) -> None:
        """Write what is not written yet, in bounded time, and no more."""
        self._closed = True
        if (writing := self._writing) is not None:
            await asyncio.wait([writing], timeout=LAST_CHANCE)
            writing.cancel()
            await asyncio.wait([writing])
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def _write(self) -> None:
        """Until nothing newer has come."""
        loop = asyncio.get_running_loop()
        try:
            while self._newest is not None:
                state, number = self._newest, self._changes
                self._newest = None
                try:
                    await loop.run_in_executor(self._disk, self._save, state)
                except (OSError, RuntimeError) as error:
                    if self._closed and isinstance(error, RuntimeError):
                        return
                    self._newest = self._newest or state
                    if isinstance(error, RuntimeError):  # no thread can be started, and what it was to do is kept there
                        self._disk.shutdown(wait=False, cancel_futures=True)
                        self._disk = _thread()
                    self._complain(getattr(error, "strerror", None) or str(error))
                    await asyncio.sleep(RETRY)
                else:
                    self._written = number
                    self._caught_up()
        finally:
            self._writing = None

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            structlog.get_logger().error(
                "record_not_kept",
                path=self._where,
                error=f"{problem}: what changes now is forgotten when this program ends before the disk is well",
            )
        self._moved.set()

    def _caught_up(self) -> None:
        if self.problem and self._written >= self._needed:
            self.problem = ""
            structlog.get_logger().info("record_kept", path=self._where)
        self._moved.set()


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")
