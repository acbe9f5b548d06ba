"""The file of a store in memory: replaced as a whole, never guessed at, and used by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.embedded.record_file import FORMAT, TreeFile, decode, encode
from rfprotocol.errors import ConfigError, RecordError
from rfprotocol.store.interface import Entry
from rfprotocol.store.memory import TreeState

STATE = TreeState(7, {"/a": Entry(b"", 0, 1, 0), "/a/b": Entry(b'{"master": null}', 3, 7, 0)})


@given(st.dictionaries(st.sampled_from(["/a", "/b", "/c d"]), st.binary(max_size=20)), st.integers(3, 1 << 60))
def test_code__any_data__comes_back(content: dict[str, bytes], last: int) -> None:
    records = {path: Entry(data, len(data), number, 0) for number, (path, data) in enumerate(content.items(), 1)}
    assert decode(encode(TreeState(last, records))) == TreeState(last, records)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "last": -1, "records": {}}',
        b'{"format": 1, "last": true, "records": {}}',
        b'{"format": 1, "last": 1, "records": []}',
        b'{"format": 1, "last": 1, "records": {"/a": {"data": "", "version": 0}}}',
        b'{"format": 1, "last": 1, "records": {"/a": {"data": 1, "version": 0, "created": 1}}}',
        b'{"format": 1, "last": 1, "records": {"a": {"data": "", "version": 0, "created": 1}}}',
        b'{"format": 1, "last": 1, "records": {"/a": {"data": "", "version": 0, "created": 2}}}',
        b'{"format": 1, "last": 1, "records": {"/a/b": {"data": "", "version": 0, "created": 1}}}',
        encode(STATE)[:-10],
    ],
)
def test_decode__damaged__is_named(data: bytes) -> None:
    with pytest.raises(RecordError, match="it is damaged"):
        decode(data)


def test_decode__later_format__is_named() -> None:
    later = json.dumps({**json.loads(encode(STATE)), "format": FORMAT + 1}).encode()
    with pytest.raises(RecordError, match="a later release has written it: format 2, this one reads up to 1"):
        decode(later)


def test_load__nothing_there__none(tmp_path: Path) -> None:
    assert TreeFile(tmp_path).load() is None


def test_load__saved__the_same_and_private(tmp_path: Path) -> None:
    TreeFile(tmp_path).save(TreeState())
    TreeFile(tmp_path).save(STATE)
    assert TreeFile(tmp_path).load() == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["embedded.json"]
    assert stat.S_IMODE((tmp_path / "embedded.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"{", encode(STATE).replace(b'"format": 1', b'"format": 9')])
def test_load__of_no_use__says_what_to_do_and_leaves_it(tmp_path: Path, content: bytes) -> None:
    file = TreeFile(tmp_path)
    file.path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"embedded.json says who is master and cannot be used: .* move it away"):
        file.load()
    assert file.path.read_bytes() == content


def test_load__not_to_be_read__is_said(tmp_path: Path) -> None:
    (tmp_path / "embedded.json").mkdir()
    with pytest.raises(ConfigError, match=r"embedded.json cannot be read: Is a directory"):
        TreeFile(tmp_path).load()


def test_save__killed_before_the_end__former_state_stays(tmp_path: Path) -> None:
    TreeFile(tmp_path).save(STATE)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from rfprotocol.store.memory import TreeState; from rfprotocol.embedded.record_file import TreeFile\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "TreeFile(Path(sys.argv[1])).save(TreeState(99))"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -signal.SIGKILL
    assert TreeFile(tmp_path).load() == STATE
    TreeFile(tmp_path).save(TreeState(100))
    assert [path.name for path in tmp_path.iterdir()] == ["embedded.json"]


def test_save__disk_full__raises_and_former_state_stays(tmp_path: Path) -> None:
    """A limit of the size of files stands for a disk that is full."""
    file = TreeFile(tmp_path)
    file.save(STATE)
    limit, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.save(TreeState(99))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert file.load() == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["embedded.json"]


def test_claim__folder_of_a_running_process__not_given(tmp_path: Path) -> None:
    file = TreeFile(tmp_path / "new" / "folder")
    claim = file.claim()
    assert claim is not None
    assert TreeFile(file.folder).claim() is None
    os.close(claim)
    again = file.claim()
    assert again is not None
    os.close(again)


def test_claim__process_was_killed__given(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from rfprotocol.embedded.record_file import TreeFile\n"
        "claim = TreeFile(Path(sys.argv[1])).claim(); print(claim, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() != b"None\n"
        assert TreeFile(tmp_path).claim() is None
        other.kill()
    claim = TreeFile(tmp_path).claim()
    assert claim is not None
    os.close(claim)


def test_claim__no_folder_to_be_had__says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/state cannot be used \(Not a directory\): .*--state-dir"):
        TreeFile(tmp_path / "file" / "state").claim()


def test_claim__file_system_without_locks__says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match="No locks available"):
        TreeFile(tmp_path).claim()
