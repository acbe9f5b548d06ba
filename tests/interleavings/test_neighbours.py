"""What one client does, or a server to it, is nobody else's harm: connections that are shared, pooled, or told of."""

from __future__ import annotations

from hashlib import sha1

import pytest

from rfprotocol.resp.resp import encode_command
from rfproxy.core.policy import Policy
from tests.support.playbook import FakeClient, FakeConnection, Playbook
from tests.unit.rfproxy.pinned.test_tracking_redirect import in_resp3, listener, own, redirect

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
DENIED = b"-NOPERM this user has no permissions to run this command\r\n"
DISCARD_DENIED = OK + QUEUED + DENIED


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def answer_all(play: Playbook, reply: bytes, server: str = "m:1") -> None:
    """Whatever the server has heard is answered with one reply."""
    play.settle()
    for connection in play.server(server).live:
        if connection.commands:
            connection.commands.clear()
            connection.answers(reply)


def lone(play: Playbook, server: str = "m:1") -> list[FakeConnection]:
    """Connections that belong to one client."""
    return [connection for connection in play.server(server).live if connection.lane.guest is not None]


def track_at(play: Playbook, tracker: FakeClient, target: FakeClient, reply: bytes = OK) -> None:
    """CLIENT TRACKING ON REDIRECT, answered."""
    tracker.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    answer_all(play, reply)
    tracker.hears(reply)


def fail_over(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    play.topology(3, master="r:1")


# --- connections that others use


@pytest.mark.parametrize("inside", ["SET a 1", "EVAL x 0"])
def test_a_connection_that_may_stand_behind_multi_is_nobody_elses(play: Playbook, inside: str) -> None:
    client, other = play.client().pipelines("MULTI", inside, "DISCARD"), play.client()
    play.settle()
    (connection,) = [c for c in play.server("m:1").live if c.commands]
    connection.commands.clear()
    connection.answers(DISCARD_DENIED)
    client.hears(DISCARD_DENIED)
    other.says(*inside.split())
    assert play.server("m:1").hears(*inside.split(), exclusive=inside.startswith("EVAL")) is not connection


def test_a_connection_in_debug_mode_is_nobody_elses() -> None:
    play = Playbook(Policy(allow_admin=True))
    play.topology(1, master="m:1", replicas=["r:1"])
    admin, other = play.client(), play.client()
    connection = own(play, admin, "SCRIPT DEBUG YES", OK)
    admin.hears(OK)
    other.says("EVAL", "return 1", "0")
    assert play.server("m:1").hears("EVAL", "return 1", "0", exclusive=True) is not connection


@pytest.mark.parametrize(
    "command",
    [
        [b"XREADGROUP", b"GROUP", b"streams", b"c", b"BLOCK", b"0", b"STREAMS", b"s", b">"],
        [b"XREADGROUP", b"GROUP", b"g", b"streams", b"BLOCK", b"0", b"STREAMS", b"s", b">"],
        [b"XREAD", b"BLOCK\0", b"0", b"STREAMS", b"s", b"$"],
    ],
    ids=range(3),
)
def test_what_blocks_never_blocks_a_connection_that_others_use(play: Playbook, command: list[bytes]) -> None:
    play.client().says(*command)
    play.server("m:1").hears(*command, exclusive=True)


def test_a_connection_that_was_opened_and_not_used_does_not_outlive_its_client(play: Playbook) -> None:
    target, tracker = in_resp3(play).says("BLPOP", "l", "0"), in_resp3(play)
    play.server("m:1").hears("BLPOP", "l", "0", exclusive=True)
    tracker.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    play.wait(31)
    own(play, tracker, "EVAL x 0", b":1\r\n")
    tracker.leaves()
    assert not [connection for connection in lone(play) if connection.lane.guest is tracker.session]


# --- refusals and failures that are one client's own


def test_a_script_that_makes_up_a_refusal_holds_nobody_and_is_executed_once(play: Playbook) -> None:
    client, other = play.client().says("EVAL", "evil", "0"), play.client()
    play.server("m:1").hears("EVAL", "evil", "0", exclusive=True).answers(READONLY)
    other.says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v")
    play.server("m:1").hears("PING", exclusive=True).answers(b"+PONG\r\n")
    client.hears(READONLY)


def test_a_script_that_a_replica_has_refused_is_executed_by_the_next_master(play: Playbook) -> None:
    client = play.client().says("EVAL", "good", "0")
    play.server("m:1").role = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"
    play.server("m:1").hears("EVAL", "good", "0", exclusive=True).answers(READONLY)
    fail_over(play)
    play.server("r:1").hears("EVAL", "good", "0", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_a_script_of_one_who_tracks_that_a_replica_has_refused_is_executed_by_the_next_master(play: Playbook) -> None:
    client = in_resp3(play)
    own(play, client, "CLIENT TRACKING ON", OK)
    play.server("m:1").role = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"
    client.output = b""
    own(play, client, "EVAL good 0", READONLY)
    play.server("m:1").hears_nothing()
    assert READONLY not in client.output
    fail_over(play)
    play.server("r:1").hears("CLIENT", "TRACKING", "ON", exclusive=True).answers(OK)
    play.server("r:1").hears("EVAL", "good", "0", exclusive=True).answers(b":1\r\n")
    assert client.output.endswith(b":1\r\n")


def test_a_connection_that_cannot_be_had_holds_no_writes_of_others(play: Playbook) -> None:
    other = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    play.server("m:1").denies[b"ROLE"] = b"-ERR max number of clients reached\r\n"
    client = play.client().says("EVAL", "x", "0")
    other.says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v")
    del play.server("m:1").denies[b"ROLE"]
    play.wait(0.1)
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_a_connection_that_dies_alone_costs_no_other_its_commands_in_flight(play: Playbook) -> None:
    client = play.client().says("EVAL", "incr", "0")
    connection = play.server("m:1").hears("EVAL", "incr", "0", exclusive=True)
    play.client().says("BLPOP", "l", "0")
    blocked = play.server("m:1").hears("BLPOP", "l", "0", exclusive=True)
    client.session.feed(encode_command([b"EVAL", b"incr", b"0"]), play.time)
    blocked.closed = True
    blocked.lane.lose(play.time)
    play.settle()
    assert not connection.closed
    client.hears_nothing()


def test_a_script_that_could_not_be_loaded_is_loaded_with_the_next_call(play: Playbook) -> None:
    body, busy = b"return 1", b"-BUSY Redis is busy running a script.\r\n"
    sha = sha1(body).hexdigest()
    client = play.client()
    own(play, client, "EVAL return1 0", b":1\r\n")
    client.says(b"EVAL", body, b"0")
    play.server("m:1").hears("EVAL", body, "0", exclusive=True).answers(b":1\r\n")
    fail_over(play)
    client.says("EVALSHA", sha, "0")
    connection = play.server("r:1").hears("SCRIPT", "LOAD", body, exclusive=True)
    play.server("r:1").hears("EVALSHA", sha, "0", exclusive=True)
    connection.answers(busy + busy)
    client.says("EVALSHA", sha, "0")
    play.server("r:1").hears("SCRIPT", "LOAD", body, exclusive=True)


# --- clients that are told of what others read


def test_two_that_redirect_to_each_other_survive_a_failover_and_keep_nobody_waiting(play: Playbook) -> None:
    one, two, other = in_resp3(play), in_resp3(play), play.client()
    track_at(play, one, two)
    track_at(play, two, one)
    play.topology(2, replicas=["r:1"])
    other.says("SET", "k", "v")
    play.topology(3, master="r:1")
    play.server("r:1").hears("SET", "k", "v")


def test_a_redirection_that_was_refused_binds_nobody(play: Playbook) -> None:
    targets, tracker = [in_resp3(play) for _ in range(5)], in_resp3(play)
    for target in targets:
        track_at(play, tracker, target, DENIED)
    tracker.leaves()
    assert not lone(play)


def test_a_target_that_reads_much_from_a_replica_goes_on_to_write_to_the_master(play: Playbook) -> None:
    target, tracker = in_resp3(play), in_resp3(play)
    target.sends(encode_command([b"GET", b"k"]) * 600)
    connection = play.server("r:1").hears("GET", "k", exclusive=True)
    tracker.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    connection.commands.clear()
    connection.answers(b"$1\r\nv\r\n" * 600)
    target.says("SET", "a", "1")
    play.server("m:1").hears("SET", "a", "1", exclusive=True)


def test_a_redirection_in_an_odd_spelling_names_no_connection_of_the_server(play: Playbook) -> None:
    in_resp3(play).says(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT\0", b"7001")
    play.settle()
    assert not [c for connection in play.server("m:1").live for c in connection.commands if b"7001" in c]


@pytest.mark.parametrize("the_killer_tracks", [True, False])
def test_the_reply_to_kill_comes_before_that_of_the_next_command(play: Playbook, the_killer_tracks: bool) -> None:
    killer = in_resp3(play)
    if the_killer_tracks:
        victim, connection = listener(play)
        redirect(play, killer, victim, connection.client_id)
    else:
        victim = in_resp3(play)
        track_at(play, victim, killer)
    killer.output = b""
    killer.pipelines(f"CLIENT KILL ID {victim.session.number}", "REPLICAOF x 1")
    answer_all(play, b":0\r\n")
    assert killer.output.find(b":1\r\n") < killer.output.find(b"-ERR REPLICAOF")


def test_kill_by_what_only_a_later_redis_knows_kills_no_connection_of_the_server(play: Playbook) -> None:
    client = play.client().says("CLIENT", "KILL", "MAXAGE", "1")
    play.settle()
    heard = [c for name in ("m:1", "r:1") for connection in play.server(name).live for c in connection.commands]
    assert [b"CLIENT", b"KILL", b"MAXAGE", b"1"] not in heard
    answer_all(play, b":0\r\n", "r:1")
    client.hears_error("ERR syntax error")


def test_unblock_meets_who_was_meant(play: Playbook) -> None:
    first, second, third = play.client().says("BLPOP", "x", "0"), play.client(), play.client()
    connection = play.server("m:1").hears("BLPOP", "x", "0", exclusive=True)
    second.session.feed(encode_command([b"CLIENT", b"UNBLOCK", b"%d" % first.session.number]), play.time)
    connection.lane.feed(b"*2\r\n$1\r\nx\r\n$1\r\n1\r\n", play.time)
    third.session.feed(encode_command([b"BLPOP", b"y", b"0"]), play.time)
    assert play.server("m:1").hears("BLPOP", "y", "0", exclusive=True) is not connection


# --- clients that do not read, and room that is not there


def test_who_stops_reading_does_not_stop_a_switchover(play: Playbook) -> None:
    client = play.client().says("EVAL", "return 1", "0")
    connection = play.server("m:1").hears("EVAL", "return 1", "0", exclusive=True)
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    client.session.choke(play.time, full=True)
    assert connection.read


def test_nothing_more_is_asked_for_a_client_once_it_is_choked(play: Playbook) -> None:
    client = play.client()
    write = client.write

    def filled(data: bytes) -> None:
        write(data)
        client.session.choke(play.time, full=True)

    client.write = filled  # type: ignore[method-assign]  # as asyncio does: from within write
    client.pipelines("REPLICAOF x 1", "EVAL big 0")
    assert not lone(play)


def test_who_reads_slowly_is_not_told_that_there_is_no_master(play: Playbook) -> None:
    client = play.client()
    play.topology(2, replicas=["r:1"])
    client.says("SET", "k", "v")
    client.session.choke(play.time, full=True)
    play.topology(3, master="r:1")
    play.wait(31)
    client.session.choke(play.time, full=False)
    play.server("r:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)


def test_where_there_is_no_room_to_hold_who_tracks_is_told_so() -> None:
    play = Playbook(Policy(hold_bytes=200))
    play.topology(1, master="m:1", replicas=["r:1"])
    client = in_resp3(play)
    own(play, client, "CLIENT TRACKING ON", OK)
    play.topology(2, replicas=["r:1"])
    client.output = b""
    client.says("SET", "k", "v" * 300)
    client.hears_error("MASTERDOWN no room")


def test_a_list_that_reads_like_a_message_is_an_answer_in_resp3(play: Playbook) -> None:
    client = in_resp3(play)
    own(play, client, "SUBSCRIBE ch", b">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n")
    own(play, client, "LRANGE l 0 -1", b"*2\r\n$7\r\nmessage\r\n$1\r\nx\r\n")
    client.says("SELECT", "1")
    play.server("m:1").hears("SELECT", "1", exclusive=True)
