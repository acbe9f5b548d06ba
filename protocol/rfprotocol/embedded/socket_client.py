"""A store that another process serves over a unix socket: `socket_server`, of which this is the client.

It connects, and connects again when that process is replaced. Each connection is a session: what was announced in the
one before is gone. Calls during an interruption are refused with StoreUnavailable, as by every store.

Needs asyncio: it waits for answers, in bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from rfprotocol.embedded import socket_protocol
from rfprotocol.embedded.socket_protocol import Message
from rfprotocol.embedded.socket_server import short
from rfprotocol.errors import StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store.interface import Change, Entry, Fence, StoreState

RETRY = 0.1
"""Seconds between two attempts to connect."""
ALIVE = 2.0
"""Seconds between two signs of life: several within `socket_server.SILENCE`."""
_BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError, RecursionError)


class RemoteStore:
    """A TopologyStore. `request_timeout` (seconds) bounds each call, save `campaign`.

    `session_timeout` is a matter of form: a session ends with its connection, so nobody waits for a silent one.
    """

    def __init__(self, path: Path, *, session_timeout: float = 4.0, request_timeout: float = 3.0) -> None:
        self.path = path
        self.trouble = ""
        """Why the last attempt to connect has failed."""
        self.notice = ""
        """What the server wants operators to know."""
        self._session_timeout = session_timeout
        self._request_timeout = request_timeout
        self._state = StoreState.LOST
        self._session = 0
        self._closed = False
        self._listeners: list[Callable[[StoreState], None]] = []
        self._watches: dict[int, tuple[str, Callable[[str], None]]] = {}
        self._numbers = count(1)
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._tasks: list[asyncio.Task[NoReturn]] = []
        self._moved = asyncio.Event()

    @property
    def state(self) -> StoreState:
        """The state now."""
        return self._state

    @property
    def session(self) -> int:
        """Identity of the session, 0 before the first."""
        return self._session

    @property
    def session_timeout(self) -> float:
        """Seconds, as it was asked for."""
        return self._session_timeout

    def subscribe(self, listener: Callable[[StoreState], None]) -> None:
        """Call `listener` on every change of the state or of the session."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin to connect, and return at once."""
        if not self._tasks and not self._closed:
            self._tasks = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._show_life())]

    async def close(self) -> None:
        """End the session; what it announced has vanished when this returns."""
        if self._closed:
            return
        with contextlib.suppress(StoreError):
            await self._ask("close")
        self._closed = True
        writer = self._writer
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hang_up()
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def read(self, path: str) -> Entry | None:
        """The record at `path`, or None."""
        return socket_protocol.entry(await self._ask("read", path=path))

    async def read_children(self, path: str) -> Mapping[str, Entry]:
        """The records directly below `path`, by name."""
        return _entries(await self._ask("read_children", path=path))

    async def read_some(self, path: str, names: Collection[str]) -> Mapping[str, Entry]:
        """Those of the records `names` directly below `path` that are there."""
        return _entries(await self._ask("read_some", path=path, names=list(names)))

    async def commit(self, *changes: Change, fence: Fence | None = None) -> None:
        """Apply all changes or none. Raises FenceLost, StoreConflict, StoreUnavailable."""
        plain = [socket_protocol.plain_change(change) for change in changes]
        await self._ask("commit", changes=plain, fence=fence.path if fence else None)

    def watch(self, path: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change at or directly below `path`, and after each (re)connection."""
        return self.watch_each(path, lambda _: changed())

    def watch_each(self, path: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """As `watch`; `changed` is called with the name of a child that changed, came or went, else with ""."""
        key = next(self._numbers)
        self._watches[key] = (path, changed)
        self._post("watch", path=path, key=key)

        def end() -> None:
            if self._watches.pop(key, None):
                self._post("end_watch", key=key)

        return end

    async def announce(self, path: str, data: bytes) -> None:
        """Create or update a record that lives as long as this session."""
        await self._ask("announce", path=path, data=socket_protocol.text(data))

    async def withdraw(self, path: str) -> None:
        """Remove what was announced."""
        await self._ask("withdraw", path=path)

    async def campaign(self, path: str, name: str) -> Fence:
        """Wait until this session leads the contenders below `path` and return its fencing token."""
        while True:
            while self._state is not StoreState.CONNECTED:
                if self._closed:
                    raise StoreUnavailable("the store was closed")
                self._moved.clear()
                await self._moved.wait()
            with contextlib.suppress(StoreUnavailable):
                return Fence(await self._campaign_once(path, name))

    async def resign(self, fence: Fence) -> None:
        """Give up a leadership."""
        await self._ask("resign", path=fence.path)

    async def prove_alive(self) -> None:
        """Return when the session is alive."""
        await self._ask("prove_alive")

    async def _campaign_once(self, path: str, name: str) -> str:
        number, answer = self._begin("campaign", {"path": path, "name": name})
        try:
            return socket_protocol.word(await answer)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):
                await self._ask("cancel", campaign=number)
            raise
        finally:
            del self._answers[number]

    # The connection.

    async def _stay_connected(self) -> NoReturn:
        while True:
            try:
                reader = await self._connect()
                await self._listen(reader)
            except _BROKEN as error:
                self.trouble = _reason(error)
            finally:
                self._hang_up()
            await asyncio.sleep(RETRY)

    async def _connect(self) -> asyncio.StreamReader:
        async with asyncio.timeout(self._request_timeout):
            with short(self.path) as address:
                reader, self._writer = await asyncio.open_unix_connection(address)
            self._writer.write(socket_protocol.pack({"v": socket_protocol.VERSION}, socket_protocol.MOST_ASKED))
            said = await _receive(reader)
        if said.get("v") != socket_protocol.VERSION:
            raise ValueError("it is of another release: restart rfproxy, or use its own rfmanager")
        self._session, self.notice, self.trouble = int(said["session"]), str(said["notice"]), ""
        for key, (path, _) in self._watches.items():
            self._write({"id": next(self._numbers), "call": "watch", "path": path, "key": key})
        self._move(StoreState.CONNECTED)
        for _, changed in list(self._watches.values()):
            changed("")
        return reader

    async def _listen(self, reader: asyncio.StreamReader) -> NoReturn:
        while True:
            message = await _receive(reader)
            if "watch" in message:
                if watch := self._watches.get(message["watch"]):
                    watch[1](socket_protocol.word(message["child"]))
                continue
            waiting = self._answers.get(message["id"])
            if waiting is None or waiting.done():
                continue
            if "error" in message:
                waiting.set_exception(socket_protocol.refusal(message["error"], message["text"]))
            else:
                waiting.set_result(message["result"])

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(StoreUnavailable("the connection was lost"))
        self._move(StoreState.LOST)

    def _move(self, state: StoreState) -> None:
        self._moved.set()
        if state is not self._state:
            self._state = state
            for listener in list(self._listeners):
                listener(state)

    async def _show_life(self) -> NoReturn:
        while True:
            await asyncio.sleep(ALIVE)
            with contextlib.suppress(StoreError):
                await self.prove_alive()

    def _begin(self, call: str, arguments: Mapping[str, object]) -> tuple[int, asyncio.Future[Any]]:
        """Send a call; the future is for its answer. Raises StoreError."""
        if self._state is not StoreState.CONNECTED:
            raise StoreUnavailable(self.trouble or "the store is not connected")
        number = next(self._numbers)
        try:
            self._write({"id": number, "call": call, **arguments})
        except ValueError as error:
            raise StoreConflict(str(error)) from None
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        return number, answer

    async def _ask(self, call: str, **arguments: object) -> Any:
        number, answer = self._begin(call, arguments)
        try:
            async with asyncio.timeout(self._request_timeout):
                return await answer
        except TimeoutError:
            raise StoreUnavailable(f"rfproxy did not answer within {self._request_timeout:g} s") from None
        finally:
            del self._answers[number]

    def _post(self, call: str, **arguments: object) -> None:
        """Send a call whose answer says nothing. A watch that is not sent now is part of the next connection."""
        if self._state is StoreState.CONNECTED:
            self._write({"id": next(self._numbers), "call": call, **arguments})

    def _write(self, message: Message) -> None:
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(socket_protocol.pack(message, socket_protocol.MOST_ASKED))


async def _receive(reader: asyncio.StreamReader) -> Message:
    size = socket_protocol.size_of(await reader.readexactly(socket_protocol.SIZE.size), socket_protocol.MOST_ANSWERED)
    return socket_protocol.unpack(await reader.readexactly(size))


def _entries(plain: Mapping[str, Any]) -> dict[str, Entry]:
    return {name: entry for name, one in plain.items() if (entry := socket_protocol.entry(one))}


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, EOFError):
        return "it closed the connection"
    return (isinstance(error, OSError) and error.strerror) or str(error) or repr(error)
