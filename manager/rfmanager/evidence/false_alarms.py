"""Slows down changes of master that follow each other. Pure; fed with the receipts, so every manager comes to the same.

A master that is silent for a moment again and again (a stall of the host, a heavy command) loses its role each time,
and each time some writes are answered -UNCERTAIN. Two things show that the verdict comes too soon: the former master
was alive all the time, for its process answers again right after the change; or changes follow each other. After each
of these a silent master is given twice the time, up to `limit` times the usual, until there was no change for `QUIET`.
A server that refuses connections, or whose host is gone, is never given more time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rfprotocol.topology.records import Outcome, Receipt
from rfprotocol.topology.topology import Kind

RETURN = 10.0
"""Seconds after a change within which the former master's process answers again when it had only been silent."""

MANY = 3
WINDOW = 60.0
"""So many changes within so many seconds are too many."""

QUIET = 600.0
"""Seconds without a change after which all is forgotten."""

LIMIT = 8
"""The usual silence is allowed so many times at most: what is dead in spite of it should be replaced within the time
that proxies hold commands for."""


@dataclass(frozen=True, slots=True)
class Brake:
    """How much longer than usual a master may be silent, and why. Wall clock, seconds."""

    factor: int = 1
    until: float = 0.0  # when the usual time holds again, if nothing else happens
    recent: int = 0  # changes within `WINDOW` before the last one, which is among them
    false_alarms: int = 0  # since it was quiet

    @classmethod
    def of(cls, receipts: Iterable[Receipt], wall: float, limit: int = LIMIT) -> Brake:
        """What the receipts say at `wall`; with a `limit` of 1 there is no brake.

        The clocks of managers differ: a receipt of the future is one of now.
        """
        turns = sorted((min(receipt.ended, wall), receipt.false_alarm) for receipt in receipts if _counts(receipt))
        level = alarms = 0
        times: list[float] = []
        for at, false_alarm in turns:
            if times and at - times[-1] >= QUIET:
                level = alarms = 0
                times.clear()
            times = [time for time in times if time > at - WINDOW] + [at]
            alarms += false_alarm
            level += false_alarm or len(times) >= MANY
        if not times or wall - times[-1] >= QUIET:
            return cls()
        return cls(min(2**level, limit), times[-1] + QUIET, len(times), alarms)

    @property
    def on(self) -> bool:
        """Is a silent master given more time than usual?"""
        return self.factor > 1

    @property
    def reason(self) -> str:
        """In words; stays the same until there is another change."""
        alarms = f"{self.false_alarms} false alarm{'s' if self.false_alarms > 1 else ''}" if self.false_alarms else ""
        changes = f"{self.recent} changes of master within a minute" if self.recent >= MANY else ""
        return " and ".join(filter(None, (alarms, changes))) or "changes of master that followed each other"


NO_BRAKE = Brake()
"""No change for a long time."""


def _counts(receipt: Receipt) -> bool:
    """An operator's changes are not slowed down, and slow down nothing."""
    return receipt.kind is Kind.FAILOVER and receipt.outcome is Outcome.DONE and bool(receipt.steps)
