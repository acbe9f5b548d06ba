"""What the kernel knows of a TCP connection: whether the other host still acknowledges what was sent to it. Linux only.

A process that is frozen or busy does not answer, but the kernel of its host goes on acknowledging. A host that is gone
acknowledges nothing. Measured between two network namespaces on Linux 6: behind a stopped process `tcpi_unacked` stays
0; behind a link that drops everything it is 1 at once, `tcpi_retransmits` is 1 after 0.5 s and 2 after 0.9 s.

Source: `struct tcp_info` in linux/tcp.h, filled by `tcp_get_info` in net/ipv4/tcp.c. Fields were only ever appended.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

IPPROTO_TCP, TCP_INFO = 6, 11  # in netinet/tcp.h; the module `socket` is not for the core
SIZE = 148
"""Bytes of the structure up to the last field that is read here."""

_FIRST = struct.Struct("=8B24I")
"""Up to `tcpi_total_retrans`, which every kernel since 2.6 has."""
_UNSENT = struct.Struct("=I")
_UNSENT_AT = 144
"""Where `tcpi_notsent_bytes` is, since Linux 4.6."""


class HasOptions(Protocol):
    """A connected TCP socket, or what asyncio and uvloop give for one with `get_extra_info("socket")`."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As `socket.socket.getsockopt`."""


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """One look at a connection; times are seconds."""

    unacked: int = 0  # segments that were sent and not acknowledged, also the SYN of a connection being opened
    unsent: int = 0  # bytes that wait here: the other side's window is closed, or the packet could not leave this host
    retransmits: int = 0  # how often the oldest segment was sent again without an acknowledgement
    probes: int = 0  # questions into a closed window that were not acknowledged
    rto: float = 0.0  # until the next retransmission, from its last one
    last_sent: float = 0.0  # ago: data, first or again
    last_acked: float = 0.0  # ago: an acknowledgement arrived
    last_received: float = 0.0  # ago: data arrived

    @classmethod
    def parse(cls, data: bytes) -> TcpInfo:
        """Read `struct tcp_info`, as long as the kernel gives it. Raises ValueError when it is shorter than any is."""
        if len(data) < _FIRST.size:
            raise ValueError(f"tcp_info has {len(data)} bytes, expected {_FIRST.size} or more")
        first = _FIRST.unpack_from(data)
        known = len(data) >= _UNSENT_AT + _UNSENT.size
        return cls(
            unacked=first[12],
            unsent=_UNSENT.unpack_from(data, _UNSENT_AT)[0] if known else 0,
            retransmits=first[2],
            probes=first[3],
            rto=first[8] / 1e6,
            last_sent=first[17] / 1e3,
            last_acked=first[20] / 1e3,
            last_received=first[19] / 1e3,
        )


def look(sock: HasOptions) -> TcpInfo | None:
    """What the kernel says of the connection now; None when it is closed, or the system has no such option."""
    try:
        return TcpInfo.parse(sock.getsockopt(IPPROTO_TCP, TCP_INFO, SIZE))
    except (OSError, ValueError):
        return None


class Unacknowledged:
    """For how long the other kernel has acknowledged nothing of what it was sent. One per connection; no I/O.

    It is told by samples, the more often the sharper: never more than it is, and less by no more than the time between
    two samples. Anything that arrives from the other side ends the silence: its kernel lives.
    """

    def __init__(self) -> None:
        self._since: float | None = None  # something is to be acknowledged since then

    def seconds(self, info: TcpInfo, now: float) -> float:
        """The age of the oldest unacknowledged byte, or the time since the other side was last heard, if that is
        shorter; 0 when there is nothing to acknowledge. `now` is when `info` was taken, of a monotonic clock."""
        awaited = info.unacked or info.probes
        if not awaited and not info.unsent:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now - (info.last_sent if info.unacked else 0.0)
        heard = now - min(info.last_acked, info.last_received)
        return max(0.0, now - max(self._since, heard)) if awaited else 0.0
