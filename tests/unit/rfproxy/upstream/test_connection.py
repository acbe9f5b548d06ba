"""A lane: one write per turn of the loop, replies in order, nothing lost when it closes."""

from __future__ import annotations

import pytest

from rfproxy.upstream.connection import LaneState
from rfproxy.upstream.handshake import Refusal, Welcome
from tests.support.playbook import FakeConnection, Playbook
from tests.unit.rfproxy.pinned.test_tracking_redirect import INVALID, in_resp3, own, redirected

OK = b"+OK\r\n"
INCR = b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1")
    return play


def test_what_several_clients_say_in_one_turn_is_sent_in_one_write(play: Playbook) -> None:
    warm = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    warm.hears(b":1\r\n")
    connection.writes.clear()
    for session in (play.client().session, play.client().session):
        session.feed(INCR, play.time)
    play.settle()
    assert connection.writes == [INCR * 2]


def test_what_is_said_before_the_server_is_greeted_is_sent_after_that(play: Playbook) -> None:
    session = play.client().session
    session.feed(INCR, play.time)
    connection = play.server("m:1").hears("INCR", "a")
    assert connection.greeted[-1] == [b"CLIENT", b"ID"]


def test_a_reply_in_pieces_is_relayed_when_it_is_whole(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a").answers(b":12")
    client.hears_nothing()
    connection.answers(b"34\r\n")
    client.hears(b":1234\r\n")


def test_nonsense_from_a_server_costs_the_connection_and_nothing_else(play: Playbook) -> None:
    client = play.client().says("SET", "k", "v")
    connection = play.server("m:1").hears("SET", "k", "v").answers(b"nonsense\r\n")
    assert connection.closed
    play.wait(0.05)
    play.server("m:1").hears("SET", "k", "v", exclusive=True).answers(OK)
    client.hears(OK)


def test_a_retired_lane_answers_what_is_in_flight_and_closes(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a")
    connection.lane.retire(play.time)
    assert connection.lane.state is LaneState.RETIRED
    connection.answers(b":1\r\n")
    client.hears(b":1\r\n")
    assert connection.closed


def test_a_refused_connection_is_tried_again(play: Playbook) -> None:
    play.server("m:1").refuses = True
    client = play.client().says("INCR", "a")
    client.hears_nothing()
    assert play.server("m:1").live == []
    play.server("m:1").refuses = False
    play.wait(1.0)
    play.server("m:1").hears("INCR", "a")


def test_a_connection_that_stands_too_late_is_dropped(play: Playbook) -> None:
    play.client().session.feed(INCR, play.time)
    (lane,) = play.router.lanes
    lane.lose(play.time)
    late = FakeConnection(play, play.server("m:1"), lane)
    lane.connected(late)
    assert (late.closed, late.writes) == (True, [])


def test_a_server_that_accepts_and_says_nothing_is_given_up(play: Playbook) -> None:
    play.client().session.feed(INCR, play.time)
    (lane,) = play.router.lanes
    silent = FakeConnection(play, play.server("m:1"), lane)
    lane.connected(silent)
    assert lane.state is LaneState.GREETING
    lane.greeting_overdue(play.time)
    assert (lane.state, silent.closed) == (LaneState.CLOSED, True)
    assert lane.lost_because == "it accepted the connection and did not answer the greeting"


def test_lane__turned_away_at_maxclients__knows_why(play: Playbook) -> None:
    play.server("m:1").turns_away = b"-ERR max number of clients reached\r\n"
    client = play.client().says("INCR", "a")
    (connection,) = play.server("m:1").lanes
    assert connection.lane.welcome == Welcome(Refusal.UNFIT, "ERR max number of clients reached")
    assert play.log.events("lane_lost")[0]["reason"] == "ERR max number of clients reached"
    client.hears_nothing()
    play.server("m:1").turns_away = b""
    play.wait(0.05)
    play.server("m:1").hears("INCR", "a")


def test_a_server_that_was_greeted_in_time_is_not_given_up(play: Playbook) -> None:
    play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a")
    connection.lane.greeting_overdue(play.time)
    assert not connection.closed


def test_nonsense_in_the_greeting_costs_the_connection(play: Playbook) -> None:
    play.client().session.feed(INCR, play.time)
    (lane,) = play.router.lanes
    lane.connected(connection := FakeConnection(play, play.server("m:1"), lane))
    lane.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n", play.time)
    assert (lane.state, connection.closed) == (LaneState.CLOSED, True)


def test_replies_go_to_whom_they_belong_however_they_are_cut(play: Playbook) -> None:
    first, second = play.client(), play.client()
    for client, name in ((first, b"a"), (second, b"b"), (first, b"c")):
        client.session.feed(b"*2\r\n$3\r\nGET\r\n$1\r\n%b\r\n" % name, play.time)
    play.settle()
    (connection,) = play.server("m:1").live
    for byte in b"$1\r\n1\r\n*1\r\n$1\r\n2\r\n-ERR 3\r\n":
        connection.answers(bytes([byte]))
    first.hears(b"$1\r\n1\r\n-ERR 3\r\n")
    second.hears(b"*1\r\n$1\r\n2\r\n")


def test_what_was_not_sent_yet_goes_back_when_nothing_may_be_sent_any_more(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")
    client.session.feed(INCR, play.time)
    play.router.rest(connection.lane, play.time)
    play.settle()
    play.server("m:1").hears_nothing()
    client.hears_nothing()
    play.time = play.router.gate.rest_until
    play.router.tick(play.time)
    assert play.server("m:1").hears("INCR", "a").answers(b":2\r\n") is connection
    client.hears(b":2\r\n")


def test_what_a_deposed_master_answers_too_late_is_not_believed(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a")
    play.lease.revoke()
    connection.answers(b":1\r\n")
    play.topology(3, master="r:1")
    client.hears_error("UNCERTAIN INCR")
    assert connection.closed


def test_a_defect_that_one_session_meets_costs_the_others_nothing(
    play: Playbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky, other = play.client(), play.client()
    unlucky.session.feed(INCR, play.time)
    other.session.feed(INCR, play.time)

    def fails(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(unlucky, "write", fails)
    play.settle()
    (connection,) = play.server("m:1").live
    connection.answers(b":1\r\n:2\r\n")
    unlucky.hears_nothing()
    assert unlucky.closed
    other.hears(b":2\r\n")
    assert len(play.log.events("defect")) == 1


def test_lane__client_left__sends_nothing_of_it_any_more(play: Playbook) -> None:
    client, other = play.client(), play.client()
    for session in (client.session, other.session):
        session.feed(INCR, play.time)
    client.leaves()  # before the server is greeted
    connection = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    assert connection.commands == []
    other.hears(b":1\r\n")


def test_a_retired_lane_gives_back_what_it_has_not_sent(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a")
    client.session.feed(INCR, play.time)
    play.topology(2, draining=("m:1", "m:2"))
    connection.answers(b":1\r\n")
    client.hears(b":1\r\n")
    assert (connection.closed, connection.commands) == (True, [])
    play.topology(3, master="m:2")
    play.server("m:2").hears("INCR", "a").answers(b":2\r\n")
    client.hears(b":2\r\n")


def test_a_lane_that_is_retired_before_it_is_greeted_closes_at_once(play: Playbook) -> None:
    play.client().session.feed(INCR, play.time)
    (lane,) = play.router.lanes
    lane.retire(play.time)
    assert lane.state is LaneState.CLOSED


def test_a_lane_begins_to_listen_only_between_replies(play: Playbook) -> None:
    client = play.client().says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    assert not connection.lane.listen()
    connection.answers(b"*-1\r\n")
    assert connection.lane.listen()
    assert connection.lane.spoilt, "nobody else may have it"
    client.hears(b"*-1\r\n")


def test_what_the_server_says_unasked_on_a_shared_lane_reaches_nobody(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    play.server("m:1").hears("INCR", "a").answers(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:1\r\n")
    client.hears(b":1\r\n")


def test_lane__connect_failed__keeps_and_logs_the_reason(play: Playbook) -> None:
    play.client().session.feed(INCR, play.time)
    (lane,) = play.router.lanes
    lane.lose(play.time, reason="Connection refused")
    assert lane.lost_because == "Connection refused"
    assert [line["reason"] for line in play.log.events("lane_lost")] == ["Connection refused"]


def test_lane__client_does_not_read__no_reply_is_due(play: Playbook) -> None:
    client = play.client().says("EVAL", "x", "0")
    lane = play.server("m:1").hears("EVAL", "x", "0", exclusive=True).lane
    assert lane.awaits_reply
    client.session.choke(play.time, full=True)
    assert not lane.awaits_reply


def test_lane__lease_lapsed_behind_reply__no_reply_is_due(play: Playbook) -> None:
    play.client().pipelines("INCR a", "INCR b")
    connection = play.server("m:1").hears("INCR", "a")
    assert connection.lane.awaits_reply
    play.lease.revoke()
    connection.answers(b":1\r\n")
    assert not connection.lane.awaits_reply


def test_lane__blocked_client__no_reply_is_due(play: Playbook) -> None:
    play.client().says("BLPOP", "k", "0")
    assert not play.server("m:1").hears("BLPOP", "k", "0", exclusive=True).lane.awaits_reply


def other_ended(play: Playbook) -> FakeConnection:
    """A shared connection that has served, and beside which another one of the same server has ended."""
    play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    play.client().says("EVAL", "x", "0")
    other = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.server("m:1").silent = True
    other.closed = True
    other.lane.lose(play.time)
    return connection


def test_send__server_ended_another_connection__asks_first_whether_it_is_there(play: Playbook) -> None:
    connection = other_ended(play)
    clients = [play.client().says("INCR", "a"), play.client().says("INCR", "b")]
    assert (connection.probed, connection.commands) == (True, [])
    play.server("m:1").silent = False
    play.settle()
    assert connection.commands == [[b"INCR", b"a"], [b"INCR", b"b"]]
    connection.answers(b":1\r\n:2\r\n")
    for number, client in enumerate(clients, 1):
        client.hears(b":%d\r\n" % number)
    play.client().says("INCR", "c")
    assert not connection.probed, "it is asked once"
    assert connection.commands[-1] == [b"INCR", b"c"]


def test_send__server_ended_another_connection_and_dies__was_not_sent(play: Playbook) -> None:
    other_ended(play)
    client = play.client().says("INCR", "a")
    play.server("m:1").dies()
    client.hears_nothing()
    play.topology(2, master="m:2")
    play.server("m:2").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_send__server_ended_another_connection_beside_commands_in_flight__asks_behind_them(play: Playbook) -> None:
    """What was in flight before may have been answered before."""
    first = play.client().says("INCR", "a")
    connection = play.server("m:1").hears("INCR", "a")
    script = play.client().says("EVAL", "x", "0")
    other = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.server("m:1").silent = True
    other.closed = True
    other.lane.lose(play.time)
    script.hears_error("UNCERTAIN EVAL")
    second = play.client().says("INCR", "b")
    assert (connection.probed, connection.commands) == (False, [])
    connection.answers(b":1\r\n")
    first.hears(b":1\r\n")
    assert (connection.probed, connection.commands) == (True, [])
    play.server("m:1").silent = False
    play.server("m:1").hears("INCR", "b").answers(b":2\r\n")
    second.hears(b":2\r\n")


def test_send__server_ended_two_connections_one_after_the_other__asks_twice(play: Playbook) -> None:
    """The first answer may have been given before the second end."""
    play.client().says("EVAL", "y", "0")
    last = play.server("m:1").hears("EVAL", "y", "0", exclusive=True)
    connection = other_ended(play)
    client = play.client().says("INCR", "a")
    assert connection.probed
    last.closed = True
    last.lane.lose(play.time)
    connection.probed = False
    connection.answers(b"*0\r\n")
    assert (connection.probed, connection.commands) == (True, [])
    play.server("m:1").silent = False
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")


@pytest.mark.parametrize("command", ["GET a", "SCRIPT KILL"])
def test_send__what_may_be_lost_after_another_connection_ended__goes_at_once(play: Playbook, command: str) -> None:
    connection = other_ended(play)
    play.client().says(*command.split())
    assert (connection.probed, connection.commands) == (False, [command.encode().split()])


def test_probing__answered__the_shell_hears_that_something_was_sent(play: Playbook) -> None:
    """From then on it listens for replies: a script that the server is busy with is told to the managers."""
    connection = other_ended(play)
    play.client().says("INCR", "a")
    assert connection.probed
    connection.probed = False
    connection.lane.feed(b"*0\r\n", play.time)
    assert connection.commands == []
    play.settle()
    assert connection.commands == [[b"INCR", b"a"]]


def test_probing__topology_changes__commands_go_to_the_next_master(play: Playbook) -> None:
    connection = other_ended(play)
    client = play.client().says("INCR", "a")
    assert connection.probed
    play.topology(2, draining=("m:1", "m:2"))
    assert connection.closed
    play.topology(3, master="m:2")
    play.server("m:2").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_probing__client_leaves__nothing_is_sent_for_it(play: Playbook) -> None:
    connection = other_ended(play)
    leaving, staying = play.client().says("INCR", "a"), play.client().says("INCR", "b")
    leaving.session.close(play.time)
    play.server("m:1").silent = False
    play.settle()
    assert connection.commands == [[b"INCR", b"b"]]
    connection.answers(b":1\r\n")
    staying.hears(b":1\r\n")


def test_probing__server_speaks_nonsense__costs_the_connection(play: Playbook) -> None:
    connection = other_ended(play)
    client = play.client().says("INCR", "a")
    play.server("m:1").silent = False
    connection.answers(b"nonsense\r\n")
    assert connection.closed
    play.wait(0.1)
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_probing__pushes_before_the_answer__are_told_and_not_taken_for_it() -> None:
    """The lane listens already, for a client that is told what another one tracks."""
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1"])
    tracker = play.client()
    own(play, tracker, "CLIENT TRACKING ON", OK)
    tracker.hears(OK)
    play.client().says("EVAL", "x", "0")
    other = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    target = in_resp3(play)
    idle = own(play, target, "EVAL y 0", b":1\r\n")
    target.hears(b":1\r\n")
    play.server("m:1").silent = True
    other.closed = True
    other.lane.lose(play.time)
    tracker.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    assert (idle.probed, idle.lane.guest) == (True, target.session)
    redirected(play, idle.client_id, "m:1").answers(OK)
    tracker.hears(OK)
    idle.answers(INVALID)
    target.says("GET", "k")
    play.server("m:1").silent = False
    play.settle()
    idle.answers(b"$1\r\nv\r\n")
    target.hears(INVALID + b"$1\r\nv\r\n")


def test_commands_behind_a_suspect__of_the_same_client__wait_until_it_is_answered(play: Playbook) -> None:
    client = play.client().says("SET", "a", "1")
    connection = play.server("m:1").hears("SET", "a", "1")
    connection.closed = True
    connection.lane.lose(play.time)
    play.wait(0.05)
    client.says("SET", "b", "2")
    alone = play.server("m:1").hears("SET", "a", "1", exclusive=True)
    assert alone.commands == []
    alone.answers(OK)
    play.server("m:1").hears("SET", "b", "2").answers(OK)
    client.hears(OK + OK)


def test_go_on__the_proxy_itself_had_not_read__blames_nobody(play: Playbook) -> None:
    first, second = play.client().says("SET", "a", "1"), play.client().says("SETRANGE", "b", "1", "x")
    shared = play.server("m:1").hears("SET", "a", "1")
    play.server("m:1").hears("SETRANGE", "b", "1", "x")
    play.lease.revoke()
    play.router.lapse(play.time)
    shared.answers(OK)  # withheld, and nothing more is read
    play.time += 1.5
    play.lease.renew(play.time, 1e9)
    play.router.resume(play.time)
    first.hears(OK)
    play.topology(2)
    play.topology(3, master="r:1")
    play.server("r:1").hears("SETRANGE", "b", "1", "x").answers(b":2\r\n")
    second.hears(b":2\r\n")


def ends(play: Playbook, connection: FakeConnection) -> None:
    """The server ends one of its connections."""
    connection.closed = True
    connection.commands.clear()
    connection.lane.lose(play.time)
    play.settle()


def test_probing__what_was_in_flight_is_relayed_when_the_lease_is_back__asks_then(play: Playbook) -> None:
    first = play.client().says("INCR", "a")
    shared = play.server("m:1").hears("INCR", "a")
    play.client().says("BLPOP", "q", "0")
    ends(play, play.server("m:1").hears("BLPOP", "q", "0", exclusive=True))
    second = play.client().says("INCR", "b")
    play.lease.revoke()
    play.router.lapse(play.time)
    shared.answers(b":1\r\n")
    first.hears_nothing()
    play.lease.renew(play.time, 1e9)
    play.router.resume(play.time)
    first.hears(b":1\r\n")
    play.server("m:1").hears("INCR", "b").answers(b":2\r\n")
    second.hears(b":2\r\n")


def test_probing__connection_of_one_client__the_shell_listens_for_the_answer() -> None:
    play = Playbook(spares=2)
    play.topology(1, master="m:1")
    play.client().says("EVAL", "x", "0")
    play.server("m:1").hears("EVAL", "x", "0", exclusive=True).answers(b":1\r\n")
    play.settle()
    idle = [one for one in play.server("m:1").live if one.lane in play.router.dedicated]
    ends(play, idle[0])
    play.server("m:1").silent = True
    asked: list[bool] = []
    play.flush_soon = lambda: asked.append(True)  # type: ignore[method-assign]
    play.client().session.feed(b"*3\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n0\r\n", play.time)
    assert any(one.probed for one in idle)
    assert asked


def test_read_at_a_former_master__it_dies_bit_by_bit__is_not_blamed_twice() -> None:
    """Without a lease, reads go to the last known master."""
    play = Playbook(spares=2)
    play.topology(1, master="m:1")
    server = play.server("m:1")
    first, second = play.client(), play.client()
    play.lease.revoke()
    play.router.lapse(play.time)
    play.wait(1.5)
    first.says("GET", "k")
    ends(play, server.hears("GET", "k"))
    play.wait(0.3)
    server.hears("GET", "k", exclusive=True).answers(b"$1\r\n1\r\n")  # which leaves idle connections
    play.wait(1.0)
    second.says("GET", "k")
    connection = server.hears("GET", "k")
    server.refuses = server.silent = True
    ends(play, connection)
    while server.live:
        ends(play, server.live[0])
    second.hears_nothing()


def test_probing__a_reply_lets_its_session_take_the_lane_again__asks_once(play: Playbook) -> None:
    """A second answer would be taken for the reply to the next command."""
    client = play.client().pipelines("BLPOP a 0", "BLPOP b 0")
    connection = play.server("m:1").hears("BLPOP", "a", "0", exclusive=True)
    script = play.client().says("EVAL", "x", "0")
    ends(play, play.server("m:1").hears("EVAL", "x", "0", exclusive=True))
    script.hears_error("UNCERTAIN EVAL")
    connection.answers(b"*2\r\n$1\r\na\r\n$1\r\n1\r\n")
    client.hears(b"*2\r\n$1\r\na\r\n$1\r\n1\r\n")
    play.server("m:1").hears("BLPOP", "b", "0", exclusive=True).answers(b"*2\r\n$1\r\nb\r\n$1\r\n2\r\n")
    client.hears(b"*2\r\n$1\r\nb\r\n$1\r\n2\r\n")
