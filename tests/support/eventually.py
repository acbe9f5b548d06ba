"""Waiting for what has no event to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def eventually(true: Callable[[], object]) -> None:
    """Return when `true()` is; the test's own limit ends a wait in vain."""
    while not true():  # noqa: ASYNC110 - what it is used for has no event
        await asyncio.sleep(0.002)
