"""What a client's commands become: which travel together, and where to."""

from __future__ import annotations

import pytest

from rfprotocol.resp.resp import encode_command
from rfproxy.core.work_items import Form, Need, Run, Verb
from rfproxy.session import batching
from rfproxy.session.batching import BULKY, MANY
from rfproxy.session.session import Session
from tests.support.playbook import Playbook


def session() -> Session:
    return Playbook().client().session


def queued(*commands: str) -> list[str]:
    """What stands in the queue, as `need form: commands` of runs and the names of verbs."""
    one = session()
    parsed = [command.encode().split() for command in commands]
    batching.queue(one, parsed, b"".join(map(encode_command, parsed)))
    return [shown(entry) for entry in one.pending]


def shown(entry: object) -> str:
    if isinstance(entry, Verb):
        return entry.command.name
    assert isinstance(entry, Run)
    text = ", ".join(b" ".join(args).decode() for args in entry.commands)
    assert entry.raw == b"".join(map(encode_command, entry.commands))
    return f"{entry.need.value} {entry.form.value}: {text}"


def test_reads_alone_may_go_anywhere() -> None:
    assert queued("GET a", "PING", "MGET a b") == ["any plain: GET a, PING, MGET a b"]


def test_one_write_takes_everything_in_its_packet_to_the_master() -> None:
    assert queued("GET a", "SET a 1", "GET a") == ["master plain: GET a, SET a 1, GET a"]


@pytest.mark.parametrize("command", ["EVAL x 0", "EVALSHA x 0", "FCALL f 0", "SOME.MODULE x"])
def test_what_may_take_long_takes_its_packet_to_a_lane_where_nobody_waits(command: str) -> None:
    assert queued("GET a", command, "SET b 1") == [f"own plain: GET a, {command}, SET b 1"]


def test_a_run_is_passed_on_as_the_bytes_it_came_in() -> None:
    one = session()
    raw = b"get  a\r\n"
    batching.queue(one, [[b"get", b"a"]], raw)
    assert isinstance(entry := one.pending[0], Run)
    assert entry.raw is raw


def test_what_is_big_travels_alone_reads_to_a_replica_all_else_to_the_master() -> None:
    assert queued("SET a " + "x" * BULKY)[0].startswith("own ")
    assert queued("GET " + "x" * BULKY)[0].startswith("any, own ")
    assert queued("GET a", "SET b " + "x" * BULKY)[0].startswith("own ")
    assert queued("MULTI", "SET a " + "x" * BULKY, "EXEC")[0].startswith("own block")
    assert queued("SET a " + "x" * BULKY, "CLIENT ID")[0].startswith("own plain")


def test_so_does_what_consists_of_many_commands() -> None:
    assert queued(*["GET a"] * MANY)[0].startswith("any plain")
    assert queued(*["GET a"] * (MANY + 1))[0].startswith("any, own plain")
    assert queued(*["SET a 1"] * (MANY + 1))[0].startswith("own plain")


def test_a_verb_stands_alone_between_runs() -> None:
    assert queued("GET a", "SELECT 1", "SET b 2", "GET b") == [
        "any plain: GET a",
        "SELECT",
        "master plain: SET b 2, GET b",
    ]


@pytest.mark.parametrize("command", ["SCAN 0", "HSCAN k 0", "SSCAN k 0", "ZSCAN k 0"])
def test_a_cursor_stands_alone_on_the_way_to_the_master(command: str) -> None:
    assert queued("GET a", command) == ["any plain: GET a", f"master cursor: {command}"]


@pytest.mark.parametrize("command", ["SCRIPT KILL", "FUNCTION KILL", "FUNCTION STATS"])
def test_what_a_busy_server_obeys_does_not_share_the_fate_of_writes(command: str) -> None:
    assert queued("SET a b", command) == ["master plain: SET a b", f"urgent plain: {command}"]


@pytest.mark.parametrize("command", ["BLPOP q 0", "SUBSCRIBE c", "AUTH x", "XREAD BLOCK 0 STREAMS s 0"])
def test_what_is_about_the_connection_is_a_verb(command: str) -> None:
    assert queued(command) == [command.split(maxsplit=1)[0]]


def test_the_command_that_came_last_is_what_client_list_shows() -> None:
    one = session()
    assert batching.queue(one, [[b"GET", b"a"], [b"SET", b"a", b"1"]], b"").name == "SET"
    assert batching.queue(one, [[b"SELECT", b"1"], [b"GET", b"a"]], b"").name == "GET"


# --- transactions


def test_a_transaction_in_one_packet_is_a_block() -> None:
    assert queued("GET a", "MULTI", "SET a 1", "BLPOP q 0", "EXEC", "GET b") == [
        "any plain: GET a",
        "master block: MULTI, SET a 1, BLPOP q 0, EXEC",
        "any plain: GET b",
    ]


def test_two_of_them_are_two() -> None:
    one = ["MULTI", "SET a 1", "EXEC"]
    assert queued(*one, *one) == ["master block: MULTI, SET a 1, EXEC"] * 2


def test_one_of_reads_alone_goes_to_the_master_too() -> None:
    assert queued("MULTI", "GET a", "EXEC") == ["master block: MULTI, GET a, EXEC"]


def test_one_with_a_script_goes_to_a_lane_where_nobody_waits() -> None:
    assert queued("MULTI", "EVAL x 0", "EXEC") == ["own block: MULTI, EVAL x 0, EXEC"]


@pytest.mark.parametrize("inside", ["SELECT 1", "CLIENT ID", "SCAN 0", "WATCH k", "SUBSCRIBE c", "REPLICAOF a 1"])
def test_one_with_something_that_concerns_the_connection_is_taken_apart(inside: str) -> None:
    assert queued("MULTI", inside, "EXEC")[0] == "MULTI"
    assert "EXEC" in queued("MULTI", inside, "EXEC")


def test_one_without_its_end_is_taken_apart() -> None:
    assert queued("MULTI", "SET a 1") == ["MULTI", "master plain: SET a 1"]


@pytest.mark.parametrize("commands", [("MULTI x", "EXEC"), ("MULTI", "EXEC x"), ("MULTI", "DISCARD x")])
def test_one_with_a_wrong_number_of_arguments_is_taken_apart(commands: tuple[str, ...]) -> None:
    assert queued(*commands) == [command.split()[0] for command in commands]


def test_a_second_multi_begins_another_block() -> None:
    assert queued("MULTI", "MULTI", "EXEC") == ["MULTI", "master block: MULTI, EXEC"]


def test_the_replies_of_a_block_are_one_for_each_command() -> None:
    one = session()
    batching.queue(one, [[b"MULTI"], [b"GET", b"a"], [b"EXEC"]], b"")
    assert isinstance(entry := one.pending[0], Run)
    assert (entry.left, entry.form, entry.need) == (3, Form.BLOCK, Need.MASTER)


# --- one command, when it is asked again


@pytest.mark.parametrize(
    ("command", "becomes"),
    [
        ("GET a", "any plain: GET a"),
        ("INCR a", "master plain: INCR a"),
        ("EVAL x 0", "own plain: EVAL x 0"),
        ("SCAN 0", "master cursor: SCAN 0"),
        ("MULTI", "MULTI"),
    ],
)
def test_a_command_that_is_asked_again_becomes_what_it_was(command: str, becomes: str) -> None:
    assert shown(batching.entry(session(), command.encode().split())) == becomes
