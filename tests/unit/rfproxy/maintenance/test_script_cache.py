"""Scripts: known again on a new master, forgotten when flushed, bounded in memory."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1

import pytest

from rfproxy.maintenance.script_cache import Scripts
from tests.support.playbook import Playbook
from tests.support.redis import RedisServer

BODY = b"return 'x'"
DIGEST = sha1(BODY).hexdigest().encode()
OTHER = b"return 'y'"
OTHER_DIGEST = sha1(OTHER).hexdigest().encode()
UNKNOWN = b"f" * 40

EVAL = [b"EVAL", BODY, b"0"]
EVALSHA = [b"EVALSHA", DIGEST, b"0"]
FLUSH = [b"SCRIPT", b"FLUSH"]


def play(scripts: Scripts, commands: Sequence[Sequence[bytes]], process: str) -> list[bytes]:
    """What is loaded ahead of these commands, which then are executed."""
    loads = scripts.needed(commands, process)
    flushes = scripts.flushes
    for args in commands:
        scripts.executed(args, flushes, 0.0)
    return loads


@pytest.fixture
def scripts() -> Scripts:
    """One script was seen, and is on the process `old`."""
    scripts = Scripts()
    play(scripts, [EVAL], "old")
    scripts.loaded(BODY, "old")
    return scripts


def test_a_script_is_loaded_where_it_is_not(scripts: Scripts) -> None:
    assert play(scripts, [EVALSHA], "old") == []
    assert play(scripts, [[b"GET", b"k"], EVALSHA, EVALSHA], "new") == [BODY]


def test_it_counts_as_being_there_once_the_server_has_said_so(scripts: Scripts) -> None:
    assert play(scripts, [EVALSHA], "new") == play(scripts, [EVALSHA], "new") == [BODY]
    scripts.loaded(BODY, "new")
    assert play(scripts, [EVALSHA], "new") == []


def test_who_cannot_say_yet_what_will_be_called_loads_all(scripts: Scripts) -> None:
    play(scripts, [[b"EVAL", OTHER, b"0"]], "old")
    assert scripts.missing("old") == [OTHER]
    assert scripts.missing("new") == [BODY, OTHER]
    scripts.loaded(BODY, "new")
    scripts.loaded(OTHER, "new")
    assert scripts.missing("new") == []


@pytest.mark.parametrize("bringer", [[b"eval", BODY, b"0"], [b"Eval_RO", BODY, b"1", b"k"], [b"script", b"load", BODY]])
@pytest.mark.parametrize("asker", [[b"evalsha", DIGEST, b"0"], [b"EVALSHA_RO", DIGEST.upper(), b"0"]])
def test_each_command_that_carries_a_script_serves_each_that_names_one(
    bringer: list[bytes], asker: list[bytes]
) -> None:
    scripts = Scripts()
    assert play(scripts, [bringer], "old") == []
    assert play(scripts, [asker], "new") == [BODY]


def test_scripts_that_are_asked_for_are_loaded_too(scripts: Scripts) -> None:
    play(scripts, [[b"SCRIPT", b"LOAD", OTHER]], "old")
    asked = [b"SCRIPT", b"EXISTS", OTHER_DIGEST, UNKNOWN, DIGEST.upper(), DIGEST]
    assert play(scripts, [asked], "new") == [OTHER, BODY]


@pytest.mark.parametrize(
    "command",
    [
        [b"EVALSHA"],
        [b"EVALSHA", UNKNOWN, b"0"],
        [b"EVALSHA", b"", b"0"],
        [b"EVAL"],
        [b"SCRIPT"],
        [b"SCRIPT", b"EXISTS"],
        [b"SCRIPT", b"HELP"],
        [b"GET", DIGEST],
    ],
)
def test_anything_else_needs_nothing(scripts: Scripts, command: list[bytes]) -> None:
    assert play(scripts, [command], "new") == []


@pytest.mark.parametrize("flush", [FLUSH, [b"script", b"flush", b"async"], [b"SCRIPT", b"FLUSH", b"SYNC"]])
def test_what_was_flushed_is_forgotten(scripts: Scripts, flush: list[bytes]) -> None:
    assert play(scripts, [EVALSHA, flush, EVALSHA], "new") == [BODY], "only for what stands in front of the flush"
    assert play(scripts, [EVALSHA], "old") == play(scripts, [EVALSHA], "newer") == scripts.missing("new") == []


def test_a_script_whose_answer_a_flush_has_overtaken_is_not_remembered(scripts: Scripts) -> None:
    flushes = scripts.flushes
    scripts.needed([FLUSH], "old")
    scripts.executed([b"EVAL", OTHER, b"0"], flushes, 0.0)
    scripts.executed(FLUSH, scripts.flushes, 0.0)
    assert scripts.missing("old") == []


def test_what_is_asked_for_behind_a_flush_that_is_on_its_way_is_not_loaded(scripts: Scripts) -> None:
    scripts.needed([FLUSH], "new")
    assert scripts.needed([EVALSHA], "new") == []


def test_a_load_that_a_flush_has_overtaken_brings_nothing(scripts: Scripts) -> None:
    play(scripts, [FLUSH], "new")
    scripts.loaded(BODY, "new")
    play(scripts, [EVAL], "new")
    assert play(scripts, [EVALSHA], "new") == [BODY]


def test_what_is_known_again_after_a_flush_is_loaded_again(scripts: Scripts) -> None:
    play(scripts, [FLUSH, EVAL], "old")
    assert play(scripts, [EVALSHA], "old") == [BODY]


def digest_of(body: bytes) -> bytes:
    return sha1(body).hexdigest().encode()


def asks_for(*bodies: bytes) -> list[list[bytes]]:
    return [[b"SCRIPT", b"EXISTS", *map(digest_of, bodies)]]


def test_the_script_that_was_used_least_recently_makes_room() -> None:
    scripts = Scripts(capacity=10_000)
    first, second, third = (b"-" * 4000 + digit for digit in (b"1", b"2", b"3"))
    for body in (first, second):
        play(scripts, [[b"EVAL", body, b"0"]], "old")
    play(scripts, asks_for(first), "old")
    play(scripts, [[b"EVAL", third, b"0"]], "old")
    assert play(scripts, asks_for(first, second, third), "new") == [first, third]
    play(scripts, [[b"EVAL", first, b"0"], [b"EVAL", second, b"0"]], "old")
    assert play(scripts, asks_for(first, second, third), "newer") == [first, second]


def test_what_was_flushed_leaves_its_room() -> None:
    scripts = Scripts(capacity=10_000)
    bodies = [b"-" * 4000 + digit for digit in (b"1", b"2")]
    commands = [[b"EVAL", body, b"0"] for body in bodies]
    play(scripts, [*commands, FLUSH, *commands], "old")
    assert play(scripts, asks_for(*bodies), "new") == bodies


def test_a_script_that_made_room_is_loaded_again_once_it_is_known_again() -> None:
    scripts = Scripts(capacity=5000)
    first, second = b"-" * 4000 + b"1", b"-" * 4000 + b"2"
    for body in (first, second, first):
        play(scripts, [[b"EVAL", body, b"0"]], "old")
        scripts.loaded(body, "old")
    assert play(scripts, asks_for(first), "old") == []
    play(scripts, [[b"EVAL", second, b"0"], [b"EVAL", first, b"0"]], "old")
    assert play(scripts, asks_for(first), "old") == [first]


def test_a_script_above_the_capacity_is_not_kept() -> None:
    scripts = Scripts(capacity=10_000)
    play(scripts, [EVAL, [b"EVAL", b" " * 10_000, b"0"]], "old")
    assert play(scripts, asks_for(b" " * 10_000, BODY), "new") == [BODY]


def test_tiny_scripts_do_not_escape_the_bound() -> None:
    scripts = Scripts(capacity=100_000)
    bodies = [b"return %d" % number for number in range(1000)]
    play(scripts, [[b"EVAL", body, b"0"] for body in bodies], "old")
    assert 100 < len(play(scripts, asks_for(*bodies), "new")) < 200


def test_after_a_thousand_changes_of_master_the_last_one_is_known() -> None:
    scripts = Scripts()
    play(scripts, [EVAL], "0")
    for number in range(1000):
        assert play(scripts, [EVALSHA], str(number)) == [BODY]
        scripts.loaded(BODY, str(number))
    assert play(scripts, [EVALSHA], "999") == []
    assert play(scripts, [EVALSHA], "0") == [BODY], "forgotten, and a load too many does no harm"


@pytest.mark.parametrize(
    "words", [[b"EVAL", OTHER, b"0"], [b"EVAL_RO", OTHER, b"1", b"k"], [b"SCRIPT", b"LOAD", OTHER]]
)
def test_a_real_server_has_what_is_remembered(redis_server: RedisServer, words: list[bytes]) -> None:
    scripts = Scripts()
    play(scripts, [words], "server")
    assert scripts.missing("server") == [OTHER]
    with redis_server.client() as client:
        client.execute_command(*words)
        assert client.evalsha(OTHER_DIGEST.decode().upper(), 0) == "y"


# --- transactions, before which all scripts are loaded


def test_transactions__new_master__scripts_are_loaded_once() -> None:
    play = Playbook()
    play.topology(1, master="m:1")
    for number in range(3):
        client = play.client().says("EVAL", f"return {number}", "0")
        play.server("m:1").hears("EVAL", f"return {number}", "0", exclusive=True).answers(b":1\r\n")
        client.leaves()
    play.topology(2)
    play.topology(3, master="r:1")
    clients = [play.client().says("MULTI") for _ in range(30)]
    play.settle()
    loads = [args for connection in play.server("r:1").live for args in connection.commands if args[0] == b"SCRIPT"]
    assert len(loads) == 3
    (loader,) = [connection for connection in play.server("r:1").live if connection.commands]
    loader.commands.clear()
    loader.answers(b"$40\r\n%b\r\n" % (b"a" * 40) * 3 + b"+OK\r\n")
    play.wait(0.0)
    for _ in clients[1:]:
        play.server("r:1").hears("MULTI", exclusive=True).answers(b"+OK\r\n")
    for client in clients:
        client.hears(b"+OK\r\n")


def test_transactions__loading_connection_is_lost__another_one_loads() -> None:
    play = Playbook()
    play.topology(1, master="m:1")
    client = play.client().says("EVAL", "return 1", "0")
    play.server("m:1").hears("EVAL", "return 1", "0", exclusive=True).answers(b":1\r\n")
    play.topology(2)
    play.topology(3, master="r:1")
    first, second = play.client().says("MULTI"), play.client().says("MULTI")
    first.leaves()
    play.wait(0.1)
    play.server("r:1").hears("SCRIPT", "LOAD", "return 1", exclusive=True).answers(b"$40\r\n%b\r\n" % (b"a" * 40))
    play.server("r:1").hears("MULTI", exclusive=True).answers(b"+OK\r\n")
    second.hears(b"+OK\r\n")
    client.hears(b":1\r\n")


class Compared(bytes):
    """A body that counts how often it is compared with another one."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return bytes(self) == other

    def __hash__(self) -> int:
        return hash(bytes(self))


def test_exists__of_very_many__compares_no_body_with_all_others(scripts: Scripts) -> None:
    bodies = [Compared(b"return %d" % number) for number in range(500)]
    for body in bodies:
        scripts.executed([b"EVAL", body, b"0"], 0, 0.0)
    digests = [sha1(body).hexdigest().encode() for body in bodies]
    Compared.times = 0
    assert len(scripts.needed([[b"SCRIPT", b"EXISTS", *digests]], "new")) == 500
    assert Compared.times <= 2 * len(bodies)
