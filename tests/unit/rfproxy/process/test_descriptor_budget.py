"""Open files are shared among clients and the connections that belong to one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfproxy.process.descriptor_budget import SPARE, Budget, share, wanted


def test_share__enough__one_dedicated_per_client() -> None:
    assert share(400, wanted(400)) == Budget(400, 400)


@pytest.mark.parametrize(
    ("clients", "allowed", "budget"),
    [(400, 20_000, Budget(400, 19_344)), (400, 300, Budget(33, 11)), (10_000, 10_256, Budget(7_500, 2_500))],
)
def test_share__hard_limit__clients_and_dedicated_fit(clients: int, allowed: int, budget: Budget) -> None:
    assert share(clients, allowed) == budget


@given(st.integers(1, 10**6), st.integers(0, 10**7))
def test_share__any_numbers__never_more_than_allowed(clients: int, allowed: int) -> None:
    budget = share(clients, allowed)
    assert 1 <= budget.clients <= clients
    assert budget.dedicated >= 1
    assert budget.clients + budget.dedicated <= max(2, allowed - SPARE)
