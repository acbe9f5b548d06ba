"""SUBSCRIBE and its kin, and MONITOR: through changes of master, and beside what else is said."""

from __future__ import annotations

import pytest

from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def fail_over(play: Playbook, epoch: int = 2) -> None:
    play.topology(epoch, replicas=["r:1"])
    play.topology(epoch + 1, master="r:1")


def own(play: Playbook, client: FakeClient, command: str, answer: bytes = b"", server: str = "m:1") -> FakeConnection:
    """The client says something that stands on a connection of its own, and is answered."""
    client.says(*command.split())
    return play.server(server).hears(*command.split(), exclusive=True).answers(answer)


def in_resp3(play: Playbook) -> FakeClient:
    """A client that speaks RESP3."""
    client = play.client().says("HELLO", "3")
    for name in ("r:1", "m:1"):
        for connection in play.server(name).live:
            if connection.commands == [[b"HELLO", b"3"]]:
                connection.commands.clear()
                connection.answers(b"%0\r\n")
    client.hears(b"%0\r\n")
    return client


def confirmed(channel: str, count: int, kind: str = "subscribe") -> bytes:
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(x), x.encode()) for x in (kind, channel)) + b":%d\r\n" % count


def push(frame: bytes) -> bytes:
    """The same in RESP3."""
    return b">" + frame[1:]


MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
UNSUBSCRIBED = confirmed("c", 0, "unsubscribe")
PONG = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


def test_messages_reach_the_subscriber_as_they_come(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE c", confirmed("c", 1) + MESSAGE)
    client.hears(confirmed("c", 1) + MESSAGE)


def test_a_message_in_pieces_is_relayed_when_it_is_whole(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "SUBSCRIBE c", confirmed("c", 1) + MESSAGE[:9])
    client.hears(confirmed("c", 1))
    connection.answers(MESSAGE[9:])
    client.hears(MESSAGE)


def test_a_subscription_survives_a_failover_and_is_confirmed_once(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    fail_over(play)
    play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1) + MESSAGE)
    client.hears(MESSAGE)


def test_all_kinds_of_subscriptions_are_restored_on_one_connection(play: Playbook) -> None:
    client = in_resp3(play)
    for number, kind in enumerate(("subscribe", "psubscribe", "ssubscribe"), 1):
        own(play, client, f"{kind.upper()} c", push(confirmed("c", number, kind)))
    client.output = b""
    fail_over(play)
    new = play.server("r:1")
    connections = {new.hears(kind, "c", exclusive=True) for kind in ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE")}
    assert len(connections) == 1
    connections.pop().answers(b"".join(push(confirmed("c", 1, k)) for k in ("subscribe", "psubscribe", "ssubscribe")))
    client.hears_nothing()


def test_a_subscription_that_dies_half_confirmed_is_confirmed_once_for_each_channel(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE a b", confirmed("a", 1))
    fail_over(play)
    new = play.server("r:1")
    connection = new.hears("SUBSCRIBE", "a", exclusive=True).answers(confirmed("a", 1))
    new.hears("SUBSCRIBE", "b", exclusive=True)
    connection.answers(confirmed("b", 2))
    client.hears(confirmed("a", 1) + confirmed("b", 2))


def test_a_session_that_unsubscribed_from_everything_goes_back_to_the_shared_lanes(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.says("UNSUBSCRIBE")
    connection.answers(UNSUBSCRIBED)
    assert connection.closed, "it may have been told things that are not for the next one"
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_unsubscribing_from_nothing_is_confirmed_by_the_server(play: Playbook) -> None:
    client = play.client()
    nothing = b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
    connection = own(play, client, "UNSUBSCRIBE", nothing)
    client.hears(nothing)
    assert connection.closed
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_in_resp3_commands_go_on_beside_the_stream(play: Playbook) -> None:
    client = in_resp3(play)
    connection = own(play, client, "SUBSCRIBE c", push(confirmed("c", 1)))
    client.says("GET", "k")
    play.server("m:1").hears("GET", "k", exclusive=True)
    connection.answers(push(MESSAGE) + b"$1\r\n1\r\n" + push(MESSAGE))
    client.hears(push(confirmed("c", 1)) + push(MESSAGE) + b"$1\r\n1\r\n" + push(MESSAGE))


def test_in_resp3_a_read_beside_the_stream_is_asked_again_and_a_write_is_uncertain(play: Playbook) -> None:
    client = in_resp3(play)
    own(play, client, "SUBSCRIBE c", push(confirmed("c", 1)))
    client.hears(push(confirmed("c", 1)))
    client.pipelines("INCR a", "GET k")
    fail_over(play)
    new = play.server("r:1")
    connection = new.hears("SUBSCRIBE", "c", exclusive=True).answers(push(confirmed("c", 1)))
    client.hears_error("UNCERTAIN INCR")
    new.hears("GET", "k", exclusive=True)
    connection.answers(b"_\r\n")
    client.hears(b"_\r\n")


def test_a_client_that_leaves_takes_its_subscription_along(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "SUBSCRIBE c")
    client.leaves()
    assert connection.closed


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


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("GET k", "ERR Can't execute 'get'"),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("CLIENT ID", "ERR Can't execute 'client|id'"),
        ("CLIENT NOPE", "ERR unknown subcommand 'NOPE'. Try CLIENT HELP."),
        ("NOPE x", "ERR unknown command 'NOPE', with args beginning with: 'x' "),
        ("EXEC", "EXECABORT Transaction discarded because of: Can't execute 'exec'"),
        ("EXEC x", "EXECABORT Transaction discarded because of: wrong number of arguments"),
        ("BLPOP q 0", "ERR Can't execute 'blpop'"),
        ("REPLICAOF NO ONE", "ERR Can't execute 'replicaof'"),
    ],
)
def test_a_subscriber_in_resp2_is_told_what_it_may_not_say(play: Playbook, said: str, heard: str) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    client.says(*said.split()).hears_error(heard)
    play.server("m:1").hears_nothing()


def test_what_a_subscriber_in_resp2_may_and_may_not_say_is_answered_in_order(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    client.pipelines("PING", "GET k", "UNSUBSCRIBE", "GET k")
    play.server("m:1").hears("PING", exclusive=True)
    connection.answers(PONG)
    play.server("m:1").hears("UNSUBSCRIBE", exclusive=True)
    connection.answers(UNSUBSCRIBED)
    play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    refusal = (
        b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
        b"are allowed in this context\r\n"
    )
    client.hears(PONG + refusal + UNSUBSCRIBED + b"$-1\r\n")


def test_a_refused_subscription_leaves_the_session_where_it_was(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE c", b"-NOPERM no\r\n")
    client.hears(b"-NOPERM no\r\n")
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_a_subscription_that_the_next_master_does_not_allow_closes_the_client(play: Playbook) -> None:
    """As Redis does with the connections of a user who may not do any more what they were opened for."""
    client = play.client()
    own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    fail_over(play)
    play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True).answers(b"-NOPERM no\r\n")
    client.hears_nothing()
    assert client.closed


def test_an_unsubscription_in_flight_is_asked_again_after_a_failover(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    client.says("UNSUBSCRIBE", "c")
    fail_over(play)
    connection = play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmed("c", 1))
    play.server("r:1").hears("UNSUBSCRIBE", "c", exclusive=True)
    connection.answers(UNSUBSCRIBED)
    client.hears(UNSUBSCRIBED)


def test_a_subscription_stays_while_the_master_is_drained_and_moves_with_the_master(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1, 2]
    connection.answers(MESSAGE)
    client.hears(MESSAGE)
    play.topology(3, master="r:1", replicas=["m:1"])
    assert connection.closed
    play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True)


def test_what_a_subscriber_says_during_a_planned_change_is_said_once_when_writes_go_on(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.hears(confirmed("c", 1))
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    client.pipelines("PING", "PING x")
    play.server("m:1").hears_nothing()
    play.topology(3, master="m:1", replicas=["r:1"])
    pongs = [PONG, b"*2\r\n$4\r\npong\r\n$1\r\nx\r\n"]
    play.server("m:1").hears("PING", exclusive=True)
    connection.answers(pongs[0])
    play.server("m:1").hears("PING", "x", exclusive=True)
    connection.answers(pongs[1])
    play.server("m:1").hears_nothing()
    client.hears(pongs[0] + pongs[1])


# --- MONITOR

LINE = b'+1700000000.000001 [0 127.0.0.1:1] "PING"\r\n'


def test_monitor_is_confirmed_and_streams_in_both_protocols(play: Playbook) -> None:
    for client in (play.client(), in_resp3(play)):
        own(play, client, "MONITOR", OK + LINE)
        client.hears(OK + LINE)


def test_who_monitors_may_go_on_with_what_touches_no_key(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "MONITOR", OK)
    client.says("PING")
    play.server("m:1").hears("PING", exclusive=True)
    connection.answers(LINE + b"+PONG\r\n" + LINE)
    client.says("GET", "k")
    refusal = b"-ERR Replica can't interact with the keyspace\r\n"
    play.server("m:1").hears("GET", "k", exclusive=True)
    connection.answers(refusal)
    client.hears(OK + LINE + b"+PONG\r\n" + LINE + refusal)


def test_who_monitors_and_subscribes_is_told_of_both(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "MONITOR", OK)
    own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    connection.answers(LINE + MESSAGE)
    client.hears(OK + confirmed("c", 1) + LINE + MESSAGE)
    fail_over(play)
    new = play.server("r:1")
    new.hears("SUBSCRIBE", "c", exclusive=True)
    new.hears("MONITOR", exclusive=True).answers(confirmed("c", 1) + OK + MESSAGE + LINE)
    client.hears(MESSAGE + LINE)


def test_a_subscriber_that_closes_its_side_is_closed(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SUBSCRIBE c", confirmed("c", 1))
    client.session.finish(play.time)
    assert client.closed


def test_to_unsubscribe_is_answered_although_the_client_has_closed_its_side(play: Playbook) -> None:
    client = play.client().pipelines("INCR k", "UNSUBSCRIBE c")
    client.session.finish(play.time)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    play.server("m:1").hears("UNSUBSCRIBE", "c", exclusive=True).answers(UNSUBSCRIBED)
    client.hears(b":1\r\n" + UNSUBSCRIBED)
    assert client.closed
