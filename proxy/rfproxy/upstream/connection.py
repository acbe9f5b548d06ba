r"""One connection to a server: a queue of runs to be sent, and a queue of runs that wait for their replies.

    sessions --enqueue--> [queued | queued]  --flush, once per loop iteration-->  server
    sessions <--deliver-- [in flight | in flight | in flight]  <--feed--  server

    CONNECTING --> GREETING --> READY --> RETIRED --> CLOSED
         |            |         |   ^                    ^
         |            |         v   |                    |
         |            |        PROBING                   |
         \____________\___________\____________________/

Replies come in the order of the commands (RESP), so the first run in flight owns the next replies. A shared lane
serves every session with the same key; an exclusive one belongs to a single session, which may also take
what the server sends unasked. RETIRED accepts no more runs and closes when the last reply is in. PROBING sends none
until the server is heard again: it has ended another connection, and a process that dies ends them one after the other,
so a command sent meanwhile on this one would be lost, and a write be uncertain. It is asked by HELLO, which every user
may say, and which changes nothing without arguments (ACLSelectorCheckCmd in acl.c: CMD_NO_AUTH).

When the connection dies or the topology moves on, each run goes back to its session in order, with the
knowledge whether it was sent: what becomes of it is decided there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Final, Protocol

import hiredis

from rfprotocol.errors import ProtocolError
from rfprotocol.resp import resp
from rfprotocol.resp.reply_scanner import ReplyScanner, Taken
from rfprotocol.topology.topology import Node
from rfproxy.core.attempts import SUSPICIOUS, Loss
from rfproxy.core.identity import REPLICA, Duty, LaneKey
from rfproxy.core.ports import UpstreamConnection
from rfproxy.core.server_contact import Contact
from rfproxy.core.work_items import LEFTOVER, NEEDS_MASTER, Form, ReplyTarget, Run
from rfproxy.semantics.blocking import took
from rfproxy.upstream.handshake import Greeting, Refusal, Welcome
from rfproxy.upstream.latency import Pace


class Writer(Protocol):
    """The sending half of a connection, as asyncio's transports have it."""

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent."""

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""

    def pause_reading(self) -> None:
        """Let what the other end sends wait."""

    def resume_reading(self) -> None:
        """Read again; harmless when it was not paused."""


class ReadObserver:
    """Told of the reads that are sent to a replica."""

    __slots__ = ("room",)

    def __init__(self, *, room: bool) -> None:
        self.room = room
        """Whether it wants to be told."""

    @abstractmethod
    def saw(self, runs: Sequence[Run], now: float) -> None:
        """These reads are sent."""


class LaneOwner:
    """What a lane asks of the router, and tells it."""

    @abstractmethod
    def contact(self, node: Node) -> Contact:
        """What connections to this server show of it."""

    @abstractmethod
    def lane_stands(self, lane: Lane) -> None:
        """The connection is there: call `lane.greet` as soon as it is known with which words."""

    @abstractmethod
    def greet_otherwise(self, lane: Lane, welcome: Welcome, now: float) -> bool:
        """Not everything could be asked; whether the lane is being greeted once more, in another way."""

    @abstractmethod
    def lane_refused(self, lane: Lane, welcome: Welcome) -> Welcome:
        """The server is not to be used; the same, or what to make of it when a password has been changed."""

    @abstractmethod
    def lane_ready(self, lane: Lane, now: float) -> None:
        """The server is what it should be; runs are flowing."""

    @abstractmethod
    def lane_proven(self, lane: Lane, now: float) -> None:
        """The server has replied to a command on this lane for the first time."""

    @abstractmethod
    def lane_over(self, lane: Lane, now: float) -> None:
        """The lane is CLOSED, and its runs are back at their sessions but not yet looked at again."""

    @abstractmethod
    def lane_dirty(self, lane: Lane) -> None:
        """The lane has something to flush."""

    @abstractmethod
    def discard(self, lane: Lane, now: float) -> None:
        """Close a lane that nothing is wrong with."""

    @abstractmethod
    def may_send(self, lane: Lane, now: float) -> bool:
        """Whether runs may be sent on this lane at this moment."""

    @abstractmethod
    def may_not_yet(self, runs: Collection[Run], now: float) -> bool:
        """Whether these runs have to wait for the next turn of the loop, or longer."""

    @abstractmethod
    def may_relay(self, lane: Lane, now: float) -> bool:
        """Whether a reply that arrives on this lane at this moment may be believed."""

    @abstractmethod
    def lane_laden(self, lane: Lane, now: float) -> None:
        """A long reply has begun, or a client does not read: whatever is behind it on this lane has to wait."""

    @abstractmethod
    def lane_light(self, lane: Lane, now: float) -> None:
        """A parked lane has no long reply any more."""

    @abstractmethod
    def lane_slow(self, lane: Lane, now: float) -> None:
        """The server of this lane has taken long for its replies for a while."""

    @abstractmethod
    def lane_unanswered(self, lane: Lane, now: float) -> None:
        """The server does not answer a connection, or the first words on it."""

    @abstractmethod
    def lane_waits(self, lane: Lane) -> None:
        """What the lane may not relay, or send, at this moment it keeps until `go_on`, or until it is lost."""


class LaneState(Enum):
    """See the drawing at the head of this module."""

    CONNECTING = "connecting"
    GREETING = "greeting"
    READY = "ready"
    PROBING = "probing"
    RETIRED = "retired"
    CLOSED = "closed"


# By name: looking up a member of an enumeration costs several times as much, and this is done for each run.
_CONNECTING: Final = LaneState.CONNECTING
_GREETING: Final = LaneState.GREETING
_READY: Final = LaneState.READY
_PROBING: Final = LaneState.PROBING
_RETIRED: Final = LaneState.RETIRED
_CLOSED: Final = LaneState.CLOSED
_QUESTION: Final = resp.encode_command([b"HELLO"])


class Lane(UpstreamConnection):
    """See the drawing at the head of this module. All times are seconds of the caller's monotonic clock."""

    for_clients = True
    """Whether it carries what clients ask for."""

    def __init__(self, key: LaneKey, owner: LaneOwner, *, run_id: str = "", guest: ReplyTarget | None = None) -> None:
        """`guest`: the only session of an exclusive lane; it is handed what the server sends unasked."""
        super().__init__(key)
        self._contact = owner.contact(key.node)
        self._outlived = 0  # connections that the server had ended when it was asked what it has answered here
        self._asked = 0  # the same, when it was asked last
        self.run_id = run_id
        self.guest = guest
        self.pace = Pace() if key.duty is Duty.REPLICA else None
        self.recency: ReadObserver | None = None
        """Told what is read on it, where that matters."""
        self.used = float("-inf")  # when runs were last sent; seconds
        self.heard = float("-inf")  # when anything last came from the server; seconds
        self.answered = float("-inf")  # when the latest run that was answered had been sent; seconds
        self.proven = False  # the server has replied to a command on it
        self.failed = False  # the server ended it, or could not be reached
        self.state = LaneState.CONNECTING
        self.welcome: Welcome | None = None
        self.lost_because = ""
        """Why the connection failed, or could not be made, in words; empty while it is there, or when it was closed."""
        self.named = b""  # what the server calls it: the name of the client that it serves, or served last
        self.spoilt = False  # the server's end is not as it was: no other session may have it
        self.parked = False  # it takes no more runs as long as this is so
        self._listening = False
        self._tunnel = False
        self._owner = owner
        self.greeting: Greeting | None = None
        self.greetings = 0  # so often the server was greeted
        self._scanner = ReplyScanner()
        self._writer: Writer | None = None
        self._withheld = b""  # replies that came when nobody knew whether to believe them
        self._queue: list[Run] = []
        self.in_flight: deque[Run] = deque()
        """Sent and not answered, the oldest first."""
        self._leftovers = 0
        """How many of them nobody waits for."""

    @property
    def usable(self) -> bool:
        """Whether runs may be enqueued."""
        state = self.state
        return not self.parked and (state is _READY or state is _CONNECTING or state is _GREETING or state is _PROBING)

    @property
    def denial(self) -> str | None:
        """The error by which the server refused the user, or None. A replica may only not have heard of the user."""
        welcome = self.welcome
        denied = welcome is not None and welcome.refusal is Refusal.DENIED and self.duty is not REPLICA
        return welcome.text if welcome is not None and denied else None

    @property
    def refused_as_busy(self) -> bool:
        """Whether the server refused the connection because a script runs."""
        welcome = self.welcome
        return welcome is not None and welcome.refusal is Refusal.UNFIT and welcome.text.startswith("BUSY ")

    @property
    def serving(self) -> bool:
        """Whether the server has accepted it, and it accepts runs."""
        return self.state is _READY or self.state is _PROBING

    @property
    def probed(self) -> bool:
        """Whether the server is asked if it is there, and nothing else is unanswered."""
        return self.state is _PROBING and not self.in_flight

    @property
    def to_come(self) -> int:
        """Bytes of the reply under way that the server has announced and not sent; those of its present value."""
        return self._scanner.to_come

    @property
    def awaits_reply(self) -> bool:
        """Whether a reply is due: not where a command waits for others, or where the proxy itself does not read."""
        if self.probed:
            return True
        if (
            not self.in_flight
            or self._withheld
            or self._waits_for_others()
            or not (self.serving or self.state is _RETIRED)
        ):
            return False
        if self.guest is None:
            return not self.stalled
        return self.guest.receptive and not self.guest.blocked

    @property
    def took_nothing(self) -> bool:
        """Whether a blocking command, the oldest in flight, has been answered that it took nothing."""
        return False

    def _waits_for_others(self) -> bool:
        """Whether the server has done what was asked, and waits for other servers."""
        return False

    @property
    def silent_since(self) -> float:
        """When the server was last heard, or sent what is to be answered next, if that is later; seconds."""
        return max(self.heard, self.in_flight[0].sent if self.in_flight else self.used)

    @property
    def stalled(self) -> bool:
        """Whether the next replies are for a client that does not read, on a lane that it shares."""
        if self.guest is not None or not self.in_flight:
            return False
        head = self.in_flight[0]
        return head.form is not LEFTOVER and head.session.choked and not head.session.output_limited

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or answered."""
        return not self._queue and not self.in_flight

    def listen(self) -> bool:
        """From now on the server may speak unasked: show each frame to the guest, in order.

        False when that cannot begin before what is in flight is answered.
        """
        if not self._listening and self.idle:
            self._listening = self.spoilt = True
            self._scanner.count_pushes()
        return self._listening

    def tunnel(self) -> None:
        """From now on pass bytes on in both directions, whatever they mean. Nothing is in flight."""
        self._tunnel = self.spoilt = True

    def read_on(self, on: bool) -> None:
        """Read what the server sends, or let it wait."""
        if self._writer is None or self.state is _CLOSED:
            return
        if on or self.state is _RETIRED:  # a planned change waits for it
            self._writer.resume_reading()
        else:
            self._writer.pause_reading()

    def enqueue(self, run: Run) -> None:
        """Send a run with the next flush, or when the server has been greeted."""
        if not self._queue and self.state is _READY:
            self._owner.lane_dirty(self)
        self._queue.append(run)

    @property
    def ends_with_suspect(self) -> bool:
        """Whether the newest command on it is one that travels alone."""
        newest = self._queue[-1] if self._queue else self.in_flight[-1] if self.in_flight else None
        return newest is not None and newest.attempts.alone

    @property
    def sent_all(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._queue

    @property
    def sends_later(self) -> bool:
        """Whether what is in the queue stays there when this turn of the loop ends."""
        return self.state is not _READY

    def withdraw(self, session: ReplyTarget) -> None:
        """Do not send later what this session, whose client has left, has in the queue."""
        if self.sends_later:
            self._queue = [run for run in self._queue if run.session is not session]

    def connected(self, writer: Writer) -> None:
        """The connection stands: the server is to be greeted."""
        if self.state is _CLOSED:
            writer.abort()
            return
        self._writer = writer
        self.state = _GREETING
        self._owner.lane_stands(self)

    def greet(self, greeting: Greeting) -> None:
        """Say these words to the server, and wait for its answers."""
        if self._writer is not None and self.state is _GREETING:
            self.greeting = greeting
            self.greetings += 1
            self._asked = self._contact.ended
            self._writer.write(greeting.request)

    def flush(self, now: float) -> None:
        """Send all that is queued in one write."""
        if not self._queue or self._writer is None or not (self.state is _READY or self.state is _RETIRED):
            return
        if not self._owner.may_send(self, now):
            self._cannot_send(now)
            return
        doubtful = self.guest is None and self.writes and not self.parked and self._outlived != self._contact.ended
        if doubtful and any(run.need is NEEDS_MASTER for run in self._queue) and self.probe(now):
            return
        if self._owner.may_not_yet(self._queue, now):
            self._owner.lane_dirty(self)
            return
        self.used = now
        if self.recency is not None and self.recency.room:
            self.recency.saw(self._queue, now)
        self._send(self._writer, now)

    def probe(self, now: float) -> bool:
        """Whether nothing is to be sent yet: the server has ended another connection since it was asked anything here.

        It answers a question unless it ends this connection, too. The answer to what was in flight before may have been
        sent before.
        """
        if self._outlived == self._contact.ended or self.state is not _READY:
            return False
        self.state = _PROBING
        self._ask(now)
        return True

    def _ask(self, now: float) -> None:
        if self._writer is not None and self.probed:
            self.used = now
            self._asked = self._contact.ended
            self._writer.write(_QUESTION)

    def _probed(self, data: bytes, now: float) -> None:
        """The server is heard again: with the answer to the question, or to what was in flight before it is asked."""
        if self.in_flight:
            self._replied(data, now)
            return
        try:
            self._scanner.feed(data)
            while (frame := self._scanner.take(1)).data.startswith(b">"):  # on a lane that listens
                if self.guest is not None:
                    self.guest.overhears(frame.data)
            self._scanner.pushes.clear()
            if frame.count:
                self.state = _READY
                self._outlived = self._asked
                self._owner.lane_dirty(self)
                self._distribute(now)  # what the server has said unasked behind it
        except ProtocolError as error:
            self.lose(now, reason=f"its reply cannot be read: {error}")

    def _cannot_send(self, now: float) -> None:
        guest = self.guest
        if guest is None:
            self._give_back_unsent(now)
        elif guest.blocked or self._owner.may_relay(self, now):
            self._owner.discard(self, now)  # what the session knows of it runs ahead of what was sent
        else:
            self._owner.lane_waits(self)

    def _send(self, writer: Writer, now: float) -> None:
        queue, self._queue = self._queue, []
        for run in queue:
            if run.left:
                run.sent = now
                self.in_flight.append(run)
        writer.write(queue[0].raw if len(queue) == 1 else b"".join([run.raw for run in queue]))

    def feed(self, data: bytes, now: float) -> None:
        """Bytes from the server."""
        self.heard = now
        if self.state is _GREETING:
            self._greeted(data, now)
        elif self.state is _PROBING:
            self._probed(data, now)
        elif self.state is not _CLOSED:
            self._replied(data, now)

    def _replied(self, data: bytes, now: float) -> None:
        """Bytes for those who wait for replies."""
        asks = self.state is _PROBING  # and not: becomes so because a reply lets its session go on
        if self._withheld:
            data, self._withheld = self._withheld + data, b""
        if not self._owner.may_relay(self, now):
            self._withheld = data
            restored = not self.in_flight or self.in_flight[0].form is not Form.RESTORE
            if self.guest is not None and self.guest.blocked and restored and _serves(data):
                self.guest.was_served()
            if self._writer is not None:
                self._writer.pause_reading()  # at any rate: also what is awaited is not to pile up here
            self._owner.lane_waits(self)
            return
        if self._tunnel and self.guest is not None:
            self.guest.pass_on(data)
            return
        self._time(now)
        try:
            self._scanner.feed(data)
            self._distribute(now)
        except ProtocolError as error:
            self.lose(now, reason=f"its reply cannot be read: {error}")
        if asks:
            self._ask(now)

    def _time(self, now: float) -> None:
        """Something has come: for how long has the oldest command waited?"""
        pace = self.pace
        if pace is None or not self.in_flight or self._scanner.in_long_reply:
            return
        if pace.replied(now - self.in_flight[0].sent, now):
            self._owner.lane_slow(self, now)

    def go_on(self, now: float) -> None:
        """The server is known to be what it was: relay what it has replied, send what has waited."""
        if self._withheld:
            self.heard = now  # until now it was the proxy that did not read
            self.read_on(self.guest is None or self.guest.receptive)
            self._replied(b"", now)
        self.flush(now)

    def park(self, now: float) -> None:
        """Accept no more runs for the time being; those that were not sent go elsewhere."""
        self.parked = True
        self._give_back_unsent(now)

    def leave_behind(self, runs: Collection[Run]) -> None:
        """The replies to these runs, which are in flight, will be for nobody."""
        if runs:
            in_flight = [run.leftover() if run in runs else run for run in self.in_flight]
            self.in_flight.clear()
            self.in_flight.extend(in_flight)
            self._leftovers += len(runs)

    def retire(self, now: float) -> None:
        """Accept no more runs, and close when those in flight are answered."""
        if self.state is _CONNECTING or self.state is _GREETING or self.probed:
            self.abandon(now)
        elif self.serving:
            self.state = _RETIRED
            self._contact.ready -= 1
            self._give_back_unsent(now)
            self.read_on(True)
            self._close_if_done(now)

    def greeting_overdue(self, now: float) -> None:
        """The server accepted the connection and says nothing."""
        if self.state is _GREETING:
            self.unanswered(now, "it accepted the connection and did not answer the greeting")

    def unanswered(self, now: float, reason: str) -> None:
        """The server does not answer, neither with a refusal; `reason` says to what."""
        self._owner.lane_unanswered(self, now)
        self.lose(now, reason=reason)

    def lose(self, now: float, welcome: Welcome | None = None, reason: str = "") -> None:
        """The server ended the connection, or cannot be understood: every run goes back to its session.

        The oldest command in flight may be the cause (see `attempts`). `welcome` is the greeting that failed, if that
        is why; `reason` says in words why the connection failed.
        """
        if self.state is _CLOSED:
            return
        if welcome is None and self.state is _GREETING and self.greeting is not None:
            welcome = self.greeting.broken_off()
        self.welcome = welcome or self.welcome
        self.failed = True
        if self.serving or self.state is _RETIRED:
            self._contact.ended += 1
        self.lost_because = welcome.text if welcome is not None and welcome.refusal is not None else reason
        self._end(now, at_head=Loss.AT_HEAD, behind=Loss.BESIDE)

    def abandon(self, now: float, *, lapsed: bool = False) -> None:
        """The proxy ends the connection: every run goes back. `lapsed`: without a lease no reply is believed.

        The reason is not in what it carries, unless the server has been silent over the oldest command in flight: a
        server that dies slowly, or is busy, is often replaced before it ends its connections.
        """
        self.lapsed = lapsed
        if self.awaits_reply and now - self.silent_since >= SUSPICIOUS:
            self._end(now, at_head=Loss.AT_HEAD, behind=Loss.BESIDE)
        else:
            self._end(now, at_head=Loss.WITHDRAWN, behind=Loss.WITHDRAWN)

    def _end(self, now: float, *, at_head: Loss, behind: Loss) -> None:
        if self.state is _CLOSED:
            return
        self._contact.ready -= self.serving
        self._contact.answers(self.answered)
        self.state = _CLOSED
        self.closed_at = now
        self.sent_head = self.in_flight[0].sent if self.in_flight else now
        self._withheld = b""
        if self._writer is not None:
            self._writer.abort()
        self._give_back(now, at_head=at_head, behind=behind)

    def _greeted(self, data: bytes, now: float) -> None:
        if self.greeting is None:
            self.lose(now, reason="it spoke before it was greeted")
            return
        try:
            welcome = self.greeting.feed(data)
        except hiredis.ProtocolError as error:
            self.lose(now, reason=f"its greeting cannot be read: {error}")
            return
        if welcome is None:
            return
        if welcome.refusal is not None:
            self.lose(now, self._owner.lane_refused(self, welcome))
            return
        if (welcome.unasked or welcome.account_error) and self._owner.greet_otherwise(self, welcome, now):
            return
        self.welcome = welcome
        self.state = _READY
        self._outlived = self._asked
        self._contact.ready += 1
        self._owner.lane_ready(self, now)
        self.flush(now)

    def _distribute(self, now: float) -> None:
        """Hand each session the replies it waits for."""
        scanner, in_flight = self._scanner, self.in_flight
        if self._listening:
            self._distribute_frames(now)
        else:
            while in_flight:
                run = in_flight[0]
                taken = scanner.take(run.left)
                if not taken.data and scanner.holds_long_reply:
                    self._owner.lane_laden(self, now)
                    taken = scanner.take(1, parts=run.form is LEFTOVER or run.session.relays(run))
                if not taken.data:
                    break
                run.left -= taken.count
                if not run.left:
                    in_flight.popleft()
                    self.answered = run.sent
                if run.form is not LEFTOVER:
                    self._deliver(run, taken, now)
                elif not run.left:
                    self._leftovers -= 1
            self._contact.answers(self.answered)
            scanner.pushes.clear()  # nobody on this lane has asked for any
            if self.parked or (in_flight and in_flight[0].session.choked):
                self._make_way(now)
        if self.state is _RETIRED:
            self._close_if_done(now)

    def _make_way(self, now: float) -> None:
        """Others go elsewhere while the head's client does not read. What is to come stays in the server, unless
        somebody waits for what is behind it."""
        if not self.stalled:
            if self.parked and not self._scanner.in_long_reply and not self._leftovers:
                self._owner.lane_light(self, now)
            return
        if not self.parked:
            self._owner.lane_laden(self, now)
        if self.parked and all(run.form is LEFTOVER or run.session.choked for run in self.in_flight):
            self.read_on(False)

    def _prove(self, now: float) -> None:
        self.proven = True
        self._owner.lane_proven(self, now)

    def _deliver(self, run: Run, taken: Taken, now: float) -> None:
        if not self.proven:
            self._prove(now)
        try:
            run.session.deliver(run, taken, now)
        except Exception as error:  # a defect that one session meets must not cost the others their connection
            run.session.fail(error, now)

    def _distribute_frames(self, now: float) -> None:
        """Tell replies from what the server says unasked, one after the other."""
        scanner, in_flight, guest = self._scanner, self.in_flight, self.guest
        while guest is not None and (frame := scanner.take(1)).count:
            if guest.overhears(frame.data) or not in_flight:
                continue
            run = in_flight[0]
            done = run.form is not Form.STREAM or guest.confirmed(run, frame.data)
            run.left -= done
            if not run.left:
                in_flight.popleft()
            self._deliver(run, Taken(frame.data, int(done), frame.has_error), now)
            guest = self.guest

    def _close_if_done(self, now: float) -> None:
        if not self._queue and len(self.in_flight) == self._leftovers:
            self.abandon(now)

    def _give_back(self, now: float, *, at_head: Loss, behind: Loss) -> None:
        """The connection is over: every run goes back."""
        sent, self.in_flight = self.in_flight, deque()
        unsent, self._queue = self._queue, []
        loss, suspect = at_head, None
        for run in sent:
            if run.form is not LEFTOVER:
                own = loss is Loss.BESIDE and run.session is suspect
                run.session.returned(run, self, Loss.BEHIND_OWN if own else loss)
            if loss is not behind and run.form is not Form.RESTORE:  # which is often sent with what follows it
                loss, suspect = behind, run.session
        for run in unsent:
            run.session.returned(run, self, Loss.UNSENT)
        sessions = dict.fromkeys(run.session for run in (*sent, *unsent) if run.form is not LEFTOVER)
        self._owner.lane_over(self, now)
        if (guest := self.guest) is not None:
            guest.lane_lost(self, now)
            sessions[guest] = None
        # Only now, when every run is accounted for and everyone knows, may a session send them elsewhere.
        for session in sessions:
            session.attend(session.settle, now)

    def _give_back_unsent(self, now: float) -> None:
        """What was not sent goes elsewhere."""
        unsent, self._queue = self._queue, []
        for run in unsent:
            run.session.returned(run, self, Loss.UNSENT)
        for session in dict.fromkeys(run.session for run in unsent):
            session.attend(session.settle, now)


def _serves(withheld: bytes) -> bool:
    """Whether a reply of which this is the beginning, behind what was said unasked, says that something was taken."""
    scanner = ReplyScanner()
    scanner.feed(withheld)
    try:
        reply = scanner.take(1)
    except ProtocolError:
        return True
    return took(reply.data) if reply.count else len(withheld) > sum(map(len, scanner.pushes))
