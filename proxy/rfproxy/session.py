r"""One client: its commands in order, and the answers in the same order.

    bytes --RequestReader--> [run | verb | ready | run ...] --pump--> lane --> server
                                      pending                          |
    client <---------------------- deliver <---------------------------/

Everything a client says passes through `pending`. The head leaves it when it may go: a run to a lane, an
answer to the client, a verb (what a shared connection cannot carry) to `verbs`. All that a session has
outstanding is on *one* lane at any time, so its replies arrive in the order of its commands and are relayed as they
are. Hence a read goes to the master while a write of the same session is unanswered there, and a write
waits for the replies of reads on a replica.

When a lane dies, or a server refuses what it should have executed, the relaying stops: what remains is collected in
order in `recovered`, decided upon by the rules of `replay`, and goes back to the head of `pending`.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from rfprotocol import resp
from rfprotocol.commands import Route, lookup
from rfprotocol.framing import Taken, split
from rfproxy import apart, verbs
from rfproxy.entries import Entry, Form, Hangup, Need, Ready, Resume, Run, Verb
from rfproxy.exclusive import Stream, Watch
from rfproxy.greeting import Duty, Identity, Refusal
from rfproxy.lane import Lane
from rfproxy.replay import may_resend, refused
from rfproxy.router import Router
from rfproxy.transaction import Transaction

BACKLOG = 1 << 20
"""Bytes of commands without a reply, pending or in flight, from which on the client is not read from."""


class ClientWriter(Protocol):
    """The client's end, as the shell offers it."""

    def write(self, data: bytes) -> None:
        """Send to the client; silently dropped once it is gone."""

    def close(self) -> None:
        """Close when everything written has been sent."""

    def resume(self) -> None:
        """The session is no longer backlogged."""


class Session:
    """See the head of this module. `now` is the caller's monotonic clock, in seconds."""

    def __init__(self, number: int, address: str, client: ClientWriter, router: Router) -> None:
        self.number = number
        self.address = address
        self.client = client
        self.router = router
        self.name = b""
        self.identity = Identity(account=router.policy.account)
        self.pending: deque[Entry] = deque()
        self.outstanding = 0  # replies to come
        self.transaction: Transaction | None = None
        self.busy: Verb | None = None  # one that nothing may overtake: blocking, or a change of identity
        self.watch: Watch | None = None
        self.own: Lane | None = None  # for `watch` or `busy`
        self.stream: Stream | None = None
        self.stream_lane: Lane | None = None
        self._lane: Lane | None = None  # the one that everything outstanding is on
        self._recovered: list[Entry] | None = None
        self._unsent: list[Entry] = []
        self._bytes = 0
        self._open = True
        self.finished = False  # the client says nothing more
        self._reader = resp.RequestReader()

    @property
    def backlogged(self) -> bool:
        """Whether the client should not be read from for the moment."""
        return self._bytes > BACKLOG

    # --- from the client

    def feed(self, data: bytes, now: float) -> None:
        """Bytes from the client."""
        requests = self._reader.feed(data)
        if requests.commands:
            self._queue(requests.commands, requests.raw)
        if requests.error is not None and not (self.pending and isinstance(self.pending[-1], Hangup)):
            self.complain("?", requests.error.reply)
            self.pending.append(Hangup(resp.error(requests.error.reply)))
        self.pump(now)

    def finish(self, now: float) -> None:
        """Nothing more comes from the client: close when all is answered."""
        if self.stream is not None or (self.busy is not None and apart.blocks(self.busy)):
            self.client.close()  # what it waits for may never come
            return
        self.finished = True
        self.pending.append(Hangup(b""))
        self.pump(now)

    def close(self, now: float) -> None:
        """The client is gone."""
        self._open = False
        self.pending.clear()
        self._recovered = None
        self.router.release(self, now)
        apart.stand_down(self, now)

    def _queue(self, commands: list[list[bytes]], raw: bytes) -> None:
        self._bytes += len(raw)
        need, alone = self._classify(commands)
        if not alone:
            self.pending.append(Run(self, commands, raw, need))
            return
        shared: list[list[bytes]] = []
        for args in commands:
            command = lookup(args)
            if command.route in (Route.REPLICA, Route.MASTER):
                shared.append(args)
                continue
            self._queue_run(shared)
            shared = []
            self.pending.append(Verb(args, command, resp.encode_command(args)))
        self._queue_run(shared)

    def _queue_run(self, commands: list[list[bytes]]) -> None:
        if commands:
            need, _ = self._classify(commands)
            self.pending.append(Run(self, commands, resp.encode_commands(commands), need))

    def _classify(self, commands: list[list[bytes]]) -> tuple[Need, bool]:
        """Where these commands go as one run, and whether some of them cannot be part of one."""
        need = Need.ANY
        for args in commands:
            route = lookup(args).route
            if route is Route.MASTER:
                need = Need.MASTER
            elif route is not Route.REPLICA:
                return need, True
        return need, False

    # --- to a lane

    def pump(self, now: float) -> None:
        """Let go whatever may go now."""
        pending = self.pending
        while pending and self._open:
            entry = pending.popleft()
            if not self._go(entry, now):
                pending.appendleft(entry)
                if not self.outstanding and not self._hears_more:
                    self._hold(now)
                return
            self.router.release(self, now)
        if self._bytes and not pending and not self.outstanding:
            self._answered(self._bytes)

    @property
    def _hears_more(self) -> bool:
        """Whether replies are to come on the lane of a stream."""
        return self.stream is not None and self.stream.waiting and self.stream_lane is not None

    def _answered(self, size: int) -> None:
        """The client has the replies to so many bytes of its commands."""
        backlogged = self.backlogged
        self._bytes -= size
        if backlogged and not self.backlogged:
            self.client.resume()

    def _go(self, entry: Entry, now: float) -> bool:
        """Act on the head of the queue; False when it has to wait."""
        if self.busy is not None or (self.stream is not None and self._waits_for_stream(entry)):
            return False
        if isinstance(entry, Run):
            return self._go_run(entry, now)
        if isinstance(entry, Verb):
            return self._go_verb(entry, now)
        return not self.outstanding and self._go_alone(entry, now)

    def _waits_for_stream(self, entry: Entry) -> bool:
        """Whether the session is subscribed, and the order of its replies, depend on what is to come."""
        streaming = isinstance(entry, Resume) or (isinstance(entry, Verb) and entry.command.name in verbs.STREAMING)
        return self.stream is not None and self.stream.waiting and not streaming

    def _go_alone(self, entry: Ready | Hangup | Resume, now: float) -> bool:
        if isinstance(entry, Resume):
            return self.stream is None or self.stream_lane is not None or apart.resume_stream(self, self.stream, now)
        self.client.write(entry.reply)
        if isinstance(entry, Hangup):
            self.client.close()
            self.close(now)
        return True

    @property
    def _confined(self) -> bool:
        """Whether the session may do nothing but listen: RESP3 has room for replies beside the stream."""
        return self.stream is not None and self.stream.subscribed and not self.stream.beside(self.identity.protocol)

    def _go_run(self, run: Run, now: float) -> bool:
        if self.stream is not None and self._confined:
            return not self.outstanding and apart.subscribed(self, run, now)
        if self.watch is not None:
            return apart.watched(self, run, self.watch, now)
        if self.transaction is not None:
            return not self.outstanding and verbs.queue(self, run, self.transaction)
        lane = self.choose(run.need, now)
        return lane is not None and self.send(run, lane, now)

    def _go_verb(self, verb: Verb, now: float) -> bool:
        apt = verb.command.name in verbs.STREAMING or verbs.ends_all(verb)
        if self._confined and not apt:
            return not self.outstanding and apart.subscribed(self, verb, now)
        if self.watch is not None and not verbs.ends_all(verb):
            return apart.watched(self, verb, self.watch, now)
        return not self.outstanding and verbs.handle(self, verb, now)

    def choose(self, need: Need, now: float) -> Lane | None:
        """The shared lane for a run: while anything is outstanding, no other than the one that it is on."""
        lane = self._lane
        if not self.outstanding or lane is None:
            return self.router.lane(self.number, self.identity, need, now)
        fits = need is Need.ANY or lane.key.duty is Duty.MASTER
        ready = fits and lane.usable and self._recovered is None and self.router.may_send(lane, now)
        return lane if ready else None

    def send(self, run: Run, lane: Lane, now: float) -> bool:
        """Put a run on a lane; True, for the callers' convenience."""
        self._lane = lane
        self.outstanding += run.left
        lane.enqueue(run)
        return True

    def send_muted(self, args: list[bytes], lane: Lane) -> None:
        """Send a command whose replies are part of the stream."""
        lane.enqueue(Run(self, [args], resp.encode_command(args), Need.MASTER, Form.MUTE, 0))

    def complain(self, name: str, text: str) -> None:
        """A client gets an error of the proxy's own making: count it and say so."""
        self.router.stats.errors += 1
        self.router.log.warning("client_error", command=name, client=self.address, error=text, epoch=self.router.epoch)

    def _hold(self, now: float) -> None:
        if self.router.hold(self, len(self.pending), self._bytes, now):
            return
        self.router.log.warning("hold_full", client=self.address, epoch=self.router.epoch, bytes=self._bytes)
        self._fail_pending("MASTERDOWN no room to hold more commands (hold_bytes)", now)

    def give_up(self, now: float) -> None:
        """The longest wait is over."""
        self._fail_pending(self.router.masterdown(now), now)

    def _fail_pending(self, text: str, now: float) -> None:
        self.router.release(self, now)
        self.transaction = None
        # What waits behind the first came later, but a client that pipelines has one patience for all.
        for _ in range(len(self.pending)):
            entry = self.pending.popleft()
            if isinstance(entry, Run | Verb):
                count = len(entry.commands) if isinstance(entry, Run) else 1
                self.router.stats.errors += count
                entry = Ready(resp.error(text) * count)
            self.pending.append(entry)
        if self.own is not None:  # a watch, which may stand behind MULTI on the server
            self.watch = None
            self.router.discard(self.own, now)
        self.router.log.warning("masterdown", client=self.address, epoch=self.router.epoch, error=text)
        self.pump(now)

    # --- from a lane

    def deliver(self, run: Run, taken: Taken, now: float) -> None:
        """Replies to the oldest commands outstanding."""
        self.outstanding -= taken.count
        if not run.left and self._bytes > BACKLOG:
            self._answered(len(run.raw))
        if not taken.has_error and self._recovered is None and run.form is Form.PLAIN and self.watch is None:
            self.client.write(taken.data)
        else:
            self._deliver_with_care(run, taken, now)
        if not self.outstanding:
            self.settle(now)

    def _deliver_with_care(self, run: Run, taken: Taken, now: float) -> None:
        if run.form is Form.BLOCK:
            run.reply += taken.data
            if not run.left:
                self._deliver_block(run, now)
            return
        if run.form is Form.TRIAL:
            if self.busy is not None:
                verbs.accepted(self, self.busy)
            return
        if run.form is Form.STAND_IN:
            self.client.write(run.reply)
            return
        replies = split(taken.data)
        first = len(run.commands) - run.left - taken.count
        for args, reply in zip(run.commands[first:], replies, strict=False):
            self._judge(args, reply, run.need, now)

    def _judge(self, args: list[bytes], reply: bytes, need: Need, now: float) -> None:
        """Relay one reply, or see that its command is sent again."""
        command = lookup(args)
        if self.watch is not None and not self.watch.broken:
            apart.watch_answered(self, args, reply, self.watch, need, now)
        elif refused(reply):
            self._refused(reply, now)
            self.recover(self.again(args, need))
        elif self._recovered is None:
            self.client.write(reply)
        elif command.reads_only:  # beside something that was not executed: read again behind it
            self.recover(self.again(args, need))
        else:
            self.recover(Ready(reply))

    def _deliver_block(self, run: Run, now: float) -> None:
        replies = split(run.reply)
        executed = not replies[-1].startswith(b"-")
        refusal = next((reply for reply in replies if refused(reply)), None)
        if refusal is not None and not executed:
            self._refused(refusal, now)
            self.recover(self.busy or Run(self, run.commands, run.raw, run.need, Form.BLOCK, len(replies)))
        elif self._recovered is None:
            self.client.write(replies[-1])
        else:
            self.recover(Ready(replies[-1]))

    def _refused(self, reply: bytes, now: float) -> None:
        self.router.log.info("refused", reply=reply[:60].decode(errors="replace").strip(), epoch=self.router.epoch)
        if self._lane is not None:
            self.router.rest(self._lane, now)

    def returned(self, run: Run, lane: Lane, *, sent: bool) -> None:
        """A lane gives a run back: it is closed, or may not be written to any more. Nothing is sent from here."""
        self.outstanding -= run.left
        if not self._open or run.form is Form.MUTE:  # a stream knows what it has to ask for again
            return
        denied = lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED
        if self.watch is not None and lane is self.own and not lane.usable:
            apart.watch_returned(self, run, self.watch, lane, sent=sent)
        elif denied and lane.welcome:
            count = len(run.unanswered()) if run.form is Form.PLAIN else 1
            self.recover(Ready(resp.error(lane.welcome.text) * count))
        elif run.form is Form.TRIAL and self.busy is not None:
            self.recover(self.busy)
        elif not sent:
            self._unsent.append(self._rest_of(run))
        elif run.form is Form.BLOCK and self.busy is None:
            self.recover(self.uncertain([b"EXEC"], lane))
        else:
            for args in run.unanswered():
                self.recover(self.decide(args, run.need, lane))

    def decide(self, args: list[bytes], need: Need, lane: Lane) -> Entry:
        """What becomes of a command that was sent and not answered."""
        command = lookup(args)
        if command.route is Route.BLOCKING or may_resend(command, args, self.router.policy.retry_writes):
            return self.again(args, need)
        return self.uncertain(args, lane)

    def uncertain(self, args: list[bytes], lane: Lane) -> Ready:
        """The answer for a command of which nobody can know whether it was executed."""
        name = lookup(args).name
        text = f"UNCERTAIN {name} may or may not have been applied: master {lane.key.node} was lost before it replied"
        self.router.disturbed().uncertain += 1
        self.complain(name, text)
        return Ready(resp.error(text))

    def again(self, args: list[bytes], need: Need) -> Entry:
        """A command to be sent once more."""
        self.router.disturbed().replayed += 1
        if self.busy is not None:
            return self.busy
        command = lookup(args)
        if command.route in (Route.REPLICA, Route.MASTER):
            return Run(self, [args], resp.encode_command(args), need)
        return Verb(args, command, resp.encode_command(args))

    def _rest_of(self, run: Run) -> Entry:
        if self.busy is not None:
            return self.busy
        if run.form is Form.PLAIN:
            return Run(self, run.commands, run.raw, run.need)
        return Run(self, run.commands, run.raw, run.need, run.form, run.left)

    def recover(self, entry: Entry) -> None:
        """The next thing in order that replies could not be relayed for."""
        if self._recovered is None:
            self._recovered = []
        self._recovered.append(entry)

    def settle(self, now: float) -> None:
        """A lane has no more for this session for the moment, or gave something back: go on."""
        back: list[Entry] = []
        if not self.outstanding:
            self._lane = None
            back, self._recovered = self._recovered or [], None
            apart.settled(self, now)
        if back or self._unsent:
            back += self._unsent
            self._unsent = []
            self.pending.extendleft(reversed(back))
        self.pump(now)

    # --- lanes of its own

    def rests_on(self, lane: Lane) -> bool:
        """Whether a planned change need not wait for this lane: it only waits for what others do."""
        return lane is self.stream_lane or (self.busy is not None and apart.blocks(self.busy))

    def unasked(self, data: bytes, now: float) -> None:
        """What the server sent on the lane of the stream."""
        if self.stream is None:
            return
        waited = self.stream.waiting
        self.client.write(self.stream.pass_on(data))
        if waited and not self.stream.waiting:
            if not self.stream.subscribed:
                apart.end_stream(self, now)
            self.pump(now)

    def lane_gone(self, lane: Lane, now: float) -> None:
        """A lane of its own is closed, and what was on it has been decided upon."""
        if self._open:
            apart.lane_gone(self, lane, now)
            self.pump(now)
