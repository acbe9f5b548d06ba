"""The lease: counted from when a proof was sent, with a margin, never resurrected by an old session."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rfproxy.lease import MARGIN, NEWS, Lease


def test_without_a_proof_nothing_is_believed() -> None:
    assert not Lease().valid(0.0)


def test_it_counts_from_when_the_proof_was_sent_and_ends_before_the_session_can() -> None:
    lease = Lease()
    lease.renew(100.0, 3.0)
    assert lease.valid(101.9)
    assert not lease.valid(102.1)


def test_a_proof_that_was_sent_earlier_does_not_shorten_it() -> None:
    lease = Lease()
    lease.renew(100.0, 3.0)
    lease.renew(99.0, 3.0)
    assert lease.valid(101.9)


def test_the_end_of_the_session_ends_it() -> None:
    lease = Lease()
    lease.renew(100.0, 3.0)
    lease.revoke()
    assert not lease.valid(100.0)


def test_stale_reads_begin_when_its_end_was_noticed_and_the_store_said_nothing_for_a_while() -> None:
    lease = Lease()
    assert lease.reads_from <= 0.0  # never had: what is known comes from a file
    lease.renew(100.0, 3.0)
    assert lease.reads_from == float("inf")
    lease.lapsed(500.0)
    lease.lapsed(500.5)  # noticed once more
    assert lease.reads_from == 500.0 + NEWS


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 60)), min_size=1))
def test_it_never_outlasts_the_longest_session_that_was_proved(proofs: list[tuple[float, float]]) -> None:
    lease = Lease()
    for sent, timeout in proofs:
        lease.renew(sent, timeout)
    assert lease.until <= max(sent + timeout * (1 - MARGIN) for sent, timeout in proofs)
