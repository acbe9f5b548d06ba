"""Who asks the proxy's questions, and what operators are told when nobody may."""

from __future__ import annotations

import pytest

from rfproxy.greeting import Account
from rfproxy.policy import Policy
from rfproxy.report import report
from rfproxy.rights import FORGET
from tests.support.playbook import FakeClient, Playbook, User

OK = b"+OK\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
QUESTIONS = frozenset({"ROLE", "INFO", "CLIENT"})
LIMITED = User("pw", may_not=QUESTIONS | {"SELECT"})
ADMIN = User("pw")
OWN = Account(b"proxy", b"px")


def group(policy: Policy | None = None, **users: User) -> Playbook:
    """A master with these users."""
    play = Playbook(policy)
    play.server("m:1").users = dict(users)
    play.server("m:1").run_id = "first"
    play.topology(1, master="m:1", run_id="first")
    return play


def login(play: Playbook, name: str) -> FakeClient:
    """A client that has authenticated."""
    client = play.client().says("AUTH", name, "pw")
    play.server("m:1").hears("AUTH", name, "pw").answers(OK)
    client.hears(OK)
    return client


def restart(play: Playbook) -> None:
    """Another process listens at the master's address, which the managers do not know yet."""
    play.server("m:1").run_id = "second"
    play.server("m:1").hangs_up()
    play.wait(0.3)


def fields(play: Playbook) -> dict[str, str]:
    """The section `proxy` of INFO."""
    lines = report(play.router, play.time).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


# --- the proxy's account asks


@pytest.mark.parametrize("policy", [Policy(), Policy(account=OWN)], ids=["default user", "own account"])
def test_user_without_rights__master_restarted__hears_nothing(policy: Policy) -> None:
    play = group(policy, default=ADMIN if policy.account is None else LIMITED, proxy=User("px"), app=LIMITED)
    client = login(play, "app")
    restart(play)
    client.says("SET", "k", "v")
    play.server("m:1").hears_nothing()
    client.hears_nothing()
    assert play.server("m:1").acl_log == []


def test_user_without_rights__any_database__serves_without_a_trace() -> None:
    play = group(default=ADMIN, app=LIMITED)
    client = play.client().says("SELECT", "9")
    play.server("m:1").hears("SELECT", "9").answers(OK)
    client.says("AUTH", "app", "pw")
    play.server("m:1").hears("AUTH", "app", "pw").answers(OK)
    client.says("SET", "k", "v").hears(OK + OK)
    connection = play.server("m:1").hears("SET", "k", "v")
    assert connection.greeted[-2:] == [[b"SELECT", b"9"], [b"AUTH", b"app", b"pw"]]
    assert play.server("m:1").acl_log == []


def test_own_account_lacks_select__user_selects_itself() -> None:
    play = group(Policy(account=OWN), proxy=User("px", may_not={"SELECT"}), app=ADMIN)
    client = login(play, "app").says("SELECT", "9")
    connection = play.server("m:1").hears("SELECT", "9")
    assert connection.greeted[-2:] == [[b"AUTH", b"app", b"pw"], [b"SELECT", b"9"]]
    connection.answers(OK)
    client.hears(OK)
    (line,) = play.log.events("account_lacks_rights")
    assert line["problem"] == "lacks select"


# --- the client's user asks, where the default user may not speak


def test_no_account__user_may_ask__restart_is_noticed() -> None:
    play = group(app=ADMIN)
    client = login(play, "app")
    restart(play)
    client.says("SET", "k", "v")
    play.server("m:1").hears_nothing()
    assert play.server("m:1").acl_log == []
    assert play.log.events("account_lacks_rights") == [], "it is not said that a proxy must have an account"


def test_no_account__second_connection__is_greeted_in_one_packet() -> None:
    play = group(app=ADMIN)
    login(play, "app").says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    assert connection.lane.greetings == 1
    assert connection.greeted == [[b"AUTH", b"app", b"pw"], [b"ROLE"], [b"INFO", b"server"], [b"CLIENT", b"ID"]]


# --- nobody may ask


def test_nobody_may_ask__is_said_once_and_shown() -> None:
    play = group(app=LIMITED)
    client = login(play, "app").says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.says("BLPOP", "q", "0")
    play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    (line,) = play.log.events("cannot_check")
    assert line["node"] == "m:1"
    assert fields(play)["proxy_servers_unchecked"] == "m:1"
    assert len(play.server("m:1").acl_log) == 3, "it is tried once, not for each connection"


def test_nobody_may_ask__role_is_seen_all_the_same() -> None:
    play = group(app=LIMITED)
    client = login(play, "app")
    play.server("m:1").role = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"
    play.server("m:1").hangs_up()
    play.wait(0.3)
    client.says("SET", "k", "v")
    play.server("m:1").hears_nothing()
    assert play.log.events("lane_lost")[-1]["reason"] == "it is not a master"


def test_default_user_may_not_ask__serves_and_is_named() -> None:
    play = group(default=User(may_not=QUESTIONS))
    client = play.client().says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert len(play.log.events("cannot_check")) == 1
    (line,) = play.log.events("account_lacks_rights")
    assert "ACL SETUSER default +role +info +select +client|id" in str(line["error"])


def test_rights_granted_later__are_found_out() -> None:
    play = group(default=User(may_not=QUESTIONS))
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    play.server("m:1").users["default"] = User()
    play.time += FORGET
    play.router.reap(play.time)
    play.server("m:1").hangs_up()
    play.wait(0.3)
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    assert fields(play)["proxy_servers_unchecked"] == fields(play)["proxy_account_problems"] == ""
    assert len(play.log.events("account_accepted")) == 1


# --- the proxy's account is wrong


def test_own_password_refused__is_logged_once_for_each_server() -> None:
    play = Playbook(Policy(account=Account(b"", b"old")))
    for name in ("m:1", "r:1"):
        play.server(name).denies[b"AUTH"] = WRONGPASS
    play.topology(1, master="m:1", replicas=["r:1"])
    for _ in range(3):
        play.client().says("GET", "k").hears_error("ERR rfproxy's own password is refused by m:1")
    assert [line["node"] for line in play.log.events("account_refused")] == ["r:1", "m:1"]
    assert all("WRONGPASS" in str(line["error"]) for line in play.log.events("account_refused"))
    assert fields(play)["proxy_account_problems"] == "r:1 refused, m:1 refused"


def test_own_password_refused__users_with_their_own_are_served() -> None:
    play = group(Policy(account=OWN), app=ADMIN)
    client = login(play, "app").says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert len(play.log.events("account_refused")) == 1
    refused = [entry for entry in play.server("m:1").acl_log if entry == ("proxy", "AUTH")]
    assert len(refused) == 1, "it is not tried again on each connection"
