"""The worker processes of one proxy ask each other: unix sockets in a directory that only their user may enter.

    worker ──connect──> <directory>/<process id> ──> worker
           ──size, {"v": 1, "until": 12.5, "words": [...]}──>
           <── "!" ──                                         it is awake and begins
           <──size, {"words": [...]} or {"words": null}──     and the connection is closed

The supervisor makes the directory, hands it on to the program that takes its place and removes it at its end. A worker
that listens has its socket there, so that the others are found by looking. Each question has a connection of its own:
whatever goes wrong with it, nothing else is touched.

A question is given up after PATIENCE, or, once the worker is known to be at it, after THOUGHT: the lines of 10,000
clients take their time. One that comes too late, because its worker stood still, is not acted upon. A worker that did
not answer is left alone for a while (`Backoff`), so that it costs the commands of others that time once, and not each
of them.

Words are bytes. In JSON each is a string of as many characters (Latin-1).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from rfprotocol.backoff import Backoff
from rfproxy.core.counters import Stats
from rfproxy.core.peers import Answers
from rfproxy.core.ports import Log

PATIENCE = 0.5
"""Seconds until a worker says that it has heard a question."""
THOUGHT = 1.0
"""Seconds that it has for its answer then."""
_AWAKE = b"!"
MOST_ASKED = 16 << 20
"""Bytes of a question, and eight times what its words may have together."""
MOST_ANSWERED = 64 << 20
"""Bytes of an answer: CLIENT LIST of more than 100,000 clients."""
ASKED_AT_ONCE, ANSWERED_AT_ONCE = 32, 64
"""Connections of one worker on which it asks, and on which it answers: among its SPARE descriptors."""
_REST, _LONGEST_REST = 1.0, 5.0
"""Seconds for which a worker is not asked that did not answer."""
_PREFIX, _MEMORY = "rfproxy-", "/dev/shm"
"""Where a container may write that may write nowhere else."""
_SETTLED = 60.0
"""Seconds after which a supervisor has started its first worker."""
_NO_MESSAGE = "this is no message of a worker"
_VERSION = 1
_SIZE = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): process, user, group
_BROKEN = (OSError, EOFError, ValueError, RecursionError)  # among them TimeoutError, IncompleteReadError

Answer = Callable[[list[bytes]], list[bytes] | None]
"""What this worker says to a question; None when it does not understand it."""


def make_directory() -> str:
    """A directory for the sockets of workers, which nobody else may enter. Raises OSError."""
    try:
        directory = tempfile.mkdtemp(prefix=_PREFIX)  # 0700
    except OSError:
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=_MEMORY)
    for entry in os.scandir(Path(directory).parent):
        if entry.name.startswith(_PREFIX) and _is_left(entry):
            remove_directory(entry.path)
    return directory


def _is_left(entry: os.DirEntry[str]) -> bool:
    """Whether this is the directory of a proxy of this user that was killed with all its workers."""
    with contextlib.suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        old = time.time() - status.st_mtime > _SETTLED  # since a worker came or went
        return ours and old and not any(map(_listens, Path(entry.path).iterdir()))
    return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # BlockingIOError: too many are asking just now
    return True


def remove_directory(directory: str) -> None:
    """The last worker has left."""
    shutil.rmtree(directory, ignore_errors=True)


def remove_socket(directory: str, process: int) -> None:
    """A worker has ended, and may not have had the time to do so itself."""
    with contextlib.suppress(OSError):
        Path(directory, str(process)).unlink()


class Siblings:
    """One worker's way to the others, and theirs to it: `rfproxy.core.peers.Peers`."""

    def __init__(
        self,
        directory: str,
        answer: Answer,
        *,
        stats: Stats,
        log: Log,
        now: Callable[[], float] = time.monotonic,
        process: int | None = None,
    ) -> None:
        """`now`: the clock that whoever asks goes by."""
        self._directory = Path(directory)
        self._answer = answer
        self._stats = stats
        self._log = log
        self._now = now
        self._process = os.getpid() if process is None else process
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._answering: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._backoffs: dict[int, Backoff] = {}

    async def open(self) -> None:
        """Be found by the others. Raises OSError."""
        place = self._directory / str(self._process)
        unready = place.with_name(f".{self._process}")
        unready.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind(str(unready))
            sock.listen(ANSWERED_AT_ONCE)
            self._server = await asyncio.start_unix_server(self._serve, sock=sock)
        except OSError:
            sock.close()
            raise
        unready.rename(place)  # who is found listens

    async def close(self) -> None:
        """Ask and answer no more."""
        if self._server is not None:
            remove_socket(str(self._directory), self._process)
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._answering.values():
            writer.transport.abort()  # asyncio complains of such a task when it is cancelled
        await asyncio.gather(*self._tasks, *self._answering, return_exceptions=True)

    # --- asking

    def ask(
        self, question: list[bytes], owners: Collection[int] | None, on_answers: Callable[[Answers, float], None]
    ) -> None:
        """See `rfproxy.core.peers.Peers`."""
        task = asyncio.get_running_loop().create_task(self._gather(question, owners, on_answers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _gather(
        self, question: list[bytes], owners: Collection[int] | None, on_answers: Callable[[Answers, float], None]
    ) -> None:
        found: list[list[bytes]] = []
        try:
            asked = [one for one in self._others() if owners is None or one in owners]
            if sum(map(len, question)) > MOST_ASKED // 8:
                self._stats.workers_unheard += len(asked)
                self._log.warning("workers_not_asked", error=f"{question[0].decode()} has too many words")
            else:
                answers = await asyncio.gather(*(self._ask_one(one, question) for one in asked))
                found = [words for words in answers if words is not None]
        except OSError as error:
            self._stats.workers_unheard += 1
            self._log.warning("workers_not_asked", error=str(error))
        except Exception as error:
            self._log.warning("defect", error=repr(error), exc_info=error)
        on_answers(found, self._now())

    def _others(self) -> list[int]:
        """The workers that listen."""
        names = os.listdir(self._directory)
        others = sorted(int(name) for name in names if name.isascii() and name.isdigit())
        self._backoffs = {one: backoff for one, backoff in self._backoffs.items() if one in others}
        return [one for one in others if one != self._process]

    async def _ask_one(self, process: int, question: list[bytes]) -> list[bytes] | None:
        async with self._turns:
            backoff = self._backoffs.setdefault(process, Backoff(_REST, _LONGEST_REST))
            if backoff.failing and not backoff.may_begin(time.monotonic()):
                self._stats.workers_unheard += 1
                return None
            backoff.begin()
            try:
                words = await self._talk(process, question)
            except (FileNotFoundError, ConnectionRefusedError):
                return None  # it is gone, and its clients with it
            except _BROKEN as error:
                self._unheard(process, backoff, error)
                return None
            finally:
                backoff.end()
        if backoff.failing:
            self._log.info("worker_heard", worker=process)
        backoff.succeeded()
        return words

    async def _talk(self, process: int, question: list[bytes]) -> list[bytes] | None:
        frame = _frame(
            {"v": _VERSION, "until": time.monotonic() + PATIENCE, "words": _as_text(question)}, most=MOST_ASKED
        )
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(self._directory / str(process)))
        try:
            async with asyncio.timeout(PATIENCE):
                _check_user(writer)
                writer.write(frame)
                if await reader.readexactly(len(_AWAKE)) != _AWAKE:
                    raise ValueError(_NO_MESSAGE)
            async with asyncio.timeout(THOUGHT):
                words = _as_words((await _receive(reader, MOST_ANSWERED))["words"])
        finally:
            await _hang_up(writer)
        if words is None:
            raise ValueError("it does not understand the question: it may be of another version")
        return words

    def _unheard(self, process: int, backoff: Backoff, error: Exception) -> None:
        """The part of one worker is missing: say so when that begins."""
        self._stats.workers_unheard += 1
        if not backoff.failing:
            text = str(error) or repr(error)
            if isinstance(error, TimeoutError):
                text = "no answer in time"
            elif isinstance(error, EOFError):
                text = "it closed the connection without an answer"
            self._log.warning(
                "worker_unheard", worker=process, error=f"CLIENT LIST and its like go without its clients: {text}"
            )
        backoff.failed(time.monotonic())

    # --- answering

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one question."""
        if len(self._answering) >= ANSWERED_AT_ONCE or (task := asyncio.current_task()) is None:
            await _hang_up(writer)
            return
        self._answering[task] = writer
        try:
            _check_user(writer)
            async with asyncio.timeout(PATIENCE):
                question = await _receive(reader, MOST_ASKED)
            async with asyncio.timeout(THOUGHT):
                words = self._respond(question, writer)
                writer.write(_frame({"words": None if words is None else _as_text(words)}, most=MOST_ANSWERED))
                await writer.drain()
                await reader.read()  # until it is heard
        except (ValueError, RecursionError) as error:
            self._log.warning("worker_question_dropped", error=str(error) or repr(error))
        except _BROKEN:
            pass  # whoever asked has left
        except Exception as error:
            self._log.warning("defect", error=repr(error), exc_info=error)
        finally:
            del self._answering[task]
            await _hang_up(writer)

    def _respond(self, question: dict[str, object], writer: asyncio.StreamWriter) -> list[bytes] | None:
        words, until = _as_words(question["words"]), question["until"]
        if question["v"] != _VERSION or words is None:
            writer.write(_AWAKE)
            return None
        if not isinstance(until, int | float) or time.monotonic() > until:
            raise ValueError("it came too late")
        writer.write(_AWAKE)  # sent before the work begins
        return self._answer(words)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _check_user(writer: asyncio.StreamWriter) -> None:
    """Raise ValueError unless a process of this user is at the other end."""
    sock: socket.socket = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user != os.geteuid():
        raise ValueError(f"a process of user {user} is at the other end")


def _frame(message: dict[str, object], *, most: int) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > most:
        raise ValueError(f"{len(data)} bytes are more than {most}")
    return _SIZE.pack(len(data)) + data


async def _receive(reader: asyncio.StreamReader, most: int) -> dict[str, object]:
    """The next message. Raises ValueError and EOFError."""
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    if size > most:
        raise ValueError(f"{size} bytes are more than {most}")
    message = json.loads(await reader.readexactly(size))
    if not isinstance(message, dict) or "words" not in message:
        raise ValueError(_NO_MESSAGE)
    return {"v": None, "until": None, **message}


def _as_text(words: list[bytes]) -> list[str]:
    return [word.decode("latin-1") for word in words]


def _as_words(texts: object) -> list[bytes] | None:
    """Raises ValueError (UnicodeEncodeError is one) unless these are words or None."""
    if texts is None:
        return None
    if not isinstance(texts, list):
        raise ValueError(_NO_MESSAGE)
    words = []
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(_NO_MESSAGE)
        words.append(text.encode("latin-1"))
    return words
