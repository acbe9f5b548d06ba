"""Where each reply of a server ends, without decoding it.

Replies are passed on as the bytes they came in, so all that must be known is how many are complete and whether one of
them is an error.

    feed ──> data    +OK\\r\\n  >2\\r\\n...  $5\\r\\nhello\\r\\n  *2\\r\\n$1\\r\\na
                     ╰reply╯  ╰─push─╯  ╰────reply────╯  ╰─held until it ends─
    take(2) ──> the replies as one run of bytes;  pushes ──> [the push]

A reply may be longer than the memory it should cost. Who only passes it on takes it in parts:

    feed ──> data    +OK\\r\\n  $536870912\\r\\nxxxxxx        xxxxxxxxxxxx        xxx\\r\\n  +OK\\r\\n
                     ╰reply╯  ╰────a part, count 0────  ──a part, 0──       ──1───╯  ╰reply╯

RESP2 and RESP3 as in the specification, with its null forms. Streamed types are refused: no Redis sends them. The two
bytes behind a string are not looked at. Nothing here but plain typed Python: the module is meant to be compiled.
"""

from __future__ import annotations

from typing import Final

from rfprotocol.errors import ProtocolError

_MAX_HEADER: Final = 32
_TO_LINE_END: Final = -1

_REPLY: Final = 0
_PUSH: Final = 1
_ATTRIBUTE: Final = 2  # what describes the reply behind it, and belongs to it

_LINES: Final = b"+-:,#_("
_STRINGS: Final = b"$=!"
_ERRORS: Final = b"-!"
_VALUES_EACH: Final = {0x2A: 1, 0x7E: 1, 0x3E: 1, 0x25: 2, 0x7C: 2}  # * ~ > % |
_DOLLAR: Final = 0x24
_MINUS: Final = 0x2D
_ARROW: Final = 0x3E
_BAR: Final = 0x7C
_CR: Final = 0x0D
_ZERO: Final = 0x30
_NINE: Final = 0x39


LONG: Final = 1 << 20
"""Bytes of a reply that are held until it is complete: as long as nothing was given out, it can be asked for again."""


class Taken:
    """Whole replies; `has_error` when one of them is an error itself (not merely contains one).

    With `partial`, `data` is the next part of one long reply, and of nothing else: `count` is 1 with its last part,
    and 0 before. It is no error.
    """

    __slots__ = ("count", "data", "has_error", "partial")

    def __init__(self, data: bytes, count: int, has_error: bool, partial: bool = False) -> None:
        self.data = data
        self.count = count
        self.has_error = has_error
        self.partial = partial


_NOTHING: Final = Taken(b"", 0, False)


class ReplyScanner:
    """Finds the replies in what one connection receives.

    `pushes` collects the out-of-band messages of RESP3 found so far, each as its bytes; the owner empties it.
    They are found as soon as nothing unread stands before them. With `pushes_apart` False they count as replies.
    `long`: bytes of a reply from which on it may be taken in parts.
    """

    def __init__(self, *, pushes_apart: bool = True, long: int = LONG) -> None:
        self._pushes_apart = pushes_apart
        self._long = long
        self.pushes: list[bytes] = []
        self._data = b""
        self._pos = 0  # of the first byte in `_data` that was not scanned
        self._parts: list[bytes] = []  # earlier bytes of the reply or push that is half scanned
        self._held = 0  # the length of these
        self._given = False  # earlier parts of the reply that is half scanned were given out
        self._kind = _REPLY
        self._begun = False  # its first header (behind attributes) was read
        self._error = False
        self._values = 0  # still to come inside of it
        self._skip = 0  # bytes to step over before the next header; _TO_LINE_END = up to the end of a line

    def count_pushes(self) -> None:
        """From the next one on, pushes count as replies."""
        self._pushes_apart = False

    def feed(self, data: bytes) -> None:
        """Add what arrived. Raises ProtocolError when a push that it begins with is not RESP."""
        self._data = self._data[self._pos :] + data if self._pos < len(self._data) else data
        self._pos = 0
        if self._pushes_apart and (self._kind == _PUSH or (not self._begun and self._data[:1] == b">")):
            self.take(0)

    @property
    def holds_long_reply(self) -> bool:
        """Whether it is worth while to ask for a part of a reply."""
        return self._held >= self._long

    @property
    def in_long_reply(self) -> bool:
        """Whether a long reply has begun and is not complete, be its parts here or given out."""
        return self._given or self._held >= self._long

    @property
    def to_come(self) -> int:
        """Bytes of the value under way that were announced and have not come."""
        return max(self._skip, 0)

    def take(self, most: int, *, parts: bool = False) -> Taken:
        """Up to `most` complete replies, the same object that was fed if it holds nothing else.

        With `parts`, a long reply that is not complete and is no error is given out as far as it is here, in a call
        that finds no complete ones before it. What was begun in parts goes on in parts. Empty `data` means: feed more.
        Raises ProtocolError when bytes are not RESP: nothing more can be read from this connection.
        """
        data, start = self._data, self._pos
        if self._given:
            return self._next_part(data, start) if most else _NOTHING
        pos, count, has_error = start, 0, False
        if not self._begun and not self._parts:
            pos, count, has_error = _plain_values(data, pos, most)
        if pos < len(data) and (count < most or self._push_at(pos)):
            return self._take_any(start, pos, Taken(b"", count, has_error), most, parts)
        self._pos = pos
        if not count and parts and most:
            return self._first_part()
        return Taken(data if pos - start == len(data) else data[start:pos], count, has_error)

    def _take_any(self, start: int, pos: int, taken: Taken, most: int, parts: bool) -> Taken:
        """Take replies of any kind, and the pushes before, between and behind them.

        `taken` counts what ends at `pos`. The bytes from `start` on are not in `pieces` yet.
        """
        data = self._data
        count, has_error = taken.count, taken.has_error
        pieces: list[bytes] = []
        while pos < len(data) and (count < most or self._push_at(pos)):
            first = pos
            pos, complete = self._scan(data, pos)
            if complete and self._kind != _PUSH:
                pieces += self._parts  # only ever of the first one: nothing is in `pieces` yet
                count += 1
                has_error = has_error or self._error
                self._next()
                pos, plain, failed = _plain_values(data, pos, most - count)
                count += plain
                has_error = has_error or failed
                continue
            if first > start:
                pieces.append(data[start:first])
            if pos > first:
                self._parts.append(data[first:pos])
                self._held += pos - first
            start = pos
            if not complete:
                break
            self.pushes.append(b"".join(self._parts))
            self._next()
        self._pos = pos
        if pos > start:
            pieces.append(data if pos - start == len(data) else data[start:pos])
        if not pieces and parts and most:
            return self._first_part()
        return Taken(pieces[0] if len(pieces) == 1 else b"".join(pieces), count, has_error)

    def _first_part(self) -> Taken:
        """What is held of a reply, if it is one to be given out in parts."""
        if self._held < self._long or not self._begun or self._kind != _REPLY or self._error:
            return _NOTHING
        held = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._held, self._given = [], 0, True
        return Taken(held, 0, False, True)

    def _next_part(self, data: bytes, start: int) -> Taken:
        """What has come of a reply whose beginning was given out."""
        end, complete = self._scan(data, start)
        self._pos = end
        if complete:
            self._next()
            self.take(0)  # finds the pushes behind it
        elif end == start:
            return _NOTHING
        return Taken(data if end - start == len(data) else data[start:end], int(complete), False, True)

    def _push_at(self, pos: int) -> bool:
        return self._pushes_apart and (self._kind == _PUSH if self._begun else self._data[pos] == _ARROW)

    def _scan(self, data: bytes, pos: int) -> tuple[int, bool]:
        """Go on in the current reply or push. Returns how far it was scanned, and whether that is its end."""
        while True:
            pos = self._step_over(data, pos)
            if self._skip:
                return pos, False
            if self._values:
                pos, plain, _ = _plain_values(data, pos, self._values)
                self._values -= plain
            if self._begun and not self._values:
                if self._kind != _ATTRIBUTE:
                    return pos, True
                self._kind, self._begun = _REPLY, False
            behind = self._read_header(data, pos) if pos < len(data) else -1
            if behind < 0:
                return pos, False
            pos = behind

    def _step_over(self, data: bytes, pos: int) -> int:
        """Go behind what need not be looked at, as far as it is here."""
        if self._skip == _TO_LINE_END:
            line = data.find(b"\r\n", pos)
            if line < 0:
                return max(pos, len(data) - 1) if data.endswith(b"\r") else len(data)
            self._skip = 0
            return line + 2
        step = min(self._skip, len(data) - pos)
        self._skip -= step
        return pos + step

    def _read_header(self, data: bytes, pos: int) -> int:
        """Note what the header at `pos` announces. Returns where it ends, or -1 when it is not complete."""
        kind = data[pos]
        inside = 0
        if kind in _LINES:
            self._skip = _TO_LINE_END
            behind = pos + 1
        else:
            line = _header_end(data, pos)
            if line < 0:
                return -1
            number = _number(data[pos + 1 : line])
            if kind in _STRINGS:
                self._skip = number + 2 if number >= 0 else 0
            else:
                inside = max(0, number) * _VALUES_EACH[kind]
            behind = line + 2
        if self._begun:
            self._values += inside if kind == _BAR else inside - 1
        else:
            self._begun = True
            push = kind == _ARROW and self._pushes_apart
            self._kind = _PUSH if push else _ATTRIBUTE if kind == _BAR else _REPLY
            self._error = kind in _ERRORS
            self._values = inside
        return behind

    def _next(self) -> None:
        """What was begun is complete."""
        self._kind, self._begun, self._error = _REPLY, False, False
        self._parts, self._held, self._given = [], 0, False


def _plain_values(data: bytes, pos: int, most: int) -> tuple[int, int, bool]:
    """Step over up to `most` strings and lines that are complete, as nearly all replies are.

    Returns where it stopped, how many there were, and whether an error was among them.
    """
    count = 0
    failed = False
    size = len(data)
    while count < most and pos < size:
        kind = data[pos]
        end = pos + 1
        if kind == _DOLLAR:
            length = 0
            byte = 0
            while end < size and _ZERO <= (byte := data[end]) <= _NINE:
                length = length * 10 + byte - _ZERO
                end += 1
            if byte == _CR and data[end + 1 : end + 2] == b"\n" and pos + 1 < end < pos + _MAX_HEADER - 1:
                end += length + 4
            elif data.startswith(b"$-1\r\n", pos):
                end = pos + 5
            else:
                break
        elif kind in _LINES:
            end = data.find(b"\r\n", end) + 2
            if end < 2:
                break
            failed = failed or kind == _MINUS
        else:
            break
        if end > size:
            break
        pos = end
        count += 1
    return pos, count, failed


def _header_end(data: bytes, pos: int) -> int:
    """Where the line of a header with a number ends, or -1 when that has not come yet. Raises ProtocolError."""
    kind = data[pos]
    if kind not in _STRINGS and kind not in _VALUES_EACH:
        raise ProtocolError(f"no reply starts with {data[pos : pos + 1]!r}")
    line = data.find(b"\r\n", pos, pos + _MAX_HEADER)
    if line < 0 and len(data) - pos >= _MAX_HEADER:
        raise ProtocolError("the length of a reply is no number")
    return line


def _number(digits: bytes) -> int:
    """The number of a header; -1 is that of a null. Raises ProtocolError."""
    if digits.isdigit():
        return int(digits)
    if digits == b"-1":
        return -1
    raise ProtocolError("the length of a reply is no number")


def split(data: bytes) -> list[bytes]:
    """Cut a run of whole replies and pushes into single ones. Raises ProtocolError when the last one is not whole."""
    scanner = ReplyScanner()
    items: list[bytes] = []
    pos = 0
    while pos < len(data):
        end, complete = scanner._scan(data, pos)
        if not complete:
            raise ProtocolError("the last reply is not complete")
        scanner._next()
        items.append(data[pos:end])
        pos = end
    return items
