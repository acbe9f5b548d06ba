"""The greeting: what is asked of a server in one packet, and which answers make it unfit."""

from __future__ import annotations

import pytest

from rfprotocol.resp.resp import encode_command
from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Account, Duty, Identity, LaneKey
from rfproxy.core.policy import Policy
from rfproxy.upstream.handshake import CHECKS, Asker, Greeting, Refusal, Welcome
from tests.support.playbook import Playbook

NODE = Node("h", 1)
MASTER = b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"


def replica(state: str) -> bytes:
    return b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$%d\r\n%b\r\n:1\r\n" % (len(state), state.encode())


def rest(run_id: str, client_id: int = 7) -> bytes:
    """The answers to INFO server and CLIENT ID."""
    text = f"redis_version:7.0.15\r\nrun_id:{run_id}\r\n".encode()
    return b"$%d\r\n%b\r\n:%d\r\n" % (len(text), text, client_id)


def greet(
    answers: bytes,
    duty: Duty = Duty.MASTER,
    run_id: str = "",
    identity: Identity | None = None,
    account: Account | None = None,
    asker: Asker = Asker.PROXY,
) -> Welcome:
    key = LaneKey(NODE, duty, identity or Identity())
    welcome = Greeting(key, run_id, account=account, asker=asker).feed(answers)
    assert welcome is not None
    return welcome


def asked(
    identity: Identity, account: Account | None = None, asker: Asker = Asker.PROXY, skip: frozenset[bytes] = frozenset()
) -> bytes:
    return Greeting(LaneKey(NODE, Duty.MASTER, identity), account=account, asker=asker, skip=skip).request


def words(*commands: str) -> bytes:
    return b"".join(encode_command(command.encode().split()) for command in commands)


def test_only_what_is_needed_is_asked_and_before_it_is_the_clients() -> None:
    always = ("ROLE", "INFO server", "CLIENT ID")
    assert asked(Identity()) == words(*always)
    assert asked(Identity(db=3)) == words(*always, "SELECT 3")
    assert asked(Identity(account=Account(b"", b"pw"))) == words(*always, "AUTH pw", "HELLO 2")
    assert asked(Identity(account=Account(b"u", b"pw"))) == words(*always, "AUTH u pw", "HELLO 2")
    assert asked(Identity(protocol=3)) == words(*always, "HELLO 3")
    assert asked(Identity(3, 3, Account(b"u", b"pw"))) == words(*always, "SELECT 3", "AUTH u pw", "HELLO 3")


def test_greeting__proxy_has_an_account__asks_under_it() -> None:
    own, user = Account(b"proxy", b"px"), Account(b"u", b"pw")
    always = ("AUTH proxy px", "ROLE", "INFO server", "CLIENT ID")
    assert asked(Identity(account=own), own) == words(*always)
    assert asked(Identity(3, 3, own), own) == words(*always, "SELECT 3", "HELLO 3")
    assert asked(Identity(3, 3, user), own) == words(*always, "SELECT 3", "AUTH u pw", "HELLO 3")


def test_greeting__proxy_may_not_ask__user_does() -> None:
    own, user = Account(b"proxy", b"px"), Account(b"u", b"pw")
    questions = ("ROLE", "INFO server", "CLIENT ID")
    assert asked(Identity(3, 2, user), own, Asker.USER) == words("AUTH u pw", *questions, "SELECT 3")
    assert asked(Identity(3, 3, user), own, Asker.USER) == words("AUTH u pw", *questions, "SELECT 3", "HELLO 3")


def test_greeting__another_account_asks__is_left_before_the_rest() -> None:
    admin, user = Account(b"admin", b"x"), Account(b"u", b"pw")
    questions = ("ROLE", "INFO server", "CLIENT ID")
    assert asked(Identity(3, 3, user), admin, Asker.OTHER) == words(
        "AUTH admin x", *questions, "SELECT 3", "AUTH u pw", "HELLO 3"
    )


def test_greeting__nobody_may_ask__says_hello_which_everybody_may() -> None:
    own, user = Account(b"proxy", b"px"), Account(b"u", b"pw")
    assert asked(Identity(3, 2, user), own, Asker.NOBODY) == words("AUTH u pw", "SELECT 3", "HELLO 2")
    assert asked(Identity(0, 3, own), own, Asker.NOBODY) == words("AUTH proxy px", "HELLO 3")


def test_greeting__asker_may_not_select__user_does() -> None:
    own, user = Account(b"proxy", b"px"), Account(b"u", b"pw")
    skip = frozenset([b"SELECT", b"CLIENT"])
    assert asked(Identity(3, 2, user), own, skip=skip) == words(
        "AUTH proxy px", "ROLE", "INFO server", "AUTH u pw", "SELECT 3", "HELLO 2"
    )


HELLO = b"*6\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$2\r\nid\r\n:9\r\n"


def test_greeting__hello_alone__tells_role_version_and_id() -> None:
    user = Identity(account=Account(b"u", b"pw"))
    welcome = greet(b"+OK\r\n" + HELLO, identity=user, asker=Asker.NOBODY)
    assert welcome == Welcome(version="7.0.15", client_id=9, unasked=CHECKS)
    former = greet(b"+OK\r\n" + HELLO, Duty.REPLICA, identity=user, asker=Asker.NOBODY)
    assert former == Welcome(Refusal.UNFIT, "it is not a replica")


def test_greeting__hello_unknown__is_left_at_that() -> None:
    """Before version 6, in which there are no users either."""
    user = Identity(account=Account(b"", b"pw"))
    unknown = b"-ERR unknown command `HELLO`\r\n"
    assert greet(b"+OK\r\n" + unknown, identity=user, asker=Asker.NOBODY) == Welcome(unasked=CHECKS)


MUST_AUTH = b"-NOAUTH HELLO must be called with the client already authenticated\r\n"
"""As Redis says it, shortened."""


@pytest.mark.parametrize(
    ("identity", "skip", "behind"),
    [
        (Identity(0, 2, Account(b"u", b"pw")), frozenset[bytes](), HELLO),
        (Identity(0, 3, Account(b"u", b"pw")), frozenset[bytes](), b"%1\r\n$5\r\nproto\r\n:3\r\n"),
        (Identity(0, 2, Account(b"u", b"pw")), frozenset[bytes](), MUST_AUTH),
        (Identity(3, 2, Account(b"u", b"pw")), frozenset([b"SELECT"]), b"+OK\r\n" + HELLO),
        (
            Identity(3, 2, Account(b"u", b"pw")),
            frozenset([b"SELECT"]),
            b"-NOPERM no permissions for SELECT\r\n" + HELLO,
        ),
    ],
)
def test_greeting__refused_auth_has_no_answer__is_seen_in_the_next_one(
    identity: Identity, skip: frozenset[bytes], behind: bytes
) -> None:
    greeting = Greeting(LaneKey(NODE, Duty.MASTER, identity), skip=skip)
    welcome = greeting.feed(MASTER + rest("a") + behind)
    assert welcome == Welcome(Refusal.DENIED, "WRONGPASS invalid username-password pair or user is disabled.")


def test_greeting__own_password_refused__does_not_blame_the_client() -> None:
    own = Account(b"proxy", b"px")
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    welcome = greet(wrong, identity=Identity(account=own), account=own)
    assert welcome.refusal is Refusal.DENIED
    assert welcome.text.startswith("ERR rfproxy's own password is refused by h:1")
    assert welcome.account_error.startswith("WRONGPASS")


def test_greeting__own_password_refused__a_users_own_may_hold() -> None:
    own, user = Account(b"proxy", b"px"), Account(b"u", b"pw")
    wrong, deaf = b"-WRONGPASS no\r\n", b"-NOAUTH Authentication required.\r\n"
    welcome = greet(wrong + deaf * 3 + b"+OK\r\n" + HELLO, identity=Identity(account=user), account=own)
    assert (welcome.refusal, welcome.account_error, welcome.stranger) == (None, "WRONGPASS no", True)
    assert welcome.unasked >= CHECKS


def test_greeting__database_out_of_the_proxys_reach__is_no_refusal() -> None:
    denied = b"-NOPERM this user has no permissions to run the 'select' command\r\n"
    identity = Identity(3, account=Account(b"u", b"pw"))
    welcome = greet(MASTER + rest("a") + denied + b"+OK\r\n" + HELLO, identity=identity)
    assert (welcome.refusal, welcome.unasked) == (None, frozenset([b"SELECT"]))
    assert greet(MASTER + rest("a") + denied, identity=Identity(3)).refusal is Refusal.DENIED


def test_a_master_is_welcome_as_a_master() -> None:
    assert greet(MASTER + rest("abc", 7), run_id="abc") == Welcome(version="7.0.15", client_id=7)


def test_answers_may_come_in_pieces() -> None:
    greeting = Greeting(LaneKey(NODE, Duty.MASTER))
    answers = MASTER + rest("abc")
    for byte in answers[:-1]:
        assert greeting.feed(bytes([byte])) is None
    assert greeting.feed(answers[-1:]) is not None


def test_a_restarted_master_is_unfit_since_its_data_may_be_gone() -> None:
    assert greet(MASTER + rest("def"), run_id="abc") == Welcome(Refusal.UNFIT, "it was restarted")


def test_a_demoted_master_is_unfit() -> None:
    assert greet(replica("connected") + rest("abc")).refusal is Refusal.UNFIT


def test_a_replica_is_welcome_only_while_its_link_is_up() -> None:
    assert greet(replica("connected") + rest("a"), Duty.REPLICA).refusal is None
    for state in ("connect", "connecting", "sync"):
        assert greet(replica(state) + rest("a"), Duty.REPLICA).refusal is Refusal.UNFIT


def test_a_promoted_replica_is_unfit_for_reading_as_one() -> None:
    assert greet(MASTER + rest("a"), Duty.REPLICA).refusal is Refusal.UNFIT


def test_a_loading_server_is_unfit_for_the_moment() -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    assert greet(loading + rest("a")).refusal is Refusal.UNFIT


def test_a_user_who_may_not_ask_is_left_to_the_servers_own_answers() -> None:
    denied = b"-NOPERM this user has no permissions to run this command\r\n"
    assert greet(denied * 3) == Welcome(unasked=CHECKS | {b"CLIENT"})
    welcome = greet(MASTER + denied * 2, run_id="abc")
    assert welcome == Welcome(unasked=frozenset([b"INFO", b"CLIENT"])), "it is not held against the server"


def test_a_server_that_wants_to_know_who_speaks_says_so() -> None:
    assert greet(b"-NOAUTH Authentication required.\r\n" * 3) == Welcome(stranger=True, unasked=CHECKS | {b"CLIENT"})


def test_a_server_whose_role_does_not_matter_is_welcome_as_anything() -> None:
    """Reads go to the last known master while nobody may write."""
    assert greet(replica("connect") + rest("abc"), Duty.ANY, run_id="abc").refusal is None


def test_a_server_that_was_restarted_is_not_what_the_topology_means_whatever_its_role() -> None:
    assert greet(replica("connect") + rest("def"), Duty.ANY, run_id="abc").refusal is Refusal.UNFIT


@pytest.mark.parametrize(
    "error", ["BUSY Redis is busy running a script.", "MASTERDOWN Link is down", "ERR max number of clients reached"]
)
def test_a_server_that_cannot_answer_at_present_is_unfit_whatever_it_was_asked(error: str) -> None:
    line = b"-%b\r\n" % error.encode()
    assert greet(line * 3) == Welcome(Refusal.UNFIT, error)
    assert greet(line * 4, identity=Identity(db=3)) == Welcome(Refusal.UNFIT, error)


@pytest.mark.parametrize("identity", [Identity(), Identity(db=3), Identity(account=Account(b"u", b"pw"))])
def test_greeting__one_error_for_all__is_the_refusal(identity: Identity) -> None:
    """Redis at maxclients says it once, whatever it was asked, and closes."""
    assert greet(b"-ERR max number of clients reached\r\n", identity=identity) == Welcome(
        Refusal.UNFIT, "ERR max number of clients reached"
    )


def test_greeting__ends_behind_an_error__keeps_its_text() -> None:
    greeting = Greeting(LaneKey(NODE, Duty.MASTER))
    assert greeting.broken_off() is None
    assert greeting.feed(b"-ERR Error accepting connection\r\n") is None
    assert greeting.broken_off() == Welcome(Refusal.UNFIT, "ERR Error accepting connection")


def test_greeting__several_errors__the_first_one_counts() -> None:
    errors = b"-ERR DB index is out of range\r\n-WRONGPASS no\r\n"
    welcome = greet(MASTER + rest("a") + errors, identity=Identity(99, account=Account(b"u", b"x")))
    assert welcome == Welcome(Refusal.DENIED, "ERR DB index is out of range")


def test_wrong_credentials_are_answered_in_the_servers_words() -> None:
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    welcome = greet(MASTER + rest("a") + wrong, identity=Identity(account=Account(b"u", b"x")))
    assert welcome.refusal is Refusal.DENIED
    assert welcome.text.startswith("WRONGPASS")


def test_a_database_that_does_not_exist_is_answered_in_the_servers_words() -> None:
    welcome = greet(MASTER + rest("a") + b"-ERR DB index is out of range\r\n", identity=Identity(db=99))
    assert (welcome.refusal, welcome.text) == (Refusal.DENIED, "ERR DB index is out of range")


def test_passwords_do_not_show() -> None:
    assert "secret" not in repr(LaneKey(NODE, Duty.MASTER, Identity(account=Account(b"u", b"secret"))))


@pytest.mark.parametrize("quoted", ["'proxy' 'secret' ", "`proxy`, `secret`, "])
def test_auth__server_does_not_know_it__password_is_told_to_nobody(quoted: str) -> None:
    play = Playbook(Policy(account=Account(b"proxy", b"secret")))
    text = f"-ERR unknown command 'AUTH', with args beginning with: {quoted}\r\n"  # server.c: commandCheckExistence
    play.server("m:1").denies = {b"AUTH": text.encode()}
    play.topology(1, master="m:1")
    client = play.client().says("SET", "k", "v")
    play.wait(31)
    assert b"unknown command 'AUTH'" in client.output
    assert b"secret" not in client.output
    assert play.log.lines
    assert "secret" not in str(play.log.lines)
    assert "secret" not in play.router.reception.problems
