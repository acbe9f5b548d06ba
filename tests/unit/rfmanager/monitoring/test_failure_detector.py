"""When a server counts as dead, and when not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmanager.monitoring.failure_detector import HEARTBEAT, UNLINKED, Detector, Excuse, Limits, Verdict
from rfmanager.settings import ManagerConfig, with_gems_patience
from rfprotocol.errors import Failure
from rfprotocol.topology.topology import Node, NodeReport

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


def condition(detector: Detector) -> str:
    assert detector.report is not None
    return detector.report.condition


def test_detector__host_acknowledges_nothing__is_gone_after_the_bound() -> None:
    detector = available()
    assert not detector.unacknowledged(0.5, 0.4)
    assert detector.unacknowledged(0.9, 0.8)
    assert (detector.verdict, condition(detector)) == (Verdict.UNAVAILABLE, "unreachable")
    assert detector.failing_since == pytest.approx(0.1)  # nothing has come from it since then


def test_detector__acknowledged_again__is_not_gone() -> None:
    detector = available()
    detector.unacknowledged(0.5, 0.4)
    detector.unacknowledged(0.6, 0.0)
    assert not detector.unacknowledged(1.0, 0.4)
    assert detector.verdict is Verdict.AVAILABLE


def test_detector__connections_are_not_accepted__is_gone_after_the_bound() -> None:
    detector = available()
    assert not detector.failed(10.45, Failure.UNREACHABLE, asked=10.0)
    assert detector.next_probe == 10.45
    assert detector.failed(10.9, Failure.UNREACHABLE, asked=10.45)
    assert condition(detector) == "unreachable"


def test_detector__no_route__is_no_refusal() -> None:
    """It is known at once, and may be over a moment later: three in a row prove nothing."""
    detector, now, tries = available(), 10.0, 0
    while not detector.failed(now, Failure.UNREACHABLE, asked=now):
        now, tries = detector.next_probe, tries + 1
    assert tries == pytest.approx(LIMITS.unreachable_timeout / HEARTBEAT, abs=1)


def test_detector__unreachable_longer_than_silence__is_dead_by_silence() -> None:
    detector = Detector(NODE, Limits(unreachable_timeout=60.0), 0.0)
    assert detector.failed(LIMITS.silence, Failure.UNREACHABLE, asked=0.0)


def test_detector__host_is_back_and_process_frozen__is_counted_anew() -> None:
    detector = available()
    detector.failed(10.7, Failure.UNREACHABLE, asked=10.0)
    detector.failed(11.1, Failure.TIMEOUT, asked=10.7)
    assert not detector.failed(11.5, Failure.UNREACHABLE, asked=11.1), "0.4 s are not enough"


def test_detector__name_service_fails__server_gets_as_much_time() -> None:
    detector, now = available(), 10.0
    while not detector.failed(now, Failure.UNRESOLVED, asked=now):
        now = detector.next_probe
    assert now - 10.0 == pytest.approx(2 * LIMITS.probe_timeout)


def silent(detector: Detector, until: float) -> float:
    """Probes from second 1 on that nobody answers; returns when it was taken for dead, or the end."""
    asked = 1.0
    while (now := asked + LIMITS.probe_timeout) <= until:
        if detector.failed(now, Failure.TIMEOUT, asked) and detector.verdict is Verdict.UNAVAILABLE:
            return now
        asked = now
    return until


def test_detector__excused__is_dead_after_the_patience() -> None:
    detector = available()
    detector.unanswered(1.0)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    dead = silent(detector, until=60.0)
    assert LIMITS.busy_patience <= dead - 1.0 <= LIMITS.busy_patience + LIMITS.probe_timeout
    assert condition(detector) == "timeout"
    assert detector.report is not None
    assert detector.report.busy_with == "FLUSHALL"


def test_detector__excused__says_why_and_how_long() -> None:
    detector = available()
    detector.unanswered(1.0)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    assert silent(detector, until=3.0) == 3.0
    report = detector.report
    assert report is not None
    assert (report.available, report.condition, report.busy_with, report.said_by) == (True, "silent", "FLUSHALL", "p1")
    assert report.silent_for + report.patience == pytest.approx(LIMITS.busy_patience)
    assert detector.answered(3.0, 3.0, SAMPLE)
    assert detector.report == SAMPLE


def test_detector__excuse_of_an_earlier_silence__does_not_count() -> None:
    detector = available()
    detector.unanswered(0.2)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    detector.answered(0.9, 0.9, SAMPLE)
    assert not detector.excused
    assert silent(detector, until=60.0) == pytest.approx(1.0 + LIMITS.silence)


def test_detector__excuse_without_silence__is_not_kept() -> None:
    detector = available()
    detector.excuse(Excuse("FLUSHALL", "p1"))
    assert silent(detector, until=60.0) == pytest.approx(1.0 + LIMITS.silence)


@pytest.mark.parametrize("how", [Failure.REFUSED, Failure.CLOSED])
def test_detector__excused_and_refused__is_dead_at_once(how: Failure) -> None:
    detector = available()
    detector.unanswered(1.0)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    now = 1.3
    while not detector.failed(now, how):
        now = detector.next_probe
    assert now - 1.3 == pytest.approx(2 * LIMITS.reconnect_interval)


def test_detector__excused_and_unreachable__is_dead_at_once() -> None:
    detector = available()
    detector.unanswered(1.0)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    assert detector.unacknowledged(1.8, 0.8)


def test_detector__excuse_after_the_verdict__changes_nothing() -> None:
    detector = available()
    dead = silent(detector, until=60.0)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    detector.failed(dead + 0.45, Failure.TIMEOUT, dead)
    assert (detector.verdict, condition(detector)) == (Verdict.UNAVAILABLE, "timeout")


def test_detector__silent_from_the_start_and_excused__has_no_report() -> None:
    detector = Detector(NODE, LIMITS, 0.0)
    detector.unanswered(1.0)
    detector.excuse(Excuse("FLUSHALL", "p1"))
    silent(detector, until=3.0)
    assert detector.report is None


UNLINKED_REPLICA = NodeReport(NODE, available=True, role="slave", run_id="r", offset=5, follows=Node("m", 1))


def seen_at(detector: Detector, now: float, sample: NodeReport) -> tuple[bool, float]:
    """Whether it is news, and for how long there has been no link."""
    news = detector.answered(now, now, sample)
    assert detector.report is not None
    return news, detector.report.unlinked_for


def test_a_replica_without_a_link_is_news_once_it_has_lasted() -> None:
    detector = available()
    assert seen_at(detector, 1.0, UNLINKED_REPLICA) == (True, 0.0)
    assert seen_at(detector, 9.0, UNLINKED_REPLICA) == (False, 8.0)
    assert seen_at(detector, 1.0 + UNLINKED, UNLINKED_REPLICA) == (True, UNLINKED)
    assert seen_at(detector, 20.0, UNLINKED_REPLICA) == (False, 19.0)
    assert seen_at(detector, 21.0, replace(UNLINKED_REPLICA, link_up=True)) == (True, 0.0)
    assert seen_at(detector, 22.0, UNLINKED_REPLICA)[1] == 0.0


@pytest.mark.parametrize("sample", [replace(UNLINKED_REPLICA, syncing=True), replace(UNLINKED_REPLICA, follows=None)])
def test_a_replica_that_copies_or_was_detached_lacks_no_link(sample: NodeReport) -> None:
    detector = available()
    assert [seen_at(detector, now, sample)[1] for now in (1.0, 60.0)] == [0.0, 0.0]


def test_a_replica_that_is_gone_lacks_no_link_and_counts_anew_when_it_is_back() -> None:
    detector = available()
    seen_at(detector, 1.0, UNLINKED_REPLICA)
    seen_at(detector, 12.0, UNLINKED_REPLICA)
    for _ in range(LIMITS.max_failures):
        detector.failed(12.1, Failure.REFUSED)
    assert detector.report is not None
    assert (detector.report.available, detector.report.unlinked_for) == (False, 0.0)
    assert seen_at(detector, 30.0, UNLINKED_REPLICA)[1] == 0.0


def test_a_silence_began_with_the_first_probe_that_was_not_answered() -> None:
    """Receipts say how long it took from then on: clients have waited since."""
    detector = available()
    detector.failed(0.7, Failure.TIMEOUT, asked=0.25)
    detector.failed(1.15, Failure.TIMEOUT, asked=0.7)
    assert detector.failing_since == 0.25


GEMS = with_gems_patience(ManagerConfig(max_failures=3))[0].limits


@pytest.mark.parametrize("limits", [LIMITS, GEMS, replace(LIMITS, reconnect_interval=2.0), Limits(max_failures=1)])
def test_limits__refused_or_silent__found_out_within_the_longest_time(limits: Limits) -> None:
    """The primary manager waits for so long before it believes that another one sees a server better."""
    for how, lasts in ((Failure.REFUSED, 0.0), (Failure.TIMEOUT, limits.probe_timeout)):
        detector = Detector(NODE, limits, 0.0)
        detector.answered(0.0, 0.0, SAMPLE)
        while detector.verdict is Verdict.AVAILABLE:
            asked = detector.next_probe
            detector.failed(asked + lasts, how, asked)
        assert asked + lasts == pytest.approx(limits.probe_interval + (limits.silence if lasts else limits.refusal))
        assert asked + lasts <= limits.longest + 1e-9


def test_gems_patience__a_server_that_is_busy_with_a_command__has_the_longer_of_both_times() -> None:
    for busy, until in ((5.0, 21.0), (28.0, 28.0)):
        detector = Detector(NODE, replace(GEMS, busy_patience=busy), 0.0)
        detector.answered(0.0, 0.0, SAMPLE)
        asked = silent = detector.next_probe
        detector.unanswered(asked)
        detector.excuse(Excuse("FLUSHALL", "p"))
        detector.failed(asked + GEMS.probe_timeout, Failure.TIMEOUT, asked)
        while detector.verdict is Verdict.AVAILABLE:
            asked = detector.next_probe
            detector.failed(asked + GEMS.probe_timeout, Failure.TIMEOUT, asked)
        assert asked + GEMS.probe_timeout - silent == until


def test_gems_patience__a_silent_server_that_answers_the_third_time__has_never_been_down() -> None:
    detector = Detector(NODE, GEMS, 0.0)
    detector.answered(0.0, 0.0, SAMPLE)
    for _ in range(2):
        asked = detector.next_probe
        assert not detector.failed(asked + GEMS.probe_timeout, Failure.TIMEOUT, asked)
    assert not detector.answered(detector.next_probe, detector.next_probe + 4.9, SAMPLE)
    assert detector.verdict is Verdict.AVAILABLE


def test_gems_patience__timers_that_end_too_soon__cost_no_probe_more() -> None:
    detector = Detector(NODE, GEMS, 0.0)
    for number in (1, 2, 3):
        asked = detector.next_probe
        assert detector.failed(asked + GEMS.probe_timeout - 0.001, Failure.UNREACHABLE, asked) is (number == 3)


def test_gems_patience__a_host_that_is_gone__is_known_by_probes_and_by_beats_at_the_same_time() -> None:
    for by_beats in (True, False):
        detector = Detector(NODE, GEMS, 0.0)
        detector.answered(0.0, 0.0, SAMPLE)
        asked = gone = detector.next_probe
        while detector.verdict is Verdict.AVAILABLE:
            now = asked + (HEARTBEAT if by_beats else GEMS.probe_timeout)
            if by_beats:
                detector.unacknowledged(now, now - gone)
            else:
                detector.failed(now, Failure.UNREACHABLE, asked)
            asked = now
        assert asked - gone == pytest.approx(21.0, abs=HEARTBEAT + 1e-6)
