"""Runs: what is left of one after some replies have come."""

from __future__ import annotations

from rfproxy.core.work_items import Form, Need, Run
from tests.support.playbook import Playbook


def run(form: Form, replies: int | None = None) -> Run:
    return Run(Playbook().client().session, [[b"A"], [b"B"], [b"C"]], b"raw", Need.ANY, form, replies)


def test_what_was_answered_is_not_among_what_is_left() -> None:
    half = run(Form.PLAIN)
    half.left -= 2
    assert half.unanswered() == [[b"C"]]


def test_a_block_is_answered_as_a_whole_or_not_at_all() -> None:
    half = run(Form.BLOCK, 5)
    half.left -= 2
    assert half.unanswered() == [[b"A"], [b"B"], [b"C"]]
