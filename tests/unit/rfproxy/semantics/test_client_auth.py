"""A client that has not authenticated acts as the proxy's user, or not at all."""

from __future__ import annotations

import pytest

from rfproxy.core.identity import Account
from rfproxy.core.policy import ClientAuth, Policy
from rfproxy.semantics.client_auth import beyond_loopback, default_of
from tests.support.playbook import FakeClient, Playbook

OK = b"+OK\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
OWN = Account(b"proxy", b"secret")


def playbook(client_auth: ClientAuth = ClientAuth.REQUIRED) -> Playbook:
    play = Playbook(Policy(account=OWN, client_auth=client_auth))
    play.topology(1, master="m:1")
    return play


@pytest.fixture
def play() -> Playbook:
    return playbook()


def authenticated(play: Playbook) -> FakeClient:
    """A client that is the user `app`."""
    client = play.client().says("AUTH", "app", "pw")
    play.server("m:1").hears("AUTH", "app", "pw").answers(OK)
    client.hears(OK)
    return client


def users(play: Playbook) -> set[bytes]:
    """As whom the connections to the server carry commands: the last AUTH of each greeting, behind the proxy's own."""
    lanes = play.server("m:1").lanes
    return {[command[1] for command in lane.greeted if command[0] == b"AUTH"][-1] for lane in lanes}


@pytest.mark.parametrize(
    "command", ["GET k", "SET k v", "PING", "SUBSCRIBE c", "BLPOP q 0", "CLIENT REPLY OFF", "SELECT 1", "EVAL x 0"]
)
def test_required__no_auth__refused_and_nothing_is_sent(play: Playbook, command: str) -> None:
    client = play.client().says(*command.split())
    client.hears(NOAUTH)
    assert play.router.lanes == []


def test_required__transaction__each_command_refused(play: Playbook) -> None:
    play.client().pipelines("MULTI", "SET k v", "EXEC").hears(NOAUTH * 3)
    assert play.router.lanes == []


def test_required__no_master__refused_at_once() -> None:
    play = playbook()
    play.topology(2)
    play.client().says("SET", "k", "v").hears(NOAUTH)


def test_required__unknown_or_wrong_command__told_first(play: Playbook) -> None:
    client = play.client().says("GET")
    client.hears(b"-ERR wrong number of arguments for 'get' command\r\n")
    client.says("NOSUCH").hears(b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n")


def test_required__auth__acts_as_that_user_only(play: Playbook) -> None:
    client = authenticated(play)
    client.says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert users(play) == {b"app"}
    assert client.session.reader.between, "on the fast path from now on"


def test_required__commands_behind_auth__wait_for_its_answer(play: Playbook) -> None:
    client = play.client().pipelines("GET a", "AUTH app pw", "GET b")
    play.server("m:1").hears("AUTH", "app", "pw").answers(OK)
    play.server("m:1").hears("GET", "b").answers(b"$1\r\nb\r\n")
    client.hears(NOAUTH + OK + b"$1\r\nb\r\n")


def test_required__wrong_password__still_refused(play: Playbook) -> None:
    play.server("m:1").denies[b"AUTH"] = WRONGPASS
    play.client().pipelines("AUTH app no", "GET k").hears(WRONGPASS + NOAUTH)
    play.server("m:1").hears_nothing()


def test_required__hello__only_with_auth(play: Playbook) -> None:
    client = play.client().says("HELLO", "3", "SETNAME", "auth")
    assert client.output.startswith(b"-NOAUTH HELLO must be called with the client already authenticated")
    assert play.router.lanes == []
    client.output = b""
    client.says("HELLO", "4").hears(b"-NOPROTO unsupported protocol version\r\n")
    client.says("HELLO", "3", "AUTH", "app", "pw")
    play.server("m:1").hears("HELLO", "3", "AUTH", "app", "pw").answers(b"%0\r\n")
    client.hears(b"%0\r\n")
    assert users(play) == {b"app"}


def test_required__reset__has_to_authenticate_again(play: Playbook) -> None:
    client = authenticated(play)
    client.pipelines("RESET", "GET k").hears(b"+RESET\r\n" + NOAUTH)
    client.says("SET", "k", "v").hears(NOAUTH)
    play.server("m:1").hears_nothing()


@pytest.mark.parametrize("right", [True, False])
def test_required__reset_and_auth_in_one_packet__in_order(play: Playbook, right: bool) -> None:
    """All was read when the client still was somebody."""
    client = authenticated(play)
    if not right:
        play.server("m:1").denies[b"AUTH"] = WRONGPASS
    client.pipelines("RESET", "GET a", "AUTH other pw", "GET b")
    client.says("GET", "c")
    if not right:
        client.hears(b"+RESET\r\n" + NOAUTH + WRONGPASS + NOAUTH * 2)
        play.server("m:1").hears_nothing()
        return
    play.server("m:1").hears("AUTH", "other", "pw").answers(OK)
    play.server("m:1").hears("GET", "b").answers(b"$1\r\nb\r\n")
    play.server("m:1").hears("GET", "c").answers(b"$1\r\nc\r\n")
    client.hears(b"+RESET\r\n" + NOAUTH + OK + b"$1\r\nb\r\n$1\r\nc\r\n")
    assert users(play) == {b"app", b"other"}


def test_required__master_lost_under_auth__asked_again(play: Playbook) -> None:
    client = play.client().pipelines("AUTH app pw", "GET k")
    play.server("m:1").hears("AUTH", "app", "pw").lane.lose(play.time)
    play.wait(1.0)
    play.server("m:1").hears("AUTH", "app", "pw").answers(OK)
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(OK + b"$-1\r\n")


def test_required__limits_before_authentication__hold(play: Playbook) -> None:
    client = play.client().says("SET", "k", "x" * 20_000)
    client.hears(b"-ERR Protocol error: unauthenticated bulk length\r\n")
    assert client.closed


def test_required__unscreened_command__gets_no_connection(play: Playbook) -> None:
    """The last defence: a command that slipped through would be held, and not sent under the proxy's account."""
    session = play.client().session
    session.pending.append(session.entry([b"SET", b"k", b"v"]))
    session.pending.append(session.entry([b"EVAL", b"x", b"0"]))
    session.pump(play.time)
    play.settle()
    assert play.router.lanes == []
    assert play.router.exclusive(session, play.time) is None


def test_required__quit__ends_the_connection(play: Playbook) -> None:
    client = play.client().says("QUIT")
    client.hears(OK)
    assert client.closed


def test_proxy_user__no_auth__acts_as_the_proxy() -> None:
    play = playbook(ClientAuth.PROXY_USER)
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert users(play) == {b"proxy"}


@pytest.mark.parametrize(
    ("account", "hosts", "expected"),
    [
        (OWN, ["127.0.0.1", "::1"], ClientAuth.PROXY_USER),
        (OWN, ["127.0.0.1", "10.0.0.7"], ClientAuth.REQUIRED),
        (OWN, ["0.0.0.0"], ClientAuth.REQUIRED),
        (OWN, ["::"], ClientAuth.REQUIRED),
        (None, ["0.0.0.0"], ClientAuth.PROXY_USER),
    ],
)
def test_default__password_and_listeners__decide(account: Account, hosts: list[str], expected: ClientAuth) -> None:
    assert default_of(account, hosts) is expected


def test_beyond_loopback__names_may_be_anything() -> None:
    assert [host for host in ("127.8.0.1", "::1", "fe80::1%eth0", "cache.example") if beyond_loopback(host)] == [
        "fe80::1%eth0",
        "cache.example",
    ]
