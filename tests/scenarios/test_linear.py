"""Which histories of one register have an order, and which have none."""

from __future__ import annotations

import math
from itertools import permutations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.scenarios.linear import Access, Act, Order, Stuck, linearize

FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def write(
    value: str, invoked: float, ended: float = math.inf, *, required: bool = True, losable: bool = False
) -> Access:
    return Access(Act.WRITE, value, invoked, ended, required, losable)


def read(value: str | None, invoked: float, ended: float) -> Access:
    return Access(Act.READ, value, invoked, ended)


def lapse(invoked: float, ended: float) -> Access:
    return Access(Act.LAPSE, None, invoked, ended)


def by_hand(accesses: list[Access]) -> bool:
    """All orders, one after the other."""

    def sensible(order: tuple[Access, ...]) -> bool:
        value = None
        for number, access in enumerate(order):
            if any(later.ended < access.invoked for later in order[number + 1 :]):
                return False
            if access.act is Act.READ and access.value != value:
                return False
            value = access.value
        return True

    optional = [access for access in accesses if not access.required]
    required = [access for access in accesses if access.required]
    chosen = [[o for n, o in enumerate(optional) if mask >> n & 1] for mask in range(1 << len(optional))]
    return any(sensible(order) for some in chosen for order in permutations([*required, *some]))


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    begin = draw(st.integers(0, 8))
    return begin, begin + draw(st.integers(1, 5))


@st.composite
def arbitrary(draw: st.DrawFn) -> list[Access]:
    """Up to six accesses that may make sense or not."""
    accesses = []
    for number in range(draw(st.integers(1, 6))):
        begin, end = draw(spans())
        if draw(st.booleans()):
            accesses.append(read(draw(st.sampled_from([None, "0", "1", "2", "3"])), begin, end))
        else:
            accesses.append(write(str(number), begin, end, required=draw(st.integers(0, 3)) > 0))
    return accesses


@st.composite
def simulated(draw: st.DrawFn) -> list[Access]:
    """What clients of a correct register see: each access takes effect at a moment of its own, some time after it was
    sent and some time before it is answered."""
    value, accesses = None, []
    for moment in range(draw(st.integers(1, 40))):
        begin, end = moment - draw(st.floats(0, 3)), moment + draw(st.floats(0, 3))
        if draw(st.booleans()):
            value = str(moment)
            accesses.append(write(value, begin, end))
        else:
            accesses.append(read(value, begin, end))
    return accesses


@settings(max_examples=200, deadline=None)
@given(arbitrary())
def test_it_finds_an_order_exactly_when_there_is_one(accesses: list[Access]) -> None:
    assert isinstance(linearize(accesses), Order) == by_hand(accesses)


@FEW
@given(simulated())
def test_a_correct_register_is_accepted(accesses: list[Access]) -> None:
    assert linearize(accesses) == Order(0)


@FEW
@given(simulated(), st.data())
def test_a_read_of_what_was_overwritten_before_it_began_is_rejected(
    accesses: list[Access], data: st.DataObject
) -> None:
    writes = [access for access in accesses if access.act is Act.WRITE]
    pairs = [(old, new) for old in writes for new in writes if old.ended < new.invoked]
    assume(pairs)
    old, new = data.draw(st.sampled_from(pairs))
    after = new.ended + 1
    assert isinstance(linearize([*accesses, read(old.value, after, after + 1)]), Stuck)


@FEW
@given(simulated())
def test_a_read_of_what_nobody_wrote_is_rejected(accesses: list[Access]) -> None:
    assert linearize([*accesses, read("nothing", 0, 1)]) == Stuck(read("nothing", 0, 1))


def test_a_register_is_empty_before_the_first_write() -> None:
    assert linearize([read(None, 0, 1), write("a", 2, 3)]) == Order(0)
    assert isinstance(linearize([write("a", 0, 1), read(None, 2, 3)]), Stuck)


def test_readers_agree_on_the_order_of_writes_that_overlap() -> None:
    writes = [write("a", 0, 9), write("b", 0, 9)]
    assert linearize([*writes, read("a", 1, 2), read("b", 3, 4)]) == Order(0)
    assert isinstance(linearize([*writes, read("a", 1, 2), read("b", 3, 4), read("a", 5, 6)]), Stuck)


def test_what_may_have_had_an_effect_may_have_had_it_once_at_any_time_after_it_was_sent() -> None:
    maybe = write("a", 2, required=False)
    assert linearize([maybe, read(None, 3, 4), read("a", 8, 9)]) == Order(0)
    assert linearize([maybe, read(None, 8, 9)]) == Order(0)
    assert isinstance(linearize([maybe, read("a", 0, 1)]), Stuck)
    assert isinstance(linearize([maybe, read("a", 3, 4), write("b", 5, 6), read("b", 7, 8), read("a", 9, 10)]), Stuck)


def test_a_second_effect_comes_before_the_reply_or_never() -> None:
    twice = [write("a", 0, 9), write("a", 0, 9, required=False)]
    between = [read("a", 1, 2), write("b", 3, 4)]
    assert linearize([*twice, *between, read("b", 5, 6), read("a", 7, 8)]) == Order(0)
    assert isinstance(linearize([*twice, *between, read("b", 10, 11), read("a", 12, 13)]), Stuck)


def test_a_lapse_takes_what_can_be_lost_and_tells_how_much() -> None:
    before = [write("a", 0, 1), write("b", 2, 3, losable=True), write("c", 4, 5, losable=True), read("c", 6, 7)]
    for value, lost in (("c", 0), ("b", 1), ("a", 2)):
        assert linearize([*before, lapse(8, 9), read(value, 10, 11)]) == Order(lost)
    assert isinstance(linearize([*before, lapse(8, 9), read(None, 10, 11)]), Stuck)


def test_the_second_time_that_a_write_took_effect_is_no_loss_when_it_is_undone() -> None:
    again = write("a", 0, 9, losable=True, required=False)
    history = [write("a", 0, 1), again, write("b", 2, 3), read("a", 4, 5), lapse(5, 6)]
    assert linearize([*history, read("b", 7, 8)]) == Order(0)


def test_after_a_lapse_what_was_lost_does_not_come_back() -> None:
    before = [write("a", 0, 1), write("b", 2, 3, losable=True), lapse(4, 5)]
    assert isinstance(linearize([*before, read("a", 6, 7), read("b", 8, 9)]), Stuck)


def test_without_a_lapse_nothing_is_lost() -> None:
    assert isinstance(linearize([write("a", 0, 1), write("b", 2, 3, losable=True), read("a", 4, 5)]), Stuck)


def test_as_little_is_lost_as_can_be() -> None:
    overlapping = [write("a", 0, 3, losable=True), write("b", 0, 3, losable=True)]
    assert linearize([*overlapping, lapse(4, 5), read("a", 6, 7)]) == Order(0)


def test_writes_that_nobody_reads_do_not_prolong_the_search() -> None:
    pairs = [write(f"{n}{side}", 10 + n, 10.5 + n, losable=True) for n in range(40) for side in "ab"]
    accesses = [write("kept", 0, 1, losable=True), *pairs, lapse(60, 70), read("kept", 55, 70)]
    assert linearize(accesses, limit=2000) == Order(lost=80)


def test_writes_that_wait_for_long_beside_many_that_are_lost_do_not_prolong_the_search() -> None:
    """A proxy that is cut off with the master goes on for a while; clients of another one wait for the next master."""
    kept = write("kept", -2, -1, losable=True)
    lost = [
        access
        for n in range(50)
        for access in (write(f"{n}", n, n + 0.4, losable=True), read(f"{n}", n + 0.5, n + 0.9))
    ]
    waiting = [write(f"w{n}", 0, 200 + n, losable=True) for n in range(4)]
    answered = [read(f"w{n}", 0, 210 + n) for n in range(4)]
    end = read("kept", 220, 230)
    found = linearize([kept, *lost, *waiting, *answered, lapse(0, 219), end], limit=20_000)
    assert isinstance(found, Order)
    assert found.lost >= 50
    stuck = linearize([kept, *lost, *waiting, *answered, end], limit=20_000)
    assert isinstance(stuck, Stuck)
    assert stuck.decided


def test_a_search_that_takes_too_long_says_that_it_did_not_decide() -> None:
    accesses = [write(str(number), 0, 1) for number in range(20)]
    result = linearize([*accesses, read("nothing", 2, 3)], limit=1000)
    assert isinstance(result, Stuck)
    assert not result.decided
