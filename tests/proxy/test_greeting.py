"""The greeting: what is asked of a server in one packet, and which answers make it unfit."""

from __future__ import annotations

import pytest

from rfprotocol.resp import encode_command
from rfprotocol.topology import Node
from rfproxy.greeting import Account, Duty, Greeting, Identity, LaneKey, Refusal, Welcome

NODE = Node("h", 1)
MASTER = b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"


def replica(state: str) -> bytes:
    return b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$%d\r\n%b\r\n:1\r\n" % (len(state), state.encode())


def rest(run_id: str, client_id: int = 7) -> bytes:
    """The answers to INFO server and CLIENT ID."""
    text = f"redis_version:7.0.15\r\nrun_id:{run_id}\r\n".encode()
    return b"$%d\r\n%b\r\n:%d\r\n" % (len(text), text, client_id)


def greet(answers: bytes, duty: Duty = Duty.MASTER, run_id: str = "", identity: Identity | None = None) -> Welcome:
    welcome = Greeting(LaneKey(NODE, duty, identity or Identity()), run_id).feed(answers)
    assert welcome is not None
    return welcome


def asked(identity: Identity) -> bytes:
    return Greeting(LaneKey(NODE, Duty.MASTER, identity)).request


def words(*commands: str) -> bytes:
    return b"".join(encode_command(command.encode().split()) for command in commands)


def test_only_what_is_needed_is_asked() -> None:
    always = ("ROLE", "INFO server", "CLIENT ID")
    assert asked(Identity()) == words(*always)
    assert asked(Identity(db=3)) == words("SELECT 3", *always)
    assert asked(Identity(account=Account(b"", b"pw"))) == words("AUTH pw", *always)
    assert asked(Identity(account=Account(b"u", b"pw"))) == words("AUTH u pw", *always)
    assert asked(Identity(protocol=3)) == words("HELLO 3", *always)
    assert asked(Identity(protocol=3, account=Account(b"", b"pw"))) == words("AUTH pw", "HELLO 3", *always)
    assert asked(Identity(3, 3, Account(b"u", b"pw"))) == words("AUTH u pw", "HELLO 3", "SELECT 3", *always)


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
    assert greet(denied * 3) == Welcome()
    assert greet(MASTER + denied * 2, run_id="abc") == Welcome(), "it is not held against the server"


def test_a_server_that_wants_to_know_who_speaks_says_so() -> None:
    assert greet(b"-NOAUTH Authentication required.\r\n" * 3) == Welcome(stranger=True)


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
    errors = b"-WRONGPASS no\r\n-ERR DB index is out of range\r\n"
    assert greet(errors, identity=Identity(3, account=Account(b"u", b"x"))) == Welcome(Refusal.DENIED, "WRONGPASS no")


def test_wrong_credentials_are_answered_in_the_servers_words() -> None:
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    welcome = greet(wrong + MASTER + rest("a"), identity=Identity(account=Account(b"u", b"x")))
    assert welcome.refusal is Refusal.DENIED
    assert welcome.text.startswith("WRONGPASS")


def test_a_database_that_does_not_exist_is_answered_in_the_servers_words() -> None:
    welcome = greet(b"-ERR DB index is out of range\r\n" + MASTER + rest("a"), identity=Identity(db=99))
    assert (welcome.refusal, welcome.text) == (Refusal.DENIED, "ERR DB index is out of range")


def test_passwords_do_not_show() -> None:
    assert "secret" not in repr(LaneKey(NODE, Duty.MASTER, Identity(account=Account(b"u", b"secret"))))
