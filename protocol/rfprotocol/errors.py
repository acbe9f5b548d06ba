"""Every exception the two programs raise on purpose.

    RfError
    ├── ConfigError            an option or a file is wrong; the program exits 2 with one line
    ├── ProtocolError          a client sent bytes that are not RESP; its connection is closed
    ├── RecordError            a znode holds something this version cannot read
    ├── StoreError
    │   ├── StoreUnavailable   the store cannot be reached; whether a write happened is unknown
    │   ├── StoreConflict      the store said no: another version, or the node exists (or does not)
    │   └── FenceLost          the store said no: the tenure behind the fencing token is over
    ├── NodeError
    │   ├── NodeUnreachable    a Redis server does not accept, does not answer, or hung up
    │   └── NodeRefused        a Redis server answered with an error
    ├── ManagerFailed          a task that a manager cannot be without has died; the program exits 1 with one line
    └── OperationFailed        what an operator asked for was not done; the program exits 1 with one line

"The store says no" and "the store cannot be reached" are different types on purpose: the first is an
answer to act upon, after the second nothing is known until the store has been read again.
"""

from __future__ import annotations

from enum import Enum


class RfError(Exception):
    """Root of the tree; its text is one line that an operator can act upon."""


class ConfigError(RfError):
    """An option, environment variable or configuration file is wrong."""


class ProtocolError(RfError):
    """A client broke the protocol. `reply` is the error Redis sends in that case, without the dash."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class RecordError(RfError):
    """The content of a znode is not what this version understands. The last good content stays in force."""


class StoreError(RfError):
    """Root of what the topology store reports."""


class StoreUnavailable(StoreError):
    """The store did not answer in time. A write may or may not have happened: read back to learn it."""


class StoreConflict(StoreError):
    """The store refused a change because what it holds is not what the caller had read."""


class FenceLost(StoreError):
    """The store refused a change because the leadership it was made under is over."""


class NodeError(RfError):
    """Root of what goes wrong with a Redis server."""


class Failure(Enum):
    """Why there is no answer from a server; the value is the condition that a manager's report shows."""

    REFUSED = "refused"  # its host refuses the connection: nothing listens there
    CLOSED = "closed"  # it was closed, or reset, while it was asked
    TIMEOUT = "timeout"  # the host acknowledges what it is sent, the process does not answer
    UNREACHABLE = "unreachable"  # no route, or the host acknowledges nothing any more
    UNRESOLVED = "unresolved"  # the name service does not know its name, or does not answer
    FOREIGN = "foreign"  # what listens there answers, but not as Redis does
    ERROR = "error"  # anything else: the message says what


class NodeUnreachable(NodeError):
    """The server refused the connection, closed it, or did not answer in time: `reason` says which."""

    def __init__(self, message: str, reason: Failure = Failure.ERROR) -> None:
        super().__init__(message)
        self.reason = reason


class NodeRefused(NodeError):
    """The server answered with an error. `code` is its first word, such as `NOAUTH` or `LOADING`."""

    def __init__(self, message: str, code: str = "ERR") -> None:
        super().__init__(message)
        self.code = code


class ManagerFailed(RfError):
    """A task that a manager cannot be without has died. What is left of it must not go on as if all were well."""


class OperationFailed(RfError):
    """A command of an operator was not carried out; the text says why, and what to do."""


_QUOTED = ", with args beginning with:"


def without_arguments(text: str) -> str:
    """An error of a server without the arguments that it repeats.

    One that does not know AUTH (`rename-command`) repeats the password (server.c: commandCheckExistence).
    """
    return text.partition(_QUOTED)[0]
