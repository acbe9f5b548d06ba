"""Transactions spread over several packets, while a master refuses, is drained, or is not there for too long."""

from __future__ import annotations

import pytest

from rfproxy.core.policy import Policy
from tests.support.playbook import FakeClient, Playbook
from tests.support.transactions import EXECABORT, NIL, OK, QUEUED, READONLY, asked, fail_over, fence, promote, told


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


# --- the server refuses


def test_what_a_demoted_master_refuses_to_queue_is_queued_on_the_next_one(play: Playbook) -> None:
    client = asked(play, "MULTI", "GET a").says("INCR", "b").says("INCR", "c").says("EXEC")
    told(play, "m:1", "INCR b", "INCR c", "EXEC").answers(READONLY + READONLY + EXECABORT)
    client.hears_nothing()
    fail_over(play)
    told(play, "r:1", "MULTI", "GET a", "INCR b", "INCR c", "EXEC")
    play.server("r:1").lanes[-1].answers(OK + QUEUED + QUEUED + QUEUED + b"*3\r\n$-1\r\n:1\r\n:1\r\n")
    client.hears(QUEUED + QUEUED + b"*3\r\n$-1\r\n:1\r\n:1\r\n")


def test_what_came_in_one_packet_keeps_its_order_when_only_half_of_it_is_refused_yet(play: Playbook) -> None:
    client = asked(play, "MULTI").pipelines("INCR a", "INCR b", "INCR c")
    own = told(play, "m:1", "INCR a", "INCR b", "INCR c").answers(READONLY + READONLY)
    client.hears_nothing()
    own.answers(READONLY)
    fail_over(play)
    told(play, "r:1", "MULTI", "INCR a", "INCR b", "INCR c").answers(OK + QUEUED * 3)
    client.hears(QUEUED * 3)


def test_the_order_is_kept_when_the_connection_dies_behind_a_refusal(play: Playbook) -> None:
    client = asked(play, "MULTI").pipelines("INCR a", "INCR b").says("EXEC")
    told(play, "m:1", "INCR a", "INCR b", "EXEC").answers(READONLY)
    play.server("m:1").dies()
    fail_over(play)
    told(play, "r:1", "MULTI", "INCR a", "INCR b", "EXEC").answers(OK + QUEUED * 2 + b"*2\r\n:1\r\n:1\r\n")
    client.hears(QUEUED * 2 + b"*2\r\n:1\r\n:1\r\n")


def test_an_exec_that_a_demoted_master_refuses_is_sent_to_the_next_one(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a").says("EXEC")
    told(play, "m:1", "EXEC").answers(b"-EXECABORT Transaction discarded because of: " + READONLY[1:])
    client.hears_nothing()
    fail_over(play)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(b"*1\r\n:1\r\n")


def test_behind_watch_it_is_nil(play: Playbook) -> None:
    client = asked(play, "WATCH k", "MULTI", "INCR a").says("EXEC")
    told(play, "m:1", "EXEC").answers(b"-EXECABORT Transaction discarded because of: " + READONLY[1:])
    client.hears(NIL)


def test_behind_watch_what_is_refused_counts_as_queued_and_exec_is_nil(play: Playbook) -> None:
    client = asked(play, "WATCH k", "MULTI").says("INCR", "a").says("EXEC")
    told(play, "m:1", "INCR a", "EXEC").answers(READONLY + EXECABORT)
    client.hears(QUEUED + NIL)
    play.server("m:1").hears_nothing()


def test_a_connection_to_a_demoted_master_is_left(play: Playbook) -> None:
    asked(play, "MULTI").says("INCR", "a")
    assert told(play, "m:1", "INCR a").answers(READONLY).closed


def test_a_master_that_refuses_what_is_to_be_restored_is_asked_again_after_a_rest(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a")
    play.server("m:1").hangs_up()
    play.wait(0.1)
    told(play, "m:1", "MULTI", "INCR a").answers(OK + READONLY)
    client.says("EXEC")
    play.wait(0.1)
    told(play, "m:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(b"*1\r\n:1\r\n")


def test_an_exec_behind_what_could_not_be_restored_is_sent_again(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a")
    fail_over(play)
    client.says("EXEC")
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + READONLY + EXECABORT)
    client.hears_nothing()
    play.wait(0.1)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(b"*1\r\n:1\r\n")


NOREPLICAS = b"-NOREPLICAS Not enough good replicas to write.\r\n"


@pytest.mark.parametrize(
    ("queued", "executed"),
    [(NOREPLICAS, EXECABORT), (QUEUED, b"-EXECABORT Transaction discarded because of: " + NOREPLICAS[1:])],
)
def test_transaction__master_lacks_replicas__queued_again(play: Playbook, queued: bytes, executed: bytes) -> None:
    fail_over(play)
    client = play.client()
    for command in ("MULTI", "INCR a", "EXEC"):
        client.says(*command.split())
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + queued + executed)
    play.wait(0.5)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n:1\r\n")


# --- a planned change


def drain(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))


def test_a_transaction_half_way_does_not_delay_a_planned_change(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a")
    drain(play)
    assert play.acknowledged == [1, 2]
    client.says("EXEC").hears_nothing()
    promote(play)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(b"*1\r\n:1\r\n")


def test_an_exec_in_flight_is_waited_for(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a").says("EXEC")
    own = told(play, "m:1", "EXEC")
    drain(play)
    assert play.acknowledged == [1]
    own.answers(b"*1\r\n:1\r\n")
    client.hears(b"*1\r\n:1\r\n")
    assert play.acknowledged == [1, 2]


def test_commands_that_came_in_between_are_sent_to_the_next_master_in_their_order(play: Playbook) -> None:
    client = play.client().says("MULTI")
    own = told(play, "m:1", "MULTI")
    client.session.feed(b"INCR a\r\n", play.time)
    drain(play)
    client.says("EXEC")
    own.answers(OK)
    promote(play)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n:1\r\n")


def test_exec_behind_watch_is_nil_after_the_change(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    drain(play)
    client.pipelines("MULTI", "SET k 2", "EXEC")
    promote(play)
    client.hears(OK + QUEUED + NIL)


# --- waiting too long


def masterdowns(client: FakeClient) -> int:
    replies, client.output = client.output.splitlines(), b""
    assert all(reply.startswith(b"-MASTERDOWN held for") for reply in replies), replies
    return len(replies)


def test_a_transaction_of_which_a_command_waited_too_long_is_aborted(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a")
    fence(play)
    client.says("INCR", "b").hears_nothing()
    play.wait(31.0)
    assert masterdowns(client) == 1
    promote(play)
    client.says("EXEC").hears(EXECABORT)
    play.server("r:1").hears_nothing()


def test_an_exec_that_waited_too_long_is_over_for_the_client_and_here(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a")
    fence(play)
    client.says("EXEC")
    play.wait(31.0)
    assert masterdowns(client) == 1
    promote(play)
    client.says("INCR", "b")
    play.server("r:1").hears("INCR", "b").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_a_watch_that_waited_too_long_was_never_begun(play: Playbook) -> None:
    fence(play)
    client = play.client().says("WATCH", "k").says("GET", "k")
    play.wait(31.0)
    assert masterdowns(client) == 2
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_a_connection_that_stands_behind_multi_is_closed_when_the_client_is_told_to_wait_no_longer() -> None:
    play = Playbook(Policy(hold_timeout=0.001))
    play.topology(1, master="m:1", replicas=["r:1"])
    client = asked(play, "MULTI")
    own = play.server("m:1").lanes[-1]
    play.router.gate.rest(play.time)
    client.says("INCR", "a")
    play.wait(0.005)
    client.hears_error("MASTERDOWN")
    assert own.closed
    client.says("EXEC").hears(EXECABORT)


def test_a_script_behind_watch_that_makes_up_a_refusal_is_executed_once(play: Playbook) -> None:
    client = play.client().says("WATCH", "w")
    own = play.server("m:1").hears("WATCH", "w", exclusive=True).answers(b"+OK\r\n")
    client.hears(b"+OK\r\n")
    client.says("EVAL", "redis.call('INCR', 'k') return redis.error_reply(ARGV[1])", "0", "...")
    executed = 0
    for _ in range(40):
        play.settle()
        for one in play.server("m:1").live:
            if one.commands and one.commands[0][0] == b"EVAL":
                one.commands.pop(0)
                executed += 1
                one.answers(b"-READONLY You can't write against a read only replica.\r\n")
            elif one.commands and one.commands[0][0] == b"PING":
                one.commands.pop(0)
                one.answers(b"+PONG\r\n")
        play.wait(0.25)
    assert executed == 1
    assert own


def test_an_exec_that_was_executed_behind_a_refused_write_is_not_said_to_be_nil(play: Playbook) -> None:
    client = play.client().says("WATCH", "w")
    own = play.server("m:1").hears("WATCH", "w", exclusive=True).answers(b"+OK\r\n")
    client.hears(b"+OK\r\n")
    client.pipelines("SET a 1", "MULTI", "INCR b", "EXEC")
    own.commands.clear()
    own.answers(b"-LOADING Redis is loading the dataset in memory\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")
    client.hears(b"-LOADING Redis is loading the dataset in memory\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")
    play.wait(1)
    play.server("m:1").hears_nothing()


def test_a_refused_write_behind_watch_is_not_executed_behind_a_later_one(play: Playbook) -> None:
    client = play.client().says("WATCH", "w")
    own = play.server("m:1").hears("WATCH", "w", exclusive=True).answers(OK)
    client.hears(OK)
    client.pipelines("SET k 1", "SET k 2")
    own.commands.clear()
    own.answers(READONLY + OK)
    play.wait(1)
    play.server("m:1").hears_nothing()
    client.hears(READONLY + OK)
