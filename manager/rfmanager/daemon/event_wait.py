"""Waits for an event, for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_for(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after so many seconds; with None there is no bound."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
