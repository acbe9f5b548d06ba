"""CLIENT TRACKING ... REDIRECT to a client of another worker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfproxy.builtin import worker_queries
from rfproxy.pinned.remote_redirect import EXPIRES, MISSES, POLLED, RENEWED, FarTarget
from tests.support.joined import Worker, join, talk
from tests.support.playbook import FakeClient, FakeConnection

OK = b"+OK\r\n"
NOBODY = 9223372036854775807
NO_SUCH_CLIENT = b"-ERR The client ID you want redirect to does not exist\r\n"
SWITCHED = b"-ERR You can't switch BCAST mode on/off before disabling tracking for this client.\r\n"
INVALID = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
FORGET = b">2\r\n$10\r\ninvalidate\r\n$-1\r\n"
BROKEN = b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n"


@pytest.fixture
def workers() -> list[Worker]:
    return join(2)


def in_resp3(worker: Worker) -> FakeClient:
    client = worker.client()
    client.session.become(replace(client.session.identity, protocol=3))
    return client


def own(worker: Worker, client: FakeClient) -> FakeConnection:
    """The connection of a client's own at its server."""
    (connection,) = [
        c for server in ("m:1", "n:1") for c in worker.server(server).live if c.lane.guest is client.session
    ]
    return connection


def asks_to_redirect(worker: Worker, client: FakeClient, target: FakeClient) -> None:
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number))


def redirected(worker: Worker, number: int, server: str = "m:1") -> FakeConnection:
    """The server is told where invalidations go."""
    return worker.server(server).hears("CLIENT", "TRACKING", "ON", "REDIRECT", str(number), exclusive=True)


def redirect(workers: list[Worker], client: FakeClient, target: FakeClient) -> FakeConnection:
    """A client of the first worker has one of the second told; returns the connection of that one."""
    here, there = workers
    asks_to_redirect(here, client, target)
    talk(workers)
    connection = own(there, target)
    redirected(here, connection.client_id).answers(OK)
    client.hears(OK)
    return connection


def fail_over(worker: Worker) -> None:
    worker.topology(2)
    worker.topology(3, master="n:1")


def test_redirect__client_of_another_worker__is_given_a_connection_and_told_there(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), here.client()
    asks_to_redirect(here, client, target)
    here.server("m:1").hears_nothing()
    talk(workers)
    connection = own(there, target)
    redirected(here, connection.client_id).answers(OK)
    client.hears(OK)
    connection.answers(INVALID)
    target.hears(INVALID)
    client.says("CLIENT", "GETREDIR")
    here.server("m:1").hears("CLIENT", "GETREDIR", exclusive=True).answers(b":%d\r\n" % connection.client_id)
    client.hears(b":%d\r\n" % target.session.number)


def test_redirect__client_that_does_not_exist__is_the_servers_to_refuse(workers: list[Worker]) -> None:
    here, there = workers
    client, target = here.client(), there.client()
    target.leaves()
    for _ in range(2):
        asks_to_redirect(here, client, target)
        talk(workers)
        redirected(here, NOBODY).answers(NO_SUCH_CLIENT)
        client.hears(NO_SUCH_CLIENT)
    assert not here.router.far_targets


def test_redirect__refused_again_and_again__leaves_nothing_behind(workers: list[Worker]) -> None:
    here, there = workers
    client = here.client().says("CLIENT", "NO-TOUCH", "ON")
    here.server("m:1").hears("CLIENT", "NO-TOUCH", "ON", exclusive=True).answers(OK)
    client.hears(OK)
    for _ in range(5):
        target = there.client()
        target.leaves()
        asks_to_redirect(here, client, target)
        talk(workers)
        redirected(here, NOBODY).answers(NO_SUCH_CLIENT)
        client.hears(NO_SUCH_CLIENT)
    assert client.session.ties is not None
    assert not client.session.ties.targets


def test_redirect__server_refuses_it__others_need_no_connection_for_it(workers: list[Worker]) -> None:
    here, there = workers
    client = here.client().says("CLIENT", "TRACKING", "ON", "BCAST")
    here.server("m:1").hears("CLIENT", "TRACKING", "ON", "BCAST", exclusive=True).answers(OK)
    client.hears(OK)
    for worker in (here, there):
        for target in [worker.client() for _ in range(5)]:
            asks_to_redirect(here, client, target)
            talk(workers)
            redirected(here, own(worker, target).client_id).answers(SWITCHED)
            client.hears(SWITCHED)
            talk(workers)
        live = [connection for connection in worker.server("m:1").live if connection.lane.guest is not None]
        assert len(live) == (worker is here)


def test_redirect__frozen_worker__is_refused_and_hangs_nobody(workers: list[Worker]) -> None:
    here, there = workers
    client, target = here.client(), there.client()
    there.frozen = True
    asks_to_redirect(here, client, target)
    talk(workers)
    redirected(here, NOBODY).answers(NO_SUCH_CLIENT)
    client.hears(NO_SUCH_CLIENT)


def test_redirect__blocked_target__waits_until_it_is_free(workers: list[Worker]) -> None:
    here, there = workers
    client, target = here.client(), there.client().says("BLPOP", "q", "0")
    blocked = there.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    asks_to_redirect(here, client, target)
    talk(workers)
    here.server("m:1").hears_nothing()
    blocked.answers(b"*-1\r\n")
    talk(workers)
    redirected(here, blocked.client_id).answers(OK)
    client.hears(OK)


def test_redirect__worker_dies_while_target_is_blocked__is_refused_soon(workers: list[Worker]) -> None:
    here, there = workers
    client, target = here.client(), there.client().says("BLPOP", "q", "0")
    there.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    asks_to_redirect(here, client, target)
    talk(workers)
    for _ in range(3):
        here.wait(POLLED)
        assert len(here.peers.asked) == 1
        talk(workers)
    here.server("m:1").hears_nothing()
    there.frozen = True
    here.wait(POLLED)
    talk(workers)
    redirected(here, NOBODY).answers(NO_SUCH_CLIENT)
    client.hears(NO_SUCH_CLIENT)
    here.wait(2 * POLLED)
    assert not here.peers.asked


def test_redirect__syntax_error__asks_nobody(workers: list[Worker]) -> None:
    here, there = workers
    client, target = here.client(), there.client()
    client.says("CLIENT", "TRACKING", "ON", "REDIRECT", str(target.session.number), "PREFIX", "a")
    client.hears(b"-ERR PREFIX option requires BCAST mode to be enabled\r\n")
    assert not here.peers.asked
    assert not here.router.far_targets


@pytest.mark.parametrize("first", [0, 1])
def test_failover__whoever_learns_first__redirection_is_restored(workers: list[Worker], first: int) -> None:
    here, there = workers
    target, client = in_resp3(there), here.client()
    redirect(workers, client, target)
    for worker in (workers[first], workers[1 - first]):
        fail_over(worker)
        talk(workers)
    redirected(here, own(there, target).client_id, "n:1").answers(OK)
    assert target.output.startswith(FORGET), "what changed meanwhile nobody can tell"
    client.hears_nothing()


def test_target__new_connection__is_told_to_the_server_and_forgets_all(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), here.client()
    connection = redirect(workers, client, target)
    connection.closed = True
    connection.lane.lose(there.time)
    there.wait(1.0)
    talk(workers)
    again = own(there, target)
    assert again.client_id != connection.client_id
    here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    redirected(here, again.client_id)
    talk(workers)
    target.hears(FORGET)


def test_target__news_lost__are_heard_at_the_next_renewal(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), here.client()
    connection = redirect(workers, client, target)
    here.frozen = True
    connection.closed = True
    connection.lane.lose(there.time)
    there.wait(1.0)
    talk(workers)
    here.server("m:1").hears_nothing()
    here.frozen = False
    here.router.reap(here.time)
    talk(workers)
    here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    redirected(here, own(there, target).client_id)


def test_target__left__breaks_the_redirection_as_on_redis(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), in_resp3(here)
    connection = redirect(workers, client, target)
    number = target.session.number
    target.leaves()
    talk(workers)
    client.hears_nothing()
    own(here, client).answers(BROKEN % connection.client_id)
    client.hears(BROKEN % number)
    assert not here.router.far_targets


def test_target__server_says_first_that_it_left__client_hears_of_it_once(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), in_resp3(here)
    connection = redirect(workers, client, target)
    number = target.session.number
    here.frozen = True
    target.leaves()
    talk(workers)
    here.frozen = False
    own(here, client).answers(BROKEN % connection.client_id)
    client.hears_nothing()
    talk(workers)
    client.hears(BROKEN % number)
    assert not here.router.far_targets


def test_target__reset__is_still_there(workers: list[Worker]) -> None:
    here, there = workers
    target, client = there.client(), here.client()
    connection = redirect(workers, client, target)
    target.says("RESET").hears(b"+RESET\r\n")
    assert connection.closed
    talk(workers)
    here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    redirected(here, own(there, target).client_id).answers(OK + OK)
    client.hears_nothing()


@pytest.mark.parametrize("protocol", [2, 3])
def test_target__worker_that_stops_answering__is_given_up_and_tracker_told(
    workers: list[Worker], protocol: int
) -> None:
    here, there = workers
    target, client = there.client(), in_resp3(here) if protocol == 3 else here.client()
    redirect(workers, client, target)
    there.frozen = True
    for _ in range(MISSES):
        assert here.router.far_targets
        client.hears_nothing()
        here.router.reap(here.time)
        talk(workers)
    assert not here.router.far_targets
    client.hears(BROKEN % target.session.number if protocol == 3 else b"")
    assert client.closed == (protocol == 2)


def test_failover__target_cannot_be_told_to_forget__tracker_is_closed(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), here.client()
    redirect(workers, client, target)
    there.frozen = True
    fail_over(here)
    talk(workers)
    assert client.closed
    assert here.log.events("client_error")


def test_target__moves_while_it_is_asked_for__newest_counts(workers: list[Worker]) -> None:
    here, there = workers
    target, client = there.client(), here.client()
    connection = redirect(workers, client, target)
    (far,) = here.router.far_targets.values()
    assert isinstance(far, FarTarget)
    far.renew()
    far.moved([here.router.process.encode(), b"8001"], here.time)
    here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    redirected(here, 8001).answers(OK + OK)
    here.peers.hear()
    assert far.place is not None
    assert far.place.number != b"%d" % connection.client_id
    here.server("m:1").hears_nothing()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("has_left", [False, True])
def test_target__gone_from_where_the_server_is_told__tracker_stays(
    workers: list[Worker], protocol: int, has_left: bool
) -> None:
    here, there = workers
    target, client = in_resp3(there), in_resp3(here) if protocol == 3 else here.client()
    connection = redirect(workers, client, target)
    (far,) = here.router.far_targets.values()
    assert isinstance(far, FarTarget)
    far.moved([here.router.process.encode(), b"8001"], here.time)
    here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    there.frozen = has_left
    if has_left:
        target.leaves()
    restored = redirected(here, 8001).answers(OK + NO_SUCH_CLIENT)
    here.server("m:1").hears_nothing()
    there.frozen = False
    talk(workers)
    if not has_left:
        here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
        redirected(here, connection.client_id).answers(OK + OK)
    client.hears(BROKEN % target.session.number if has_left and protocol == 3 else b"")
    assert not client.closed
    client.says("GET", "k")
    assert here.server("m:1").hears("GET", "k", exclusive=True) is restored


def test_target__server_never_knows_it__tracker_is_closed(workers: list[Worker]) -> None:
    here, there = workers
    target, client = in_resp3(there), here.client()
    connection = redirect(workers, client, target)
    fail_over(here)
    fail_over(there)
    talk(workers)
    place = own(there, target).client_id
    redirected(here, place, "n:1").answers(NO_SUCH_CLIENT)
    talk(workers)
    here.server("n:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True)
    redirected(here, place, "n:1").answers(OK + NO_SUCH_CLIENT)
    assert client.closed
    assert connection.closed


def test_news__one_after_the_other__last_is_the_last_to_arrive(workers: list[Worker]) -> None:
    here, there = workers
    target, client = there.client(), here.client()
    connection = redirect(workers, client, target)
    connection.closed = True
    connection.lane.lose(there.time)
    there.settle()
    target.leaves()
    assert len(there.peers.asked) == 1
    talk(workers)
    assert not here.router.far_targets


@pytest.mark.parametrize("ends", ["leaves", "stops"])
def test_tracker__needs_it_no_more__target_is_free(workers: list[Worker], ends: str) -> None:
    here, there = workers
    target, client = there.client(), here.client()
    connection = redirect(workers, client, target)
    if ends == "leaves":
        client.leaves()
    else:
        client.says("CLIENT", "TRACKING", "OFF")
        here.server("m:1").hears("CLIENT", "TRACKING", "OFF", exclusive=True).answers(OK)
    talk(workers)
    assert connection.closed
    assert target.session.ties is None
    assert not here.router.far_targets


def test_tracker__leaves_while_it_waits__target_is_free(workers: list[Worker]) -> None:
    here, there = workers
    target, client = there.client(), here.client()
    asks_to_redirect(here, client, target)
    client.leaves()
    talk(workers)
    assert target.session.ties is None
    assert not here.router.far_targets


def test_tracker__worker_died__target_is_released_after_some_time(workers: list[Worker]) -> None:
    here, there = workers
    target, client = there.client(), here.client()
    redirect(workers, client, target)
    here.frozen = True
    there.wait(EXPIRES)
    there.router.reap(there.time)
    assert target.session.ties is not None
    there.wait(RENEWED)
    there.router.reap(there.time)
    assert target.session.ties is None


def test_two_trackers__one_leaves__target_is_kept_for_the_other(workers: list[Worker]) -> None:
    here, there = workers
    target, first, second = there.client(), here.client(), here.client()
    connection = redirect(workers, first, target)
    asks_to_redirect(here, second, target)
    redirected(here, connection.client_id).answers(OK)
    second.hears(OK)
    first.leaves()
    talk(workers)
    assert not connection.closed


@pytest.mark.parametrize(
    "question",
    [
        [b"REACH"],
        [b"REACH", b"x", b"1"],
        [b"LEAVE", b"1"],
        [b"FORGET", b"1", b"-"],
        [b"MOVED"],
        [b"MOVED", *[b"1"] * 4],
    ],
)
def test_answer__question_that_makes_no_sense__is_none(workers: list[Worker], question: list[bytes]) -> None:
    assert worker_queries.answer(workers[0].router, question, 0.0) is None
    harmless = [*question[:1], b"1", b"2"]
    assert worker_queries.answer(workers[0].router, harmless, 0.0) == []
