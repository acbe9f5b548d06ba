"""One program that plays a role in a test; see the package for what it says and hears."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).parents[2]
"""Where the programs in Python are modules."""
_LINE = 1024 * 1024
"""Bytes that one line may have."""


class Failed(AssertionError):
    """A program ended with an error or without an outcome; says what it wrote last."""


class Player:
    """`async with Player(words) as player`: started when the block begins, gone when it ends."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.messages: list[str] = []
        self.said: list[str] = []
        """All other lines; the last one is the outcome."""
        self._ready = asyncio.Event()
        self._listening = asyncio.Condition()

    async def __aenter__(self) -> Self:
        # It dies with the test run, as all processes of the tests do.
        words = ["setpriv", "--pdeathsig", "KILL", "--", *self.words]
        self._process: Process = await asyncio.create_subprocess_exec(
            *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LINE, cwd=_ROOT
        )
        assert self._process.stderr is not None
        self._complaints = asyncio.create_task(self._process.stderr.read())
        self._hearing = asyncio.create_task(self._hear())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(self._complaints, self._hearing)

    async def ready(self) -> None:
        """Return when the failover may come. Raises Failed."""
        await self._first(asyncio.create_task(self._ready.wait()), "not ready")

    async def heard(self, text: str) -> None:
        """Return when the program has heard a message. Raises Failed."""
        await self._first(asyncio.create_task(self._until_heard(text)), f"never heard {text!r}")

    def go_on(self) -> None:
        """Tell it that there is a new master."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")

    async def outcome(self) -> dict[str, Any]:
        """Wait for its end. Raises Failed."""
        await self._hearing
        if await self._process.wait() or not self.said:
            raise Failed(await self._last_words("failed"))
        outcome: dict[str, Any] = json.loads(self.said[-1])
        return outcome

    async def _until_heard(self, text: str) -> None:
        async with self._listening:
            await self._listening.wait_for(lambda: text in self.messages)

    async def _first(self, event: asyncio.Task[Any], what: str) -> None:
        """Wait for an event, or for the end of a program that will never bring it about."""
        await asyncio.wait([event, self._hearing], return_when=asyncio.FIRST_COMPLETED)
        if not event.done():
            event.cancel()
            raise Failed(await self._last_words(what))

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().rstrip("\n")
            async with self._listening:
                if text == "ready":
                    self._ready.set()
                elif text.startswith("message "):
                    self.messages.append(text.removeprefix("message "))
                else:
                    self.said.append(text)
                self._listening.notify_all()

    async def _last_words(self, what: str) -> str:
        complaints = (await self._complaints).decode(errors="replace")
        return "\n".join([f"{' '.join(self.words)}: {what}", *self.said[-5:], complaints])
