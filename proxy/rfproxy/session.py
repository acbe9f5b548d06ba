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
        if requests.error is not None:
            self.pending.append(Hangup(resp.error(requests.error.reply)))
        self.pump(now)

    def finish(self, now: float) -> None:
        """Nothing more comes from the client: close when all is answered."""
        if self.stream is not None or (self.busy is not None and apart.blocks(self.busy)):
            self.client.close()  # what it waits for may never come
            return
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
                if not self.outstanding:
                    self._hold(now)
                return
        if self._bytes and not pending and not self.outstanding:
            self._answered(self._bytes)

    def _answered(self, size: int) -> None:
        """The client has the replies to so many bytes of its commands."""
        backlogged = self.backlogged
        self._bytes -= size
        if backlogged and not self.backlogged:
            self.client.resume()

    def _go(self, entry: Entry, now: float) -> bool:
        """Act on the head of the queue; False when it has to wait."""
        if self.busy is not None:
            return False
        if isinstance(entry, Run):
            return self._go_run(entry, now)
        if isinstance(entry, Verb):
            return self._go_verb(entry, now)
        if self.outstanding:
            return False
        if isinstance(entry, Resume):
            return self.stream is None or self.stream_lane is not None or apart.resume_stream(self, self.stream, now)
        self.client.write(entry.reply)
        if isinstance(entry, Hangup):
            self.client.close()
            self.close(now)
        return True

    def _go_run(self, run: Run, now: float) -> bool:
        if self.watch is not None:
            return apart.watched(self, run, self.watch, now)
        if self.stream is not None and self.identity.protocol == 2:
            return apart.streamed(self, run, self.stream, now)
        if self.transaction is not None:
            return not self.outstanding and verbs.queue(self, run, self.transaction)
        lane = self.choose(run.need, now)
        return lane is not None and self.send(run, lane, now)

    def _go_verb(self, verb: Verb, now: float) -> bool:
        if verb.command.route is not Route.REFUSED and verb.command.name not in ("QUIT", "RESET"):
            if self.watch is not None:
                return apart.watched(self, verb, self.watch, now)
            if self.stream is not None and self.identity.protocol == 2:
                return apart.streamed(self, verb, self.stream, now)
        return not self.outstanding and verbs.handle(self, verb, now)

    def choose(self, need: Need, now: float) -> Lane | None:
        """The shared lane for a run: while anything is outstanding, no other than the one that it is on."""
        lane = self._lane
        if not self.outstanding or lane is None:
            return self.router.lane(self.number, self.identity, need, now)
        fits = need is Need.ANY or lane.key.duty is Duty.MASTER
        return lane if fits and lane.usable and self._recovered is None else None

    def send(self, run: Run, lane: Lane, now: float) -> bool:
        """Put a run on a lane; True, for the callers' convenience."""
        self.router.release(self, now)
        self._lane = lane
        self.outstanding += run.left
        lane.enqueue(run)
        return True

    def send_muted(self, commands: list[list[bytes]], lane: Lane, now: float) -> None:
        """Send commands whose replies are part of the stream."""
        self.router.release(self, now)
        lane.enqueue(Run(self, commands, resp.encode_commands(commands), Need.MASTER, Form.MUTE, 0))

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
        entries, self.pending = self.pending, deque()
        self.transaction = None
        for entry in entries:
            if isinstance(entry, Run | Verb):
                # What waits behind the first came later, but a client that pipelines has one patience for all.
                count = len(entry.commands) if isinstance(entry, Run) else 1
                self.router.stats.errors += count
                self.pending.append(Ready(resp.error(text) * count))
            else:
                self.pending.append(entry)
        self.router.log.warning("masterdown", client=self.address, epoch=self.router.epoch, error=text)
        self._bytes = 0
        self.client.resume()
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
        replies = split(taken.data)
        first = len(run.commands) - run.left - taken.count
        for args, reply in zip(run.commands[first:], replies, strict=False):
            self._judge(args, reply, run.need, now)

    def _judge(self, args: list[bytes], reply: bytes, need: Need, now: float) -> None:
        """Relay one reply, or see that its command is sent again."""
        command = lookup(args)
        if self.watch is not None:
            self.watch.heard(command.name)
            self.client.write(reply)
        elif refused(reply):
            self._refused(reply, now)
            self.recover(self.again(args, need))
        elif self._recovered is None:
            self.client.write(reply)
        elif command.reads_only and not isinstance(self._recovered[-1], Ready):
            # It was read beside a write that was not executed: read again behind it.
            self.recover(self.again(args, need))
        else:
            self.recover(Ready(reply))

    def _deliver_block(self, run: Run, now: float) -> None:
        replies = split(run.reply)
        executed = not replies[-1].startswith(b"-")
        refusal = next((reply for reply in replies if refused(reply)), None)
        if refusal is not None and not executed:
            self._refused(refusal, now)
            self.recover(Run(self, run.commands, run.raw, run.need, Form.BLOCK, len(replies)))
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
        if not self._open:
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

    def _rest_of(self, run: Run) -> Run:
        if run.form is not Form.PLAIN:
            return Run(self, run.commands, run.raw, run.need, run.form, run.left)
        return Run(self, run.commands, run.raw, run.need)

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
        """What the server sent of its own accord."""
        if self.stream is None:
            return
        self.client.write(self.stream.pass_on(data))
        lane = self.stream_lane
        if self.stream.over and lane is not None:
            self.stream = self.stream_lane = None
            lane.streaming = False
            self.router.give_back(lane, now)
            self.pump(now)

    def lane_gone(self, lane: Lane, now: float) -> None:
        """A lane of its own is closed, and what was on it has been decided upon."""
        apart.lane_gone(self, lane, now)
        if self._open and self.stream is not None and self.stream_lane is None:
            self.pending.appendleft(Resume())
        self.pump(now)
