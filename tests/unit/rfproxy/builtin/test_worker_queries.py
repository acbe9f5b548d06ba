"""CLIENT for the clients of all workers: two or three cores, joined in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfproxy.builtin import worker_queries
from tests.support.joined import Worker, join
from tests.support.playbook import FakeClient, FakeConnection

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
EMPTY = b"$0\r\n\r\n"
NOBODY = "9223372036854775807"


@pytest.fixture
def workers() -> list[Worker]:
    return join(3)


def asks(worker: Worker, client: FakeClient, words: str, question: str, reply: bytes) -> None:
    """The client says something, the server is asked something, and the other workers answer."""
    client.says(*words.split())
    worker.server("m:1").hears(*question.split()).answers(reply)
    worker.peers.hear()


def blocks(worker: Worker) -> tuple[FakeClient, int]:
    """A client with a blocking command on the server; the server's id of the connection."""
    client = worker.client().says("BLPOP", "q", "0")
    connection = worker.server("m:1").hears("BLPOP", "q", "0", exclusive=True)
    return client, connection.client_id


def waits(worker: Worker) -> FakeClient:
    """A client whose blocking command waits for a master."""
    client = worker.client()
    worker.topology(2)
    return client.says("BLPOP", "q", "0")


def ids(client: FakeClient) -> list[int]:
    """What CLIENT LIST has told the client."""
    output, client.output = client.output, b""
    head, body = output.split(b"\r\n", 1)
    assert head == b"$%d" % (len(body) - 2)
    return [int(line.split(b" ")[0].removeprefix(b"id=")) for line in body.strip().split(b"\n") if line]


def number(client: FakeClient) -> int:
    return client.session.number


# --- LIST


def test_list__several_workers__shows_the_clients_of_all(workers: list[Worker]) -> None:
    everyone = [worker.client() for worker in workers for _ in range(2)]
    asker = everyone[2]
    asks(workers[1], asker, "CLIENT LIST", f"CLIENT LIST ID {NOBODY}", EMPTY)
    assert ids(asker) == [number(client) for client in everyone]


def test_list__ids__asks_their_workers_alone_and_keeps_order(workers: list[Worker]) -> None:
    here, there, third = workers
    asker, far, near = here.client(), there.client(), here.client()
    third.frozen = True
    wanted = [number(far), number(near), number(far), number(far) + 1]
    asks(here, asker, f"CLIENT LIST ID {' '.join(map(str, wanted))}", f"CLIENT LIST ID {NOBODY}", EMPTY)
    assert ids(asker) == wanted[:3]


def test_list__own_ids__asks_nobody(workers: list[Worker]) -> None:
    here = workers[0]
    asker = here.client().says("CLIENT", "LIST", "ID", str(here.client().session.number))
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(EMPTY)
    assert not here.peers.asked
    assert ids(asker) == [4 + (1 << 31)]


def test_list__type__shows_that_type_of_all_workers(workers: list[Worker]) -> None:
    here, there, _ = workers
    asker, far = here.client(), there.client().says("SUBSCRIBE", "c")
    confirmation = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    there.server("m:1").hears("SUBSCRIBE", "c", exclusive=True).answers(confirmation)
    asks(here, asker, "CLIENT LIST TYPE pubsub", f"CLIENT LIST ID {NOBODY}", EMPTY)
    assert ids(asker) == [number(far)]


def test_list__name_of_any_bytes__arrives_as_it_is(workers: list[Worker]) -> None:
    here, there, _ = workers
    there.client().session.name = b"\xff~"
    asker = here.client()
    asks(here, asker, "CLIENT LIST", f"CLIENT LIST ID {NOBODY}", EMPTY)
    assert b" name=\xff~ " in asker.output


def test_list__silent_worker__shows_the_others(workers: list[Worker]) -> None:
    here, there, third = workers
    there.frozen = True
    asker, _, third_client = here.client(), there.client(), third.client()
    asks(here, asker, "CLIENT LIST", f"CLIENT LIST ID {NOBODY}", EMPTY)
    assert ids(asker) == [number(asker), number(third_client)]


def test_list__no_consent__asks_nobody(workers: list[Worker]) -> None:
    here = workers[0]
    error = b"-NOPERM this user has no permissions to run the 'client|list' command\r\n"
    client = here.client().says("CLIENT", "LIST")
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(error)
    client.hears(error)
    assert not here.peers.asked


def test_list__while_answers_are_out__nothing_overtakes_it(workers: list[Worker]) -> None:
    here = workers[0]
    client = here.client().says("CLIENT", "LIST")
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(EMPTY)
    client.says("GET", "k")
    client.hears_nothing()
    here.server("m:1").hears_nothing()
    here.peers.hear()
    assert ids(client) == [number(client)]
    here.server("m:1").hears("GET", "k").answers(b"$-1\r\n")
    client.hears(b"$-1\r\n")


def test_list__client_leaves_meanwhile__answers_are_dropped(workers: list[Worker]) -> None:
    here = workers[0]
    client = here.client().says("CLIENT", "LIST")
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(EMPTY)
    client.leaves()
    here.peers.hear()
    assert client.output == b""
    assert not here.log.events("defect")


def test_list__client_hangs_up_behind_it__is_still_answered(workers: list[Worker]) -> None:
    here = workers[0]
    client = here.client().says("CLIENT", "LIST")
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(EMPTY)
    client.session.finish(here.time)
    assert not client.closed
    here.peers.hear()
    assert ids(client) == [number(client)]
    assert client.closed


def test_list__server_dies_while_answers_are_out__is_answered_once(workers: list[Worker]) -> None:
    here = workers[0]
    client = here.client().says("CLIENT", "LIST")
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(EMPTY)
    here.server("m:1").dies()
    here.topology(2)
    here.peers.hear()
    assert ids(client) == [number(client)]


# --- LIST behind MULTI


def begins(worker: Worker, client: FakeClient) -> FakeConnection:
    """The client says MULTI, and is answered; returns the connection of its own."""
    client.says("MULTI")
    connection = worker.server("m:1").hears("MULTI", exclusive=True).answers(OK)
    client.hears(OK)
    return connection


def ids_at_exec(client: FakeClient) -> list[int]:
    """What EXEC answers to one CLIENT LIST."""
    assert client.output.startswith(QUEUED + b"*1\r\n")
    client.output = client.output.removeprefix(QUEUED + b"*1\r\n")
    return ids(client)


@pytest.mark.parametrize("pipelined", [False, True])
def test_list__behind_multi__shows_the_clients_of_all(workers: list[Worker], pipelined: bool) -> None:
    here = workers[0]
    everyone = [worker.client() for worker in workers]
    client = everyone[0]
    connection = begins(here, client)
    if pipelined:
        client.pipelines("CLIENT LIST", "EXEC")
    else:
        client.says("CLIENT", "LIST")
    here.server("m:1").hears_nothing()
    here.peers.hear()
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY, exclusive=True)
    connection.answers(QUEUED)
    if not pipelined:
        client.says("EXEC")
    here.server("m:1").hears("EXEC", exclusive=True)
    connection.answers(b"*1\r\n" + EMPTY)
    assert ids_at_exec(client) == [number(one) for one in everyone]


def test_list__behind_multi_and_connection_lost_meanwhile__is_queued_anew(workers: list[Worker]) -> None:
    here, there, third = workers
    client, far = here.client(), there.client()
    third.frozen = True
    connection = begins(here, client)
    client.pipelines("CLIENT LIST", "EXEC")
    connection.closed = True
    connection.lane.lose(here.time)
    here.peers.hear()
    here.wait(0.1)
    again = here.server("m:1").hears("MULTI", exclusive=True)
    here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY, exclusive=True)
    again.answers(OK + QUEUED)
    here.server("m:1").hears("EXEC", exclusive=True)
    again.answers(b"*1\r\n" + EMPTY)
    assert ids_at_exec(client) == [number(client), number(far)]


# --- KILL


def test_kill__id_of_another_worker__is_closed_there(workers: list[Worker]) -> None:
    here, there, third = workers
    third.frozen = True
    asker, far = here.client(), there.client()
    asks(here, asker, f"CLIENT KILL ID {number(far)}", f"CLIENT KILL ID {number(far)} ID {NOBODY}", b":0\r\n")
    asker.hears(b":1\r\n")
    assert far.closed
    assert there.log.events("client_killed") == [
        {"client": far.session.address, "by": asker.session.address, "epoch": 1}
    ]


def test_kill__address_of_another_worker__is_found(workers: list[Worker]) -> None:
    here, there, _ = workers
    asker, far = here.client(), there.client()
    asks(here, asker, f"CLIENT KILL {far.session.address}", f"CLIENT KILL ID {NOBODY}", b":0\r\n")
    asker.hears(OK)
    assert (far.closed, asker.closed) == (True, False)
    asks(here, asker, f"CLIENT KILL {far.session.address}", f"CLIENT KILL ID {NOBODY}", b":0\r\n")
    asker.hears(b"-ERR No such client\r\n")


def test_kill__type_normal__counts_all_workers_and_spares_the_caller(workers: list[Worker]) -> None:
    here = workers[0]
    asker = here.client()
    others = [worker.client() for worker in workers for _ in range(2)]
    asks(here, asker, "CLIENT KILL TYPE normal", f"CLIENT KILL TYPE normal ID {NOBODY}", b":0\r\n")
    asker.hears(b":6\r\n")
    assert all(client.closed for client in others)
    assert not asker.closed
    workers[1].client()
    asks(here, asker, "CLIENT KILL SKIPME no", f"CLIENT KILL SKIPME no ID {NOBODY}", b":0\r\n")
    asker.hears(b":2\r\n")
    assert asker.closed


def test_kill__caller_killed_by_another_worker__hears_nothing(workers: list[Worker]) -> None:
    here, there, _ = workers
    asker, far = here.client(), there.client()
    asker.says("CLIENT", "KILL", "TYPE", "normal")
    here.server("m:1").hears("CLIENT", "KILL", "TYPE", "normal", "ID", NOBODY).answers(b":0\r\n")
    asks(there, far, f"CLIENT KILL ID {number(asker)}", f"CLIENT KILL ID {number(asker)} ID {NOBODY}", b":0\r\n")
    here.peers.hear()
    assert asker.closed
    assert asker.output == b""


# --- UNBLOCK


@pytest.mark.parametrize("reason", ["", " ERROR", " TIMEOUT"])
def test_unblock__far_client__names_its_connection_to_the_server(workers: list[Worker], reason: str) -> None:
    here, there, _ = workers
    far, place = blocks(there)
    asker = here.client()
    asker.says(*f"CLIENT UNBLOCK {number(far)}{reason}".split())
    here.peers.hear()
    here.server("m:1").hears(*f"CLIENT UNBLOCK {place}{reason}".split()).answers(b":1\r\n")
    asker.hears(b":1\r\n")


def test_unblock__far_client_of_another_server_process__names_nobody(workers: list[Worker]) -> None:
    here, there, _ = workers
    far, _ = blocks(there)
    here.topology(2)
    here.topology(3, master="m:1")
    asker = here.client().says("CLIENT", "UNBLOCK", str(number(far)))
    here.peers.hear()
    here.server("m:1").hears("CLIENT", "UNBLOCK", NOBODY).answers(b":0\r\n")
    here.peers.hear()
    asker.hears(b":0\r\n")


def test_unblock__master_changes_meanwhile__far_client_is_located_anew(workers: list[Worker]) -> None:
    here, there, _ = workers
    far, place = blocks(there)
    asker = here.client().says("CLIENT", "UNBLOCK", str(number(far)))
    here.peers.hear()
    here.server("m:1").hears("CLIENT", "UNBLOCK", str(place))
    for worker in (here, there):
        worker.topology(2)
        worker.topology(3, master="n:1")
    again = there.server("n:1").hears("BLPOP", "q", "0", exclusive=True)
    assert again.lane.welcome is not None
    again.lane.welcome = replace(again.lane.welcome, client_id=7100)
    here.peers.hear()
    here.server("n:1").hears("CLIENT", "UNBLOCK", "7100").answers(b":1\r\n")
    asker.hears(b":1\r\n")


@pytest.mark.parametrize(
    ("reason", "heard"), [("TIMEOUT", b"*-1\r\n"), ("ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
)
def test_unblock__far_client_that_waits_for_a_master__is_answered_there(
    workers: list[Worker], reason: str, heard: bytes
) -> None:
    here, there, _ = workers
    far, asker = waits(there), here.client()
    asker.says("CLIENT", "UNBLOCK", str(number(far)), reason)
    here.peers.hear()
    here.server("m:1").hears("CLIENT", "UNBLOCK", NOBODY, reason).answers(b":0\r\n")
    here.peers.hear()
    asker.hears(b":1\r\n")
    far.hears(heard)


def test_unblock__far_client_that_is_not_blocked__is_0(workers: list[Worker]) -> None:
    here, there, _ = workers
    far, asker = there.client(), here.client()
    asker.says("CLIENT", "UNBLOCK", str(number(far)))
    here.peers.hear()
    asks_again = here.server("m:1").hears("CLIENT", "UNBLOCK", NOBODY)
    asks_again.answers(b":0\r\n")
    here.peers.hear()
    asker.hears(b":0\r\n")


def test_unblock__own_client__asks_nobody(workers: list[Worker]) -> None:
    here = workers[0]
    near, place = blocks(here)
    asker = here.client().says("CLIENT", "UNBLOCK", str(number(near)))
    here.server("m:1").hears("CLIENT", "UNBLOCK", str(place)).answers(b":1\r\n")
    asker.hears(b":1\r\n")
    assert not here.peers.asked


# --- PAUSE


def test_pause__one_worker__holds_all_until_unpause(workers: list[Worker]) -> None:
    here, there, _ = workers
    asker, far = here.client(), there.client()
    asker.says("CLIENT", "PAUSE", "60000", "WRITE")
    here.server("m:1").hears("CLIENT", "PAUSE", "60000", "WRITE").answers(OK)
    asker.hears_nothing()
    here.peers.hear()
    asker.hears(OK)
    far.says("INCR", "k")
    there.server("m:1").hears_nothing()
    asker.says("CLIENT", "UNPAUSE")
    here.server("m:1").hears("CLIENT", "UNPAUSE", exclusive=True).answers(OK)
    here.peers.hear()
    asker.hears(OK)
    there.server("m:1").hears("INCR", "k").answers(b":1\r\n")
    far.hears(b":1\r\n")


def test_pause__worker_that_starts_later__holds_its_clients_for_the_rest(workers: list[Worker]) -> None:
    here, _, late = workers
    asks(here, here.client(), "CLIENT PAUSE 60000 WRITE", "CLIENT PAUSE 60000 WRITE", OK)
    late.router.let_go(late.time)
    for worker in workers:
        worker.wait(59.0)
    worker_queries.join(late.router)
    late.peers.hear()
    late.client().says("INCR", "k")
    late.server("m:1").hears_nothing()
    late.wait(1.0)
    late.server("m:1").hears("INCR", "k")


# --- answers of other versions


@pytest.mark.parametrize(
    "question",
    [
        [],
        [b"WEATHER"],
        [b"LIST", b"TYPE", b"x"],
        [b"KILL", b"1"],
        [b"KILL", b"x", b"a:1", b"ID", b"1"],
        [b"KILL", b"1", b"a:1", b"NOVELTY", b"1"],
        [b"PLACE"],
        [b"PLACE", b"-"],
        [b"UNBLOCK", b"x"],
        [b"PAUSE", b"-1"],
    ],
)
def test_answer__question_that_makes_no_sense__is_none(workers: list[Worker], question: list[bytes]) -> None:
    assert worker_queries.answer(workers[0].router, question, 0.0) is None


@pytest.mark.parametrize("words", [[b"x"], [b"1", b"2"], []])
def test_kill__answer_that_makes_no_sense__is_not_counted(workers: list[Worker], words: list[bytes]) -> None:
    here = workers[0]
    here.peers.garbled = words
    asker = here.client()
    asks(here, asker, "CLIENT KILL TYPE pubsub", f"CLIENT KILL TYPE pubsub ID {NOBODY}", b":0\r\n")
    asker.hears(b":0\r\n")


@pytest.mark.parametrize("words", [[b"x", b"y"], [b"1"]])
def test_list__answer_that_makes_no_sense__is_left_out(workers: list[Worker], words: list[bytes]) -> None:
    here = workers[0]
    here.peers.garbled = words
    asker = here.client()
    asks(here, asker, "CLIENT LIST", f"CLIENT LIST ID {NOBODY}", EMPTY)
    assert ids(asker) == [number(asker)]
