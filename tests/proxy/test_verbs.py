"""Commands that the session handles itself: answered as Redis answers them, and the server decides who may enter."""

from __future__ import annotations

import pytest

from tests.support.playbook import Playbook, reply

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def greeted(play: Playbook) -> list[list[bytes]]:
    """What the latest connection said first."""
    return play.server("r:1").lanes[-1].greeted


def test_select_moves_the_session_to_lanes_of_that_database(play: Playbook) -> None:
    client = play.client().says("SELECT", "3")
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.hears(OK)
    assert greeted(play)[0] == [b"SELECT", b"3"]
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[0] == [b"SELECT", b"3"]


def test_a_database_that_the_server_does_not_have_leaves_the_session_where_it_was(play: Playbook) -> None:
    play.server("r:1").denies[b"SELECT"] = b"-ERR DB index is out of range\r\n"
    client = play.client().says("SELECT", "99")
    client.hears(b"-ERR DB index is out of range\r\n")
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[0] == [b"ROLE"]


def test_select_of_nonsense_is_answered_without_asking(play: Playbook) -> None:
    client = play.client().says("SELECT", "x")
    client.hears(b"-ERR value is not an integer or out of range\r\n")


def test_commands_behind_select_wait_for_it(play: Playbook) -> None:
    client = play.client().pipelines("SELECT 3", "SET k v")
    play.server("m:1").hears_nothing()
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK + OK)


def test_auth_is_decided_by_the_server(play: Playbook) -> None:
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    play.server("r:1").denies[b"AUTH"] = wrong
    client = play.client().says("AUTH", "u", "pw")
    client.hears(wrong)
    del play.server("r:1").denies[b"AUTH"]
    client.says("AUTH", "u", "pw")
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.hears(OK)


def test_sessions_of_different_users_never_share_a_connection(play: Playbook) -> None:
    play.client().says("GET", "k")
    stranger = play.server("r:1").hears("GET", "k")
    client = play.client().says("AUTH", "u", "pw")
    known = play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.says("GET", "k")
    assert play.server("r:1").hears("GET", "k") is known
    assert known is not stranger


def test_hello_3_is_answered_with_a_map_and_the_session_speaks_resp3_from_then_on(play: Playbook) -> None:
    client = play.client().says("HELLO", "3", "SETNAME", "app")
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    answer = reply(client.output)
    client.output = b""
    assert isinstance(answer, dict)
    assert (answer[b"server"], answer[b"version"], answer[b"proto"]) == (b"redis", b"7.0.15", 3)
    assert client.says("CLIENT", "GETNAME").output == b"$3\r\napp\r\n"
    assert greeted(play)[0] == [b"HELLO", b"3"]


def test_hello_without_a_change_is_answered_at_once_and_flat_in_resp2(play: Playbook) -> None:
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    answer = reply(client.says("HELLO", "2").output)
    assert isinstance(answer, list)
    assert answer[4:6] == [b"proto", 2]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("HELLO", "4"), b"-NOPROTO unsupported protocol version\r\n"),
        (("HELLO", "x"), b"-ERR Protocol version is not an integer or out of range\r\n"),
        (("HELLO", "3", "WHAT"), b"-ERR Syntax error in HELLO option 'WHAT'\r\n"),
        (("AUTH", "a", "b", "c"), b"-ERR syntax error\r\n"),
        (("CLIENT", "SETNAME", "a b"), b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
        (("EXEC",), b"-ERR EXEC without MULTI\r\n"),
        (("DISCARD",), b"-ERR DISCARD without MULTI\r\n"),
        (("SELECT", "01"), b"-ERR value is not an integer or out of range\r\n"),
        (("SELECT",), b"-ERR wrong number of arguments for 'select' command\r\n"),
    ],
)
def test_misuse_is_answered_in_the_words_of_redis(play: Playbook, words: tuple[str, ...], error: bytes) -> None:
    play.client().says(*words).hears(error)


def test_each_client_has_its_own_id_and_name(play: Playbook) -> None:
    first, second = play.client().says("CLIENT", "ID"), play.client().says("CLIENT", "ID")
    assert first.output != second.output
    first.output = second.output = b""
    first.says("CLIENT", "SETNAME", "one").hears(OK)
    second.says("CLIENT", "GETNAME").hears(b"$-1\r\n")


def test_the_introduction_of_redis_py_is_answered_at_once(play: Playbook) -> None:
    play.client().pipelines("CLIENT SETINFO LIB-NAME redis-py", "CLIENT SETINFO LIB-VER 8").hears(OK + OK)


def test_quit_is_answered_after_all_before_it_and_ends_the_connection(play: Playbook) -> None:
    client = play.client().pipelines("INCR k", "QUIT")
    client.hears_nothing()
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n" + OK)
    assert client.closed


def test_reset_brings_a_session_back_to_what_it_was_when_it_came(play: Playbook) -> None:
    client = play.client().says("SELECT", "3")
    play.server("r:1").hears("PING").answers(b"+PONG\r\n")
    client.says("MULTI").says("RESET").hears(OK + OK + b"+RESET\r\n")
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[0] == [b"ROLE"]


def test_what_would_break_the_group_is_refused_with_the_alternative(play: Playbook) -> None:
    text = play.client().says("REPLICAOF", "NO", "ONE").hears_error("ERR")
    assert "rfmanager failover" in text
    play.server("m:1").hears_nothing()


def test_what_a_shared_connection_cannot_carry_is_never_sent_on_one(play: Playbook) -> None:
    play.client().says("CLIENT", "REPLY", "OFF").hears_error("ERR CLIENT REPLY")
    play.server("m:1").hears_nothing()


# --- transactions


def test_a_transaction_is_queued_here_and_sent_as_one_block(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR a", "GET b")
    client.hears(OK + b"+QUEUED\r\n+QUEUED\r\n")
    master = play.server("m:1")
    master.hears_nothing()
    client.says("EXEC")
    for command in (["MULTI"], ["INCR", "a"], ["GET", "b"]):
        master.hears(*command)
    block = OK + b"+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$-1\r\n"
    connection = master.hears("EXEC").answers(block[:20])
    client.hears_nothing()
    connection.answers(block[20:])
    client.hears(b"*2\r\n:1\r\n$-1\r\n")


def test_a_transaction_with_a_mistake_is_aborted(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "GET", "SET k v", "EXEC")
    client.hears(
        OK
        + b"-ERR wrong number of arguments for 'get' command\r\n"
        + b"+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n"
    )
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize("mistake", ["DISCARD x", "MULTI x", "WATCH", "CONFIG"])
def test_a_wrong_number_of_arguments_aborts_the_transaction(play: Playbook, mistake: str) -> None:
    client = play.client().pipelines("MULTI", "SET k v", mistake)
    client.output = b""
    client.says("EXEC").hears_error("EXECABORT Transaction discarded because of previous errors.")


def test_exec_with_arguments_ends_the_transaction_with_the_reason(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "SET k v", "EXEC x", "EXEC")
    client.hears(
        OK
        + b"+QUEUED\r\n-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n"
        + b"-ERR EXEC without MULTI\r\n"
    )


def test_discard_forgets_what_was_queued(play: Playbook) -> None:
    play.client().pipelines("MULTI", "SET k v", "DISCARD", "EXEC").hears(
        OK + b"+QUEUED\r\n" + OK + b"-ERR EXEC without MULTI\r\n"
    )


def test_nested_multi_and_watch_are_refused_without_giving_up_the_transaction(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "MULTI", "WATCH k", "EXEC")
    client.hears(OK + b"-ERR MULTI calls can not be nested\r\n-ERR WATCH inside MULTI is not allowed\r\n")
    play.server("m:1").hears("MULTI")


def test_a_transaction_waits_for_a_master_and_is_sent_to_the_next_one(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR a")
    client.hears(OK + b"+QUEUED\r\n")
    play.topology(2, replicas=["r:1"])
    client.says("EXEC").hears_nothing()
    play.topology(3, master="r:1")
    play.server("r:1").hears("MULTI")


def test_a_transaction_whose_reply_is_lost_is_uncertain(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "SET a 1", "EXEC")
    client.hears(OK + b"+QUEUED\r\n")
    play.server("m:1").dies()
    client.hears_error("UNCERTAIN EXEC")


def test_a_transaction_that_a_demoted_master_refuses_is_sent_again(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    client.hears(OK + b"+QUEUED\r\n")
    master = play.server("m:1")
    master.hears("MULTI")
    master.hears("INCR", "a")
    refused = b"-READONLY You can't write against a read only replica.\r\n"
    master.hears("EXEC").answers(OK + refused + b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    client.hears_nothing()
    play.topology(2)
    play.topology(3, master="r:1")
    server = play.server("r:1")
    server.hears("MULTI")
    server.hears("INCR", "a")
    server.hears("EXEC").answers(OK + b"+QUEUED\r\n*1\r\n:1\r\n")
    client.hears(b"*1\r\n:1\r\n")
