"""The command table: the same as the server's, and for each command where it goes and whether it may be repeated."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.generate_commands import fetch, render
from rfprotocol import commands as table
from rfprotocol import resp
from rfprotocol.commands import Replay, Route, arity_error, commands, keys, lookup, unknown_command_error
from tests.support.redis import RedisServer

COMMANDS = {command.name: command for command in commands()}


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


def each(texts: str) -> pytest.MarkDecorator:
    """The test is run for each of these commands, separated by semicolons."""
    return pytest.mark.parametrize("text", [" ".join(text.split()) for text in texts.split(";")])


def said(server: RedisServer, args: list[bytes]) -> bytes:
    """The bytes that a server answers to one command."""
    with socket.create_connection((server.node.host, server.node.port), timeout=30) as connection:
        connection.sendall(resp.encode_command(args))
        return connection.recv(1 << 20)


def asked(server: RedisServer, args: list[bytes]) -> Any:
    """A server's answer to one command."""
    reader = hiredis.Reader()
    reader.feed(said(server, args))
    return reader.gets()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for all tests here: they only ask it questions."""
    with RedisServer() as running:
        yield running


def route(text: str) -> Route:
    return lookup(words(text)).route


class TestTheTable:
    def test_it_is_what_the_installed_redis_says_of_itself(self, server: RedisServer) -> None:
        content = fetch(server.node.host, server.node.port)
        assert render(content) == Path(table.__file__).with_name("commands.json").read_text()
        assert {name.upper() for name in content["commands"]} <= set(COMMANDS)
        for name, row in content["commands"].items():
            command = COMMANDS[name.upper()]
            assert (command.arity, command.flags) == (row["arity"], frozenset(row["flags"]))
            assert [command.first_key, command.last_key, command.step] == row["keys"]

    @given(st.sampled_from(sorted(COMMANDS)), st.randoms(use_true_random=False))
    def test_names_are_found_in_any_case(self, name: str, random: Random) -> None:
        mixed = "".join(random.choice([letter.lower(), letter]) for letter in name)
        assert lookup(words(mixed.replace("|", " "))) is COMMANDS[name]

    def test_a_container_alone_is_found_too(self) -> None:
        assert lookup([b"CONFIG"]).name == "CONFIG"

    @given(st.lists(st.binary(max_size=300), min_size=1))
    def test_any_arguments_name_some_command(self, args: list[bytes]) -> None:
        command = lookup(args)
        assert command.name in COMMANDS or command.replay is Replay.NEVER
        keys(args)
        arity_error(command, args)
        assert resp.error(unknown_command_error([b"x", *args])).count(b"\r\n") == 1


class TestRoutes:
    @each(
        """GET k; mget a b; PING; ECHO x; TTL k; KEYS *; XREAD STREAMS s 0; XREAD COUNT 2 STREAMS block 0;
        OBJECT ENCODING k; memory usage k; XINFO STREAM s; PFCOUNT h; SORT_RO k; GEORADIUS_RO k 0 0 1 m"""
    )
    def test_reads_of_data_may_go_to_a_replica(self, text: str) -> None:
        assert route(text) is Route.REPLICA

    @each(
        """SET k v; GETEX k; SORT k; EVAL x 0; EVAL_RO x 0; FCALL_RO f 0; SCAN 0; HSCAN h 0; DBSIZE; INFO;
        CONFIG GET x; TIME; CLIENT LIST; client kill x; CLUSTER INFO; PUBLISH a b; PUBSUB CHANNELS;
        JSON.GET k; SCRIPT LOAD x; GEORADIUS k 0 0 1 m; XGROUP FOO"""
    )
    def test_all_else_goes_to_the_master(self, text: str) -> None:
        assert route(text) is Route.MASTER

    @each(
        """AUTH x; HELLO 3; SELECT 1; QUIT; RESET; MULTI; EXEC; DISCARD; WATCH k; UNWATCH; CLIENT ID;
        CLIENT SETNAME x; CLIENT GETNAME; client setinfo LIB-NAME x; CLIENT REPLY ON; CLIENT TRACKING ON;
        CLIENT CACHING YES; CLIENT NO-EVICT ON; CLIENT NO-TOUCH ON; CLIENT TRACKINGINFO; CLIENT GETREDIR"""
    )
    def test_what_is_about_the_connection_is_the_sessions(self, text: str) -> None:
        assert route(text) is Route.SESSION

    @each("""SUBSCRIBE c; psubscribe c; SSUBSCRIBE c; UNSUBSCRIBE; MONITOR""")
    def test_what_changes_a_connection_for_good_has_one_of_its_own(self, text: str) -> None:
        assert route(text) is Route.PINNED

    @each(
        """BLPOP k 0; BZMPOP 0 1 k MIN; WAIT 1 0; WAITAOF 0 0 0; XREAD BLOCK 0 STREAMS s $;
        xread count 1 block 0 streams s $; XREADGROUP GROUP g c COUNT 1 NOACK BLOCK 5 STREAMS s >"""
    )
    def test_what_may_wait_has_a_connection_of_its_own_meanwhile(self, text: str) -> None:
        assert route(text) is Route.BLOCKING

    @each(
        """REPLICAOF a 1; SLAVEOF NO ONE; FAILOVER; SHUTDOWN; SYNC; PSYNC x 0; REPLCONF ACK 1; READONLY;
        CLUSTER MEET a 1; CLUSTER FAILOVER; CLUSTER NEW; CLIENT NEW; SCRIPT DEBUG YES; ASKING"""
    )
    def test_what_would_work_against_the_managers_is_refused_with_a_reason(self, text: str) -> None:
        command = lookup(words(text))
        assert command.route is Route.REFUSED
        assert command.refusal.startswith("ERR ")

    def test_a_refusal_names_the_alternative(self) -> None:
        refusal = lookup(words("SLAVEOF a 1")).refusal
        assert refusal == "ERR SLAVEOF is refused by rfproxy: use `rfmanager failover`"

    def test_nothing_that_a_replica_would_refuse_is_sent_there(self) -> None:
        for command in commands():
            if command.route is Route.REPLICA:
                assert "write" not in command.flags
                assert "blocking" not in command.flags or command.when_blocking is not None


class TestRepeating:
    @each(
        """GET k; INFO; DBSIZE; SCAN 0; TIME; OBJECT FREQ k; MEMORY USAGE k; CONFIG GET x; COMMAND; PING; ROLE;
        EVAL_RO x 0; XREAD BLOCK 0 STREAMS s $; SLOWLOG GET; ACL WHOAMI; SCRIPT EXISTS x; OBJECT HELP"""
    )
    def test_reads_may_always_be_repeated(self, text: str) -> None:
        command = lookup(words(text))
        assert (command.reads_only, command.is_write, command.replay) == (True, False, Replay.READ)

    @each("""SET k v; GETDEL k; XREADGROUP GROUP g c STREAMS s >; BLPOP k 0; SORT k""")
    def test_writes_are_known_as_such(self, text: str) -> None:
        command = lookup(words(text))
        assert (command.reads_only, command.is_write, command.replay) == (False, True, Replay.WRITE)

    @each(
        """EVAL x 0; EVALSHA x 0; FCALL f 0; PUBLISH a b; JSON.SET k . 1; CONFIG SET a b; CONFIG NEW; EXEC;
        CLIENT KILL x; DEBUG SLEEP 1; ACL LOG RESET; SAVE; MEMORY PURGE; SCRIPT KILL; CONFIG RESETSTAT"""
    )
    def test_what_has_effects_that_are_not_known_is_never_repeated(self, text: str) -> None:
        command = lookup(words(text))
        assert (command.reads_only, command.is_write, command.replay) == (False, True, Replay.NEVER)

    def test_no_command_flagged_as_a_write_counts_as_a_read(self) -> None:
        assert [one.name for one in commands() if one.reads_only and {"write", "denyoom"} & one.flags] == []


class TestKeys:
    @each(
        """GET a; MSET a 1 b 2; DEL a b c; BLPOP a b 0; BITOP AND d a b; EVAL x 2 a b c; FCALL f 1 a b;
        LMPOP 2 a b LEFT; ZUNIONSTORE d 2 a b WEIGHTS 1 2; ZINTER 2 a b; XREAD COUNT 2 STREAMS a b 0 0;
        OBJECT ENCODING a; COPY a b; XREADGROUP GROUP g c STREAMS a b > >; GEORADIUS k 0 0 1 m STORE d;
        MIGRATE h 1 k 0 10; XGROUP CREATE s g $; SORT k STORE d; GEORADIUS k 0 0 1 m"""
    )
    def test_they_are_among_those_that_redis_finds(self, server: RedisServer, text: str) -> None:
        found = keys(words(text))
        assert found
        assert set(found) <= set(asked(server, [b"COMMAND", b"GETKEYS", *words(text)]))

    @each(
        "GET a; MSET a 1 b 2; BLPOP a b 0; EVAL x 2 a b c; XREAD COUNT 2 STREAMS a b 0 0; MIGRATE h 1 '' 0 10 KEYS a b"
    )
    def test_they_are_all_unless_the_server_guesses(self, server: RedisServer, text: str) -> None:
        args = [word.replace(b"''", b"") for word in words(text)]
        assert [key for key in keys(args) if key] == asked(server, [b"COMMAND", b"GETKEYS", *args])

    @each("""PING; EVAL x 0 a; EVAL x many a; EVAL x; SPUBLISH c m; FOO a; XREAD a b c""")
    def test_there_may_be_none(self, text: str) -> None:
        assert keys(words(text)) == []


class TestErrors:
    @pytest.mark.parametrize(
        "args",
        [
            [b"GET"],
            [b"get", b"a", b"b"],
            [b"CONFIG", b"get"],
            [b"config"],
            [b"XINFO", b"STREAM"],
            [b"SET", b"k"],
        ],
    )
    def test_a_wrong_number_of_arguments_is_told_in_the_words_of_redis(
        self, server: RedisServer, args: list[bytes]
    ) -> None:
        text = arity_error(lookup(args), args)
        assert text
        assert resp.error(text) == said(server, args)

    @pytest.mark.parametrize("args", [[b"GET", b"k"], [b"SET", b"k", b"v", b"NX"], [b"FOO"], [b"CONFIG", b"GET", b"x"]])
    def test_a_right_number_of_arguments_is_no_error(self, args: list[bytes]) -> None:
        assert arity_error(lookup(args), args) is None

    @pytest.mark.parametrize(
        "args",
        [
            [b"FOO"],
            [b"foo", b"a", b"b"],
            [b"x" * 200, b"y" * 100, b"z" * 100, b"w"],
            [b"FO\r\nO", b"a\r\nb", b"\xff\xfe", b"a\0b", b""],
            [b"F\0OO", b"\xc3\xa9" * 70, b"last"],
        ],
    )
    def test_an_unknown_command_is_told_in_the_words_of_redis(self, server: RedisServer, args: list[bytes]) -> None:
        assert resp.error(unknown_command_error(args)) == said(server, args)

    @pytest.mark.parametrize("args", [[b"CLIENT", b"Foo"], [b"client", b"a\r\nb", b"c"], [b"Cluster", b"x" * 200]])
    def test_an_unknown_subcommand_is_told_in_the_words_of_redis(self, server: RedisServer, args: list[bytes]) -> None:
        assert resp.error(lookup(args).refusal) == said(server, args)
