"""A connection for what the proxy itself tells a server: no client waits for a reply on it.

    tell(packet) ──> server ──> replies, all of them ──> heard
                        └── the connection ends first ──> over

It is no part of the routes of clients: nothing of theirs is sent on it, and they do not notice whether it is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import hiredis

from rfprotocol.errors import without_arguments
from rfprotocol.resp import resp
from rfproxy.core.attempts import Loss
from rfproxy.core.identity import LaneKey
from rfproxy.upstream.connection import Lane, LaneOwner, LaneState
from rfproxy.upstream.router_port import RouterPort

REFUSALS: Final = ("NOPERM", "NOAUTH", "WRONGPASS", "ERR unknown")
"""How errors begin that an account gets whatever it says of this kind. A command that was renamed is unknown."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An error reply."""

    text: str

    @property
    def lasting(self) -> bool:
        """Whether the same would be answered to the next command of the kind."""
        return self.text.startswith(REFUSALS)

    @property
    def about_arguments(self) -> bool:
        """Whether the server takes the command, but not what it was given, such as a script that it cannot compile."""
        return self.text.startswith("ERR ") and not self.lasting


Heard = Callable[[list[Any], float], None]
"""Takes the replies to one packet, an error as `Refused`, and the time."""
Moved = Callable[[float], None]
Defect = Callable[[Exception], None]


class Messenger(Lane):
    """Times are seconds of the caller's monotonic clock."""

    for_clients = False

    def __init__(
        self, key: LaneKey, owner: LaneOwner, *, run_id: str = "", ready: Moved, over: Moved, defect: Defect
    ) -> None:
        """`ready` is called when the server has been greeted, `over` when the connection has ended.

        `defect` is called when one of these, or whoever hears replies, raises an exception: clients do not notice."""
        super().__init__(key, owner, run_id=run_id)
        self._reader: Any = hiredis.Reader(replyError=_refused)
        self._unheard: deque[tuple[int, Heard]] = deque()  # replies that each packet gets
        self._replies: list[Any] = []
        self._on_ready = ready
        self._on_over = over
        self._on_defect = defect

    @property
    def free(self) -> bool:
        """Whether it may be told something now."""
        return self.state is LaneState.READY and not self._unheard

    @property
    def awaits_reply(self) -> bool:
        """Nobody waits."""
        return False

    def tell(self, commands: list[list[bytes]], heard: Heard, now: float) -> None:
        """Send commands in one packet."""
        if self._writer is not None and self.state is LaneState.READY:
            self.used = now
            self._unheard.append((len(commands), heard))
            self._writer.write(resp.encode_commands(commands))

    def flush(self, now: float) -> None:
        """The server has been greeted."""
        if self.state is LaneState.READY and not self._unheard:
            self._attend(self._on_ready, now)

    def _replied(self, data: bytes, now: float) -> None:
        try:
            self._reader.feed(data)
            while self._unheard and (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
                count, heard = self._unheard[0]
                if len(self._replies) == count:
                    self._unheard.popleft()
                    replies, self._replies = self._replies, []
                    self._attend(partial(heard, replies), now)
        except hiredis.ProtocolError as error:
            self.lose(now, reason=f"its reply cannot be read: {error}")

    def _give_back(self, now: float, *, at_head: Loss, behind: Loss) -> None:
        self._unheard.clear()
        super()._give_back(now, at_head=at_head, behind=behind)
        self._attend(self._on_over, now)

    def _attend(self, what: Moved, now: float) -> None:
        try:
            what(now)
        except Exception as error:
            self._on_defect(error)


def open_messenger(router: RouterPort, key: LaneKey, *, ready: Moved, over: Moved, defect: Defect) -> Messenger:
    """Open a connection for what the proxy itself has to say there."""
    lane = Messenger(key, router, run_id=router.run_id(key), ready=ready, over=over, defect=defect)
    router.connect_service(lane)
    return lane


def _refused(text: str) -> Any:
    return Refused(without_arguments(text))
