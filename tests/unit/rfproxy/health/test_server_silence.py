"""What becomes of reads whose server falls silent, and what the managers are told of servers that are busy."""

from __future__ import annotations

import pytest

from rfprotocol.network.tcp_info import TcpInfo
from rfprotocol.resp.command_table import Command, lookup
from rfprotocol.resp.fast_path import COMPILED
from rfproxy.core.policy import Policy, Reads
from rfproxy.health import server_silence
from rfproxy.health.server_silence import (
    BUSY_AFTER,
    HEAVY,
    LISTEN_EVERY,
    MOST_READ,
    MOST_SAMPLED,
    READ_TOGETHER,
    SILENT,
    TOLD_FOR,
    UNREACHABLE,
)
from rfproxy.upstream.connection import Lane
from tests.support.playbook import FakeClient, FakeConnection, Playbook

NIL = b"$-1\r\n"
ONE = b":1\r\n"
GONE = TcpInfo(unacked=1, last_sent=LISTEN_EVERY, last_acked=3600.0, last_received=3600.0)
"""What the kernel says of a connection at the first look, when the other host is gone."""


@pytest.fixture
def play() -> Playbook:
    play = Playbook()
    play.topology(1, master="m:1", replicas=["r:1", "r:2"])
    return play


def asked(play: Playbook, *command: str, server: str = "r:1", gone: bool = False) -> FakeClient:
    """A client whose command is unanswered at a server."""
    client = play.client().says(*command)
    play.server(server).hears(*command)
    play.server(server).silent = True
    if gone:
        play.server(server).kernel = GONE
    return client


def other_reader(play: Playbook) -> FakeClient:
    """A client that would read from the first replica."""
    play.client()
    return play.client()


class TestReads:
    def test_silence__host_gone__read_goes_to_other_replica(self, play: Playbook) -> None:
        client = asked(play, "GET", "k", gone=True)
        play.listen(UNREACHABLE + 2 * LISTEN_EVERY)
        play.server("r:2").hears("GET", "k").answers(NIL)
        client.hears(NIL)
        assert play.server("r:1").lanes[0].closed

    def test_silence__host_gone__heavy_read_goes_too(self, play: Playbook) -> None:
        asked(play, "HGETALL", "k", gone=True)
        play.listen(UNREACHABLE + 2 * LISTEN_EVERY)
        play.server("r:2").hears("HGETALL", "k")

    def test_silence__kernel_acknowledges__waits_a_second(self, play: Playbook) -> None:
        client = asked(play, "GET", "k")
        play.server("r:1").kernel = TcpInfo()
        play.listen(SILENT - LISTEN_EVERY)
        play.server("r:2").hears_nothing()
        play.listen(2 * LISTEN_EVERY)
        play.server("r:2").hears("GET", "k", exclusive=True).answers(NIL)
        client.hears(NIL)

    def test_silence__no_other_replica__read_goes_to_master(self, play: Playbook) -> None:
        play.topology(2, master="m:1", replicas=["r:1"])
        client = asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("m:1").hears("GET", "k", exclusive=True).answers(NIL)
        client.hears(NIL)

    @pytest.mark.parametrize(("command", "patience"), [("GET", SILENT), ("HGETALL", HEAVY)])
    def test_silence__replica_was_delisted__read_moves(self, play: Playbook, command: str, patience: float) -> None:
        client = asked(play, command, "k")
        play.listen(SILENT / 2)
        play.topology(2, master="m:1", replicas=["r:2"])
        play.listen(patience)
        play.server("r:2").hears(command, "k", exclusive=True).answers(NIL)
        client.hears(NIL)
        play.listen(HEAVY)
        assert not play.server("r:1").live

    def test_silence__second_server_is_delisted__read_is_answered(self, play: Playbook) -> None:
        client = asked(play, "GET", "k")
        play.listen(SILENT + 2 * LISTEN_EVERY)
        play.server("r:2").hears("GET", "k", exclusive=True)
        play.server("r:2").silent = True
        play.listen(2 * HEAVY)
        client.hears_nothing()
        play.topology(2, master="m:1")
        play.listen(LISTEN_EVERY)
        client.hears_error("ERR rfproxy: GET was sent to 2 servers")

    def test_silence__no_other_server__read_waits_where_it_is(self, play: Playbook) -> None:
        play.topology(2, replicas=["r:1"])
        client = asked(play, "GET", "k", gone=True)
        connection = play.server("r:1").live[0]
        play.listen(2 * HEAVY)
        assert not connection.closed
        connection.answers(NIL)
        client.hears(NIL)

    def test_silence__late_reply__dropped(self, play: Playbook) -> None:
        client = asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("r:2").hears("GET", "k", exclusive=True).answers(b"$3\r\nnew\r\n")
        client.hears(b"$3\r\nnew\r\n")
        play.server("r:1").live[0].answers(b"$3\r\nold\r\n")
        client.hears_nothing()

    def test_silence__pipeline_answered_in_part__rest_moves(self, play: Playbook) -> None:
        client = play.client().pipelines("GET a", "GET b", "GET c")
        connection = play.server("r:1").hears("GET", "a").answers(b"$1\r\na\r\n")
        client.hears(b"$1\r\na\r\n")
        play.server("r:1").silent = True
        play.listen(SILENT + 2 * LISTEN_EVERY)
        play.server("r:2").hears("GET", "b", exclusive=True)
        play.server("r:2").hears("GET", "c", exclusive=True).answers(b"$1\r\nb\r\n$1\r\nc\r\n")
        client.hears(b"$1\r\nb\r\n$1\r\nc\r\n")
        connection.answers(b"$1\r\nB\r\n$1\r\nC\r\n")
        client.says("GET", "d")
        play.server("r:1").hears("GET", "b")
        play.server("r:1").hears("GET", "c")
        live = [*play.server("r:1").live, *play.server("r:2").live]  # it depends on when the first one is tried again
        (reader,) = [connection for connection in live if connection.commands == [[b"GET", b"d"]]]
        reader.answers(NIL)
        client.hears(NIL)

    def test_silence__second_server_silent_too__asked_once_more(self, play: Playbook) -> None:
        asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("r:2").hears("GET", "k", exclusive=True)
        play.listen(SILENT + LISTEN_EVERY)
        play.server("m:1").hears_nothing()

    def test_silence__read_moved_and_second_server_ends__answered(self, play: Playbook) -> None:
        """A server that dies of it writes a report first, for longer than it may be silent."""
        client = asked(play, "MGET", "big", "big")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("r:2").hears("MGET", "big", "big", exclusive=True)
        play.server("r:2").dies()
        play.wait(0.5)
        play.server("m:1").hears_nothing()
        client.hears_error("ERR rfproxy: MGET was sent to 2 servers")

    def test_silence__proxy_stood_still__not_counted(self, play: Playbook) -> None:
        client = asked(play, "GET", "k")
        play.wait(10 * SILENT)
        play.listen(2 * LISTEN_EVERY)
        play.server("r:2").hears_nothing()
        play.server("r:1").live[0].answers(NIL)
        client.hears(NIL)

    def test_silence__replica__passed_over_by_others(self, play: Playbook) -> None:
        asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("r:2").hears("GET", "k", exclusive=True)
        other_reader(play).says("GET", "other")
        play.server("r:2").hears("GET", "other")

    def test_silence__replica_replies__read_from_again(self, play: Playbook) -> None:
        asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("r:1").live[0].answers(NIL)
        play.listen(LISTEN_EVERY)
        other_reader(play).says("GET", "other")
        play.server("r:1").hears("GET", "other")

    def test_silence__new_topology__still_passed_over(self, play: Playbook) -> None:
        asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.topology(2, master="m:1", replicas=["r:1", "r:2"])
        play.server("r:2").hears("GET", "k", exclusive=True)
        other_reader(play).says("GET", "other")
        play.server("r:2").hears("GET", "other")

    def test_silence__host_back__tried_without_a_client(self, play: Playbook) -> None:
        asked(play, "GET", "k", gone=True)
        play.listen(1.0)
        play.server("r:2").hears("GET", "k").answers(NIL)
        assert [str(node) for node in play.router.silent] == ["r:1"]
        play.server("r:1").silent, play.server("r:1").kernel = False, None
        for connection in play.server("r:1").live:
            connection.lane.greeting_overdue(play.time)
        play.listen(3.0)
        assert not play.router.silent
        other_reader(play).says("GET", "other")
        play.server("r:1").hears("GET", "other")

    def test_silence__connection_not_accepted__next_reader_does_not_wait(self, play: Playbook) -> None:
        play.server("r:1").silent = True
        client = play.client().says("GET", "k")
        play.server("r:1").live[0].lane.unanswered(play.time, "no answer")
        play.server("r:2").hears("GET", "k").answers(NIL)
        client.hears(NIL)
        play.wait(1.0)
        client.says("GET", "k")
        play.server("r:2").hears("GET", "k")


class TestMaster:
    def test_silence__reads_alone_on_master__go_to_replica(self, play: Playbook) -> None:
        client = play.client().says("SET", "k", "v").says("GET", "k")
        play.server("m:1").hears("SET", "k", "v").answers(b"+OK\r\n")
        play.server("m:1").hears("GET", "k")
        client.hears(b"+OK\r\n")
        play.listen(SILENT + 2 * LISTEN_EVERY)
        play.server("r:1").hears("GET", "k", exclusive=True).answers(NIL)
        client.hears(NIL)

    def test_silence__reads_behind_own_write__wait(self, play: Playbook) -> None:
        client = play.client().pipelines("SET k v", "GET k")
        connection = play.server("m:1").hears("SET", "k", "v")
        play.server("m:1").kernel = GONE
        play.listen(HEAVY + 1)
        play.server("r:1").hears_nothing()
        assert not connection.closed
        connection.answers(b"+OK\r\n" + NIL)
        client.hears(b"+OK\r\n" + NIL)

    def test_silence__reads_of_the_master_asked_for__wait(self) -> None:
        play = Playbook(Policy(reads=Reads.MASTER))
        play.topology(1, master="m:1", replicas=["r:1"])
        asked(play, "GET", "k", server="m:1", gone=True)
        play.listen(HEAVY + 1)
        play.server("r:1").hears_nothing()


class TestHeavyReads:
    def test_silence__heavy_read__stays_for_its_patience(self, play: Playbook) -> None:
        client = asked(play, "SMEMBERS", "k")
        play.listen(HEAVY - LISTEN_EVERY)
        play.server("r:2").hears_nothing()
        play.server("r:1").live[0].answers(b"*0\r\n")
        client.hears(b"*0\r\n")

    def test_silence__heavy_read__moves_when_patience_is_over(self, play: Playbook) -> None:
        asked(play, "SMEMBERS", "k")
        play.listen(HEAVY + LISTEN_EVERY)
        play.server("r:2").hears("SMEMBERS", "k", exclusive=True)

    def test_silence__light_read_behind_heavy__moves(self, play: Playbook) -> None:
        heavy = asked(play, "SMEMBERS", "k")
        play.client()
        light = asked(play, "GET", "k")
        play.listen(SILENT + LISTEN_EVERY)
        play.server("r:2").hears("GET", "k").answers(NIL)
        light.hears(NIL)
        play.server("r:1").live[0].answers(b"*0\r\n" + NIL)
        heavy.hears(b"*0\r\n")
        light.hears_nothing()


class TestBusy:
    @pytest.mark.parametrize("command", ["FLUSHALL", "DEL k", "KEYS *"])
    def test_busy__long_command_silent__told_once_and_when_over(self, play: Playbook, command: str) -> None:
        server = "r:1" if command == "KEYS *" else "m:1"
        asked(play, *command.split(), server=server)
        play.listen(BUSY_AFTER - LISTEN_EVERY)
        assert play.told_busy == []
        play.listen(2 * LISTEN_EVERY)
        assert play.told_busy == [{server: command.partition(" ")[0]}]
        play.listen(2.0)
        assert len(play.told_busy) == 1
        play.server(server).live[0].answers(b"+OK\r\n")
        play.listen(LISTEN_EVERY)
        assert play.told_busy[1:] == [{}]

    def test_busy__one_long_command_after_the_other__told_rarely(self, play: Playbook) -> None:
        client = play.client()
        for _ in range(10):
            client.says("FLUSHALL")
            connection = play.server("m:1").hears("FLUSHALL")
            play.listen(BUSY_AFTER + LISTEN_EVERY)
            connection.answers(b"+OK\r\n")
            play.listen(LISTEN_EVERY)
        assert len(play.told_busy) <= 10
        play.listen(TOLD_FOR)
        assert play.told_busy[-1] == {}

    def test_busy__script_on_connection_of_its_own__told(self, play: Playbook) -> None:
        play.client().says("EVAL", "while 1 do end", "0")
        play.server("m:1").hears("EVAL", "while 1 do end", "0", exclusive=True)
        play.listen(BUSY_AFTER + LISTEN_EVERY)
        assert play.told_busy == [{"m:1": "EVAL"}]

    def test_busy__transaction_of_a_long_command__told(self, play: Playbook) -> None:
        client = play.client().says("MULTI").says("FLUSHALL")
        play.server("m:1").hears("MULTI", exclusive=True).answers(b"+OK\r\n+QUEUED\r\n")
        client.says("EXEC")
        play.listen(BUSY_AFTER + LISTEN_EVERY)
        assert play.told_busy == [{"m:1": "FLUSHALL"}]

    def test_busy__long_command_just_behind_another__told(self, play: Playbook) -> None:
        asked(play, "INCR", "k", server="m:1")
        play.wait(READ_TOGETHER / 2)
        asked(play, "FLUSHALL", server="m:1")
        play.listen(BUSY_AFTER + 2 * LISTEN_EVERY)
        assert play.told_busy == [{"m:1": "FLUSHALL"}]

    def test_busy__long_command_sent_to_frozen_server__not_told(self, play: Playbook) -> None:
        asked(play, "INCR", "k", server="m:1")
        play.wait(2 * READ_TOGETHER)
        asked(play, "FLUSHALL", server="m:1")
        play.listen(2 * HEAVY)
        assert play.told_busy == []

    def test_busy__client_left__still_true(self, play: Playbook) -> None:
        client = play.client().says("EVAL", "x", "0")
        play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
        play.listen(BUSY_AFTER + LISTEN_EVERY)
        client.leaves()
        play.listen(1.0)
        assert play.told_busy == [{"m:1": "EVAL"}]
        play.listen(HEAVY)
        assert play.told_busy[1:] == [{}]

    def test_busy__light_command_silent__not_told(self, play: Playbook) -> None:
        asked(play, "INCR", "k", server="m:1")
        play.listen(2 * HEAVY)
        assert play.told_busy == []

    def test_busy__server_answers_others__not_told(self, play: Playbook) -> None:
        play.client().says("EVAL", "x", "0")
        play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
        client = play.client()
        for _ in range(10):
            client.says("INCR", "k")
            play.server("m:1").hears("INCR", "k").answers(ONE)
            play.listen(LISTEN_EVERY)
        assert play.told_busy == []

    def test_busy__blocked_client__not_told(self, play: Playbook) -> None:
        play.client().says("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
        play.listen(1.0)
        assert play.told_busy == []

    def test_busy__host_gone__not_told(self, play: Playbook) -> None:
        asked(play, "FLUSHALL", server="m:1")
        play.server("m:1").kernel = TcpInfo(unacked=1, last_sent=1.0, last_acked=3600.0, last_received=3600.0)
        play.listen(UNREACHABLE + LISTEN_EVERY)
        play.listen(1.0)
        assert play.told_busy[-1:] in ([], [{}])

    def test_busy__several_servers__told_of_each(self, play: Playbook) -> None:
        asked(play, "FLUSHALL", server="m:1")
        asked(play, "KEYS", "*")
        play.listen(BUSY_AFTER + LISTEN_EVERY)
        assert play.told_busy == [{"m:1": "FLUSHALL", "r:1": "KEYS"}]


def test_look__nothing_unanswered__not_needed_again(play: Playbook) -> None:
    assert not play.router.watch.look(play.time)
    asked(play, "GET", "k")
    assert play.router.watch.look(play.time)


class TestCost:
    """Of looks at a server on which many clients wait."""

    @pytest.mark.skipif(COMPILED, reason="what a compiled function calls cannot be replaced to count it")
    def test_busy__many_commands_in_flight__each_is_read_once(
        self, play: Playbook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = 0

        def counted(args: list[bytes]) -> Command:
            nonlocal read
            read += 1
            return lookup(args)

        monkeypatch.setattr(server_silence, "lookup", counted)
        play.client().says("SET", "k", "v")
        connection = play.server("m:1").hears("SET", "k", "v").answers(b"+OK\r\n")
        clients = [play.client() for _ in range(40)]
        for client in clients:
            client.session.feed(b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n" * 200, play.time)
        play.settle()
        assert len(connection.commands) == 8000 > MOST_READ
        for _ in range(50):
            before = read
            play.listen(LISTEN_EVERY)
            assert read - before <= MOST_READ
        assert read == 8000

    def test_busy__long_command_behind_many__told(self, play: Playbook) -> None:
        play.client().says("SET", "k", "v")
        play.server("m:1").hears("SET", "k", "v").answers(b"+OK\r\n")
        for _ in range(40):
            play.client().session.feed(b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n" * 200, play.time)
        play.client().session.feed(b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n", play.time)
        play.settle()
        play.listen(BUSY_AFTER + 4 * LISTEN_EVERY)
        assert play.told_busy == [{"m:1": "DEL"}]

    def test_kernel__asked_about_some__holds_for_all(self) -> None:
        play = Counting()
        play.topology(1, master="m:1", replicas=["r:1", "r:2"])
        for client in [play.client() for _ in range(3 * MOST_SAMPLED)]:
            client.says("MULTI").says("DEL", "k").says("EXEC")
        play.settle()
        assert sum(lane.awaits_reply for lane in play.router.lanes) == 3 * MOST_SAMPLED
        play.server("m:1").kernel = GONE
        for _ in range(20):
            play.kernels = 0
            play.listen(LISTEN_EVERY)
            assert play.kernels <= MOST_SAMPLED
        assert not play.router.watch.busy


class Counting(Playbook):
    """Counts how often the kernel is asked about a connection."""

    kernels = 0

    def kernel(self, lane: Lane) -> TcpInfo | None:
        self.kernels += 1
        return super().kernel(lane)


def ends(play: Playbook, connection: FakeConnection) -> None:
    """A server ends one of its connections."""
    connection.closed = True
    connection.lane.lose(play.time)
    play.settle()


def test_silence__replica_ended_a_connection_and_froze__read_on_an_idle_one_goes_elsewhere(play: Playbook) -> None:
    reader = other_reader(play)
    big = " ".join(["MGET"] + [f"{'k' * 1000}{number}" for number in range(1100)])
    reader.pipelines(big)
    play.server("r:1").hears(*big.split(), exclusive=True).answers(b"*0\r\n")
    reader.hears(b"*0\r\n")
    reader.says("GET", "a")
    shared = play.server("r:1").hears("GET", "a").answers(NIL)
    reader.hears(NIL)
    ends(play, shared)
    play.wait(1.0)
    play.server("r:1").silent = True
    play.server("r:1").kernel = TcpInfo()
    reader.pipelines(big)
    play.listen(3 * HEAVY)
    assert [one.commands[0][0] for name in ("r:2", "m:1") for one in play.server(name).live if one.commands] == [
        b"MGET"
    ]


def test_silence__master_ended_a_connection_and_froze__what_was_not_sent_is_given_back(play: Playbook) -> None:
    client = play.client().says("INCR", "a")
    shared = play.server("m:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")
    play.client().says("EVAL", "x", "0")
    script = play.server("m:1").hears("EVAL", "x", "0", exclusive=True)
    play.server("m:1").silent = True
    play.server("m:1").kernel = TcpInfo()
    ends(play, script)
    client.says("INCR", "a")
    assert shared.probed
    play.listen(SILENT + 2 * LISTEN_EVERY)
    assert shared.closed
    play.topology(2, master="r:1", replicas=["r:2"])
    play.server("r:1").hears("INCR", "a").answers(b":1\r\n")
    client.hears(b":1\r\n")
