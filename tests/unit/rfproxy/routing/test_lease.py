"""The lease: how long it lasts, and what becomes of commands and replies when it has run out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.lease_margin import good_until
from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy, Reads
from rfproxy.routing.lease import NEWS, Lease
from tests.support.playbook import FakeClient, Playbook


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"], run_id="one")
    play.server("m:1").run_id = "one"
    return play


# --- how long


def test_without_a_proof_nothing_is_believed() -> None:
    assert not Lease().valid(0.0)


def test_it_counts_from_when_the_proof_was_sent_and_ends_before_the_session_can() -> None:
    lease = Lease()
    lease.renew(100.0, 3.0)
    assert lease.valid(101.9)
    assert not lease.valid(102.1)


def test_a_proof_that_was_sent_earlier_does_not_shorten_it() -> None:
    lease = Lease()
    lease.renew(100.0, 3.0)
    lease.renew(99.0, 3.0)
    assert lease.valid(101.9)


def test_the_end_of_the_session_ends_it() -> None:
    lease = Lease()
    lease.renew(100.0, 3.0)
    lease.revoke()
    assert not lease.valid(100.0)


def test_stale_reads_begin_when_its_end_was_noticed_and_the_store_said_nothing_for_a_while() -> None:
    lease = Lease()
    assert lease.reads_from <= 0.0  # never had: what is known comes from a file
    lease.renew(100.0, 3.0)
    assert lease.reads_from == float("inf")
    lease.lapsed(500.0)
    lease.lapsed(500.5)  # noticed once more
    assert lease.reads_from == 500.0 + NEWS


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 60)), min_size=1))
def test_it_never_outlasts_the_longest_session_that_was_proved(proofs: list[tuple[float, float]]) -> None:
    lease = Lease()
    for sent, timeout in proofs:
        lease.renew(sent, timeout)
    assert lease.until <= max(good_until(sent, timeout) for sent, timeout in proofs)


# --- and then


def lapse(play: Playbook) -> None:
    play.lease.revoke()
    play.router.lapse(play.time)
    play.settle()


def test_when_the_lease_runs_out_writes_wait_and_reads_go_on(play: Playbook) -> None:
    lapse(play)
    writer, reader = play.client().says("INCR", "k"), play.client().says("GET", "k")
    play.server("m:1").hears_nothing()
    play.server("r:1").hears("GET", "k").answers(b"$-1\r\n")
    reader.hears(b"$-1\r\n")
    play.lease.renew(play.time, 1e9)
    play.router.resume(play.time)
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    writer.hears(b":1\r\n")


@pytest.mark.parametrize("reads", list(Reads))
def test_without_a_lease_and_a_replica_the_last_known_master_is_read_from(reads: Reads) -> None:
    play = Playbook(Policy(reads=reads))
    play.topology(1, master="m:1")
    lapse(play)
    client = play.client().says("GET", "k")
    play.server("m:1").hears_nothing()  # perhaps there is another one: the store may be about to say so
    play.wait(NEWS)
    play.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")


def test_who_was_frozen_hears_of_another_master_before_the_former_one_is_read_from() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1")
    play.lease.revoke()
    client = play.client().says("GET", "k")  # before the timer that notices it
    lapse(play)
    play.server("m:1").hears_nothing()
    play.topology(3, master="r:1")
    play.lease.renew(play.time, 1e9)
    play.router.resume(play.time)
    play.server("r:1").hears("GET", "k").answers(b"$1\r\nv\r\n")
    client.hears(b"$1\r\nv\r\n")


def test_a_master_that_was_restarted_meanwhile_is_not_read_from_without_a_lease() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    play.topology(1, master="m:1", run_id="one")
    play.server("m:1").run_id = "two"
    lapse(play)
    client = play.client().says("GET", "k")
    play.wait(NEWS)
    play.server("m:1").hears_nothing()
    client.hears_nothing()


def regain(play: Playbook) -> None:
    play.lease.renew(play.time, 1e9)
    play.router.resume(play.time)
    play.settle()


def test_a_success_that_arrives_after_the_lease_ran_out_is_not_relayed(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.lease.revoke()
    connection.answers(b":1\r\n")
    lapse(play)
    client.hears_nothing()
    play.wait(NEWS)
    client.hears_error("UNCERTAIN INCR")
    assert connection.closed


LAPSED = "this proxy's lease lapsed (no word from ZooKeeper) before a reply of master m:1 was believed"


def test_uncertain__the_lease_lapsed_and_the_master_is_well__says_so_and_not_that_it_was_lost(play: Playbook) -> None:
    client, repeatable = play.client().says("INCR", "k"), play.client().says("SET", "k", "v")
    play.server("m:1").hears("INCR", "k")
    play.server("m:1").hears("SET", "k", "v")
    lapse(play)
    play.wait(NEWS)
    client.hears_error(f"UNCERTAIN INCR may or may not have been applied: {LAPSED}")
    repeatable.hears_nothing()  # it waits to be sent again, in vain
    play.wait(31.0)
    repeatable.hears_error(f"UNCERTAIN SET may or may not have been applied: {LAPSED}")


def test_uncertain__a_transaction_under_way_when_the_lease_lapsed__says_so(play: Playbook) -> None:
    client = play.client().pipelines("MULTI", "INCR k", "EXEC")
    play.server("m:1").hears("MULTI")
    lapse(play)
    play.wait(NEWS)
    client.hears(f"+OK\r\n+QUEUED\r\n-UNCERTAIN EXEC may or may not have been applied: {LAPSED}\r\n".encode())


def test_uncertain__the_master_is_lost_without_a_lease__says_that_it_was_lost(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    lapse(play)
    play.server("m:1").dies()
    client.hears_error("UNCERTAIN INCR may or may not have been applied: master m:1 was lost before it replied")


def test_what_arrived_without_a_lease_is_relayed_when_there_is_one_and_the_same_master(play: Playbook) -> None:
    client = play.client().says("INCR", "k").says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    lapse(play)
    connection.answers(b":1\r")
    connection.answers(b"\n")
    client.hears_nothing()
    regain(play)
    client.hears(b":1\r\n")
    connection.answers(b":2\r\n")
    client.hears(b":2\r\n")
    assert play.server("m:1").live == [connection]


def test_what_arrived_without_a_lease_stays_in_order(play: Playbook) -> None:
    client = play.client().says("INCR", "k").says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.lease.revoke()
    connection.answers(b":1\r\n")
    play.lease.renew(play.time, 1e9)
    connection.answers(b":2\r\n")  # before anybody has noticed that there is a lease again
    client.hears(b":1\r\n:2\r\n")


def test_what_arrived_without_a_lease_is_not_relayed_when_there_is_another_master(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    lapse(play)
    connection.answers(b":1\r\n")
    play.topology(3, master="r:1")
    assert connection.closed
    client.hears_error("UNCERTAIN INCR")
    regain(play)
    client.hears_nothing()


@pytest.mark.parametrize("noticed", [False, True])
def test_a_master_that_had_a_successor_in_between_is_not_believed(play: Playbook, noticed: bool) -> None:
    client, late = play.client().says("INCR", "k"), play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.lease.revoke()
    if noticed:
        lapse(play)
    connection.answers(b":1\r\n")  # which the successor never had
    play.topology(5, master="m:1", replicas=["r:1", "r:2"])
    regain(play)
    connection.answers(b":2\r\n")
    client.hears_error("UNCERTAIN INCR")
    late.hears_error("UNCERTAIN INCR")


def test_a_planned_change_that_begins_without_a_lease_is_acknowledged(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    lapse(play)
    connection.answers(b":1\r\n")
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:1", "r:2"])
    client.hears_error("UNCERTAIN INCR")
    assert play.acknowledged[-1] == 2


def test_what_is_drained_when_the_lease_runs_out_is_answered_with_the_next_one(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:1", "r:2"])
    lapse(play)
    connection.answers(b":1\r\n")
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:1"])
    regain(play)
    client.hears(b":1\r\n")
    assert play.acknowledged[-1] == 2


def test_without_a_lease_replies_are_not_even_read(play: Playbook) -> None:
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    lapse(play)
    connection.answers(b":")
    assert not connection.read
    regain(play)
    assert connection.read
    connection.answers(b"1\r\n")
    client.hears(b":1\r\n")


def test_a_long_reply_is_not_read_without_a_lease_either(play: Playbook) -> None:
    client = play.client().says("INCR", "big")
    connection = play.server("m:1").hears("INCR", "big").answers(b"$%d\r\n" % (3 << 20) + b"x" * (1 << 20))
    client.output = b""
    lapse(play)
    connection.answers(b"x" * (1 << 20))
    assert not connection.read
    regain(play)
    connection.answers(b"x" * (1 << 20) + b"\r\n")
    client.hears(b"x" * (2 << 20) + b"\r\n")


def test_an_unsent_blocking_command_does_not_outwait_its_patience_in_a_planned_change(play: Playbook) -> None:
    client = play.client()
    client.session.feed(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n", play.time)  # its lane is being opened
    play.topology(2, draining=("m:1", "r:1"), replicas=["r:1", "r:2"])
    play.wait(3600)
    client.hears_error("MASTERDOWN")


def test_the_time_of_a_blocking_command_passes_without_a_lease(play: Playbook) -> None:
    client = play.client()
    client.session.feed(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n1\r\n", play.time)
    lapse(play)
    play.wait(0.9)
    regain(play)
    play.server("m:1").hears("BLPOP", "k", "0.100", exclusive=True)


def test_a_defect_that_one_session_meets_with_a_new_lease_costs_the_others_nothing(
    play: Playbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = play.client().says("SUBSCRIBE", "c")
    own = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True)
    own.answers(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    client = play.client().says("INCR", "k")
    connection = play.server("m:1").hears("INCR", "k")
    lapse(play)
    own.answers(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n")
    connection.answers(b":1\r\n")
    monkeypatch.setattr(listener, "write", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        regain(play)
    play.router.resume(play.time)
    client.hears(b":1\r\n")


def test_a_transaction_that_met_the_end_of_a_lease_goes_on_with_the_next_one(play: Playbook) -> None:
    client = play.client().says("WATCH", "k")
    connection = play.server("m:1").hears("WATCH", "k", exclusive=True).answers(b"+OK\r\n")
    client.hears(b"+OK\r\n")
    lapse(play)
    client.says("MULTI").says("INCR", "k").says("EXEC")
    play.server("m:1").hears_nothing()
    regain(play)
    for command in (["MULTI"], ["INCR", "k"], ["EXEC"]):
        assert play.server("m:1").hears(*command, exclusive=True) is connection
    connection.answers(b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")
    client.hears(b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")


def test_what_was_queued_before_the_lease_ran_out_is_not_sent(play: Playbook) -> None:
    warm = play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    warm.hears(b":1\r\n")
    session = play.client().session
    session.feed(b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n", play.time)
    play.lease.revoke()
    play.server("m:1").hears_nothing()


def test_continue_means_to_go_on_without_a_lease() -> None:
    play = Playbook(Policy(leaseless=True))
    play.topology(1, master="m:1")
    lapse(play)
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k")


@pytest.mark.parametrize("durable", [None, Durability()])
def test_a_blocking_command_whose_reply_was_withheld_is_not_asked_again(durable: Durability | None) -> None:
    play = Playbook(Policy(durable=durable))
    play.topology(1, master="m:1", replicas=["r:1"])
    client = play.client().says("BLPOP", "queue", "0")
    own = play.server("m:1").hears("BLPOP", "queue", "0", exclusive=True)
    lapse(play)
    own.answers(b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n")  # taken from the one and only master
    play.wait(NEWS)
    regain(play)
    play.server("m:1").hears_nothing()
    client.hears_error("UNCERTAIN BLPOP")


def test_a_listener_that_was_choked_when_the_lease_came_back_is_read_for_again(play: Playbook) -> None:
    client = play.client().says("SUBSCRIBE", "c")
    own = play.server("m:1").hears("SUBSCRIBE", "c", exclusive=True)
    own.answers(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    client.session.choke(play.time, full=True)
    lapse(play)
    own.answers(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n")
    regain(play)
    client.session.choke(play.time, full=False)
    assert own.read


def reads_a_stream(play: Playbook, *, lapsed: bool) -> FakeClient:
    """A client that waits for a stream; if `lapsed`, for the second time, as the first reply could not be believed."""
    client = play.client().says("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
    own = play.server("m:1").hears("XREAD", "BLOCK", "0", "STREAMS", "s", "$", exclusive=True)
    if lapsed:
        lapse(play)
        own.answers(b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n")
        play.wait(NEWS)
        regain(play)
        client.hears_nothing()
        play.server("m:1").hears("XREAD", "BLOCK", "0", "STREAMS", "s", "$", exclusive=True)
    return client


@pytest.mark.parametrize("lapsed", [False, True])
def test_a_blocking_read_that_was_asked_again_does_not_hold_up_a_switchover(play: Playbook, *, lapsed: bool) -> None:
    reads_a_stream(play, lapsed=lapsed)
    play.topology(2, draining=("m:1", "r:1"))
    assert play.acknowledged[-1] == 2


@pytest.mark.parametrize("lapsed", [False, True])
def test_who_waits_for_a_stream_and_leaves_is_parted_with(play: Playbook, *, lapsed: bool) -> None:
    client = reads_a_stream(play, lapsed=lapsed)
    client.session.finish(play.time)
    assert client.closed


@pytest.mark.parametrize("lapsed", [False, True])
def test_wait_whose_barrier_was_withheld_does_not_hold_up_a_switchover(play: Playbook, *, lapsed: bool) -> None:
    play.client().says("WAIT", "1", "0")
    own = play.server("m:1").hears("SPUBLISH", "rfproxy:durable", "", exclusive=True)
    if lapsed:
        lapse(play)
    own.answers(b":0\r\n")
    if lapsed:
        regain(play)
    play.topology(2, draining=("m:1", "r:1"))
    assert play.acknowledged[-1] == 2


def test_a_job_behind_an_invalidation_is_not_asked_for_again(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    play.server("r:1").hears("HELLO", "3").answers(b"%1\r\n$5\r\nproto\r\n:3\r\n")
    client.output = b""
    client.says("CLIENT", "TRACKING", "ON")
    own = play.server("m:1").hears("CLIENT", "TRACKING", "ON", exclusive=True).answers(b"+OK\r\n")
    client.hears(b"+OK\r\n")
    client.says("BLPOP", "queue", "0")
    assert play.server("m:1").hears("BLPOP", "queue", "0", exclusive=True) is own
    lapse(play)
    own.answers(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nqueue\r\n*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n")
    play.wait(NEWS)
    regain(play)
    play.server("m:1").hears("CLIENT", "TRACKING", "ON", exclusive=True).answers(b"+OK\r\n")
    play.wait(1)
    play.server("m:1").hears_nothing()
    assert b"-UNCERTAIN BLPOP" in client.output
