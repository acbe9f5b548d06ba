"""What the core does when operators said nothing."""

from __future__ import annotations

from rfproxy.core.policy import Policy, Reads, RetryWrites


def test_reads_go_to_replicas_and_only_what_may_happen_twice_is_sent_twice() -> None:
    assert Policy().reads is Reads.REPLICA
    assert Policy().retry_writes is RetryWrites.IDEMPOTENT


def test_without_a_store_nothing_is_written_and_nobody_may_undo_what_managers_do() -> None:
    assert not Policy().leaseless
    assert not Policy().allow_admin
