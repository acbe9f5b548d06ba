"""The exception tree: what a caller may catch together, and what it must be able to tell apart."""

from __future__ import annotations

import inspect

import pytest

from rfprotocol import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BaseException)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_belongs_to_the_tree_and_is_shown_in_its_drawing(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.RfError)
    assert kind.__name__ in str(errors.__doc__)


def test_that_the_store_says_no_is_not_that_it_cannot_be_reached() -> None:
    for refusal in (errors.StoreConflict, errors.FenceLost):
        assert issubclass(refusal, errors.StoreError)
        assert not issubclass(refusal, errors.StoreUnavailable)


def test_that_a_server_answers_with_an_error_is_not_that_it_cannot_be_reached() -> None:
    assert not issubclass(errors.NodeRefused, errors.NodeUnreachable)
    assert not issubclass(errors.NodeUnreachable, errors.NodeRefused)


def test_a_refusal_keeps_the_first_word_of_the_answer() -> None:
    assert errors.NodeRefused("NOAUTH Authentication required.", "NOAUTH").code == "NOAUTH"
    assert errors.NodeRefused("something").code == "ERR"


def test_a_protocol_error_carries_the_answer_for_the_client() -> None:
    error = errors.ProtocolError("ERR Protocol error: invalid bulk length")
    assert error.reply == str(error) == "ERR Protocol error: invalid bulk length"


def test_node_unreachable__without_a_reason__is_an_error_of_its_own() -> None:
    assert errors.NodeUnreachable("h:1 is away").reason is errors.Failure.ERROR


def test_without_arguments__unknown_command__keeps_its_name() -> None:
    assert errors.without_arguments("ERR unknown command 'AUTH', with args beginning with: 'secret' ") == (
        "ERR unknown command 'AUTH'"
    )
    assert errors.without_arguments("NOAUTH Authentication required.") == "NOAUTH Authentication required."
