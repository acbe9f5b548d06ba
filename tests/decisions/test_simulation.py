"""Groups over simulated time, to which anything may happen: the invariants hold, and what is healed converges."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from rfmanager.decision import decide
from rfmanager.decision.plan import Wait
from rfprotocol.topology.topology import Node, Phase, Topology
from tests.decisions.servers import Life, Server, Start, at
from tests.decisions.simulation import TICK, Simulation
from tests.decisions.site import Mishap, Proxy, asked, overwritten, with_proxy, with_server, written
from tests.decisions.truth import Violation

DEFAULT = 60
EXAMPLES = int(os.environ.get("RF_EXAMPLES", DEFAULT))
"""More are tried, and others each time, when the environment says so."""

numbers = st.integers(0, 5)
ticks = st.sampled_from([1, 2, 5, 10, 30, 60])


def stalled(sim: Simulation, length: int, busy: bool = False) -> None:
    """The master of the moment, if there is one, stands still for so many ticks; if `busy`, a proxy says why."""
    node = sim.site.topology.master if sim.site.topology else None
    server = at(sim.site.servers, node)
    if server is None or server.life is not Life.RUNNING:
        return
    sim.site = with_server(sim.site, replace(server, life=Life.FROZEN))
    sim.tell(f"{node} is busy" if busy else f"{node} stalls")
    sim.busy |= {server.node} if busy else set()
    for _ in range(length):
        sim.tick()
    sim.busy.clear()
    now = at(sim.site.servers, node)
    if now is not None and now.life is Life.FROZEN:
        sim.site = with_server(sim.site, replace(now, life=Life.RUNNING))
        sim.tell(f"{node} goes on")


class Groups(RuleBasedStateMachine):
    """One group."""

    @initialize(size=st.integers(1, 4), managers=st.integers(1, 3), proxies=st.integers(1, 2))
    def begin(self, size: int, managers: int, proxies: int) -> None:
        self.sim = Simulation(size, managers, proxies)
        for _ in range(20):
            self.sim.tick()

    def server(self, number: int) -> Server:
        """One of those there are."""
        servers = self.sim.site.servers
        return servers[number % len(servers)]

    def proxy(self, number: int) -> Proxy:
        """One of those there are."""
        proxies = self.sim.site.proxies
        return proxies[number % len(proxies)]

    def change(self, server: Server, what: str) -> None:
        """The server is different now."""
        self.sim.site = with_server(self.sim.site, server)
        self.sim.tell(f"{server.node} {what}")

    @rule(count=ticks)
    def time_passes(self, count: int) -> None:
        for _ in range(count):
            self.sim.tick()

    @rule(number=numbers, count=st.integers(1, 3))
    def clients_write(self, number: int, count: int) -> None:
        for _ in range(count):
            self.sim.site = written(self.sim.site, self.proxy(number))

    # --- servers

    @rule(number=numbers)
    def a_server_dies(self, number: int) -> None:
        self.change(replace(self.server(number), life=Life.DEAD), "dies")

    @rule(number=numbers)
    def a_server_freezes(self, number: int) -> None:
        if self.server(number).life is Life.RUNNING:
            self.change(replace(self.server(number), life=Life.FROZEN), "freezes")

    @rule()
    def frozen_servers_go_on(self) -> None:
        for server in self.sim.site.servers:
            if server.life is Life.FROZEN:
                self.change(replace(server, life=Life.RUNNING), "goes on")

    @rule(length=st.sampled_from([10, 60, 110, 150]))
    def the_master_is_busy(self, length: int) -> None:
        """With a command that a proxy has sent."""
        stalled(self.sim, length, busy=True)

    @rule(times=st.integers(2, 4), length=ticks, pause=ticks)
    def masters_stall_again_and_again(self, times: int, length: int, pause: int) -> None:
        """Whoever has the role freezes for a moment: failovers that follow each other."""
        for _ in range(times):
            stalled(self.sim, length)
            self.time_passes(pause)

    @rule(number=numbers, start=st.sampled_from(Start), life=st.sampled_from([Life.RUNNING, Life.LOADING]))
    def a_server_restarts(self, number: int, start: Start, life: Life) -> None:
        self.change(replace(self.server(number).restarted(start), life=life), f"restarts {start.value}")

    @rule(number=numbers, start=st.sampled_from(Start))
    def a_server_comes_up_as_nobodys_replica(self, number: int, start: Start) -> None:
        self.change(self.server(number).restarted_as_replica(start), f"comes up as nobody's, {start.value}")

    @rule(number=numbers)
    def a_stranger_takes_the_place_of_a_replica(self, number: int) -> None:
        """With the data of others."""
        if self.server(number).follows is not None:
            self.change(self.server(number).replaced_by_a_stranger(), "is another server now")

    @rule(number=numbers)
    def a_server_leaves_every_configuration(self, number: int) -> None:
        self.sim.site = replace(self.sim.site, dropped=self.sim.site.dropped | {self.server(number).node})
        self.sim.tell(f"{self.server(number).node} is configured nowhere")

    @rule()
    def dropped_servers_are_configured_again(self) -> None:
        self.sim.site = replace(self.sim.site, dropped=frozenset())
        self.sim.tell("all servers are configured")

    @rule(number=numbers)
    def a_server_is_upgraded(self, number: int) -> None:
        self.change(replace(self.server(number).restarted(Start.WHOLE), release=8), "is upgraded")

    @rule(number=numbers)
    def a_server_refuses_the_password(self, number: int) -> None:
        """For commands; probes go over a connection that is logged in."""
        self.change(replace(self.server(number), refuses=True), "refuses the managers' password")

    @rule()
    def passwords_are_put_right(self) -> None:
        for server in self.sim.site.servers:
            if server.refuses:
                self.change(replace(server, refuses=False), "accepts the managers' password")

    @rule(number=numbers)
    def a_server_is_isolated_from_the_others(self, number: int) -> None:
        server = self.server(number)
        self.change(replace(server, isolated=not server.isolated), "is isolated, or not any more")

    @rule(number=numbers)
    def a_priority_is_changed(self, number: int) -> None:
        server = self.server(number)
        self.change(replace(server, priority=100 - server.priority), "has another priority")

    # --- managers

    @rule(number=numbers, manager=numbers)
    def a_link_to_a_manager_is_cut(self, number: int, manager: int) -> None:
        site = self.sim.site
        link = (manager % site.managers, self.server(number).node)
        self.sim.site = replace(site, blind=site.blind | {link})
        self.sim.tell(f"manager {link[0]} is cut off from {link[1]}")

    @rule()
    def links_are_healed(self) -> None:
        self.sim.site = replace(self.sim.site, blind=frozenset())

    @rule(manager=numbers)
    def a_manager_freezes(self, manager: int) -> None:
        manager %= len(self.sim.managers)
        if self.sim.managers[manager].frozen_since is None:
            self.sim.managers[manager].frozen_since = self.sim.site.now
            self.sim.tell(f"manager {manager} freezes")

    @rule()
    def managers_go_on(self) -> None:
        for manager in self.sim.managers:
            manager.frozen_since = None

    @rule(number=numbers, refused=st.booleans(), deposed=st.booleans(), arrived=st.booleans())
    def a_step_goes_wrong(self, number: int, refused: bool, deposed: bool, arrived: bool) -> None:
        """A command fails, or its answer is lost; with it goes the tenure, perhaps."""
        if self.sim.managers[self.sim.site.primary].frozen_since is not None:
            return
        node = frozenset({self.server(number).node})
        mishap = Mishap(refused=node) if refused else Mishap(unheard=node)
        if not isinstance(self.sim.act_once(mishap), Wait) and deposed:
            self.sim.depose("in the middle of a step", arrived)

    @rule(count=st.integers(1, 15))
    def a_manager_hesitates(self, count: int) -> None:
        """It pauses between a decision and the step; its tenure covers that."""
        if self.sim.managers[self.sim.site.primary].frozen_since is not None:
            return
        step = self.sim.decided()
        for _ in range(count):
            self.sim.tick(acting=False)
        self.sim.execute(step)

    # --- proxies

    @rule(number=numbers)
    def a_proxy_freezes(self, number: int) -> None:
        proxy = self.proxy(number)
        if not proxy.stuck:
            self.sim.site = with_proxy(self.sim.site, replace(proxy, stuck=True))
            self.sim.stuck_since[proxy.name] = self.sim.site.now
            self.sim.tell(f"{proxy.name} freezes")

    @rule(write=st.booleans())
    def proxies_go_on(self, write: bool) -> None:
        """And do at once what they believe they may."""
        self.sim.stuck_since.clear()
        for proxy in self.sim.site.proxies:
            goes_on = replace(proxy, stuck=False)
            self.sim.site = with_proxy(self.sim.site, goes_on)
            if write:
                self.sim.site = written(self.sim.site, goes_on)

    # --- operators

    @rule(number=st.integers(0, 6))
    def an_operator_asks(self, number: int) -> None:
        if self.sim.site.request is None:
            target = None if number == 0 else Node("h", number)
            self.sim.site = asked(self.sim.site, target)
            self.sim.tell(f"an operator asks for {target}")

    @rule(paused=st.booleans())
    def operators_pause_and_resume(self, paused: bool) -> None:
        self.sim.site = replace(self.sim.site, paused=paused)
        self.sim.tell("paused" if paused else "resumed")

    @rule(kind=st.sampled_from(["removed", "older", "the gem's"]), number=st.integers(0, 50))
    def somebody_overwrites_the_record(self, kind: str, number: int) -> None:
        """By hand, from a backup, or with a node manager of the gem. The managers know what was in force."""
        site, older = self.sim.site, self.sim.records[number % len(self.sim.records)]
        if site.topology is None or (kind == "older" and older.epoch >= site.topology.epoch):
            return
        master = self.server(number).node
        others = tuple(node for node in site.nodes if node != master)
        gems = Topology(0, Phase.SERVING, master, others)
        self.sim.site = overwritten(site, {"removed": None, "older": older}.get(kind, gems))
        self.sim.tell(f"the record is {kind} now")

    @rule(number=numbers, other=numbers)
    def somebody_meddles(self, number: int, other: int) -> None:
        server, master = self.server(number), self.server(other)
        if not server.obeys:
            return
        if server.node == master.node:
            self.change(server.promoted(), "is promoted by hand")
        else:
            self.change(server.following(master.node, master.run_id), f"is pointed to {master.node} by hand")
            if server.role == "master":  # who does that to the master in force throws its data away
                ledger = replace(self.sim.site.ledger, acknowledged=())
                self.sim.site = replace(self.sim.site, ledger=ledger)

    # --- the end

    def teardown(self) -> None:
        """All is healed."""
        with self.sim.explained():
            self.recover(self.sim)

    def recover(self, sim: Simulation) -> None:
        """The group serves again, with an operator's help if need be, and every request is answered."""
        sim.heal()
        if not sim.converges():
            most = max(sim.site.servers, key=lambda server: len(server.data))
            sim.site = asked(sim.site, most.node)
            assert sim.converges(), f"an operator cannot help: {sim.said}"
        for _ in range(int(3 / TICK)):
            sim.tick()
        epoch = sim.site.topology.epoch if sim.site.topology else 0
        for proxy in sim.site.proxies:
            before = sim.site.ledger.written
            sim.site = written(sim.site, proxy)
            assert sim.site.ledger.written > before, f"{proxy.name} cannot write"
        self.time_passes(20)
        assert sim.site.topology is not None
        assert (sim.site.topology.phase, sim.site.topology.epoch) == (Phase.SERVING, epoch), "it flaps"
        left_alone = {s.node for s in sim.site.servers if f"{s.node} holds data of another history" in sim.said}
        assert len({server.data for server in sim.site.servers if server.node not in left_alone}) == 1
        assert set(sim.site.ledger.answers) == set(range(1, sim.site.ledger.asked + 1))


STALL, EVERY = 1.8, 6.0


def flapping(minutes: int) -> Simulation:
    """Masters stall for 1.8 s every 6 s."""
    sim = Simulation(size=3, managers=3, proxies=1)
    for _ in range(40):
        sim.tick()
    for _ in range(int(minutes * 60 / EVERY)):
        stalled(sim, int(STALL / TICK))
        for _ in range(int((EVERY - STALL) / TICK)):
            sim.tick()
    return sim


def test_masters_that_stall_every_6_s__change_at_most_3_times_a_minute() -> None:
    sim = flapping(minutes=3)
    ended = sorted(receipt.ended for receipt in sim.receipts.values())
    assert 1 <= len(ended) <= 3
    assert all(receipt.false_alarm for receipt in sim.receipts.values())


def test_masters_that_stall__without_the_brake__lose_the_role_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is able to show it."""
    monkeypatch.setattr(decide, "_slowed_down", lambda view, master: None)
    with pytest.raises(Violation, match="was silent for less than"):
        flapping(minutes=1)


@pytest.mark.parametrize(("seconds", "changes"), [(4.5, 0), (7.0, 1)])
def test_a_busy_master__within_and_beyond_its_patience__changes_at_most_once(seconds: float, changes: int) -> None:
    sim = flapping(minutes=0)
    stalled(sim, int(seconds / TICK), busy=True)
    for _ in range(40):
        sim.tick()
    assert len(sim.receipts) == changes


def test_a_master_that_dies_after_false_alarms__is_replaced_at_once() -> None:
    sim = flapping(minutes=1)
    assert sim.brake.on
    node = sim.site.topology.master if sim.site.topology else None
    server = at(sim.site.servers, node)
    assert server is not None
    sim.site = with_server(sim.site, replace(server, life=Life.DEAD))
    for _ in range(int(1.0 / TICK)):
        sim.tick()
    assert sim.site.topology is not None
    assert sim.site.topology.master not in (None, node)


def test_a_master_that_stays_silent_after_false_alarms__is_replaced_in_the_end() -> None:
    sim = flapping(minutes=1)
    before = sim.site.topology.master if sim.site.topology else None
    stalled(sim, int(8 * 1.35 / TICK) + 40)
    assert sim.site.topology is not None
    assert sim.site.topology.master not in (None, before)


TestGroups = Groups.TestCase
TestGroups.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, derandomize=EXAMPLES == DEFAULT
)
