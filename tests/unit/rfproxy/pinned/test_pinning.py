"""Sessions with a connection of their own: blocking commands, slow ones, settings, tunnels."""

from __future__ import annotations

import pytest

from rfproxy.core.policy import Policy
from rfproxy.routing.dedicated_pool import WINDOWS
from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"


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
    client = play.client()
    first = own(play, client, "BLPOP q 10", b"*-1\r\n")
    assert own(play, play.client(), "BRPOP q 10") is first


def test_a_blocking_command_is_asked_again_after_a_failover_for_the_time_that_remains(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "10")
    play.server("m:1").hears("BLPOP", "q", "10", exclusive=True)
    play.wait(4.0)
    fail_over(play)
    play.server("r:1").hears("BLPOP", "q", "6.000", exclusive=True).answers(b"*-1\r\n")
    client.hears(b"*-1\r\n")


def test_the_time_goes_on_over_several_failovers(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "10")
    play.wait(4.0)
    fail_over(play)
    play.server("r:1").hears("BLPOP", "q", "6.000", exclusive=True)
    play.wait(4.0)
    play.topology(4)
    play.wait(1.5)
    play.topology(5, master="m:1")
    play.server("m:1").live[-1].commands.clear()
    client.hears_nothing()
    play.topology(6)
    play.wait(0.5)
    play.topology(7, master="r:1")
    client.hears(b"*-1\r\n")


def test_a_blocking_command_whose_time_is_over_before_there_is_a_master_says_that_nothing_came(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "2")
    play.server("m:1").hears("BLPOP", "q", "2", exclusive=True)
    play.topology(2, replicas=["r:1"])
    play.wait(3.0)
    play.topology(3, master="r:1")
    play.server("r:1").hears_nothing()
    client.hears(b"*-1\r\n")


def test_a_blocking_command_that_is_held_too_long_is_answered_masterdown(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    client = play.client().says("BLPOP", "q", "0")
    play.wait(30.0)
    client.hears_error("MASTERDOWN held for 30 s")
    play.topology(3, master="r:1")
    play.server("r:1").hears_nothing()


def test_a_blocking_command_that_was_held_has_all_its_time_once_it_is_sent(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    play.client().says("BLPOP", "q", "10")
    play.wait(4.0)
    play.topology(3, master="r:1")
    play.server("r:1").hears("BLPOP", "q", "10", exclusive=True)


def test_a_blocking_command_that_a_demotion_unblocks_is_asked_again(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1, 2], "a blocking command does not delay a planned change"
    connection.answers(b"-UNBLOCKED force unblock from blocking operation, instance state changed\r\n")
    play.topology(3, master="r:1", replicas=["m:1"])
    play.server("r:1").hears("BLPOP", "q", "0", exclusive=True)
    client.hears_nothing()


def test_an_element_that_comes_while_the_master_is_drained_is_relayed(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    connection.answers(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")
    client.hears(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")


def test_a_blocking_command_that_a_replica_refuses_is_asked_again_elsewhere(play: Playbook) -> None:
    client = play.client()
    own(play, client, "BLPOP q 0", READONLY)
    client.hears_nothing()
    play.wait(0.1)
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True).answers(b"*-1\r\n")
    client.hears(b"*-1\r\n")


def test_a_client_that_leaves_takes_its_blocking_command_along(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "BLPOP q 0")
    client.leaves()
    assert connection.closed


BARRIERS = {
    "7.0.15": ("PING",),
    **dict.fromkeys(["7.2.0", "7.2.4", "7.4.0", "8.0.0"], ("SPUBLISH", "rfproxy:durable", "")),
}
"""By version, what goes out in front of WAIT. All versions of Valkey say that they are Redis 7.2.4."""


@pytest.fixture(params=BARRIERS)
def version(request: pytest.FixtureRequest) -> str:
    """Of all servers."""
    return str(request.param)


@pytest.fixture
def of_version(version: str) -> Playbook:
    play = Playbook()
    play.server("m:1").version = play.server("r:1").version = version
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


def writer(play: Playbook) -> FakeClient:
    """A client whose write was acknowledged."""
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    return client


def waits(play: Playbook, barrier: tuple[str, ...], command: str) -> FakeConnection:
    """The master hears WAIT behind the barrier, and nothing else."""
    play.server("m:1").hears(*barrier, exclusive=True)
    connection = play.server("m:1").hears(*command.split(), exclusive=True)
    play.server("m:1").hears_nothing()
    return connection


def test_wait__after_a_write__asks_behind_a_barrier(of_version: Playbook, version: str) -> None:
    client = writer(of_version).says("WAIT", "1", "100")
    waits(of_version, BARRIERS[version], "WAIT 1 100").answers(b":0\r\n:1\r\n")
    client.hears(b":1\r\n")


@pytest.mark.parametrize("version", ["7.2.0", "8.0.0"])
def test_waitaof__after_a_write__asks_behind_a_barrier(of_version: Playbook, version: str) -> None:
    client = writer(of_version).says("WAITAOF", "1", "1", "100")
    waits(of_version, BARRIERS[version], "WAITAOF 1 1 100").answers(b":0\r\n*2\r\n:1\r\n:0\r\n")
    client.hears(b"*2\r\n:1\r\n:0\r\n")


def test_wait__in_the_packet_of_the_write__asks_behind_a_barrier(of_version: Playbook, version: str) -> None:
    client = of_version.client().pipelines("SET k v", "WAIT 1 100")
    of_version.server("m:1").hears("SET", "k", "v").answers(OK)
    waits(of_version, BARRIERS[version], "WAIT 1 100").answers(b":0\r\n:1\r\n")
    client.hears(OK + b":1\r\n")


@pytest.mark.parametrize("packets", [["MULTI", "SET k v", "EXEC", "WAIT 1 9"], ["MULTI\nSET k v\nEXEC", "WAIT 1 9"]])
def test_wait__after_exec__asks_behind_a_barrier(of_version: Playbook, version: str, packets: list[str]) -> None:
    client = of_version.client()
    for packet in packets:
        client.pipelines(*packet.split("\n"))
    master = of_version.server("m:1")
    for connection in [one for one in master.live if one.commands]:
        connection.commands.clear()
        connection.answers(OK + QUEUED + b"*1\r\n+OK\r\n")
    waits(of_version, BARRIERS[version], "WAIT 1 9").answers(b":0\r\n:1\r\n")
    client.hears(OK + QUEUED + b"*1\r\n+OK\r\n:1\r\n")


@pytest.mark.parametrize("packets", [["MULTI", "SET k v", "WAIT 1 9", "EXEC"], ["MULTI\nSET k v\nWAIT 1 9\nEXEC"]])
def test_wait__inside_multi__claims_no_replica(of_version: Playbook, version: str, packets: list[str]) -> None:
    """It waits for nothing there, and what it counts since 7.2 is about a write of somebody else."""
    client = of_version.client()
    for packet in packets:
        client.pipelines(*packet.split("\n"))
    for command in ("MULTI", "SET k v", "WAIT 1 9", "EXEC"):
        connection = of_version.server("m:1").hears(*command.split(), exclusive=True)
    connection.answers(OK + QUEUED * 2 + b"*2\r\n+OK\r\n:2\r\n")
    counted = b":2\r\n" if version == "7.0.15" else b":0\r\n"
    client.hears(OK + QUEUED * 2 + b"*2\r\n+OK\r\n" + counted)


def test_wait__barrier_denied__error_instead_of_a_number(of_version: Playbook, version: str) -> None:
    client = writer(of_version).says("WAIT", "1", "100")
    denied = b"-NOPERM No permissions to access a channel\r\n"
    waits(of_version, BARRIERS[version], "WAIT 1 100").answers(denied + b":2\r\n")
    error = client.hears_error("NOPERM WAIT ")
    assert "SPUBLISH on the channel rfproxy:durable" in error
    assert error.endswith("No permissions to access a channel\r\n")


def test_a_wait_that_dies_between_its_two_replies_is_asked_again(play: Playbook) -> None:
    play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    client = writer(play).says("WAIT", "1", "1000")
    master = play.server("m:1")
    master.hears("PING", exclusive=True)
    master.hears("WAIT", "1", "1000", exclusive=True).answers(b"+PONG\r\n")
    play.wait(0.25)
    fail_over(play)
    play.server("r:1").hears("PING", exclusive=True)
    play.server("r:1").hears("WAIT", "1", "750", exclusive=True).answers(b"+PONG\r\n:0\r\n")
    client.hears(b":0\r\n")


def test_an_error_of_a_blocking_command_is_relayed(play: Playbook) -> None:
    client = play.client()
    own(play, client, "BLPOP q -1", b"-ERR timeout is negative\r\n")
    client.hears(b"-ERR timeout is negative\r\n")


def test_a_blocking_command_that_could_not_be_sent_is_never_sent_on_a_shared_connection(play: Playbook) -> None:
    play.server("m:1").refuses = True
    play.client().says("BLPOP", "q", "0")
    play.server("m:1").refuses = False
    play.wait(1.0)
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)


def test_a_blocking_command_waits_for_what_was_said_before_it(play: Playbook) -> None:
    client = play.client().pipelines("GET k", "BLPOP q 0")
    read = play.server("r:1").hears("GET", "k")
    play.server("m:1").hears_nothing()
    read.answers(b"$-1\r\n")
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    client.hears(b"$-1\r\n")


# --- what takes long


@pytest.mark.parametrize("command", ["EVAL return 0", "NOPE x", "SET k " + "v" * (1 << 20)])
def test_what_may_take_long_travels_where_nobody_waits_behind_it(play: Playbook, command: str) -> None:
    client, other = play.client(), play.client()
    connection = own(play, client, command)
    other.says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    other.hears(b":1\r\n")
    connection.answers(OK)
    client.hears(OK)
    assert own(play, other, "EVAL return 0") is connection, "it is for the next one now"


def test_a_script_that_was_sent_and_not_answered_is_uncertain(play: Playbook) -> None:
    client = play.client()
    own(play, client, "EVAL return 0")
    fail_over(play)
    client.hears_error("UNCERTAIN EVAL")


def test_a_big_value_that_was_sent_and_not_answered_is_sent_again_and_never_on_a_shared_connection(
    play: Playbook,
) -> None:
    client = play.client()
    value = "v" * (1 << 20)
    own(play, client, f"SET k {value}")
    fail_over(play)
    play.server("r:1").hears("SET", "k", value, exclusive=True).answers(OK)
    client.hears(OK)


def test_a_planned_change_waits_for_a_script(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "EVAL return 0")
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1]
    connection.answers(b":1\r\n")
    client.hears(b":1\r\n")
    assert play.acknowledged == [1, 2]


def test_a_script_is_loaded_ahead_where_it_is_not_known_and_that_is_not_heard(play: Playbook) -> None:
    client = play.client()
    own(play, client, "SCRIPT LOAD return", b"$40\r\n63143b6f8007b98c53ca2149822777b3566f9241\r\n")
    client.output = b""
    fail_over(play)
    client.says("EVALSHA", "63143b6f8007b98c53ca2149822777b3566f9241", "0")
    new = play.server("r:1")
    new.hears("SCRIPT", "LOAD", "return", exclusive=True)
    connection = new.hears("EVALSHA", "63143b6f8007b98c53ca2149822777b3566f9241", "0", exclusive=True)
    connection.answers(b"$40\r\n63143b6f8007b98c53ca2149822777b3566f9241\r\n$-1\r\n")
    client.hears(b"$-1\r\n")


# --- whoever is gone makes nobody wait


@pytest.mark.parametrize("command", ["SUBSCRIBE c", "BLPOP q 0", "WATCH k", "CLIENT TRACKING ON", "EVAL return 0"])
def test_a_client_that_leaves_does_not_make_others_wait(play: Playbook, command: str) -> None:
    client = play.client().pipelines(command)
    client.leaves()
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


@pytest.mark.parametrize("command", ["BLPOP q 0", "SUBSCRIBE c", "MONITOR"])
def test_nothing_is_waited_for_on_behalf_of_a_client_that_has_closed_its_side(play: Playbook, command: str) -> None:
    client = play.client().pipelines("INCR k", command)
    client.session.finish(play.time)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")
    assert client.closed
    play.server("m:1").hears_nothing()


def test_unused_connections_of_ones_own_are_closed_in_time(play: Playbook) -> None:
    connection = own(play, play.client(), "BLPOP q 0", b"*-1\r\n")
    for _ in range(WINDOWS + 1):
        play.time += 15
        play.router.reap(play.time)
    assert connection.closed


# --- CLIENT TRACKING

FORGET = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
INVALID = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


def tracking(play: Playbook, options: str = "") -> FakeClient:
    """A client that is told in RESP3 what has changed."""
    client = in_resp3(play)
    own(play, client, f"CLIENT TRACKING ON {options}".strip(), OK)
    client.hears(OK)
    return client


def test_who_tracks_reads_on_its_own_connection_and_is_told_what_changed(play: Playbook) -> None:
    client = tracking(play)
    connection = own(play, client, "GET k", b"$1\r\n1\r\n" + INVALID)
    client.hears(b"$1\r\n1\r\n" + INVALID)
    own(play, client, "GET k", INVALID + b"$1\r\n2\r\n")
    client.hears(INVALID + b"$1\r\n2\r\n")
    own(play, client, "CLIENT TRACKING OFF", OK)
    assert connection.closed
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_after_a_failover_everything_is_to_be_forgotten_and_it_is_tracked_again(play: Playbook) -> None:
    client = tracking(play, "NOLOOP")
    play.topology(2, replicas=["r:1"])
    client.hears(FORGET)
    play.topology(3, master="r:1")
    connection = play.server("r:1").hears("CLIENT", "TRACKING", "ON", "NOLOOP", exclusive=True)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k", exclusive=True)
    connection.answers(OK + b"_\r\n" + INVALID)
    client.hears(b"_\r\n" + INVALID)


def test_a_read_that_was_lost_is_asked_again_behind_the_new_tracking(play: Playbook) -> None:
    client = tracking(play)
    own(play, client, "GET k")
    fail_over(play)
    client.hears(FORGET)
    new = play.server("r:1")
    new.hears("CLIENT", "TRACKING", "ON", exclusive=True)
    new.hears("GET", "k", exclusive=True).answers(OK + b"_\r\n")
    client.hears(b"_\r\n")


def test_prefixes_of_broadcasts_add_up_and_are_all_restored(play: Playbook) -> None:
    client = tracking(play, "BCAST PREFIX a")
    own(play, client, "CLIENT TRACKING ON BCAST PREFIX b", OK)
    client.hears(OK)
    fail_over(play)
    new = play.server("r:1")
    new.hears("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a", exclusive=True)
    new.hears("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "b", exclusive=True).answers(OK + OK)
    client.hears(FORGET)


def test_a_refused_tracking_leaves_the_session_where_it_was(play: Playbook) -> None:
    client = play.client()
    connection = own(play, client, "CLIENT TRACKING ON PREFIX a", b"-ERR PREFIX option requires BCAST mode\r\n")
    client.hears(b"-ERR PREFIX option requires BCAST mode\r\n")
    assert connection.closed
    fail_over(play)
    client.hears_nothing()


def test_tracking_whose_connection_dies_before_it_is_answered_is_asked_again(play: Playbook) -> None:
    client = in_resp3(play)
    own(play, client, "CLIENT TRACKING ON")
    fail_over(play)
    client.hears_nothing()
    play.server("r:1").hears("CLIENT", "TRACKING", "ON", exclusive=True).answers(OK)
    client.hears(OK)


def test_a_transaction_of_one_who_tracks_is_restored_behind_the_tracking(play: Playbook) -> None:
    client = tracking(play)
    own(play, client, "MULTI", OK)
    own(play, client, "GET k", QUEUED)
    client.hears(OK + QUEUED)
    fail_over(play)
    client.hears(FORGET)
    new = play.server("r:1")
    new.hears("CLIENT", "TRACKING", "ON", exclusive=True)
    new.hears("MULTI", exclusive=True)
    new.hears("GET", "k", exclusive=True).answers(OK + OK + QUEUED)
    own(play, client, "EXEC", b"*1\r\n_\r\n", server="r:1")
    client.hears(b"*1\r\n_\r\n")


def test_reset_ends_the_tracking(play: Playbook) -> None:
    client = tracking(play)
    client.says("RESET").hears(b"+RESET\r\n")
    fail_over(play)
    client.hears_nothing()


def test_no_touch_is_set_again_and_nothing_is_to_be_forgotten_for_it(play: Playbook) -> None:
    play.server("m:1").version = play.server("r:1").version = "7.2.4"
    client = in_resp3(play)
    own(play, client, "CLIENT NO-TOUCH ON", OK)
    client.hears(OK)
    fail_over(play)
    play.server("r:1").hears("CLIENT", "NO-TOUCH", "ON", exclusive=True).answers(OK)
    client.hears_nothing()


# --- what only an administrator may do


@pytest.fixture
def admin() -> Playbook:
    play = Playbook(Policy(allow_admin=True))
    play.topology(1, master="m:1")
    return play


def test_behind_sync_client_and_master_talk_to_each_other(admin: Playbook) -> None:
    client = admin.client().pipelines("PSYNC ? -1")
    connection = admin.server("m:1").hears("PSYNC", "?", "-1", exclusive=True)
    for data in (b"+FULLRESYNC x 0\r\n$9\r\nREDIS", b"0011garbage that is no reply"):
        connection.answers(data)
        client.hears(data)
    connection.writes.clear()
    client.sends(b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n0")
    client.sends(b"\r\n")
    assert b"".join(connection.writes) == b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n0\r\n"


def test_what_stands_behind_sync_in_its_packet_is_passed_on_once_and_in_order(admin: Playbook) -> None:
    client = admin.client().sends(
        b"*1\r\n$4\r\nSYNC\r\n*1\r\n$4\r\nPING\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n*1\r\n$4\r\nPI"
    )
    connection = admin.server("m:1").hears("SYNC", exclusive=True)
    client.sends(b"NG\r\n")
    for command in (["PING"], ["SELECT", "1"], ["PING"]):
        admin.server("m:1").hears(*command, exclusive=True)
    admin.server("m:1").hears_nothing()
    connection.answers(b"+PONG\r\n")
    client.hears(b"+PONG\r\n")


@pytest.mark.parametrize("event", ["fails over", "is drained", "hangs up"])
def test_a_tunnel_ends_with_the_master_and_is_not_dug_again(admin: Playbook, event: str) -> None:
    client = admin.client().says("SYNC")
    connection = admin.server("m:1").hears("SYNC", exclusive=True)
    if event == "hangs up":
        admin.server("m:1").hangs_up()
    else:
        admin.topology(2, draining=("m:1", "m:2") if event == "is drained" else None)
        assert admin.acknowledged == [1, 2]
        admin.topology(3, master="m:2")
    assert (client.closed, connection.closed) == (True, True)
    admin.server("m:2").hears_nothing()


def test_a_client_that_leaves_takes_its_tunnel_along(admin: Playbook) -> None:
    client = admin.client().says("SYNC")
    connection = admin.server("m:1").hears("SYNC", exclusive=True)
    client.leaves()
    assert connection.closed


def test_sync_is_refused_to_all_others(play: Playbook) -> None:
    assert "connect to that server itself" in play.client().says("SYNC").hears_error("ERR SYNC")


# --- the client's name at the server


def named(play: Playbook, name: str) -> FakeClient:
    client = play.client()
    client.session.name = name.encode()  # as it is when the server has accepted CLIENT SETNAME
    return client


@pytest.mark.parametrize(
    ("command", "reply", "heard"),
    [
        ("EVAL x 0", b":1\r\n", b":1\r\n"),
        ("BLPOP q 0", b"*-1\r\n", b"*-1\r\n"),
        ("WATCH k", OK, OK),
        ("MULTI", OK, OK),
        ("SUBSCRIBE c", b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
    ],
)
def test_dedicated_connection__client_has_a_name__bears_it(
    play: Playbook, command: str, reply: bytes, heard: bytes
) -> None:
    client = named(play, "app").says(*command.split())
    play.server("m:1").hears("CLIENT", "SETNAME", "app", exclusive=True)
    play.server("m:1").hears(*command.split(), exclusive=True).answers(OK + reply)
    client.hears(heard)


def test_dedicated_connection__taken_by_another_client__bears_its_name(play: Playbook) -> None:
    for name in ("one", "two", ""):
        client = named(play, name).says("EVAL", "x", "0")
        play.server("m:1").hears("CLIENT", "SETNAME", name, exclusive=True)
        play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(OK + b":1\r\n")
        client.hears(b":1\r\n")
        client.says("EVAL", "x", "0")
        play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":1\r\n")
        client.hears(b":1\r\n")


def test_dedicated_connection__name_is_denied_there__serves_all_the_same(play: Playbook) -> None:
    client = named(play, "app").says("EVAL", "x", "0")
    play.server("m:1").hears("CLIENT", "SETNAME", "app", exclusive=True)
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b"-NOPERM no\r\n:1\r\n")
    client.hears(b":1\r\n")
    assert not client.closed


def test_dedicated_connection__dies_of_a_script_behind_a_name__script_is_blamed(play: Playbook) -> None:
    client = named(play, "app").says("EVAL_RO", "x", "0")
    play.server("m:1").hears("CLIENT", "SETNAME", "app", exclusive=True)
    connection = play.server("m:1").hears("EVAL_RO", "x", "0", exclusive=True)
    assert connection.lane.in_flight[-1].attempts.blamed == 0
    for _ in range(2):
        play.server("m:1").hangs_up()
        play.wait(1.0)
        for one in play.server("m:1").live:
            one.commands.clear()
    client.hears_error("ERR rfproxy: EVAL_RO was sent to 2 servers")
