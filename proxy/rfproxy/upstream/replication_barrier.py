"""What is sent in front of WAIT and WAITAOF, so that they ask about every write that was acknowledged before.

A server remembers an offset of the replication stream for each connection, and WAIT counts the replicas that have
reached it. It is the end of the connection's last command (before Redis 7.2), or of its last command that replicas were
sent (since 7.2, and in every Valkey, which calls itself Redis 7.2.4 or later; server.c: call). The writes that a client
asks about were sent on other connections. So the connection that carries WAIT says something first that moves its
offset behind them: PING, or a message that nobody hears. Replicas are sent messages as they are sent writes.

WAITAOF looks at the same offset. The append-only file does not get messages, but its offset moves with them as soon as
all before them is written (aof.c: flushAppendOnlyFile), on the master and on replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import parsed_version

CHANNEL: Final = b"rfproxy:durable"
"""Users need the right to SPUBLISH here. Nobody hears it, as there are no patterns for such channels."""
PING: Final = resp.encode_command([b"PING"])
MESSAGE: Final = resp.encode_command([b"SPUBLISH", CHANNEL, b""])
_OF_THE_LAST_WRITE: Final = (7, 2)
"""The release since which the offset is that of the last command that replicas were sent."""


def counts_writes_only(version: str) -> bool:
    """Whether a server of this version remembers the offset of a connection's last write, rather than command.

    A server that does not tell its version (empty) is taken for one of today.
    """
    return not version or parsed_version(version) >= _OF_THE_LAST_WRITE


def replication_barrier(version: str) -> bytes:
    """The command, as bytes, that moves a connection's offset behind all that a server of this version has executed."""
    return MESSAGE if counts_writes_only(version) else PING


def answer(name: str, replies: Sequence[bytes]) -> bytes:
    """What a client hears of its WAIT or WAITAOF, of the replies to the barrier and to that.

    If the barrier was refused, the number is about some other write, or about none: then it is an error.
    """
    barrier, number = replies
    if not barrier.startswith(b"-"):
        return number
    code, _, text = barrier[1:].decode(errors="replace").strip().partition(" ")
    return resp.error(
        f"{code} {name} cannot be asked through rfproxy: its user needs the right to PING, and since Redis 7.2 to "
        f"SPUBLISH on the channel {CHANNEL.decode()}: {text}"
    )
