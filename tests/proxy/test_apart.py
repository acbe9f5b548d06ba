"""Sessions with a connection of their own: WATCH, blocking commands, subscriptions."""

from __future__ import annotations

import pytest

from tests.support.playbook import Playbook

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def fail_over(play: Playbook, epoch: int = 2) -> None:
    play.topology(epoch, replicas=["r:1"])
    play.topology(epoch + 1, master="r:1")


# --- WATCH


def test_a_watch_has_a_connection_of_its_own_until_exec(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    master = play.server("m:1")
    master.hears("WATCH", "k", exclusive=True).answers(OK)
    client.says("GET", "k")
    master.hears("GET", "k", exclusive=True).answers(b"$1\r\n1\r\n")
    client.pipelines("MULTI", "SET k 2", "EXEC")
    master.hears("MULTI", exclusive=True)
    master.hears("SET", "k", "2", exclusive=True)
    master.hears("EXEC", exclusive=True).answers(OK + QUEUED + b"*1\r\n" + OK)
    client.hears(OK + b"$1\r\n1\r\n" + OK + QUEUED + b"*1\r\n" + OK)
    client.says("INCR", "j")
    master.hears("INCR", "j")


def test_a_watch_broken_by_a_failover_answers_exec_with_nil(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    fail_over(play)
    client.pipelines("MULTI", "SET k 2", "EXEC")
    client.hears(OK + OK + QUEUED + b"*-1\r\n")
    play.server("r:1").hears_nothing()
    client.says("INCR", "j")
    play.server("r:1").hears("INCR", "j")


def test_a_watch_broken_behind_multi_answers_exec_with_nil(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    master = play.server("m:1")
    master.hears("WATCH", "k", exclusive=True).answers(OK)
    client.pipelines("MULTI", "SET k 2")
    master.hears("MULTI", exclusive=True).answers(OK + QUEUED)
    fail_over(play)
    client.says("EXEC").hears(OK + OK + QUEUED + b"*-1\r\n")


def test_what_was_unanswered_behind_multi_is_answered_as_queued(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.hears(OK)
    client.pipelines("MULTI", "SET k 2")
    fail_over(play)
    client.hears(OK + QUEUED)
    client.says("EXEC").hears(b"*-1\r\n")


def test_an_exec_behind_watch_whose_reply_is_lost_is_uncertain_and_the_watch_is_over(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.hears(OK)
    client.pipelines("MULTI", "SET k 2", "EXEC")
    play.server("m:1").hears("MULTI", exclusive=True).answers(OK + QUEUED)
    client.hears(OK + QUEUED)
    fail_over(play)
    client.hears_error("UNCERTAIN EXEC")
    client.says("INCR", "j")
    play.server("r:1").hears("INCR", "j")


def test_exec_behind_watch_waits_while_the_master_is_drained_and_is_nil_after_the_change(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.hears(OK)
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    client.pipelines("MULTI", "SET k 2", "EXEC")
    play.topology(3, master="r:1", replicas=["m:1"])
    client.hears(OK + QUEUED + b"*-1\r\n")


def test_unwatch_without_watch_is_answered_at_once(play: Playbook) -> None:
    play.client().says("UNWATCH").hears(OK)


# --- blocking commands


def test_a_blocking_command_holds_up_nobody_else(play: Playbook) -> None:
    blocked = play.client().says("BLPOP", "q", "10")
    other = play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    other.hears(b":1\r\n")
    pop = b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"
    play.server("m:1").hears("BLPOP", "q", "10", exclusive=True).answers(pop)
    blocked.hears(pop)


def test_commands_behind_a_blocking_one_wait_for_it(play: Playbook) -> None:
    client = play.client().pipelines("BLPOP q 10", "INCR k")
    connection = play.server("m:1").hears("BLPOP", "q", "10", exclusive=True)
    play.server("m:1").hears_nothing()
    connection.answers(b"*-1\r\n")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b"*-1\r\n:1\r\n")


def test_the_connection_of_a_blocking_command_is_used_again(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "10")
    first = play.server("m:1").hears("BLPOP", "q", "10", exclusive=True).answers(b"*-1\r\n")
    client.says("BRPOP", "q", "10")
    assert play.server("m:1").hears("BRPOP", "q", "10", exclusive=True) is first


def test_a_blocking_command_is_asked_again_after_a_failover_for_the_time_that_remains(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "10")
    play.server("m:1").hears("BLPOP", "q", "10", exclusive=True)
    play.wait(4.0)
    fail_over(play)
    play.server("r:1").hears("BLPOP", "q", "6.000", exclusive=True).answers(b"*-1\r\n")
    client.hears(b"*-1\r\n")


def test_a_blocking_command_that_a_demotion_unblocks_is_asked_again(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1, 2], "a blocking command does not delay a planned change"
    connection.answers(b"-UNBLOCKED force unblock from blocking operation, instance state changed\r\n")
    play.topology(3, master="r:1", replicas=["m:1"])
    play.server("r:1").hears("BLPOP", "q", "0", exclusive=True)
    client.hears_nothing()


def test_a_client_that_leaves_takes_its_blocking_command_along(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    client.leaves()
    assert connection.closed


def test_wait_counts_from_everything_that_was_written_before_it(play: Playbook) -> None:
    client = play.client().says("WAIT", "1", "100")
    master = play.server("m:1")
    master.hears("PING", exclusive=True)
    master.hears("WAIT", "1", "100", exclusive=True).answers(b"+PONG\r\n:1\r\n")
    client.hears(b":1\r\n")


# --- subscriptions


def confirmed(channel: str, count: int, kind: str = "subscribe") -> bytes:
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(x), x.encode()) for x in (kind, channel)) + b":%d\r\n" % count


MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"


def test_messages_reach_the_subscriber_as_they_come(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True)
    connection.answers(confirmed("c", 1) + MESSAGE)
    client.hears(confirmed("c", 1) + MESSAGE)


def test_a_subscription_survives_a_failover_and_is_confirmed_once(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.hears(confirmed("c", 1))
    fail_over(play)
    play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1) + MESSAGE)
    client.hears(MESSAGE)


def test_a_session_that_unsubscribed_from_everything_goes_back_to_the_shared_lanes(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.says("UNSUBSCRIBE")
    connection.answers(confirmed("c", 0, "unsubscribe"))
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_in_resp3_commands_go_on_beside_the_stream(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.output = b""
    client.says("SUBSCRIBE", "c")
    push = b">" + confirmed("c", 1)[1:]
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(push)
    client.hears(push)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"_\r\n")
    client.hears(b"_\r\n")


def test_unsubscribing_from_nothing_is_confirmed_here(play: Playbook) -> None:
    play.client().says("UNSUBSCRIBE").hears(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n")


def test_a_client_that_leaves_takes_its_subscription_along(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True)
    client.leaves()
    assert connection.closed


# --- connections of one's own end with what they were for, and never carry it on to somebody else


def test_a_blocking_command_that_could_not_be_sent_is_never_sent_on_a_shared_connection(play: Playbook) -> None:
    play.server("m:1").refuses = True
    play.client().says("BLPOP", "q", "0")
    play.server("m:1").refuses = False
    play.wait(1.0)
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)


def test_a_subscription_that_could_not_be_sent_is_sent_once_when_there_is_a_master(play: Playbook) -> None:
    play.server("m:1").refuses = True
    client = play.client().says("SUBSCRIBE", "c")
    play.server("m:1").refuses = False
    play.wait(1.0)
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True)
    play.server("m:1").hears_nothing()
    connection.answers(confirmed("c", 1))
    client.hears(confirmed("c", 1))


def test_reset_behind_subscribe_comes_after_the_confirmation_and_disturbs_nobody(play: Playbook) -> None:
    client = play.client().pipelines("SUBSCRIBE c", "RESET", "INCR k")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(confirmed("c", 1) + b"+RESET\r\n:1\r\n")


def test_quit_behind_subscribe_comes_after_the_confirmation(play: Playbook) -> None:
    client = play.client().pipelines("SUBSCRIBE c", "QUIT")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.hears(confirmed("c", 1) + OK)
    assert client.closed


def test_garbage_behind_subscribe_comes_after_the_confirmation(play: Playbook) -> None:
    client = play.client().sends(b"SUBSCRIBE c\r\n*x\r\n").sends(b"more of it")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.hears(confirmed("c", 1) + b"-ERR Protocol error: invalid multibulk length\r\n")
    assert client.closed


def test_what_is_said_behind_unsubscribe_is_said_on_a_shared_connection(play: Playbook) -> None:
    client = play.client().pipelines("SUBSCRIBE c", "UNSUBSCRIBE c", "MULTI", "SET x 1", "EXEC")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True)
    connection.answers(confirmed("c", 1) + confirmed("c", 0, "unsubscribe"))
    assert connection.closed, "it may have been told things that are not for the next one"
    play.server("m:1").hears("MULTI")
    client.hears(confirmed("c", 1) + confirmed("c", 0, "unsubscribe") + OK + QUEUED)


def test_a_subscriber_in_resp2_is_told_what_it_may_not_say(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.hears(confirmed("c", 1))
    client.pipelines("PING", "GET k")
    connection.commands.clear()
    pong = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    connection.answers(pong)
    client.hears(
        pong
        + b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
        + b"are allowed in this context\r\n"
    )


def test_a_refused_subscription_leaves_the_session_where_it_was(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(b"-NOPERM no\r\n")
    client.hears(b"-NOPERM no\r\n")
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_an_unsubscription_in_flight_is_asked_again_after_a_failover(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.hears(confirmed("c", 1))
    client.says("UNSUBSCRIBE", "c")
    fail_over(play)
    play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True)
    play.server("r:1").hears("UNSUBSCRIBE", "c", exclusive=True).answers(
        confirmed("c", 1) + confirmed("c", 0, "unsubscribe")
    )
    client.hears(confirmed("c", 0, "unsubscribe"))


def test_monitor_is_confirmed_and_streams_in_both_protocols(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.output = b""
    client.says("MONITOR")
    play.server("m:1").hears("MONITOR", exclusive=True).answers(b"+OK\r\n+line\r\n")
    client.hears(b"+OK\r\n+line\r\n")


@pytest.mark.parametrize("command", ["SUBSCRIBE c", "BLPOP q 0", "WATCH k"])
def test_a_client_that_leaves_does_not_make_others_wait(play: Playbook, command: str) -> None:
    client = play.client().pipelines(command)
    client.leaves()
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


@pytest.mark.parametrize("command", ["BLPOP q 0", "SUBSCRIBE c"])
def test_nothing_is_waited_for_on_behalf_of_a_client_that_has_closed_its_side(play: Playbook, command: str) -> None:
    client = play.client().pipelines("INCR k", command)
    client.session.finish(play.time)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")
    assert client.closed
    play.server("m:1").hears_nothing()


def test_exec_that_could_not_be_sent_with_its_watch_is_not_executed_without_it(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.hears(OK)
    client.session.feed(b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n*1\r\n$4\r\nEXEC\r\n", play.time)
    play.router.gate.rest(play.time)
    play.settle()
    client.hears(OK + QUEUED + b"*-1\r\n")
    play.wait(1.0)
    play.server("m:1").hears_nothing()


def test_a_discard_that_the_server_refuses_ends_nothing(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    connection = play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.pipelines("MULTI", "DISCARD x", "SET y 1")
    for command in (["MULTI"], ["DISCARD", "x"], ["SET", "y", "1"]):
        play.server("m:1").hears(*command, exclusive=True)
    connection.answers(OK + b"-ERR wrong number of arguments for 'discard' command\r\n" + QUEUED)
    client.says("EXEC")
    play.server("m:1").hears("EXEC", exclusive=True).answers(b"-EXECABORT Transaction discarded because of x\r\n")
    assert connection.closed, "who knows what state it is in"


def test_what_is_refused_behind_watch_and_multi_aborts_the_transaction(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    connection = play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.says("MULTI")
    play.server("m:1").hears("MULTI", exclusive=True).answers(OK)
    client.hears(OK + OK)
    client.says("SELECT", "1")
    play.server("m:1").hears("GET", exclusive=True)
    connection.answers(b"-ERR wrong number of arguments for 'get' command\r\n")
    assert "SELECT" in client.hears_error("ERR SELECT between WATCH and EXEC")


def test_unused_connections_of_ones_own_are_closed_in_time(play: Playbook) -> None:
    play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True).answers(b"*-1\r\n")
    play.time += 61
    play.router.reap(play.time)
    assert connection.closed


def test_what_a_subscriber_says_during_a_planned_change_is_said_once_when_writes_go_on(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    client.hears(confirmed("c", 1))
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    client.pipelines("PING", "PING x")
    play.server("m:1").hears_nothing()
    play.topology(3, master="m:1", replicas=["r:1"])
    pongs = [b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", b"*2\r\n$4\r\npong\r\n$1\r\nx\r\n"]
    play.server("m:1").hears("PING", exclusive=True)
    connection.answers(pongs[0])
    play.server("m:1").hears("PING", "x", exclusive=True)
    connection.answers(pongs[1])
    play.server("m:1").hears_nothing()
    client.hears(pongs[0] + pongs[1])


def test_what_a_server_refuses_a_session_with_a_broken_watch_is_sent_again(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    play.server("m:1").hears("WATCH", "k", exclusive=True).answers(OK)
    client.hears(OK)
    fail_over(play)
    client.says("INCR", "j")
    play.server("r:1").hears("INCR", "j").answers(b"-READONLY You can't write against a read only replica.\r\n")
    client.hears_nothing()
    play.wait(0.1)
    play.server("r:1").hears("INCR", "j").answers(b":1\r\n")
    client.hears(b":1\r\n")
