import pytest

from rfmanager.monitoring.conditions import meaning, trouble
from rfprotocol.errors import Failure


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_has_words_for_operators(failure: Failure) -> None:
    assert trouble(failure.value) != failure.value


def test_meaning_is_a_sentence_about_the_server() -> None:
    assert meaning("refused") == "it refuses connections: is it running?"
    assert meaning("unresolved").startswith("its name cannot be resolved")


def test_healthy_and_unknown_conditions_have_no_meaning() -> None:
    assert meaning("ok") == meaning("clusterdown") == ""


def test_trouble_of_unknown_condition_is_its_code() -> None:
    assert trouble("clusterdown") == "clusterdown"
