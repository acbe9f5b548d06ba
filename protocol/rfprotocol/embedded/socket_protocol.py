"""What a `RemoteStore` and a `StoreServer` say to each other.

Each message is a JSON object behind its size, four bytes. Data is bytes; in JSON it is a string of as many characters
(Latin-1).

    {"v": 1}                                          ─>
                                                      <─  {"v": 1, "session": 7, "notice": ""}
    {"id": 1, "call": "read", "path": "/a"}           ─>
                                                      <─  {"id": 1, "result": ["data", 0, 3, 0]}
    {"id": 2, "call": "commit", "changes": [["put", "/a", "x", 0]], "fence": null}
                                                      <─  {"id": 2, "error": "StoreConflict", "text": "..."}
    {"id": 3, "call": "watch", "path": "/a", "key": 5}
                                                      <─  {"watch": 5, "child": "b"}
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from rfprotocol.errors import FenceLost, StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store.interface import Change, Delete, Entry, Put

VERSION = 1
SOCKET = "rfmanager.sock"
"""Name of the socket in the state directory."""
MOST_ASKED = 1 << 20
"""Bytes of a message to the server: as much as ZooKeeper takes."""
MOST_ANSWERED = 64 << 20
SIZE = struct.Struct("!I")

Message = dict[str, Any]

_ERRORS: Mapping[str, Callable[[str], StoreError]] = {
    kind.__name__: kind for kind in (FenceLost, StoreConflict, StoreUnavailable)
}


def pack(message: Message, most: int) -> bytes:
    """A message as it is sent. Raises ValueError when it is longer than `most`."""
    data = json.dumps(message, separators=(",", ":")).encode()
    return SIZE.pack(checked(len(data), most)) + data


def size_of(head: bytes, most: int) -> int:
    """How long the message behind these four bytes is. Raises ValueError when it is longer than `most`."""
    return checked(SIZE.unpack(head)[0], most)


def checked(size: int, most: int) -> int:
    """The same number. Raises ValueError."""
    if size > most:
        raise ValueError(f"a message of {size} bytes, more than {most}")
    return size


def unpack(data: bytes) -> Message:
    """Raises ValueError (UnicodeDecodeError is one), RecursionError."""
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a message that is no JSON object")
    return message


def text(data: bytes) -> str:
    """Bytes in JSON."""
    return data.decode("latin-1")


def data(text: object) -> bytes:
    """The reverse of `text`. Raises ValueError."""
    return word(text).encode("latin-1")


def word(value: object) -> str:
    """A string. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def plain_entry(entry: Entry | None) -> list[object] | None:
    """A record in JSON."""
    return [text(entry.data), entry.version, entry.created, entry.owner] if entry else None


def entry(plain: Any) -> Entry | None:
    """The reverse of `plain_entry`. Raises ValueError, TypeError."""
    if plain is None:
        return None
    content, version, created, owner = plain
    return Entry(data(content), int(version), int(created), int(owner))


def plain_change(change: Change) -> list[object]:
    """A change in JSON."""
    if isinstance(change, Put):
        return ["put", change.path, text(change.data), change.version]
    return ["delete", change.path, change.version]


def change(plain: Any) -> Change:
    """The reverse of `plain_change`. Raises ValueError, TypeError."""
    match plain:
        case ["put", str(path), str(content), int() | None as version]:
            return Put(path, data(content), version)
        case ["delete", str(path), int() | None as version]:
            return Delete(path, version)
    raise ValueError(f"{plain!r} is no change")


def refusal(name: object, said: object) -> StoreError:
    """The error that a server has answered with."""
    return _ERRORS.get(str(name), StoreUnavailable)(str(said))
