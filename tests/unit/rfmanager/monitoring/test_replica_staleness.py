"""How old is what a replica has, told by offsets alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rfmanager.monitoring.replica_staleness import Trail


def trail(*samples: tuple[float, int], window: float = 60.0) -> Trail:
    walked = Trail(window)
    for at, offset in samples:
        walked.passed(at, "one", offset)
    return walked


def test_a_replica_that_has_all_that_is_known_is_not_behind() -> None:
    assert trail((1.0, 100), (2.0, 200)).age(2.1, 200) == 0.0
    assert trail().age(2.1, 0) == 0.0


def test_it_is_behind_since_the_last_moment_at_which_the_master_had_no_more_than_it_has() -> None:
    walked = trail((1.0, 100), (2.0, 200), (3.0, 300))
    assert walked.age(3.5, 250) == 1.5
    assert walked.age(3.5, 100) == 2.5


def test_on_an_idle_master_nobody_falls_behind() -> None:
    assert trail(*((float(second), 100) for second in range(50))).age(49.0, 100) == 0.0


def test_who_has_less_than_anybody_remembers_is_behind_by_more_than_can_be_said() -> None:
    walked = trail(*((float(second), 10 * second) for second in range(20)), window=5.0)
    assert walked.age(19.0, 20) == float("inf")
    assert walked.age(19.0, 150) == 4.0


def test_another_process_begins_another_trail() -> None:
    walked = trail((1.0, 100), (2.0, 200))
    walked.passed(3.0, "two", 500)
    assert walked.age(3.5, 200) == float("inf")
    assert walked.age(3.5, 500) == 0.0


def test_a_sample_that_was_seen_already_changes_nothing() -> None:
    walked = trail((1.0, 100), (2.0, 200), (2.0, 200))
    assert walked.age(2.5, 150) == 1.5


@given(st.lists(st.integers(0, 50), min_size=1, max_size=50), st.data())
def test_it_never_says_less_than_the_truth(steps: list[int], data: st.DataObject) -> None:
    offsets = [sum(steps[: number + 1]) for number in range(len(steps))]
    walked = trail(*((float(second), offset) for second, offset in enumerate(offsets)))
    had = data.draw(st.integers(0, offsets[-1]))
    asked = float(len(offsets))
    lacking = [second for second, offset in enumerate(offsets) if offset > had]  # it lacked something at these moments
    assert walked.age(asked, had) >= (asked - lacking[0] if lacking else 0.0)


def test_lag__is_counted_from_when_the_master_is_known_to_have_had_more() -> None:
    trail = Trail(10.0)
    for asked, offset in ((1.0, 100), (7.0, 200), (8.0, 300)):
        trail.passed(asked, "run", offset)
    assert trail.lag(8.0, 100) == 1.0  # what came in the six seconds before may have come a moment ago
    assert trail.lag(8.0, 50) == 7.0
    assert trail.lag(8.0, 300) == 0.0
    assert Trail(10.0).lag(8.0, 5) == 0.0
