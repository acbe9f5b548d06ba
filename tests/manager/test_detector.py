"""When a server counts as dead, and when not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rfmanager.detector import Detector, Failure, Limits, Verdict
from rfprotocol.topology import Node, NodeReport

NODE = Node("h", 1)
LIMITS = Limits()
SAMPLE = NodeReport(NODE, available=True, role="master", run_id="r", offset=5)


def available(now: float = 0.0) -> Detector:
    detector = Detector(NODE, LIMITS, now)
    assert detector.answered(now, now, SAMPLE)
    return detector


def test_a_server_that_was_never_probed_has_no_report_and_is_probed_at_once() -> None:
    detector = Detector(NODE, LIMITS, now=7.0)
    assert detector.report is None
    assert detector.next_probe == 7.0


def test_a_server_that_answers_is_available_and_probed_again_after_the_interval() -> None:
    detector = available(now=1.0)
    assert detector.report == SAMPLE
    assert detector.next_probe == 1.0 + LIMITS.probe_interval


def test_a_killed_server_is_dead_after_the_third_refusal_tens_of_milliseconds_later() -> None:
    detector = available()
    detector.disconnected(0.1)
    assert detector.next_probe == 0.1
    assert not detector.failed(0.1, Failure.REFUSED)
    assert not detector.failed(detector.next_probe, Failure.REFUSED)
    at = detector.next_probe
    assert detector.failed(at, Failure.REFUSED)
    assert round(at - 0.1, 6) == 2 * LIMITS.reconnect_interval
    assert detector.report is not None
    assert not detector.report.available
    assert detector.report.condition == "refused"


def test_a_closed_connection_is_the_first_sign_of_a_failure() -> None:
    detector = available()
    detector.disconnected(0.1)
    detector.failed(0.2, Failure.REFUSED)
    assert detector.failing_since == 0.1


def test_a_connection_that_was_closed_by_a_server_that_is_well_is_no_sign() -> None:
    detector = available()
    detector.disconnected(0.1)
    detector.answered(0.1, 0.2, SAMPLE)
    assert detector.failing_since is None
    detector.failed(0.3, Failure.REFUSED)
    assert detector.failing_since == 0.3


def test_a_frozen_server_is_dead_after_three_timeouts_that_follow_each_other_at_once() -> None:
    detector = available()
    now = detector.next_probe
    for _ in range(LIMITS.max_failures):
        now = max(now, detector.next_probe) + LIMITS.probe_timeout
        detector.failed(now, Failure.TIMEOUT)
    assert detector.verdict is Verdict.UNAVAILABLE
    assert now <= LIMITS.probe_interval + 3 * LIMITS.probe_timeout


def test_a_slow_answer_in_between_starts_the_count_again() -> None:
    detector = available()
    for at in (1.0, 2.0):
        detector.failed(at, Failure.TIMEOUT)
    detector.answered(2.5, 3.0, SAMPLE)
    for at in (4.0, 5.0):
        detector.failed(at, Failure.TIMEOUT)
    assert detector.verdict is Verdict.AVAILABLE


def test_an_error_is_an_answer_and_what_was_known_stays() -> None:
    detector = available()
    detector.failed(1.0, Failure.REFUSED)
    assert detector.refused(1.1, "BUSY")
    report = detector.report
    assert report is not None
    assert (report.available, report.condition, report.role) == (True, "busy", "master")
    assert not detector.refused(1.2, "BUSY"), "the same again is no news"


def test_the_first_good_answer_makes_a_dead_server_available() -> None:
    detector = available()
    for at in (1.0, 1.1, 1.2):
        detector.failed(at, Failure.REFUSED)
    assert detector.answered(2.0, 2.0, SAMPLE)
    assert detector.verdict is Verdict.AVAILABLE


def test_a_server_that_stays_dead_is_news_once() -> None:
    detector = available()
    news = [detector.failed(at, Failure.REFUSED) for at in (1.0, 1.1, 1.2, 1.3, 1.4)]
    assert news == [False, False, True, False, False]


def test_a_moving_offset_is_no_news_but_another_process_is() -> None:
    detector = available()
    assert not detector.answered(1.0, 1.0, NodeReport(NODE, True, role="master", run_id="r", offset=99, latency=0.1))
    assert detector.answered(2.0, 2.0, NodeReport(NODE, True, role="master", run_id="other"))


def test_a_sample_is_as_old_as_its_question() -> None:
    detector = Detector(NODE, LIMITS, 0.0)
    detector.answered(asked=1.0, now=1.4, sample=SAMPLE)
    assert detector.sampled_at == 1.0


@settings(deadline=None)
@given(st.lists(st.sampled_from(["answer", "error", "refused", "timeout"]), max_size=30))
def test_a_server_is_unavailable_only_after_as_many_failures_in_a_row_as_configured(events: list[str]) -> None:
    detector, row, dead = Detector(NODE, LIMITS, 0.0), 0, False
    for now, event in enumerate(events):
        if event == "answer":
            detector.answered(now, now, SAMPLE)
        elif event == "error":
            detector.refused(now, "LOADING")
        else:
            detector.failed(now, Failure(event))
        row = row + 1 if event in ("refused", "timeout") else 0
        dead = row >= LIMITS.max_failures
        assert (detector.verdict is Verdict.UNAVAILABLE) == dead
        assert detector.next_probe >= now


def test_refusals_are_counted_apart_however_great_the_hurry() -> None:
    detector = Detector(NODE, Limits(reconnect_interval=0.05), 0.0)
    detector.failed(1.0, Failure.REFUSED)
    detector.hurry(1.001)
    assert detector.next_probe == 1.05
    detector.hurry(1.2)
    assert detector.next_probe == 1.05
    detector.failed(1.05, Failure.TIMEOUT)
    assert detector.next_probe == 1.05
