"""Which server can copy the data of which other one: the format of the transfer depends on their versions. Pure.

A new replica, or one that missed too much, loads an RDB file of its master. A server loads the formats up to its own,
so after a change to a master of a later release older replicas can only go on as long as they need no full copy. The
numbers are those of RDB_VERSION in rdb.h of each release.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from rfprotocol.topology.topology import NodeReport

Release = tuple[int, ...]

_REDIS: tuple[tuple[Release, int], ...] = (
    ((5, 0), 9),
    ((7, 0), 10),
    ((7, 2), 11),
    ((7, 4), 12),  # also 8.0 to 8.4
    ((8, 6), 13),
    ((8, 10), 15),
)
"""The first release with each format."""
_VALKEY = "valkey"
_COMMON = 11
"""The format of Redis 7.2, and of Valkey before 9.0. Later ones send it to replicas that do not say that they are of
9.0 or later (replicaRdbVersion in replication.c), and load no later format of Redis' (RDB_FOREIGN_VERSION_MIN)."""
_VALKEY_ALONE = 80
"""The format of Valkey from 9.0 on."""


def release(report: NodeReport) -> Release:
    """The version as numbers; () if it is not known."""
    return tuple(int("".join(takewhile(str.isdigit, part)) or 0) for part in report.version.split(".") if part)


def shown(report: NodeReport) -> str:
    """The version for people; empty if it is not known."""
    return f"{report.software} {report.version}".strip()


def named(report: NodeReport) -> str:
    """The same, in a sentence."""
    return shown(report) if report.software else f"Redis {report.version}"


def can_copy(replica: NodeReport, master: NodeReport) -> bool:
    """Whether the replica can load a full copy of the master; true if one of the versions is not known."""
    if not replica.version or not master.version or {replica.software, master.software} - {"", _VALKEY}:
        return True
    sent, alone = _format(master), _format(replica)
    if master.software == _VALKEY:
        sent = _VALKEY_ALONE if alone == _VALKEY_ALONE == sent else _COMMON
    return sent <= (_COMMON if replica.software == _VALKEY and sent != _VALKEY_ALONE else alone)


def unable_to_copy(master: NodeReport, others: Iterable[NodeReport]) -> list[NodeReport]:
    """Those that cannot load a full copy of this one."""
    return [report for report in others if report.node != master.node and not can_copy(report, master)]


def warning(master: NodeReport, others: Iterable[NodeReport]) -> str:
    """What an operator should know before this server becomes the master; empty: nothing."""
    old = unable_to_copy(master, others)
    if not old:
        return ""
    said = ", ".join(f"{report.node} ({named(report)})" for report in old)
    return f"cannot copy from {master.node} ({named(master)}), should they need a full copy: {said}: upgrade them first"


def age(report: NodeReport) -> tuple[int, Release]:
    """Smaller is older: as the master, a server that more of the others can copy from. Unknown versions are equal."""
    return (_format(report) if report.version else 0, release(report))


def _format(report: NodeReport) -> int:
    if report.software == _VALKEY:
        return _VALKEY_ALONE if release(report)[:1] >= (9,) else _COMMON
    return max((number for first, number in _REDIS if first <= release(report)), default=0)
