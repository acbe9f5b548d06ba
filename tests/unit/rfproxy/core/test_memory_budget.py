"""What all clients hold together stays below a limit, at the expense of those who hold most."""

from __future__ import annotations

import pytest

from rfproxy.core.memory_budget import NOTED, PATIENCE, Budget

MIB = 1 << 20
LIMIT = 80 * MIB


@pytest.fixture
def budget() -> Budget[str]:
    """One of 80 MiB."""
    return Budget(LIMIT)


def moving(budget: Budget[str], now: float = 0.0, **sizes: int) -> None:
    """Clients that wait for answers hold so many MiB."""
    for name, size in sizes.items():
        budget.weigh(name, size * MIB, now)


def stuck(budget: Budget[str], now: float = 0.0, **sizes: int) -> None:
    """Clients that do not read hold so many MiB."""
    for name, size in sizes.items():
        budget.weigh(name, size * MIB, now, unread=size * MIB, stuck=True)


def stopped(budget: Budget[str]) -> set[str]:
    """Who is not read from."""
    return {holder for holder in budget.holders if budget.stops(holder, unfinished=False)}


def close(budget: Budget[str], now: float) -> list[str]:
    """Close whoever is to be closed."""
    closed = []
    for holder in budget.to_close(now):
        closed.append(holder)
        budget.forget(holder, now)
    return closed


def test_budget__little__is_not_counted(budget: Budget[str]) -> None:
    budget.weigh("small", NOTED, 0.0, stuck=True)
    assert (budget.used, budget.holders) == (0, [])
    budget.weigh("small", NOTED + 1, 0.0, unread=1, stuck=True)
    assert (budget.used, budget.unread) == (NOTED + 1, 1)
    budget.weigh("small", 0, 0.0, stuck=True)
    assert (budget.used, budget.unread, budget.holders) == (0, 0, [])


def test_budget__below_the_limit__nobody_is_stopped(budget: Budget[str]) -> None:
    moving(budget, a=79, b=1)
    assert not budget.over
    assert stopped(budget) == set()


def test_budget__above_the_limit__those_with_most_are_stopped(budget: Budget[str]) -> None:
    moving(budget, a=50, b=30, c=2)
    assert stopped(budget) == {"a", "b"}
    assert not budget.stops("a stranger", unfinished=True)
    moving(budget, b=21)
    assert stopped(budget) == {"a"}, "above seven eighths"
    moving(budget, a=47)
    assert stopped(budget) == set()


def test_budget__equal_shares_above_the_limit__all_are_stopped(budget: Budget[str]) -> None:
    moving(budget, a=21, b=21, c=21, d=21)
    assert len(stopped(budget)) == 4


def test_budget__far_above_the_limit__nobody_is_read_from(budget: Budget[str]) -> None:
    moving(budget, a=100)
    assert not budget.full
    moving(budget, b=1)
    assert budget.full
    assert budget.stops("a stranger", unfinished=False)
    moving(budget, a=90)
    assert budget.full, "not yet"
    moving(budget, a=89)
    assert not budget.full


def unfinished(budget: Budget[str], now: float = 0.0, **sizes: int) -> None:
    """Clients have said so many MiB of a command."""
    for name, size in sizes.items():
        budget.weigh(name, size * MIB, now, stuck=True, unfinished=True)


def test_budget__unfinished_commands__end_one_by_one(budget: Budget[str]) -> None:
    unfinished(budget, a=30, b=30, c=28)
    assert [budget.stops(name, unfinished=True) for name in "abc"] == [False, True, True]
    unfinished(budget, a=60)
    assert budget.full
    assert [budget.stops(name, unfinished=True) for name in "abc"] == [False, True, True]
    moving(budget, 9.0, a=60)
    assert budget.stops("a", unfinished=False), "it has finished, and holds most"
    assert not budget.stops("b", unfinished=True)
    assert close(budget, PATIENCE) == [], "they have waited for others"
    assert close(budget, 9.0 + PATIENCE) == ["b"], "the other one has its turn now"


def test_budget__the_first_has_left__the_next_goes_on(budget: Budget[str]) -> None:
    unfinished(budget, a=60, b=30, c=28)
    assert [budget.stops(name, unfinished=True) for name in "ab"] == [False, True]
    budget.forget("a", 0.0)
    assert budget.first is None
    assert not budget.over


def test_budget__who_waits_for_others__is_never_closed(budget: Budget[str]) -> None:
    moving(budget, a=200)
    assert close(budget, 1e6) == []


def test_budget__who_does_not_read__is_closed_in_the_end(budget: Budget[str]) -> None:
    stuck(budget, a=40, b=41)
    assert close(budget, PATIENCE - 0.1) == []
    assert close(budget, PATIENCE) == ["b"], "then there is room again"
    assert close(budget, 1e6) == []


def test_budget__who_reads_some__is_not_closed(budget: Budget[str]) -> None:
    stuck(budget, a=60, b=25)
    for moment in range(1, 10):
        stuck(budget, float(moment), a=60 - moment * 6 // 5)
    stuck(budget, 9.0, b=30)
    assert close(budget, PATIENCE) == ["b"], "the other one holds less than before"


def test_budget__patience_of_one_who_grew_stuck__begins_then(budget: Budget[str]) -> None:
    moving(budget, a=90)
    stuck(budget, 20.0, a=89)
    assert close(budget, 20.0 + PATIENCE - 0.1) == []
    assert close(budget, 20.0 + PATIENCE) == ["a"]


def test_budget__flooded_by_who_does_not_read__closes_at_once(budget: Budget[str]) -> None:
    stuck(budget, a=50, b=30, c=11)
    moving(budget, d=60)
    assert budget.flooded
    assert close(budget, 0.0) == ["a"], "not those who hold less"
    assert not budget.flooded


def test_budget__without_limit__only_counts() -> None:
    budget: Budget[str] = Budget(0)
    stuck(budget, a=100_000)
    assert (budget.used, budget.over, budget.full, budget.flooded) == (100_000 * MIB, False, False, False)
    assert close(budget, 1e6) == []
