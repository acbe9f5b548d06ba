"""Dedicated connections: who gets one, when another one is opened, how many are kept, and what clients hear of it."""

from __future__ import annotations

import pytest

from rfproxy.core.policy import Policy
from rfproxy.routing.dedicated_pool import FIRST_WAIT, LONGEST_WAIT, MOST_SCRIPTS, WINDOWS, Peak
from rfproxy.session.session import Session
from rfproxy.upstream.connection import Lane, LaneState
from tests.support.playbook import FakeClient, Playbook

OK = b"+OK\r\n"
UNBLOCKED = b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n"
ELEMENT = b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def warm(play: Playbook) -> None:
    """A shared connection stands."""
    play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)


def test_server_is_full__many_wait__attempts_back_off_and_are_logged_once(play: Playbook) -> None:
    warm(play)
    play.server("m:1").full = True
    clients = [play.client().says("BLPOP", "nokey", "60") for _ in range(100)]
    play.wait(5)
    assert play.server("m:1").refused <= 12
    (line,) = play.log.events("lane_lost")
    assert line["reason"] == "ERR max number of clients reached"
    other = play.client().says("INCR", "n")
    play.server("m:1").hears("INCR", "n").answers(b":1\r\n")
    other.hears(b":1\r\n")
    play.wait(26)
    for client in clients:
        error = client.hears_error("MASTERDOWN held for 30 s and not sent: no connection to m:1 for it alone")
        assert "ERR max number of clients reached" in error


def test_server_has_room_again__all_that_wait__are_served_and_the_end_is_logged(play: Playbook) -> None:
    warm(play)
    play.server("m:1").full = True
    clients = [play.client().says("BLPOP", "q", "60") for _ in range(20)]
    play.wait(1)
    play.server("m:1").full = False
    play.wait(LONGEST_WAIT)
    heard = 0
    for _ in range(40):
        for connection in play.server("m:1").live:
            if connection.commands:
                heard += 1
                connection.commands.clear()
                connection.answers(ELEMENT)
        play.wait(0.1)
    assert heard == len(clients)
    (line,) = play.log.events("lanes_restored")
    assert line["lost"] == play.server("m:1").refused


def test_scripts__of_many_clients__share_a_bounded_number_of_connections(play: Playbook) -> None:
    master = play.server("m:1")
    clients = [play.client() for _ in range(200)]
    for _ in range(5):
        for client in clients:
            client.says("EVAL", "return 1", "0")
        for _ in clients:
            master.hears("EVAL", "return 1", "0", exclusive=True).answers(b":1\r\n")
        for client in clients:
            client.hears(b":1\r\n")
    assert len(master.lanes) == MOST_SCRIPTS


def test_scripts__all_connections_busy__are_served_in_their_order(play: Playbook) -> None:
    clients = [play.client().says("EVAL", "x", "0", str(number)) for number in range(MOST_SCRIPTS + 3)]
    play.settle()
    for number in range(MOST_SCRIPTS, MOST_SCRIPTS + 3):
        first = str(number - MOST_SCRIPTS)
        play.server("m:1").hears("EVAL", "x", "0", first, exclusive=True).answers(b":1\r\n")
        heard = [args[3] for connection in play.server("m:1").live for args in connection.commands]
        assert str(number).encode() in heard
    assert clients[0].output == b":1\r\n"


def test_blocked_clients__more_than_scripts_may_have__get_one_each(play: Playbook) -> None:
    for number in range(MOST_SCRIPTS + 10):
        play.client().says("BLPOP", f"q{number}", "0")
        play.server("m:1").hears("BLPOP", f"q{number}", "0", exclusive=True)


def test_limit_of_descriptors__reached__says_which(play: Playbook) -> None:
    play = Playbook(Policy(most_dedicated=2))
    play.topology(1, master="m:1")
    holders = [play.client().says("BLPOP", "q", "0") for _ in range(2)]
    third = play.client().says("BLPOP", "q", "0")
    play.settle()
    assert len(play.server("m:1").lanes) == 2
    play.wait(31)
    assert "2 connections for single clients (limit of open files)" in third.hears_error("MASTERDOWN")
    fourth = play.client().says("BLPOP", "q", "0")
    holders[0].leaves()
    play.settle()
    assert len(play.server("m:1").live) == 2
    fourth.hears_nothing()


def test_session_that_waits__leaves__opens_nothing(play: Playbook) -> None:
    play = Playbook(Policy(most_dedicated=1))
    play.topology(1, master="m:1")
    holder, other = play.client().says("BLPOP", "q", "0"), play.client().says("BLPOP", "q", "0")
    play.settle()
    other.leaves()
    holder.leaves()
    play.server("m:1").hears_nothing()
    assert len(play.server("m:1").lanes) == 1


def test_session_that_waits__its_client_closed_its_side__is_forgotten(play: Playbook) -> None:
    play = Playbook(Policy(most_dedicated=1))
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("BLPOP", "q", "0")
    client = play.client()
    client.says("GET", "a").says("EVAL", "x", "0")
    client.hangs_up()
    play.server("r:1").hears("GET", "a").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    assert client.closed
    assert not any(pool.waiting for pool in play.router.dedicated.pools)


def waits_for_room() -> tuple[Playbook, FakeClient]:
    """A client waits for a connection, while a spare one is being opened that it could do without."""
    play = Playbook(Policy(most_dedicated=2), spares=1)
    play.topology(1, master="m:1", replicas=["r:1", "s:1"])
    play.server("m:1").silent = True
    play.client().says("BLPOP", "q", "0")
    play.client()
    client = play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")
    play.server("r:1").hangs_up()
    play.server("s:1").hears_nothing()
    play.server("m:1").silent = False
    return play, client


def test_session_that_waits__spare_of_another_pool_is_ready__gets_its_place() -> None:
    play, client = waits_for_room()
    play.server("s:1").hears("GET", "k", exclusive=True).answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")


def test_session_that_waits__says_more_when_there_is_room__is_answered_in_order() -> None:
    play, client = waits_for_room()
    client.says("CLIENT", "SETNAME", "x")
    play.server("s:1").hears("GET", "k", exclusive=True).answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")


def test_connection_that_was_idle__is_closed_by_the_server__is_no_failure(play: Playbook) -> None:
    client = play.client().says("EVAL", "x", "0")
    connection = play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":1\r\n")
    client.hears(b":1\r\n")
    connection.closed = True
    connection.lane.lose(play.time)
    client.says("EVAL", "x", "0")
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True)


def test_greeting__without_a_reply_to_a_command__does_not_reset_the_back_off(play: Playbook) -> None:
    warm(play)
    client, opened = play.client().says("BLPOP", "q", "0"), 0
    for _ in range(300):  # the server greets each connection, and closes it before it replies
        play.settle()
        for connection in play.server("m:1").live:
            if [b"BLPOP", b"q", b"0"] in connection.commands:
                opened += 1
                connection.closed = True
                connection.lane.lose(play.time)
        play.wait(0.01)
    assert opened <= 2
    client.hears_error("UNCERTAIN BLPOP")


@pytest.mark.parametrize("spares", [0, 4])
def test_scripts__of_many_clients__cost_the_same_for_each(spares: int, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Playbook(spares=spares)
    play.topology(1, master="m:1")
    master, pumps = play.server("m:1"), 0
    pump = Session.pump

    def counted(session: Session, now: float) -> None:
        nonlocal pumps
        pumps += 1
        pump(session, now)

    monkeypatch.setattr(Session, "pump", counted)
    clients = [play.client().says("EVAL", "x", "0") for _ in range(400)]
    for _ in clients:
        busy = [connection for connection in master.live if connection.commands]
        assert len(busy) <= MOST_SCRIPTS
        busy[0].commands.clear()
        busy[0].answers(b":1\r\n")
    for client in clients:
        client.hears(b":1\r\n")
    assert pumps <= 4 * len(clients)


def test_scripts__replies_are_not_read__others_go_on(play: Playbook) -> None:
    for _ in range(MOST_SCRIPTS):
        client = play.client().says("EVAL", "x", "0")
        connection = play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b"$9000000\r\nbegins")
        client.session.choke(play.time, full=True)
        assert not connection.read
    other = play.client().says("EVAL", "y", "0")
    play.server("m:1").hears("EVAL", "y", "0", exclusive=True).answers(b":1\r\n")
    other.hears(b":1\r\n")


def test_scripts__do_not_end__others_go_on_before_their_time_is_up(play: Playbook) -> None:
    for _ in range(MOST_SCRIPTS):
        play.client().says("MODULE.WAIT", "x")
        play.server("m:1").hears("MODULE.WAIT", "x", exclusive=True)
    play.router.reap(play.time)
    other = play.client().says("EVAL", "y", "0")
    play.server("m:1").hears_nothing()
    play.router.reap(play.time)
    play.server("m:1").hears("EVAL", "y", "0", exclusive=True).answers(b":1\r\n")
    other.hears(b":1\r\n")


def limited(most: int) -> Playbook:
    play = Playbook(Policy(most_dedicated=most))
    play.topology(1, master="m:1")
    return play


def of_another_database(play: Playbook) -> FakeClient:
    client = play.client().says("SELECT", "3")
    play.server("m:1").hears("SELECT", "3").answers(OK)
    client.hears(OK)
    return client


def test_limit_of_descriptors__others_have_idle_ones__they_make_room() -> None:
    play = limited(2)
    for client in [play.client().says("EVAL", "x", "0") for _ in range(2)]:
        play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":1\r\n")
        client.hears(b":1\r\n")
    of_another_database(play).says("BLPOP", "q", "0")
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)


@pytest.mark.parametrize("leaves", [True, False])
def test_limit_of_descriptors__another_pool_frees_one__it_is_used(leaves: bool) -> None:
    play = limited(2)
    holders = [play.client().says("BLPOP", "q", "9") for _ in range(2)]
    held = [play.server("m:1").hears("BLPOP", "q", "9", exclusive=True) for _ in holders]
    for _ in range(2):
        of_another_database(play).says("BLPOP", "q", "0")
    for holder, connection in zip(holders, held, strict=True):
        if leaves:
            holder.leaves()
        else:
            connection.answers(b"*-1\r\n")
        play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    assert len([one for one in play.server("m:1").live if one.lane.guest is not None]) == 2


# --- connections that are held ready


def used(play: Playbook) -> None:
    """The pool of the default identity has been used."""
    client = play.client().says("BLPOP", "q", "1")
    play.server("m:1").hears("BLPOP", "q", "1", exclusive=True).answers(b"*-1\r\n")
    client.leaves()
    play.settle()


@pytest.mark.parametrize(
    ("command", "other"),
    [
        ("SUBSCRIBE c", "PUBLISH c m"),
        ("WATCH k", "SET k v"),
        ("XREAD BLOCK 0 STREAMS s $", "XADD s * f v"),
        ("BLPOP q 0", "LPUSH q x"),
    ],
)
def test_spares__once_used__keep_the_order_between_connections(command: str, other: str) -> None:
    play = Playbook(spares=4)
    play.topology(1, master="m:1")
    warm(play)
    used(play)
    play.client().session.feed(encoded(command), play.time)
    play.client().session.feed(encoded(other), play.time)
    play.router.flush(play.time)  # and no connection was accepted meanwhile
    heard = [args for connection in play.server("m:1").live for args in connection.commands]
    assert sorted(heard) == sorted([command.encode().split(), other.encode().split()])


def encoded(command: str) -> bytes:
    words = command.encode().split()
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def test_spares__before_the_first_use__are_not_opened() -> None:
    play = Playbook(spares=4)
    play.topology(1, master="m:1")
    warm(play)
    assert len(play.server("m:1").live) == 1


def test_spares__one_is_taken__is_replaced() -> None:
    play = Playbook(spares=4)
    play.topology(1, master="m:1")
    used(play)
    before = len(play.server("m:1").live)  # one of which was given back
    for _ in range(3):
        play.client().says("SUBSCRIBE", "c")
        play.settle()
    assert len(play.server("m:1").live) == before + 2


def test_spares__new_master__are_opened_there() -> None:
    play = Playbook(spares=4)
    play.topology(1, master="m:1")
    used(play)
    play.topology(2)
    play.topology(3, master="r:1")
    assert len(play.server("r:1").live) >= 4


def test_spares__server_refuses_connections__attempts_back_off() -> None:
    play = Playbook(spares=4)
    play.topology(1, master="m:1")
    used(play)
    play.server("m:1").full = True
    for _ in range(10):
        play.client().says("SUBSCRIBE", "c")
        play.wait(FIRST_WAIT)
    assert play.server("m:1").refused < 12


def test_spares__often_too_few__more_are_held_ready() -> None:
    play = Playbook(spares=4)
    play.topology(1, master="m:1")
    for _ in range(3):
        for _ in range(20):
            play.client().session.feed(encoded("SUBSCRIBE c"), play.time)
        play.settle()
    pool = next(iter(play.router.dedicated.pools))
    assert pool.spares > 16


def test_peak__is_forgotten__after_its_windows() -> None:
    peak = Peak()
    peak.saw(7)
    for _ in range(WINDOWS - 1):
        peak.turn(1)
        assert peak.recent == 7
    peak.turn(1)
    assert peak.recent == 1


# --- a planned change, and other identities


def blocked(play: Playbook) -> tuple[FakeClient, Lane]:
    client = play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:2"])
    assert play.acknowledged[-1] == 2
    return client, connection.lane


def test_switchover__element_was_taken_before__reaches_its_client(play: Playbook) -> None:
    client, lane = blocked(play)
    play.topology(3, master="r:1", replicas=["r:2"])
    lane.feed(ELEMENT, play.time)  # had been on its way
    client.hears(ELEMENT)
    play.server("r:1").hears_nothing()


def test_switchover__former_master_comes_back_as_a_replica__its_element_arrives(play: Playbook) -> None:
    client, lane = blocked(play)
    play.topology(3, master="r:1", replicas=["r:2"])
    play.topology(4, master="r:1", replicas=["r:2", "m:1"])
    lane.feed(ELEMENT, play.time)
    client.hears(ELEMENT)
    assert play.acknowledged[-1] == 4


def test_switchover__blocking_command_was_not_sent__goes_to_the_new_master(play: Playbook) -> None:
    play.server("m:1").silent = True
    play.client().says("BLPOP", "q", "0")
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:2"])
    play.topology(3, master="r:1", replicas=["r:2"])
    play.server("m:1").silent = False
    play.server("m:1").hears_nothing()
    play.server("r:1").hears("BLPOP", "q", "0", exclusive=True)


def test_switchover__then_a_failover__the_former_master_is_parted_with(play: Playbook) -> None:
    _, lane = blocked(play)
    play.topology(3, master="r:1", replicas=["r:2"])
    play.topology(4)
    assert lane.state is LaneState.CLOSED


def test_switchover__former_master_unblocks__the_next_one_is_asked(play: Playbook) -> None:
    client, lane = blocked(play)
    play.topology(3, master="r:1", replicas=["r:2"])
    assert play.acknowledged[-1] == 3
    lane.feed(UNBLOCKED, play.time)
    play.server("r:1").hears("BLPOP", "q", "0", exclusive=True).answers(ELEMENT)
    client.hears(ELEMENT)


def test_switchover__former_master_is_silent__the_next_one_is_asked_in_time(play: Playbook) -> None:
    client, _ = blocked(play)
    play.topology(3, master="r:1", replicas=["r:2"])
    play.server("r:1").hears_nothing()
    play.wait(1.1)
    play.server("r:1").hears("BLPOP", "q", "0", exclusive=True).answers(ELEMENT)
    client.hears(ELEMENT)


@pytest.mark.parametrize("first", [("WATCH", "k"), ("CLIENT", "NO-TOUCH", "ON")])
def test_switchover__tied_session_was_served__goes_on_at_the_new_master(play: Playbook, first: tuple[str, ...]) -> None:
    client = play.client().says(*first)
    play.server("m:1").hears(*first, exclusive=True).answers(OK)
    client.hears(OK)
    client.says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:2"])
    play.topology(3, master="r:1", replicas=["r:2"])
    connection.lane.feed(ELEMENT, play.time)
    client.hears(ELEMENT)
    client.says("SET", "k", "v")
    play.server("m:1").hears_nothing()
    heard = [args for one in play.server("r:1").live for args in one.commands]
    assert heard[-1] in ([b"SET", b"k", b"v"], [b"CLIENT", b"NO-TOUCH", b"ON"])


def test_connection_of_another_database__is_lost__others_go_on(play: Playbook) -> None:
    warm(play)
    client = play.client().says("SELECT", "3")
    play.server("r:1").hears("SELECT", "3").answers(OK)
    client.says("INCR", "n")
    of_three = play.server("m:1").hears("INCR", "n").answers(b":1\r\n")
    of_three.closed = True
    of_three.lane.lose(play.time)
    other = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    other.hears(OK)
