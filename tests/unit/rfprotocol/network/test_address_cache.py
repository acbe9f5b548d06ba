"""What is known of host names, and when they are looked up."""

from __future__ import annotations

import math

import pytest

from rfprotocol.errors import Failure, NodeUnreachable
from rfprotocol.network.address_cache import (
    GONE,
    HURRY,
    KEPT,
    MEMORY_PATIENCE,
    PATIENCE,
    REFRESH,
    STALE,
    AddressCache,
    News,
    is_address,
)

A, B, C = "10.0.0.1", "10.0.0.2", "fd00::3"


def known(*addresses: str) -> AddressCache:
    """One that looked up `db` at 0."""
    cache = AddressCache()
    cache.follow("me", ["db"], 0.0)
    assert cache.begin(0.0) == ["db"]
    cache.found("db", addresses, 0.0)
    return cache


@pytest.mark.parametrize("host", ["10.0.0.1", "::1", "fe80::1%eth0"])
def test_address__followed__never_looked_up(host: str) -> None:
    cache = AddressCache()
    cache.follow("me", [host], 0.0)
    assert is_address(host)
    assert cache.begin(0.0) == []
    assert cache.next_due() == math.inf
    assert cache.knows(host, 0.0)


def test_followed_name__before_it_is_needed__looked_up_and_again_every_few_seconds() -> None:
    cache = known(A)
    assert cache.begin(REFRESH - 0.01) == []
    assert cache.next_due() == REFRESH
    assert cache.begin(REFRESH) == ["db"]
    assert cache.begin(2 * REFRESH) == [], "one is under way"
    assert REFRESH < 2.0, "what has moved is followed within 2 s"


def test_slow_look_up__addresses_known__used_at_once() -> None:
    cache = known(A)
    cache.begin(REFRESH)
    assert cache.find("db", REFRESH + 1000.0) == (A,)


def test_failing_look_up__addresses_known__used_for_a_day() -> None:
    cache = known(A)
    now = 0.0
    for now in (1000.0, STALE):
        assert cache.begin(now) == ["db"]
        cache.failed("db", "Temporary failure in name resolution", now, unknown=False)
        assert cache.find("db", now) == (A,)
    with pytest.raises(NodeUnreachable, match="its name cannot be looked up: Temporary failure") as refused:
        cache.find("db", STALE + 1.0)
    assert refused.value.reason is Failure.UNRESOLVED


def test_name_that_is_gone__addresses_known__used_for_a_minute() -> None:
    cache = known(A)
    for now in (10.0, 20.0):
        cache.begin(now)
        cache.failed("db", "Name or service not known", now, unknown=True)
    assert cache.find("db", 10.0 + GONE) == (A,)
    with pytest.raises(NodeUnreachable, match="Name or service not known"):
        cache.find("db", 10.1 + GONE)
    assert not cache.knows("db", 10.1 + GONE)


def test_name_that_was_gone__service_then_fails__counts_anew() -> None:
    cache = known(A)
    cache.begin(10.0)
    cache.failed("db", "Name or service not known", 10.0, unknown=True)
    cache.begin(20.0)
    cache.failed("db", "Temporary failure", 20.0, unknown=False)
    assert cache.find("db", 11.0 + GONE) == (A,)


def test_first_look_up__slow__waited_for_and_no_longer_than_that() -> None:
    cache = AddressCache()
    assert cache.find("db", 0.0) == ()
    assert cache.patience("db", 1.0) == PATIENCE - 1.0
    assert cache.begin(0.0) == ["db"]
    assert cache.find("db", PATIENCE - 0.1) == ()
    with pytest.raises(NodeUnreachable, match="has not answered within 5 s"):
        cache.find("db", PATIENCE)
    cache.found("db", [A], PATIENCE + 1.0)
    assert cache.find("db", PATIENCE + 1.0) == (A,)


def test_first_look_up__failed__nobody_waits_for_the_next() -> None:
    cache = AddressCache()
    cache.find("db", 0.0)
    cache.begin(0.0)
    cache.failed("db", "Name or service not known", 0.1, unknown=True)
    with pytest.raises(NodeUnreachable, match="Name or service not known"):
        cache.find("db", 0.2)
    assert cache.begin(HURRY - 0.01) == []
    assert cache.begin(HURRY) == ["db"]


def test_failed_connect__name_looked_up_at_once_but_not_for_each_of_them() -> None:
    cache = known(A)
    cache.hurry("db")
    assert cache.next_due() == HURRY
    assert cache.begin(1.0) == ["db"]
    cache.hurry("db")  # while it is under way: it may bring what was true before
    assert cache.begin(1.2) == []
    cache.found("db", [A], 1.2)
    assert cache.next_due() == 1.0 + HURRY
    assert cache.begin(1.0 + HURRY) == ["db"]
    cache.found("db", [B], 1.6)
    assert cache.next_due() == 1.0 + HURRY + REFRESH
    assert cache.find("db", 1.6) == (B,)


def test_several_addresses__that_which_connected_last_comes_first() -> None:
    cache = known(C, A, B)
    assert cache.find("db", 0.0) == (C, A, B)
    cache.connected("db", A)
    assert cache.find("db", 0.0) == (A, C, B)
    cache.begin(5.0)
    cache.found("db", [B, C], 5.0)
    assert cache.find("db", 5.0) == (B, C)


def test_news__of_each_look_up__says_what_changed() -> None:
    cache = AddressCache()
    cache.follow("me", ["db"], 0.0)
    said = []
    for now, addresses in enumerate([[A, B], [B, A, B], [], [], [A], [C]]):
        cache.begin(now * 10.0)
        if addresses:
            said.append(cache.found("db", addresses, now * 10.0))
        else:
            said.append(cache.failed("db", "why", now * 10.0, unknown=False))
    assert said == [
        News(changed=True),
        News(),
        News(failing=True),
        News(),
        News(recovered=True, changed=True),
        News(changed=True),
    ]
    assert cache.known() == {"db": (C,)}


def test_name_that_nobody_follows__forgotten() -> None:
    cache = known(A)
    cache.find("other", 0.0)
    cache.begin(0.0)
    cache.found("other", [B], 0.0)
    assert cache.begin(KEPT + 1.0) == ["db"]
    assert cache.known() == {"db": (A,)}
    cache.found("db", [A], KEPT + 1.0)
    cache.follow("me", [], KEPT + 1.0)
    assert cache.begin(2 * KEPT + 2.0) == []
    assert cache.known() == {}


def test_name_that_two_follow__one_leaves__followed() -> None:
    cache = known(A)
    cache.follow("other", ["db"], 0.0)
    cache.follow("me", [], 0.0)
    assert cache.begin(KEPT + 1.0) == ["db"]


def test_remembered_addresses__look_up_slow__used_after_a_moment() -> None:
    cache = AddressCache()
    cache.remember({"db": [A]}, 0.0)
    assert cache.find("db", 0.0) == ()
    assert cache.patience("db", 0.0) == MEMORY_PATIENCE
    assert cache.begin(0.0) == ["db"]
    assert cache.find("db", MEMORY_PATIENCE) == (A,)


def test_remembered_addresses__look_up_fails__used_at_once() -> None:
    cache = AddressCache()
    cache.remember({"db": [A]}, 0.0)
    cache.begin(0.0)
    cache.failed("db", "Temporary failure", 0.1, unknown=False)
    assert cache.find("db", 0.1) == (A,)


def test_remembered_addresses__name_known_already__not_used() -> None:
    cache = known(B)
    cache.remember({"db": [A]}, 1.0)
    assert cache.find("db", 1.0) == (B,)
