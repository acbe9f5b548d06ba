"""When a manager may act."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rfmanager.daemon.leadership import TRANSITIONS, Event, State, Tenure
from rfprotocol.store.interface import Fence

FENCE = Fence("/lock/a")


def primary(proved_at: float = 0.0) -> Tenure:
    tenure = Tenure()
    assert tenure.elected(FENCE, session=1)
    tenure.proved(proved_at, session=1, session_timeout=4.0)
    return tenure


def test_an_elected_manager_acts_only_after_its_session_was_proved_alive() -> None:
    tenure = Tenure()
    tenure.elected(FENCE, session=1)
    assert not tenure.covers(0.0)
    tenure.proved(0.0, session=1, session_timeout=4.0)
    assert tenure.covers(0.1)


def test_the_lease_ends_before_the_session_can_and_must_cover_the_whole_action() -> None:
    tenure = primary(proved_at=10.0)
    assert tenure.covers(12.6)
    assert not tenure.covers(12.6, seconds=0.2)
    assert not tenure.covers(12.7)


def test_an_answer_that_comes_late_proves_only_the_time_of_its_question() -> None:
    tenure = primary(proved_at=10.0)
    tenure.proved(9.0, session=1, session_timeout=4.0)
    assert tenure.covers(12.6), "an older proof takes nothing away"


def test_a_proof_of_another_session_proves_nothing() -> None:
    tenure = Tenure()
    tenure.elected(FENCE, session=1)
    tenure.proved(0.0, session=2, session_timeout=4.0)
    assert not tenure.covers(0.1)


def test_cut_off_means_no_action_and_reconnected_in_time_means_action_again() -> None:
    tenure = primary()
    tenure.move(Event.CUT_OFF)
    assert not tenure.covers(0.1)
    tenure.move(Event.RECONNECTED)
    assert tenure.covers(0.1)


def test_a_lost_tenure_needs_a_new_election_and_a_new_proof() -> None:
    tenure = primary()
    assert tenure.move(Event.ENDED)
    assert tenure.state is State.LOST
    assert tenure.fence is None
    assert not tenure.elected(FENCE, session=2), "campaign first"
    tenure.move(Event.CAMPAIGN)
    assert tenure.elected(FENCE, session=2)
    assert not tenure.covers(0.1)


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(Event))))
def test_no_order_of_events_lets_anyone_but_the_primary_act(events: list[Event]) -> None:
    tenure = Tenure()
    for event in events:
        before = tenure.state
        assert tenure.move(event) == (tenure.state is not before)
        assert tenure.state is TRANSITIONS.get((before, event), before)
        tenure.proved(0.0, session=0, session_timeout=4.0)
        assert tenure.covers(0.1) == (tenure.state is State.PRIMARY)
