"""Which histories are what one Redis could have said, and which are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.scenarios.history import END, Fate, Invocation, Kill, Kind, Operation, Outcome, Rule, Verdict, check

SESSIONS = 4
KILL = Kill(at=10, until=12, lag=3)
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
History = list[Operation]
Found = dict[str, str | list[str] | None]
SEQUENCES = [Kind.APPEND, Kind.PUSH]
WRITES = [Kind.INCR, *SEQUENCES]


def op(
    kind: Kind,
    value: str,
    at: float,
    reply: str | int | None = None,
    fate: Fate = Fate.DONE,
    session: int = 0,
    ended: float | None = None,
) -> Operation:
    """Of the key "k", answered half a second after it was sent."""
    outcome = Outcome(fate, at + 0.5 if ended is None else ended, reply)
    return Operation(Invocation(session, kind, "k", value, at), outcome)


def incr(at: float, reply: int | None, fate: Fate = Fate.DONE, session: int = 0) -> Operation:
    return op(Kind.INCR, "", at, reply, fate, session)


def push(value: str, at: float, reply: int | None, fate: Fate = Fate.DONE, session: int = 0) -> Operation:
    return op(Kind.PUSH, value, at, reply, fate, session)


def rules(verdict: Verdict) -> set[Rule]:
    return {violation.rule for violation in verdict.violations}


class Server:
    """One Redis, as simple as can be."""

    def __init__(self) -> None:
        self.register: str | None = None
        self.counter = 0
        self.sequences: dict[Kind, list[str]] = {kind: [] for kind in SEQUENCES}

    def apply(self, kind: Kind, value: str) -> str | int | None:
        match kind:
            case Kind.SET:
                self.register = value
                return None
            case Kind.GET:
                return self.register
            case Kind.INCR:
                self.counter += 1
                return self.counter
        self.sequences[kind].append(value)
        return sum(map(len, self.sequences[kind])) if kind is Kind.APPEND else len(self.sequences[kind])

    def found(self) -> Found:
        return {
            "register": self.register,
            "INCR": str(self.counter) if self.counter else None,
            "APPEND": "".join(self.sequences[Kind.APPEND]) or None,
            "RPUSH": self.sequences[Kind.PUSH],
        }


@st.composite
def simulated(draw: st.DrawFn) -> tuple[History, Found]:
    """Clients that overlap at a correct server; some do not learn what became of a write, some are refused."""
    server, history = Server(), []
    delay = st.floats(0, SESSIONS / 2 - 0.1)
    for moment in range(draw(st.integers(8, 30))):
        kind = draw(st.sampled_from(Kind))
        value = "" if kind in (Kind.GET, Kind.INCR) else f"{moment}{END}"
        fate = draw(st.sampled_from([Fate.DONE, Fate.DONE, Fate.DONE, Fate.UNCERTAIN, Fate.REFUSED]))
        applied = fate is Fate.DONE or (fate is Fate.UNCERTAIN and draw(st.booleans()))
        reply = server.apply(kind, value) if applied else None
        key = "register" if kind in (Kind.SET, Kind.GET) else kind.value
        asked = Invocation(moment % SESSIONS, kind, key, value, moment - draw(delay))
        history.append(Operation(asked, Outcome(fate, moment + draw(delay), reply if fate is Fate.DONE else "error")))
    return history, server.found()


def some(data: st.DataObject, history: History, kinds: list[Kind], fate: Fate = Fate.DONE) -> Operation:
    """One of these operations; the example does not count when there is none."""
    fitting = [o for o in history if o.asked.kind in kinds and o.heard.fate is fate]
    assume(fitting)
    return data.draw(st.sampled_from(fitting))


def changed(found: Found, key: str, values: list[str]) -> Found:
    return {**found, key: values if key == "RPUSH" else "".join(values)}


def values_of(found: Found, key: str) -> list[str]:
    held = found[key]
    return held if isinstance(held, list) else [piece + END for piece in (held or "").split(END)[:-1]]


@FEW
@given(simulated())
def test_a_correct_server_is_not_accused(told: tuple[History, Found]) -> None:
    assert check(*told) == Verdict()


@FEW
@given(simulated(), st.data())
def test_an_acknowledged_write_that_is_missing_is_found(told: tuple[History, Found], data: st.DataObject) -> None:
    history, found = told
    gone = some(data, history, SEQUENCES).asked
    left = [value for value in values_of(found, gone.key) if value != gone.value]
    assert Rule.MISSING in rules(check(history, changed(found, gone.key, left)))


@FEW
@given(simulated(), st.data())
def test_a_write_that_is_there_twice_is_found(told: tuple[History, Found], data: st.DataObject) -> None:
    history, found = told
    twice = some(data, history, SEQUENCES).asked
    assert Rule.TWICE in rules(check(history, changed(found, twice.key, [*values_of(found, twice.key), twice.value])))


@FEW
@given(simulated(), st.data())
def test_a_refused_write_that_is_there_is_found(told: tuple[History, Found], data: st.DataObject) -> None:
    history, found = told
    there = some(data, history, SEQUENCES, Fate.REFUSED).asked
    assert Rule.UNASKED in rules(check(history, changed(found, there.key, [*values_of(found, there.key), there.value])))


@FEW
@given(simulated(), st.data())
def test_two_writes_acknowledged_for_one_place_are_found(told: tuple[History, Found], data: st.DataObject) -> None:
    history, found = told
    one = some(data, history, WRITES)
    other = replace(one, asked=replace(one.asked, session=SESSIONS, value="other" + END if one.asked.value else ""))
    assert Rule.EPOCHS in rules(check([*history, other], found))


@FEW
@given(simulated(), st.data())
def test_a_read_of_something_else_is_found(told: tuple[History, Found], data: st.DataObject) -> None:
    history, found = told
    read = some(data, history, [Kind.GET])
    wrong = replace(read, heard=replace(read.heard, reply="else" + END))
    assert rules(check([wrong if o is read else o for o in history], found)) == {Rule.REGISTER}


@FEW
@given(simulated())
def test_a_register_that_holds_something_else_in_the_end_is_found(told: tuple[History, Found]) -> None:
    history, found = told
    assume(any(o.asked.key == "register" for o in history))
    assert rules(check(history, {**found, "register": "else" + END})) == {Rule.REGISTER}


def test_what_is_not_whole_is_nothing_that_anybody_wrote() -> None:
    history = [op(Kind.APPEND, "a;", 1, 2), op(Kind.APPEND, "b;", 2, 4)]
    assert rules(check(history, {"k": "a;b"})) == {Rule.UNASKED, Rule.MISSING}


@pytest.mark.parametrize(("found", "rule"), [("2", Rule.MISSING), ("4", Rule.TWICE)])
def test_a_counter_holds_what_was_acknowledged(found: str, rule: Rule) -> None:
    history = [incr(at, at) for at in (1, 2, 3)]
    assert check(history, {"k": "3"}) == Verdict()
    assert rules(check(history, {"k": found})) == {rule}


@pytest.mark.parametrize(("found", "rules_"), [("1", set()), ("2", set()), ("3", {Rule.TWICE})])
def test_an_uncertain_write_counts_once_or_never(found: str, rules_: set[Rule]) -> None:
    assert rules(check([incr(1, 1), incr(2, None, Fate.UNCERTAIN)], {"k": found})) == rules_


def test_a_refused_write_does_not_count() -> None:
    assert rules(check([incr(1, 1), incr(2, None, Fate.REFUSED)], {"k": "2"})) == {Rule.TWICE}


def test_replies_tell_the_place() -> None:
    history = [push("a;", 1, 1), push("b;", 1, 3, session=1)]
    assert rules(check(history, {"k": ["a;", "b;"]})) == {Rule.PLACE}


def test_a_write_sent_after_the_reply_to_another_comes_behind_it() -> None:
    assert rules(check([push("a;", 1, 2), push("b;", 2, 1, session=1)], {"k": ["b;", "a;"]})) == {Rule.ORDER}
    assert rules(check([incr(1, 2), incr(2, 1, session=1)], {"k": "2"})) == {Rule.ORDER}


def test_what_a_client_wrote_without_learning_its_fate_comes_before_what_it_wrote_next() -> None:
    first, second = push("a;", 1, None, Fate.UNCERTAIN), push("b;", 2, 1)
    assert rules(check([first, second], {"k": ["b;", "a;"]})) == {Rule.ORDER}
    of_another = replace(second, asked=replace(second.asked, session=1))
    assert check([first, of_another], {"k": ["b;", "a;"]}) == Verdict()


Told = tuple[History, Found]


def lists(sent: float) -> Told:
    """Two were acknowledged, the second one sent at this moment; it is gone, and its place taken after the kill."""
    history = [push("a;", 1, 1), push("b;", sent, 2), push("c;", 13, 2)]
    return history, {"k": ["a;", "c;"]}


def counters(sent: float) -> Told:
    """The same in numbers."""
    return [incr(1, 1), incr(sent, 2), incr(13, 2)], {"k": "2"}


def registers(sent: float) -> Told:
    """The same for a value that was overwritten, and is back."""
    return [op(Kind.SET, "a;", 1), op(Kind.SET, "b;", sent), op(Kind.GET, "", 13, "a;")], {"k": "a;"}


@pytest.mark.parametrize("tell", [lists, counters, registers])
class TestAKill:
    """Loses what it may, and the verdict says how much."""

    def test_what_was_acknowledged_shortly_before_may_be_lost(self, tell: Callable[[float], Told]) -> None:
        assert check(*tell(9), kills=[KILL]) == Verdict(lost={"k": 1})

    @pytest.mark.parametrize("sent", [5, 12.1])
    def test_what_was_acknowledged_long_before_or_after_may_not(
        self, tell: Callable[[float], Told], sent: float
    ) -> None:
        verdict = check(*tell(sent), kills=[KILL])
        assert verdict.violations
        assert verdict.lost == {}

    def test_without_a_kill_nothing_may(self, tell: Callable[[float], Told]) -> None:
        assert check(*tell(9)).violations


def test_a_dead_master_does_not_acknowledge_one_place_twice() -> None:
    history = [incr(1, 1), incr(8, 2), incr(8, 2, session=1)]
    assert rules(check(history, {"k": "2"}, [KILL])) == {Rule.EPOCHS}


def test_a_set_under_way_may_take_effect_twice_if_it_may_be_repeated() -> None:
    again = op(Kind.SET, "a;", 9, ended=20)
    between = [op(Kind.GET, "", 9.2, "a;", session=1), op(Kind.SET, "b;", 13, session=1)]
    history = [again, *between, op(Kind.GET, "", 15, "a;", session=1)]
    assert rules(check(history, {"k": "a;"}, [KILL])) == {Rule.REGISTER}
    assert check(history, {"k": "a;"}, [KILL], repeats=True) == Verdict()
    assert rules(check(history, {"k": "a;"}, repeats=True)) == {Rule.REGISTER}
