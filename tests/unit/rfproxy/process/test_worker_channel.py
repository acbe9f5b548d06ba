"""Workers ask each other: what one of them does, or says, harms neither the question nor the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rfproxy.core.counters import Stats
from rfproxy.core.peers import Answers
from rfproxy.process import worker_channel
from rfproxy.process.worker_channel import Siblings, make_directory, remove_directory, remove_socket
from tests.support.playbook import SilentLog

ASKER = 1
Stranger = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Group:
    """The workers of a proxy, in one process. Each answers with its id and the words of the question."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.stats = Stats()
        self.log = SilentLog()
        self.done: list[list[bytes]] = []
        """The questions that were acted upon."""
        self._members: dict[int, Siblings] = {}
        self._strangers: list[asyncio.Server] = []

    async def member(self, process: int) -> Siblings:
        """Another worker."""

        def answer(question: list[bytes]) -> list[bytes] | None:
            self.done.append(question)
            return None if question == [b"NOVELTY"] else [b"%d" % process, *question]

        member = Siblings(str(self.directory), answer, stats=self.stats, log=self.log, now=lambda: 7.0, process=process)
        await member.open()
        self._members[process] = member
        return member

    async def stranger(self, process: int, behave: Stranger) -> None:
        """Something that has the place of a worker."""
        path = str(self.directory / str(process))
        self._strangers.append(await asyncio.start_unix_server(behave, path))

    async def ask(self, *words: bytes, owners: set[int] | None = None) -> Answers:
        """What ASKER hears."""
        heard: asyncio.Future[tuple[Answers, float]] = asyncio.get_running_loop().create_future()
        self._members[ASKER].ask(list(words), owners, lambda answers, now: heard.set_result((answers, now)))
        assert not heard.done(), "not before the caller has returned"
        answers, now = await heard
        assert now == 7.0
        return answers

    async def tell(self, process: int, data: bytes) -> bytes:
        """What a worker says to these bytes, until it hangs up."""
        reader, writer = await asyncio.open_unix_connection(str(self.directory / str(process)))
        writer.write(data)
        heard = b""
        with contextlib.suppress(ConnectionResetError):  # it did not read all
            heard = await reader.read()
        await hang_up(writer)
        return heard

    async def disband(self) -> None:
        """Nobody listens any more."""
        for member in self._members.values():
            await member.close()
        for server in self._strangers:
            server.close()


@pytest.fixture
def directory() -> Iterator[str]:
    directory = make_directory()
    yield directory
    remove_directory(directory)
    assert not Path(directory).exists()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, too, who answers is heard."""
    monkeypatch.setattr(worker_channel, "PATIENCE", 60.0)
    monkeypatch.setattr(worker_channel, "THOUGHT", 60.0)


@pytest.fixture
def hasty(_patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody is waited for in vain."""
    monkeypatch.setattr(worker_channel, "PATIENCE", 0.5)
    monkeypatch.setattr(worker_channel, "THOUGHT", 0.5)


@pytest.fixture
async def group(directory: str) -> AsyncIterator[Group]:
    group = Group(directory)
    await group.member(ASKER)
    yield group
    await group.disband()


def message(**fields: object) -> bytes:
    data = json.dumps(fields).encode()
    return struct.pack(">I", len(data)) + data


async def test_ask__all__hears_every_other_worker(group: Group) -> None:
    await group.member(2)
    await group.member(3)
    assert await group.ask(b"LIST", b"\x00\xff\r\n") == [
        [b"2", b"LIST", b"\x00\xff\r\n"],
        [b"3", b"LIST", b"\x00\xff\r\n"],
    ]
    assert not group.log.lines


async def test_ask__owners__asks_them_alone(group: Group) -> None:
    await group.member(2)
    await group.member(3)
    assert await group.ask(b"KILL", owners={3, 4}) == [[b"3", b"KILL"]]
    assert len(group.done) == 1


async def test_ask__nobody_else__is_answered_with_nothing(group: Group) -> None:
    assert await group.ask(b"LIST") == []


async def test_ask__large_answer__arrives(group: Group) -> None:
    await group.member(2)
    word = bytes(range(256)) * 4096
    assert await group.ask(word) == [[b"2", word]]


async def test_ask__many_at_once__are_all_answered(group: Group) -> None:
    await group.member(2)
    answers = await asyncio.gather(*(group.ask(b"%d" % number) for number in range(200)))
    assert answers == [[[b"2", b"%d" % number]] for number in range(200)]


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stands still."""
    await reader.read()
    await hang_up(writer)


async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Is killed while it works on the answer."""
    await reader.read(1)
    writer.write(b"\x00\x00")
    await hang_up(writer)


def babbling(data: bytes, *, awake: bytes = b"!") -> Stranger:
    """Says something else."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(awake + data)
        await silent(reader, writer)

    return behave


STRANGERS = {
    "silent": silent,
    "dying": dying,
    "stops in its work": babbling(b""),
    "endless": babbling(b"\xff\xff\xff\xff"),
    "text": babbling(b"HTTP/1.1 200 OK\r\n\r\n", awake=b""),
    "no JSON": babbling(struct.pack(">I", 3) + b"{]}"),
    "deep": babbling(struct.pack(">I", 100_000) + b"[" * 100_000),
    "no message": babbling(message(answer=[])),
    "no words": babbling(message(words="text")),
    "numbers": babbling(message(words=[1, 2])),
    "no bytes": babbling(message(words=["\u2603"])),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", STRANGERS)
async def test_ask__worker_that_does_not_answer__is_missing_counted_and_logged_once(group: Group, name: str) -> None:
    await group.stranger(2, STRANGERS[name])
    await group.member(3)
    for times in (1, 2, 3):
        assert await group.ask(b"LIST") == [[b"3", b"LIST"]]
        assert group.stats.workers_unheard == times
    (line,) = group.log.events("worker_unheard")
    assert line["worker"] == 2


@pytest.mark.usefixtures("hasty")
async def test_ask__worker_that_does_not_answer__is_asked_once_and_left_alone(group: Group) -> None:
    asked = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4))
        await silent(reader, writer)

    await group.stranger(2, behave)
    for _ in range(5):
        assert await group.ask(b"LIST") == []
    assert len(asked) == 1


async def test_ask__worker_that_answers_again__is_heard(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_channel, "_REST", 0.0)
    await group.stranger(2, dying)
    assert await group.ask(b"LIST") == []
    await group.member(2)
    assert await group.ask(b"LIST") == [[b"2", b"LIST"]]
    assert group.log.events("worker_heard") == [{"worker": 2}]


async def test_ask__worker_of_another_version__is_missing(group: Group) -> None:
    await group.member(2)
    assert await group.ask(b"NOVELTY") == []
    assert group.stats.workers_unheard == 1


async def test_ask__worker_that_was_killed__is_no_worker_any_more(group: Group) -> None:
    await group.stranger(2, silent)
    group._strangers.pop().close()
    assert (group.directory / "2").exists()
    assert await group.ask(b"LIST") == []
    assert group.stats.workers_unheard == 0
    remove_socket(str(group.directory), 2)
    remove_socket(str(group.directory), 2)
    assert not (group.directory / "2").exists()


async def test_ask__question_without_end__is_not_asked(group: Group) -> None:
    await group.member(2)
    assert await group.ask(b"KILL", b"x" * (worker_channel.MOST_ASKED // 8)) == []
    assert group.stats.workers_unheard == 1
    assert await group.ask(b"KILL") == [[b"2", b"KILL"]]


async def test_ask__directory_gone__is_logged_and_answered_with_nothing(group: Group) -> None:
    await group.member(2)
    remove_directory(str(group.directory))
    assert await group.ask(b"LIST") == []
    assert group.log.events("workers_not_asked")


async def test_close__questions_under_way__end(group: Group) -> None:
    member = await group.member(2)
    await group.stranger(3, silent)
    member.ask([b"LIST"], None, lambda answers, now: pytest.fail("nobody is there to hear it"))
    await member.close()
    assert not (group.directory / "2").exists()


async def test_close__connections_of_others__are_closed_without_complaint(group: Group) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    member = await group.member(2)
    reader, writer = await asyncio.open_unix_connection(str(group.directory / "2"))
    writer.write(message(v=1, until=1e99, words=["LIST"]))
    assert await reader.readexactly(1) == b"!"
    await member.close()
    assert b"LIST" in await reader.read()
    await hang_up(writer)
    assert not complaints


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 50_000) + b"[" * 50_000,
        message(v=1, words=["LIST"]),
        message(v=1, until="soon", words=["LIST"]),
        message(v=1, until=1e99, words=[["LIST"]]),
        message(v=1, until=0.0, words=["LIST"]),
        b"\x00",
    ],
)
async def test_answer__nonsense_or_too_late__ends_that_connection_alone(group: Group, data: bytes) -> None:
    await group.member(2)
    assert await group.tell(2, data) == b""
    assert not group.done
    assert await group.ask(b"LIST") == [[b"2", b"LIST"]]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fields", [{"v": 2, "words": ["LIST"]}, {"v": 1, "words": None}])
async def test_answer__another_version__says_that_it_does_not_understand(
    group: Group, fields: dict[str, object]
) -> None:
    await group.member(2)
    assert await group.tell(2, message(until=1e99, **fields)) == (b"!" + struct.pack(">I", 14) + b'{"words":null}')
    assert not group.done


async def test_answer__process_of_another_user__is_not_listened_to(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    await group.member(2)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert await group.tell(2, message(v=1, until=1e99, words=["LIST"])) == b""
    assert await group.ask(b"LIST") == []
    assert not group.done


@pytest.mark.usefixtures("hasty")
async def test_answer__more_connections_than_it_answers__are_closed(group: Group) -> None:
    await group.member(2)
    idle = [
        await asyncio.open_unix_connection(str(group.directory / "2")) for _ in range(worker_channel.ANSWERED_AT_ONCE)
    ]
    assert await group.tell(2, message(v=1, until=1e99, words=["LIST"])) == b""
    for reader, writer in idle:
        assert await reader.read() == b"", "after PATIENCE"
        await hang_up(writer)
    assert await group.ask(b"LIST") == [[b"2", b"LIST"]]


async def test_open__socket_left_by_a_former_process_of_that_id__takes_its_place(group: Group) -> None:
    await group.stranger(2, silent)
    group._strangers.pop().close()
    await group.member(2)
    assert await group.ask(b"LIST") == [[b"2", b"LIST"]]


def test_make_directory__may_be_entered_by_its_user_alone() -> None:
    directory = make_directory()
    assert stat.S_IMODE(Path(directory).stat().st_mode) == 0o700
    remove_directory(directory)


def test_make_directory__no_place_for_files__takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    directory = make_directory()
    assert directory.startswith("/dev/shm/rfproxy-")
    remove_directory(directory)


def test_make_directory__proxy_that_was_killed__leaves_none_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, used, new = make_directory(), make_directory(), make_directory()
    foreign = tmp_path / "rfproxy-link"
    foreign.symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as alive:
        dead.bind(f"{left}/7")
        alive.bind(f"{used}/8")
        alive.listen()
        os.utime(left, (0, 0))
        os.utime(used, (0, 0))
        latest = make_directory()
    assert sorted(tmp_path.iterdir()) == sorted([Path(used), Path(new), Path(latest), foreign])
