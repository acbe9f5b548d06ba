"""A repeated write, of which the server that was lost may have executed the first."""

from __future__ import annotations

import pytest

from rfproxy.policy import Policy
from rfproxy.replay import RetryWrites
from tests.proxy.test_relaying import EXECABORT, LOADING, OK, QUEUED, READONLY, fail_over, told
from tests.support.playbook import FakeClient, Playbook


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def lose_a_write(play: Playbook, *commands: str) -> FakeClient:
    """A client whose repeatable write waits for the next master."""
    client = play.client().pipelines(*commands)
    told(play, "m:1", *commands)
    play.server("m:1").dies()
    play.topology(2, replicas=["r:1"])
    client.hears_nothing()
    return client


def test_one_that_waits_too_long_is_uncertain_and_not_called_unsent(play: Playbook) -> None:
    client = lose_a_write(play, "SET k v")
    play.wait(31.0)
    client.hears_error("UNCERTAIN SET may or may not have been applied: master m:1 was lost before it replied")


def test_so_is_one_that_was_refused_meanwhile(play: Playbook) -> None:
    client = lose_a_write(play, "SET k v")
    play.topology(3, master="r:1")
    told(play, "r:1", "SET k v").answers(LOADING)
    play.topology(4)
    play.wait(31.0)
    client.hears_error("UNCERTAIN SET may or may not have been applied: master m:1")


def test_so_is_one_that_was_given_back_unsent_meanwhile(play: Playbook) -> None:
    client = lose_a_write(play, "SET k v")
    play.server("r:1").refuses = True
    play.topology(3, master="r:1")
    play.wait(1.0)
    play.topology(4)
    play.wait(31.0)
    client.hears_error("UNCERTAIN SET may or may not have been applied: master m:1")


def test_one_that_the_next_master_refuses_is_not_executed_behind_a_later_one(play: Playbook) -> None:
    client = lose_a_write(play, "SET k 1", "SET k 2")
    play.topology(3, master="r:1")
    told(play, "r:1", "SET k 1", "SET k 2").answers(LOADING + OK)
    play.wait(1.0)
    play.server("r:1").hears_nothing()
    error = b"-UNCERTAIN SET may or may not have been applied: master m:1 was lost before it replied\r\n"
    client.hears(error + OK)


def test_a_transaction_that_the_next_master_refuses_is_not_executed_behind_a_later_write(play: Playbook) -> None:
    client = lose_a_write(play, "MULTI", "SET k 1", "EXEC", "SET k 2")
    play.topology(3, master="r:1")
    told(play, "r:1", "MULTI", "SET k 1", "EXEC", "SET k 2").answers(OK + LOADING + EXECABORT + OK)
    play.wait(1.0)
    play.server("r:1").hears_nothing()
    error = b"-UNCERTAIN EXEC may or may not have been applied: master m:1 was lost before it replied\r\n"
    client.hears(OK + QUEUED + error + OK)


def test_an_error_of_the_next_master_does_not_say_what_the_first_one_did(play: Playbook) -> None:
    client = lose_a_write(play, "SET k v")
    play.topology(3, master="r:1")
    told(play, "r:1", "SET k v").answers(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n")
    client.hears_error("UNCERTAIN SET may or may not have been applied: master m:1")
    client.says("SET", "k", "v")
    told(play, "r:1", "SET k v").answers(b"-OOM\r\n")
    client.hears(b"-OOM\r\n")


def test_a_read_that_waits_too_long_was_not_executed_and_that_is_all_there_is_to_it(play: Playbook) -> None:
    client = play.client().pipelines("INCR k", "GET k")
    told(play, "m:1", "INCR k", "GET k").answers(b":1\r\n")
    client.hears(b":1\r\n")
    play.server("m:1").dies()
    play.topology(2)
    play.wait(31.0)
    client.hears_error("MASTERDOWN")


@pytest.mark.parametrize("then", ["it waits too long", "it is refused"])
def test_a_transaction_of_repeatable_writes_is_uncertain_as_a_whole(play: Playbook, then: str) -> None:
    commands = ("MULTI", "SET a 1", "SET b 1", "EXEC")
    client = lose_a_write(play, *commands)
    if then == "it is refused":
        play.topology(3, master="r:1")
        told(play, "r:1", *commands).answers(OK + b"-OOM\r\n" * 2 + EXECABORT)
    play.wait(31.0)
    assert client.output.startswith(OK + QUEUED * 2 + b"-UNCERTAIN EXEC")
    assert client.output.count(b"\r\n") == 4


def test_a_repeated_script_that_succeeds_is_no_longer_in_doubt() -> None:
    play = Playbook(Policy(retry_writes=RetryWrites.ALWAYS))
    play.topology(1, master="m:1")
    client = play.client().says("EVAL", "return 1", "0")
    play.server("m:1").hears("EVAL", "return 1", "0", exclusive=True)
    play.server("m:1").dies()
    fail_over(play)
    play.server("r:1").hears("EVAL", "return 1", "0", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")


@pytest.mark.parametrize(
    "error", [b"-ERR wrong number of arguments for 'set' command\r\n", b"-WRONGTYPE Operation against a key\r\n"]
)
def test_what_fails_anywhere_has_failed(play: Playbook, error: bytes) -> None:
    client = lose_a_write(play, "SET k")
    play.topology(3, master="r:1")
    told(play, "r:1", "SET k").answers(error)
    client.hears(error)


@pytest.mark.parametrize("command", ["BLPOP q 0", "BLMOVE a b LEFT LEFT 0", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >"])
@pytest.mark.parametrize("then", ["it waits too long", "it is refused"])
def test_a_blocking_command_may_have_taken_something_from_the_server_that_was_lost(
    play: Playbook, command: str, then: str
) -> None:
    client = play.client().says(*command.split())
    told(play, "m:1", command, exclusive=True)
    play.server("m:1").dies()
    play.topology(2, replicas=["r:1"])
    if then == "it is refused":
        play.topology(3, master="r:1")
        told(play, "r:1", command, exclusive=True).answers(b"-OOM command not allowed\r\n")
    play.wait(31.0)
    client.hears_error(f"UNCERTAIN {command.split(maxsplit=1)[0]}")


def test_a_blocking_read_has_taken_nothing(play: Playbook) -> None:
    client = play.client().says("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
    play.server("m:1").dies()
    play.server("r:1").dies()
    play.topology(2)
    play.wait(31.0)
    client.hears_error("MASTERDOWN")


@pytest.mark.parametrize("then", ["the script made it up", "it is given up"])
def test_a_refusal_that_a_script_may_have_made_up_does_not_say_what_the_first_one_did(then: str) -> None:
    play = Playbook(Policy(retry_writes=RetryWrites.ALWAYS))
    play.topology(1, master="m:1")
    client = play.client().says("EVAL", "x", "0")
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.server("m:1").dies()
    fail_over(play)
    connection = play.server("r:1").hears("EVAL", "x", "0", exclusive=True)
    if then == "it is given up":
        play.server("r:1").denies = {b"ROLE": LOADING}
    connection.answers(READONLY)
    play.wait(1.0)
    if then == "it is given up":
        play.topology(4)
        play.wait(31.0)
    else:
        play.server("r:1").hears("PING", exclusive=True).answers(b"+PONG\r\n")
    client.hears_error("UNCERTAIN EVAL")
