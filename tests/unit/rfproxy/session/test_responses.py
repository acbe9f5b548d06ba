"""Replies that need a look, and commands whose replies do not come."""

from __future__ import annotations

import pytest

from rfproxy.core.identity import Account
from rfproxy.core.policy import Policy, RetryWrites
from rfproxy.routing.router import IDLE
from tests.support.playbook import FakeClient, FakeConnection, Playbook, User

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
NOREPLICAS = b"-NOREPLICAS Not enough good replicas to write.\r\n"
EXECABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"

NO_ARGUMENTS = b"-ERR wrong number of arguments for 'publish' command\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def fail_over(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    play.topology(3, master="r:1")


def told(play: Playbook, server: str, *commands: str, exclusive: bool = False) -> FakeConnection:
    """The server hears these commands and no others."""
    for command in commands:
        connection = play.server(server).hears(*command.split(), exclusive=exclusive)
    play.server(server).hears_nothing()
    return connection


# --- a refusal among replies


def test_what_was_answered_before_a_refusal_is_relayed_at_once(play: Playbook) -> None:
    client = play.client().pipelines("PUBLISH c m", "INCR b", "INCR c")
    told(play, "m:1", "PUBLISH c m", "INCR b", "INCR c").answers(b":0\r\n" + READONLY + READONLY)
    client.hears(b":0\r\n")
    fail_over(play)
    told(play, "r:1", "INCR b", "INCR c")


@pytest.mark.parametrize("cut", range(1, len(READONLY + READONLY + NO_ARGUMENTS)))
def test_a_refused_pipeline_is_sent_again_in_its_order_however_its_replies_are_cut(play: Playbook, cut: int) -> None:
    client = play.client().pipelines("INCR a", "INCR b", "PUBLISH c")
    master = told(play, "m:1", "INCR a", "INCR b", "PUBLISH c")
    replies = READONLY + READONLY + NO_ARGUMENTS
    master.answers(replies[:cut]).answers(replies[cut:])
    client.hears_nothing()
    fail_over(play)
    connection = play.server("r:1").hears("INCR", "a")
    connection.answers(b":1\r\n")
    play.server("r:1").hears("INCR", "b").answers(b":2\r\n")
    play.server("r:1").hears_nothing()
    client.hears(b":1\r\n:2\r\n" + NO_ARGUMENTS)


def test_a_refusal_and_a_loss_behind_it_leave_the_order_as_it_was(play: Playbook) -> None:
    client = play.client().pipelines("SET a 1", "INCR b", "SET c 3")
    told(play, "m:1", "SET a 1", "INCR b", "SET c 3").answers(READONLY)
    play.server("m:1").dies()
    fail_over(play)
    play.server("r:1").hears("SET", "a", "1").answers(OK)
    output, client.output = client.output, b""
    assert output.startswith(OK + b"-UNCERTAIN INCR")
    play.server("r:1").hears("SET", "c", "3", exclusive=True).answers(OK)
    client.hears(OK)


@pytest.mark.parametrize(
    "error", [b"-WRONGTYPE x\r\n", b"-OOM x\r\n", b"-READONLY my own\r\n", b"-NOAUTH x\r\n", b"-NOSCRIPT x\r\n"]
)
def test_other_errors_are_the_clients(play: Playbook, error: bytes) -> None:
    client = play.client().pipelines("INCR a", "INCR b")
    told(play, "m:1", "INCR a", "INCR b").answers(error + b":1\r\n")
    client.hears(error + b":1\r\n")


def test_a_refused_verb_is_asked_again(play: Playbook) -> None:
    client = play.client().says("CLIENT", "ID")
    told(play, "r:1", "CLIENT ID").answers(LOADING)
    told(play, "m:1", "CLIENT ID").answers(b":7\r\n")
    client.hears(b":%d\r\n" % client.session.number)


# --- a transaction in one packet


def test_its_replies_are_relayed_together(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    connection = told(play, "m:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED)
    client.hears_nothing()
    connection.answers(b"*1\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n:1\r\n")


def test_nobody_comes_in_between(play: Playbook) -> None:
    first = play.client()
    first.session.feed(b"MULTI\r\nINCR a\r\nEXEC\r\n", play.time)
    play.client().session.feed(b"INCR b\r\n", play.time)
    told(play, "m:1", "MULTI", "INCR a", "EXEC", "INCR b")


def test_its_errors_are_the_clients(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "GET", "SET a 1", "EXEC")
    error = b"-ERR wrong number of arguments for 'get' command\r\n"
    told(play, "m:1", "MULTI", "GET", "SET a 1", "EXEC").answers(OK + error + QUEUED + EXECABORT)
    client.hears(OK + error + QUEUED + EXECABORT)


@pytest.mark.parametrize(
    "replies",
    [
        OK + READONLY + EXECABORT,
        OK + QUEUED + b"-EXECABORT Transaction discarded because of: " + READONLY[1:],
        OK + LOADING + EXECABORT,
    ],
)
def test_one_that_a_demoted_master_refuses_is_sent_again(play: Playbook, replies: bytes) -> None:
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    told(play, "m:1", "MULTI", "INCR a", "EXEC").answers(replies)
    client.hears_nothing()
    fail_over(play)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n:1\r\n")


def test_one_that_was_executed_is_not_sent_again_whatever_its_commands_answered(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "EVAL x 0", "EXEC")
    told(play, "m:1", "MULTI", "EVAL x 0", "EXEC", exclusive=True).answers(OK + QUEUED + b"*1\r\n" + READONLY)
    client.hears(OK + QUEUED + b"*1\r\n" + READONLY)


def test_one_whose_reply_is_lost_is_uncertain_as_a_whole(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    told(play, "m:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED)
    play.server("m:1").dies()
    output, client.output = client.output, b""
    assert output.startswith(OK + QUEUED + b"-UNCERTAIN EXEC ")
    assert output.count(b"\r\n") == 3
    fail_over(play)
    client.says("INCR", "a")
    told(play, "r:1", "INCR a")


@pytest.mark.parametrize(
    "inside", [(), ("GET a", "MGET a b"), ("SET a 1", "HSET h f v")], ids=["empty", "reads", "repeatable writes"]
)
def test_one_that_may_be_repeated_is(play: Playbook, inside: tuple[str, ...]) -> None:
    client = play.client().pipelines("MULTI", *inside, "EXEC")
    told(play, "m:1", "MULTI", *inside, "EXEC").answers(OK)
    fail_over(play)
    client.hears_nothing()
    told(play, "r:1", "MULTI", *inside, "EXEC")


def test_one_that_reads_what_it_has_written_may_not(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "GET a", "SET a 1", "EXEC")
    told(play, "m:1", "MULTI", "GET a", "SET a 1", "EXEC")
    fail_over(play)
    assert b"-UNCERTAIN EXEC" in client.output


def test_never_means_never() -> None:
    play = Playbook(Policy(retry_writes=RetryWrites.NEVER))
    play.topology(1, master="m:1")
    client = play.client().pipelines("MULTI", "SET a 1", "EXEC")
    play.server("m:1").dies()
    assert b"-UNCERTAIN EXEC" in client.output


def test_one_whose_multi_was_denied_is_not_repeated(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    connection = play.server("m:1").hears("MULTI")
    connection.answers(b"-NOPERM this user has no permissions to run the 'multi' command\r\n:1\r\n")
    fail_over(play)
    play.server("r:1").hears_nothing()
    assert b"-UNCERTAIN EXEC" in client.output


def test_one_that_was_not_sent_is_sent_to_the_next_master(play: Playbook) -> None:
    play.server("m:1").refuses = True
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    fail_over(play)
    told(play, "r:1", "MULTI", "INCR a", "EXEC").answers(OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n:1\r\n")


def test_one_that_waits_too_long_is_answered_command_by_command(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    client = play.client().pipelines("MULTI", "INCR a", "EXEC")
    play.wait(31.0)
    assert client.output.count(b"-MASTERDOWN") == 3


def test_one_behind_a_refused_write_keeps_its_place(play: Playbook) -> None:
    client = play.client().pipelines("INCR a", "MULTI", "INCR b", "EXEC")
    connection = play.server("m:1").hears("INCR", "a")
    connection.commands.clear()
    connection.answers(READONLY + OK + READONLY + EXECABORT)
    client.hears_nothing()
    fail_over(play)
    connection = play.server("r:1").hears("INCR", "a")
    connection.commands.clear()
    connection.answers(b":1\r\n" + OK + QUEUED + b"*1\r\n:1\r\n")
    client.hears(b":1\r\n" + OK + QUEUED + b"*1\r\n:1\r\n")


# --- replies that do not come


WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
OLD = Account(b"app", b"old")


def changes_password(play: Playbook, *servers: str) -> None:
    """From now on the servers accept nobody's old password, and all connections of the proxy are lost."""
    for server in servers:
        play.server(server).users = {"default": User(), "app": User("new")}
    for server in servers:
        play.server(server).hangs_up()
    play.wait(0.3)


def authenticated(play: Playbook) -> FakeClient:
    client = play.client().says("AUTH", "app", "old")
    play.server("m:1").hears("AUTH", "app", "old").answers(OK)
    client.hears(OK)
    return client


def test_denied__never_served__each_command_gets_an_error() -> None:
    play = Playbook(Policy(account=OLD))
    play.topology(1, master="m:1", replicas=["r:1"])
    play.server("m:1").denies[b"AUTH"] = WRONGPASS
    client = play.client().pipelines("INCR a", "MULTI", "INCR b", "EXEC")
    play.settle()
    errors, client.output = client.output, b""
    assert errors.count(b"-ERR rfproxy's own password is refused by m:1: ") == 4
    assert not client.closed


def test_denied__password_changed_since__client_is_closed(play: Playbook) -> None:
    client = authenticated(play)
    changes_password(play, "m:1")
    client.pipelines("INCR a", "INCR b")
    client.hears_nothing()
    assert client.closed
    (line,) = play.log.events("client_error")
    assert "WRONGPASS" in str(line["error"])
    assert "old" not in str(line).replace("not accept its user any more", "")


def test_password_changed__connection_stands__serves_on(play: Playbook) -> None:
    """As on Redis, also after a silence in which nobody used the connection."""
    client = authenticated(play)
    for server in ("m:1", "r:1"):
        play.server(server).users = {"default": User(), "app": User("new")}
    play.time += IDLE + 1
    play.router.reap(play.time)
    client.says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.says("GET", "k")
    play.server("m:1").hears("GET", "k").answers(b"$1\r\nv\r\n")
    client.hears(OK + b"$1\r\nv\r\n")


def test_denied__write_was_sent_before__is_uncertain(play: Playbook) -> None:
    client = authenticated(play).says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v")
    changes_password(play, "m:1")
    client.hears_error("UNCERTAIN SET")
    client.says("INCR", "a")
    assert client.closed


def test_denied__blocked_client__is_closed(play: Playbook) -> None:
    client = authenticated(play)
    changes_password(play, "m:1")
    client.says("BLPOP", "q", "0")
    client.hears_nothing()
    assert client.closed


def test_denied__subscriber__is_closed(play: Playbook) -> None:
    client = authenticated(play)
    changes_password(play, "m:1", "r:1")
    client.says("SUBSCRIBE", "c")
    client.hears_nothing()
    assert client.closed


def test_denied__proxys_password_changed__who_was_served_is_closed() -> None:
    play = Playbook(Policy(account=OLD))
    play.topology(1, master="m:1")
    served = play.client().says("INCR", "a")
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    served.hears(b":1\r\n")
    changes_password(play, "m:1")
    served.says("INCR", "a")
    assert served.closed
    play.client().says("INCR", "a").hears_error("ERR rfproxy's own password is refused by m:1")


def test_denied__attempt_to_authenticate__hears_the_servers_words(play: Playbook) -> None:
    client = authenticated(play)
    changes_password(play, "m:1")
    client.says("AUTH", "app", "wrong").hears(WRONGPASS)
    client.says("AUTH", "app", "new")
    play.server("m:1").hears("AUTH", "app", "new").answers(OK)
    client.hears(OK)


def test_denied__by_a_replica__reads_at_the_master(play: Playbook) -> None:
    """ACL SETUSER was said through the proxy: the replicas have not heard of it."""
    play.server("r:1").users = {"default": User()}
    client = authenticated(play).says("GET", "k")
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    assert len(play.server("r:1").acl_log) == 1, "it is asked once, not for each command"
    client.says("GET", "k")
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    assert len(play.server("r:1").acl_log) == 1
    play.server("r:1").users["app"] = User("old")
    play.wait(2)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$1\r\nv\r\n")
    client.hears(b"$-1\r\n$1\r\nv\r\n")


def test_denied__by_a_replica__select_is_the_masters(play: Playbook) -> None:
    play.server("r:1").users = {"default": User()}
    client = authenticated(play).says("SELECT", "3")
    play.server("m:1").hears("SELECT", "3").answers(OK)
    client.hears(OK)


def test_denied__by_one_replica__another_one_serves() -> None:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    client = authenticated(play)
    play.server("r:1").users = {"default": User()}
    client.says("GET", "k")
    play.server("r:2").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")


def test_auth__no_master__a_replica_may_answer(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    client = play.client().says("AUTH", "app", "old")
    play.server("r:1").hears("AUTH", "app", "old").answers(OK)
    client.hears(OK)


def test_auth__no_master_and_a_replica_denies__waits_for_one(play: Playbook) -> None:
    play.server("r:1").users = {"default": User()}
    play.topology(2, replicas=["r:1"])
    client = play.client().says("AUTH", "app", "old")
    client.hears_nothing()
    play.topology(3, master="m:2", replicas=["r:1"])
    play.server("m:2").hears("AUTH", "app", "old").answers(OK)
    client.hears(OK)


def test_an_exec_without_multi_does_nothing_and_is_asked_again(play: Playbook) -> None:
    client = play.client().says("EXEC")
    told(play, "m:1", "EXEC")
    fail_over(play)
    told(play, "r:1", "EXEC").answers(b"-ERR EXEC without MULTI\r\n")
    client.hears(b"-ERR EXEC without MULTI\r\n")


def test_a_script_that_was_sent_is_uncertain_and_one_that_was_not_is_sent(play: Playbook) -> None:
    client = play.client().says("EVAL", "x", "0")
    told(play, "m:1", "EVAL x 0", exclusive=True)
    play.server("m:1").dies()
    client.hears_error("UNCERTAIN EVAL")
    client.says("EVAL", "x", "0")
    fail_over(play)
    told(play, "r:1", "EVAL x 0", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_a_cursor_is_asked_for_again_on_the_next_master_and_marked_as_its_own(play: Playbook) -> None:
    client = play.client().says("SCAN", "0")
    told(play, "m:1", "SCAN 0").answers(b"*2\r\n$2\r\n17\r\n*0\r\n")
    cursor, client.output = client.output.split(b"\r\n")[2].decode(), b""
    client.says("SCAN", cursor)
    told(play, "m:1", "SCAN 17")
    fail_over(play)
    told(play, "r:1", "SCAN 0").answers(b"*2\r\n$1\r\n0\r\n*0\r\n")
    client.hears(b"*2\r\n$1\r\n0\r\n*0\r\n")


def test_what_a_client_that_left_had_in_flight_is_nobodys_business(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    told(play, "m:1", "INCR a")
    client.leaves()
    fail_over(play)
    play.server("r:1").hears_nothing()
    assert play.stats.change.uncertain == 0


def test_a_refused_write_is_not_executed_behind_a_later_one(play: Playbook) -> None:
    """The server has become a master, or has loaded its data, between two commands. So it is on a plain Redis."""
    client = play.client().says("SET", "k", "1").says("SET", "k", "2")
    told(play, "m:1", "SET k 1", "SET k 2").answers(LOADING + OK)
    client.hears(LOADING + OK)
    play.wait(1)
    play.server("m:1").hears_nothing()


def test_a_refused_transaction_is_not_executed_behind_a_later_write(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "SET k 1", "EXEC", "SET k 2")
    told(play, "m:1", "MULTI", "SET k 1", "EXEC", "SET k 2").answers(OK + LOADING + EXECABORT + OK)
    client.hears(OK + LOADING + EXECABORT + OK)
    play.wait(1)
    play.server("m:1").hears_nothing()


def test_a_refused_script_is_not_executed_behind_a_later_write(play: Playbook) -> None:
    client = play.client().pipelines("EVAL x 0", "SET k v")
    told(play, "m:1", "EVAL x 0", "SET k v", exclusive=True).answers(READONLY + OK)
    client.hears(READONLY + OK)
    play.wait(1)
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize(
    ("later", "reply"),
    [
        ("PUBLISH c changed", b":1\r\n"),
        ("MODULE.CMD k", OK),
        ("EVAL x 1 k", b":1\r\n"),
        ("FCALL f 1 k", b"$-1\r\n"),
        ("EVAL x 1 k", b"-ERR half-way through. script: x, on @user_script:2.\r\n"),
    ],
)
def test_relaying__effect_behind_a_refusal__refusal_stands(play: Playbook, later: str, reply: bytes) -> None:
    client = play.client().pipelines("Set k 1", later)  # so spelled it is not plain, and travels with what follows
    told(play, "m:1", "Set k 1", later, exclusive=not later.startswith("PUBLISH")).answers(LOADING + reply)
    client.hears(LOADING + reply)
    play.wait(1)
    play.server("m:1").hears_nothing()


def test_relaying__error_behind_a_refusal__refused_again(play: Playbook) -> None:
    """What the server answers with an error had no effect: the refused write may still go in front of it."""
    client = play.client().pipelines("SET k 1", "PUBLISH c")
    told(play, "m:1", "SET k 1", "PUBLISH c").answers(LOADING + NO_ARGUMENTS)
    client.hears_nothing()
    play.wait(1)
    told(play, "m:1", "SET k 1").answers(OK)
    client.hears(OK + NO_ARGUMENTS)


@pytest.mark.parametrize("inside", ["EVAL x 1 k", "PUBLISH c changed"])
def test_relaying__block_with_effect_behind_a_refusal__stands(play: Playbook, inside: str) -> None:
    client = play.client().pipelines("SET k 1", "MULTI", inside, "EXEC")
    exclusive = inside.startswith("EVAL")
    told(play, "m:1", "SET k 1", *[] if exclusive else ["MULTI", inside, "EXEC"]).answers(LOADING)
    if exclusive:
        client.hears_nothing()  # the block waits for a connection of its own
    else:
        play.server("m:1").live[-1].answers(OK + QUEUED + b"*1\r\n:1\r\n")
        client.hears(LOADING + OK + QUEUED + b"*1\r\n:1\r\n")
        play.wait(1)
        play.server("m:1").hears_nothing()


def test_what_a_refused_client_may_say_is_bounded() -> None:
    play = Playbook(Policy(hold_bytes=4 << 20))
    play.topology(1, master="m:1")
    client = play.client()
    said = 0
    for _ in range(60):
        while not client.session.backlogged:
            client.says("SET", "k", "x" * 100_000)
            said += 100_000
        for one in play.server("m:1").live:
            count = len(one.commands)
            one.commands.clear()
            one.answers(READONLY * count)
        play.wait(0.25)
    assert said < 2 << 20
    client.hears_nothing()


def test_a_read_between_a_refused_write_and_a_later_one_is_answered_as_it_was(play: Playbook) -> None:
    client = play.client().says("SET", "k", "1").says("GET", "k").says("SET", "k", "2")
    told(play, "m:1", "SET k 1", "GET k", "SET k 2").answers(READONLY + b"$1\r\n0\r\n" + OK)
    client.hears(READONLY + b"$1\r\n0\r\n" + OK)
    play.wait(1)
    play.server("m:1").hears_nothing()


# --- a master that lacks its replicas (min-replicas-to-write)

ABORTED = b"-EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.\r\n"


def test_noreplicas__right_after_a_change__held(play: Playbook) -> None:
    fail_over(play)
    client = play.client().says("SET", "k", "v")
    told(play, "r:1", "SET k v").answers(NOREPLICAS)
    client.hears_nothing()
    play.wait(0.5)
    told(play, "r:1", "SET k v").answers(OK)
    client.hears(OK)


def test_noreplicas__first_master_of_all__passed_on(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    told(play, "m:1", "SET k v").answers(NOREPLICAS)
    client.hears(NOREPLICAS)


def test_noreplicas__five_seconds_after_a_change__passed_on(play: Playbook) -> None:
    fail_over(play)
    play.wait(4.9)
    client = play.client().says("INCR", "k")
    told(play, "r:1", "INCR k").answers(NOREPLICAS)
    client.hears_nothing()
    play.wait(0.5)
    told(play, "r:1", "INCR k").answers(NOREPLICAS)
    client.hears(NOREPLICAS)


def test_noreplicas__for_a_lost_write__asked_again(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v")
    play.wait(2.0)  # else the server might have died of it
    play.server("m:1").dies()
    fail_over(play)
    told(play, "r:1", "SET k v", exclusive=True).answers(NOREPLICAS)
    client.hears_nothing()
    play.wait(0.5)
    told(play, "r:1", "SET k v", exclusive=True).answers(OK)
    client.hears(OK)


@pytest.mark.parametrize("replies", [OK + QUEUED + ABORTED, OK + NOREPLICAS + EXECABORT])
def test_noreplicas__for_a_block__whole_block_asked_again(play: Playbook, replies: bytes) -> None:
    fail_over(play)
    client = play.client().pipelines("MULTI", "SET k v", "EXEC")
    told(play, "r:1", "MULTI", "SET k v", "EXEC").answers(replies)
    client.hears_nothing()
    play.wait(0.5)
    told(play, "r:1", "MULTI", "SET k v", "EXEC").answers(OK + QUEUED + b"*1\r\n+OK\r\n")
    client.hears(OK + QUEUED + b"*1\r\n+OK\r\n")


def test_noreplicas__for_a_script__asked_again_if_still_so(play: Playbook) -> None:
    """A script may make it up: a write that changes nothing tells."""
    fail_over(play)
    client = play.client().says("EVAL", "x", "1", "k")
    told(play, "r:1", "EVAL x 1 k", exclusive=True).answers(NOREPLICAS)
    play.server("r:1").hears("SETRANGE", "k", "0", "", exclusive=True).answers(NOREPLICAS)
    client.hears_nothing()
    play.wait(0.5)
    told(play, "r:1", "EVAL x 1 k", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_noreplicas__made_up_by_a_script__passed_on(play: Playbook) -> None:
    fail_over(play)
    client = play.client().says("EVAL", "x", "0")
    told(play, "r:1", "EVAL x 0", exclusive=True).answers(NOREPLICAS)
    play.server("r:1").hears("SETRANGE", "rfproxy:nothing", "0", "", exclusive=True).answers(b":0\r\n")
    client.hears(NOREPLICAS)
