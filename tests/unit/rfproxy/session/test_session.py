"""A session: order, splitting of reads and writes, and what becomes of commands when a master is lost."""

from __future__ import annotations

import pytest

from rfprotocol.resp.resp import encode_command
from rfproxy.core.attempts import FATAL
from rfproxy.core.identity import Identity
from rfproxy.core.policy import Policy, Reads, RetryWrites
from rfproxy.session.session import PARSED
from tests.support.playbook import FakeClient, Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    """A master and two replicas; the client under test reads from the first."""
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def test_a_write_goes_to_the_master_and_its_reply_to_the_client(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)


def test_a_read_goes_to_a_replica(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(bulk("v"))
    client.hears(bulk("v"))


def test_reads_go_to_the_master_when_that_is_asked_for() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("GET", "k")
    play.server("m:1").hears("GET", "k")


def test_two_clients_share_a_connection_and_get_their_own_replies(play: Playbook) -> None:
    first = play.client().says("INCR", "a")
    second = play.client().says("INCR", "b")
    master = play.server("m:1")
    master.hears("INCR", "a")
    master.hears("INCR", "b").answers(b":1\r\n:2\r\n")
    first.hears(b":1\r\n")
    second.hears(b":2\r\n")
    assert len(master.live) == 1


def test_a_pipeline_of_reads_and_writes_goes_to_the_master_whole(play: Playbook) -> None:
    client = play.client().pipelines("SET k v", "GET k")
    master = play.server("m:1")
    master.hears("SET", "k", "v")
    master.hears("GET", "k").answers(OK + bulk("v"))
    client.hears(OK + bulk("v"))


def test_a_read_behind_an_unanswered_write_goes_to_the_master_too(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v").says("GET", "k")
    master = play.server("m:1")
    master.hears("SET", "k", "v")
    master.hears("GET", "k").answers(OK + bulk("v"))
    client.hears(OK + bulk("v"))


def test_a_write_behind_an_unanswered_read_waits_for_it(play: Playbook) -> None:
    client = play.client().says("GET", "k").says("SET", "k", "v")
    play.server("m:1").hears_nothing()
    play.server("r:1").hears("GET", "k").answers(bulk("old"))
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(bulk("old") + OK)


def test_a_command_in_many_pieces_is_sent_when_it_is_whole(play: Playbook) -> None:
    client = play.client()
    data = encode_command([b"SET", b"k", b"v"])
    for byte in data[:-1]:
        client.sends(bytes([byte]))
    play.server("m:1").hears_nothing()
    client.sends(data[-1:])
    play.server("m:1").hears("SET", "k", "v")


def test_garbage_closes_the_client_that_sent_it_after_what_it_asked_before_and_nobody_else(play: Playbook) -> None:
    bad, good = play.client(), play.client()
    bad.sends(encode_command([b"INCR", b"k"]) + b"*1\r\n:1\r\n")
    good.says("INCR", "j")
    master = play.server("m:1")
    master.hears("INCR", "k")
    master.hears("INCR", "j").answers(b":1\r\n:1\r\n")
    bad.hears(b":1\r\n-ERR Protocol error: expected '$', got ':'\r\n")
    assert bad.closed
    assert [line["error"] for line in play.log.events("client_error")] == ["ERR Protocol error: expected '$', got ':'"]
    good.hears(b":1\r\n")


def test_what_a_client_asked_before_it_left_is_answered_to_nobody(play: Playbook) -> None:
    gone, here = play.client().says("INCR", "a"), play.client().says("INCR", "b")
    gone.leaves()
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n:2\r\n")
    here.hears(b":2\r\n")


def test_a_client_is_not_read_from_while_too_much_of_it_is_unanswered(play: Playbook) -> None:
    client = play.client()
    big = encode_command([b"SET", b"k", b"x" * 600_000])
    client.sends(big)
    assert not client.session.backlogged
    client.sends(big)
    assert client.session.backlogged, "in flight counts as well"
    connection = play.server("m:1").hears("SET", "k", "x" * 600_000)
    connection.answers(OK)
    assert not client.session.backlogged
    assert client.resumed == 1
    connection.answers(OK)
    client.hears(OK + OK)


# --- clients that say much before they read

BIG = encode_command([b"SET", b"k", b"x" * 1_100_000])
"""More than a session reads ahead."""


def test_session__many_small_commands__count_with_their_objects(play: Playbook) -> None:
    client = play.client()
    small = encode_command([b"SET", b"k", b"v"])
    client.sends(small * 10_000)
    assert client.session.unprocessed == 10_000 * (len(small) + PARSED)
    connection = play.server("m:1").hears("SET", "k", "v", exclusive=True)
    connection.answers(OK * 9_999)
    assert client.session.unprocessed > 0
    connection.answers(OK)
    assert client.session.unprocessed == 0


def test_session__choked__reads_on_and_asks_for_nothing(play: Playbook) -> None:
    client = play.client()
    client.session.choke(play.time, full=True)
    client.sends(BIG).sends(BIG).says("GET", "k")
    play.server("m:1").hears_nothing()
    assert not client.session.backlogged
    assert client.session.unprocessed > 2 * len(BIG)
    assert len(client.session.pending) == 1, "what is behind it was not read yet"
    client.session.choke(play.time, full=False)
    assert client.session.backlogged, "now it will be answered without the client's doing"
    play.server("m:1").hears("SET", "k", "x" * 1_100_000, exclusive=True).answers(OK)
    play.server("m:1").hears("SET", "k", "x" * 1_100_000, exclusive=True).answers(OK)
    play.server("r:1").hears("GET", "k").answers(bulk("v"))
    client.hears(OK + OK + bulk("v"))
    assert not client.session.backlogged
    assert client.session.unprocessed == 0


def test_session__blocked__reads_on(play: Playbook) -> None:
    client = play.client().says("BLPOP", "list", "0").sends(BIG).sends(BIG).says("PING")
    assert not client.session.backlogged
    connection = play.server("m:1").hears("BLPOP", "list", "0", exclusive=True)
    connection.answers(b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n")
    for _ in range(2):
        play.server("m:1").hears("SET", "k", "x" * 1_100_000, exclusive=True).answers(OK)
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.hears(b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n" + OK + OK + b"+PONG\r\n")


def test_session__unread_commands_and_eof__are_answered_first(play: Playbook) -> None:
    client = play.client()
    client.session.choke(play.time, full=True)
    client.sends(BIG).says("GET", "k")
    client.session.finish(play.time)
    assert not client.closed
    client.session.choke(play.time, full=False)
    play.server("m:1").hears("SET", "k", "x" * 1_100_000, exclusive=True).answers(OK)
    play.server("r:1").hears("GET", "k").answers(bulk("v"))
    client.hears(OK + bulk("v"))
    assert client.closed


def test_session__more_than_the_query_limit__is_closed(play: Playbook) -> None:
    client = play.client()
    client.session.query_limit = 3 * len(BIG)
    client.session.choke(play.time, full=True)
    for _ in range(4):
        client.sends(BIG)
    assert not client.closed
    client.says("PING")
    assert client.closed
    (line,) = play.log.events("client_error")
    assert "client-query-buffer-limit" in str(line["error"])
    assert client.session.unprocessed == len(BIG) + PARSED, "the rest was given up"


def test_session__held_in_vain__what_is_unread_is_too(play: Playbook) -> None:
    play.topology(epoch=2)
    client = play.client().sends(BIG)
    client.sends(BIG).says("GET", "k")
    play.wait(31)
    assert client.output.count(b"-MASTERDOWN") == 3
    client.output = b""
    play.topology(epoch=3, master="m:1")
    client.says("GET", "k")
    play.server("m:1").hears("GET", "k").answers(bulk("v"))
    client.hears(bulk("v"))


# --- no master


def test_a_write_waits_while_there_is_no_master_and_is_sent_to_the_next_one(play: Playbook) -> None:
    play.topology(2, replicas=["r:1", "r:2"])
    client = play.client().says("INCR", "k")
    client.hears_nothing()
    play.topology(3, master="r:1", replicas=["r:2"])
    play.server("r:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_reads_go_on_while_there_is_no_master(play: Playbook) -> None:
    play.topology(2, replicas=["r:1", "r:2"])
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(bulk("v"))
    client.hears(bulk("v"))


def test_a_read_behind_a_held_write_waits_for_it(play: Playbook) -> None:
    play.topology(2, replicas=["r:1", "r:2"])
    play.client().says("SET", "k", "v").says("GET", "k")
    play.server("r:1").hears_nothing()


def test_a_write_that_waited_too_long_is_answered_masterdown_and_the_next_one_waits_anew(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    client = play.client().says("SET", "k", "v")
    play.wait(29.9)
    client.hears_nothing()
    play.wait(0.2)
    assert "epoch 2" in client.hears_error("MASTERDOWN")
    client.says("SET", "k", "w").hears_nothing()
    play.topology(3, master="m:1")
    play.server("m:1").hears("SET", "k", "w")


def test_what_does_not_fit_among_the_held_is_answered_masterdown_at_once() -> None:
    play = Playbook(Policy(hold_bytes=100))
    play.topology(2, replicas=["r:1"])
    first = play.client().says("SET", "k", "x" * 50)
    second = play.client().says("SET", "k", "y" * 50)
    first.hears_nothing()
    second.hears_error("MASTERDOWN")


# --- the master is lost


def test_a_repeatable_write_in_flight_is_sent_again_to_the_next_master(play: Playbook) -> None:
    play.client().says("GETSET", "head", "1")
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("GETSET", "head", "1")
    play.server("m:1").hears("SET", "k", "v")
    play.server("m:1").dies()
    client.hears_nothing()
    play.topology(2, replicas=["r:1", "r:2"])
    play.topology(3, master="r:1", replicas=["r:2"])
    play.server("r:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert play.stats.change.uncertain == 1


def test_any_other_write_in_flight_is_answered_uncertain_and_the_connection_stays(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    play.server("m:1").dies()
    text = client.hears_error("UNCERTAIN INCR may or may not have been applied: master m:1 ")
    assert text.endswith("was lost before it replied\r\n")
    assert not client.closed
    play.topology(2)
    play.topology(3, master="r:1")
    client.says("INCR", "k")
    play.server("r:1").hears("INCR", "k")


def test_a_write_that_was_not_sent_yet_is_never_uncertain(play: Playbook) -> None:
    play.server("m:1").refuses = True
    client = play.client().says("INCR", "k")
    client.hears_nothing()
    play.topology(2)
    play.topology(3, master="r:1")
    play.server("r:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_what_was_answered_before_the_loss_is_not_repeated(play: Playbook) -> None:
    client = play.client().pipelines("SET a 1", "INCR b", "SET c 3")
    master = play.server("m:1")
    master.hears("SET", "a", "1").answers(OK)
    client.hears(OK)
    master.dies()
    client.hears_error("UNCERTAIN INCR")
    play.topology(2)
    play.topology(3, master="r:1")
    play.server("r:1").hears("SET", "c", "3", exclusive=True).answers(OK)
    play.server("r:1").hears_nothing()
    client.hears(OK)


def test_the_order_of_answers_is_kept_through_a_loss(play: Playbook) -> None:
    client = play.client().pipelines("SET a 1", "INCR b", "GET a").says("INCR", "d")
    play.wait(FATAL + 0.1)
    play.server("m:1").dies()
    client.hears_nothing()
    play.topology(2)
    play.topology(3, master="r:1")
    server = play.server("r:1")
    server.hears("SET", "a", "1", exclusive=True).answers(OK)
    output = client.output
    client.output = b""
    assert output.startswith(OK + b"-UNCERTAIN INCR")
    server.hears("GET", "a", exclusive=True).answers(bulk("1"))
    output, client.output = client.output, b""
    assert output.startswith(bulk("1") + b"-UNCERTAIN INCR")


def test_never_and_always_are_taken_at_their_word() -> None:
    for policy, repeated in ((RetryWrites.NEVER, False), (RetryWrites.ALWAYS, True)):
        play = Playbook(Policy(retry_writes=policy))
        play.topology(1, master="m:1")
        client = play.client().says("SET" if not repeated else "INCR", "k", *([] if repeated else ["v"]))
        play.wait(FATAL + 0.1)
        play.server("m:1").dies()
        if repeated:
            client.hears_nothing()
            play.topology(2)
            play.topology(3, master="r:1")
            play.server("r:1").hears("INCR", "k", exclusive=True)
        else:
            client.hears_error("UNCERTAIN SET")


def test_a_read_in_flight_on_a_lost_replica_is_asked_elsewhere(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")
    play.server("r:1").dies()
    play.server("r:2").hears("GET", "k", exclusive=True).answers(bulk("v"))
    client.hears(bulk("v"))


def test_a_read_that_a_loading_replica_refuses_is_asked_elsewhere(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"-LOADING Redis is loading the dataset in memory\r\n")
    play.server("r:2").hears("GET", "k").answers(bulk("v"))
    client.hears(bulk("v"))


def test_a_late_reply_of_a_deposed_master_is_not_relayed(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(2)
    client.hears_error("UNCERTAIN INCR")
    assert connection.closed


# --- the master refuses


def test_a_write_that_a_demoted_master_refuses_is_held_and_sent_to_the_next_one(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b"-READONLY You can't write against a read only replica.\r\n")
    client.hears_nothing()
    play.topology(2)
    play.topology(3, master="r:1")
    play.server("r:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_reads_behind_a_refused_write_are_asked_again_behind_it(play: Playbook) -> None:
    client = play.client().pipelines("SET k new", "GET k")
    refused = b"-READONLY You can't write against a read only replica.\r\n"
    play.server("m:1").hears("SET", "k", "new").answers(refused + bulk("old"))
    client.hears_nothing()
    play.topology(2)
    play.topology(3, master="r:1")
    server = play.server("r:1")
    server.hears("SET", "k", "new").answers(OK)
    server.hears("GET", "k").answers(bulk("new"))
    client.hears(OK + bulk("new"))


def test_every_read_behind_a_refused_write_is_asked_again_whatever_stands_between_them(play: Playbook) -> None:
    client = play.client().pipelines("SET k new", "INCR j", "GET k")
    refused = b"-READONLY You can't write against a read only replica.\r\n"
    play.server("m:1").hears("SET", "k", "new").answers(refused + b"-WRONGTYPE x\r\n" + bulk("old"))
    play.topology(2)
    play.topology(3, master="r:1")
    server = play.server("r:1")
    server.hears("SET", "k", "new").answers(OK)
    server.hears("GET", "k").answers(bulk("new"))
    client.hears(OK + b"-WRONGTYPE x\r\n" + bulk("new"))


def test_an_error_that_is_the_commands_own_is_relayed(play: Playbook) -> None:
    for text in (b"-WRONGTYPE Operation against a key\r\n", b"-MISCONF Redis is configured\r\n", b"-BUSY Redis is\r\n"):
        client = play.client().says("INCR", "k")
        play.server("m:1").hears("INCR", "k").answers(text)
        client.hears(text)


def test_an_error_that_a_script_made_up_is_relayed_and_the_script_is_not_run_again(play: Playbook) -> None:
    client = play.client().says("EVAL", "return redis.error_reply('READONLY mine')", "0")
    play.server("m:1").live[0].answers(b"-READONLY mine\r\n")
    client.hears(b"-READONLY mine\r\n")


def test_http_is_hung_up_on_and_disturbs_nobody(play: Playbook) -> None:
    for line in (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"Host: x\r\n"):
        client = play.client().sends(line)
        client.hears_nothing()
        assert client.closed
    play.server("m:1").hears_nothing()


def test_a_refusing_master_is_tried_again_after_a_rest_and_not_in_a_loop(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    refusal = b"-LOADING Redis is loading the dataset in memory\r\n"
    play.server("m:1").hears("INCR", "k").answers(refusal)
    play.server("m:1").hears_nothing()
    play.wait(0.02)
    play.server("m:1").hears("INCR", "k").answers(refusal)
    play.wait(0.05)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")


# --- a planned change


def test_while_draining_what_is_in_flight_is_answered_and_new_writes_wait(play: Playbook) -> None:
    early = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(2, replicas=["r:1", "r:2"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1]
    late = play.client().says("INCR", "k")
    late.hears_nothing()
    connection.answers(b":1\r\n")
    early.hears(b":1\r\n")
    assert play.acknowledged == [1, 2]
    play.server("m:1").hears_nothing()
    play.topology(3, master="r:1", replicas=["m:1", "r:2"])
    play.server("r:1").hears("INCR", "k").answers(b":2\r\n")
    late.hears(b":2\r\n")


def test_a_planned_change_that_is_given_up_lets_writes_go_to_the_old_master(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    client = play.client().says("INCR", "k")
    play.topology(3, master="m:1", replicas=["r:1"])
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")


# --- a lane of one's own for a moment


def test_a_script_holds_up_nobody_else(play: Playbook) -> None:
    client = play.client().says("EVAL", "x", "0")
    own = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    own.answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_what_comes_behind_a_script_goes_the_same_way_while_it_is_unanswered(play: Playbook) -> None:
    client = play.client().says("EVAL", "x", "0").says("INCR", "a").says("GET", "a")
    master = play.server("m:1")
    own = master.hears("EVAL", "x", "0", exclusive=True)
    master.hears("INCR", "a", exclusive=True)
    master.hears("GET", "a", exclusive=True)
    own.answers(b":1\r\n:2\r\n$1\r\n2\r\n")
    client.hears(b":1\r\n:2\r\n$1\r\n2\r\n")
    client.says("INCR", "a")
    master.hears("INCR", "a")


def test_a_script_behind_an_unanswered_write_waits_for_it(play: Playbook) -> None:
    client = play.client().says("INCR", "a").says("EVAL", "x", "0")
    connection = play.server("m:1").hears("INCR", "a")
    play.server("m:1").hears_nothing()
    connection.answers(b":1\r\n")
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":2\r\n")
    client.hears(b":1\r\n:2\r\n")


# --- answers that are known already


@pytest.mark.parametrize("tie", ["SUBSCRIBE c", "MULTI"])
def test_an_answer_that_is_known_waits_for_no_master(tie: str) -> None:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    client = play.client()
    client.session.become(Identity(protocol=3))
    client.pipelines(tie)
    confirmation = OK if tie == "MULTI" else b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    play.server("m:1").lanes[-1].answers(confirmation)
    client.hears(confirmation)
    client.says("EXEC") if tie == "MULTI" else client.says("INCR", "k")
    play.server("m:1").dies()
    client.hears_error("UNCERTAIN")


def test_a_subscriber_whose_command_waited_too_long_is_told_so_while_there_is_no_master(play: Playbook) -> None:
    client = play.client()
    client.session.become(Identity(protocol=3))
    client.says("SUBSCRIBE", "c")
    play.server("m:1").lanes[-1].answers(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    client.output = b""
    play.topology(2)
    client.says("INCR", "k")
    play.wait(31.0)
    client.hears_error("MASTERDOWN")


def test_who_only_listens_is_not_given_up(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    play.server("m:1").lanes[-1].answers(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    client.output = b""
    play.topology(2)
    play.wait(100.0)
    assert not play.log.events("masterdown")
    play.topology(3, master="r:1")
    play.server("r:1").hears("SUBSCRIBE", "c", exclusive=True)
    client.hears_nothing()


def test_a_defect_that_one_session_meets_costs_nobody_else_anything(play: Playbook) -> None:
    unlucky, other = play.client().says("INCR", "a"), play.client().says("INCR", "b")
    play.server("m:1").hears("INCR", "a")
    connection = play.server("m:1").hears("INCR", "b")

    def stumble(data: bytes) -> None:
        raise ValueError(data)

    unlucky.write = stumble  # type: ignore[method-assign]
    connection.answers(b":1\r\n:2\r\n")
    assert unlucky.closed
    assert play.log.events("defect")
    other.hears(b":2\r\n")


# --- a client that closes its side


def leave(play: Playbook, client: FakeClient) -> None:
    client.session.finish(play.time)
    play.settle()


def test_end_of_input__command_in_flight__is_answered(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    leave(play, client)
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert client.closed


@pytest.mark.parametrize("command", ["INCR n", "SET k v", "EVAL x 0", "BLPOP q 1", "GET k", "MULTI", "SUBSCRIBE c"])
def test_end_of_input__command_that_is_held__is_dropped(command: str) -> None:
    play = Playbook()
    play.topology(1)
    client = play.client().says(*command.split())
    leave(play, client)
    assert client.closed
    play.topology(2, master="m:1")
    play.wait(1.0)
    play.server("m:1").hears_nothing()
    client.hears_nothing()


def test_end_of_input__lease_is_over__command_is_dropped(play: Playbook) -> None:
    play.lease.revoke()
    client = play.client().says("INCR", "n")
    leave(play, client)
    play.lease.renew(play.time, 1e9)
    play.router.resume(play.time)
    play.server("m:1").hears_nothing()
    assert client.closed


def test_end_of_input__answers_before_what_is_held__are_heard(play: Playbook) -> None:
    client = play.client().pipelines("INCR a", "SET b 1")
    leave(play, client)
    play.server("m:1").hears("INCR", "a")
    play.server("m:1").hears("SET", "b", "1")
    play.server("m:1").dies()
    play.topology(2)
    play.topology(3, master="r:1")
    play.wait(1.0)
    play.server("r:1").hears_nothing()
    client.hears_error("UNCERTAIN INCR")
    assert client.closed


def test_end_of_input__connection_is_lost__nobody_is_asked_again(play: Playbook) -> None:
    client = play.client().says("GET", "big")
    play.settle()
    leave(play, client)
    for name in ("r:1", "r:2"):
        play.server(name).hangs_up()
    play.wait(1.0)
    for name in ("m:1", "r:1", "r:2"):
        play.server(name).hears_nothing()
    assert client.closed


def test_end_of_input__proxy_drains__held_command_is_sent() -> None:
    play = Playbook()
    play.topology(1)
    client = play.client().says("SET", "k", "v")
    client.session.finish(play.time, left=False)
    play.topology(2, master="m:1")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert client.closed


def test_closed_client__command_not_sent_yet__is_dropped(play: Playbook) -> None:
    client = play.client()
    client.session.feed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", play.time)  # waits for the end of this turn
    client.leaves()
    play.server("m:1").hears_nothing()


def test_eof__connection_is_refused__another_server_is_asked(play: Playbook) -> None:
    play.topology(2, master="m:1", replicas=["r:1", "r:2"])
    play.server("r:1").refuses = True
    client = play.client()
    client.session.feed(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", play.time)
    client.hangs_up()
    play.server("r:2").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    assert client.closed
