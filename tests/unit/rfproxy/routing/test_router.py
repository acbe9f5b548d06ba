"""The router: which server, under which topology and lease, and when an epoch may be acknowledged."""

from __future__ import annotations

import pytest

from rfproxy.core.identity import Identity
from rfproxy.core.policy import Policy, Reads
from rfproxy.routing.dedicated_pool import WINDOWS
from rfproxy.routing.router import IDLE
from rfproxy.session.session import Session
from tests.support.playbook import Playbook

OK = b"+OK\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"], run_id="one")
    play.server("m:1").run_id = "one"
    return play


def test_a_session_always_reads_from_the_same_replica_while_it_is_there(play: Playbook) -> None:
    client = play.client()
    for _ in range(3):
        client.says("GET", "k")
        play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")


def test_reads_go_to_the_master_when_there_is_no_replica_and_that_is_counted(play: Playbook) -> None:
    play.topology(1, master="m:1", run_id="one")
    play.client().says("GET", "k")
    play.server("m:1").hears("GET", "k")
    assert play.stats.spilled == 1


def test_a_replica_that_failed_is_passed_over_and_tried_again_later(play: Playbook) -> None:
    play.server("r:1").refuses = True
    client = play.client().says("GET", "k")
    play.server("r:2").hears("GET", "k").answers(b"$-1\r\n")
    play.server("r:1").refuses = False
    play.wait(0.2)
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_a_master_that_was_restarted_is_not_written_to(play: Playbook) -> None:
    play.server("m:1").run_id = "two"
    client = play.client().says("INCR", "k")
    play.wait(1.0)
    play.server("m:1").hears_nothing()
    client.hears_nothing()
    play.topology(2)
    play.topology(3, master="m:1", run_id="two")
    play.server("m:1").hears("INCR", "k")


def test_a_replica_that_has_not_synchronised_is_not_read_from(play: Playbook) -> None:
    play.server("r:1").role = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$4\r\nsync\r\n:-1\r\n"
    play.client().says("GET", "k")
    play.server("r:2").hears("GET", "k")


def test_without_any_topology_everything_waits() -> None:
    play = Playbook()
    client = play.client().says("GET", "k")
    client.hears_nothing()
    play.topology(1, master="m:1")
    play.server("m:1").hears("GET", "k")


# --- acknowledgements


def test_an_epoch_without_a_master_is_acknowledged_at_once_and_its_connections_are_closed(play: Playbook) -> None:
    play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(2, replicas=["r:1", "r:2"])
    assert play.acknowledged == [1, 2]
    assert connection.closed


def test_a_drain_that_turns_into_a_failover_is_not_waited_for(play: Playbook) -> None:
    play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1]
    play.topology(3, replicas=["r:1"])
    assert play.acknowledged == [1, 3]
    assert connection.closed


def test_a_drain_is_acknowledged_when_the_connection_dies(play: Playbook) -> None:
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    play.server("m:1").dies()
    assert play.acknowledged == [1, 2]


def test_replicas_that_come_and_go_disturb_no_writes(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(1, master="m:1", replicas=["r:2"], run_id="one")
    connection.answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_replica__delisted_while_it_is_busy__answers_the_reads_in_flight(play: Playbook) -> None:
    client, other = play.client().says("GET", "k"), play.client()
    connection = play.server("r:1").hears("GET", "k")
    play.topology(1, master="m:1", replicas=["r:2"], run_id="one")
    other.says("GET", "k")
    play.server("r:2").hears("GET", "k").answers(b"$-1\r\n")
    other.hears(b"$-1\r\n")
    connection.answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    assert connection.closed


def test_replica__delisted_while_it_is_busy__delays_no_acknowledgement(play: Playbook) -> None:
    play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")
    play.topology(2, replicas=["r:2"])
    assert play.acknowledged[-1] == 2


# --- housekeeping


def test_lanes_of_databases_that_nobody_uses_are_closed(play: Playbook) -> None:
    client = play.client()
    client.session.become(Identity(db=3))
    client.says("GET", "k")
    connection = play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    client.leaves()
    play.time += IDLE + 1
    play.router.reap(play.time)
    assert connection.closed


def test_reap__session_is_silent__keeps_the_lanes_of_its_identity(play: Playbook) -> None:
    """Its password may have been changed since: on Redis its connection would go on."""
    client = play.client()
    client.session.become(Identity(db=3))
    client.says("GET", "k")
    connection = play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    play.time += IDLE + 1
    play.router.reap(play.time)
    assert not connection.closed
    client.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_what_clients_went_through_is_counted_for_the_receipt(play: Playbook) -> None:
    play.topology(2, replicas=["r:1", "r:2"])
    play.client().says("INCR", "k")
    play.wait(0.5)
    play.topology(3, master="r:1", replicas=["r:2"])
    assert play.stats.change.held == 1
    assert play.stats.change.longest_wait == pytest.approx(0.5)


def test_an_epoch_is_not_acknowledged_before_the_last_connection_is_drained(play: Playbook) -> None:
    idle = play.client().says("SET", "a", "1")
    play.server("m:1").hears("SET", "a", "1").answers(OK)
    idle.hears(OK)
    busy = play.client()
    busy.session.become(Identity(db=1))
    busy.says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(2, replicas=["r:1"], draining=("m:1", "r:1"))
    assert play.acknowledged == [1]
    connection.answers(b":1\r\n")
    assert play.acknowledged == [1, 2]


def test_one_alarm_does_not_make_the_router_forget_another(play: Playbook) -> None:
    play.topology(1, master="m:1", replicas=["r:1"], run_id="one")
    play.server("m:1").refuses = True
    play.client().says("GET", "x")
    play.server("r:1").hears("GET", "x")
    play.client().says("INCR", "k")
    play.wait(0.16)
    play.server("r:1").hangs_up()
    play.server("m:1").refuses = False
    play.wait(5.0)
    play.server("m:1").hears("INCR", "k")


def test_an_alarm_that_rings_a_hair_too_early_is_set_again(play: Playbook) -> None:
    until = play.router.gate.rest(play.time)
    play.client().says("INCR", "k")
    play.alarm = None
    play.router.tick(until - 0.0001)
    assert play.alarm == until


def test_commands_behind_a_resting_master_wait_for_it_without_a_loop(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    play.server("m:1").hears("INCR", "a")
    play.router.rest(play.server("m:1").live[0].lane, play.time)
    client.says("INCR", "b")
    play.server("m:1").hears_nothing()
    play.wait(1.0)
    play.server("m:1").live[0].answers(b":1\r\n")
    play.server("m:1").hears("INCR", "b")


def test_attempts_at_a_master_that_cannot_be_reached_do_not_make_a_client_wait_for_longer(play: Playbook) -> None:
    play.topology(2, master="m:1")
    play.server("m:1").refuses = True
    client = play.client().says("SET", "k", "v")
    play.wait(29.0)
    assert not client.output
    assert play.router.stats.change.held == 1, "however often it was tried"
    play.wait(1.5)
    client.hears_error("MASTERDOWN held for 30 s")
    client.says("SET", "k", "v")
    play.wait(29.0)
    assert not client.output, "the next command has a patience of its own"


def test_the_longest_wait_lasts_from_the_first_attempt_to_the_one_that_succeeds(play: Playbook) -> None:
    play.topology(2, master="m:1")
    play.server("m:1").refuses = True
    play.client().says("SET", "k", "v")
    play.wait(4.0)
    play.topology(3)
    play.wait(1.0)
    play.topology(4, master="m:2")
    play.server("m:2").hears("SET", "k", "v")
    assert play.router.stats.change.longest_wait >= 5.0


def test_who_has_waited_for_attempts_in_vain_hears_so_in_time_whoever_came_later(play: Playbook) -> None:
    play.topology(2, master="m:1")
    play.server("m:1").refuses = True
    first = play.client().says("SET", "k", "v")
    play.wait(29.0)
    later = play.client().says("SET", "k", "w")
    play.topology(3)  # from now on nobody tries
    play.wait(1.1)
    first.hears_error("MASTERDOWN held for 30 s")
    later.hears_nothing()
    play.wait(29.0)
    later.hears_error("MASTERDOWN held for 30 s")


def test_who_was_served_meanwhile_has_the_whole_patience_again(play: Playbook) -> None:
    play.topology(2)
    client = play.client().says("SET", "k", "v")
    play.wait(29.0)
    play.topology(3, master="m:1")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    client.says("SET", "k", "w")
    play.server("m:1").hears("SET", "k", "w")
    play.topology(4)
    play.wait(29.0)
    client.hears_nothing()


def test_also_who_was_served_on_a_connection_of_its_own_and_is_never_without_a_command(play: Playbook) -> None:
    client = play.client()
    client.session.become(Identity(protocol=3))
    client.says("SUBSCRIBE", "c")
    play.server("m:1").lanes[-1].answers(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    play.topology(2)
    client.says("SET", "k", "1").says("SET", "k", "2")
    play.wait(29.0)
    play.topology(3, master="m:1")
    connection = play.server("m:1").lanes[-1]
    connection.answers(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + OK)
    client.output = b""
    play.topology(4)
    play.wait(29.0)
    client.hears_nothing()
    play.wait(1.5)
    client.hears_error("UNCERTAIN SET")


def test_who_does_not_read_what_it_is_told_has_the_whole_patience_when_it_does_again(play: Playbook) -> None:
    play.topology(2)
    client = play.client().says("SET", "k", "v")
    play.wait(20.0)
    client.session.choke(play.time, full=True)
    play.wait(100.0)
    client.hears_nothing()
    client.session.choke(play.time, full=False)
    play.wait(29.0)
    client.hears_nothing()
    play.wait(1.5)
    client.hears_error("MASTERDOWN held for 30 s")


def test_a_wait_ends_at_the_very_moment_of_its_alarm() -> None:
    play = Playbook(Policy(hold_timeout=0.001))  # which is not a sum of powers of two
    client = play.client().says("GET", "k")
    play.wait(0.001)
    client.hears_error("MASTERDOWN")


# --- lanes for one session alone


def test_a_lane_of_ones_own_is_lent_to_the_next_session(play: Playbook) -> None:
    first, second = play.client().session, play.client().session
    lane = play.router.exclusive(first, play.time)
    assert lane is not None
    play.settle()
    assert play.router.exclusive(second, play.time) is not lane, "as long as it is in use"
    play.router.give_back(lane, play.time)
    assert play.router.exclusive(second, play.time) is lane


def test_a_lane_of_another_identity_is_lent_to_nobody(play: Playbook) -> None:
    first, second = play.client().session, play.client().session
    second.become(Identity(db=1))
    lane = play.router.exclusive(first, play.time)
    assert lane is not None
    play.settle()
    play.router.give_back(lane, play.time)
    assert play.router.exclusive(second, play.time) is not lane


def test_a_spoilt_lane_is_closed(play: Playbook) -> None:
    lane = play.router.exclusive(play.client().session, play.time)
    assert lane is not None
    play.settle()
    lane.spoilt = True
    play.router.give_back(lane, play.time)
    assert not lane.usable


def test_pool__peak_was_a_minute_ago__closes_what_is_not_needed(play: Playbook) -> None:
    lanes = [play.router.exclusive(play.client().session, play.time) for _ in range(60)]
    play.settle()
    for lane in lanes:
        assert lane is not None
        play.router.give_back(lane, play.time)
    play.router.reap(play.time)
    assert len(play.server("m:1").live) == 60
    for _ in range(2 * WINDOWS):
        play.router.reap(play.time)
    assert not play.server("m:1").live


def test_kept_lanes_are_closed_with_the_master_they_lead_to(play: Playbook) -> None:
    lane = play.router.exclusive(play.client().session, play.time)
    assert lane is not None
    play.settle()
    play.router.give_back(lane, play.time)
    play.topology(2, replicas=["r:1"])
    play.topology(3, master="r:1")
    assert not lane.usable
    other = play.router.exclusive(play.client().session, play.time)
    assert other is not None
    assert str(other.key.node) == "r:1"


def test_there_is_no_lane_of_ones_own_while_there_is_no_master(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])
    assert play.router.exclusive(play.client().session, play.time) is None


# --- CLIENT PAUSE


def test_a_pause_of_writes_holds_writes_and_what_may_write(play: Playbook) -> None:
    play.router.hold_back(play.time + 5, writes_only=True, now=play.time)
    for command in ("INCR k", "EVAL x 0", "PUBLISH c m"):
        play.client().pipelines(command)
    play.server("m:1").hears_nothing()
    play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")
    play.wait(5.1)
    play.server("m:1").hears("INCR", "k")
    play.server("m:1").hears("PUBLISH", "c", "m")


def test_a_pause_of_everything_holds_reads_too(play: Playbook) -> None:
    play.router.hold_back(play.time + 5, writes_only=False, now=play.time)
    play.client().says("GET", "k")
    play.server("r:1").hears_nothing()
    play.router.let_go(play.time)
    play.server("r:1").hears("GET", "k")


def test_a_later_pause_does_not_shorten_an_earlier_one(play: Playbook) -> None:
    play.router.hold_back(play.time + 5, writes_only=True, now=play.time)
    play.router.hold_back(play.time + 1, writes_only=True, now=play.time)
    play.client().says("INCR", "k")
    play.wait(4.0)
    play.server("m:1").hears_nothing()
    play.wait(1.1)
    play.server("m:1").hears("INCR", "k")


def test_a_pause_is_no_outage_that_commands_could_wait_too_long_for(play: Playbook) -> None:
    play.router.hold_back(play.time + 60, writes_only=True, now=play.time)
    client = play.client().says("INCR", "k")
    play.wait(59.0)
    client.hears_nothing()
    play.wait(1.1)
    play.server("m:1").hears("INCR", "k")


def test_accounts_whose_connections_are_closed_are_forgotten(play: Playbook) -> None:
    for number in range(20):
        client = play.client().says("AUTH", "u", f"password{number}")
        for server in ("m:1", "r:1"):
            for connection in play.server(server).live:
                if connection.commands:
                    connection.commands.clear()
                    connection.answers(b"+OK\r\n")
        client.says("EVAL", "x", "0")
        play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":1\r\n")
        client.leaves()
    for _ in range(WINDOWS):
        play.time += IDLE + 1
        play.router.reap(play.time)
    assert not play.router.dedicated.used


# --- servers of several versions


def mixed(master: str, replica: str) -> Playbook:
    """A master and a replica of different versions, both of which have greeted somebody; the replica last."""
    play = Playbook()
    play.server("m:1").version, play.server("r:1").version = master, replica
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(b"+OK\r\n")
    play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k").answers(b"$1\r\nv\r\n")
    return play


def test_version__of_an_older_replica__decides_nothing() -> None:
    play = mixed("7.0.15", "6.2.14")
    client = play.client().says("BLMPOP", "1", "1", "k", "LEFT")
    play.server("m:1").hears("BLMPOP", "1", "1", "k", "LEFT", exclusive=True)
    client.hears_nothing()


def test_version__of_an_older_master__decides() -> None:
    play = mixed("6.2.14", "7.0.15")
    client = play.client().says("CLIENT", "NO-EVICT", "ON")
    client.hears_error("ERR unknown subcommand 'NO-EVICT'")


def test_version__after_a_change_of_master__the_new_ones() -> None:
    play = mixed("6.2.14", "7.0.15")
    play.topology(2, replicas=["r:1"])
    play.topology(3, master="r:1")
    play.client().says("BLMPOP", "1", "1", "k", "LEFT")
    play.server("r:1").hears("BLMPOP", "1", "1", "k", "LEFT", exclusive=True)


@pytest.mark.parametrize("packet", [["EXPIRETIME k"], ["Get k", "EXPIRETIME k"], ["EXPIRETIME k", "GET k"]])
def test_read__replica_too_old__to_the_master(packet: list[str]) -> None:
    play = mixed("7.0.15", "6.2.14")
    client = play.client().pipelines(*packet)
    for command in packet:
        connection = play.server("m:1").hears(*command.split())
    connection.answers(b":1\r\n" * len(packet))
    client.hears(b":1\r\n" * len(packet))


@pytest.mark.parametrize(("master", "replica"), [("6.2.14", "7.0.15"), ("7.0.15", "7.0.15"), ("7.2.4", "7.4.0")])
def test_read__replica_has_the_command__to_the_replica(master: str, replica: str) -> None:
    play = mixed(master, replica)
    play.client().says("EXPIRETIME", "k")
    play.server("r:1").hears("EXPIRETIME", "k")


def test_read__younger_than_the_table__where_the_master_is_no_newer() -> None:
    """Valkey has commands of later releases of Redis, and says that it is 7.2.4."""
    play = mixed("7.2.4", "7.2.4")
    play.client().says("HTTL", "k", "FIELDS", "1", "f")
    play.server("r:1").hears("HTTL", "k", "FIELDS", "1", "f")


UNKNOWN = b"-ERR unknown command 'HTTL', with args beginning with: 'k' \r\n"


def test_read__replica_says_unknown__asked_at_the_master() -> None:
    play = mixed("7.2.4", "7.2.4")
    client = play.client().pipelines("HTTL k FIELDS 1 f", "GET k")
    play.server("r:1").hears("HTTL", "k", "FIELDS", "1", "f")
    play.server("r:1").hears("GET", "k").answers(UNKNOWN + b"$1\r\nv\r\n")
    play.server("m:1").hears("HTTL", "k", "FIELDS", "1", "f").answers(UNKNOWN)
    for server in ("m:1", "r:1"):
        for connection in [one for one in play.server(server).live if one.commands]:
            connection.commands.clear()
            connection.answers(b"$1\r\nv\r\n")
    client.hears(UNKNOWN + b"$1\r\nv\r\n")


def test_version__of_a_server_that_left_the_group__forgotten() -> None:
    play = mixed("7.0.15", "6.2.14")
    assert len(play.router.versions) == 2
    play.topology(2, master="m:1")
    assert list(play.router.versions.values()) == ["7.0.15"]


def test_expiry__of_many_one_by_one__does_not_wake_the_others(play: Playbook, monkeypatch: pytest.MonkeyPatch) -> None:
    play.topology(2)
    clients = []
    for _ in range(100):
        clients.append(play.client().says("INCR", "k"))
        play.wait(0.01)
    pumps = 0
    pump = Session.pump

    def counted(session: Session, now: float) -> None:
        nonlocal pumps
        pumps += 1
        pump(session, now)

    monkeypatch.setattr(Session, "pump", counted)
    play.wait(31)
    for client in clients:
        client.hears_error("MASTERDOWN")
    assert pumps <= 3 * len(clients)


def test_session_that_waits__an_alarm_for_something_else_rings__looks_again_in_time() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, replicas=["r:1"])
    play.client().says("PING")  # it is held for a second: the alarm
    play.wait(0.990)
    play.topology(2, master="m:1", replicas=["r:1"])
    shared = play.server("m:1").hears("PING").answers(b"+PONG\r\n")
    play.client().says("EVAL", "x", "0")
    script = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.wait(0.008)
    shared.closed = True
    shared.lane.lose(play.time)  # it is opened again in 10 ms
    play.client().says("SET", "k", "v")
    play.server("m:1").hears_nothing()
    script.answers(b":1\r\n")  # the server serves: nobody need wait
    play.wait(1.0)
    play.server("m:1").hears("SET", "k", "v")


def test_router__acknowledgement_taken_back__is_given_anew_with_the_next_topology_or_when_asked(play: Playbook) -> None:
    play.topology(7, master="m:1")
    play.router.disavow()
    assert play.router.acknowledged == -1
    play.router.avow()
    assert play.router.acknowledged == 7
    play.router.disavow()
    play.topology(3, master="m:1")
    assert play.router.acknowledged == 3
    assert play.acknowledged[-3:] == [7, 7, 3]
