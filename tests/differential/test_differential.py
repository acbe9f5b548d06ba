"""No client can tell the proxy from a plain Redis, whatever it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.case import Burst, Case, command
from tests.differential.compare import Comparison, WrongCase
from tests.differential.generator import cases, on_master, settled_cases
from tests.differential.masks import Mask, masked
from tests.differential.peculiar import PECULIARITIES, without
from tests.differential.site import both_sides
from tests.support.redis import RedisServer
from tests.support.servers import Server, only

SEED = 1


def test_sixty_thousand_commands_of_all_kinds_give_the_same_bytes(tmp_path: Path) -> None:
    with both_sides(tmp_path, "master") as comparison:
        found = comparison.differences(cases(SEED), 60_000, most=1)
    if found:
        pytest.fail(f"python -m tests.differential --case {found[0].seed}\n{found[0]}")


def test_forty_thousand_commands_give_the_same_bytes_when_settled_replicas_answer_reads(tmp_path: Path) -> None:
    with both_sides(tmp_path, "replica") as comparison:
        found = comparison.differences(settled_cases(SEED), 40_000, most=1)
    if found:
        pytest.fail(f"python -m tests.differential --reads replica --case {found[0].seed}\n{found[0]}")


@pytest.mark.parametrize("reads", ["master", "replica"])
@pytest.mark.parametrize("server", [only("Redis 8"), only("Valkey 9")])
def test_later_servers__five_thousand_commands__give_the_same_bytes(tmp_path: Path, server: Server, reads: str) -> None:
    """The whole of it, with each version that runs here: `make matrix`."""
    with both_sides(tmp_path, reads, server.program) as comparison:
        found = comparison.differences((cases if reads == "master" else settled_cases)(SEED), 5_000, most=1)
    assert not found, found[0]


def test_peculiar_commands_are_left_out_and_nothing_else() -> None:
    case = on_master(3)
    refused = Case(((Burst(0, (command("AUTH", "nobody", "x"),)),), (Burst(1, (command("PING"),), (3,)),)))
    assert without(case, []) == case
    assert without(refused, [PECULIARITIES[0].commands]) == Case(((Burst(1, (command("PING"),), (3,)),),))


def test_a_difference_is_found_and_made_small(redis_server: RedisServer) -> None:
    with RedisServer(rename_command='INCR ""') as other:
        comparison = Comparison(redis_server.node, other.node, clean=lambda: redis_server.command("FLUSHALL"))
        talk = [command("SET", "k", 1), command("GET", "k"), command("INCR", "m"), command("PING")]
        case = Case(((Burst(0, tuple(talk), (3, 5)),), (Burst(1, (command("PING"),)),)))
        (found,) = comparison.differences([(5, case)], 100)
    assert found.case == Case(((Burst(0, (command("INCR", "m"),)),),))
    assert (found.seed, found.plain) == (5, b":1\r\n")
    assert found.proxy.startswith(b"-ERR unknown command 'INCR'")


def test_a_case_that_waits_for_what_no_redis_says_is_not_taken_for_a_difference(redis_server: RedisServer) -> None:
    comparison = Comparison(redis_server.node, redis_server.node, clean=lambda: None)
    for replies in (0, 2):
        with pytest.raises(WrongCase):
            comparison.difference(5, Case(((Burst(0, (command("PING", replies=replies),)),),)), patience=0.1)


def test_the_same_seed_gives_the_same_case() -> None:
    assert on_master(3) == on_master(3)
    assert on_master(3) != on_master(4)


def test_what_may_differ_is_left_out_and_nothing_else() -> None:
    assert masked(Mask.UNORDERED, b"*2\r\n$1\r\nb\r\n$1\r\na\r\n") == b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    assert masked(Mask.NUMBER, b":17\r\n") == b":N\r\n"
    assert masked(Mask.NUMBER, b":-2\r\n") == b":-2\r\n"
    assert masked(Mask.CLOCK, b"$4\r\n17-0\r\n") == b"$N\r\nN-N\r\n"
    assert masked(Mask.GREETING, b"*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:9\r\n") == (
        b"*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:N\r\n"
    )
    assert masked(Mask.NUMBER, b"-ERR 17\r\n") == b"-ERR 17\r\n"
    line = b"id=7 name=x flags=N capa= db=3 multi=0 watch=0 resp=2 lib-name=y tot-cmds=4\n\r\n"
    assert masked(Mask.ADDRESS, b"$99\r\n" + line) == b"id=N name=x flags=N db=3 multi=-1 resp=2\n\r\n"
