"""CLIENT TRACKING ... REDIRECT: the server tells the right connection, also after it has changed."""

from __future__ import annotations

import pytest

from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"
INVALID = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
NO_SUCH_CLIENT = b"-ERR The client ID you want redirect to does not exist\r\n"
FORGET_IN_RESP2 = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n"


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


def confirmed(channel: str, count: int, kind: str = "subscribe") -> bytes:
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(x), x.encode()) for x in (kind, channel)) + b":%d\r\n" % count


def listener(play: Playbook) -> tuple[FakeClient, FakeConnection]:
    """A client that is told in RESP2 what changed."""
    client = play.client()
    connection = own(play, client, "SUBSCRIBE __redis__:invalidate", confirmed("__redis__:invalidate", 1))
    client.hears(confirmed("__redis__:invalidate", 1))
    return client, connection


def redirect(play: Playbook, client: FakeClient, target: FakeClient, number: int, server: str = "m:1") -> None:
    """The client has the other one told: the server hears its own id of that one's connection."""
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    redirected(play, number, server).answers(OK)
    client.hears(OK)


def redirected(play: Playbook, number: int, server: str) -> FakeConnection:
    """The server is told where invalidations go."""
    return play.server(server).hears("CLIENT", "TRACKING", "ON", "REDIRECT", str(number), exclusive=True)


def test_a_redirection_names_the_connection_of_the_client_that_is_to_be_told(play: Playbook) -> None:
    target, connection = listener(play)
    client = play.client()
    redirect(play, client, target, connection.client_id)
    own(play, client, "CLIENT GETREDIR", b":%d\r\n" % connection.client_id)
    client.hears(b":%d\r\n" % target.session.number)
    info = b"*6\r\n$5\r\nflags\r\n*1\r\n$2\r\non\r\n$8\r\nredirect\r\n:%d\r\n$8\r\nprefixes\r\n*0\r\n"
    own(play, client, "CLIENT TRACKINGINFO", info % connection.client_id)
    client.hears(info % target.session.number)


def test_a_client_that_has_no_connection_of_its_own_is_given_one_to_be_told_there(play: Playbook) -> None:
    target, client = in_resp3(play), play.client()
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    (connection,) = [c for c in play.server("m:1").live if c.lane.guest is target.session]
    redirected(play, connection.client_id, "m:1").answers(OK)
    client.hears(OK)
    connection.answers(INVALID)
    target.hears(INVALID)
    own(play, client, "CLIENT TRACKING OFF", OK)
    assert connection.closed, "nobody is told there any more"
    target.says("GET", "k")
    play.server("r:1").hears("GET", "k")


def test_a_client_that_is_to_be_told_finishes_first_what_it_is_about(play: Playbook) -> None:
    target, client = play.client(), play.client()
    blocked = own(play, target, "BLPOP q 0")
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    play.server("m:1").hears_nothing()
    blocked.answers(b"*-1\r\n")
    redirected(play, blocked.client_id, "m:1").answers(OK)
    client.hears(OK)


def test_a_client_may_name_itself(play: Playbook) -> None:
    client = play.client()
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(client.session.number))
    (connection,) = play.server("m:1").live
    redirected(play, connection.client_id, "m:1").answers(OK)
    client.hears(OK)
    fail_over(play)
    connection = play.server("r:1").live[-1]
    redirected(play, connection.client_id, "r:1").answers(OK)
    own(play, client, "GET k", b"$-1\r\n", server="r:1")
    client.hears(b"$-1\r\n")


def test_a_client_that_does_not_exist_is_the_servers_to_refuse(play: Playbook) -> None:
    client = play.client().says("CLIENT", "TRACKING", "ON", "REDIRECT", "999")
    redirected(play, 9223372036854775807, "m:1").answers(NO_SUCH_CLIENT)
    client.hears(NO_SUCH_CLIENT)


def test_a_wrong_redirection_is_refused_in_the_words_of_redis(play: Playbook) -> None:
    target, _ = listener(play)
    client = play.client().says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number), "PREFIX", "a")
    client.hears(b"-ERR PREFIX option requires BCAST mode to be enabled\r\n")


def test_after_a_failover_the_redirection_is_restored_behind_its_target_which_forgets_everything(
    play: Playbook,
) -> None:
    target, connection = listener(play)
    client = play.client()
    redirect(play, client, target, connection.client_id)
    play.topology(2, replicas=["r:1"])
    target.hears(FORGET_IN_RESP2)
    client.hears_nothing()
    play.topology(3, master="r:1")
    again = play.server("r:1").hears("SUBSCRIBE", "__redis__:invalidate", exclusive=True)
    again.answers(confirmed("__redis__:invalidate", 1))
    redirected(play, again.client_id, "r:1").answers(OK)
    target.hears_nothing()
    own(play, client, "GET k", b"$-1\r\n", server="r:1")
    client.hears(b"$-1\r\n")


def test_a_target_whose_connection_alone_dies_is_redirected_to_again_and_forgets_everything(play: Playbook) -> None:
    target, connection = listener(play)
    client = play.client()
    redirect(play, client, target, connection.client_id)
    connection.closed = True
    connection.lane.lose(play.time)
    client.says("GET", "k")
    play.wait(0.1)
    again = play.server("m:1").hears("SUBSCRIBE", "__redis__:invalidate", exclusive=True)
    again.answers(confirmed("__redis__:invalidate", 1))
    play.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    tracked = redirected(play, again.client_id, "m:1")
    target.hears(FORGET_IN_RESP2)
    play.server("m:1").hears("GET", "k", exclusive=True)
    tracked.answers(OK + OK + b"$-1\r\n")
    client.hears(b"$-1\r\n")


def test_a_target_that_resets_is_still_there(play: Playbook) -> None:
    target, connection = listener(play)
    client = play.client()
    redirect(play, client, target, connection.client_id)
    target.says("RESET").hears(b"+RESET\r\n")
    assert connection.closed
    play.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    (again,) = [c for c in play.server("m:1").live if c.lane.guest is target.session]
    redirected(play, again.client_id, "m:1").answers(OK + OK)
    client.hears_nothing()


def test_a_target_that_has_left_breaks_the_redirection_as_on_redis(play: Playbook) -> None:
    target, connection = listener(play)
    client = in_resp3(play)
    redirect(play, client, target, connection.client_id)
    number = target.session.number
    target.leaves()
    broken = b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n"
    own(play, client, "GET k", b"_\r\n" + broken % connection.client_id)
    client.hears(b"_\r\n" + broken % number)
    fail_over(play)
    client.hears(broken % number)
    own(play, client, "GET k", b"_\r\n", server="r:1")
    client.hears(b"_\r\n")


def test_a_client_that_leaves_frees_the_one_that_was_told(play: Playbook) -> None:
    target, client = play.client(), play.client()
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    client.leaves()
    target.says("GET", "k")
    play.server("r:1").hears("GET", "k")
    assert [c for c in play.server("m:1").live if c.lane.guest is not None] == []


def test_a_target_that_leaves_while_it_is_waited_for_does_not_exist(play: Playbook) -> None:
    target, client = play.client(), play.client()
    own(play, target, "BLPOP q 0")
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    target.leaves()
    redirected(play, 9223372036854775807, "m:1").answers(NO_SUCH_CLIENT)
    client.hears(NO_SUCH_CLIENT)


def test_a_target_that_was_choked_is_read_for_again(play: Playbook) -> None:
    target = play.client()
    target.pipelines(*["INCR k"] * 600)
    own = play.server("m:1").hears("INCR", "k", exclusive=True)
    own.answers(b":1\r\n")
    target.session.choke(play.time, full=True)
    assert not own.read
    play.client().says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))
    target.session.choke(play.time, full=False)
    assert own.read
