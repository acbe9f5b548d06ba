"""Waits for an event, for a bounded time; waits for tasks of which one may fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection


async def wait_for(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after so many seconds; with None there is no bound."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def all_done(tasks: Collection[asyncio.Future[None]]) -> None:
    """Return when all are done, or raise the first failure; the others are cancelled then, as when this is cancelled.

    Not `asyncio.gather`: if one task has just failed when the caller is cancelled, that raises the failure in place of
    CancelledError, and a caller that tolerates the failure is never cancelled again.
    """
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failures = [failure for task in tasks if not task.cancelled() and (failure := task.exception()) is not None]
    if failures:
        raise failures[0]
