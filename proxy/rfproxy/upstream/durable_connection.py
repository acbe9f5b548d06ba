r"""Durable writes: a client hears of its write when enough replicas have it.

    sessions --enqueue--> [queued | queued]  --flush-->  [batch, WAIT]  -->  server
    sessions <--deliver--  [batch, kept until WAIT is answered]  <--feed--   server

What one flush sends is a *batch*. If it may change data, WAIT goes out behind it, and its replies are kept until WAIT
is answered: one question for all clients in the batch. Meanwhile nothing more is sent on this lane, since WAIT holds
up the connection; what comes meanwhile makes the next batch. Several lanes take turns (`rotation`). What the server
says unasked is kept in its place behind the first reply; before that it is passed on, as a command may block for long.

When too few replicas have it in time, the batch is delivered all the same, but what the server says of its writes is
replaced by an error (`Shortfall`). When the lane dies before WAIT is answered, nothing of the batch was delivered: it
was sent and not answered, and goes the way of all such commands. But a blocking command that is known to have taken
something is not asked again.

WAIT asks for the offset of the batch's last command, or write. Something has to come first where that is not enough
(`barrier`): a blocking command may have been served later than it was executed, and a write that changed nothing may
owe that to another connection's write which no replica has yet.
"""

from __future__ import annotations

from collections.abc import Callable

from rfprotocol.errors import ProtocolError
from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Command, lookup
from rfprotocol.resp.reply_scanner import ReplyScanner, Taken
from rfprotocol.topology.topology import Node
from rfproxy.core.counters import Stats
from rfproxy.core.durability import Durability, Shortfall
from rfproxy.core.identity import LaneKey
from rfproxy.core.work_items import Form, ReplyTarget, Run
from rfproxy.semantics.blocking import took
from rfproxy.upstream.connection import Lane, LaneOwner, Writer
from rfproxy.upstream.replication_barrier import MESSAGE, PING, replication_barrier


def told(shortfall: Shortfall | None, stats: Stats, args: list[bytes], reply: bytes) -> bytes:
    """What the client hears: not that a write was done, if too few replicas have it."""
    return _told(shortfall, stats, lookup(args), reply) if lookup(args).may_replicate else reply


def told_of_exec(shortfall: Shortfall | None, stats: Stats, executed: list[list[bytes]], reply: bytes) -> bytes:
    """The same for EXEC: its reply stands for all that was executed, and nil says that nothing was."""
    if shortfall is None or reply in _NIL or not any(lookup(args).may_replicate for args in executed):
        return reply
    return _told(shortfall, stats, lookup([b"EXEC"]), reply)


_NIL = frozenset([resp.null_array(2), resp.null_array(3)])


def _told(shortfall: Shortfall | None, stats: Stats, command: Command, reply: bytes) -> bytes:
    if shortfall is None or reply.startswith(b"-"):
        return reply
    stats.errors += 1
    stats.unreplicated += 1
    return shortfall.error(command)


class Fence:
    """The replies of one batch until those to what was asked behind it are in."""

    def __init__(self, replies: int, questions: list[bytes], listener: ReplyTarget | None) -> None:
        """`replies` to the batch, `questions` behind it; `listener`: to whom the server may speak unasked."""
        self._left = replies
        self._questions = questions
        self._listener = listener
        self._kept: list[bytes] = []
        self._answers: list[bytes] = []

    def passed(self, scanner: ReplyScanner) -> bool:
        """Take what has come; whether that is all. Raises ProtocolError."""
        while self._left or len(self._answers) < len(self._questions):
            taken = scanner.take((self._left or 1) if self._listener is None else 1)
            if not taken.count:
                return False
            if self._listener is not None and self._unasked(self._listener, taken.data):
                continue
            if self._left:
                self._kept.append(taken.data)
                self._left -= taken.count
            else:
                self._answers.append(taken.data)
        return True

    def _unasked(self, listener: ReplyTarget, frame: bytes) -> bool:
        """Whether a frame is no reply: then it is passed on at once, or kept behind the replies that are."""
        if not self._kept:
            return listener.overhears(frame)
        unasked = listener.unasked(frame)
        if unasked:
            self._kept.append(frame)
        return unasked

    @property
    def replied(self) -> bool:
        """Whether the first command has been answered."""
        return bool(self._kept)

    @property
    def served(self) -> bool:
        """Whether the first command has been answered, in a way that a blocking one is when it took something."""
        return bool(self._kept) and took(self._kept[0])

    @property
    def in_step(self) -> bool:
        """Whether WAIT was answered as it may be: not so inside of MULTI, or if replies were counted wrongly."""
        return self._answers[-1].startswith((b":", b"-"))

    @property
    def kept(self) -> bytes:
        """The replies to the batch."""
        return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)

    def shortfall(self, node: Node, durability: Durability) -> Shortfall | None:
        """What is missing, as far as is known."""
        for question, answer in zip(self._questions, self._answers, strict=True):
            # Who may not use the channel: for all that the batch itself has written, WAIT alone is enough.
            spared = question is MESSAGE and answer.startswith(_MAY_NOT_PUBLISH)
            if answer.startswith(b"-") and not spared:
                text = answer[1:].decode(errors="replace").strip()
                return Shortfall(node, f"as far as is known: WAIT failed: {text}")
        if not self.in_step:
            text = self._answers[-1][:60].decode(errors="replace").splitlines()[0]
            return Shortfall(node, f"as far as is known: WAIT was answered {text}")
        if int(self._answers[-1][1:]) >= durability.replicas:
            return None
        replicas = "1 replica" if durability.replicas == 1 else f"{durability.replicas} replicas"
        return Shortfall(node, f"to {replicas} within {durability.timeout:g} s")


Waited = Callable[[Lane, Shortfall | None], None]
"""Told when WAIT was answered."""


class DurableLane(Lane):
    """See the head of this module."""

    def __init__(
        self, key: LaneKey, owner: LaneOwner, durability: Durability, *, waited: Waited, run_id: str = ""
    ) -> None:
        """The server is a master."""
        super().__init__(key, owner, run_id=run_id)
        self._waited = waited
        self._durability = durability
        self._fence: Fence | None = None
        self._shortfall: Shortfall | None = None  # of the batch that is being delivered

    @property
    def waiting(self) -> bool:
        """Whether a batch is under way that nothing may follow yet."""
        return self._fence is not None

    def _waits_for_others(self) -> bool:
        """Whether the server has executed the batch and waits for its replicas."""
        return self._fence is not None and self._fence.replied

    @property
    def took_nothing(self) -> bool:
        """Known as soon as the reply is here, also while it is kept."""
        return self._fence is not None and self._fence.replied and not self._fence.served

    @property
    def sends_later(self) -> bool:
        """Also while a batch is under way."""
        return self.waiting or super().sends_later

    def flush(self, now: float) -> None:
        """Send what may travel together; the rest follows when that is answered."""
        if self._fence is None:
            super().flush(now)

    def _send(self, writer: Writer, now: float) -> None:
        batch, rest = self._cut()
        waits = self._to_be_waited_for(batch)
        if self.in_flight and (waits or _apart(self.in_flight[-1])):
            return  # a batch with WAIT travels alone; and were MULTI refused, what follows would be such a batch
        raw = [run.raw for run in batch]
        if waits:
            questions = self._questions()
            raw += questions
            self._fence = Fence(sum(run.left for run in batch), questions, self.guest if self._listening else None)
        self._queue = rest
        for run in batch:
            if run.left:
                run.sent = now
                self.in_flight.append(run)
        writer.write(raw[0] if len(raw) == 1 else b"".join(raw))

    def _cut(self) -> tuple[list[Run], list[Run]]:
        """The first ones that may travel together, and the others."""
        queue = self._queue
        if self.guest is None:
            return queue, []
        apart = _apart(queue[0])
        end = next((place for place, run in enumerate(queue) if _apart(run) is not apart), len(queue))
        return queue[:end], queue[end:]

    def _to_be_waited_for(self, batch: list[Run]) -> bool:
        """Whether WAIT belongs behind the batch: not where it would be queued with the rest of a transaction."""
        if self.guest is not None and _apart(batch[0]):
            return False
        guest = self.guest
        if guest is not None and guest.answered_queueing and _name(batch[-1]) != "EXEC":
            return False  # all of it is queued: nothing in flight can end that, and behind MULTI nothing is sent
        return any(lookup(args).may_replicate for run in batch for args in run.commands) or (
            guest is not None
            and _name(batch[-1]) == "EXEC"
            and guest.exec_replicates(more_in_flight=bool(self.in_flight))
        )

    def _questions(self) -> list[bytes]:
        timeout = max(1, round(self._durability.timeout * 1000))
        wait = resp.encode_command([b"WAIT", b"%d" % self._durability.replicas, b"%d" % timeout])
        barrier = replication_barrier(self.welcome.version if self.welcome is not None else "")
        # On a shared lane nothing blocks: the last command of the batch is answered when it was executed.
        return [wait] if barrier is PING and self.guest is None else [barrier, wait]

    def _distribute(self, now: float) -> None:
        fence = self._fence
        if fence is None:
            super()._distribute(now)
        elif fence.passed(self._scanner):
            shortfall = fence.shortfall(self.key.node, self._durability)
            self._fence = None
            self._waited(self, shortfall)
            self._release(fence.kept, shortfall, now)
            if not fence.in_step:
                raise ProtocolError("nobody knows what the next reply belongs to")
            super()._distribute(now)  # what the server has said unasked behind it
        elif self.guest is not None and self.guest.blocked and fence.served:
            self.guest.was_served()
        if self._queue and not self.in_flight:
            self._owner.lane_dirty(self)

    def _release(self, kept: bytes, shortfall: Shortfall | None, now: float) -> None:
        """Deliver a batch as if it had arrived only now."""
        scanner, self._scanner = self._scanner, ReplyScanner(pushes_apart=not self._listening)
        self._scanner.feed(kept)
        self._shortfall = shortfall
        super()._distribute(now)
        self._shortfall = None
        if self._listening:  # it may have been made to just now
            scanner.count_pushes()
        self._scanner = scanner

    def _deliver(self, run: Run, taken: Taken, now: float) -> None:
        if self._shortfall is None:
            super()._deliver(run, taken, now)
            return
        run.session.shortfall = self._shortfall
        super()._deliver(run, Taken(taken.data, taken.count, True, taken.partial), now)  # each reply is looked at
        run.session.shortfall = None


_MAY_NOT_PUBLISH = (b"-NOPERM", b"-ERR Replica can't interact")
"""What it is answered when the user has no right to it, or has said MONITOR."""


def _apart(run: Run) -> bool:
    """Whether WAIT may not follow: it begins a transaction, or is answered by frames that are no replies."""
    return run.form in (Form.RESTORE, Form.STREAM) or _begins(run)


def _begins(run: Run) -> bool:
    return run.form is Form.PLAIN and _name(run) == "MULTI"


def _name(run: Run) -> str:
    return lookup(run.commands[-1]).name if run.commands else ""
