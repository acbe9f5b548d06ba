"""The same with durable writes: what is acknowledged is on a replica, whatever happens in between."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import precondition, rule

from rfproxy.durable import Durability
from rfproxy.router import Policy
from tests.interleavings.test_interleavings import Interleavings


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
