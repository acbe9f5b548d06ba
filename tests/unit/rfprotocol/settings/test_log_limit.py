"""Repeated lines of the log: a few are written, the rest is counted."""

from __future__ import annotations

import math

from rfprotocol.settings.log_limit import FIRST, MOST_REASONS, WINDOW, LogLimiter, Repeated

REFUSED = {"event": "client_error", "error": "too many clients (max_clients 20)", "client": "a:1"}


def flood(limiter: LogLimiter, lines: int, now: float = 0.0, **fields: object) -> int:
    """Log so many lines; returns how many of them are written."""
    return sum(limiter.admits("warning", {**REFUSED, **fields}, now) for _ in range(lines))


def test_limiter__70037_refusals__six_lines() -> None:
    limiter = LogLimiter()
    assert flood(limiter, 70_037) == FIRST
    assert list(limiter.ended(WINDOW - 0.001)) == []
    assert list(limiter.ended(WINDOW)) == [Repeated("warning", REFUSED, 70_037 - FIRST)]
    assert limiter.left_out == 70_037 - FIRST
    assert list(limiter.ended(math.inf)) == []


def test_limiter__next_window__begins_with_its_first_line() -> None:
    limiter = LogLimiter()
    flood(limiter, FIRST)
    assert limiter.due() == WINDOW
    assert list(limiter.ended(WINDOW)) == []
    assert limiter.due() == math.inf
    assert flood(limiter, FIRST + 1, now=25.0) == FIRST
    assert limiter.due() == 25.0 + WINDOW


def test_limiter__other_reason_or_server__counted_apart() -> None:
    limiter = LogLimiter()
    flood(limiter, 100)
    assert limiter.admits("warning", {**REFUSED, "error": "this is HTTP"}, 0.0)
    assert limiter.admits("warning", {**REFUSED, "event": "masterdown"}, 0.0)
    assert limiter.admits("warning", {**REFUSED, "node": "b:2"}, 0.0)
    assert not limiter.admits("warning", {**REFUSED, "error": "too many clients (max_clients 999)"}, 0.0)
    assert not limiter.admits("warning", {**REFUSED, "client": "b:7"}, 0.0)


def test_limiter__replies_of_servers__are_reasons() -> None:
    """All that is in flight at a master that was demoted is refused."""
    limiter = LogLimiter()
    lines = [{"event": "refused", "reply": "-READONLY You can't write against a read only replica."}] * 1000
    assert sum(limiter.admits("info", line, 0.0) for line in lines) == FIRST


def test_limiter__lines_without_reason_or_client__all_written() -> None:
    limiter = LogLimiter()
    assert all(limiter.admits("info", {"event": "topology", "epoch": epoch}, 0.0) for epoch in range(100))
    assert limiter.due() == math.inf


def test_limiter__reasons_without_end__bounded_lines() -> None:
    """A client can put any words into the reason of a line."""
    limiter = LogLimiter()
    written = sum(flood(limiter, 1, error=f"unknown command '{'x' * n}'") for n in range(10_000))
    assert written <= MOST_REASONS + FIRST
    assert sum(line.lines for line in limiter.ended(WINDOW)) == 10_000 - written


def test_limiter__events_without_end__bounded_memory() -> None:
    limiter = LogLimiter()
    for n in range(5_000):
        flood(limiter, 1, error="e" * (n % 150), event="x" * (n // 150))
    assert len(list(limiter.ended(math.inf))) <= 2_000
    assert flood(limiter, 1) == 1
