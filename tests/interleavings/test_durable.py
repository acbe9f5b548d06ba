"""The same with durable writes: what is acknowledged is on a replica, whatever happens in between."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy
from tests.interleavings.test_interleavings import EVERYTHING, Interleavings, clients

ANSWER = len(b":2\r\n")
"""Bytes of what WAIT is answered."""


class Durable(Interleavings):
    """Replicas may lag, and recover."""

    policy = Policy(durable=Durability())

    def replicated(self) -> set[int] | None:
        """Which writes replicas have."""
        return self.model.replicated

    @precondition(lambda self: not self.model.lagging)
    @rule()
    def replicas_lag(self) -> None:
        self.model.lagging = True

    @precondition(lambda self: self.model.lagging)
    @rule()
    def replicas_catch_up(self) -> None:
        self.model.lagging = False

    @precondition(lambda self: self.master is not None)
    @rule(client=clients, kind=st.sampled_from(["set", "push", "script", "pop", "exec"]))
    def connections_break_before_wait_is_answered(self, client: int, kind: str) -> None:
        assert self.master is not None
        self.somebody_speaks(client, [kind])
        for link in self.links():
            self.model.serve(link, EVERYTHING)
            self.model.say(link, max(0, len(link.output) - ANSWER))
        self.model.cut(self.master)

    def teardown(self) -> None:
        """Replicas are well again."""
        self.model.lagging = False
        super().teardown()


class DurableSince72(Durable):
    """Where WAIT asks for the last write of a connection."""

    version = "8.0.1"


TestDurable = Durable.TestCase
TestDurableSince72 = DurableSince72.TestCase
TestDurable.settings = TestDurableSince72.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, derandomize=True
)
