"""Who is started, who is let go, and how long it takes until somebody who ended is replaced."""

from __future__ import annotations

import pytest

from rfprotocol.backoff import JITTER
from rfproxy.process.worker_slots import FIRST_PAUSE, LONGEST_PAUSE, STEADY, Crew, Succession


def staffed(crew: Crew, *pids: int, now: float = 0.0) -> Crew:
    """The same with a worker in each vacancy, ready."""
    for number, pid in zip(crew.vacancies(now), pids, strict=True):
        crew.started(number, pid, now)
        crew.serves(pid)
    return crew


def test_all_places_are_filled_at_once() -> None:
    crew = Crew(3)
    assert crew.vacancies(0.0) == [0, 1, 2]
    crew.started(1, 11, 0.0)
    assert crew.vacancies(0.0) == [0, 2]
    assert crew.pids == {11}


def test_one_that_ends_is_replaced_in_its_place_and_the_others_stay() -> None:
    crew = staffed(Crew(2), 10, 11)
    assert crew.ended(10, 100.0) == 0
    assert crew.vacancies(100.0) == [0]
    assert crew.pids == {11}
    assert crew.released() == set()


def test_one_that_ends_again_and_again_is_replaced_later_and_later_but_for_ever() -> None:
    crew = Crew(2)
    crew.started(1, 99, 0.0)
    now, pauses = 0.0, []
    for pid in range(10, 20):
        assert crew.vacancies(now) == [0]
        crew.started(0, pid, now)
        pause = crew.ended(pid, now)
        assert pause is not None
        pauses.append(pause)
        assert crew.vacancies(now) == ([] if pause else [0])
        assert crew.next_due(now) == pytest.approx(pause)
        now += pause
    doubled = [min(FIRST_PAUSE * 2**n, LONGEST_PAUSE) for n in range(9)]
    assert pauses[0] == 0
    for pause, longest in zip(pauses[1:], doubled, strict=True):
        assert longest * (1 - JITTER) - 1e-9 <= pause <= longest + 1e-9


def test_one_that_ends_after_a_long_time_is_replaced_at_once() -> None:
    crew = Crew(1)
    for pid, now in ((10, 0.0), (11, 0.0), (12, 1.0)):
        crew.started(0, pid, now)
        crew.ended(pid, now)
    crew.started(0, 13, 2.0)
    assert crew.ended(13, 2.0 + STEADY) == 0


def test_nothing_is_due_while_everybody_works() -> None:
    assert staffed(Crew(2), 10, 11).next_due(5.0) is None


def test_former_workers_stay_until_all_new_ones_serve_and_are_let_go_once() -> None:
    crew = Crew(2, formers=(1, 2, 3))
    for number, pid in enumerate((10, 11)):
        crew.started(number, pid, 0.0)
    crew.serves(10)
    assert crew.released() == set()
    crew.serves(11)
    assert crew.released() == {1, 2, 3}
    assert crew.released() == set()
    assert crew.pids == {1, 2, 3, 10, 11}


def test_former_workers_stay_when_the_new_ones_die_instead_of_serving() -> None:
    crew = Crew(1, formers=(1,))
    for pid in (10, 11, 12):
        crew.started(0, pid, 0.0)
        crew.ended(pid, 0.0)
        assert crew.released() == set()


def test_new_workers_relieve_former_ones_that_still_serve() -> None:
    assert not Crew(1).relieves
    assert not Crew(1, [7], Succession.ONE_AFTER_ANOTHER).relieves
    crew = Crew(1, [7])
    assert crew.relieves
    crew.ended(7, 0.0)
    assert not crew.relieves


def test_former_workers_are_not_replaced() -> None:
    crew = staffed(Crew(1, formers=(1, 2)), 10)
    assert crew.ended(1, 0.0) is None
    crew.released()
    assert crew.ended(2, 0.0) is None
    assert crew.vacancies(0.0) == []
    assert crew.pids == {10}


def test_where_only_one_may_decide_the_new_one_starts_when_the_former_one_is_gone() -> None:
    crew = Crew(1, (1,), Succession.ONE_AFTER_ANOTHER)
    assert (crew.vacancies(0.0), crew.next_due(0.0)) == ([], None)
    assert crew.released() == {1}
    assert crew.vacancies(0.0) == []
    crew.ended(1, 5.0)
    assert crew.vacancies(5.0) == [0]


def test_nobody_is_replaced_after_the_dismissal() -> None:
    crew = staffed(Crew(2, formers=(1,)), 10, 11)
    crew.dismiss()
    assert crew.dismissed
    assert crew.pids == {1, 10, 11}
    assert [crew.ended(pid, 0.0) for pid in (1, 10, 11)] == [None, None, None]
    assert not crew.pids
    assert crew.vacancies(0.0) == []


def test_it_is_proven_when_a_worker_has_served_here_or_before_a_reload() -> None:
    crew = Crew(1)
    crew.started(0, 10, 0.0)
    assert not crew.proven
    crew.serves(10)
    assert crew.proven
    assert Crew(1, formers=(1,)).proven


def test_who_ended_meanwhile_or_was_never_known_changes_nothing() -> None:
    crew = staffed(Crew(1), 10)
    crew.serves(77)
    assert crew.ended(77, 0.0) is None
    assert crew.pids == {10}
