"""Keys that are read on replicas count as used at a master that evicts by use."""

from __future__ import annotations

from math import inf

import pytest

from rfprotocol.resp.fast_path import COMPILED
from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.core.identity import Account, Identity
from rfproxy.core.policy import Policy, Reads
from rfproxy.maintenance import access_recency
from tests.support.playbook import FakeClient, FakeConnection, Playbook

VALUE = b"$1\r\nv\r\n"


def evicting(play: Playbook, policy: str = "allkeys-lru", epoch: int = 1) -> None:
    nodes = {"master": Node.parse("m:1"), "replicas": (Node.parse("r:1"),)}
    play.router.apply(Topology(epoch, Phase.SERVING, eviction=policy, **nodes), play.time)  # type: ignore[arg-type]  # two kinds of values
    play.settle()


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    evicting(play)
    return play


def read(play: Playbook, *words: str, client: FakeClient | None = None, reply: bytes = VALUE) -> None:
    (client or play.client()).says(*words)
    play.server("r:1").hears(*words).answers(reply)


def touched(play: Playbook) -> FakeConnection:
    """The period is over, and the master hears of the keys."""
    play.wait(access_recency.PERIOD)
    (connection,) = [one for one in play.server("m:1").live if one.commands and one.commands[0][0] == b"TOUCH"]
    return connection


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-lfu"])
def test_keys__read_on_replicas__touched_once_in_a_period(play: Playbook, policy: str) -> None:
    evicting(play, policy)
    client = play.client()
    for _ in range(3):
        read(play, "GET", "a", client=client)
    read(play, "MGET", "b", "c", reply=b"*2\r\n$1\r\nv\r\n$1\r\nv\r\n")
    connection = touched(play)
    assert connection.commands == [[b"TOUCH", b"a", b"b", b"c"]]
    connection.commands.clear()
    connection.answers(b":3\r\n")
    read(play, "GET", "a")
    assert touched(play).commands == [[b"TOUCH", b"a"]]
    assert play.router.stats.reads_touched == 4


def test_keys__read_in_a_pipeline__all_are_touched(play: Playbook) -> None:
    play.client().pipelines("GET a", "HGET b f", "PING")
    play.server("r:1").hears("GET", "a").answers(VALUE)
    assert touched(play).commands == [[b"TOUCH", b"a", b"b"]]


@pytest.mark.parametrize("policy", ["", "noeviction", "allkeys-random", "volatile-ttl"])
def test_policy__that_reads_do_not_matter_for__nothing_is_done(play: Playbook, policy: str) -> None:
    read(play, "GET", "a")
    touched(play).answers(b":1\r\n")
    evicting(play, policy)
    read(play, "GET", "a")
    assert all(lane.recency is None for lane in play.router.lanes)
    play.wait(10 * access_recency.PERIOD)
    assert not [one for one in play.server("m:1").live if len(one.commands) > 1]


def test_policy__changes__connections_that_stand_follow(play: Playbook) -> None:
    evicting(play, "")
    client = play.client()
    read(play, "GET", "a", client=client)
    evicting(play)
    read(play, "GET", "a", client=client)
    assert touched(play).commands == [[b"TOUCH", b"a"]]


@pytest.mark.parametrize("command", ["EXISTS a", "TTL a", "TYPE a", "PING"])
def test_reads__that_no_server_counts_as_use__are_not_counted(play: Playbook, command: str) -> None:
    read(play, *command.split(), reply=b":1\r\n")
    play.wait(2 * access_recency.PERIOD)
    assert not play.server("m:1").lanes


def test_reads__at_the_master__are_not_named_to_it() -> None:
    play = Playbook(Policy(reads=Reads.MASTER))
    evicting(play)
    play.client().says("GET", "a")
    play.server("m:1").hears("GET", "a").answers(VALUE)
    play.wait(2 * access_recency.PERIOD)
    play.server("m:1").hears_nothing()


def test_reads__very_many__those_beyond_the_limit_are_passed_over(play: Playbook) -> None:
    play.router.recency.most_looked = 6  # commands and keys
    client = play.client()
    for number in range(10):
        read(play, "GET", f"k{number}", client=client)
    assert touched(play).commands == [[b"TOUCH", b"k0", b"k1", b"k2"]]
    assert play.router.recency.room


def test_reads__of_very_many_keys_in_one_packet__are_bounded_as_well(play: Playbook) -> None:
    play.router.recency.most_looked = 8
    read(play, "MGET", *[f"k{number}" for number in range(20)], reply=b"*0\r\n")
    assert touched(play).commands == [[b"TOUCH", *[b"k%d" % number for number in range(8)]]]
    play.client().pipelines(*[f"GET p{number}" for number in range(20)])
    play.server("r:1").hears("GET", "p0")
    (connection,) = [one for one in play.server("m:1").live if one.commands]
    connection.answers(b":8\r\n").commands.clear()
    assert touched(play).commands == [[b"TOUCH", b"p0", b"p1", b"p2", b"p3"]]


def test_clients__of_both_protocols__are_told_of_together(play: Playbook) -> None:
    client = play.client().says("HELLO", "3")
    play.server("r:1").hears("HELLO", "3").answers(b"%1\r\n$5\r\nproto\r\n:3\r\n")
    read(play, "GET", "a", client=client)
    read(play, "GET", "b")
    assert touched(play).commands == [[b"TOUCH", b"a", b"b"]]


def test_keys__many__are_named_in_several_commands(play: Playbook) -> None:
    client = play.client()
    names = [f"k{number}" for number in range(access_recency.AT_ONCE + 1)]
    for name in names:
        read(play, "GET", name, client=client)
    first, second = touched(play).commands
    assert [first[1:], second[1:]] == [[name.encode() for name in names[:-1]], [names[-1].encode()]]


def test_databases__and_users__each_on_a_connection_of_its_own(play: Playbook) -> None:
    client = play.client().says("SELECT", "3")
    play.server("r:1").hears("SELECT", "3").answers(b"+OK\r\n")
    read(play, "GET", "a", client=client)
    read(play, "GET", "b")
    play.wait(access_recency.PERIOD)
    told = {one.lane.key.identity.db: one.commands for one in play.server("m:1").live if one.commands}
    assert told == {3: [[b"TOUCH", b"a"]], 0: [[b"TOUCH", b"b"]]}


def test_master__that_has_not_answered__is_not_told_more(play: Playbook) -> None:
    read(play, "GET", "a")
    connection = touched(play)
    read(play, "GET", "b")
    play.wait(access_recency.PERIOD)
    assert connection.commands == [[b"TOUCH", b"a"]]


def test_user__may_not_touch__the_proxys_own_account_does() -> None:
    play = Playbook(Policy(account=Account(b"proxy", b"pw")))
    evicting(play)
    client = play.client().says("AUTH", "app", "secret")
    play.server("m:1").hears("AUTH", "app", "secret").answers(b"+OK\r\n")
    read(play, "GET", "a", client=client)
    touched(play).answers(b"-NOPERM this user has no permissions to run the 'touch' command\r\n").commands.clear()
    read(play, "GET", "a", client=client)
    connection = touched(play)
    assert connection.lane.key.identity.account == Account(b"proxy", b"pw")
    connection.commands.clear()
    connection.answers(b"-NOPERM this user has no permissions to run the 'touch' command\r\n")
    (line,) = play.log.events("reads_not_touched")
    assert "--reads master" in str(line["error"])
    read(play, "GET", "a", client=client)
    play.wait(access_recency.REFUSED_FOR / 2)
    play.server("m:1").hears_nothing()


def test_connection__unused_for_long__is_closed(play: Playbook) -> None:
    read(play, "GET", "a")
    connection = touched(play)
    connection.answers(b":1\r\n").commands.clear()
    play.wait(access_recency.IDLE + 1)
    play.router.reap(play.time)
    assert connection.closed


def select(play: Playbook, db: int) -> FakeClient:
    """A client in this database."""
    client = play.client().says("SELECT", str(db))
    play.server("r:1").hears("SELECT", str(db)).answers(b"+OK\r\n")
    client.hears(b"+OK\r\n")
    return client


def test_key__read_in_two_databases_by_the_same_bytes__touched_in_both(play: Playbook) -> None:
    other = select(play, 3)
    for client in (play.client(), other):
        read(play, "GET", "a", client=client)
    play.wait(access_recency.PERIOD)
    told = {one.lane.key.identity.db: one.commands for one in play.server("m:1").live if one.commands}
    assert told == {0: [[b"TOUCH", b"a"]], 3: [[b"TOUCH", b"a"]]}


def test_connections__refused__are_tried_again_less_and_less_often(play: Playbook) -> None:
    master = play.server("m:1")
    clients = [play.client(), *(select(play, db) for db in range(1, access_recency.MOST_IDENTITIES))]
    master.full = True
    for second in range(20):
        for client in clients:
            read(play, "GET", f"k{second}", client=client)
        play.wait(access_recency.PERIOD)
    assert master.refused <= 6 * len(clients)
    master.full = False
    before = len(master.lanes)
    for second in range(20):
        for client in clients:
            read(play, "GET", f"l{second}", client=client)
        play.wait(access_recency.PERIOD)
    assert len(master.lanes) == before + len(clients)


def test_connections__refused_by_a_former_master__new_one_is_told_at_once(play: Playbook) -> None:
    play.server("m:1").full = True
    for number in range(10):
        read(play, "GET", f"k{number}")
        play.wait(access_recency.PERIOD)
    nodes = {"master": Node.parse("m:2"), "replicas": (Node.parse("r:1"),)}
    play.router.apply(Topology(2, Phase.SERVING, eviction="allkeys-lru", **nodes), play.time)  # type: ignore[arg-type]  # two kinds of values
    read(play, "GET", "a")
    play.wait(access_recency.PERIOD)
    play.server("m:2").hears("TOUCH", "a")


def test_packets__of_more_accounts_than_are_served__are_not_kept(play: Playbook) -> None:
    for db in range(100, 100 + access_recency.MOST_IDENTITIES):
        read(play, "GET", "a", client=select(play, db))
    client = select(play, 3)
    for number in range(3):
        word = f"{number}".rjust(60_000, "x")
        read(play, "GET", word, client=client)
    (lane,) = [one.lane for one in play.server("r:1").live if one.lane.key.identity.db == 3]
    assert isinstance(lane.recency, access_recency.Reads)
    assert not lane.recency.seen
    play.wait(access_recency.PERIOD)
    read(play, "GET", "b", client=client)
    assert len(lane.recency.seen) == 1, "the next period is another one"


def test_packets__long__are_not_looked_at(play: Playbook) -> None:
    names = [f"k{number}" for number in range(10_000)]
    read(play, "MGET", *names, reply=b"*0\r\n")
    read(play, "GET", "a")
    assert touched(play).commands == [[b"TOUCH", b"a"]]


@pytest.mark.skipif(COMPILED, reason="what a compiled function calls cannot be replaced")
@pytest.mark.parametrize("where", ["keys", "Identity"])
def test_defect__while_reads_are_noted_or_named__said_once_and_clients_are_served(
    play: Playbook, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(access_recency, where, fail)
    client = play.client()
    for number in range(3):
        read(play, "GET", f"k{number}", client=client)
        client.hears(VALUE)
        play.wait(access_recency.PERIOD)
    (line,) = play.log.events("defect")
    assert "reads on replicas are not named to the master any more" in str(line["error"])
    assert play.router.recency.due == inf, "it is not looked at again and again"
    play.server("m:1").hears_nothing()


def test_accounts__very_many__the_one_opened_longest_ago_is_forgotten(play: Playbook) -> None:
    all_of_them = play.router.recency
    first = all_of_them.reads_of(Identity(db=1))
    for db in range(2, access_recency.MOST_KNOWN + 2):
        all_of_them.reads_of(Identity(db=db))
    assert not first.room
    assert all_of_them.reads_of(Identity(db=1)) is not first
