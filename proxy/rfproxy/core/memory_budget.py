"""The memory that clients cost all together: one sum, and by what rule it stays below a limit.

Each client is counted with what it *holds*: bytes that it sent and that are not answered, and replies that it has not
read. One that holds no more than NOTED bytes is not counted. Replies that are expected for a client that does not read
are left in the server: its connection is not read from as long as nobody else waits behind them (`Lane.stalled`).

    used    0 ---------------- 7/8 -------- limit -------- 9/8 -------- 5/4
                               |            |              |            nobody is read from, up to 9/8
                               |            |              so many replies: who does not read is closed at once
                               |            those that hold more than their share are not read from
                               here they are read from again

A client waits for others, or for itself. The former is answered, and then holds nothing. The latter does not read, or
does not finish what it began to say, or is blocked: when the sum has been too large for PATIENCE seconds and such a
client holds hardly less than before, it is closed, the largest first. Redis' `maxmemory-clients` closes at once; there
nobody can be let wait.

One client at a time is read from above its share: the one whose unfinished command is the largest. So a command passes
that is larger than the limit, and those who began many large ones at the same time end them one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

H = TypeVar("H")

NOTED: Final = 16 * 1024
"""Bytes that every client may hold: so much Redis spends on the buffers of each (PROTO_IOBUF_LEN)."""
PATIENCE: Final = 10.0
"""Seconds for which a client may stay as it is while others are not read from because of it."""
_PROGRESS: Final = 8
"""A client goes on when it holds so many parts less one of what it held."""


class _Account:
    """What one client holds."""

    __slots__ = ("most", "since", "size", "stuck", "unfinished", "unread")

    def __init__(self, now: float) -> None:
        self.size = 0
        self.unread = 0
        self.stuck = False
        self.unfinished = False
        self.most = 0  # since it last went on
        self.since = now


class Budget(Generic[H]):
    """Who holds how much. `limit` in bytes; 0 is no limit. Times are seconds of the caller's monotonic clock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.unread = 0
        """The part of `used` that is replies."""
        self.over = False
        """Whether those are not read from who hold more than their share."""
        self.full = False
        """Whether nobody is read from, but the first."""
        self.first: H | None = None
        """Whose command may be finished although it is above its share."""
        self._over_since = 0.0
        self._finished = 0.0  # when the first ended its command, or left
        self._accounts: dict[H, _Account] = {}

    def weigh(
        self, holder: H, size: int, now: float, *, unread: int = 0, stuck: bool = False, unfinished: bool = False
    ) -> None:
        """A client holds `size` bytes now, of which `unread` are replies.

        `stuck`: nothing of it becomes less without the client's doing. `unfinished`: it is a command half said.
        """
        account = self._accounts.get(holder)
        if size <= NOTED:
            if account is not None:
                self.forget(holder, now)
            return
        if account is None:
            account = self._accounts[holder] = _Account(now)
        if size * _PROGRESS <= account.most * (_PROGRESS - 1) or stuck is not account.stuck:
            account.most, account.since = size, now
        account.most = max(account.most, size)
        more, more_unread = size - account.size, unread - account.unread
        account.size, account.unread, account.stuck, account.unfinished = size, unread, stuck, unfinished
        self._count(more, more_unread, now)
        if self.first == holder and not unfinished:
            self._next(now)

    def forget(self, holder: H, now: float) -> None:
        """A client holds nothing any more."""
        account = self._accounts.pop(holder, None)
        if account is not None:
            self._count(-account.size, -account.unread, now)
        if self.first == holder:
            self._next(now)

    def _next(self, now: float) -> None:
        """The first has finished: those who waited for that were right to wait."""
        self.first, self._finished = None, now

    def _count(self, more: int, more_unread: int, now: float) -> None:
        self.used += more
        self.unread += more_unread
        eighth = self.limit // 8
        if not self.over and self.used > self.limit > 0:
            self.over, self._over_since = True, now
        elif self.over and self.used <= self.limit - eighth:
            self.over, self.first = False, None
        self.full = self.over and self.used > self.limit + (eighth if self.full else 2 * eighth)

    def stops(self, holder: H, *, unfinished: bool) -> bool:
        """Whether this client is not to be read from; `unfinished`: what it holds is half a command."""
        if not self.over:
            return False
        if unfinished and (self.first is None or self._size(holder) > self._size(self.first)):
            self.first = holder
        return holder != self.first and (self.full or self._size(holder) * len(self._accounts) > self.limit)

    @property
    def holders(self) -> list[H]:
        """Those who are counted."""
        return list(self._accounts)

    def _size(self, holder: H) -> int:
        account = self._accounts.get(holder)
        return account.size if account is not None else 0

    @property
    def flooded(self) -> bool:
        """Whether so many replies are unread that clients are to be closed at once."""
        return self.unread > self.limit + self.limit // 8 if self.limit else False

    def to_close(self, now: float) -> Iterator[H]:
        """Clients to be closed, the largest first, until there is room again. To be forgotten before the next one."""
        if not self.flooded and not (self.over and now - self._over_since >= PATIENCE):
            return
        stuck = [(account.size, holder) for holder, account in self._accounts.items() if account.stuck]
        stuck.sort(key=lambda pair: -pair[0])
        for _, holder in stuck:
            account = self._accounts.get(holder)
            if account is None or not self.over:
                continue
            since = max(account.since, self._finished) if account.unfinished else account.since
            if (self.flooded and account.unread > NOTED) or now - since >= PATIENCE:
                yield holder
