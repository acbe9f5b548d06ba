"""Commands about the connection: the server is asked whether they may be, and the session does what they ask for."""

from __future__ import annotations

import pytest

from rfprotocol.resp.resp import encode_command
from rfproxy.core.identity import Account
from rfproxy.core.policy import Policy, Reads
from rfproxy.semantics.tracking import NOBODY
from tests.support.playbook import FakeClient, Playbook

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
NOPERM = b"-NOPERM this user has no permissions to run the 'client|id' command\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


def hello(proto: int, number: int, role: bytes = b"master") -> bytes:
    """What Redis 7.0.15 answers to HELLO."""
    head = b"%7\r\n" if proto == 3 else b"*14\r\n"
    return b"".join(
        [
            head + b"$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:%d\r\n" % proto,
            b"$2\r\nid\r\n:%d\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n" % number,
            b"$4\r\nrole\r\n$%d\r\n%b\r\n$7\r\nmodules\r\n*0\r\n" % (len(role), role),
        ]
    )


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1")
    return play


def selected(play: Playbook, db: str) -> FakeClient:
    """A client in another database."""
    client = play.client().says("SELECT", db)
    play.server("m:1").hears("SELECT", db).answers(OK)
    client.hears(OK)
    return client


# --- SELECT


def test_select_moves_the_session_to_lanes_of_that_database(play: Playbook) -> None:
    client = selected(play, "3")
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[-1] == [b"SELECT", b"3"]
    client.hears_nothing()


def test_a_database_that_the_server_does_not_have_leaves_the_session_where_it_was(play: Playbook) -> None:
    play.server("m:1").denies[b"SELECT"] = b"-ERR DB index is out of range\r\n"
    client = play.client().says("SELECT", "99")
    client.hears(b"-ERR DB index is out of range\r\n")
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[0] == [b"ROLE"]


def test_a_user_who_may_not_select_is_told_so_and_stays(play: Playbook) -> None:
    client = play.client().says("SELECT", "3")
    denied = b"-NOPERM this user has no permissions to run the 'select' command\r\n"
    play.server("m:1").hears("SELECT", "3").answers(denied)
    client.hears(denied)
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[0] == [b"ROLE"]


def test_commands_behind_select_wait_for_it(play: Playbook) -> None:
    client = play.client().pipelines("INCR a", "SELECT 3", "SET k v")
    master = play.server("m:1")
    master.hears("INCR", "a").answers(b":1\r\n")
    master.hears("SELECT", "3")
    master.hears_nothing()
    master.lanes[-1].answers(OK)
    master.hears("SET", "k", "v").answers(OK)
    client.hears(b":1\r\n" + OK + OK)


def test_while_nobody_may_write_a_replica_is_asked_for_admission(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    client = play.client().says("SELECT", "3")
    assert play.server("r:1").hears("SELECT", "3").answers(OK).greeted[-1] == [b"SELECT", b"3"]
    client.hears(OK)


def test_a_select_whose_connection_dies_is_asked_again(play: Playbook) -> None:
    client = play.client().says("SELECT", "3")
    play.server("m:1").hears("SELECT", "3")
    play.server("m:1").hangs_up()
    client.hears_nothing()
    play.wait(0.1)
    play.server("m:1").hears("SELECT", "3").answers(OK)
    client.hears(OK)


def test_a_select_that_no_server_answers_in_time_is_answered_masterdown_and_changes_nothing(play: Playbook) -> None:
    client = play.client()
    play.topology(2)
    client.says("SELECT", "3")
    play.wait(31.0)
    client.hears_error("MASTERDOWN held for 30 s")
    play.topology(3, master="m:1")
    client.says("SET", "k", "v")
    assert play.server("m:1").hears("SET", "k", "v").greeted[0] == [b"ROLE"]


def test_a_client_that_leaves_while_it_is_admitted_disturbs_nobody(play: Playbook) -> None:
    client = play.client().says("SELECT", "3")
    connection = play.server("m:1").hears("SELECT", "3")
    client.leaves()
    connection.answers(OK)
    other = play.client().says("SELECT", "3")
    assert play.server("m:1").hears("SELECT", "3").answers(OK) is connection
    other.hears(OK)


def test_a_session_that_watches_selects_on_its_own_connection(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    master = play.server("m:1")
    connection = master.hears("WATCH", "k", exclusive=True).answers(OK)
    client.says("SELECT", "3")
    assert master.hears("SELECT", "3", exclusive=True).answers(OK) is connection
    client.pipelines("MULTI", "INCR j", "EXEC")
    for command in (["MULTI"], ["INCR", "j"], ["EXEC"]):
        master.hears(*command, exclusive=True)
    connection.answers(OK + b"+QUEUED\r\n*1\r\n:1\r\n")
    client.hears(OK * 3 + b"+QUEUED\r\n*1\r\n:1\r\n")
    assert connection.closed, "it is in another database than its key says"
    client.says("INCR", "j")
    assert master.hears("INCR", "j").greeted[-1] == [b"SELECT", b"3"]


# --- AUTH


def test_auth_is_decided_by_whether_the_server_greets_that_user(play: Playbook) -> None:
    play.server("m:1").denies[b"AUTH"] = WRONGPASS
    client = play.client().says("AUTH", "u", "pw")
    client.hears(WRONGPASS)
    del play.server("m:1").denies[b"AUTH"]
    client.says("AUTH", "u", "pw")
    play.server("m:1").hears("AUTH", "u", "pw").answers(OK)
    client.hears(OK)


def test_a_password_that_was_changed_is_refused_although_a_connection_stands(play: Playbook) -> None:
    first = play.client().says("AUTH", "u", "old")
    play.server("m:1").hears("AUTH", "u", "old").answers(OK)
    first.hears(OK)
    late = play.client().says("AUTH", "u", "old")
    play.server("m:1").hears("AUTH", "u", "old").answers(WRONGPASS)
    late.hears(WRONGPASS)


def test_a_failed_auth_leaves_the_user_that_was(play: Playbook) -> None:
    client = play.client().says("AUTH", "u", "pw")
    known = play.server("m:1").hears("AUTH", "u", "pw").answers(OK)
    play.server("m:1").denies[b"AUTH"] = WRONGPASS
    client.says("AUTH", "u", "wrong").hears(OK + WRONGPASS)
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k") is known


def test_sessions_of_different_users_never_share_a_connection(play: Playbook) -> None:
    play.client().says("INCR", "k")
    stranger = play.server("m:1").hears("INCR", "k")
    client = play.client().says("AUTH", "u", "pw")
    known = play.server("m:1").hears("AUTH", "u", "pw").answers(OK)
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k") is known
    assert known is not stranger


def test_auth_without_a_name_is_for_the_default_user(play: Playbook) -> None:
    client = play.client().says("AUTH", "pw")
    assert play.server("m:1").hears("AUTH", "pw").answers(OK).greeted[-2] == [b"AUTH", b"pw"]
    client.hears(OK)


def stranger(play: Playbook) -> FakeClient:
    """A client of servers that want a password."""
    play.server("m:1").denies.update(dict.fromkeys([b"ROLE", b"INFO", b"CLIENT"], NOAUTH))
    client = play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(NOAUTH)
    client.hears(NOAUTH)
    return client


def test_what_a_stranger_says_behind_auth_is_read_when_that_is_answered(play: Playbook) -> None:
    client = stranger(play)
    long = "x" * 20_000
    client.pipelines("AUTH pw", f"SET k {long}")
    play.server("m:1").hears("AUTH", "pw").answers(OK)
    play.server("m:1").hears("SET", "k", long).answers(OK)
    client.hears(OK + OK)


def test_behind_a_failed_auth_the_limits_for_strangers_hold(play: Playbook) -> None:
    client = stranger(play)
    play.server("m:1").denies[b"AUTH"] = WRONGPASS
    client.pipelines("AUTH pw", "SET k " + "x" * 20_000)
    client.hears(WRONGPASS + b"-ERR Protocol error: unauthenticated bulk length\r\n")
    assert client.closed


def test_a_stranger_who_guesses_without_end_is_answered_without_end(play: Playbook) -> None:
    client = stranger(play)
    play.server("m:1").denies[b"AUTH"] = WRONGPASS
    play.router.topology = None  # what waits for an answer
    client.session.feed(encode_command([b"AUTH", b"pw"]), play.time)
    client.session.feed(b"AUTH\r\n" * 20_000, play.time)
    play.topology(1, master="m:1")
    assert client.output.startswith(WRONGPASS + b"-ERR wrong number of arguments for 'auth' command\r\n")
    assert client.output.count(b"\r\n") == 20_001
    assert not client.closed


def test_what_a_stranger_said_behind_auth_is_answered_although_it_has_closed_its_side(play: Playbook) -> None:
    client = stranger(play)
    client.pipelines("AUTH pw", "INCR k")
    client.session.finish(play.time)
    play.server("m:1").hears("AUTH", "pw").answers(OK)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(OK + b":1\r\n")
    assert client.closed


# --- HELLO


def test_hello_is_answered_as_the_server_does_with_the_clients_own_id(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    connection = play.server("m:1").hears("HELLO", "3").answers(hello(3, 7001))
    assert connection.greeted[-1] == [b"HELLO", b"3"]
    client.hears(hello(3, client.session.number))
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k") is connection


def test_hello_with_a_name_and_a_user_sets_both(play: Playbook) -> None:
    client = play.client().says("HELLO", "3", "AUTH", "u", "pw", "SETNAME", "app")
    connection = play.server("m:1").hears("HELLO", "3", "AUTH", "u", "pw").answers(hello(3, 7001))
    assert connection.greeted[-2:] == [[b"AUTH", b"u", b"pw"], [b"HELLO", b"3"]]
    client.hears(hello(3, client.session.number))
    client.says("CLIENT", "GETNAME")
    play.server("m:1").hears("CLIENT", "GETNAME").answers(b"_\r\n")
    client.hears(b"$3\r\napp\r\n")


def test_hello__password_behind_a_user_called_setname__stays_secret(play: Playbook) -> None:
    client = play.client().says("HELLO", "3", "AUTH", "setname", "secret")
    play.server("m:1").hears("HELLO", "3", "AUTH", "setname", "secret").answers(hello(3, 7001))
    client.hears(hello(3, client.session.number))
    assert client.session.name == b""


def test_hello_without_a_version_changes_nothing(play: Playbook) -> None:
    client = play.client().says("HELLO")
    play.server("m:1").hears("HELLO").answers(hello(2, 7001))
    client.hears(hello(2, client.session.number))
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k").greeted[0] == [b"ROLE"]


def test_hello_of_a_replica_reads_like_that_of_a_master(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    client = play.client().says("HELLO", "3")
    play.server("r:1").hears("HELLO", "3").answers(hello(3, 7001, b"replica"))
    client.hears(hello(3, client.session.number))


def test_hello_that_is_refused_changes_nothing(play: Playbook) -> None:
    play.server("m:1").denies[b"HELLO"] = WRONGPASS
    client = play.client().says("HELLO", "3", "AUTH", "u", "no", "SETNAME", "app")
    client.hears(WRONGPASS)
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k").greeted[0] == [b"ROLE"]
    assert client.session.name == b""


def test_a_subscriber_in_resp3_goes_back_to_resp2_on_its_own_connection(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    play.server("m:1").hears("HELLO", "3").answers(hello(3, 7001))
    push = b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    client.says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(push)
    client.says("HELLO", "2")
    assert play.server("m:1").hears("HELLO", "2", exclusive=True).answers(hello(2, 7002)) is connection
    number = client.session.number
    client.hears(hello(3, number) + push + hello(2, number))
    assert "only (P|S)SUBSCRIBE" in client.says("GET", "k").hears_error("ERR Can't execute 'get'")


# --- misuse


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("HELLO", "4"), b"-NOPROTO unsupported protocol version\r\n"),
        (("HELLO", "x"), b"-ERR Protocol version is not an integer or out of range\r\n"),
        (("HELLO", "3", "WHAT"), b"-ERR Syntax error in HELLO option 'WHAT'\r\n"),
        (("HELLO", "3", "AUTH", "u"), b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
        (
            ("HELLO", "3", "SETNAME", "a b"),
            b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        ),
        (("AUTH", "a", "b", "c"), b"-ERR syntax error\r\n"),
        (("SELECT", "x"), b"-ERR value is not an integer or out of range\r\n"),
        (("SELECT", "01"), b"-ERR value is not an integer or out of range\r\n"),
        (("SELECT", "-1"), b"-ERR DB index is out of range\r\n"),
        (
            ("SELECT", "99999999999"),
            b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
        ),
        (("SELECT",), b"-ERR wrong number of arguments for 'select' command\r\n"),
        (("CLIENT", "NOPE"), b"-ERR unknown subcommand 'NOPE'. Try CLIENT HELP.\r\n"),
        (("ASKING",), b"-ERR This instance has cluster support disabled\r\n"),
        (("QUIT", "x", "y"), b"+OK\r\n"),
    ],
)
def test_misuse_is_answered_in_the_words_of_redis(play: Playbook, words: tuple[str, ...], error: bytes) -> None:
    play.client().says(*words).hears(error)
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize(
    ("command", "reply"),
    [("EXEC", b"-ERR EXEC without MULTI\r\n"), ("DISCARD", b"-ERR DISCARD without MULTI\r\n"), ("UNWATCH", OK)],
)
def test_what_ends_a_transaction_that_is_none_is_the_servers_to_answer(
    play: Playbook, command: str, reply: bytes
) -> None:
    client = play.client().says(command)
    play.server("m:1").hears(command).answers(reply)
    client.hears(reply)


# --- the server's consent


def test_what_the_server_has_against_a_command_is_relayed_and_nothing_is_done(play: Playbook) -> None:
    client = play.client().says("CLIENT", "SETNAME", "app")
    play.server("m:1").hears("CLIENT", "SETNAME", "rfproxy").answers(NOPERM)
    client.hears(NOPERM)
    assert client.session.name == b""


def test_what_the_server_consents_to_is_done_once_although_its_connection_died_before(play: Playbook) -> None:
    play.topology(2, master="m:1", replicas=["r:1"])
    client = play.client().says("CLIENT", "ID")
    play.server("r:1").hears("CLIENT", "ID")
    play.server("r:1").dies()
    play.server("m:1").hears("CLIENT", "ID").answers(b":7001\r\n")
    client.hears(b":%d\r\n" % client.session.number)


def test_a_server_that_cannot_say_at_present_is_asked_again(play: Playbook) -> None:
    client = play.client().says("CLIENT", "SETNAME", "app")
    asked = ("CLIENT", "SETNAME", "rfproxy")
    play.server("m:1").hears(*asked).answers(b"-LOADING Redis is loading the dataset in memory\r\n")
    client.hears_nothing()
    play.wait(0.2)
    play.server("m:1").hears(*asked).answers(OK)
    client.hears(OK)


def test_commands_behind_a_question_wait_for_its_answer(play: Playbook) -> None:
    client = play.client().pipelines("CLIENT ID", "INCR k", "CLIENT GETNAME")
    master = play.server("m:1")
    connection = master.hears("CLIENT", "ID")
    master.hears_nothing()
    connection.answers(b":7001\r\n")
    master.hears("INCR", "k")
    master.hears_nothing()
    connection.answers(b":1\r\n")
    master.hears("CLIENT", "GETNAME").answers(b"$-1\r\n")
    client.hears(b":%d\r\n:1\r\n$-1\r\n" % client.session.number)


# --- QUIT, RESET, and what hangs up


def test_quit_is_answered_after_all_before_it_and_ends_the_connection(play: Playbook) -> None:
    client = play.client().pipelines("INCR k", "QUIT", "INCR k")
    client.hears_nothing()
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n" + OK)
    assert client.closed
    play.server("m:1").hears_nothing()


def test_quit_waits_for_what_is_held_while_there_is_no_master(play: Playbook) -> None:
    play.topology(2)
    client = play.client().pipelines("INCR k", "QUIT")
    client.hears_nothing()
    play.topology(3, master="m:1")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n" + OK)


def test_reset_brings_a_session_back_to_what_it_was_when_it_came(play: Playbook) -> None:
    client = selected(play, "3")
    client.session.name = b"app"
    client.says("RESET").hears(b"+RESET\r\n")
    assert client.session.name == b""
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k").greeted[0] == [b"ROLE"]


def test_reset_behind_multi_ends_the_transaction(play: Playbook) -> None:
    client = play.client().says("MULTI")
    connection = play.server("m:1").hears("MULTI", exclusive=True).answers(OK)
    client.says("RESET").hears(OK + b"+RESET\r\n")
    assert connection.closed
    client.says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


def test_reset_goes_back_to_the_user_that_clients_have_who_do_not_say_who_they_are() -> None:
    play = Playbook(Policy(account=Account(b"app", b"pw")))
    play.topology(1, master="m:1")
    client = play.client().says("AUTH", "u", "x")
    play.server("m:1").hears("AUTH", "u", "x").answers(OK)
    client.says("RESET").hears(OK + b"+RESET\r\n")
    client.says("INCR", "k")
    assert play.server("m:1").hears("INCR", "k").greeted[0] == [b"AUTH", b"app", b"pw"]


def test_a_browser_is_hung_up_on_without_a_word(play: Playbook) -> None:
    client = play.client().sends(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n")
    client.hears_nothing()
    assert client.closed
    play.server("m:1").hears_nothing()


# --- what is refused


def test_what_would_undo_what_the_managers_do_is_refused_with_the_alternative(play: Playbook) -> None:
    text = play.client().says("REPLICAOF", "NO", "ONE").hears_error("ERR")
    assert "rfmanager failover" in text
    play.server("m:1").hears_nothing()
    assert play.stats.errors == 1


@pytest.mark.parametrize("command", ["CONFIG SET requirepass secret", "ACL SETUSER default off"])
def test_refused__account_of_one_server__by_all_but_administrators(play: Playbook, command: str) -> None:
    error = play.client().says(*command.split()).hears_error("ERR")
    assert "connect to each server itself" in error
    assert "secret" not in error + str(play.log.lines)
    play.server("m:1").hears_nothing()
    play = Playbook(Policy(allow_admin=True))
    play.topology(1, master="m:1")
    client = play.client().says(*command.split())
    play.server("m:1").hears(*command.split(), exclusive=True).answers(OK)
    client.hears(OK)


def test_refused__account_of_one_server_inside_multi__exec_aborted(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "CONFIG SET requirepass x", "EXEC")
    connection = play.server("m:1").hears("MULTI", exclusive=True)
    play.server("m:1").hears("GET", exclusive=True)  # what the server is to refuse in its place
    play.server("m:1").hears("EXEC", exclusive=True)
    aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    connection.answers(OK + b"-ERR wrong number of arguments for 'get' command\r\n" + aborted)
    assert client.output.startswith(OK + b"-ERR CONFIG SET of accounts")
    assert client.output.endswith(aborted)


def test_an_administrator_who_asks_for_it_may_do_all() -> None:
    play = Playbook(Policy(allow_admin=True))
    play.topology(1, master="m:1")
    client = play.client().says("REPLICAOF", "NO", "ONE")
    play.server("m:1").hears("REPLICAOF", "NO", "ONE", exclusive=True).answers(OK)
    client.hears(OK)
    client.says("ASKING").hears(b"-ERR This instance has cluster support disabled\r\n")


# --- without a server


@pytest.mark.parametrize("command", ["INFO proxy", "CLIENT ID", "CLIENT LIST", "CLIENT GETNAME", "CLIENT INFO"])
@pytest.mark.parametrize("why", ["no topology", "no master", "servers refuse", "servers are silent"])
def test_own_knowledge__no_server_can_be_asked__is_answered(command: str, why: str) -> None:
    play = Playbook()
    if why != "no topology":
        play.topology(1, master=None if why == "no master" else "m:1")
    play.server("m:1").refuses = why == "servers refuse"
    if why == "servers are silent":
        play.client().says("CLIENT", "ID")  # the first attempt shows it
        for lane in play.router.lanes:
            lane.lose(play.time, reason="timeout")
        play.server("m:1").opened = lambda lane: None  # type: ignore[method-assign]  # it accepts nothing more
    client = play.client().says(*command.split())
    assert client.output
    assert not client.output.startswith(b"-")


def test_own_knowledge__stranger_at_servers_with_a_password__is_refused() -> None:
    play = Playbook()
    play.topology(1)
    play.router.strangers = True
    play.client().says("CLIENT", "LIST").hears_error("NOAUTH Authentication required.")


def test_own_knowledge__server_can_be_asked__needs_its_consent(play: Playbook) -> None:
    client = play.client().says("CLIENT", "LIST")
    client.hears_nothing()
    play.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY.decode()).answers(b"-NOPERM no\r\n")
    client.hears_error("NOPERM")


def test_ping__no_server_can_answer__fails_within_a_second() -> None:
    play = Playbook()
    play.topology(1)
    client, other = play.client().says("PING"), play.client().says("GET", "k")
    play.wait(0.9)
    client.hears_nothing()
    play.wait(0.2)
    client.hears_error("MASTERDOWN held for 1 s and not sent: there is no master")
    other.hears_nothing()
    client.says("PING")
    play.topology(2, master="m:1")
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    play.server("m:1").hears("PING").answers(b"+PONG\r\n")
    client.hears(b"+PONG\r\n")


def test_client_list__master_is_asked_whether_it_is_there__waits_for_its_consent() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("INCR", "a")
    shared = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    play.client().says("EVAL", "x", "0")
    script = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.server("m:1").silent = True
    script.closed = True
    script.lane.lose(play.time)
    play.client().says("INCR", "a")
    assert shared.probed
    play.client().says("CLIENT", "LIST").hears_nothing()
