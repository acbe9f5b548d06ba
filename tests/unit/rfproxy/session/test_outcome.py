"""A repeated write, of which the server that was lost may have executed the first."""

from __future__ import annotations

import pytest

from rfproxy.core.attempts import FATAL
from rfproxy.core.identity import Identity
from rfproxy.core.policy import Policy, Reads, RetryWrites
from tests.support.playbook import FakeClient, FakeConnection, Playbook
from tests.unit.rfproxy.session.test_responses import EXECABORT, LOADING, OK, QUEUED, READONLY, fail_over, told


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def lose_a_write(play: Playbook, *commands: str) -> FakeClient:
    """A client whose repeatable write waits for the next master. The blame is on the command of another client."""
    play.client().says("INCR", "head")
    client = play.client().pipelines(*commands)
    told(play, "m:1", "INCR head", *commands)
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
    play.server("r:1").refuses = True
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
    play.wait(FATAL + 0.1)
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
    play.wait(FATAL + 0.1)  # long enough to be known to wait
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
    play.wait(FATAL + 0.1)
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


# --- the blast radius of a command is its own client


@pytest.fixture
def group() -> Playbook:
    """A master and two replicas."""
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


SERVERS = ("m:1", "r:1", "r:2")


def test_read__its_servers_hang_up__is_sent_twice_and_answered(group: Playbook) -> None:
    client, sent = group.client().says("GET", "big"), 0
    for _ in range(200):
        group.settle()
        for name in SERVERS:
            if any(connection.commands for connection in group.server(name).live):
                sent += sum(len(connection.commands) for connection in group.server(name).live)
                group.server(name).hangs_up()
        group.wait(0.06)
    assert sent == 2
    client.hears_error("ERR rfproxy: GET was sent to 2 servers, and each ended the connection before it replied")
    assert not client.closed


def test_read__its_servers_hang_up__bystanders_at_the_master_notice_nothing(group: Playbook) -> None:
    group.client().says("GET", "big")
    for _ in range(50):
        group.settle()
        other = group.client().says("INCR", "n")
        for name in ("r:1", "r:2"):
            if any(connection.commands for connection in group.server(name).live):
                group.server(name).hangs_up()
        for connection in group.server("m:1").live:
            if [b"GET", b"big"] in connection.commands:
                connection.closed = True
                connection.lane.lose(group.time)
        group.server("m:1").hears("INCR", "n").answers(b":1\r\n")
        other.hears(b":1\r\n")
        group.wait(0.06)


@pytest.mark.parametrize("command", ["SETRANGE x 300000000 y", "INCR n", "BLPOP q 0", "EVAL x 0"])
def test_write__its_master_died_at_once__is_not_sent_to_the_next(group: Playbook, command: str) -> None:
    exclusive = command.startswith(("BLPOP", "EVAL"))
    client = group.client().says(*command.split())
    told(group, "m:1", command, exclusive=exclusive)
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.wait(5.0)
    for name in ("r:1", "r:2"):
        group.server(name).hears_nothing()
    client.hears_error(f"UNCERTAIN {command.split(maxsplit=1)[0]} may or may not have been applied: master m:1")


def test_small_write__its_master_was_killed__is_sent_to_the_next_alone(group: Playbook) -> None:
    client = group.client().pipelines("SET k v", "SET j w")
    told(group, "m:1", "SET k v", "SET j w")
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "SET k v", exclusive=True).answers(OK)
    told(group, "r:1", "SET j w", exclusive=True).answers(OK)
    client.hears(OK + OK)


def test_pipeline__two_servers_ended_it__is_answered_whole(group: Playbook) -> None:
    client = group.client().pipelines("GET a", "GET b", "GET c")
    for name in ("r:1", "r:2"):
        group.settle()
        assert any(connection.commands for connection in group.server(name).live)
        group.server(name).dies()
        group.wait(0.2)
    group.server("m:1").hears_nothing()
    group.settle()
    assert client.output.count(b"-ERR rfproxy: GET was sent to 2 servers") == 3


def test_write_behind_watch__its_master_died_at_once__is_not_sent_to_the_next(group: Playbook) -> None:
    client = group.client().says("WATCH", "k")
    told(group, "m:1", "WATCH k", exclusive=True).answers(OK)
    client.hears(OK)
    client.says("SETRANGE", "x", "300000000", "y")
    told(group, "m:1", "SETRANGE x 300000000 y", exclusive=True)
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.server("r:1").hears_nothing()
    client.hears_error("UNCERTAIN SETRANGE may or may not have been applied: master m:1 was lost")
    client.pipelines("MULTI", "GET k", "EXEC")
    client.hears(OK + b"+QUEUED\r\n*-1\r\n")


def test_write__only_its_connection_ended__is_sent_alone_to_the_same_master(group: Playbook) -> None:
    client, other = group.client().says("SET", "k", "v"), group.client().says("SET", "o", "v")
    told(group, "m:1", "SET k v", "SET o v")
    group.server("m:1").hangs_up()
    group.wait(0.1)
    group.server("m:1").hears("SET", "o", "v").answers(OK)
    group.server("m:1").hears("SET", "k", "v", exclusive=True).answers(OK)
    client.hears(OK)
    other.hears(OK)


def test_write__second_connection_ended__is_uncertain(group: Playbook) -> None:
    client = group.client().says("SET", "k", "v")
    told(group, "m:1", "SET k v")
    group.server("m:1").hangs_up()
    group.wait(0.1)
    told(group, "m:1", "SET k v", exclusive=True)
    group.server("m:1").hangs_up()
    group.wait(1.0)
    group.server("m:1").hears_nothing()
    client.hears_error("UNCERTAIN SET may or may not have been applied: master m:1")


def test_read__master_died_of_it__goes_to_a_replica_only() -> None:
    group = Playbook()
    group.topology(1, master="m:1", replicas=["r:1", "r:2"])
    client = group.client().pipelines("SET k v", "HGETALL big")
    told(group, "m:1", "SET k v", "HGETALL big").answers(OK)
    client.hears(OK)
    for name in ("r:1", "r:2"):
        group.server(name).refuses = True
    group.server("m:1").dies()
    group.wait(1.0)
    for name in ("r:1", "r:2"):
        group.server(name).hears_nothing()
        group.server(name).refuses = False
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.wait(0.2)
    group.server("r:1").hears_nothing()
    told(group, "r:2", "HGETALL big", exclusive=True).answers(b"$1\r\nx\r\n")
    client.hears(b"$1\r\nx\r\n")


def test_read__master_died_of_it_and_no_replica_is_left__is_answered() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says("HGETALL", "big")
    told(play, "m:1", "HGETALL big")
    play.server("m:1").dies()
    play.topology(2)
    play.topology(3, master="r:1")
    play.wait(1.0)
    told(play, "r:1", "MEMORY USAGE big", exclusive=True).answers(b":1048577\r\n")
    client.hears_error("ERR rfproxy: HGETALL was in execution when master m:1 ended the connection")
    play.server("r:1").hears_nothing()


@pytest.mark.parametrize("size", [b":1048576\r\n", b"$-1\r\n"])
def test_read_of_a_small_key__master_died_of_it_and_no_replica_is_left__is_sent_to_the_next(size: bytes) -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says("HGETALL", "small").says("GET", "behind")
    told(play, "m:1", "HGETALL small", "GET behind")
    play.server("m:1").dies()
    play.topology(2)
    play.topology(3, master="r:1")
    play.wait(1.0)
    told(play, "r:1", "MEMORY USAGE small", exclusive=True).answers(size)
    told(play, "r:1", "HGETALL small", exclusive=True).answers(b"*0\r\n")
    client.hears(b"*0\r\n")
    told(play, "r:1", "GET behind", exclusive=True).answers(b"$1\r\nx\r\n")
    client.hears(b"$1\r\nx\r\n")


def test_size_of_a_key__server_is_lost_before_it_says__is_asked_of_the_next() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says("HGETALL", "small")
    told(play, "m:1", "HGETALL small")
    play.server("m:1").dies()
    play.topology(2)
    play.topology(3, master="r:1")
    play.wait(1.0)
    told(play, "r:1", "MEMORY USAGE small", exclusive=True)
    play.server("r:1").dies()
    play.topology(4)
    play.topology(5, master="r:2")
    play.wait(1.0)
    told(play, "r:2", "MEMORY USAGE small", exclusive=True).answers(b":100\r\n")
    told(play, "r:2", "HGETALL small", exclusive=True).answers(b"*0\r\n")
    client.hears(b"*0\r\n")


@pytest.mark.parametrize("command", ["KEYS *", "LCS a b", "SUNION a b"])
def test_read_whose_cost_is_not_a_size__master_died_of_it_and_no_replica_is_left__is_answered(command: str) -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says(*command.split())
    told(play, "m:1", command)
    play.server("m:1").dies()
    play.topology(2)
    play.topology(3, master="r:1")
    play.wait(1.0)
    client.hears_error(
        f"ERR rfproxy: {command.split(maxsplit=1)[0]} was in execution when master m:1 ended the connection"
    )
    play.server("r:1").hears_nothing()


@pytest.mark.parametrize("command", ["PING", "SUBSCRIBE c", "SELECT 1", "GET k"])
def test_command_that_cannot_harm__its_master_died__is_sent_to_the_next(command: str) -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says(*command.split())
    play.settle()
    play.server("m:1").dies()
    play.topology(2)
    play.topology(3, master="r:1")
    play.wait(1.0)
    assert command.encode().split() in [args for one in play.server("r:1").live for args in one.commands + one.greeted]
    client.hears_nothing()


def test_bystander__two_connections_ended__travels_alone_then(group: Playbook) -> None:
    group.client().says("GETSET", "head", "v")
    client = group.client().says("SET", "k", "v")
    told(group, "m:1", "GETSET head v", "SET k v")
    group.server("m:1").hangs_up()
    group.client().says("GETSET", "head", "v")
    group.wait(0.1)
    heard = sorted(args[0] for connection in group.server("m:1").live for args in connection.commands)
    assert heard == [b"GETSET", b"SET"]
    group.server("m:1").hangs_up()
    group.wait(0.2)
    told(group, "m:1", "SET k v", exclusive=True).answers(OK)
    client.hears(OK)


def test_read_that_was_sent__nobody_can_be_asked__is_not_called_unsent() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says("GET", "k")
    told(play, "m:1", "GET k")
    play.topology(2)
    play.wait(31.0)
    error = client.hears_error("MASTERDOWN held for 30 s and not answered")
    assert "not sent" not in error


def test_read__asked_again_for_longer_than_the_hold_timeout__is_given_up() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    client = play.client().says("GET", "k")
    told(play, "m:1", "GET k")
    play.wait(20.0)
    play.server("m:1").dies()
    play.topology(2)
    client.hears_nothing()
    play.wait(11.0)
    client.hears_error("MASTERDOWN")


def test_script_in_doubt__nobody_can_be_asked__is_uncertain(play: Playbook) -> None:
    client = play.client().says("EVAL", "x", "0")
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(READONLY)
    play.server("m:1").refuses = True
    play.topology(2)
    play.wait(31.0)
    error = client.hears_error("UNCERTAIN EVAL may or may not have been applied: it was refused in words")
    assert "not sent" not in error


def test_blocking_pop__known_to_have_waited__is_asked_again(group: Playbook) -> None:
    client = group.client().says("BLPOP", "q", "0")
    told(group, "m:1", "BLPOP q 0", exclusive=True)
    group.wait(0.1)
    other = group.client().says("SET", "k", "v")
    told(group, "m:1", "SET k v").answers(OK)  # so the master has executed BLPOP, too, and it found nothing
    other.hears(OK)
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.wait(0.1)
    told(group, "r:1", "BLPOP q 0", exclusive=True).answers(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")
    client.hears(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")


def test_blocking_pop__sent_beside_what_was_answered__is_uncertain(group: Playbook) -> None:
    """On different connections either may arrive first."""
    client, other = group.client().says("BLPOP", "q", "0"), group.client().says("SET", "k", "v")
    group.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    group.server("m:1").hears("SET", "k", "v").answers(OK)
    other.hears(OK)
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.server("r:1").hears_nothing()
    client.hears_error("UNCERTAIN BLPOP")


@pytest.mark.parametrize("dies", [True, False])
def test_blocking_pop__waited_longer_than_any_hold__is_asked_again(group: Playbook, dies: bool) -> None:
    client = group.client().says("BLPOP", "q", "0")
    told(group, "m:1", "BLPOP q 0", exclusive=True)
    group.wait(60)
    if dies:
        group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.wait(0.1)
    told(group, "r:1", "BLPOP q 0", exclusive=True).answers(b"*-1\r\n")
    client.hears(b"*-1\r\n")


def test_blocking_read__its_master_died_at_once__is_asked_of_the_next(group: Playbook) -> None:
    client = group.client().says("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
    told(group, "m:1", "XREAD BLOCK 0 STREAMS s $", exclusive=True)
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "XREAD BLOCK 0 STREAMS s $", exclusive=True)
    client.hears_nothing()


def test_bystander__two_masters_ended__is_not_sent_to_a_third(group: Playbook) -> None:
    """Whichever of the commands it was: two servers have met it."""
    group.client().says("INCR", "head")
    client = group.client().says("SET", "a", "1"), group.client().says("SETRANGE", "x", "300000000", "y")
    told(group, "m:1", "INCR head", "SET a 1", "SETRANGE x 300000000 y")
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "SET a 1", "SETRANGE x 300000000 y")
    group.server("r:1").dies()
    group.topology(4, replicas=["r:2"])
    group.topology(5, master="r:2")
    group.wait(2.0)
    group.server("r:2").hears_nothing()
    for one, name in zip(client, ("SET", "SETRANGE"), strict=True):
        one.hears_error(f"UNCERTAIN {name} may or may not have been applied: master r:1")


CONFIRMATION = b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"


def test_suspect_of_a_tied_session__travels_alone_on_its_connection(group: Playbook) -> None:
    """What is sent with it would be the oldest in flight, and blamed in its stead."""
    client = group.client()
    client.session.become(Identity(protocol=3))
    client.says("SUBSCRIBE", "c")
    told(group, "m:1", "SUBSCRIBE c", exclusive=True).answers(CONFIRMATION)
    client.pipelines("SET a 1", "SET big 2", "SET c 3")
    told(group, "m:1", "SET a 1", "SET big 2", "SET c 3", exclusive=True)
    group.server("m:1").hangs_up()
    group.wait(0.1)
    own = told(group, "m:1", "SUBSCRIBE c", exclusive=True).answers(CONFIRMATION)
    told(group, "m:1", "SET a 1", exclusive=True)
    own.answers(OK)
    told(group, "m:1", "SET big 2", exclusive=True)
    group.server("m:1").hangs_up()
    group.wait(0.2)
    told(group, "m:1", "SUBSCRIBE c", exclusive=True).answers(CONFIRMATION)
    group.server("m:1").hears_nothing()
    uncertain = b"-UNCERTAIN SET may or may not have been applied: master m:1 was lost before it replied\r\n"
    client.hears(CONFIRMATION + OK + 2 * uncertain)


def test_loss__behind_what_restores_the_connection__blames_the_command(group: Playbook) -> None:
    client = group.client()
    client.session.become(Identity(protocol=3))
    client.says("SUBSCRIBE", "c")
    told(group, "m:1", "SUBSCRIBE c", exclusive=True).answers(CONFIRMATION)
    client.hears(CONFIRMATION)
    group.topology(2, replicas=["r:1", "r:2"])
    client.says("SETRANGE", "x", "300000000", "y")
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "SUBSCRIBE c", "SETRANGE x 300000000 y", exclusive=True)
    group.server("r:1").dies()
    group.topology(4, replicas=["r:2"])
    group.topology(5, master="r:2")
    told(group, "r:2", "SUBSCRIBE c", exclusive=True).answers(CONFIRMATION)
    group.server("r:2").hears_nothing()
    client.hears_error("UNCERTAIN SETRANGE may or may not have been applied: master r:1")


def test_read_behind_a_broken_watch__its_connections_ended__is_answered(group: Playbook) -> None:
    """It travels alone while MULTI waits behind it, and is not taken for a command of that transaction."""
    client = group.client().says("WATCH", "k")
    told(group, "m:1", "WATCH k", exclusive=True).answers(OK)
    client.pipelines("GET big", "MULTI")
    told(group, "m:1", "GET big", "MULTI", exclusive=True)
    group.server("m:1").hangs_up()
    group.wait(0.2)
    for name in SERVERS:
        group.server(name).hangs_up()
    group.wait(0.2)
    assert client.output.startswith(OK + b"-ERR rfproxy: GET was sent to 2 servers")
    assert client.output.endswith(b"\r\n" + OK)


def test_write__masters_were_replaced_while_silent__is_not_sent_to_a_third(group: Playbook) -> None:
    """A server that dies slowly, or is busy, is replaced before it ends its connections."""
    client = group.client().says("SETRANGE", "x", "300000000", "y")
    told(group, "m:1", "SETRANGE x 300000000 y")
    group.wait(2.0)
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "SETRANGE x 300000000 y", exclusive=True)
    group.wait(2.0)
    group.topology(4, replicas=["r:2"])
    group.topology(5, master="r:2")
    group.wait(1.0)
    group.server("r:2").hears_nothing()
    client.hears_error("UNCERTAIN SETRANGE may or may not have been applied: master r:1")


def test_write__behind_one_that_waits_for_long__is_as_old_as_itself(group: Playbook) -> None:
    older = group.client().says("SET", "a", "1")
    told(group, "m:1", "SET a 1")
    group.wait(31)
    younger = group.client().says("SET", "b", "2")
    told(group, "m:1", "SET b 2")
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "SET b 2").answers(OK)
    younger.hears(OK)
    older.hears_error("UNCERTAIN SET")


def test_suspect__idle_connections_die_with_the_shared_one__is_not_sent_on_them(group: Playbook) -> None:
    """Where the server was killed, they end in the same moment: that is no second server that it has harmed."""
    client = group.client().says("FCALL", "f", "0")
    told(group, "m:1", "FCALL f 0", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")
    client.pipelines("SET k v", "GET k")
    shared = told(group, "m:1", "SET k v", "GET k").answers(OK)
    client.hears(OK)
    for name in ("r:1", "r:2"):
        group.server(name).refuses = True
    group.server("m:1").refuses = group.server("m:1").silent = True
    shared.closed = True
    shared.lane.lose(group.time)
    group.wait(0.3)
    group.server("m:1").hears_nothing()
    group.server("m:1").dies()
    for name in ("r:1", "r:2"):
        group.server(name).refuses = False
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    group.wait(0.3)
    told(group, "r:2", "GET k", exclusive=True).answers(b"$1\r\nv\r\n")
    client.hears(b"$1\r\nv\r\n")


def dying(group: Playbook, connection: FakeConnection) -> None:
    """The master is killed: one of its connections has ended, the others are about to, and it executes no more."""
    group.server("m:1").refuses = group.server("m:1").silent = True
    connection.closed = True
    connection.lane.lose(group.time)
    group.settle()


def test_blocking_pop_that_waited__master_is_dying__is_not_sent_there_again(group: Playbook) -> None:
    """It would be lost for the second time, just sent, and be uncertain."""
    client = group.client().says("BLPOP", "q", "0")
    connection = told(group, "m:1", "BLPOP q 0", exclusive=True)
    group.client().says("EVAL", "x", "0")
    told(group, "m:1", "EVAL x 0", exclusive=True).answers(b":1\r\n")  # which leaves an idle connection
    group.wait(1.0)
    dying(group, connection)
    group.server("m:1").hears_nothing()
    group.server("m:1").dies()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "BLPOP q 0", exclusive=True).answers(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")
    client.hears(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")


def test_write_behind_an_uncertain_one__master_is_dying__waits_for_the_next(group: Playbook) -> None:
    client, bystander = group.client(), group.client().says("SET", "k", "v")
    told(group, "m:1", "SET k v").answers(OK)
    bystander.hears(OK)
    client.says("EVAL", "x", "0")
    dying(group, told(group, "m:1", "EVAL x 0", exclusive=True))
    client.hears_error("UNCERTAIN EVAL")
    client.says("INCR", "n")
    group.server("m:1").hears_nothing()
    group.server("m:1").dies()
    client.hears_nothing()
    group.topology(2, replicas=["r:1", "r:2"])
    group.topology(3, master="r:1", replicas=["r:2"])
    told(group, "r:1", "INCR n").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_pipeline__its_connection_ended__is_sent_again_on_one_connection(group: Playbook) -> None:
    """Each travels alone. A new connection for each would be a burden to the server, and idle afterwards."""
    words = [f"SET k{number} v" for number in range(20)]
    client = group.client().pipelines(*words)
    told(group, "m:1", *words)
    group.server("m:1").hangs_up()
    group.wait(0.1)
    for text in words:
        told(group, "m:1", text, exclusive=True).answers(OK)
    client.hears(OK * 20)
    assert len(group.server("m:1").lanes) == 2


def longest_wait(play: Playbook) -> float:
    return play.stats.change.longest_wait


def test_longest_wait__a_silent_master_is_replaced__counts_from_the_sending_to_the_answer() -> None:
    """The time for which nobody knew that the master is dead is the longest part of what clients wait."""
    play = Playbook()
    play.topology(master="m:1", replicas=["r:1"])
    repeated, uncertain = play.client().says("SET", "k", "v"), play.client().says("INCR", "k")
    told(play, "m:1", "SET k v", "INCR k")
    play.wait(1.4)
    play.topology(2, replicas=["r:1"])
    uncertain.hears_error("UNCERTAIN INCR")
    assert longest_wait(play) == pytest.approx(1.4)
    play.wait(0.2)
    play.topology(3, master="r:1")
    connection = play.server("r:1").hears("SET", "k", "v", exclusive=True)
    play.wait(0.3)
    connection.answers(b"+OK\r\n")
    repeated.hears(b"+OK\r\n")
    assert longest_wait(play) == pytest.approx(1.9)


def test_longest_wait__a_read_whose_server_was_silent__counts_until_another_one_has_answered() -> None:
    play = Playbook()
    play.topology(master="m:1", replicas=["r:1"])
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")
    play.wait(0.5)
    play.server("r:1").dies()
    connection = play.server("m:1").hears("GET", "k", exclusive=True)
    play.wait(0.25)
    connection.answers(b"$1\r\nv\r\n")
    client.hears(b"$1\r\nv\r\n")
    assert longest_wait(play) == pytest.approx(0.75)


def test_longest_wait__a_client_that_blocks_for_others__does_not_count() -> None:
    play = Playbook()
    play.topology(master="m:1", replicas=["r:1"])
    client = play.client().says("BLPOP", "l", "0")
    play.server("m:1").hears("BLPOP", "l", "0", exclusive=True)
    play.wait(20.0)
    play.server("m:1").dies()
    play.topology(2, replicas=["r:1"])
    play.wait(0.1)
    play.topology(3, master="r:1")
    play.server("r:1").hears("BLPOP", "l", "0", exclusive=True).answers(b"*-1\r\n")
    client.hears(b"*-1\r\n")
    assert longest_wait(play) < 1.0
