"""Who asks the proxy's questions, and what operators are told when nobody may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import hiredis
import pytest

from rfprotocol.errors import ConfigError
from rfprotocol.resp.resp import encode_command
from rfproxy.builtin.info import report
from rfproxy.core.identity import Account
from rfproxy.core.policy import ClientAuth, Policy
from rfproxy.upstream.probe_rights import FORGET
from tests.support.eventually import eventually
from tests.support.front import Front, fronting
from tests.support.playbook import FakeClient, Playbook, User
from tests.support.redis import RedisServer

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
    assert connection.greeted[-3:] == [[b"SELECT", b"9"], [b"AUTH", b"app", b"pw"], [b"HELLO", b"2"]]
    assert play.server("m:1").acl_log == []


def test_own_account_lacks_select__user_selects_itself() -> None:
    play = group(Policy(account=OWN), proxy=User("px", may_not={"SELECT"}), app=ADMIN)
    client = login(play, "app").says("SELECT", "9")
    connection = play.server("m:1").hears("SELECT", "9")
    assert connection.greeted[-3:] == [[b"AUTH", b"app", b"pw"], [b"SELECT", b"9"], [b"HELLO", b"2"]]
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


# --- another client's user asks


def test_no_account__another_user_may_ask__leaves_no_trace() -> None:
    play = group(admin=ADMIN, app=LIMITED)
    login(play, "admin")
    client = login(play, "app").says("BLPOP", "q", "0")
    connection = play.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    assert connection.greeted[0] == [b"AUTH", b"admin", b"pw"]
    assert connection.greeted[-2:] == [[b"AUTH", b"app", b"pw"], [b"HELLO", b"2"]]
    assert connection.user == "app"
    assert play.server("m:1").acl_log == []
    assert play.log.events("cannot_check") == []
    restart(play)
    client.says("PING")
    play.server("m:1").hears_nothing()
    assert play.log.events("lane_lost")[-1]["reason"] == "it was restarted"


def test_no_account__the_other_users_password_is_changed__serves() -> None:
    play = group(admin=ADMIN, app=LIMITED)
    login(play, "admin")
    play.server("m:1").users["admin"] = User("new")
    client = login(play, "app").says("SET", "k", "v")
    play.server("m:1").hears("SET", "k", "v").answers(OK)
    client.hears(OK)
    assert play.server("m:1").acl_log[0] == ("admin", "AUTH")
    assert len(play.log.events("cannot_check")) == 1
    assert play.log.events("account_refused") == [], "it is not the proxy's"


def test_no_account__able_user_comes_later__doubt_is_over() -> None:
    play = group(admin=ADMIN, app=LIMITED)
    login(play, "app")
    assert fields(play)["proxy_servers_unchecked"] == "m:1"
    login(play, "admin")
    assert fields(play)["proxy_servers_unchecked"] == ""


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


# --- the proxy's password is changed while it runs


class File:
    """What is read again."""

    def __init__(self, play: Playbook, account: Account) -> None:
        self.account, self.broken = account, False
        play.router.reception.rereads(self.read)

    def read(self) -> Account:
        if self.broken:
            raise ConfigError("password: cannot be read")
        return self.account


def changed(play: Playbook, server: str, password: str) -> None:
    """The server knows another password, and ends its connections."""
    play.server(server).users = {"default": User("other"), "proxy": User(password), "app": ADMIN}
    play.server(server).hangs_up()
    play.wait(1.0)


def test_password_changed__file_has_it__clients_without_auth_notice_nothing() -> None:
    play = group(Policy(account=OWN), default=User("other"), proxy=User("px"))
    file = File(play, OWN)
    client = play.client().says("INCR", "a")
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")
    file.account = Account(b"proxy", b"new")
    changed(play, "m:1", "new")
    client.says("INCR", "b")
    play.wait(1.0)
    play.server("m:1").hears("INCR", "b").answers(b":2\r\n")
    client.hears(b":2\r\n")
    assert fields(play)["proxy_account_problems"] == ""
    assert play.log.events("account_refused") == []


def test_password_changed__at_one_server_only__each_is_told_what_it_knows() -> None:
    play = group(Policy(account=OWN), default=User("other"), proxy=User("px"))
    play.server("r:1").users = {"default": User("other"), "proxy": User("px")}
    play.topology(2, master="m:1", replicas=["r:1"], run_id="first")
    file = File(play, OWN)
    client = play.client().says("GET", "a")
    play.server("r:1").hears("GET", "a").answers(b"$-1\r\n")
    client.says("INCR", "a")
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    file.account = Account(b"proxy", b"new")
    changed(play, "m:1", "new")
    client.says("INCR", "a")
    play.wait(1.0)
    play.server("m:1").hears("INCR", "a").answers(b":2\r\n")
    play.server("r:1").hangs_up()
    play.wait(1.0)
    client.says("GET", "a")
    play.wait(1.0)
    play.server("r:1").hears("GET", "a").answers(b"$1\r\n2\r\n")
    client.hears(b"$-1\r\n:1\r\n:2\r\n$1\r\n2\r\n")


def test_password_changed__client_that_says_the_former_one__is_refused() -> None:
    """What is said for the proxy is not said for whoever knows what the proxy once said."""
    own = Account(b"proxy", b"px", own=True)
    play = group(Policy(account=own, client_auth=ClientAuth.REQUIRED), default=User("other"), proxy=User("px"))
    file = File(play, own)
    before = play.client().says("AUTH", "proxy", "px")
    play.server("m:1").hears("AUTH", "proxy", "px").answers(OK)
    before.hears(OK)
    before.says("INCR", "a")
    play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    before.hears(b":1\r\n")
    file.account = Account(b"proxy", b"new", own=True)
    changed(play, "m:1", "new")
    after = play.client().says("AUTH", "proxy", "px")
    before.says("INCR", "a")
    play.wait(1.0)
    after.hears(WRONGPASS)
    assert before.closed
    play.server("m:1").hears_nothing()
    play.client().says("AUTH", "proxy", "new")
    play.server("m:1").hears("AUTH", "proxy", "new")
    assert play.log.events("account_refused") == []
    assert fields(play)["proxy_account_problems"] == ""


def test_password_changed__users_of_their_own__the_proxy_still_asks_in_one_greeting() -> None:
    play = group(Policy(account=OWN), proxy=User("px"), app=LIMITED)
    file = File(play, OWN)
    client = login(play, "app")
    file.account = Account(b"proxy", b"new")
    play.server("m:1").users["proxy"] = User("new")
    play.server("m:1").hangs_up()
    play.wait(1.0)
    client.says("SET", "k", "v")
    connection = play.server("m:1").hears("SET", "k", "v")
    assert connection.greeted[0] == [b"AUTH", b"proxy", b"new"]
    assert fields(play)["proxy_servers_unchecked"] == fields(play)["proxy_account_problems"] == ""


def test_password_changed__file_does_not_have_it__is_told_as_before() -> None:
    play = group(Policy(account=OWN), default=User("other"), proxy=User("px"))
    file = File(play, OWN)
    changed(play, "m:1", "new")
    play.client().says("GET", "k").hears_error("ERR rfproxy's own password is refused by m:1")
    assert fields(play)["proxy_account_problems"] == "m:1 refused"
    file.broken = True
    play.client().says("GET", "k").hears_error("ERR rfproxy's own password is refused by m:1")
    assert play.log.events("password_file_unreadable")
    file.broken, file.account = False, Account(b"proxy", b"new")
    client = play.client().says("GET", "k")
    play.wait(1.0)
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")
    assert fields(play)["proxy_account_problems"] == ""


# --- on a real Redis

USERS = (
    "user admin on >pw ~* &* +@all",
    "user proxy on >px -@all +role +info +select +client|id",
    "user app on >pw ~* &* +@all -@dangerous",
    "user nosel on >pw ~* &* +@all -@dangerous -select",
)
OPEN, SHUT = "user default on nopass ~* &* +@all", "user default off"


@pytest.fixture(params=["default user", "own account", "another user"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RedisServer, Policy]]:
    """A server whose users have rights, and what the proxy is told of them. Without an account, `admin` comes first."""
    file = tmp_path / "users.acl"
    file.write_text("\n".join((*USERS, OPEN if request.param == "default user" else SHUT, "")))
    policy = Policy(account=OWN if request.param == "own account" else None)
    with RedisServer(aclfile=str(file)) as server:
        yield server, policy


def as_admin(server: RedisServer, *words: str) -> object:
    """A command past the proxy."""
    with server.client(username="admin", password="pw") as client:
        answer: object = client.execute_command(*words)
        return answer


class Application:
    """One connection of a client without a library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._replies = hiredis.Reader()

    def says(self, *commands: str) -> None:
        """Send commands, each given as words."""
        self._writer.write(b"".join(encode_command(command.encode().split()) for command in commands))

    async def hears(self) -> object:
        """The next reply."""
        while (reply := self._replies.gets()) is False:
            self._replies.feed(await self._reader.read(65536))
        return reply

    async def asks(self, *commands: str) -> list[object]:
        """The replies to commands in one packet."""
        self.says(*commands)
        return [await self.hears() for _ in commands]


class Applications:
    """Clients of one proxy; `async with` closes their connections."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
            await writer.wait_closed()

    async def one(self, *commands: str) -> Application:
        """A connection on which these commands, which begin it, are answered OK."""
        reader, writer = await self._front.connect()
        self._writers.append(writer)
        client = Application(reader, writer)
        assert await client.asks(*commands) == [b"OK"] * len(commands)
        return client


async def test_real_users_without_rights__leave_nothing_in_acl_log(setting: tuple[RedisServer, Policy]) -> None:
    server, policy = setting
    async with fronting(server.node, policy=policy) as front, Applications(front) as applications:
        await applications.one("AUTH admin pw", "SET k v")
        for name in ("app", "nosel"):
            client = await applications.one(f"AUTH {name} pw")
            script = "EVAL return(redis.call('GET',KEYS[1])) 1 k"
            assert await client.asks("GET k", "BLPOP nothing 0.01", script) == [b"v", None, b"v"]
        client = await applications.one("AUTH app pw", "SELECT 9", "SET k nine")
        assert await client.asks("BLPOP nothing 0.01", "GET k") == [None, b"nine"]
        assert front.log.events("cannot_check") == []
    assert as_admin(server, "ACL", "LOG") == []


async def test_real_user_without_select__stays_in_its_database(setting: tuple[RedisServer, Policy]) -> None:
    """As Redis' own suite does, whose tests run in database 9."""
    server, policy = setting
    async with fronting(server.node, policy=policy) as front, Applications(front) as applications:
        client = await applications.one("AUTH admin pw", "SELECT 9", "SET k nine", "AUTH nosel pw")
        assert await client.asks("GET k", "BLPOP nothing 0.01") == [b"nine", None]
    assert as_admin(server, "ACL", "LOG") == []


async def test_real_master_comes_back_empty__user_without_rights_waits(setting: tuple[RedisServer, Policy]) -> None:
    server, policy = setting
    with server.client(username="admin", password="pw") as client:
        run_id = client.info("server")["run_id"]
    async with fronting(server.node, policy=policy, run_id=run_id) as front, Applications(front) as applications:
        await applications.one("AUTH admin pw")
        app = await applications.one("AUTH app pw", "SET k v")
        await asyncio.to_thread(server.restart)
        app.says("SET k w")
        await eventually(lambda: "it was restarted" in {line["reason"] for line in front.log.events("lane_lost")})
    assert as_admin(server, "DBSIZE") == 0
