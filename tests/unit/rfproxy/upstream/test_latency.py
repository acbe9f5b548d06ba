"""Latency: a replica is slow when none of its replies was quick for a while."""

from __future__ import annotations

from rfproxy.upstream.latency import SLOW, SLOW_FOR, Pace


def test_pace_is_slow_without_quick_reply_for_a_while() -> None:
    pace = Pace()
    assert not pace.replied(SLOW, 1.0)
    assert pace.slow
    assert not pace.replied(SLOW / 2, 1.1)
    assert not pace.slow
    assert not pace.replied(SLOW, 1.2)
    assert pace.replied(SLOW, 1.2 + SLOW_FOR)
