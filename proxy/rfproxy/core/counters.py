"""What the proxy counts: for the receipt of a failover, and in total."""

from __future__ import annotations

from dataclasses import dataclass, field

from rfprotocol.settings.log_limit import LogLimiter


@dataclass(slots=True)
class ChangeStats:
    """What clients went through during one change of master. It begins with the first sign, often before the fence."""

    since: int = -1  # the epoch in force when it began
    held: int = 0  # commands that waited for a master
    replayed: int = 0  # commands sent a second time
    uncertain: int = 0  # commands answered -UNCERTAIN
    longest_wait: float = 0.0  # seconds from the sending of a command, or its arrival where it was held, to its answer

    def waited(self, seconds: float) -> None:
        """A command that was held, or whose server was lost, went on or was answered after that long."""
        self.longest_wait = max(self.longest_wait, seconds)


@dataclass(slots=True)
class Stats:
    """Totals since the start, and `change`: the latest change of master."""

    clients: int = 0
    clients_total: int = 0
    clients_refused: int = 0
    clients_evicted: int = 0  # closed because of what all together held
    clients_stopped: int = 0  # not read from at the moment
    clients_memory: int = 0  # bytes that all together hold, see `budget`
    clients_memory_limit: int = 0
    errors: int = 0  # errors of the proxy's own making that clients saw
    spilled: int = 0  # runs of reads that went to the master for want of a replica
    batches: int = 0  # sent with WAIT behind them
    unreplicated: int = 0  # writes that too few replicas had in time
    workers_unheard: int = 0  # times that a worker did not say what another one had asked it about its clients
    scripts_copied: int = 0  # loaded into replicas ahead
    reads_touched: int = 0  # keys read on replicas that were named to a master that evicts by use
    change: ChangeStats = field(default_factory=ChangeStats)
    log: LogLimiter | None = None  # counts the lines of the log that were not written

    def disturbed(self, epoch: int, *, serving: bool) -> ChangeStats:
        """Where to count what clients notice now. A sign under another epoch that serves is of another change."""
        if serving and epoch != self.change.since:
            self.change = ChangeStats(since=epoch)
        return self.change
