"""Command + topology -> which lane; and what happens to the lanes when the topology changes.

    reads   a replica, always the same one for a session while it is there, so that a client does not see time
            run backwards; the master when there is no replica, or when `reads: master`
    writes  the master, through the gate

An epoch without a master closes the lanes to the former one: at once when it failed, after the last reply when
the change is planned. When they are closed this proxy sends nothing to that server any more, and says
so: `acknowledged`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from rfprotocol.backoff import Backoff
from rfprotocol.resp.command_table import Command, exists_in
from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.core.attempts import NEVER_SENT, Attempts
from rfproxy.core.counters import ChangeStats, Stats
from rfproxy.core.identity import MASTER, REPLICA, Duty, Identity, LaneKey
from rfproxy.core.peers import RemoteClient
from rfproxy.core.policy import Policy, Reads
from rfproxy.core.ports import Log
from rfproxy.core.server_contact import Contact
from rfproxy.core.work_items import ANYWHERE, NEEDS_MASTER, URGENT, Need, Run, Verb
from rfproxy.health.outage_log import Outages
from rfproxy.health.server_silence import Watch
from rfproxy.maintenance.access_recency import Recency, evicts_by_use
from rfproxy.maintenance.script_cache import Scripts
from rfproxy.maintenance.script_copies import Copies
from rfproxy.routing.blocked_departures import Leaving
from rfproxy.routing.client_pause import Pause
from rfproxy.routing.dedicated_pool import Dedicated
from rfproxy.routing.event_loop import Shell
from rfproxy.routing.hold_queue import OPEN, RESTING, Gate, GateState
from rfproxy.routing.lease import Lease
from rfproxy.routing.replica_selection import Denials, Replicas
from rfproxy.routing.replication_grace import Settling
from rfproxy.routing.waiter import Waiter
from rfproxy.semantics import client_auth
from rfproxy.semantics.retry_policy import lacks_replicas, refused
from rfproxy.semantics.scan_cursors import Cursors
from rfproxy.upstream import long_reply_reissue
from rfproxy.upstream.connection import Lane, LaneState
from rfproxy.upstream.handshake import Refusal, Welcome
from rfproxy.upstream.handshake_policy import Reception
from rfproxy.upstream.long_reply_isolation import Parking
from rfproxy.upstream.router_port import RouterPort

FIRST_REOPENING = 0.01
LONGEST_REOPENING = 1.0
"""Seconds until a shared connection that failed is opened again, while others to the same server are well: doubled from
first to longest."""
LINGERING = 1.0
"""Seconds for which a blocked session's connection to a former master is kept after a planned change: the server tells
it that it is no master any more, or what it has taken before."""
IDLE = 60.0
"""Seconds after which a lane that nobody used is closed, unless it is one of the default account and database."""


PING_PATIENCE = 1.0
"""Seconds that PING waits for a server: it asks whether one can be reached."""
_TOO_MANY = "ERR max number of clients"
"""How a server refuses one connection that serves others well."""


class Router(RouterPort):
    """All lanes of one proxy process, and the topology they follow."""

    def __init__(self, policy: Policy, shell: Shell, lease: Lease, stats: Stats, log: Log) -> None:
        super().__init__(policy, stats, log)
        self.topology: Topology | None = None
        self.gate: Gate[Waiter] = Gate(
            lease, timeout=policy.hold_timeout, capacity=policy.hold_bytes, leaseless=policy.leaseless
        )
        self.acknowledged = -1
        self.unfenced = False  # the record is one of Ruby's redis_failover, whose managers wait for no proxy
        self.versions: dict[Node, str] = {}
        """Of each server that has told it, when it last greeted a lane."""
        self.sessions: dict[int, Waiter] = {}
        self.leaving = Leaving()
        self.strangers = False  # the servers want to know who speaks before they answer anything
        self.process = ""  # the master's, told from all others
        self.cursors = Cursors("")
        self.scripts = Scripts()
        self.copies = Copies(self, self.scripts)
        self.recency = Recency(self)
        self.pause: Pause | None = None
        self.far_targets: dict[int, RemoteClient] = {}  # their clients that are told what clients of this one track
        self._reads_replicas = policy.reads is Reads.REPLICA
        self._look_again = math.inf  # when to let those who wait look again
        self._turn = 0  # counts what may lead sessions to other lanes
        self._shell = shell
        self._shared: dict[LaneKey, Lane] = {}
        self.dedicated = Dedicated(self._new_dedicated, self.discard, spares=policy.spares, most=policy.most_dedicated)
        self._reopening: dict[LaneKey, Backoff] = {}
        self._lingering: dict[Lane, float] = {}  # until when; see LINGERING
        self._outages = Outages()
        self._retiring: dict[Lane, None] = {}
        self._parking = Parking()
        self._dirty: list[Lane] = []
        self._in_doubt: dict[Lane, None] = {}  # lanes that wait for a lease
        self._replicas = Replicas()
        self._denials = Denials()
        self._served: dict[Identity, float] = {}  # until when a lane of that identity was in service
        self.reception = Reception(policy.account, log)
        self._settling = Settling(policy.hold_timeout)
        self._messengers: dict[Lane, None] = {}
        self._trials: dict[Lane, None] = {}  # connections to replicas that were silent, which nobody waits for
        self.watch = Watch(self, shell.kernel, shell.report_busy)
        self._contacts: dict[Node, Contact] = {}

    # --- where to

    def lane(self, session: Waiter, need: Need, now: float) -> Lane | None:
        """The shared lane for a run of this session, or None when it has to wait."""
        lane = session.ways.known(need, self._turn)
        if lane is not None and lane.usable and (lane.duty is REPLICA or self.open(now)):
            if need is ANYWHERE and lane.duty is MASTER and self._reads_replicas:
                self.stats.spilled += 1
            return lane
        if client_auth.outside(session.identity, self.policy):
            return None  # never under the proxy's account, should a command have come so far
        lane = self.find(session.number, session.identity, need, now)
        if lane is not None and lane.duty is not Duty.ANY:
            session.ways.keep(need, self._turn, lane)
        return lane

    def find(self, number: int, identity: Identity, need: Need, now: float) -> Lane | None:
        """The same for session `number`, if it were this somebody; looked for anew."""
        key = self._key(number, identity, need, now)
        if key is None:
            return None
        lane = self._shared.get(key)
        if need is URGENT and (lane is None or not lane.serving):
            lane = self._parking.any(key) or lane  # to a server that is busy no other can be opened
        if lane is None and self._rests(key, now):
            return None
        return lane or self._open(key)

    def _rests(self, key: LaneKey, now: float) -> bool:
        """Whether a connection that failed is not to be opened again yet."""
        return key in self._reopening and now < self._reopening[key].due

    def answered_since(self, node: Node, sent: float) -> bool:
        """Whether the server has replied to something that was sent later than at `sent`, on any connection.

        A server executes commands in the order in which they arrive, so it has executed all that was sent before. What
        was sent at the same time, on different connections, arrives in any order.
        """
        return self.contact(node).answered > sent

    def contact(self, node: Node) -> Contact:
        """What connections to this server show of it."""
        contact = self._contacts.get(node)
        if contact is None:
            contact = self._contacts[node] = Contact()
        return contact

    def open(self, now: float) -> bool:
        """Whether commands may be sent to the master."""
        return self.gate.state(now) is OPEN

    def exclusive(
        self,
        session: Waiter,
        now: float,
        need: Need = Need.OWN,
        attempts: Attempts = NEVER_SENT,
        *,
        ends: bool = False,
    ) -> Lane | None:
        """A lane for this session alone, to the master unless `need` is ANY_OWN; None when it has to wait.

        `attempts`: the earlier sendings of what is to be sent. `ends`: it ends by itself.
        """
        if client_auth.outside(session.identity, self.policy):
            return None
        key = self._key(session.number, session.identity, need, now, attempts)
        if key is None:
            return None
        lane = self.dedicated.take(key, session, now, ends=ends)
        if lane is None:
            self._wake_for(self.dedicated.dues(), now)
        elif lane.duty is not REPLICA and lane.probe(now):
            self.lane_dirty(lane)  # from now on the shell listens for the answer
        return lane

    def _wake_for(self, times: Iterable[float], now: float) -> None:
        if coming := [when for when in times if now < when < math.inf]:
            self.wake_at(min(coming))

    def give_back(self, lane: Lane, now: float) -> None:
        """A session needs its exclusive lane no more, and left nothing on it that the next one could meet."""
        lane.guest = None
        lane.read_on(True)
        if lane in self.dedicated and lane.state is LaneState.READY and lane.idle and not lane.spoilt:
            self.dedicated.give_back(lane, now)
        else:
            self.discard(lane, now)

    def lingers(self, lane: Lane) -> bool:
        """Whether a lane to a former master is kept for the reply to what was in flight, and for nothing else."""
        return lane in self._lingering

    def discard(self, lane: Lane, now: float) -> None:
        """Close a lane that nothing is wrong with."""
        self._forget(lane)
        lane.abandon(now)

    def _key(
        self, number: int, identity: Identity, need: Need, now: float, attempts: Attempts = NEVER_SENT
    ) -> LaneKey | None:
        topology = self.topology
        if topology is None:
            return None
        if need is NEEDS_MASTER or need is URGENT or need is Need.OWN:
            return self._master_key(identity, now)
        barred = bool(attempts.fatal_to) and attempts.fatal_to != self.process  # from the master
        if attempts.fatal_to and topology.master is None:
            return None  # a replica may become the master
        if self._reads_replicas:
            replica = self._replicas.choose(self._replicas_for(identity, attempts, now), number, now)
            if replica is not None or barred:
                return LaneKey(replica, REPLICA, identity) if replica is not None else None
            self.stats.spilled += 1
        if topology.master and self.gate.state(now) is GateState.LAPSED:
            failed = self._replicas.failed(topology.master, now) or not self.gate.stale_reads(now)
            return None if failed else LaneKey(topology.master, Duty.ANY, identity)
        return self._master_key(identity, now)

    def may_read_elsewhere(self, attempts: Attempts) -> bool:
        """Whether a read that may not go to the master has a replica to go to, or will have when that follows."""
        topology = self.topology
        if topology is None or not self._reads_replicas:
            return False
        return any(node != attempts.suspect_at for node in (*topology.replicas, *topology.unavailable))

    def _replicas_for(self, identity: Identity, attempts: Attempts, now: float) -> Sequence[Node]:
        """Those that a read may go to: not where it ended a connection, nor where its user is not known."""
        replicas: Sequence[Node] = self.topology.replicas if self.topology else ()
        if self._denials:
            replicas = self._denials.others(replicas, identity, now)
        return replicas if attempts is NEVER_SENT else [node for node in replicas if node != attempts.suspect_at]

    def _master_key(self, identity: Identity, now: float) -> LaneKey | None:
        if self.topology is None or self.topology.master is None or not self.open(now):
            return None
        return LaneKey(self.topology.master, MASTER, identity)

    def _open(self, key: LaneKey) -> Lane:
        lane = self._shared[key] = self._new(key, exclusive=False)
        self._shell.connect(lane)
        return lane

    def _new_dedicated(self, key: LaneKey) -> Lane:
        lane = self._new(key, exclusive=True)
        self._shell.connect(lane)
        return lane

    def _new(self, key: LaneKey, *, exclusive: bool) -> Lane:
        lane = Lane(key, self, run_id=self.run_id(key))
        self._attach_recency(lane)
        return lane

    def _attach_recency(self, lane: Lane) -> None:
        counts = lane.duty is REPLICA and self.topology is not None and evicts_by_use(self.topology)
        lane.recency = self.recency.reads_of(lane.key.identity) if counts else None

    def connect_service(self, lane: Lane) -> None:
        """Open a connection for what the proxy itself has to say to a server."""
        self._messengers[lane] = None
        self._shell.connect(lane)

    def wake_chores(self, when: float) -> None:
        """What nobody waits for is to be done then."""
        self._shell.wake_at(when)

    def run_id(self, key: LaneKey) -> str:
        """The process that a lane with this key is to find there; empty when any will do."""
        return self.topology.run_id if self.topology and key.duty is not REPLICA else ""

    def _is_shared(self, lane: Lane) -> bool:
        return self._shared.get(lane.key) is lane

    def _all_shared(self) -> list[Lane]:
        return list(self._shared.values())

    @property
    def server_version(self) -> str:
        """The master's, which decides what exists; empty while it is not known, or there is no master."""
        master = self.topology.master if self.topology is not None else None
        return self.versions.get(master, "") if master is not None else ""

    def version_of(self, lane: Lane) -> str:
        """That of the server behind a lane, as it greeted this one or, before it has, another one; empty: unknown."""
        return (lane.welcome and lane.welcome.version) or self.versions.get(lane.key.node, "")

    def replica_has(self, number: int, command: Command, now: float) -> bool:
        """Whether the server that session `number` reads from may be asked for this, as far as is known.

        One of the same version as the master has what the master has, also what is in no table.
        """
        if not self._reads_replicas or self.topology is None:
            return True
        replica = self._replicas.choose(self.topology.replicas, number, now)
        version = self.versions.get(replica, "") if replica is not None else ""
        return version == self.server_version or exists_in(command, version)

    # --- what lanes report

    def lane_stands(self, lane: Lane) -> None:
        """The connection is there: greet the server."""
        self.reception.begin(lane)

    def greet_otherwise(self, lane: Lane, welcome: Welcome, now: float) -> bool:
        """Not everything could be asked; whether the lane is being greeted once more, in another way."""
        return self.reception.again(lane, welcome, now)

    def lane_refused(self, lane: Lane, welcome: Welcome) -> Welcome:
        """Whoever speaks is not let in: it may be the proxy itself, with a password that has been changed."""
        return self.reception.refused(lane, welcome)

    def lane_ready(self, lane: Lane, now: float) -> None:
        """The server is what it should be."""
        self.reception.ready(lane, now)
        if lane.welcome and lane.welcome.version:
            self.versions[lane.key.node] = lane.welcome.version
        if lane.welcome and lane.key.identity.account is None and lane.welcome.stranger != self.strangers:
            self.strangers = lane.welcome.stranger
            for session in self.sessions.values():
                session.check_limits()
        if lane.key.node in self._replicas.silent:
            self._serves(lane.key.node, now)
        if self._denials.accepted(lane.key.node, lane.key.identity):
            self._turn += 1
        if lane in self._trials:
            self.discard(lane, now)
            return
        if lane in self.dedicated:
            self.dedicated.ready(lane, now)
        if lane.guest is not None:
            lane.guest.lane_ready(now)
        else:
            self._overtake(lane, now)

    def lane_proven(self, lane: Lane, now: float) -> None:
        """The server has replied to a command: it serves."""
        node = lane.key.node
        if lane.duty is MASTER:
            self.gate.recovered()
        self._serves(node, now)
        self._reopening.pop(lane.key, None)
        self.dedicated.proven(lane, now)
        self._outage_over(node, now)

    def _outage_over(self, node: Node, now: float) -> None:
        outage = self._outages.over(node)
        if outage is not None and outage.lost > 1:
            self.log.info(
                "lanes_restored",
                node=str(node),
                lost=outage.lost,
                seconds=round(now - outage.since, 3),
                reason=outage.reason,
                epoch=self.epoch,
            )

    def lane_over(self, lane: Lane, now: float) -> None:
        """A lane closed. One that failed while it was in service is not replaced at once, to let others serve."""
        denied = lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED
        in_service = self._is_shared(lane) or lane in self.dedicated
        if lane.failed and in_service and not denied:
            self._service_lost(lane, now)
        self._forget(lane)
        self._tried(lane, failed_at=now)
        self._in_doubt.pop(lane, None)
        self.reception.over(lane, now)
        if self.scripts.lost(lane):
            self.wake_at(now)
        if denied and lane.duty is REPLICA:
            self._turn += 1
            self.wake_at(self._denials.denied(lane.key.node, lane.key.identity, now))
        elif lane.welcome is not None and lane.welcome.refusal is None:
            self._served[lane.key.identity] = now
        self.avow()
        self.dedicated.wake(lane.key, now)

    def _service_lost(self, lane: Lane, now: float) -> None:
        """The server ended a connection that served, or could not be reached."""
        node, reason = lane.key.node, lane.lost_because or "connection lost"
        if self._outages.lost(node, reason, now):
            self.log.info("lane_lost", node=str(node), reason=reason, epoch=self.epoch)
        if lane in self.dedicated:
            if lane.guest is None and lane.proven:
                return  # it was idle
            if not lane.proven:
                self.wake_at(self.dedicated.failed(lane, reason, now))
            if not self._others_serve(lane):
                self.rest(lane, now)
            return
        stand_in = self._parking.any(lane.key) if self._shared.get(lane.key) is lane else None
        if stand_in is not None:  # better a long wait than none to serve
            self._forget(lane)
            self._unpark(stand_in)
        if stand_in is not None or self._others_serve(lane):
            backoff = self._reopening.setdefault(lane.key, Backoff(FIRST_REOPENING, LONGEST_REOPENING))
            self.wake_at(backoff.failed(now))
        else:
            self.rest(lane, now)

    def served(self, session: Waiter) -> bool:
        """Whether the servers have accepted this session as what it is."""
        said_so = session.identity != client_auth.newcomer(self.policy)
        return said_so or session.born <= self._served.get(session.identity, -math.inf)

    def _others_serve(self, lost: Lane) -> bool:
        """Whether the server is well, although it closed or refused this connection."""
        node, welcome = lost.key.node, lost.welcome
        if welcome is not None and welcome.refusal is not None and not welcome.text.startswith(_TOO_MANY):
            return False  # what the server says of itself holds for all connections
        return self.contact(node).serves

    def rest(self, lane: Lane, now: float) -> None:
        """The server behind a lane did not serve: leave it alone for a moment."""
        self._turn += 1
        if lane.duty is not MASTER:
            self.wake_at(self._replicas.pass_over(lane.key.node, now))
        elif self.topology and lane.key.node == self.topology.master:
            self.wake_at(self.gate.rest(now))

    # --- replicas that are silent

    @property
    def silent(self) -> Collection[Node]:
        """Replicas that are not read from until they reply."""
        return self._replicas.silent.keys()

    def lane_unanswered(self, lane: Lane, now: float) -> None:
        """The server does not answer a connection: no reader is to wait for the next one."""
        if lane.duty is REPLICA:
            self.pass_over_silent(lane.key.node, now, acknowledges=lane.state is LaneState.GREETING)

    def pass_over_silent(self, node: Node, now: float, *, acknowledges: bool) -> None:
        """A server does not answer; `acknowledges`: its kernel does."""
        if self.topology is None or node not in self.topology.replicas or not self._replicas.is_silent(node, now):
            return
        reason = "it does not answer" if acknowledges else "its host acknowledges nothing"
        self.log.info("replica_silent", node=str(node), reason=reason, epoch=self.epoch)
        self._turn += 1

    def replicas_replied(self, heard: Mapping[Node, float], now: float) -> None:
        """When servers were last heard: those that were silent may have replied."""
        for node, silent in list(self._replicas.silent.items()):
            if heard.get(node, -math.inf) > silent.since:
                self._serves(node, now)

    def try_silent(self, now: float) -> None:
        """Open a connection to each silent replica whose turn it is."""
        for node, silent in self._replicas.silent.items():
            if silent.trials.may_begin(now):
                silent.trials.begin()
                lane = self._new(LaneKey(node, REPLICA, Identity(account=self.policy.account)), exclusive=True)
                self._trials[lane] = None
                self._shell.connect(lane)

    def _tried(self, lane: Lane, failed_at: float | None = None) -> None:
        """A trial is over, if this lane was one."""
        if lane not in self._trials:
            return
        del self._trials[lane]
        silent = self._replicas.silent.get(lane.key.node)
        if silent is None:
            return
        silent.trials.end()
        if lane.welcome is not None and lane.welcome.refusal is Refusal.DENIED:  # that is an answer
            self._serves(lane.key.node, lane.closed_at)
        elif failed_at is not None:
            silent.trials.failed(failed_at)

    def _serves(self, node: Node, now: float) -> None:
        """A server has answered."""
        silent = node in self._replicas.silent
        if self._replicas.serves(node):
            self._turn += 1
        if silent:
            self.log.info("replica_replies", node=str(node), epoch=self.epoch)
            self.resume(now)

    def reads_elsewhere(self, node: Node, now: float) -> bool:
        """Whether what was asked of this server could be asked of another one, for a client that only reads."""
        if self.topology is None:
            return False
        others = [replica for replica in self.topology.replicas if replica != node] if self._reads_replicas else []
        master = self.topology.master
        return any(not self._replicas.failed(other, now) for other in others) or (
            master is not None and master != node and self.open(now)
        )

    def knows(self, node: Node) -> bool:
        """Whether a server has a place in the topology in force."""
        return self.topology is not None and (node == self.topology.master or node in self.topology.replicas)

    def lane_slow(self, lane: Lane, now: float) -> None:
        """A replica takes long for its replies: its sessions move to another one that does not."""
        node = lane.key.node
        if not self._is_shared(lane) or self._replicas.slow(node, now):
            return  # who has a lane of its own may ask for what takes long
        slow = {other.key.node for other in self._all_shared() if other.pace is not None and other.pace.slow}
        replicas = self.topology.replicas if self.topology else ()
        if all(replica in slow or self._replicas.passed_over(replica, now) for replica in replicas):
            return
        self.log.info("replica_slow", node=str(node), epoch=self.epoch)
        self._turn += 1
        self.wake_at(self._replicas.rest(node, now))

    def lane_dirty(self, lane: Lane) -> None:
        """A lane has something to flush."""
        if not self._dirty:
            self._shell.flush_soon()
        self._dirty.append(lane)

    def may_send(self, lane: Lane, now: float) -> bool:
        """Nothing is sent to a master that may have been deposed; while it rests, nothing that could wait as well."""
        if lane.duty is not MASTER:
            return True
        state = self.gate.state(now)
        return state is OPEN or (state is RESTING and lane.guest is not None)

    def may_not_yet(self, runs: Collection[Run], now: float) -> bool:
        """What they bring is not for clients that have left."""
        return bool(self.leaving) and self.leaving.holds(runs, now)

    def may_relay(self, lane: Lane, now: float) -> bool:
        """No success of a master is relayed that may have been deposed before it was executed."""
        return lane.duty is not MASTER or self.gate.trusts(now)

    def lane_laden(self, lane: Lane, now: float) -> None:
        """Another lane serves who has nothing in flight behind a long reply, or only reads and it is very long."""
        if self._shared.get(lane.key) is not lane or self._rests(lane.key, now):
            return
        spare = self._parking.spare(lane.key)
        if spare is None and self._parking.full(lane.key):
            return
        del self._shared[lane.key]
        if spare is not None:
            self._unpark(spare)
        self._parking.put(lane)
        self._turn += 1
        if spare is None and long_reply_reissue.worth_while(lane):
            self._open(lane.key)
        lane.park(now)
        if spare is not None:
            self._overtake(spare, now)

    def _overtake(self, lane: Lane, now: float) -> None:
        if self._is_shared(lane) and self.may_send(lane, now):
            long_reply_reissue.overtake(self._parking, lane, now)

    def lane_light(self, lane: Lane, now: float) -> None:
        """It can serve again, or stand by."""
        lane.parked = False
        if lane.state is LaneState.READY and lane.key not in self._shared:  # it may have been retired meanwhile
            self._unpark(lane)

    def _unpark(self, lane: Lane) -> None:
        self._parking.take(lane)
        lane.parked = False
        lane.read_on(True)  # others wait behind a client that does not read
        self._shared[lane.key] = lane
        self._turn += 1

    def lane_waits(self, lane: Lane) -> None:
        """The lease has run out: the lane goes on when there is one again, and still the same master."""
        self._in_doubt[lane] = None

    def flush(self, now: float) -> None:
        """Send what sessions have queued since the last turn of the loop."""
        dirty, self._dirty = self._dirty, []
        for lane in dirty:
            lane.flush(now)

    # --- what sessions report

    @property
    def epoch(self) -> int:
        """Of the topology in force; -1 before the first."""
        return self.topology.epoch if self.topology else -1

    def hold(self, session: Waiter, entries: int, size: int, now: float) -> bool:
        """A session cannot go on; False when there is no room for its `size` bytes."""
        if session.waits_since is None:
            session.waits_since = session.first_sent or now
            self.disturbed().held += entries
        patience = self.patience(session)
        if not self.gate.hold(session, size, session.waits_since, patience):
            return False
        if self.pause is None:  # in which nobody's time runs out
            self._shell.wake_at(max(now, session.waits_since + patience))
        return True

    def refused(self, reply: bytes, now: float) -> bool:
        """Whether this reply says that the command was not executed and belongs on another server, or later."""
        return refused(reply) or (self._settling.lasts(now) and lacks_replicas(reply))

    def patience(self, session: Waiter) -> float:
        """For how many seconds the next command of this session may wait."""
        return min(PING_PATIENCE, self.policy.hold_timeout) if session.only_pings else self.policy.hold_timeout

    def outage(self, node: Node) -> str:
        """Why connections to this server have failed lately; empty when they do not."""
        return self._outages.reason(node)

    def disturbed(self) -> ChangeStats:
        """Where to count what clients notice of a change of master."""
        serving = self.topology is not None and self.topology.master is not None
        return self.stats.disturbed(self.epoch, serving=serving)

    def release(self, session: Waiter, now: float) -> None:
        """A session goes on, or is gone."""
        waited = self.gate.release(session, now)
        if waited is not None:
            self.dedicated.leave(session)
            self.stats.change.waited(waited)

    def forgive(self, session: Waiter, now: float) -> None:
        """The same, and when it waits again its patience begins anew."""
        self.release(session, now)
        session.waits_since = None

    def masterdown(self, session: Waiter, now: float, *, sent: bool) -> str:
        """The error for a command that waited too long; `sent`: a server was sent it, and did not execute it."""
        state = self.gate.state(now).value
        if why := self.dedicated.why(session) or self._outages.reason(self.topology.master if self.topology else None):
            state = f"{state}: {why}" if self.gate.state(now) is not OPEN else why
        done = "answered" if sent else "sent"
        where = f"master {self.topology.master}" if self.topology and self.topology.master else "none"
        return f"MASTERDOWN held for {self.patience(session):g} s and not {done}: {state} ({where}, epoch {self.epoch})"

    # --- what changes

    def apply(self, topology: Topology, now: float) -> None:
        """Follow another topology."""
        if topology.master is None:
            self.disturbed()
        if topology.epoch != self.epoch and not self.gate.trusts(now):
            self._part_with_master(now)  # it may be the same one again, and another one have been there in between
        self._settling.follow(self.topology, topology, now)
        drained = self.topology is not None and self.topology.phase is Phase.DRAINING and topology.master is not None
        self.topology = topology
        for gone in self.versions.keys() - {topology.master, *topology.replicas, *topology.unavailable}:
            del self.versions[gone]
        self._turn += 1
        self.log.info(
            "topology",
            epoch=topology.epoch,
            phase=topology.phase.value,
            master=str(topology.master) if topology.master else None,
            replicas=[str(node) for node in topology.replicas],
            unavailable=[str(node) for node in topology.unavailable],
        )
        self.gate.apply(topology)
        self._replicas.forget(topology.replicas)
        self._denials.clear()
        self._know_process(topology)
        self.copies.follow(topology, now)
        self.recency.follow(topology)
        for lane in self.lanes:
            self._attach_recency(lane)
        members = {topology.master, *topology.replicas, *topology.unavailable}
        self._reopening.clear()
        self._depose([lane for lane in self.lanes if not self._fits(lane, topology)], now, drained=drained)
        members_or_left = {*members, *(lane.key.node for lane in self.lanes)}
        self._contacts = {node: contact for node, contact in self._contacts.items() if node in members_or_left}
        for node in self._outages.nodes:
            if node not in members:
                self._outage_over(node, now)
        self.avow()
        self._warm(topology, now)
        self.resume(now)

    def _warm(self, topology: Topology, now: float) -> None:
        """Open dedicated connections to the master ahead, for the identities that use such."""
        if topology.master is None or not self.open(now):
            return
        identities = dict.fromkeys(key.identity for key in self.dedicated.used if key.duty is MASTER)
        self.dedicated.keep_only(lambda key: key.node == topology.master or key.node in topology.replicas)
        for identity in identities:
            self.dedicated.warm(LaneKey(topology.master, MASTER, identity), now)

    def _know_process(self, topology: Topology) -> None:
        process = topology.run_id or f"{topology.master}@{topology.epoch}"
        if topology.master is not None and process != self.process:
            self.process, self.cursors = process, Cursors(process)

    def lapse(self, now: float) -> None:
        """The lease ran out: nothing more is sent to the master, and what it replies waits for news.

        A process that stood still for a moment finds its lease run out, and often gets the next one at once.
        """
        self.wake_at(self.gate.lapse(now))

    def _part_with_master(self, now: float) -> None:
        """What is in flight can no longer be believed when it is answered."""
        for lane in self.lanes:
            if lane.duty is MASTER:
                self._forget(lane)
                lane.abandon(now, lapsed=True)

    def wake_at(self, when: float) -> None:
        """Be sure that those who wait look again at that time."""
        self._look_again = min(self._look_again, when)
        self._shell.wake_at(when)

    def tick(self, now: float) -> None:
        """Time has passed: give up on those who waited too long, try again for the others."""
        self._turn += 1
        if self.pause is not None and now >= self.pause.until:
            self.let_go(now)
        for session in self.gate.expired(now) if self.pause is None else []:
            session.attend(session.give_up, now)
        for lane in [lane for lane, until in self._lingering.items() if now >= until]:
            self.discard(lane, now)
        if not self.gate.trusts(now) and self.gate.stale_reads(now):
            self._part_with_master(now)  # there is no news: reads go on from whatever there is
        for far in list(self.far_targets.values()):
            far.poll(now)
        self.copies.attend(now)
        self.recency.attend(now)
        if now >= self._look_again:  # else one of many has waited too long, which does not concern the others
            self._look_again = math.inf
            self.resume(now)
        # There is one alarm, and the one that rang may have been set for another reason, or a hair too early.
        times = [self.gate.rest_until, *self._replicas.times(), *self._lingering.values()]
        times += [*self._denials.times(), *self.dedicated.dues(), *(one.due for one in self._reopening.values())]
        times += [far.due for far in self.far_targets.values()]
        times += [self.gate.reads_from, self.pause.until if self.pause else math.inf]
        self._wake_for(times, now)
        if (due := min(self.copies.due, self.recency.due)) < math.inf:
            self._shell.wake_at(due)
        if now < (expiry := min(self.gate.next_expiry(), self._look_again)) < math.inf:
            self._shell.wake_at(expiry)

    def resume(self, now: float) -> None:
        """Let everyone who waits look again."""
        while self._in_doubt and self.gate.trusts(now):
            lane = next(iter(self._in_doubt))
            del self._in_doubt[lane]
            lane.go_on(now)
        for session in self.gate.waiting():
            session.attend(session.pump, now)

    # --- CLIENT PAUSE

    def hold_back(self, until: float, *, writes_only: bool, now: float) -> None:
        """Hold commands until that moment, or until the pause in force ends, if that is later."""
        later = max(until, self.pause.until if self.pause else until)
        self.pause = Pause(later, writes_only)
        self.wake_at(later)

    def let_go(self, now: float) -> None:
        """The pause is over."""
        self.pause = None
        self.resume(now)

    def paused(self, entry: Run | Verb, now: float) -> bool:
        """Whether a pause holds these commands back."""
        return self.pause is not None and self.pause.holds(entry, now)

    def _last_used(self, lane: Lane) -> float:
        return lane.used

    def reap(self, now: float) -> None:
        """Close lanes of accounts and databases that nobody has used for a while, and exclusive ones.

        Not those of a session that is there: its password may have been changed, and the lane could not be opened anew.
        """
        needed = {Identity(account=self.policy.account)}
        needed.update(session.identity for session in self.sessions.values())
        unused = [lane for lane in self._all_shared() if lane.key.identity not in needed and lane.idle]
        self._served = {identity: until for identity, until in self._served.items() if identity in needed}
        self._denials.forget(now)
        self.reception.reap(now)
        self.recency.reap(now)
        for far in list(self.far_targets.values()):
            far.renew()
        for session in list(self.sessions.values()) if self.peers is not None else []:
            session.release_expired(now)
        for lane in self.dedicated.reap(now):
            self.discard(lane, now)
        unused += [lane for lane in self._parking if lane.idle]
        for lane in unused:
            if now - self._last_used(lane) > IDLE:
                self.discard(lane, now)

    def close(self, now: float) -> None:
        """The program ends."""
        for lane in self.lanes:
            self._forget(lane)
            lane.abandon(now)

    def _fits(self, lane: Lane, topology: Topology) -> bool:
        """Whether a lane may stay as it is."""
        if lane.duty is REPLICA:
            return lane.key.node in topology.replicas
        same_process = not lane.run_id or not topology.run_id or lane.run_id == topology.run_id
        return lane.key.node == topology.master and same_process

    def _depose(self, lanes: list[Lane], now: float, *, drained: bool) -> None:
        """Part with lanes that fit no more. `drained`: a planned change is complete."""
        planned = self.topology is not None and self.topology.phase is Phase.DRAINING
        if planned:
            lanes = [lane for lane in lanes if lane.guest is None or not lane.guest.rests_on(lane)]
        elif self.topology is not None and self.topology.master is not None:
            lanes = [lane for lane in lanes if lane not in self._lingering]
        # All are listed before the first one closes, which must not be taken for the last.
        for lane in lanes:
            blocked = lane.guest is not None and lane.guest.blocked and lane.guest.rests_on(lane)
            lingers = drained and blocked and lane.sent_all  # nothing more may be sent there
            self._forget(lane)
            if lingers:
                self._lingering[lane] = now + LINGERING
                self.wake_at(now + LINGERING)
            else:
                self._retiring[lane] = None
        for lane in lanes:
            if lane in self._lingering:
                continue
            if planned or lane.duty is REPLICA:  # a replica that is only busy still answers
                lane.retire(now)
            else:
                lane.abandon(now)

    def disavow(self) -> None:
        """A smaller epoch will be followed: nothing counts as acknowledged until then."""
        self.acknowledged = -1

    def avow(self) -> None:
        """Say which epoch is in force, when nothing of an earlier one is in flight to a former master."""
        reads = all(lane.duty is REPLICA for lane in self._retiring)
        if reads and self.epoch != self.acknowledged:
            self.acknowledged = self.epoch
            self._shell.acknowledge(self.epoch)

    @property
    def lanes(self) -> list[Lane]:
        """All that are not closed."""
        served = (*self._all_shared(), *self.dedicated)
        return [*served, *self._retiring, *self._lingering, *self._parking, *self._trials, *self._messengers]

    def _forget(self, lane: Lane) -> None:
        if self._shared.get(lane.key) is lane:
            del self._shared[lane.key]
        self.dedicated.forget(lane)
        self._retiring.pop(lane, None)
        self._lingering.pop(lane, None)
        self._messengers.pop(lane, None)
        self._parking.take(lane)
