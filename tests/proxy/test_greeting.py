"""The greeting: what is asked of a server in one packet, and which answers make it unfit."""

from __future__ import annotations

import pytest

from rfprotocol.resp import encode_command
from rfprotocol.topology import Node
from rfproxy.greeting import Account, Duty, Greeting, Identity, LaneKey, Refusal, Welcome

NODE = Node("h", 1)
MASTER = b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"
INFO = b"$42\r\nredis_version:7.0.15\r\nrun_id:abc\r\nx:y:z\r\n\r\n\r\n"


def replica(state: str) -> bytes:
    return b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$%d\r\n%b\r\n:1\r\n" % (len(state), state.encode())


def info(run_id: str) -> bytes:
    text = f"redis_version:7.0.15\r\nrun_id:{run_id}\r\n".encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


def greet(answers: bytes, duty: Duty = Duty.MASTER, run_id: str = "", identity: Identity | None = None) -> Welcome:
    welcome = Greeting(LaneKey(NODE, duty, identity or Identity()), run_id).feed(answers)
    assert welcome is not None
    return welcome


def asked(identity: Identity) -> bytes:
    return Greeting(LaneKey(NODE, Duty.MASTER, identity)).request


def words(*commands: str) -> bytes:
    return b"".join(encode_command(command.encode().split()) for command in commands)


def test_only_what_is_needed_is_asked() -> None:
    assert asked(Identity()) == words("ROLE", "INFO server")
    assert asked(Identity(db=3)) == words("SELECT 3", "ROLE", "INFO server")
    assert asked(Identity(account=Account(b"", b"pw"))) == words("AUTH pw", "ROLE", "INFO server")
    assert asked(Identity(account=Account(b"u", b"pw"))) == words("AUTH u pw", "ROLE", "INFO server")
    assert asked(Identity(protocol=3)) == words("HELLO 3", "ROLE", "INFO server")
    assert asked(Identity(protocol=3, account=Account(b"", b"pw"))) == words(
        "HELLO 3 AUTH default pw", "ROLE", "INFO server"
    )


def test_a_master_is_welcome_as_a_master() -> None:
    assert greet(MASTER + info("abc"), run_id="abc") == Welcome(version="7.0.15")


def test_answers_may_come_in_pieces() -> None:
    greeting = Greeting(LaneKey(NODE, Duty.MASTER))
    answers = MASTER + info("abc")
    for byte in answers[:-1]:
        assert greeting.feed(bytes([byte])) is None
    assert greeting.feed(answers[-1:]) is not None


def test_a_restarted_master_is_unfit_since_its_data_may_be_gone() -> None:
    assert greet(MASTER + info("def"), run_id="abc") == Welcome(Refusal.UNFIT, "it was restarted")


def test_a_demoted_master_is_unfit() -> None:
    assert greet(replica("connected") + info("abc")).refusal is Refusal.UNFIT


def test_a_replica_is_welcome_only_while_its_link_is_up() -> None:
    assert greet(replica("connected") + info("a"), Duty.REPLICA).refusal is None
    for state in ("connect", "connecting", "sync"):
        assert greet(replica(state) + info("a"), Duty.REPLICA).refusal is Refusal.UNFIT


def test_a_promoted_replica_is_unfit_for_reading_as_one() -> None:
    assert greet(MASTER + info("a"), Duty.REPLICA).refusal is Refusal.UNFIT


def test_a_loading_server_is_unfit_for_the_moment() -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    assert greet(loading + info("a")).refusal is Refusal.UNFIT


@pytest.mark.parametrize("error", [b"-NOAUTH Authentication required.\r\n", b"-NOPERM User u has no permissions\r\n"])
def test_a_user_who_may_not_ask_is_left_to_the_servers_own_answers(error: bytes) -> None:
    assert greet(error + error).refusal is None


def test_wrong_credentials_are_answered_in_the_servers_words() -> None:
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    welcome = greet(wrong + MASTER + info("a"), identity=Identity(account=Account(b"u", b"x")))
    assert welcome.refusal is Refusal.DENIED
    assert welcome.text.startswith("WRONGPASS")


def test_a_database_that_does_not_exist_is_answered_in_the_servers_words() -> None:
    welcome = greet(b"-ERR DB index is out of range\r\n" + MASTER + info("a"), identity=Identity(db=99))
    assert (welcome.refusal, welcome.text) == (Refusal.DENIED, "ERR DB index is out of range")


def test_passwords_do_not_show() -> None:
    assert "secret" not in repr(LaneKey(NODE, Duty.MASTER, Identity(account=Account(b"u", b"secret"))))
