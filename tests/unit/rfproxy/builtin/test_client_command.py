"""CLIENT: each client of the proxy is told of the proxy's clients, as Redis tells of its own."""

from __future__ import annotations

import re

import pytest

from rfproxy.builtin.client_command import describe
from rfproxy.core.attempts import FATAL
from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
NOBODY = "9223372036854775807"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1")
    return play


def asks(play: Playbook, client: FakeClient, words: str, question: str, answer: bytes = OK) -> None:
    """The client says something, the server is asked something, and answers."""
    client.says(*words.split())
    play.server("m:1").hears(*question.split()).answers(answer)


def own(play: Playbook, client: FakeClient, *command: str, answer: bytes = b"") -> FakeConnection:
    """The client says something that stands on a connection of its own."""
    client.says(*command)
    return play.server("m:1").hears(*command, exclusive=True).answers(answer)


def line(play: Playbook, client: FakeClient) -> dict[str, str]:
    """What CLIENT INFO tells the client of itself, in the middle of whatever it does."""
    found = describe(client.session, play.time)
    return {"sub": str(found.sub), "psub": str(found.psub), "ssub": str(found.ssub), "multi": str(found.multi)}


def listed(text: bytes) -> list[dict[str, str]]:
    """The lines of CLIENT LIST."""
    head, body = text.split(b"\r\n", 1)
    assert head == b"$%d" % (len(body) - 2)
    return [dict(word.split("=", 1) for word in one.split(" ")) for one in body.decode().strip().split("\n")]


def take(client: FakeClient) -> bytes:
    """What the client has heard."""
    output, client.output = client.output, b""
    return output


# --- names


def test_each_client_has_its_own_id(play: Playbook) -> None:
    first, second = play.client(), play.client()
    for client in (first, second):
        asks(play, client, "CLIENT ID", "CLIENT ID", b":7000\r\n")
        client.hears(b":%d\r\n" % client.session.number)
    assert first.session.number != second.session.number


def test_each_client_has_its_own_name_and_the_server_hears_of_none(play: Playbook) -> None:
    first, second = play.client(), play.client()
    asks(play, first, "CLIENT SETNAME app", "CLIENT SETNAME rfproxy")
    first.hears(OK)
    asks(play, first, "CLIENT GETNAME", "CLIENT GETNAME", b"$7\r\nrfproxy\r\n")
    first.hears(b"$3\r\napp\r\n")
    asks(play, second, "CLIENT GETNAME", "CLIENT GETNAME", b"$7\r\nrfproxy\r\n")
    second.hears(b"$-1\r\n")


def test_an_empty_name_is_none(play: Playbook) -> None:
    client = play.client()
    client.session.name = b"app"
    client.says("CLIENT", "SETNAME", "")
    play.server("m:1").hears("CLIENT", "SETNAME", "rfproxy").answers(OK)
    asks(play, client, "CLIENT GETNAME", "CLIENT GETNAME", b"$-1\r\n")
    client.hears(OK + b"$-1\r\n")


def test_a_name_survives_a_failover(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT SETNAME app", "CLIENT SETNAME rfproxy")
    client.hears(OK)
    play.topology(2)
    client.says("CLIENT", "GETNAME").hears(b"$3\r\napp\r\n")
    play.topology(3, master="m:1")
    client.says("CLIENT", "GETNAME")
    play.server("m:1").hears("CLIENT", "GETNAME").answers(b"$-1\r\n")
    client.hears(b"$3\r\napp\r\n")


def test_a_name_that_redis_would_not_take_is_the_servers_to_refuse(play: Playbook) -> None:
    refusal = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
    client = play.client().says("CLIENT", "SETNAME", "a b")
    play.server("m:1").hears("CLIENT", "SETNAME", "a b").answers(refusal)
    client.hears(refusal)
    assert client.session.name == b""


def test_what_a_library_says_of_itself_is_taken_if_the_server_takes_such_things(play: Playbook) -> None:
    play.server("m:1").version = "7.2.4"
    client = play.client()
    asks(play, client, "CLIENT SETINFO LIB-NAME redis-py", "CLIENT SETINFO LIB-NAME rfproxy")
    client.hears(OK)
    refusal = b"-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n"
    client.says("CLIENT", "SETINFO", "LIB-VER", "8 ")
    play.server("m:1").hears("CLIENT", "SETINFO", "LIB-VER", "8 ").answers(refusal)
    client.hears(refusal)


def test_what_a_library_says_of_itself_is_unknown_to_redis_7_0(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT ID", "CLIENT ID", b":7000\r\n")
    client.output = b""
    client.says("CLIENT", "SETINFO", "LIB-VER", "8")
    client.hears(b"-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n")


# --- LIST and INFO


def test_list_shows_the_proxys_clients_and_none_of_the_servers(play: Playbook) -> None:
    first, second = play.client(), play.client()
    first.session.name = b"app"
    play.wait(2.5)
    asks(play, second, "CLIENT LIST", f"CLIENT LIST ID {NOBODY}", b"$0\r\n\r\n")
    one, two = listed(take(second))
    assert (one["id"], one["addr"], one["name"], one["age"], one["cmd"]) == (
        str(first.session.number),
        first.session.address,
        "app",
        one["idle"],
        "unknown",
    )
    assert (two["id"], two["idle"], two["cmd"], two["user"], two["resp"]) == (
        str(second.session.number),
        "0",
        "client|list",
        "default",
        "2",
    )


def test_list_shows_who_was_asked_for(play: Playbook) -> None:
    first, second = play.client(), play.client()
    number = first.session.number
    asks(play, second, f"CLIENT LIST ID {number} 999", f"CLIENT LIST ID {NOBODY}", b"$0\r\n\r\n")
    assert [one["id"] for one in listed(take(second))] == [str(number)]
    asks(play, second, "CLIENT LIST TYPE pubsub", f"CLIENT LIST ID {NOBODY}", b"$0\r\n\r\n")
    second.hears(b"$0\r\n\r\n")


def test_a_wrong_list_is_the_servers_to_refuse(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT LIST TYPE x", "CLIENT LIST TYPE x", b"-ERR Unknown client type 'x'\r\n")
    client.hears(b"-ERR Unknown client type 'x'\r\n")


def test_info_is_the_line_of_who_asks_and_marked_as_text_in_resp3(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT INFO", "CLIENT INFO", b"$1\r\nx\r\n")
    (one,) = listed(take(client))
    assert one["id"] == str(client.session.number)
    client.says("HELLO", "3")
    play.server("m:1").hears("HELLO", "3").answers(b"%0\r\n")
    take(client)
    client.says("CLIENT", "INFO")
    play.server("m:1").hears("CLIENT", "INFO").answers(b"=5\r\ntxt:x\r\n")
    assert re.fullmatch(rb"=[0-9]+\r\ntxt:id=.* resp=3\n\r\n", take(client))


def shown(play: Playbook, client: FakeClient) -> tuple[str, int, int]:
    """What another client sees: flags, commands queued behind MULTI, where invalidations go."""
    other = play.client()
    asks(play, other, f"CLIENT LIST ID {client.session.number}", f"CLIENT LIST ID {NOBODY}", b"$0\r\n\r\n")
    (one,) = listed(take(other))
    other.leaves()
    return one["flags"], int(one["multi"]), int(one["redir"])


def test_what_a_client_is_doing_shows(play: Playbook) -> None:
    client = play.client()
    assert shown(play, client) == ("N", -1, -1)
    own(play, client, "BLPOP", "q", "0")
    assert shown(play, client) == ("b", -1, -1)


def test_a_transaction_shows_with_the_number_of_its_commands(play: Playbook) -> None:
    client = play.client()
    own(play, client, "MULTI", answer=OK)
    own(play, client, "SET", "k", "v", answer=QUEUED)
    assert shown(play, client) == ("x", 1, -1)


def test_a_broken_watch_shows_as_one_whose_key_was_touched(play: Playbook) -> None:
    client = play.client()
    own(play, client, "WATCH", "k", answer=OK)
    play.topology(2)
    play.topology(3, master="m:1")
    assert shown(play, client) == ("d", -1, -1)


def test_subscriptions_show_by_kind(play: Playbook) -> None:
    client = play.client()
    for number, kind in enumerate(("subscribe", "psubscribe", "ssubscribe"), 1):
        confirmation = b"*3\r\n$%d\r\n%b\r\n$1\r\nc\r\n:%d\r\n" % (len(kind), kind.encode(), number)
        own(play, client, kind.upper(), "c", answer=confirmation)
    assert shown(play, client)[0] == "P"
    assert line(play, client) == {"sub": "1", "psub": "1", "ssub": "1", "multi": "-1"}


def test_monitoring_and_tracking_show(play: Playbook) -> None:
    client, other = play.client(), play.client()
    own(play, client, "MONITOR", answer=OK)
    assert shown(play, client) == ("O", -1, -1)
    own(play, other, "CLIENT", "TRACKING", "ON", "BCAST", answer=OK)
    assert shown(play, other) == ("tB", -1, 0)


def test_a_client_that_wishes_to_stay_whatever_the_memory_shows_so(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT NO-EVICT ON", "CLIENT NO-EVICT OFF")
    assert shown(play, client)[0] == "e"
    asks(play, client, "CLIENT NO-EVICT OFF", "CLIENT NO-EVICT OFF")
    assert shown(play, client)[0] == "N"
    client.hears(OK + OK)


# --- KILL


def test_kill_hangs_up_on_clients_and_not_on_the_connections_they_share(play: Playbook) -> None:
    first, second = play.client(), play.client()
    number = first.session.number
    asks(play, second, f"CLIENT KILL ID {number}", f"CLIENT KILL ID {number} ID {NOBODY}", b":0\r\n")
    second.hears(b":1\r\n")
    assert first.closed
    assert number not in play.router.sessions
    assert not play.server("m:1").lanes[0].closed


def test_kill_by_address_says_whether_there_was_one(play: Playbook) -> None:
    first, second = play.client(), play.client()
    asks(play, second, f"CLIENT KILL {first.session.address}", f"CLIENT KILL ID {NOBODY}", b":0\r\n")
    second.hears(OK)
    assert first.closed
    asks(play, second, f"CLIENT KILL {first.session.address}", f"CLIENT KILL ID {NOBODY}", b":0\r\n")
    second.hears(b"-ERR No such client\r\n")


def test_who_kills_everyone_is_spared_unless_it_says_so_and_hears_the_answer(play: Playbook) -> None:
    first, second = play.client(), play.client()
    asks(play, second, "CLIENT KILL TYPE normal", f"CLIENT KILL TYPE normal ID {NOBODY}", b":0\r\n")
    second.hears(b":1\r\n")
    assert (first.closed, second.closed) == (True, False)
    asks(play, second, "CLIENT KILL SKIPME no", f"CLIENT KILL SKIPME no ID {NOBODY}", b":0\r\n")
    second.hears(b":1\r\n")
    assert second.closed


def test_what_a_killed_client_had_asked_for_and_not_been_answered_disturbs_nobody(play: Playbook) -> None:
    first, second = play.client().says("INCR", "k"), play.client()
    connection = play.server("m:1").hears("INCR", "k")
    second.says("CLIENT", "KILL", "TYPE", "normal")
    play.server("m:1").hears("CLIENT", "KILL", "TYPE", "normal", "ID", NOBODY)
    connection.answers(b":1\r\n:0\r\n")
    first.hears(b":1\r\n")
    second.hears(b":1\r\n")


def test_a_user_that_does_not_exist_is_known_to_the_server(play: Playbook) -> None:
    client = play.client()
    error = b"-ERR No such user 'x'\r\n"
    asks(play, client, "CLIENT KILL USER x", f"CLIENT KILL USER x ID {NOBODY}", error)
    client.hears(error)


def test_a_killed_subscriber_takes_its_connection_along(play: Playbook) -> None:
    first, second = play.client(), play.client()
    connection = own(play, first, "SUBSCRIBE", "c", answer=b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    asks(play, second, "CLIENT KILL TYPE pubsub", f"CLIENT KILL TYPE pubsub ID {NOBODY}", b":0\r\n")
    second.hears(b":1\r\n")
    assert (first.closed, connection.closed) == (True, True)


# --- UNBLOCK


@pytest.mark.parametrize("reason", ["", " ERROR", " TIMEOUT"])
def test_unblock_is_about_the_connection_that_carries_the_blocking_command(play: Playbook, reason: str) -> None:
    blocked, other = play.client(), play.client()
    connection = own(play, blocked, "BLPOP", "q", "0")
    number = blocked.session.number
    asks(play, other, f"CLIENT UNBLOCK {number}{reason}", f"CLIENT UNBLOCK {connection.client_id}{reason}", b":1\r\n")
    other.hears(b":1\r\n")
    connection.answers(b"*-1\r\n")
    blocked.hears(b"*-1\r\n")


def test_who_is_not_blocked_is_not_unblocked(play: Playbook) -> None:
    first, second = play.client(), play.client()
    asks(play, second, f"CLIENT UNBLOCK {first.session.number}", f"CLIENT UNBLOCK {NOBODY}", b":0\r\n")
    second.hears(b":0\r\n")


@pytest.mark.parametrize(
    ("reason", "heard"), [("TIMEOUT", b"*-1\r\n"), ("ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
)
def test_who_waits_for_a_master_with_a_blocking_command_is_unblocked_here(
    play: Playbook, reason: str, heard: bytes
) -> None:
    blocked, other = play.client(), play.client()
    own(play, blocked, "BLPOP", "q", "0")
    blocked.pipelines("INCR k")
    play.wait(FATAL + 0.1)  # long enough to be known to wait
    play.server("m:1").hangs_up()
    play.router.hold_back(play.time + 60, writes_only=True, now=play.time)
    play.wait(0.1)
    number = blocked.session.number
    asks(play, other, f"CLIENT UNBLOCK {number} {reason}", f"CLIENT UNBLOCK {NOBODY} {reason}", b":0\r\n")
    other.hears(b":1\r\n")
    blocked.hears(heard)


def test_a_wrong_unblock_is_the_servers_to_refuse(play: Playbook) -> None:
    client = play.client()
    error = b"-ERR value is not an integer or out of range\r\n"
    asks(play, client, "CLIENT UNBLOCK x", "CLIENT UNBLOCK x", error)
    client.hears(error)


# --- PAUSE


def test_a_pause_of_writes_holds_them_here_and_lets_reads_pass(play: Playbook) -> None:
    first, second = play.client(), play.client()
    asks(play, first, "CLIENT PAUSE 1000 WRITE", "CLIENT PAUSE 1000 WRITE")
    first.hears(OK)
    second.pipelines("GET k")
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    second.hears(b"$-1\r\n")
    second.says("INCR", "k")
    first.says("GET", "k")
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    play.server("m:1").hears_nothing()
    play.wait(1.0)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    second.hears(b":1\r\n")


def test_a_pause_of_everything_ends_with_unpause(play: Playbook) -> None:
    first, second = play.client(), play.client()
    asks(play, first, "CLIENT PAUSE 60000", "CLIENT PAUSE 60000 WRITE")
    second.says("GET", "k")
    play.server("m:1").hears_nothing()
    first.says("CLIENT", "UNPAUSE")
    play.server("m:1").hears("CLIENT", "UNPAUSE", exclusive=True).answers(OK)
    first.hears(OK + OK)
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    second.hears(b"$-1\r\n")


@pytest.mark.parametrize("mode", ["", " ALL", " all", " WRITE", " write"])
def test_pause__of_any_mode__never_silences_the_server(play: Playbook, mode: str) -> None:
    """INFO and PING of the managers wait like all other commands in a pause of all: that looks like a dead server."""
    client = play.client()
    asks(play, client, f"CLIENT PAUSE 1000{mode}", "CLIENT PAUSE 1000 WRITE")
    client.hears(OK)
    other = play.client().says("GET", "k")
    if mode.strip().upper() != "WRITE":
        play.server("m:1").hears_nothing()
        play.wait(1.0)
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    other.hears(b"$-1\r\n")


@pytest.mark.parametrize("wrong", ["CLIENT PAUSE x", "CLIENT PAUSE 1 READ", "CLIENT PAUSE 1 WRITE x"])
def test_pause__malformed__as_it_came(play: Playbook, wrong: str) -> None:
    client = play.client()
    asks(play, client, wrong, wrong, b"-ERR no\r\n")
    client.hears(b"-ERR no\r\n")


def test_a_shorter_pause_does_not_end_a_longer_one(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT PAUSE 2000 WRITE", "CLIENT PAUSE 2000 WRITE")
    asks(play, client, "CLIENT PAUSE 1 WRITE", "CLIENT PAUSE 1 WRITE")
    client.hears(OK + OK)
    client.says("INCR", "k")
    play.wait(1.9)
    play.server("m:1").hears_nothing()
    play.wait(0.1)
    play.server("m:1").hears("INCR", "k")


def test_who_is_held_by_a_pause_is_not_told_that_there_is_no_master(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT PAUSE 60000 WRITE", "CLIENT PAUSE 60000 WRITE")
    client.hears(OK)
    client.says("INCR", "k")
    play.wait(59.0)
    client.hears_nothing()
    play.wait(1.0)
    play.server("m:1").hears("INCR", "k")


def test_a_pause_that_the_server_refuses_holds_nobody(play: Playbook) -> None:
    client = play.client()
    error = b"-ERR timeout is negative\r\n"
    asks(play, client, "CLIENT PAUSE -1", "CLIENT PAUSE -1", error)
    client.hears(error)
    asks(play, client, "INCR k", "INCR k", b":1\r\n")


# --- GETREDIR, and INFO proxy


def test_getredir_says_whether_invalidations_come_here(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "CLIENT GETREDIR", "CLIENT GETREDIR", b":-1\r\n")
    client.hears(b":-1\r\n")
    own(play, client, "CLIENT", "TRACKING", "ON", answer=OK)
    own(play, client, "CLIENT", "GETREDIR", answer=b":0\r\n")
    client.hears(OK + b":0\r\n")


def test_info_of_the_proxy_is_a_section_of_its_own_and_marked_as_text_in_resp3(play: Playbook) -> None:
    client = play.client()
    asks(play, client, "INFO proxy", "INFO proxy", b"$0\r\n\r\n")
    assert re.fullmatch(rb"\$[0-9]+\r\n# Proxy\r\n.*proxy_master:m:1\r\n.*\r\n\r\n", take(client), re.DOTALL)
    client.says("HELLO", "3")
    play.server("m:1").hears("HELLO", "3").answers(b"%0\r\n")
    take(client)
    client.says("INFO", "proxy")
    play.server("m:1").hears("INFO", "proxy").answers(b"=4\r\ntxt:\r\n")
    assert re.fullmatch(rb"=[0-9]+\r\ntxt:# Proxy\r\n.*\r\n\r\n", take(client), re.DOTALL)


# --- behind MULTI


def test_what_is_asked_behind_multi_is_answered_within_exec(play: Playbook) -> None:
    client = play.client()
    own(play, client, "MULTI", answer=OK)
    client.pipelines("CLIENT ID", "CLIENT SETNAME app", "CLIENT GETNAME", "EXEC")
    master = play.server("m:1")
    master.hears("CLIENT", "ID", exclusive=True)
    master.hears("CLIENT", "SETNAME", "rfproxy", exclusive=True)
    master.hears("CLIENT", "GETNAME", exclusive=True)
    replies = b"*3\r\n:7001\r\n+OK\r\n$7\r\nrfproxy\r\n"
    connection = master.hears("EXEC", exclusive=True).answers(QUEUED * 3 + replies)
    number = client.session.number
    client.hears(OK + QUEUED * 3 + b"*3\r\n:%d\r\n+OK\r\n$3\r\napp\r\n" % number)
    assert connection.closed, "it was called a name"


@pytest.mark.parametrize("command", ["CLIENT KILL ID 1", "CLIENT UNBLOCK 1", "CLIENT REPLY OFF", "CLIENT PAUSE 1"])
def test_what_acts_on_other_clients_cannot_stand_behind_multi(play: Playbook, command: str) -> None:
    client = play.client()
    own(play, client, "MULTI", answer=OK)
    client.hears(OK)
    client.says(*command.split())
    play.server("m:1").hears("GET", exclusive=True).answers(b"-ERR wrong number of arguments for 'get' command\r\n")
    assert "inside MULTI" in client.hears_error("ERR CLIENT")
