"""Requests in, replies out: the client's side of the Redis serialization protocol, without I/O.

Two readers share the work. hiredis is several times faster, but it is made for replies: it allocates whatever an
array header claims, nests, and knows types that no request may contain. So it is only handed bytes in which no header
can make it allocate much, only while no command is half read, and what it made of them is believed only when
`_whole_commands` can prove that Redis would read the same. Everything else is read by the exact scanner, which
follows processMultibulkBuffer and processInlineBuffer of Redis' networking.c to the byte, error texts included.

    chunk ──┬─ nothing half read ──> hiredis ── proven? ── yes ──> commands, and the chunk itself
            │                                     │ no
            └─ half read, inline, garbage, ... ───┴──> exact scanner ──> commands and their bytes; the rest is held
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import hiredis

from rfprotocol.errors import ProtocolError
from rfprotocol.resp.inline import split_inline

MAX_ARGUMENTS = 2**31 - 1
MAX_BULK = 512 * 1024 * 1024  # proto-max-bulk-len
MAX_LINE = 64 * 1024  # PROTO_INLINE_MAX_SIZE: inline commands and headers
MAX_QUERY = 1024 * 1024 * 1024  # client-query-buffer-limit
STRANGER_ARGUMENTS = 10  # a stranger is who has not authenticated yet
STRANGER_BULK = 16 * 1024
_LOGINS = (b"AUTH", b"HELLO")
_A_LOGIN = 4096  # bytes that are looked at behind a login that failed: there may be many, and each leaves the rest

_STAR = 0x2A
_DOLLAR = 0x24
_CR = 0x0D
_ZERO = 0x30
_NINE = 0x39
_MAX_INT64 = 2**63 - 1
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")  # string2ll of util.c: no plus sign, no leading zero
_COUNTS = {b"*%d" % n: n for n in range(1, 64)}

_KEPT_APART = 64 * 1024  # bytes of an argument from which on it is not copied before its command is complete
_LARGE = 512  # bytes per command above which the exact scanner is at least as fast, as it does not look at content
_NOT_FOR_HIREDIS = re.compile(
    rb"""[*%~>|=](?: (?<=\*)0              # an empty command, which Redis drops
                   | [0-9]{4,}\r           # an aggregate that would be allocated as announced
                   | (?<=\n[%~>|])[0-9]    # where a command should start: an aggregate that looks like one in Python
                   | (?<==)[0-9]+\r\n...:  # a verbatim string, whose first four bytes hiredis does not show
                 )""",
    re.DOTALL | re.VERBOSE,
)
"""Looked for at every place, not only where a line starts: hiredis skips two bytes behind a string whatever they are,
so whoever sends others there starts the next header in the middle of a line."""

_LINE_ENDS_TO_BLANKS = bytes.maketrans(b"\r\n", b"  ")
_END = object()


class _Place(NamedTuple):
    """Where in the bytes of a command an argument is: `index` is its place in the list of arguments."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    start: int
    end: int


class _Found(NamedTuple):
    """What one call has read so far; the pieces together are the bytes of the commands.

    `apart`: the arguments that the first command still lacks, and that its bytes hold.
    """

    commands: list[list[bytes]]
    pieces: list[bytes | bytearray]
    apart: list[_Place]


class Requests(NamedTuple):
    """What one chunk completed.

    `raw` holds exactly `commands`, as they came (only inline ones are re-encoded), to be forwarded untouched.
    `error` is what to answer after them before the connection is closed. When its `reply` is empty, Redis closes
    without a word.
    """

    commands: list[list[bytes]]
    raw: bytes
    error: ProtocolError | None


class RequestReader:
    """Reads the commands of one client, whatever the chunks they arrive in.

    While `authenticated` is False, Redis' limits for strangers apply: 10 arguments of 16 KiB. Whether they still do
    behind AUTH or HELLO is only known when that is answered: until `login_answered` the bytes behind it are kept.
    `query_limit` bounds one argument (with the line end behind it), in bytes. As in Redis it is at
    least 1 MiB, and the client is only thrown out when more than that has come.

    A large argument is copied twice: once into the bytes of its command, and once out of them when they are complete.

    After an error nothing more is read: every further call returns no commands and the same error.
    """

    def __init__(self, *, authenticated: bool = True, query_limit: int = MAX_QUERY) -> None:
        self.authenticated = authenticated
        self._query_limit = query_limit
        self._hiredis = _new_hiredis()
        self._error: ProtocolError | None = None
        self._login = False  # a stranger's AUTH or HELLO was read and is not answered yet
        # The command that is half read. Its arguments so far are in `_args`, the bytes they came in in `_scanned`.
        self._missing = 0  # arguments still to come; 0 = between commands
        self._bulk = -1  # announced length of the argument that comes next; -1 = its header comes next
        self._args: list[bytes] = []
        self._scanned = bytearray()
        self._held = bytearray()  # not scanned yet, because an argument or a line is not complete
        self._apart: list[_Place] = []  # large arguments: in `_args` they are still empty
        self._rest = 0  # bytes still to come of the last one of these; they go to `_scanned` without being looked at
        self._wanted = 0  # to look at `_held` again is useless before it has this many bytes; 0 = nothing is half read

    def feed(self, data: bytes) -> Requests:
        """Take the bytes that arrived, return the commands they complete. Raises nothing."""
        failure = self._error
        if failure is not None:
            return Requests([], b"", failure)
        if self._login:
            return self._keep(data)
        whole = not self._wanted and self.authenticated and data[-1:] == b"\n"
        if whole and (commands := self._whole_commands(data)) is not None:
            return Requests(commands, data, None)
        found = _Found([], [], [])
        try:
            self._read(data, found)
        except ProtocolError as broken:
            self._fail(broken)
        raw = b"".join(found.pieces)
        found.pieces.clear()  # frees what the arguments are copied from otherwise
        for place in found.apart:
            found.commands[0][place.index] = raw[place.start : place.end]
        return Requests(found.commands, raw, self._error)

    def login_answered(self, *, authenticated: bool) -> Requests:
        """The AUTH or HELLO of a stranger was answered, well or not: read what came behind it. Raises nothing."""
        self.authenticated = authenticated
        if not self._login:
            return Requests([], b"", self._error)
        self._login = False
        held, self._held, self._wanted = self._held, bytearray(), 0
        piece = bytes(held if authenticated else held[:_A_LOGIN])
        found = self.feed(piece)
        if self._login:  # again: behind it is what was not read of the piece, and the rest
            del held[: len(piece) - len(self._held)]
            self._held = held
            return found
        rest = self.feed(bytes(held[len(piece) :]))
        return Requests(found.commands + rest.commands, found.raw + rest.raw, rest.error)

    @property
    def between(self) -> bool:
        """Whether what comes next is the beginning of a command of somebody who has authenticated."""
        return not self._wanted and self.authenticated and not self._login and self._error is None

    @property
    def awaits_login(self) -> bool:
        """Whether nothing is read before `login_answered`."""
        return self._login

    @property
    def pending(self) -> int:
        """Bytes held of what was not returned yet."""
        return len(self._scanned) + len(self._held)

    def _keep(self, data: bytes) -> Requests:
        self._held += data
        if len(self._held) > self._query_limit:
            self._fail(_too_large())
        return Requests([], b"", self._error)

    def _fail(self, error: ProtocolError) -> None:
        self._error = error
        self._login = False
        self._args, self._apart, self._scanned, self._held = [], [], bytearray(), bytearray()

    @property
    def held(self) -> bytes:
        """The bytes of a command that is not complete."""
        return bytes(self._scanned + self._held)

    def _read(self, data: bytes, found: _Found) -> None:
        pos = 0
        if self._wanted:
            if self._rest:
                pos = self._read_on_apart(data, found)
            else:
                self._held += data
                if len(self._held) < self._wanted or (self._bulk < 0 and self._within_line(len(data))):
                    return
                data, self._held = bytes(self._held), bytearray()
            pos = self._scan(data, pos, found, 1)
            if pos < len(data) and not self._missing and self.authenticated:
                pos += self._leading_commands(data[pos:], found)
        elif data[-1:] != b"\n" and self.authenticated:
            pos = self._leading_commands(data, found)
        pos = self._scan(data, pos, found, len(data))
        self._held += data[pos:]
        if self._bulk >= 0:
            self._wanted = self._bulk + 2
        else:
            self._wanted = len(self._held) + 1 if self._held or self._missing else 0

    def _within_line(self, arrived: int) -> bool:
        """Whether the bytes that came last leave the line half read: it ends with `\\n`, or one byte behind `\\r`."""
        last = self._held[-arrived - 1 :]
        return len(self._held) <= MAX_LINE and b"\r" not in last and b"\n" not in last

    # -- hiredis ---------------------------------------------------------------------------------------------------

    def _leading_commands(self, data: bytes, found: _Found) -> int:
        """Read all commands of a chunk, except the last one if it is cut. Returns the length of what was read.

        Where the last line begins with `*`, there most likely begins the one that is cut. Should it be within an
        argument, then what precedes it is not whole commands, and nothing is read.
        """
        end = len(data) if data[-1:] == b"\n" else data.rfind(b"\r\n*") + 2
        commands = self._whole_commands(data[:end]) if end > 1 else None
        if commands is None:
            return 0
        found.commands.extend(commands)
        found.pieces.append(data[:end])
        return end

    def _whole_commands(self, data: bytes) -> list[list[bytes]] | None:
        """What hiredis reads in these bytes, or None when that might not be what Redis would read.

        The proof. Let hiredis use up all bytes for C lists of A byte strings in total, none with a `\\r` in it. Then
        the header of a list holds one `\\r\\n`, and a string at most two: one ends its header, one may stand in the two
        bytes behind it, which hiredis skips unseen. So if there are C + 2A of them, each string is one with a length
        (not a simple one) and is followed by `\\r\\n`. So every header began a line, where of the types with a length
        only `*` and `$` pass `_NOT_FOR_HIREDIS`, and these headers are read alike by both (string2ll).
        Anything nested, null or of another type is not a byte string: `join` refuses it.
        """
        size = len(data)
        if data[:1] != b"*" or size > MAX_BULK or (size > _LARGE and size > _LARGE * (data.count(b"\r\n*") + 1)):
            return None
        if _NOT_FOR_HIREDIS.search(data) is not None:
            return None
        reader = self._hiredis
        try:
            reader.feed(data)
            first = reader.gets()
            if reader.has_data():
                commands = [first, *iter(reader.gets, _END)]
                args = [*chain.from_iterable(commands)]
                reader.feed(b"+\r\n")  # comes out as it is only if nothing is half read
                sound = {*builtins.map(type, commands)} == {list} and reader.gets() == b"" and not reader.has_data()
            else:
                commands = [first]
                args = first
                sound = type(first) is list
            if sound and b"\r" not in b"".join(args) and data.count(b"\r\n") == len(commands) + 2 * len(args):
                return commands
        except (TypeError, MemoryError, hiredis.HiredisError):
            pass
        self._hiredis = _new_hiredis()
        return None

    # -- the exact scanner -----------------------------------------------------------------------------------------

    def _scan(self, data: bytes, pos: int, found: _Found, limit: int) -> int:
        """Read up to `limit` commands from `pos` on. Returns where it stopped. Raises ProtocolError."""
        while pos < len(data) and limit and not self._login:
            start = pos
            if self._missing or data[pos] == _STAR:
                pos = self._read_multibulk(data, pos)
                if self._missing:
                    self._scanned += data[start:pos]
                    return self._read_apart(data, pos) if self._bulk > _KEPT_APART else pos
                args, self._args = self._args, []
                piece = data[start:pos]
            else:
                pos, args = self._read_inline(data, pos)
                piece = encode_command(args)
            if pos == start:
                break
            if args:
                self._complete(args, piece, found)
                limit -= 1
        return pos

    def _complete(self, args: list[bytes], piece: bytes, found: _Found) -> None:
        """A command has been read; `piece` are its last bytes, or all of them."""
        if self._scanned:
            found.pieces.append(self._scanned)
            self._scanned = bytearray()
        if self._apart:
            found.apart.extend(self._apart)
            self._apart = []
        found.commands.append(args)
        found.pieces.append(piece)
        self._login = not self.authenticated and args[0].upper() in _LOGINS

    def _read_apart(self, data: bytes, pos: int) -> int:
        """Begin a large argument, whose header was read and of which some is here."""
        start = len(self._scanned)
        self._apart.append(_Place(len(self._args), start, start + self._bulk))
        self._args.append(b"")
        self._rest = self._bulk + 2
        self._bulk = -1
        return self._take_apart(data, pos)

    def _read_on_apart(self, data: bytes, found: _Found) -> int:
        """Go on in a large argument. Returns how far it read."""
        pos = self._take_apart(data, 0)
        if not self._rest and not self._missing:
            args, self._args = self._args, []
            self._complete(args, b"", found)
        return pos

    def _take_apart(self, data: bytes, pos: int) -> int:
        end = min(len(data), pos + self._rest)
        self._scanned += data if end - pos == len(data) else data[pos:end]
        self._rest -= end - pos
        if len(self._scanned) - self._apart[-1].start > self._query_limit:
            raise _too_large()
        if not self._rest:
            self._missing -= 1
        return end

    def _read_multibulk(self, data: bytes, pos: int) -> int:
        """Begin or continue a command; complete when `_missing` is 0 again. Returns how far it read."""
        missing, bulk, args = self._missing, self._bulk, self._args
        last = len(data) - 2
        if not missing:
            end = _line_end(data, pos, "mbulk")
            if end < 0:
                return pos
            missing = self._argument_count(data[pos:end])
            pos = end + 2
        while missing:
            if bulk < 0:
                bulk, end = _short_length(data, pos) if self.authenticated else (-1, pos)
                if bulk < 0:
                    end = _line_end(data, pos, "bulk")
                    if end < 0:
                        break
                    bulk = self._bulk_length(data[pos:end] or data[pos : pos + 1])
                    if bulk + 2 > self._query_limit and len(data) - end - 2 > self._query_limit:
                        raise _too_large()
                pos = end + 2
            end = pos + bulk
            if end > last:
                break
            args.append(data[pos:end])
            pos = end + 2
            bulk = -1
            missing -= 1
        self._missing, self._bulk = missing, bulk
        return pos

    def _argument_count(self, header: bytes) -> int:
        count = _COUNTS.get(header, -1)
        if count < 0:
            count = max(0, _integer(header[1:], MAX_ARGUMENTS, "invalid multibulk length"))
        if not self.authenticated and count > STRANGER_ARGUMENTS:
            raise _broken("unauthenticated multibulk length")
        return count

    def _bulk_length(self, header: bytes) -> int:
        if header[:1] != b"$":
            raise _broken(f"expected '$', got '{_text(header[:1])}'")
        length = _integer(header[1:], MAX_BULK, "invalid bulk length")
        if length < 0:
            raise _broken("invalid bulk length")
        if not self.authenticated and length > STRANGER_BULK:
            raise _broken("unauthenticated bulk length")
        return length

    def _read_inline(self, data: bytes, pos: int) -> tuple[int, list[bytes]]:
        end = data.find(b"\n", pos, pos + MAX_LINE + 1)
        if end < 0 or b"\0" in data[pos:end]:  # strchr does not look behind a NUL
            if len(data) - pos > MAX_LINE:
                raise _broken("too big inline request")
            return pos, []
        return end + 1, split_inline(data[pos:end].removesuffix(b"\r"))


def _new_hiredis() -> hiredis.Reader:
    return hiredis.Reader(notEnoughData=_END)


def _broken(text: str) -> ProtocolError:
    return ProtocolError(f"ERR Protocol error: {text}")


def _too_large() -> ProtocolError:
    """For a query buffer that grows too large Redis closes without a word."""
    error = ProtocolError("query buffer limit exceeded")
    error.reply = ""
    return error


def _text(data: bytes) -> str:
    """Bytes of a client in an error text; `error` turns them back into the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def _line_end(data: bytes, pos: int, what: str) -> int:
    """Where the `\\r` of the header at `pos` is, or -1 when the header is not complete. What follows is not checked."""
    end = data.find(b"\r", pos, pos + MAX_LINE + 1)
    if end < 0 or b"\0" in data[pos:end]:  # strchr does not look behind a NUL
        if len(data) - pos > MAX_LINE:
            raise _broken(f"too big {what} count string")
        return -1
    return end if end + 2 <= len(data) else -1


def _short_length(data: bytes, pos: int) -> tuple[int, int]:
    """The length in a bulk header of up to five digits, and where its `\\r` is; -1 when it needs a closer look."""
    last = min(len(data) - 2, pos + 6)
    if pos >= last or data[pos] != _DOLLAR or (data[pos + 1] == _ZERO and data[pos + 2] != _CR):
        return -1, pos
    length = 0
    end = pos + 1
    while end < last and _ZERO <= data[end] <= _NINE:
        length = length * 10 + data[end] - _ZERO
        end += 1
    return (length, end) if data[end] == _CR and end > pos + 1 else (-1, pos)


def _integer(digits: bytes, most: int, refusal: str) -> int:
    value = int(digits) if _INTEGER.fullmatch(digits) else most + 1
    if value > most or value < -_MAX_INT64 - 1:
        raise _broken(refusal)
    return value


# -- out -----------------------------------------------------------------------------------------------------------


def encode_command(args: Sequence[bytes]) -> bytes:
    """A command as an array of bulk strings."""
    packed: bytes = hiredis.pack_command(tuple(args))  # type: ignore[arg-type]  # the stub says: a tuple of one item
    return packed


def encode_commands(commands: Iterable[Sequence[bytes]]) -> bytes:
    """Commands one behind the other."""
    return b"".join([encode_command(args) for args in commands])


def simple(text: str) -> bytes:
    """A simple string, such as `simple("OK")`."""
    return b"+" + _one_line(text) + b"\r\n"


def error(text: str) -> bytes:
    """An error reply; the text starts with its code (`ERR ...`). Line ends become blanks, as in Redis."""
    return b"-" + _one_line(text) + b"\r\n"


def _one_line(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").translate(_LINE_ENDS_TO_BLANKS)


def integer(value: int) -> bytes:
    """An integer reply."""
    return b":%d\r\n" % value


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def array(items: Sequence[bytes]) -> bytes:
    """An array of items that are encoded already."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def map(pairs: Iterable[tuple[bytes, bytes]], protocol: int) -> bytes:
    """A map of encoded keys to encoded values; in RESP2 an array in which they alternate."""
    flat = [*chain.from_iterable(pairs)]
    return b"%%%d\r\n%b" % (len(flat) // 2, b"".join(flat)) if protocol == 3 else array(flat)


def push(items: Sequence[bytes]) -> bytes:
    """An out-of-band message of encoded items, which only RESP3 has."""
    return b">%d\r\n%b" % (len(items), b"".join(items))


def null(protocol: int) -> bytes:
    """The missing string, as GET answers it."""
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"


def null_array(protocol: int) -> bytes:
    """The missing array, as EXEC answers after a watched key changed."""
    return b"_\r\n" if protocol == 3 else b"*-1\r\n"
