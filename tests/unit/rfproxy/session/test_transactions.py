"""WATCH, MULTI, EXEC on a connection of one's own, and what becomes of them when it is lost.

Transactions that come in one packet travel otherwise: see `test_relaying`. Refusals, planned changes and long waits
are in tests/interleavings/test_transactions.py.
"""

from __future__ import annotations

import pytest

from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy
from rfproxy.upstream.durable_connection import told_of_exec
from tests.support.playbook import Playbook
from tests.support.transactions import (
    EXECABORT,
    LOADING,
    NIL,
    NO_ARGUMENTS,
    OK,
    QUEUED,
    READONLY,
    asked,
    fail_over,
    fence,
    promote,
    told,
)


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


# --- as on a plain connection


def test_every_command_goes_to_the_server_as_it_comes(play: Playbook) -> None:
    client = asked(play, "MULTI", "SET k 1")
    client.says("EXEC")
    told(play, "m:1", "EXEC").answers(b"*1\r\n+OK\r\n")
    client.hears(b"*1\r\n+OK\r\n")


def test_reads_behind_watch_go_to_the_server_that_watches(play: Playbook) -> None:
    client = asked(play, "WATCH k").says("GET", "k")
    told(play, "m:1", "GET k").answers(b"$1\r\n1\r\n")
    client.hears(b"$1\r\n1\r\n")


def test_nobody_else_uses_the_connection_meanwhile(play: Playbook) -> None:
    asked(play, "MULTI")
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


@pytest.mark.parametrize("end", ["EXEC", "DISCARD"])
def test_when_it_is_over_the_session_goes_back_to_the_shared_connections(play: Playbook, end: str) -> None:
    client = asked(play, "MULTI").says(end)
    own = told(play, "m:1", end).answers(OK)
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k") is not own
    play.client().says("WATCH", "j")
    assert told(play, "m:1", "WATCH j") is own, "it was left as it was found"


def test_unwatch_ends_a_watch(play: Playbook) -> None:
    client = asked(play, "WATCH k", "UNWATCH")
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_commands_behind_exec_wait_for_its_reply(play: Playbook) -> None:
    client = asked(play, "MULTI").says("EXEC").says("INCR", "k")
    told(play, "m:1", "EXEC").answers(b"*0\r\n")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b"*0\r\n:1\r\n")


def test_nested_multi_and_watch_do_not_end_it(play: Playbook) -> None:
    client = asked(play, "MULTI").says("MULTI").says("WATCH", "k")
    errors = b"-ERR MULTI calls can not be nested\r\n-ERR WATCH inside MULTI is not allowed\r\n"
    told(play, "m:1", "MULTI", "WATCH k").answers(errors)
    client.hears(errors)
    client.says("EXEC")
    told(play, "m:1", "EXEC")


def test_exec_with_arguments_ends_it_and_unwatches(play: Playbook) -> None:
    client = asked(play, "WATCH k", "MULTI").says("EXEC", "x")
    error = b"-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n"
    told(play, "m:1", "EXEC x").answers(error)
    client.hears(error)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_what_is_said_behind_multi_is_queued_even_if_a_watch_before_it_was_refused(play: Playbook) -> None:
    client = play.client().says("WATCH").says("MULTI")
    refused = b"-ERR wrong number of arguments for 'watch' command\r\n"
    told(play, "m:1", "WATCH", "MULTI").answers(refused + OK)
    client.hears(refused + OK)
    client.says("INCR", "k")
    told(play, "m:1", "INCR k").answers(QUEUED)
    client.hears(QUEUED)


def test_a_watch_that_the_server_denies_ties_nobody(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    own = told(play, "m:1", "WATCH k").answers(b"-NOPERM no\r\n")
    client.hears(b"-NOPERM no\r\n")
    assert own.closed, "who knows what state it is in"
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_a_discard_that_the_server_refuses_ends_nothing(play: Playbook) -> None:
    client = asked(play, "MULTI").says("DISCARD", "x")
    refused = b"-ERR wrong number of arguments for 'discard' command\r\n"
    told(play, "m:1", "DISCARD x").answers(refused)
    client.hears(refused)
    client.says("INCR", "k")
    told(play, "m:1", "INCR k").answers(QUEUED)
    client.hears(QUEUED)


def test_reset_ends_it(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR k").says("RESET")
    client.hears(b"+RESET\r\n")
    client.says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


def test_a_client_that_leaves_takes_its_connection_along(play: Playbook) -> None:
    client = play.client().says("MULTI")
    own = told(play, "m:1", "MULTI")
    client.leaves()
    assert own.closed


# --- what the proxy has a say in


def test_what_the_proxy_answers_for_the_server_is_put_right_in_the_reply_to_exec(play: Playbook) -> None:
    client = asked(play, "MULTI", "CLIENT ID", "UNWATCH", "SELECT 0").says("EXEC")
    told(play, "m:1", "EXEC").answers(b"*3\r\n:7000\r\n+OK\r\n+OK\r\n")
    client.hears(b"*3\r\n:%d\r\n+OK\r\n+OK\r\n" % client.session.number)


def test_a_cursor_goes_in_and_out_of_a_transaction_marked(play: Playbook) -> None:
    client = asked(play, "MULTI", "SCAN 0").says("EXEC")
    told(play, "m:1", "EXEC").answers(b"*1\r\n*2\r\n$2\r\n17\r\n*0\r\n")
    reply, client.output = client.output, b""
    assert b"$2\r\n17\r\n" not in reply
    cursor = reply.split(b"\r\n")[3].decode()
    client.says("MULTI").says("SCAN", cursor)
    told(play, "m:1", "MULTI", "SCAN 17")


SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"


def test_a_subscription_takes_effect_with_exec(play: Playbook) -> None:
    client = asked(play, "MULTI", "SUBSCRIBE c").says("EXEC")
    told(play, "m:1", "EXEC").answers(b"*1\r\n" + SUBSCRIBED + MESSAGE)
    client.hears(b"*1\r\n" + SUBSCRIBED + MESSAGE)
    fail_over(play)
    told(play, "r:1", "SUBSCRIBE c").answers(SUBSCRIBED + MESSAGE)
    client.hears(MESSAGE)


def test_so_does_one_that_was_queued_before_a_failover(play: Playbook) -> None:
    client = asked(play, "MULTI", "SUBSCRIBE c")
    fail_over(play)
    told(play, "r:1", "MULTI", "SUBSCRIBE c").answers(OK + QUEUED)
    client.says("EXEC")
    told(play, "r:1", "EXEC").answers(b"*1\r\n" + SUBSCRIBED + MESSAGE)
    client.hears(b"*1\r\n" + SUBSCRIBED + MESSAGE)


def test_an_unsubscription_behind_multi_does_no_harm(play: Playbook) -> None:
    client = asked(play, "MULTI", "UNSUBSCRIBE c").says("EXEC")
    reply = b"*1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"
    told(play, "m:1", "EXEC").answers(reply)
    client.hears(reply)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_what_the_proxy_refuses_makes_the_server_abort_the_transaction(play: Playbook) -> None:
    client = asked(play, "MULTI").says("CLIENT", "KILL", "ID", "1")
    told(play, "m:1", "GET").answers(NO_ARGUMENTS)
    assert "CLIENT KILL inside MULTI" in client.hears_error("ERR")
    client.says("EXEC")
    told(play, "m:1", "EXEC").answers(EXECABORT)
    client.hears(EXECABORT)


def test_what_the_proxy_refuses_stays_refused_on_the_next_master(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a").says("CLIENT", "KILL", "ID", "1").says("EXEC")
    told(play, "m:1", "GET", "EXEC")
    fail_over(play)
    replies = client.output.splitlines(keepends=True)
    assert replies[0].startswith(b"-ERR CLIENT KILL inside MULTI")
    assert replies[1:] == [EXECABORT]
    play.server("r:1").hears_nothing()


def test_a_change_of_database_behind_watch_is_made_on_the_same_connection(play: Playbook) -> None:
    client = asked(play, "WATCH k", "SELECT 3", "MULTI")
    client.says("SET", "k", "v")
    told(play, "m:1", "SET k v")


# --- the connection is lost, with nothing watched


def test_what_was_queued_is_queued_again_on_the_next_master(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a", "INCR b")
    fail_over(play)
    told(play, "r:1", "MULTI", "INCR a", "INCR b").answers(OK + QUEUED + QUEUED)
    client.hears_nothing()
    client.says("EXEC")
    told(play, "r:1", "EXEC").answers(b"*2\r\n:1\r\n:1\r\n")
    client.hears(b"*2\r\n:1\r\n:1\r\n")


def test_a_client_that_says_nothing_loses_nothing_however_long_there_is_no_master(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a")
    fence(play)
    play.wait(100.0)
    promote(play)
    told(play, "r:1", "MULTI", "INCR a").answers(OK + QUEUED)
    client.says("EXEC")
    told(play, "r:1", "EXEC")


def test_what_was_sent_and_not_answered_counts_as_queued(play: Playbook) -> None:
    client = play.client().says("MULTI").says("INCR", "a")
    told(play, "m:1", "MULTI", "INCR a")
    fence(play)
    client.hears(OK + QUEUED)
    promote(play)
    told(play, "r:1", "MULTI", "INCR a")


def test_what_was_not_sent_is_sent_later(play: Playbook) -> None:
    play.server("m:1").refuses = True
    client = play.client().says("MULTI").says("INCR", "a").says("EXEC")
    fail_over(play)
    client.hears_nothing()
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n:1\r\n")


@pytest.mark.parametrize("watches", [[], ["WATCH k"]])
def test_an_exec_whose_reply_is_lost_is_uncertain_and_the_transaction_over(play: Playbook, watches: list[str]) -> None:
    client = asked(play, *watches, "MULTI", "INCR a").says("EXEC")
    told(play, "m:1", "EXEC")
    play.server("m:1").dies()
    client.hears_error("UNCERTAIN EXEC may or may not have been applied")
    fail_over(play)
    client.says("INCR", "a")
    play.server("r:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_a_discard_whose_reply_is_lost_has_discarded(play: Playbook) -> None:
    client = asked(play, "MULTI", "INCR a").says("DISCARD")
    fail_over(play)
    client.hears(OK)
    client.says("INCR", "b")
    play.server("r:1").hears("INCR", "b")


def test_an_error_that_the_client_has_heard_aborts_the_transaction_on_any_server(play: Playbook) -> None:
    client = asked(play, "MULTI", "SET k 1").says("GET")
    told(play, "m:1", "GET").answers(NO_ARGUMENTS)
    client.hears(NO_ARGUMENTS)
    fail_over(play)
    client.says("SET", "k", "2").hears(QUEUED)
    client.says("EXEC").hears(EXECABORT)
    play.server("r:1").hears_nothing()


def test_an_exec_that_would_have_been_aborted_is_not_uncertain(play: Playbook) -> None:
    client = asked(play, "MULTI", "SET k 1").says("GET").says("EXEC")
    told(play, "m:1", "GET", "EXEC").answers(NO_ARGUMENTS)
    fail_over(play)
    client.hears(NO_ARGUMENTS + EXECABORT)


def test_scripts_are_there_again_before_the_commands_that_call_them(play: Playbook) -> None:
    client = play.client().says("SCRIPT", "LOAD", "return 1")
    digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
    play.server("m:1").hears("SCRIPT", "LOAD", "return 1", exclusive=True).answers(b"$40\r\n%b\r\n" % digest.encode())
    client.output = b""
    client.says("MULTI").says("EVALSHA", digest, "0")
    play.server("m:1").lanes[-1].answers(OK + QUEUED)
    fail_over(play)
    server = play.server("r:1")
    server.hears("SCRIPT", "LOAD", "return 1", exclusive=True)
    server.hears("MULTI", exclusive=True)
    server.hears("EVALSHA", digest, "0", exclusive=True)


# --- the connection is lost, with keys watched


def test_a_broken_watch_answers_exec_with_nil(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    fail_over(play)
    client.says("MULTI").says("SET", "k", "2").says("EXEC").hears(OK + QUEUED + NIL)
    play.server("r:1").hears_nothing()
    client.says("INCR", "j")
    play.server("r:1").hears("INCR", "j")


def test_in_one_packet_too(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    fail_over(play)
    client.pipelines("MULTI", "SET k 2", "EXEC").hears(OK + QUEUED + NIL)
    play.server("r:1").hears_nothing()


def test_pledge__write_lost_in_front_of_multi__is_not_queued(play: Playbook) -> None:
    """It was sent before MULTI: sent again, it is executed, and answered before MULTI is."""
    client = asked(play, "WATCH k").pipelines("SET a 1", "MULTI")
    told(play, "m:1", "SET a 1", "MULTI")
    play.wait(2.0)  # so that the master did not die of it
    play.server("m:1").dies()
    fail_over(play)
    play.server("r:1").hears("SET", "a", "1", exclusive=True).answers(OK)
    client.says("INCR", "b").says("EXEC").hears(OK + OK + QUEUED + NIL)


def test_pledge__discard_given_back_unsent__ends_nothing_yet() -> None:
    """With durable writes it waits for the reply to MULTI, and a planned change comes first."""
    play = Playbook(Policy(durable=Durability()))
    play.topology(1, master="m:1")
    client = play.client().pipelines("MULTI", "DISCARD")
    own = play.server("m:1").hears("MULTI", exclusive=True)
    play.topology(2, draining=("m:1", "r:1"))
    own.answers(OK)
    promote(play)
    play.server("r:1").hears("MULTI", exclusive=True).answers(OK)
    play.server("r:1").hears("DISCARD", exclusive=True).answers(OK)
    client.hears(OK + OK)


def test_pledge__script_refused_behind_multi__is_queued_anew(play: Playbook) -> None:
    """The script that is loaded before them is refused as well. A question in its place would be queued."""
    client = play.client().says("EVAL", "x", "0")
    told(play, "m:1", "EVAL x 0").answers(b":1\r\n")
    client.hears(b":1\r\n")
    client.pipelines("MULTI", "EVAL x 0")
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    told(play, "m:1", "SCRIPT LOAD x", "MULTI", "EVAL x 0").answers(loading + OK + loading)
    play.wait(0.2)
    told(play, "m:1", "SCRIPT LOAD x", "MULTI", "EVAL x 0").answers(b"$1\r\nx\r\n" + OK + QUEUED)
    client.hears(OK + QUEUED)


def test_nil_is_another_one_in_resp3(play: Playbook) -> None:
    client = asked(play, "WATCH k", "MULTI")
    client.session.identity = client.session.identity.__class__(protocol=3)
    fail_over(play)
    client.says("EXEC").hears(b"_\r\n")


def test_a_watch_broken_behind_multi_answers_exec_with_nil(play: Playbook) -> None:
    client = asked(play, "WATCH k", "MULTI", "SET k 1").says("SET", "k", "2")
    told(play, "m:1", "SET k 2")
    fail_over(play)
    client.hears(QUEUED)
    client.says("EXEC").hears(NIL)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("MULTI", b"-ERR MULTI calls can not be nested\r\n"),
        ("WATCH j", b"-ERR WATCH inside MULTI is not allowed\r\n"),
        ("GET", NO_ARGUMENTS),
        ("GET k", QUEUED),
        ("UNWATCH", QUEUED),
        ("DISCARD", OK),
        ("EXEC x", b"-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n"),
    ],
)
def test_until_then_it_is_answered_in_the_words_of_redis(play: Playbook, command: str, answer: bytes) -> None:
    client = asked(play, "WATCH k", "MULTI")
    fail_over(play)
    client.says(*command.split()).hears(answer)
    play.server("r:1").hears_nothing()


@pytest.mark.parametrize("command", ["EXEC", "DISCARD"])
def test_without_multi_there_is_nothing_to_end(play: Playbook, command: str) -> None:
    client = asked(play, "WATCH k")
    fail_over(play)
    client.says(command).hears(f"-ERR {command} without MULTI\r\n".encode())
    client.says("MULTI").says("EXEC").hears(OK + NIL)


def test_an_error_behind_a_broken_watch_aborts_as_well(play: Playbook) -> None:
    client = asked(play, "WATCH k", "MULTI")
    fail_over(play)
    client.says("GET").says("EXEC").hears(NO_ARGUMENTS + EXECABORT)


def test_unwatch_mends_a_broken_watch(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    fail_over(play)
    client.says("UNWATCH").hears(OK)
    client.pipelines("MULTI", "SET k 2", "EXEC")
    play.server("r:1").hears("MULTI")


def test_other_commands_go_on_beside_a_broken_watch(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    fail_over(play)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$1\r\n1\r\n")
    client.says("CLIENT", "ID")
    play.server("r:1").hears("CLIENT", "ID").answers(b":7000\r\n")
    client.hears(b"$1\r\n1\r\n:%d\r\n" % client.session.number)


def test_a_cursor_is_the_right_one_beside_a_broken_watch(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    fail_over(play)
    client.says("SCAN", "0")
    play.server("r:1").hears("SCAN", "0").answers(b"*2\r\n$2\r\n17\r\n*0\r\n")
    assert b"$2\r\n17\r\n" not in client.output


def test_a_write_between_watch_and_multi_whose_reply_is_lost_is_uncertain(play: Playbook) -> None:
    client = asked(play, "WATCH k").says("INCR", "j")
    told(play, "m:1", "INCR j")
    fail_over(play)
    client.hears_error("UNCERTAIN INCR")


def test_a_read_between_watch_and_multi_whose_reply_is_lost_is_asked_again(play: Playbook) -> None:
    client = asked(play, "WATCH k").says("GET", "k")
    told(play, "m:1", "GET k")
    fail_over(play)
    play.server("r:1").hears("GET", "k").answers(b"$1\r\n1\r\n")
    client.hears(b"$1\r\n1\r\n")


def test_exec_that_could_not_be_sent_with_its_watch_is_not_executed_without_it(play: Playbook) -> None:
    client = asked(play, "WATCH k")
    play.router.gate.rest(play.time)
    client.pipelines("MULTI", "INCR k", "EXEC").hears_nothing()
    play.server("m:1").hangs_up()
    play.wait(1.0)
    client.hears(OK + QUEUED + NIL)
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize("inside", ["SET k 1", "EVAL x 1 k", "FCALL f 1 k", "PUBLISH c m", "MODULE.CMD k"])
def test_pledge__read_refused_transaction_executed__told(play: Playbook, inside: str) -> None:
    """It was loading when it was asked, and has loaded since: what EXEC has executed is not answered with nil."""
    client = play.client()
    for command in ("WATCH k", "GET k", "MULTI", inside, "EXEC"):
        client.says(*command.split())
    connection = told(play, "m:1", "WATCH k", "GET k", "MULTI", inside, "EXEC")
    connection.answers(OK + LOADING + OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(OK + LOADING + OK + QUEUED + b"*1\r\n:1\r\n")
    play.wait(1.0)
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize(("later", "reply"), [("PUBLISH c m", b":1\r\n"), ("EVAL x 1 k", b"-ERR half-way\r\n")])
def test_pledge__effect_behind_a_refusal__refusal_stands(play: Playbook, later: str, reply: bytes) -> None:
    client = asked(play, "WATCH k").pipelines("SET a 1", later)
    told(play, "m:1", "SET a 1", later).answers(LOADING + reply)
    client.hears(LOADING + reply)
    play.wait(1.0)
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize("packets", [["MULTI", "INCR k", "EXEC"], ["MULTI\nWATCH k\nINCR k", "EXEC"]])
def test_pledge__multi_while_a_script_is_busy__exec_aborts(play: Playbook, packets: list[str]) -> None:
    """As on Redis, although a busy server greets no new connection."""
    play.server("m:1").denies = {b"ROLE": b"-BUSY Redis is busy running a script.\r\n"}
    client = play.client()
    for packet in packets:
        client.pipelines(*packet.split("\n"))
    nested = b"-ERR WATCH inside MULTI is not allowed\r\n" if len(packets) == 2 else b""
    client.hears(OK + nested + QUEUED + EXECABORT)
    play.server("m:1").denies = {}
    play.wait(1.0)
    play.server("m:1").hears_nothing()
    client.says("PING", "x")
    play.server("r:1").hears("PING", "x").answers(b"$1\r\nx\r\n")
    client.hears(b"$1\r\nx\r\n")


# --- with durable writes


def test_a_write_behind_one_that_was_refused_is_not_acknowledged_when_no_replica_has_it() -> None:
    play = Playbook(Policy(durable=Durability()))
    play.topology(1, master="m:1", replicas=["r:1"])
    client = asked(play, "WATCH k").pipelines("SET a 1", "INCR n")
    connection = told(play, "m:1", "SET a 1", "INCR n", "PING", "WAIT 1 1000")
    connection.answers(READONLY + b":1\r\n+PONG\r\n:0\r\n")
    play.wait(0.1)
    assert client.output.startswith(READONLY + b"-UNCERTAIN INCR was executed by master m:1 but not replicated")


class Unread(bytes):
    """A reply that would take long to look through."""

    def __hash__(self) -> int:
        raise AssertionError("it was looked through")


def test_a_long_reply_to_exec_is_not_looked_through_when_no_write_fell_short(play: Playbook) -> None:
    reply = Unread(b"*1\r\n+OK\r\n")
    assert told_of_exec(None, play.stats, [[b"SET", b"k", b"v"]], reply) is reply
