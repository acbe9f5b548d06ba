"""CLIENT REPLY: who wants to hear nothing hears nothing, save what Redis pushes all the same."""

from __future__ import annotations

import pytest

from rfproxy.builtin.reply_mode import Muted
from tests.support.playbook import FakeClient, Playbook

OK = b"+OK\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1")
    return play


def replies(play: Playbook, client: FakeClient, mode: str) -> None:
    """CLIENT REPLY, with the server's consent."""
    client.says("CLIENT", "REPLY", mode)
    play.server("m:1").hears("CLIENT", "REPLY", "ON").answers(OK)


def incr(play: Playbook, client: FakeClient) -> None:
    client.says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")


def test_behind_off_nothing_is_heard_until_on(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    incr(play, client)
    client.says("NOPE")
    play.server("m:1").hears("NOPE", exclusive=True).answers(b"-ERR unknown command\r\n")
    client.hears_nothing()
    replies(play, client, "ON")
    client.hears(OK)
    incr(play, client)
    client.hears(b":1\r\n")


def test_off_ends_nobody_elses_replies_on_the_same_connection(play: Playbook) -> None:
    client, other = play.client(), play.client()
    replies(play, client, "OFF")
    client.says("INCR", "a")
    other.says("INCR", "b")
    play.server("m:1").hears("INCR", "a")
    play.server("m:1").hears("INCR", "b").answers(b":1\r\n:2\r\n")
    client.hears_nothing()
    other.hears(b":2\r\n")


def test_skip_is_about_the_next_command_alone(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "SKIP")
    client.pipelines("INCR k", "INCR k", "INCR k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears_nothing()
    play.server("m:1").hears("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":2\r\n:3\r\n")
    client.hears(b":2\r\n:3\r\n")


def test_skip_in_the_middle_of_a_packet_is_about_what_stands_behind_it(play: Playbook) -> None:
    client = play.client().pipelines("INCR a", "CLIENT REPLY SKIP", "INCR b", "INCR c")
    master = play.server("m:1")
    master.hears("INCR", "a").answers(b":1\r\n")
    play.server("m:1").hears("CLIENT", "REPLY", "ON").answers(OK)
    master.hears("INCR", "b").answers(b":2\r\n")
    master.hears("INCR", "c").answers(b":3\r\n")
    client.hears(b":1\r\n:3\r\n")


def test_skip_behind_skip_is_about_the_command_behind_both(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "SKIP")
    replies(play, client, "SKIP")
    incr(play, client)
    client.hears_nothing()
    incr(play, client)
    client.hears(b":1\r\n")


def test_skip_behind_off_changes_nothing(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    replies(play, client, "SKIP")
    incr(play, client)
    incr(play, client)
    client.hears_nothing()


def test_what_is_to_be_skipped_and_is_lost_with_its_connection_is_repeated_and_skipped(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "SKIP")
    client.pipelines("SET k v", "INCR k")
    play.server("m:1").hears("SET", "k", "v")
    play.server("m:1").hangs_up()
    play.wait(0.1)
    play.server("m:1").hears("SET", "k", "v", exclusive=True).answers(OK)
    client.hears_nothing()
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    client.hears(b":1\r\n")


def test_an_uncertain_command_that_nobody_wants_to_hear_of_is_logged_and_not_answered(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    client.says("INCR", "k")
    play.server("m:1").dies()
    client.hears_nothing()
    assert "UNCERTAIN" in str(play.log.events("client_error"))


def test_a_wrong_mode_is_the_servers_to_refuse(play: Playbook) -> None:
    client = play.client().says("CLIENT", "REPLY", "LOUD")
    play.server("m:1").hears("CLIENT", "REPLY", "LOUD").answers(b"-ERR syntax error\r\n")
    client.hears(b"-ERR syntax error\r\n")
    incr(play, client)
    client.hears(b":1\r\n")


def test_who_may_not_be_silent_is_told_so(play: Playbook) -> None:
    client = play.client().says("CLIENT", "REPLY", "OFF")
    play.server("m:1").hears("CLIENT", "REPLY", "ON").answers(b"-NOPERM no\r\n")
    client.hears(b"-NOPERM no\r\n")
    incr(play, client)
    client.hears(b":1\r\n")


def test_subscriptions_are_confirmed_and_messages_told_behind_off_too(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    client.says("SUBSCRIBE", "c")
    connection = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(CONFIRMED + MESSAGE)
    client.hears(CONFIRMED + MESSAGE)
    client.says("PING")
    play.server("m:1").hears("PING", exclusive=True)
    connection.answers(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" + MESSAGE)
    client.hears(MESSAGE)


def test_a_refused_subscription_behind_off_is_not_heard_of(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    client.says("SUBSCRIBE", "c")
    play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(b"-NOPERM no\r\n")
    client.hears_nothing()


def test_what_monitor_shows_is_a_reply(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    client.says("MONITOR")
    line = b'+1700000000.000001 [0 127.0.0.1:1] "PING"\r\n'
    connection = play.server("m:1").hears("MONITOR", exclusive=True).answers(OK + line)
    client.hears_nothing()
    client.says("CLIENT", "REPLY", "ON")
    play.server("m:1").hears("CLIENT", "REPLY", "ON", exclusive=True)
    connection.answers(OK + line)
    client.hears(OK + line)


def test_reset_ends_the_silence(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    client.says("RESET").hears(b"+RESET\r\n")


def test_quit_behind_off_closes_without_a_word(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "OFF")
    client.says("QUIT").hears_nothing()
    assert client.closed


def test_a_muted_end_is_still_the_clients_end(play: Playbook) -> None:
    client = play.client()
    client.fd, client.unread = 9, 100
    muted = Muted(client)
    muted.write(b"lost")
    muted.resume()
    assert (muted.fd, muted.unread, client.resumed, client.output) == (9, 100, 1, b"")
    muted.close()
    assert client.closed
    client.closed = False
    muted.abort()
    assert client.closed


@pytest.mark.parametrize("command", ["INCR k", "GET k", "BLPOP q 0", "SELECT 1"])
def test_what_is_to_be_skipped_is_skipped_although_it_waited_for_a_master(play: Playbook, command: str) -> None:
    client = play.client()
    replies(play, client, "SKIP")
    play.topology(2)
    client.pipelines(command, "INCR k")
    play.topology(3, master="m:2")
    master = play.server("m:2")
    connection = master.hears(*command.split(), exclusive=command.startswith("BLPOP")).answers(b":1\r\n")
    client.hears_nothing()
    assert not connection.closed
    master.hears("INCR", "k").answers(b":2\r\n")
    client.hears(b":2\r\n")


def test_an_error_of_the_proxy_is_skipped_like_any_other_reply(play: Playbook) -> None:
    client = play.client()
    replies(play, client, "SKIP")
    client.says("INCR", "k")
    play.server("m:1").hangs_up()
    client.hears_nothing()
    assert "UNCERTAIN" in str(play.log.events("client_error"))
    play.wait(0.1)
    incr(play, client)
    client.hears(b":1\r\n")
