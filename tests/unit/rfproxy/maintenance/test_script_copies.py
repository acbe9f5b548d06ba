"""Scripts are given to the replicas: what they have, what comes back, what is flushed, what is too much."""

from __future__ import annotations

from hashlib import sha1
from math import inf

import pytest

from rfprotocol.resp.fast_path import COMPILED
from rfproxy.builtin import worker_queries
from rfproxy.core.identity import Account
from rfproxy.core.policy import Policy
from rfproxy.maintenance import script_copies
from tests.support.joined import Worker, join
from tests.support.playbook import Playbook

BODY = b"return 'x'"
DIGEST = sha1(BODY).hexdigest().encode()
OK = b"+OK\r\n"


def digest_of(body: bytes) -> bytes:
    return sha1(body).hexdigest().encode()


def group(policy: Policy | None = None) -> Playbook:
    play = Playbook(policy)
    play.server("r:1").run_id = "first"
    play.topology(1, master="m:1", replicas=["r:1"])
    return play


@pytest.fixture
def play() -> Playbook:
    return group()


def learns(play: Playbook, *words: bytes, reply: bytes = b"$1\r\nx\r\n") -> None:
    """A client says this, and the master has done it."""
    client = play.client().says(*words)
    play.server("m:1").hears(*words, exclusive=True).answers(reply)
    client.hears(reply)
    play.wait(script_copies.PAUSE)


def loads(play: Playbook, body: bytes = BODY, server: str = "r:1") -> None:
    """The replica is asked for the script, does not have it, and gets it."""
    play.server(server).hears("SCRIPT", "EXISTS", digest_of(body)).answers(b"*1\r\n:0\r\n")
    play.server(server).hears("SCRIPT", "LOAD", body).answers(b"$40\r\n%b\r\n" % digest_of(body))
    play.wait(script_copies.PAUSE)


@pytest.mark.parametrize("words", [(b"SCRIPT", b"LOAD", BODY), (b"EVAL", BODY, b"0"), (b"EVAL_RO", BODY, b"0")])
def test_script__learned__loaded_into_the_replicas(play: Playbook, words: tuple[bytes, ...]) -> None:
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    learns(play, *words)
    for name in ("r:1", "r:2"):
        loads(play, server=name)
    learns(play, *words)
    play.server("r:1").hears_nothing()
    assert play.router.stats.scripts_copied == 2


def test_script__refused_by_the_master__not_loaded(play: Playbook) -> None:
    learns(play, b"SCRIPT", b"LOAD", BODY, reply=b"-ERR Error compiling script\r\n")
    play.server("r:1").hears_nothing()
    assert not play.server("r:1").lanes, "no connection is opened for nothing"


def test_script__there_already__not_loaded(play: Playbook) -> None:
    """Another proxy was faster."""
    learns(play, b"EVAL", BODY, b"0")
    play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"*1\r\n:1\r\n")
    play.wait(1.0)
    play.server("r:1").hears_nothing()


def test_replica__same_process_behind_another_connection__keeps_what_it_has(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    loads(play)
    play.server("r:1").hangs_up()
    play.wait(2 * script_copies.LONGEST_WAIT)
    play.server("r:1").hears_nothing()
    other = b"return 'y'"
    learns(play, b"EVAL", other, b"0")
    loads(play, other)


def test_replica__started_again__gets_all(play: Playbook) -> None:
    other = b"return 'y'"
    for body in (BODY, other):
        learns(play, b"EVAL", body, b"0")
        loads(play, body)
    play.server("r:1").dies()
    play.topology(1, master="m:1")
    play.server("r:1").run_id, play.server("r:1").refuses = "second", False
    play.topology(1, master="m:1", replicas=["r:1"])
    play.wait(script_copies.LONGEST_WAIT)
    connection = play.server("r:1").hears("SCRIPT", "EXISTS", digest_of(other), DIGEST)
    connection.answers(b"*2\r\n:0\r\n:0\r\n")
    play.server("r:1").hears("SCRIPT", "LOAD", other)
    play.server("r:1").hears("SCRIPT", "LOAD", BODY)


def test_replica__started_again_unnoticed__gets_all(play: Playbook) -> None:
    """It is back before the managers miss it."""
    learns(play, b"EVAL", BODY, b"0")
    loads(play)
    play.server("r:1").run_id = "second"
    play.server("r:1").hangs_up()
    play.wait(script_copies.LONGEST_WAIT)
    loads(play)


def test_replica__not_there__others_are_not_kept_waiting(play: Playbook) -> None:
    play.topology(1, master="m:1", replicas=["r:2", "r:1"])
    play.server("r:2").refuses = True
    learns(play, b"EVAL", BODY, b"0")
    loads(play)
    play.server("r:2").refuses = False
    play.wait(script_copies.LONGEST_WAIT)
    play.server("r:2").hears("SCRIPT", "EXISTS", DIGEST)


def test_replica__that_comes_later__gets_what_was_learned(play: Playbook) -> None:
    play.topology(1, master="m:1")
    learns(play, b"EVAL", BODY, b"0")
    play.topology(1, master="m:1", replicas=["r:1"])
    play.wait(script_copies.PAUSE)
    loads(play)


# --- SCRIPT FLUSH


def test_flush__sent_to_the_replicas(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    loads(play)
    learns(play, b"SCRIPT", b"FLUSH", reply=OK)
    play.server("r:1").hears("SCRIPT", "FLUSH").answers(OK)
    play.wait(script_copies.PAUSE)
    play.server("r:1").hears_nothing()
    learns(play, b"EVAL", BODY, b"0")
    loads(play)


def test_flush__before_anything_was_learned__sent_to_the_replicas(play: Playbook) -> None:
    learns(play, b"SCRIPT", b"FLUSH", reply=OK)
    play.server("r:1").hears("SCRIPT", "FLUSH").answers(OK)


def test_flush__refused_by_the_master__not_sent(play: Playbook) -> None:
    learns(play, b"SCRIPT", b"FLUSH", reply=b"-NOPERM no\r\n")
    play.server("r:1").hears_nothing()


def test_flush__while_scripts_are_being_loaded__they_are_not_loaded_behind_it(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    connection = play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST)
    learns(play, b"SCRIPT", b"FLUSH", reply=OK)
    connection.answers(b"*1\r\n:0\r\n")
    play.wait(script_copies.PAUSE)
    play.server("r:1").hears("SCRIPT", "FLUSH").answers(OK)
    play.wait(1.0)
    play.server("r:1").hears_nothing()


def test_flush__replica_was_started_again_meanwhile__nothing_to_do(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    loads(play)
    play.server("r:1").dies()
    learns(play, b"SCRIPT", b"FLUSH", reply=OK)
    play.server("r:1").run_id, play.server("r:1").refuses = "second", False
    play.wait(2 * script_copies.LONGEST_WAIT)
    play.server("r:1").hears_nothing()


def test_flush__more_scripts_after_it__counted_anew(play: Playbook) -> None:
    client = play.client()
    for _ in range(2):
        for number in range(600):
            client.says("EVAL", f"return {number}", "0")
            play.server("m:1").hears("EVAL", f"return {number}", "0", exclusive=True).answers(b":1\r\n")
        assert copied(play) == 500
        learns(play, b"SCRIPT", b"FLUSH", reply=OK)


# --- SCRIPT FLUSH at another worker


def workers() -> tuple[Worker, Worker]:
    """Both have a replica, which each knows as it would be if the other did nothing to it."""
    here, there = join(2)
    for worker in (here, there):
        worker.topology(1, master="m:1", replicas=["r:1"])
    return here, there


def flushes(play: Playbook) -> None:
    """A client says so, and has the answer; nothing else happens meanwhile."""
    client = play.client().says("SCRIPT", "FLUSH")
    play.server("m:1").hears("SCRIPT", "FLUSH", exclusive=True).answers(OK)
    client.hears(OK)


def test_flush__at_another_worker__told_at_once_and_what_came_before_is_forgotten() -> None:
    here, there = workers()
    learns(here, b"EVAL", BODY, b"0")
    there.wait(script_copies.PAUSE)
    flushes(there)
    there.peers.hear()
    assert here.router.scripts.body(DIGEST) is None
    here.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"*1\r\n:0\r\n")
    here.wait(1.0)
    here.server("r:1").hears_nothing()


@pytest.mark.parametrize("known_before", [True, False])
def test_flush__at_another_worker_heard_late__what_came_after_it_stays(known_before: bool) -> None:
    here, there = workers()
    if known_before:
        learns(here, b"SCRIPT", b"LOAD", BODY)
        there.wait(script_copies.PAUSE)
    flushes(there)
    here.wait(script_copies.PAUSE)
    learns(here, b"SCRIPT", b"LOAD", BODY)
    there.wait(script_copies.PAUSE)
    there.peers.hear()
    assert here.router.scripts.body(DIGEST) == BODY
    there.server("r:1").hears("SCRIPT", "FLUSH")


def test_flush__at_another_worker__a_script_that_is_on_its_way_is_remembered() -> None:
    here, there = workers()
    client = here.client().says("SCRIPT", "LOAD", BODY)
    flushes(there)
    there.wait(script_copies.PAUSE)
    there.peers.hear()
    here.server("m:1").hears("SCRIPT", "LOAD", BODY, exclusive=True).answers(b"+x\r\n")
    client.hears(b"+x\r\n")
    assert here.router.scripts.body(DIGEST) == BODY


def test_flush__at_another_worker__the_master_is_given_what_stays_again() -> None:
    """It may have been loaded ahead before the flush."""
    here, there = workers()
    learns(here, b"SCRIPT", b"LOAD", BODY)
    here.router.scripts.loaded(BODY, here.router.process)
    flushes(there)
    there.peers.hear()
    here.client().says("EVALSHA", DIGEST, "0")
    here.server("m:1").hears("SCRIPT", "LOAD", BODY, exclusive=True)


def test_flush__done_late_by_a_replica__other_workers_load_again_what_came_since() -> None:
    here, there = workers()
    there.server("r:1").refuses = True
    flushes(there)
    there.peers.hear()
    here.wait(script_copies.PAUSE)
    learns(here, b"SCRIPT", b"LOAD", BODY)
    loads(here)
    there.wait(script_copies.LONGEST_WAIT)
    here.server("r:1").hears_nothing()
    there.server("r:1").refuses = False
    there.wait(2 * script_copies.LONGEST_WAIT)
    there.server("r:1").hears("SCRIPT", "FLUSH").answers(OK)
    there.peers.hear()
    here.wait(script_copies.PAUSE)
    loads(here)


def test_flush__done_by_a_replica_while_it_is_asked__what_it_says_is_not_believed() -> None:
    here, there = workers()
    flushes(there)
    there.peers.hear()
    learns(here, b"SCRIPT", b"LOAD", BODY)
    connection = here.server("r:1").hears("SCRIPT", "EXISTS", DIGEST)
    there.wait(script_copies.PAUSE)
    there.server("r:1").hears("SCRIPT", "FLUSH").answers(OK)
    there.peers.hear()
    connection.answers(b"*1\r\n:1\r\n")
    here.wait(script_copies.PAUSE)
    loads(here)


def test_flush__many_times__the_others_are_asked_one_question_at_a_time() -> None:
    here, there = workers()
    for _ in range(10):
        flushes(there)
        there.wait(0.001)
    assert len(there.peers.asked) == 1
    here.wait(0.005)
    learns(here, b"SCRIPT", b"LOAD", BODY)
    there.peers.hear()
    assert here.router.scripts.body(DIGEST) == BODY, "it came after the first ones"
    assert len(there.peers.asked) == 1
    there.peers.hear()
    assert here.router.scripts.body(DIGEST) is None, "and before the last one"
    assert not there.peers.asked


@pytest.mark.parametrize("words", [[b"FLUSHED"], [b"FLUSHED", b"soon"]])
def test_flush__told_without_a_moment__all_that_came_before_is_forgotten(words: list[bytes]) -> None:
    """So do workers of a former version."""
    here, _ = workers()
    learns(here, b"SCRIPT", b"LOAD", BODY)
    assert worker_queries.answer(here.router, words, here.time) == ([b"OK"] if len(words) == 1 else None)
    assert (here.router.scripts.body(DIGEST) is None) == (len(words) == 1)


# --- bounds


def test_new_scripts__come_together__one_packet_in_a_while(play: Playbook) -> None:
    bodies = [b"return %d" % number for number in range(2 * script_copies.AT_ONCE + 1)]
    client = play.client()
    for body in bodies:
        client.says("SCRIPT", "LOAD", body)
        play.server("m:1").hears("SCRIPT", "LOAD", body, exclusive=True).answers(b"+x\r\n")
    play.wait(script_copies.PAUSE)
    for first in (0, script_copies.AT_ONCE, 2 * script_copies.AT_ONCE):
        part = bodies[first : first + script_copies.AT_ONCE]
        connection = play.server("r:1").hears("SCRIPT", "EXISTS", *map(digest_of, part))
        connection.answers(b"*%d\r\n" % len(part) + b":0\r\n" * len(part))
        for body in part:
            play.server("r:1").hears("SCRIPT", "LOAD", body)
        connection.answers(b"+x\r\n" * len(part))
        play.server("r:1").hears_nothing()
        play.wait(script_copies.PAUSE)


def test_bodies__large__packets_are_bounded(play: Playbook) -> None:
    bodies = [b"return %d" % number + b" " * (script_copies.MOST_BYTES // 2) for number in range(3)]
    client = play.client()
    for body in bodies:
        client.says("SCRIPT", "LOAD", body)
        play.server("m:1").hears("SCRIPT", "LOAD", body, exclusive=True).answers(b"+x\r\n")
    play.wait(script_copies.PAUSE)
    play.server("r:1").hears("SCRIPT", "EXISTS", digest_of(bodies[0]))


def copied(play: Playbook) -> int:
    """Answer all that the replica is told, until it is told nothing more; the number of scripts that it was given."""
    count = 0
    for _ in range(200):
        for connection in play.server("r:1").live:
            words, connection.commands = connection.commands, []
            for args in words:
                there = b"*%d\r\n" % (len(args) - 2) + b":0\r\n" * (len(args) - 2)
                count += args[1] == b"LOAD"
                connection.answers(there if args[1] == b"EXISTS" else b"+x\r\n")
        play.wait(script_copies.PAUSE)
    return count


def test_eval__another_body_each_time__not_all_are_copied(play: Playbook) -> None:
    client = play.client()
    for number in range(3 * 500):
        client.says("EVAL", f"return {number}", "0")
        play.server("m:1").hears("EVAL", f"return {number}", "0", exclusive=True).answers(b":1\r\n")
    assert copied(play) == 500
    learns(play, b"SCRIPT", b"LOAD", BODY)
    assert copied(play) == 1, "what was loaded on purpose is copied all the same"


def test_load__behind_very_many_evals__is_copied_first(play: Playbook) -> None:
    client = play.client()
    for number in range(1000):
        client.says("EVAL", f"return {number}", "0")
        play.server("m:1").hears("EVAL", f"return {number}", "0", exclusive=True).answers(b":1\r\n")
    learns(play, b"SCRIPT", b"LOAD", BODY)
    (connection,) = play.server("r:1").live
    assert connection.commands[0][2] == DIGEST


def test_eval__called_by_its_digest__copied_beyond_the_limit(play: Playbook) -> None:
    client = play.client()
    for number in range(600):
        client.says("EVAL", f"return {number}", "0")
        play.server("m:1").hears("EVAL", f"return {number}", "0", exclusive=True).answers(b":1\r\n")
    assert copied(play) == 500
    last = digest_of(b"return 599")
    client.says("EVALSHA", last, "0")
    play.server("m:1").hears("SCRIPT", "LOAD", "return 599", exclusive=True).answers(b"+x\r\n")
    play.server("m:1").hears("EVALSHA", last, "0", exclusive=True).answers(b":1\r\n")
    assert copied(play) == 1


MEGABYTE = 1 << 20


@pytest.mark.parametrize(("count", "megabytes"), [(1, 4), (4, 1)])
def test_eval__large_bodies__copied_up_to_a_size(count: int, megabytes: int) -> None:
    play = group(Policy(workers=count))
    bodies = [b"return %d" % number + b" " * (MEGABYTE // 4 - 10) for number in range(20)]
    for body in bodies:
        learns(play, b"EVAL", body, b"0")
    assert copied(play) == 4 * megabytes
    learns(play, b"EVAL", BODY + b" " * MEGABYTE, b"0")
    assert copied(play) == 0
    learns(play, b"SCRIPT", b"LOAD", bodies[-1])
    assert copied(play) == 1, "what was loaded on purpose is copied all the same"


def test_evalsha__of_large_bodies__copied_up_to_a_larger_size() -> None:
    play = group(Policy(workers=4))
    scripts = play.router.scripts
    for number in range(30):
        body = b"return %d" % number + b" " * (MEGABYTE // 4 - 10)
        scripts.executed([b"EVAL", body, b"0"], scripts.flushes, play.time)
        scripts.executed([b"EVALSHA", digest_of(body), b"0"], scripts.flushes, play.time)
    play.wait(script_copies.PAUSE)
    assert copied(play) == 16


def ends_over(play: Playbook, fatal: bytes, seconds: float) -> list[bytes]:
    """For so long, the replica ends each connection on which it is told to load that; returns what it has loaded."""
    server, there = play.server("r:1"), []
    for _ in range(round(seconds / script_copies.PAUSE)):
        for connection in server.live:
            words, connection.commands = connection.commands, []
            if any(args[2] == fatal for args in words):
                server.hangs_up()
                break
            for args in words:
                if args[1] == b"LOAD":
                    there.append(args[2])
                known = [digest_of(body) for body in there]
                asked = b"".join(b":%d\r\n" % (digest in known) for digest in args[2:])
                connection.answers(b"*%d\r\n" % (len(args) - 2) + asked if args[1] == b"EXISTS" else b"+x\r\n")
        play.wait(script_copies.PAUSE)
    return there


def test_body__over_which_the_connection_ends__given_up_and_the_others_are_loaded(play: Playbook) -> None:
    bodies = [b"return %d" % number for number in range(10)]
    client = play.client()
    for body in bodies:
        client.says("SCRIPT", "LOAD", body)
        play.server("m:1").hears("SCRIPT", "LOAD", body, exclusive=True).answers(b"+x\r\n")
    play.wait(script_copies.PAUSE)
    assert set(ends_over(play, bodies[4], 60.0)) == {*bodies} - {bodies[4]}
    assert len(play.server("r:1").lanes) <= script_copies.MOST_LOST + 1


def test_body__over_which_the_server_ends__not_loaded_again_when_it_is_back(play: Playbook) -> None:
    learns(play, b"SCRIPT", b"LOAD", BODY)
    for number in range(5):
        ends_over(play, BODY, 5.0)
        play.server("r:1").run_id = f"process {number}"
        play.server("r:1").hangs_up()
    told = [writes for connection in play.server("r:1").lanes for writes in connection.writes if b"LOAD" in writes]
    assert len(told) == script_copies.MOST_LOST


def test_load__refused_for_long__asked_ever_more_rarely_and_not_given_up(play: Playbook) -> None:
    """Such as by -OOM."""
    learns(play, b"EVAL", BODY, b"0")
    for _ in range(600):
        for connection in [one for one in play.server("r:1").live if one.commands]:
            (args,) = connection.commands
            connection.commands.clear()
            connection.answers(b"*1\r\n:0\r\n" if args[1] == b"EXISTS" else b"-OOM command not allowed\r\n")
        play.wait(script_copies.PAUSE)
    assert len(play.server("r:1").lanes) < 15
    play.wait(script_copies.LONGEST_WAIT)
    loads(play)


# --- who may


def test_no_account_may__said_once_and_clients_do_not_notice(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"-NOPERM this user has no permissions\r\n")
    play.wait(script_copies.REFUSED_FOR / 2)
    play.server("r:1").hears_nothing()
    play.wait(script_copies.REFUSED_FOR)
    play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"-NOPERM this user has no permissions\r\n")
    (line,) = play.log.events("scripts_not_copied")
    assert "+script|load" in str(line["error"])


def test_own_account_may_not__the_clients_own_is_tried() -> None:
    play = group(Policy(account=Account(b"proxy", b"pw")))
    client = play.client().says("AUTH", "app", "secret")
    play.server("m:1").hears("AUTH", "app", "secret").answers(OK)
    client.says("SCRIPT", "LOAD", BODY)
    play.server("m:1").hears("SCRIPT", "LOAD", BODY, exclusive=True).answers(b"+x\r\n")
    play.wait(script_copies.PAUSE)
    play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"-NOPERM this user has no permissions\r\n")
    play.wait(script_copies.LONGEST_WAIT)
    connection = play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST)
    assert connection.lane.key.identity.account == Account(b"app", b"secret")
    assert not play.log.events("scripts_not_copied")


def test_accounts__of_many_clients_may_not__few_are_tried() -> None:
    play = group()
    for number in range(20):
        words = [b"EVAL", b"return %d" % number, b"0"]
        play.router.scripts.executed(words, 0, play.time, Account(b"user%d" % number, b"pw"))
        for _ in range(5):
            play.wait(script_copies.LONGEST_WAIT / 100)
            for connection in [one for one in play.server("r:1").live if one.commands]:
                connection.commands.clear()
                connection.answers(b"-NOPERM this user has no permissions\r\n")
    assert len(play.server("r:1").lanes) == 2, "the proxy's own, and one client's"


def test_account__of_a_client_that_may_not__is_not_kept() -> None:
    own = Account(b"proxy", b"pw")
    play = group(Policy(account=own))
    play.router.scripts.executed([b"EVAL", BODY, b"0"], 0, play.time, Account(b"app", b"secret"))
    for _ in range(5):
        play.wait(script_copies.LONGEST_WAIT / 10)
        for connection in [one for one in play.server("r:1").live if one.commands]:
            connection.commands.clear()
            connection.answers(b"-NOPERM this user has no permissions\r\n")
    assert [connection.lane.key.identity.account for connection in play.server("r:1").lanes] == [
        own,
        Account(b"app", b"secret"),
    ]
    assert play.router.scripts.bringer == own
    play.wait(script_copies.REFUSED_FOR)
    connection = play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST)
    assert connection.lane.key.identity.account == own


def test_replica__busy_with_a_script__asked_again_later(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"-BUSY Redis is busy running a script.\r\n")
    play.wait(script_copies.LONGEST_WAIT)
    loads(play)


def test_replica__busy_for_long__asked_ever_more_rarely(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    for _ in range(600):
        for connection in [one for one in play.server("r:1").live if one.commands]:
            connection.commands.clear()
            connection.answers(b"-BUSY Redis is busy running a script.\r\n")
        play.wait(script_copies.PAUSE)
    assert len(play.server("r:1").lanes) < 15


def test_body__that_this_replica_cannot_compile__others_are_loaded(play: Playbook) -> None:
    learns(play, b"EVAL", BODY, b"0")
    connection = play.server("r:1").hears("SCRIPT", "EXISTS", DIGEST).answers(b"*1\r\n:0\r\n")
    play.server("r:1").hears("SCRIPT", "LOAD", BODY)
    connection.answers(b"-ERR Error compiling script (new function): user_script:1: ...\r\n")
    learns(play, b"EVAL", b"return 'y'", b"0")
    loads(play, b"return 'y'")


# --- workers


def test_worker__new__is_told_the_scripts_of_the_others() -> None:
    here, there = join(2)
    assert isinstance(there, Worker)
    for worker in (here, there):
        worker.topology(1, master="m:1")
    learns(there, b"SCRIPT", b"LOAD", BODY)
    worker_queries.join(here.router)
    here.peers.hear()
    assert here.router.scripts.body(DIGEST) == BODY
    learns(there, b"SCRIPT", b"FLUSH", reply=OK)
    there.peers.hear()
    assert here.router.scripts.body(DIGEST) is None


def test_worker__new__is_not_given_what_was_flushed_meanwhile() -> None:
    """The question, its answer and the word of the flush may come in any order."""
    here, there, third = join(3)
    learns(there, b"SCRIPT", b"LOAD", BODY)
    stale = worker_queries.answer(there.router, [b"SCRIPTS"], there.time)
    third.wait(script_copies.PAUSE)
    flushes(third)
    third.peers.hear()
    learns(there, b"EVAL", b"return 'new'", b"0")
    assert stale is not None
    worker_queries.join(here.router)
    here.peers.garbled = stale
    here.peers.hear()
    assert here.router.scripts.body(DIGEST) is None
    here.peers.garbled = None
    worker_queries.join(here.router)
    here.peers.hear()
    assert here.router.scripts.latest == [digest_of(b"return 'new'")], "what came since is taken over"


def test_worker__new__given_what_was_flushed__forgets_it_when_it_hears_of_that() -> None:
    here, there, third = join(3)
    learns(there, b"SCRIPT", b"LOAD", BODY)
    third.wait(script_copies.PAUSE)
    flushes(third)
    here.wait(1.0)
    worker_queries.join(here.router)
    here.peers.hear()
    assert here.router.scripts.body(DIGEST) == BODY
    third.peers.hear()
    assert here.router.scripts.body(DIGEST) is None


@pytest.mark.parametrize("word", [b"LOADED", b"LOADED long ago"])
def test_worker__new__told_without_a_moment__takes_over_unless_there_was_a_flush(word: bytes) -> None:
    """So do workers of a former version."""
    here, there = join(2)
    here.router.scripts.take_over([word, BODY])
    assert here.router.scripts.body(DIGEST) == BODY
    flushes(there)
    there.peers.hear()
    here.router.scripts.take_over([word, BODY])
    assert here.router.scripts.body(DIGEST) is None


@pytest.mark.skipif(COMPILED, reason="what a compiled function calls cannot be replaced")
def test_defect__while_copies_are_made__said_once_and_clients_are_served(
    play: Playbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(play.router.scripts, "take_news", fail)
    learns(play, b"SCRIPT", b"LOAD", BODY)
    learns(play, b"SCRIPT", b"LOAD", b"return 'y'")
    (line,) = play.log.events("defect")
    assert "scripts are not loaded into replicas ahead any more" in str(line["error"])
    play.topology(2, master="m:1", replicas=["r:1", "r:2"])
    client = play.client().says("SET", "a", "1")
    play.server("m:1").hears("SET", "a", "1").answers(OK)
    client.hears(OK)
    assert play.router.copies.due == inf, "it is not looked at again and again"
    play.server("r:2").hears_nothing()
