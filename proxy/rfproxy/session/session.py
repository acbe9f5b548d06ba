r"""One client: its commands in order, and the answers in the same order.

    bytes --RequestReader--> [run | verb | ready | run ...] --pump--> lane --> server
                                      pending                          |
    client <---------------------- deliver <---------------------------/

Everything a client says passes through `pending`. The head leaves it when it may go: a run to a lane, an
answer to the client, a verb (what is about the connection) to `verbs`. All that a session has outstanding is on
*one* lane at any time, so its replies arrive in the order of its commands and are relayed as they are. Hence a read
goes to the master while a write of the same session is unanswered there, and a write waits for the replies of reads
on a replica. A session that a shared lane cannot carry has one of its own: `pinning`, and `transactions`.

When a lane dies, or a server refuses what it should have executed, the relaying stops: what remains is collected in
order in `recovered`, decided upon by the rules of `replay`, and goes back to the head of `pending`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from enum import Enum
from itertools import takewhile
from typing import Final, cast

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import UNKNOWN, Route, lookup
from rfprotocol.resp.fast_path import COMPILED, glance
from rfprotocol.resp.reply_scanner import Taken
from rfprotocol.topology.topology import Node
from rfproxy.builtin import dispatch as verbs
from rfproxy.builtin import reply_mode
from rfproxy.builtin.reply_mode import ClientWriter, Replies
from rfproxy.core.attempts import NEVER_SENT, Attempts, Loss
from rfproxy.core.identity import Identity
from rfproxy.core.memory_budget import NOTED
from rfproxy.core.ports import UpstreamConnection
from rfproxy.core.work_items import ANY_OWN, ANYWHERE, CURSOR, OWN, PLAIN, Entry, Form, Hangup, Need, Ready, Run, Verb
from rfproxy.pinned import pinning, pubsub, remote_redirect, tracking_redirect
from rfproxy.pinned.pin_state import Ties
from rfproxy.routing.router import Router
from rfproxy.routing.waiter import Waiter
from rfproxy.semantics import client_auth
from rfproxy.semantics.transaction_state import Transaction
from rfproxy.session import batching, outcome, responses, transactions
from rfproxy.session.input_buffer import Inbox
from rfproxy.session.partial_reply import Midway
from rfproxy.upstream.connection import Lane

_ON: Final = Replies.ON
MOST_IN_FLIGHT: Final = 512
"""Replies that one session may wait for on a lane that it shares: others wait behind them."""
BACKLOG: Final = 1 << 20
"""Bytes of commands without a reply, pending or in flight, beyond which no further ones are read."""
PARSED: Final = 256
"""Bytes of memory that a command of three short arguments takes once it was read, besides its own."""


class Stage(Enum):
    """Whether more is to come from a client, and whether what it has said still matters to it."""

    SPEAKING = "it may say more"
    DRAINING = "the proxy reads no more from it: all that it has said is answered, also what has to wait"
    LEAVING = "it has closed its side: what can go at once is answered, what would have to wait is dropped"
    GONE = "its connection is closed"


# By name, and final: looking up a member of an enumeration costs several times as much.
_SPEAKING: Final = Stage.SPEAKING
_LEAVING: Final = Stage.LEAVING
_GONE: Final = Stage.GONE


class Session(Waiter):
    """See the head of this module. `now` is the caller's monotonic clock, in seconds."""

    def __init__(
        self,
        number: int,
        address: str,
        client: ClientWriter,
        router: Router,
        *,
        local: str = "",
        query_limit: int = resp.MAX_QUERY,
        now: float = 0.0,
    ) -> None:
        """`address` is the client's, `local` the one it connected to; `query_limit` in bytes, see RequestReader."""
        super().__init__(number, client_auth.newcomer(router.policy), now)
        self.address = address
        self.local = local
        self.wire_to_client = client
        self.client: ClientWriter = client
        self.router = router
        self.seen = now
        self.name = b""
        self.latest = UNKNOWN  # the command that came last
        self.evictable = True  # for what all clients together hold: CLIENT NO-EVICT
        self.inbox: Inbox | None = None  # what came behind more than BACKLOG
        self.pending: deque[Entry] = deque()
        self.busy: Verb | None = None  # one that nothing may overtake: blocking, or waiting for the server's consent
        self.ties: Ties | None = None
        self.own: Lane | None = None
        self.stage = _SPEAKING
        self.replies = Replies.ON
        self.tunnel: Lane | None = None
        self.midway: Midway | None = None
        self.lane: Lane | None = None  # the one that everything outstanding is on
        self.recovered: list[tuple[Entry, bytes]] | None = None  # to be answered first; and what the server said
        self.unsent: list[Entry] = []  # behind that
        self._bytes = 0
        self._parsed = 0  # commands among these that were read: about as many as there are
        self.query_limit = query_limit
        self.reader = resp.RequestReader(query_limit=query_limit)
        self.check_limits()
        router.sessions[number] = self

    @property
    def backlogged(self) -> bool:
        """Whether reading from the client should wait for answers to what it has said.

        Not when these wait for the client to read, or for what other clients do: it may be about to make them go on,
        and first have more to say. Redis reads on then, too.
        """
        if self.choked or self.busy is not None:
            return False
        read = self._bytes > BACKLOG or self.inbox is not None
        return read or (self.reader.awaits_login and self.reader.pending > BACKLOG)

    @property
    def unprocessed(self) -> int:
        """Bytes that have come from the client and are not answered, with what it costs that they were read."""
        unread = self.reader.pending + (self.inbox.size if self.inbox is not None else 0)
        return self._bytes + self._parsed * PARSED + unread

    @property
    def weighty(self) -> bool:
        """Whether it holds enough to be counted."""
        return self._bytes > NOTED or self.reader.pending > NOTED

    @property
    def unfinished(self) -> bool:
        """Whether nothing waits but the rest of a command that the client has half said."""
        return self.reader.pending > 0 and self.inbox is None and not self.pending and not self.outstanding

    @property
    def stuck(self) -> bool:
        """Whether what it holds stays until the client itself does something."""
        return self.choked or self.busy is not None or not (self.pending or self.outstanding)

    @property
    def listener(self) -> bool:
        """Whether it is told what others do: SUBSCRIBE, MONITOR."""
        return self.ties is not None and self.ties.stream is not None and self.ties.stream.subscribed

    @property
    def adrift(self) -> bool:
        """Whether the own lane is of no use any more, and left when all on it is answered."""
        return self.ties is not None and self.ties.adrift

    @property
    def subscriber(self) -> bool:
        """Whether Redis counts it among the clients of publish and subscribe, which MONITOR's are not."""
        stream = self.ties.stream if self.ties is not None else None
        return stream is not None and stream.subscribed and not stream.monitor

    @property
    def blocked(self) -> bool:
        """Whether a blocking command is under way."""
        return self.busy is not None and pinning.blocks(self.busy)

    # --- from the client

    def feed(self, data: bytes, now: float) -> None:
        """Bytes from the client."""
        self.seen = now
        if self.tunnel is not None:
            pinning.pass_through(self, self.tunnel, data)
            return
        if self._bytes > BACKLOG or self.inbox is not None:
            self._put_by(data, now)
            return
        self._read(data)
        self.pump(now)

    def _read(self, data: bytes) -> None:
        if COMPILED and self.reader.between and (plain := glance(data)) is not None:
            self._bytes += plain.end
            self.latest = plain.last
            data = batching.queue_plain(self, plain, data)
        if data:
            self._take(self.reader.feed(data))

    def _put_by(self, data: bytes, now: float) -> None:
        """Keep what arrived as it is. As in Redis, who sends without end and is not served in between is closed."""
        if self.inbox is None:
            self.inbox = Inbox()
        self.inbox.put(data)
        if self.inbox.size > self.query_limit:
            self.complain("?", "closed: it sent more than client-query-buffer-limit that had to wait")
            self.client.abort()
            self.close(now)

    def _take(self, requests: resp.Requests) -> None:
        if requests.commands:
            self._bytes += len(requests.raw)
            if self._bytes > NOTED:
                self._parsed += len(requests.commands)
            self.latest = batching.queue(self, requests.commands, requests.raw)
            if not self.reader.authenticated:
                self.screen()
        if requests.error is not None and not (self.pending and isinstance(self.pending[-1], Hangup)):
            self.complain("?", str(requests.error))
            self.pending.append(Hangup(resp.error(requests.error.reply) if requests.error.reply else b""))

    def screen(self) -> None:
        """Answer what the client may not ask before it has authenticated."""
        if self.busy is None and client_auth.outside(self.identity, self.router.policy):
            client_auth.screen(self.pending, self.router.server_version)

    def _read_on(self) -> None:
        """A stranger's AUTH or HELLO is answered, or there is room again: take what came behind it."""
        if self.reader.awaits_login:
            self._take(self.reader.login_answered(authenticated=self.reader.authenticated))
            self.client.resume()
        elif self.inbox is not None:
            data, refusal = self.inbox.take()
            self._read(data)
            if refusal:
                responses.answer_all_pending(self, refusal)
            if not self.inbox.size:
                self.inbox = None
                if self.finished:
                    self.pending.append(Hangup(b""))
                self.client.resume()

    @property
    def finished(self) -> bool:
        """Whether nothing more comes from the client."""
        return self.stage is not _SPEAKING

    def finish(self, now: float, *, left: bool = True) -> None:
        """Nothing more comes from the client: close when all is answered.

        `left`: the client itself has closed its side, as one does that gives up. Redis frees it then. Nothing is held
        or sent again for it; but what can go at once is answered, for clients that only close their sending side.
        """
        if self.stage is _GONE:
            return
        listens = self.ties is not None and self.ties.stream is not None
        if listens or self.blocked or self.tunnel is not None:
            self.leave(now)  # what it waits for may never come
            return
        self.stage = _LEAVING if left else Stage.DRAINING
        if self.inbox is None:
            self.pending.append(Hangup(b""))
        self.pump(now)

    def leave(self, now: float) -> None:
        """The client has closed its side, and what it asked for would have to wait."""
        self.client.close()
        self.close(now)

    def depart(self, now: float) -> bool:
        """The client has closed its connection, or its side, among many: whether that may be dealt with later.

        Not where anything could still be done for it. A blocked client only waits; it is not to be served any more.
        """
        if self.stage is _GONE:
            return True
        if self.busy is not None and self.blocked and not self.pending and self.inbox is None:
            self.stage = _LEAVING
            self.router.leaving.add(self, self.busy.args, now)
            return True
        return self.busy is None and not (self.outstanding or self.pending or self.inbox is not None)

    def close(self, now: float) -> None:
        """The client is gone."""
        self.stage = _GONE
        self.router.leaving.gone(self, now)
        if self.choked:
            self.choked = False
            self._read_shared_lane()
        self.pending.clear()
        self.inbox = None
        if self.lane is not None and self.outstanding:
            self.lane.withdraw(self)
        self.recovered = None
        self.router.sessions.pop(self.number, None)
        self.router.release(self, now)
        self.router.dedicated.leave(self)  # also if it was not to be held
        pinning.stand_down(self, now)

    def entry(self, args: list[bytes]) -> Entry:
        """What stands in the queue for one command."""
        return batching.entry(self, args)

    # --- to a lane

    def pump(self, now: float) -> None:
        """Let go whatever may go now."""
        while self._pump(now):
            self._read_on()

    def _pump(self, now: float) -> bool:
        """The same; whether what came behind it is to be read."""
        if self.choked:
            return False
        pending = self.pending
        if self.ties is not None and not self._attached(now):
            return False
        while pending and self.stage is not _GONE and not self.choked:
            entry = pending.popleft() if self.replies is _ON else reply_mode.first(self)
            if not self._go(entry, now):
                pending.appendleft(entry)
                if self.busy is not None and self._bytes > BACKLOG:
                    self.client.resume()
                if not self.outstanding:
                    self._hold(now)
                return False
            if self.waits_since is not None:
                self.router.release(self, now)
        if not self._bytes or pending or self.outstanding:
            room = self.inbox is not None and not pending and self._bytes <= BACKLOG
            return room and not self.reader.awaits_login
        self._answered(self._bytes)
        self.waits_since = None
        return (self.reader.awaits_login or self.inbox is not None) and self.stage is not _GONE

    def _attached(self, now: float) -> bool:
        """Whether the connection that the ties need is there. What is answered, and who leaves, waits for none."""
        attached = pinning.attached(self, now)
        while not attached and not self.outstanding and self.pending and isinstance(self.pending[0], Ready | Hangup):
            entry = self.pending.popleft()
            if not self._go(entry, now):
                self.pending.appendleft(entry)
                break
        if self.stage is _GONE:
            return False
        if not attached and not self.outstanding:
            if not self.pending:
                self._answered(self._bytes)
            self._hold(now)
        elif not self.pending:
            self.router.release(self, now)
        return attached

    def _answered(self, size: int) -> None:
        """The client has the replies to so many bytes of its commands."""
        before = self._bytes
        self._bytes = before - size
        if self._parsed:
            self._parsed = self._parsed * self._bytes // before
        if before > BACKLOG or before > NOTED >= self._bytes or self.reader.awaits_login:
            self.client.resume()

    def _go(self, entry: Entry, now: float) -> bool:
        """Act on the head of the queue; False when it has to wait."""
        if self.busy is not None:
            return False
        return self.act(entry, now) if self.replies is _ON else reply_mode.act(self, entry, now)

    def act(self, entry: Entry, now: float) -> bool:
        """The same, for a command whose reply goes where it belongs."""
        if isinstance(entry, Run):
            return self._go_tied(entry, self.ties, now) if self.ties is not None else self._go_run(entry, now)
        if isinstance(entry, Verb):
            return self._go_verb(entry, now)
        if self.outstanding:
            return False
        if isinstance(entry, Hangup) and self.reader.awaits_login:
            self._read_on()
            self.pending.append(entry)
            return True
        self.client.write(entry.reply)
        if isinstance(entry, Hangup):
            self.client.close()
            self.close(now)
        return True

    def _go_run(self, run: Run, now: float) -> bool:
        if self.router.pause is not None and self.router.paused(run, now):
            return False
        if run.attempts is not NEVER_SENT and (answer := outcome.barred(self, run)) is not None:
            if self.midway is None:
                return self.act(answer, now)
            responses.break_off(self, "it may not be asked of another master", now)
            return True
        lane = self.choose(run.need, now, run.attempts)
        return lane is not None and self.dispatch(run, lane)

    def dispatch(self, run: Run, lane: Lane) -> bool:
        """Put a run of the client's on a lane, in the form in which this server is to have it."""
        if run.form is CURSOR:
            run.mark = self.router.cursors.mark
            run.raw = resp.encode_commands([self.wire(args) for args in run.commands])
        elif run.need is OWN:
            pinning.introduce(self, lane)
            pinning.provide_scripts(self, run, lane)
        return self.send(run, lane)

    def _go_tied(self, entry: Run | Verb, ties: Ties, now: float) -> bool:
        """A session that stands apart for longer than a command."""
        if isinstance(entry, Run) and entry.form is Form.BLOCK:
            self.pending.extendleft(reversed([self.entry(args) for args in entry.commands]))
            return True
        stream, transaction = ties.stream, ties.transaction
        if stream is not None:
            if stream.asked:
                return False  # whether it may say anything else is not known yet
            streaming = isinstance(entry, Verb) and entry.command.name in verbs.STREAMING
            if stream.confined(self.identity.protocol) and not streaming:
                return pubsub.confined(self, entry, now)
        if transaction is not None:
            return transactions.goes(self, entry, transaction, now)
        if isinstance(entry, Run):
            return self._go_run(entry, now)
        return not self.outstanding and self._begin(entry, now)

    def _go_verb(self, verb: Verb, now: float) -> bool:
        if verbs.ends_all(verb):
            return not self.outstanding and verbs.handle(self, verb, now)
        if self.ties is not None:
            return self._go_tied(verb, self.ties, now)
        return not self.outstanding and self._begin(verb, now)

    def _begin(self, verb: Verb, now: float) -> bool:
        if verb.command.name in ("MULTI", "WATCH"):
            return transactions.begin(self, verb, now)
        return not self.router.paused(verb, now) and verbs.handle(self, verb, now)

    def choose(self, need: Need, now: float, attempts: Attempts = NEVER_SENT, *, ends: bool = True) -> Lane | None:
        """The lane for a run: while anything is outstanding, no other than the one that it is on.

        `attempts`: the earlier sendings of the run. `ends`: the command ends by itself.
        """
        lane = self.lane
        if self.outstanding and lane is not None:
            reads = need is ANYWHERE or need is ANY_OWN
            if attempts.alone or (lane is self.own and not reads and lane.ends_with_suspect):
                return None  # a write behind it could be lost with it
            if lane is not self.own and (need is OWN or need is ANY_OWN or self.outstanding >= MOST_IN_FLIGHT):
                return None
            fits = reads or lane.writes
            ready = fits and lane.usable and self.recovered is None and self.router.may_send(lane, now)
            return lane if ready else None
        if self.ties is not None and self.ties.needs_lane:
            own = self.own
            return own if own is not None and own.usable and self.router.open(now) else None
        if need is OWN or need is ANY_OWN:
            if self.own is not None:
                self.router.give_back(self.own, now)
            self.own = self.router.exclusive(self, now, need, attempts, ends=ends)
            return self.own
        return self.router.lane(self, need, now)

    def send(self, run: Run, lane: Lane) -> bool:
        """Put a run on a lane; True, for the callers' convenience."""
        self.lane = lane
        self.outstanding += run.left
        lane.enqueue(run)
        return True

    def wire(self, args: list[bytes]) -> list[bytes]:
        """A command as the server gets it: with its own cursor, or asked in a form that does no harm."""
        command = lookup(args)
        if command.route is Route.CURSOR:
            return self.router.cursors.incoming(args)
        return verbs.question(self, command.name, args) if command.route is Route.SESSION else args

    @property
    def home(self) -> str:
        """Where its scripts are: which of them a server takes depends on the user."""
        account = self.identity.account
        return f"{self.router.process} {account.username!r}" if account else self.router.process

    def become(self, identity: Identity) -> None:
        """The server takes the session for somebody else, or in another database or dialect."""
        self.identity = identity
        self.ways.forget()
        self.check_limits()

    def check_limits(self) -> None:
        """Redis takes little from those who have not authenticated yet."""
        self.reader.authenticated = self.identity.account is not None or not (
            self.router.strangers or client_auth.outside(self.identity, self.router.policy)
        )

    def complain(self, name: str, text: str) -> None:
        """A client gets an error of the proxy's own making: count it and say so."""
        self.router.stats.errors += 1
        self.router.log.warning("client_error", command=name, client=self.address, error=text, epoch=self.router.epoch)

    def _hold(self, now: float) -> None:
        if self.stage is _LEAVING:
            self.leave(now)
            return
        if self.router.hold(self, len(self.pending), self._bytes, now):
            return
        self.router.log.warning("hold_full", client=self.address, epoch=self.router.epoch, bytes=self._bytes)
        self._fail_pending("MASTERDOWN no room to hold more commands (hold_bytes)", now)

    @property
    def only_pings(self) -> bool:
        """Whether the command that waits is a PING."""
        head = self.pending[0] if self.pending else None
        return isinstance(head, Run) and head.count == 1 and lookup(head.commands[0]).name == "PING"

    @property
    def first_sent(self) -> float:
        """When the command that waits was sent for the first time, if its connection failed then; else 0. Seconds."""
        head = self.pending[0] if self.pending else None
        return head.attempts.first_sent if isinstance(head, Run) and head.attempts.failed else 0.0

    def release_expired(self, now: float) -> None:
        """Forget the workers whose clients had this one told, and that have not asked for it for long."""
        remote_redirect.release_expired(self, now)

    def give_up(self, now: float) -> None:
        """The longest wait is over; without a command that waits, it only begins anew."""
        if self.pending:
            sent = any(isinstance(entry, Run | Verb) and entry.attempts.sent for entry in self.pending)
            self._fail_pending(self.router.masterdown(self, now, sent=sent), now)
        else:
            self.router.forgive(self, now)
            self.pump(now)

    def _fail_pending(self, text: str, now: float) -> None:
        if self.midway is not None:
            responses.break_off(self, text, now)
            return
        self.router.forgive(self, now)
        transaction = self.ties.transaction if self.ties is not None else None
        if transaction is not None:
            transactions.give_up(self, transaction, now)
        responses.answer_all_pending(self, text)
        if self.inbox is not None:
            self.inbox.refuse(text)
        if transaction is not None and self.own is not None:  # it may stand behind MULTI on the server
            self.router.discard(self.own, now)
        self.router.log.warning("masterdown", client=self.address, epoch=self.router.epoch, error=text)
        self.pump(now)

    def choke(self, now: float, *, full: bool) -> None:
        """The client has stopped reading, or goes on: the server waits with it, if nobody else waits then."""
        self.choked = full
        if full:
            self.router.forgive(self, now)  # it waits for itself
        if self.own is not None:
            self.own.read_on(self.receptive)
            if not self.receptive:
                self.router.dedicated.lasts(self.own, now)
        if not full:
            self._read_shared_lane()
            self.pump(now)

    def _read_shared_lane(self) -> None:
        """It may have stood still because this client did not read."""
        if self.lane is not None and self.lane is not self.own:
            self.lane.read_on(True)

    @property
    def receptive(self) -> bool:
        """Whether to read from the lane of its own. Who is told of things unasked is cut off when too much waits."""
        return not self.choked or (self.ties is not None and self.ties.listening)

    # --- from a lane

    def deliver(self, run: Run, taken: Taken, now: float) -> None:
        """Replies to the oldest commands outstanding."""
        plain = run.form is PLAIN and run.need is not OWN and self.ties is None and run.attempts is NEVER_SENT
        if plain and not taken.has_error and self.recovered is None and self.midway is None and not taken.partial:
            self.waits_since = None
            self.client.write(taken.data)
        else:
            responses.deliver(self, run, taken, now)
        if not run.left and self._bytes > NOTED and self.recovered is None and run.form is not Form.RESTORE:
            self._answered(len(run.raw))
        self.outstanding -= taken.count  # only now: nothing may overtake what is being answered
        if not self.outstanding:
            self.settle(now)

    def relays(self, run: Run) -> bool:
        """Whether replies to this run go to the client unseen, so that a long one may go in parts."""
        return run.form is PLAIN and run.need is not OWN and self.recovered is None and self.ties is None

    def was_served(self) -> None:
        """A blocking command has taken what it waited for: it must not be asked again when the lane dies."""
        if self.busy is not None and self.busy.command.may_have_effect:
            self.busy = replace(self.busy, served=True)

    def unasked(self, frame: bytes) -> bool:
        """Whether what the server sent on the own lane answers no command."""
        return self.ties is not None and self.ties.unasked(frame, self.identity.protocol)

    def overhears(self, frame: bytes) -> bool:
        """What the server sent on the own lane answers no command: the client is due it as it is."""
        if self.ties is None or not self.unasked(frame):
            return False
        reply_mode.push(self, tracking_redirect.overheard(self, self.ties, frame))
        return True

    def confirmed(self, run: Run, frame: bytes) -> bool:
        """Whether this frame is the last one that a STREAM gets."""
        stream = self.ties.stream if self.ties is not None else None
        if stream is None or not stream.confirms(run.commands[0], frame):
            return stream is None
        stream.asked -= 1
        return True

    def pass_on(self, data: bytes) -> None:
        """Bytes of the tunnel."""
        self.client.write(data)

    @property
    def _transaction(self) -> Transaction | None:
        return self.ties.transaction if self.ties is not None else None

    @property
    def queued_commands(self) -> list[list[bytes]]:
        """The commands that the server has queued behind MULTI."""
        transaction = self._transaction
        return transaction.queued if transaction is not None else []

    @property
    def answered_queueing(self) -> bool:
        """Whether the next reply is that of a command queued behind MULTI."""
        transaction = self._transaction
        return transaction is not None and transaction.answered_queueing

    def exec_replicates(self, *, more_in_flight: bool) -> bool:
        """Whether EXEC may send something to replicas; `more_in_flight` may become part of the transaction."""
        transaction = self._transaction
        return transaction is not None and (more_in_flight or transaction.replicates)

    def waits_only_for(self, replies: int) -> bool:
        """Whether these replies, which are relayed unseen, are all that it waits for."""
        plain = self.ties is None and self.busy is None and self.recovered is None and self.midway is None
        return self.stage is not _GONE and plain and self.outstanding == replies

    def reissue(self, run: Run, again: Run, connection: UpstreamConnection) -> None:
        """Wait no more for `run`, and send the same `again` on another lane."""
        self.outstanding -= run.left
        self.send(again, cast(Lane, connection))  # all that the router has are lanes

    def decide_unanswered(self, run: Run, node: Node, now: float, *, oldest: bool) -> None:
        """Decide about a run that a silent server may be about to die of; `oldest` of those of the session."""
        self.outstanding -= run.left
        outcome.by_silent_server(self, run, node, now, oldest=oldest)

    def returned(self, run: Run, connection: UpstreamConnection, loss: Loss) -> None:
        """A lane gives a run back: it is closed, or may not be written to any more. Nothing is sent from here."""
        self.outstanding -= run.left
        if self.stage is not _GONE:
            responses.returned(self, run, connection, loss)

    def recover(self, entry: Entry, said: bytes = b"") -> None:
        """The next thing in order that replies could not be relayed for; `said`: what the server answered to it."""
        if self.recovered is None:
            self.recovered = []
        self.recovered.append((entry, said))

    def let_stand(self) -> None:
        """Something later was executed: what the server refused before it must not be executed behind it."""
        self.recovered = [(responses.as_it_stands(self, *refused), b"") for refused in self.recovered or ()]

    def settle(self, now: float) -> None:
        """A lane has no more for this session for the moment, or gave something back: go on."""
        if self.midway is not None and self.midway.broken and self.stage is not _GONE:
            responses.break_off(self, self.midway.broken, now)
            return
        self._take_back()
        if not self.outstanding:
            self.lane = None
            if self.busy is not None or self.own is not None or self.ties is not None:
                pinning.settled(self, now)
                if not self.reader.authenticated:
                    self.screen()  # AUTH was denied: what came behind it was left until now
        self.pump(now)

    def _take_back(self) -> None:
        """What was recovered, when it is complete, and what was not sent, go to the head of the queue."""
        back = self.unsent
        if self.recovered is not None and not self.outstanding:
            back, self.recovered = [entry for entry, _ in self.recovered] + back, None
        if back:
            unsent, self.unsent = self.unsent, []
            self.replies = Replies.SKIP_NEXT if self.replies is Replies.SKIP else self.replies
            if self.stage is _LEAVING and any(_repeats(entry, unsent) for entry in back):
                self.pending.clear()  # nothing is sent again for it
                self.inbox = None
                back = [*takewhile(lambda entry: isinstance(entry, Ready), back), Hangup(b"")]
            self.pending.extendleft(reversed(back))

    def rests_on(self, connection: UpstreamConnection) -> bool:
        """Whether a planned change need not wait for this lane: it only waits for what others do."""
        waits = self.blocked or (self.listener and not self.outstanding) or self.tunnel is connection
        return connection is self.own and waits

    def fail(self, error: Exception, now: float) -> None:
        """Something went wrong that should not be possible: nothing that this session says can be relied upon."""
        self.router.log.warning("defect", client=self.address, error=repr(error), exc_info=error)
        self.client.abort()
        self.close(now)

    def lane_ready(self, now: float) -> None:
        """The lane of its own is greeted: who waits to be told of there may go on."""
        if self.ties is not None:
            tracking_redirect.call_back(self.ties, now)

    def lane_lost(self, connection: UpstreamConnection, now: float) -> None:
        """The lane of its own is closed, and what was on it has been decided upon."""
        if self.stage is not _GONE and connection is self.tunnel:
            self.client.close()
            self.close(now)
        elif self.stage is not _GONE:
            pinning.lane_lost(self, connection, now)


def _repeats(entry: Entry, unsent: list[Entry]) -> bool:
    """Whether an entry that a lane has given back would be sent for the second time."""
    if isinstance(entry, Run | Verb):
        return entry.attempts.sent or entry not in unsent
    return isinstance(entry, Hangup)
