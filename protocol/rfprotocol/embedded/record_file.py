"""The records of a store in memory, as a file in a folder that one process at a time may use.

    <folder>/embedded.json       {"format": 1, "last": 7, "records": {"/a": {"data": "", "version": 0, "created": 1}}}
    <folder>/embedded.json.new   the next one, until it is whole
    <folder>/embedded.lock       locked (flock) by the process that uses the folder; the lock ends with the process

The file is replaced as a whole and never in part. One that cannot be read, or that a later release has written, is
left as it is. Data is bytes; in JSON it is a string of as many characters (Latin-1).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfprotocol.errors import ConfigError, RecordError
from rfprotocol.store.interface import Entry
from rfprotocol.store.memory import TreeState

FORMAT = 1
NAME, LOCK = "embedded.json", "embedded.lock"


def encode(state: TreeState) -> bytes:
    """The content of the file."""
    records = {
        path: {"data": entry.data.decode("latin-1"), "version": entry.version, "created": entry.created}
        for path, entry in sorted(state.records.items())
    }
    return json.dumps({"format": FORMAT, "last": state.last, "records": records}, indent=1).encode()


def decode(data: bytes) -> TreeState:
    """The reverse of `encode`. Raises RecordError."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        raise RecordError(f"it is damaged: not JSON, {data[:40]!r}") from None
    version = plain.get("format") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise RecordError(f"a later release has written it: format {version}, this one reads up to {FORMAT}")
    try:
        state = TreeState(_number(plain["last"]), {path: _entry(path, one) for path, one in plain["records"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"it is damaged: {error!r}") from None
    _check(state)
    return state


def _entry(path: str, plain: Mapping[str, Any]) -> Entry:
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"{path!r} is not a path")
    return Entry(plain["data"].encode("latin-1"), _number(plain["version"]), _number(plain["created"]), 0)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _check(state: TreeState) -> None:
    for path, entry in state.records.items():
        if entry.created > state.last:
            raise RecordError(f"it is damaged: {path} has number {entry.created} of {state.last}")
        parent = path.rpartition("/")[0]
        if parent and parent not in state.records:
            raise RecordError(f"it is damaged: {path} is there and {parent} is not")


class TreeFile:
    """The file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME

    def claim(self) -> int | None:
        """Make the folder, and take it for this process. Raises ConfigError.

        Returns a descriptor, with which the claim ends; None while another process has it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            claim = _private(str(self.folder / LOCK), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
            return None
        except OSError as error:
            os.close(claim)
            raise self._unusable(error) from None
        return claim

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self.folder} cannot be used ({error.strerror}): the embedded mode keeps there who is master; name "
            "another folder with --state-dir"
        )

    def load(self) -> TreeState | None:
        """What was kept; None when there is nothing yet. Raises ConfigError, which says what to do."""
        try:
            return decode(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from None
        except RecordError as error:
            raise ConfigError(
                f"{self.path} says who is master and cannot be used: {error}. Put it right, or move it away: then the "
                "servers themselves are asked who is master, and nothing is known of what was promoted"
            ) from None

    def save(self, state: TreeState) -> None:
        """Keep it: when this returns it survives the end of the process and of the host. Raises OSError.

        This waits for the disk: not to be called on an event loop.
        """
        new = self.path.with_name(f"{NAME}.new")
        try:
            with open(new, "wb", opener=_private) as file:
                file.write(encode(state))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):  # a full disk must not be filled with what is of no use
                new.unlink()
            raise
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, mode=0o600)
