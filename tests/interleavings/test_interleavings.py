"""Clients, servers and failovers in any order: each command gets its own reply, nothing is done twice or in part."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from rfproxy.core.policy import Policy
from tests.interleavings.model import EFFECTS, Fatal, Link, Model, token
from tests.interleavings.story import TEMPLATES, Story
from tests.support.playbook import Playbook

SERVERS = ("a:1", "b:1", "c:1")
PROTOCOLS = (2, 3, 2)
EVERYTHING = 1 << 20

kinds = st.sampled_from(list(TEMPLATES))
spread = st.lists(kinds, min_size=1, max_size=4)
whole = st.lists(
    st.sampled_from(["set", "push", "read", "script", "announce", "module", "pop", "mistake"]), max_size=3
).map(lambda inside: ["multi", *inside, "exec"])
effects = st.lists(st.sampled_from(["set", "push", "announce", "script", "module"]), min_size=2, max_size=3)
packets = st.one_of(spread, effects, whole, st.builds(list.__add__, spread, whole))
clients = st.integers(0, len(PROTOCOLS) - 1)
places = st.integers(0, 5)
amounts = st.sampled_from([1, 2, EVERYTHING])
FATAL = EFFECTS | {b"MGET", b"SCAN"}
"""Commands that have to do with data, of which a server may die."""
fatal = st.builds(Fatal, st.booleans(), st.booleans(), st.sampled_from([1, 2, EVERYTHING]))


class Interleavings(RuleBasedStateMachine):
    """One playbook, in which anything may happen next."""

    policy = Policy()
    version = "7.0.15"  # of the servers

    @initialize()
    def begin(self) -> None:
        self.play = Playbook(self.policy)
        for name in SERVERS:
            self.play.server(name).version = self.version
        self.model = Model(self.play)
        self.tokens = count(1000)
        self.epoch = 1
        self.master: str | None = SERVERS[0]
        self.draining = False
        self.stories = [Story(self.play.client(), protocol) for protocol in PROTOCOLS]
        self.publish(SERVERS[0])

    def publish(self, master: str) -> None:
        """A topology with that master is in force."""
        self.recover(master)
        self.draining, self.master = False, master
        self.model.suspect()
        server = self.play.server(master)
        server.refuses = False
        server.role = None
        self.model.loading.clear()
        self.model.readonly = set(SERVERS) - {master}
        self.play.topology(self.epoch, master=master, replicas=self.others(master))

    def recover(self, name: str) -> None:
        """A server will refuse no more: what it has begun to refuse as one packet, it refuses to the end."""
        for link in self.links() if name in self.model.loading | self.model.readonly else []:
            self.model.serve(link, EVERYTHING)
            self.model.say(link, EVERYTHING)

    def others(self, master: str | None) -> list[str]:
        """The servers that can be read from besides the master."""
        return [name for name in SERVERS if name != master and not self.play.server(name).refuses]

    def links(self) -> list[Link]:
        """The connections on which something can happen."""
        return self.model.links()

    # --- clients

    @rule(client=clients, packet=packets)
    def somebody_speaks(self, client: int, packet: list[str]) -> None:
        if not self.stories[client].left:
            self.stories[client].says(self.tokens, packet)

    @rule(client=clients, packet=spread, place=places, size=st.integers(1, 30))
    def somebody_speaks_while_a_server_answers(self, client: int, packet: list[str], place: int, size: int) -> None:
        self.a_server_executes(place, EVERYTHING)
        self.somebody_speaks(client, packet)
        self.a_server_answers(place, size)

    @precondition(lambda self: not any(story.left for story in self.stories))
    @rule(client=clients)
    def somebody_leaves(self, client: int) -> None:
        self.stories[client].leaves(self.model.sent())

    @precondition(lambda self: not any(story.left for story in self.stories))
    @rule(client=clients)
    def somebody_hangs_up(self, client: int) -> None:
        self.stories[client].hangs_up(self.model.sent())
        self.note_absence()

    def note_absence(self) -> None:
        """While there is no master, clients that have hung up wait for none."""
        for story in self.stories if self.master is None else []:
            story.masterless(self.model.sent())

    @rule(channel=st.sampled_from([b"x", b"y"]))
    def somebody_publishes(self, channel: bytes) -> None:
        self.model.publish(channel)

    # --- servers

    @rule(place=places, most=amounts)
    def a_server_executes(self, place: int, most: int) -> None:
        if links := self.links():
            self.model.serve(links[place % len(links)], most)

    @rule(place=places, most=st.one_of(st.just(EVERYTHING), st.integers(1, 60)))
    def a_server_answers(self, place: int, most: int) -> None:
        if links := [link for link in self.links() if link.output]:
            self.model.say(links[place % len(links)], most)

    @rule()
    def servers_do_all_they_can(self) -> None:
        for link in self.links():
            self.model.serve(link, EVERYTHING)
            self.model.say(link, EVERYTHING)

    @rule()
    def time_passes(self) -> None:
        self.play.wait(0.3)

    # --- failures

    @rule(name=st.sampled_from(SERVERS))
    def connections_break(self, name: str) -> None:
        self.model.cut(name)

    @precondition(lambda self: self.master is not None)
    @rule()
    def the_master_dies(self) -> None:
        assert self.master is not None
        self.play.server(self.master).refuses = True
        self.model.cut(self.master)

    @precondition(lambda self: self.master is not None)
    @rule()
    def the_master_is_demoted(self) -> None:
        assert self.master is not None
        self.model.readonly.add(self.master)
        self.play.server(self.master).role = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"

    @precondition(lambda self: self.master is not None)
    @rule()
    def the_master_begins_to_load(self) -> None:
        assert self.master is not None
        self.model.loading.add(self.master)

    @precondition(lambda self: self.master is not None)
    @rule(client=clients, packet=effects, loads=st.booleans())
    def somebody_speaks_to_a_master_that_refuses(self, client: int, packet: list[str], loads: bool) -> None:
        """Over a connection that stands. Not all of it is refused: messages are published all the same."""
        self.somebody_speaks(client, ["set"])
        self.servers_do_all_they_can()
        if loads:
            self.the_master_begins_to_load()
        else:
            self.the_master_is_demoted()
        self.somebody_speaks(client, packet)

    @precondition(lambda self: self.model.loading and not self.links())
    @rule()
    def loading_ends(self) -> None:
        self.model.loading.clear()

    @rule(client=clients, packet=packets, place=places, fatal=fatal)
    def somebody_says_what_closes_its_connection(
        self, client: int, packet: list[str], place: int, fatal: Fatal
    ) -> None:
        story = self.stories[client]
        before = len(story.said)
        self.somebody_speaks(client, packet)
        dangerous = [args for args in story.said[before:] if args[0] in FATAL]
        if dangerous:
            self.model.fatal[token(dangerous[place % len(dangerous)])] = fatal

    # --- changes of master

    @precondition(lambda self: self.master is not None)
    @rule()
    def the_master_is_withdrawn(self) -> None:
        self.fence()

    def fence(self) -> None:
        """There is no master."""
        self.epoch += 1
        self.model.suspect()
        self.master, self.draining = None, False
        self.play.topology(self.epoch, replicas=self.others(None))
        self.note_absence()

    @precondition(lambda self: self.master is not None)
    @rule(to=st.sampled_from(SERVERS))
    def a_change_is_planned(self, to: str) -> None:
        assert self.master is not None
        self.epoch += 1
        former, self.master, self.draining = self.master, None, True
        self.play.topology(self.epoch, replicas=self.others(former), draining=(former, to))
        self.note_absence()

    @precondition(lambda self: self.master is None)
    @rule(name=st.sampled_from(SERVERS))
    def a_master_is_published(self, name: str) -> None:
        if self.draining and self.play.acknowledged[-1] != self.epoch:
            self.fence()  # as managers do when a proxy does not acknowledge
        self.epoch += 1
        self.publish(name)

    def replicated(self) -> set[int] | None:
        """Which writes replicas have, if that matters."""
        return None

    # --- the end

    def teardown(self) -> None:
        """All is well again: now everyone must get what is due."""
        for name in SERVERS:
            self.play.server(name).refuses = False
        self.epoch += 1
        self.publish(self.master or SERVERS[0])
        for _ in range(1000):
            if not self.links() and not any(story.client.session.pending for story in self.stories):
                break
            self.servers_do_all_they_can()
            self.play.wait(0.3)
        for story in self.stories:
            story.check(self.model.executed, self.replicated(), self.model.blamed)
            story.check_departure(self.model.sent())
        assert not self.play.log.events("defect")


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
