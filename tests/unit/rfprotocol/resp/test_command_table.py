"""The command table: the same as the server's, and for each command where it goes and whether it may be repeated."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.generate_commands import FACTS, Row, fetch, merge, render, row_of
from rfprotocol.resp import command_table as table
from rfprotocol.resp import resp
from rfprotocol.resp.command_table import (
    Replay,
    Route,
    arity_error,
    block_place,
    commands,
    existence_error,
    exists_in,
    keys,
    lookup,
    parsed_version,
    tells_all_keys,
    unknown_command_error,
)
from tests.support.redis import RedisServer

COMMANDS = {command.name: command for command in commands()}
TEXT = Path(table.__file__).with_name("commands.json").read_text()
CONTENT = json.loads(TEXT)
ROWS: dict[str, Row] = CONTENT["commands"]
VERSIONS: list[str] = CONTENT["versions"]


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


class Installed(NamedTuple):
    """What the installed server says of itself."""

    version: str
    rows: dict[str, Row]


@pytest.fixture(scope="module")
def installed(server: RedisServer) -> Installed:
    """The server's own words; those of its modules are left out."""
    version, rows = fetch(server.node.host, server.node.port)
    return Installed(version, {name: row for name, row in rows.items() if name in ROWS or "module" not in row["flags"]})


def route(text: str) -> Route:
    return lookup(words(text)).route


USED_FLAGS = {"write", "readonly", "blocking"}


def as_of(version: str) -> dict[str, Row]:
    """What the server of that version said of itself, as the table tells it."""
    told = {}
    for name, row in ROWS.items():
        if parsed_version(row["since"]) <= parsed_version(version):
            told[name] = row_of(row, version) | {"since": row["since"], "group": row["group"]}
    return told


class TestTheTable:
    def test_it_has_all_commands_of_the_installed_redis(self, installed: Installed) -> None:
        assert installed.rows.keys() - ROWS.keys() == set()
        assert [name for name in installed.rows if not exists_in(COMMANDS[name.upper()], installed.version)] == []

    def test_what_the_proxy_makes_use_of_is_what_the_installed_redis_says(self, installed: Installed) -> None:
        for name, row in installed.rows.items():
            command, ours = COMMANDS[name.upper()], row_of(ROWS[name], installed.version)
            assert command.spelling == name
            assert USED_FLAGS & set(ours["flags"]) == USED_FLAGS & set(row["flags"]), name
            arity = row["arity"]
            for count in range(1, 12):  # what the server accepts, the table accepts
                if count == arity or count >= -arity > 0:
                    assert arity_error(command, [b"x"] * count, installed.version) is None, name

    def test_for_a_version_that_it_was_taken_from_it_is_all_that_the_installed_redis_says(
        self, installed: Installed
    ) -> None:
        facts = FACTS if installed.version in VERSIONS else ("keys",)
        ours, theirs = (
            {name: {fact: row[fact] for fact in facts} for name, row in rows.items()}
            for rows in (as_of(installed.version), installed.rows)
        )
        assert ours == theirs

    def test_it_is_taken_from_the_reference_and_from_later_versions(self) -> None:
        assert VERSIONS[0] == "7.0.15"
        assert {"7.2", "7.4", "8.0", "8.2", "8.6", "8.10"} <= {version.rpartition(".")[0] for version in VERSIONS}

    def test_the_file_is_what_the_script_makes_of_what_those_versions_say(self) -> None:
        assert render(merge((version, as_of(version)) for version in reversed(VERSIONS))) == TEXT

    @pytest.mark.parametrize(
        ("since", "names"),
        [
            ("1.0.0", "GET"),
            ("7.2.0", "WAITAOF CLIENT|SETINFO CLUSTER|MYSHARDID"),
            ("7.4.0", "HTTL HPEXPIREAT"),
            ("8.0.0", "HGETEX HSETEX VSIM"),
            ("8.0.2", "VISMEMBER"),
            ("8.2.0", "XDELEX CLUSTER|SLOT-STATS"),
            ("8.4.0", "MSETEX DIGEST VRANGE"),
            ("8.6.0", "HOTKEYS XCFGSET"),
            ("8.8.0", "ARGET INCREX"),
            ("8.10.0", "HIMPORT|SET BLMOVEM"),
        ],
    )
    def test_it_tells_which_version_brought_a_command(self, since: str, names: str) -> None:
        assert {name: COMMANDS[name].since for name in names.split()} == dict.fromkeys(names.split(), since)

    def test_versions_differ_in_nothing_that_a_route_depends_on(self) -> None:
        for name, row in ROWS.items():
            command, first = COMMANDS[name.upper()], row_of(row, row["since"])
            for told in [row_of(row, version) for version in VERSIONS]:
                changed = set(first["flags"]) ^ set(told["flags"])
                assert changed.isdisjoint({"write", "readonly"}), name
                assert "blocking" not in changed or command.route is Route.BLOCKING, name
                assert [spec[1:] for spec in first["specs"]] == [spec[1:] for spec in told["specs"]], name
                assert first["keys"] == told["keys"], name

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


class TestDuration:
    @pytest.mark.parametrize(
        "text",
        [
            "EVAL x 0",
            "FCALL f 0",
            "KEYS *",
            "FLUSHALL",
            "FLUSHDB ASYNC",
            "SORT k",
            "SORT_RO k",
            "DEL k",
            "UNLINK k",
            "DEBUG SLEEP 1",
            "SAVE",
            "LRANGE k 0 -1",
            "SMEMBERS k",
            "HGETALL k",
            "ZRANGE k 0 -1",
            "SINTERSTORE d a b",
            "SUNION a b",
            "SDIFF a b",
            "ZUNIONSTORE d 1 a",
            "MIGRATE h 1 k 0 1",
            "RESTORE k 0 x",
            "COPY a b",
            "CONFIG SET maxmemory 1",
            "XREAD STREAMS s 0",
            "FT.SEARCH i q",
            "CONFIG SOMETHING",
        ],
    )
    def test_takes_long__work_on_whole_values__true(self, text: str) -> None:
        assert lookup(words(text)).takes_long

    @pytest.mark.parametrize(
        "text",
        [
            "GET k",
            "SET k v",
            "INCR k",
            "MGET a b",
            "GETRANGE k 0 -1",
            "SWAPDB 0 1",
            "HGET k f",
            "PING",
            "INFO",
            "EXEC",
            "SCAN 0",
            "BLPOP k 0",
            "WAIT 1 0",
            "XREAD BLOCK 0 STREAMS s $",
            "SUBSCRIBE c",
            "SCRIPT LOAD x",
            "CONFIG GET maxmemory",
        ],
    )
    def test_takes_long__light_or_waiting__false(self, text: str) -> None:
        assert not lookup(words(text)).takes_long

    def test_takes_long__table_of_reasons__names_exist(self) -> None:
        assert COMMANDS.keys() >= table._LONG


def row(since: str, **facts: Any) -> Row:
    """What a server says of a command."""
    return {"arity": 2, "flags": [], "keys": [], "specs": [], "acl": [], "group": "x"} | {"since": since} | facts


class TestTaking:
    def test_a_command_has_the_row_of_the_oldest_version_and_what_later_ones_change(self) -> None:
        content = merge([("8.0.1", {"a": row("1.0", arity=-2)}), ("7.0.1", {"a": row("1.0", flags=["fast"])})])
        assert content["versions"] == ["7.0.1", "8.0.1"]
        assert content["commands"]["a"] == row("1.0", flags=["fast"], later={"8.0.1": {"arity": -2, "flags": []}})

    def test_a_change_holds_until_the_next_one_for_all_servers_of_a_release(self) -> None:
        servers = [("7.0.1", 2), ("7.2.5", 3), ("7.4.1", 3), ("8.10.0", 4)]
        merged = merge((version, {"a": row("1.0", arity=arity)}) for version, arity in servers)["commands"]["a"]
        assert merged["later"] == {"7.2.5": {"arity": 3}, "8.10.0": {"arity": 4}}
        arities = {
            version: row_of(merged, version)["arity"] for version in ["6.2.0", "7.0.9", "7.2.0", "8.6.0", "8.12.0"]
        }
        assert arities == {"6.2.0": 2, "7.0.9": 2, "7.2.0": 3, "8.6.0": 3, "8.12.0": 4}

    @pytest.mark.parametrize(
        ("told", "since"),
        [
            (["7.2.0", "7.2.0"], "7.2.0"),  # the documentation
            (["7.2.0", "7.4.0"], "7.2.0"),  # the older server's
            (["", "7.2.0"], "7.2.0"),  # the older has none
            (["", "8.0.0"], "7.2.4"),  # a command that is older than its documentation
            (["", ""], "7.2.4"),
        ],
    )
    def test_a_command_is_as_old_as_documented_or_as_the_oldest_server_that_has_it(
        self, told: list[str], since: str
    ) -> None:
        servers = zip(["7.2.4", "8.0.2"], told, strict=True)
        assert merge((version, {"a": row(word)}) for version, word in servers)["commands"]["a"]["since"] == since

    def test_two_servers_of_one_release_are_one_too_many(self) -> None:
        with pytest.raises(ValueError, match=r"8\.0\.1, 8\.0\.6"):
            merge([("8.0.1", {}), ("8.0.6", {})])


class TestRoutes:
    @each(
        """GET k; mget a b; PING; ECHO x; TTL k; KEYS *; XREAD STREAMS s 0; XREAD COUNT 2 STREAMS block 0;
        PFCOUNT h; XLEN s; XRANGE s - +; SORT_RO k; GEORADIUS_RO k 0 0 1 m"""
    )
    def test_reads_of_data_may_go_to_a_replica(self, text: str) -> None:
        assert route(text) is Route.REPLICA

    @each(
        """SET k v; GETEX k; SORT k; DBSIZE; INFO; INFO memory; CONFIG GET x; CONFIG; TIME; CLUSTER INFO; PUBLISH a b;
        PUBSUB CHANNELS; GEORADIUS k 0 0 1 m; FUNCTION LOAD x; CLIENT CACHING YES; CLIENT HELP"""
    )
    def test_all_else_goes_to_the_master(self, text: str) -> None:
        assert route(text) is Route.MASTER

    @each(
        """TOUCH k; OBJECT IDLETIME k; object freq k; OBJECT ENCODING k; MEMORY USAGE k; XINFO CONSUMERS s g;
        xinfo groups s; XINFO STREAM s; XINFO STREAM s FULL; XPENDING s g; XPENDING s g - + 10; DBSIZE; VINFO v;
        VLINKS v e; ARINFO a"""
    )
    def test_route__question_about_the_server__master(self, text: str) -> None:
        assert route(text) is Route.MASTER
        assert lookup(words(text)).reads_only

    @each("""SCAN 0; scan 0 MATCH x; HSCAN h 0; SSCAN s 0; ZSCAN z 0""")
    def test_cursors_belong_to_one_server(self, text: str) -> None:
        assert route(text) is Route.CURSOR

    @each(
        """EVAL x 0; EVALSHA x 0; EVAL_RO x 0; EVALSHA_RO x 0; FCALL f 0; FCALL_RO f 0; SCRIPT LOAD x; SCRIPT EXISTS x;
        SCRIPT FLUSH; JSON.GET k; FT.SEARCH i q; FOO; XGROUP FOO; SCRIPT NEW; VSIM k ELE e TRUTH; vsim k ele e truth"""
    )
    def test_what_may_take_long_or_is_unknown_makes_no_other_client_wait(self, text: str) -> None:
        assert route(text) is Route.OWN

    @each(
        """AUTH x; HELLO 3; SELECT 1; QUIT; RESET; MULTI; EXEC; DISCARD; WATCH k; UNWATCH; CLIENT ID; INFO PROXY;
        CLIENT SETNAME x; CLIENT GETNAME; client setinfo LIB-NAME x; CLIENT REPLY ON; CLIENT TRACKING ON;
        CLIENT NO-EVICT ON; CLIENT NO-TOUCH ON; CLIENT GETREDIR; CLIENT LIST; client kill x; CLIENT INFO;
        CLIENT PAUSE 1; CLIENT UNPAUSE; CLIENT UNBLOCK 1; CLIENT TRACKINGINFO; POST x; Host: x"""
    )
    def test_what_is_about_the_connection_is_the_sessions(self, text: str) -> None:
        assert route(text) is Route.SESSION

    @each("""SUBSCRIBE c; psubscribe c; SSUBSCRIBE c; UNSUBSCRIBE; MONITOR""")
    def test_what_changes_a_connection_for_good_has_one_of_its_own(self, text: str) -> None:
        assert route(text) is Route.PINNED

    @each(
        """BLPOP k 0; BZMPOP 0 1 k MIN; WAIT 1 0; WAITAOF 0 0 0; XREAD BLOCK 0 STREAMS s $; BLMOVEM a b LEFT LEFT 0;
        xread count 1 block 0 streams s $; XREADGROUP GROUP g c COUNT 1 NOACK BLOCK 5 STREAMS s >;
        XREADGROUP GROUP g c CLAIM 10 BLOCK 5 STREAMS s >"""
    )
    def test_what_may_wait_has_a_connection_of_its_own_meanwhile(self, text: str) -> None:
        assert route(text) is Route.BLOCKING

    @each("SCRIPT KILL; FUNCTION KILL; FUNCTION STATS")
    def test_what_a_busy_server_still_obeys_takes_a_connection_that_stands(self, text: str) -> None:
        assert route(text) is Route.URGENT, "a new one is not of use before the script has ended"

    @each(
        """REPLICAOF a 1; SLAVEOF NO ONE; FAILOVER; SHUTDOWN; SYNC; PSYNC x 0; REPLCONF ACK 1;
        CLUSTER MEET a 1; CLUSTER FAILOVER; CLUSTER NEW; CLIENT NEW; SCRIPT DEBUG YES; ASKING;
        CLUSTER MIGRATION IMPORT 0 1; CLUSTER SYNCSLOTS x; TRIMSLOTS RANGES 1 0 1; HIMPORT PREPARE f a"""
    )
    def test_what_would_work_against_the_managers_is_refused_with_a_reason(self, text: str) -> None:
        command = lookup(words(text))
        assert command.route is Route.REFUSED
        assert command.refusal.startswith("ERR ")

    @each(
        """CONFIG SET requirepass x; config set MASTERAUTH x; CONFIG SET masteruser x; CONFIG SET maxmemory 1 port 7000;
        CONFIG SET primaryauth x; CONFIG SET bind 127.0.0.1; CONFIG SET protected-mode yes; ACL SETUSER default off"""
    )
    def test_refused__accounts_of_one_server__alternative_named(self, text: str) -> None:
        command = lookup(words(text))
        assert command.route is Route.REFUSED
        assert "connect to each server itself" in command.refusal

    @each(
        """CONFIG SET maxmemory 1; CONFIG SET maxmemory-policy requirepass; CONFIG SET save port; CONFIG SET;
        CONFIG GET requirepass; ACL SETUSER worker on; ACL SETUSER; ACL DELUSER worker; ACL LOAD; ACL SAVE"""
    )
    def test_refused__settings_and_other_users__not(self, text: str) -> None:
        assert route(text) is Route.MASTER

    def test_a_refusal_names_the_alternative(self) -> None:
        refusal = lookup(words("SLAVEOF a 1")).refusal
        assert refusal == "ERR SLAVEOF is refused by rfproxy: use `rfmanager failover`"

    def test_what_only_a_cluster_has_is_refused_in_the_words_of_redis(self, server: RedisServer) -> None:
        assert resp.error(lookup(words("ASKING")).refusal) == said(server, words("ASKING"))

    @each("READONLY; READWRITE")
    def test_what_valkey_accepts_outside_a_cluster_is_for_the_server_to_answer(self, text: str) -> None:
        assert route(text) is Route.MASTER
        assert lookup(words(text)).replay is Replay.READ

    def test_each_command_that_is_younger_than_the_reference_was_judged(self) -> None:
        """Here, by hand. A command that a later version brings must be added."""
        judged = {
            (Route.REPLICA, Replay.READ): """HTTL HPTTL HEXPIRETIME HPEXPIRETIME DIGEST SDIFFCARD SUNIONCARD
                VCARD VDIM VEMB VGETATTR VISMEMBER VRANDMEMBER VRANGE VSIM
                ARCOUNT ARGET ARGETRANGE ARGREP ARLASTITEMS ARLEN ARMGET ARNEXT AROP ARSCAN""",
            (Route.MASTER, Replay.READ): """CLUSTER|MYSHARDID CLUSTER|SLOT-STATS HOTKEYS|GET HOTKEYS|HELP
                BACKUP|HELP BACKUP|LIST BACKUP|STATUS VINFO VLINKS ARINFO""",
            (Route.MASTER, Replay.WRITE): """HEXPIRE HEXPIREAT HPEXPIRE HPEXPIREAT HPERSIST HGETDEL HGETEX HSETEX
                XACKDEL XDELEX XCFGSET XIDMPRECORD XNACK DELEX MSETEX INCREX LMOVEM HIMPORT|SET VADD VREM VSETATTR
                ARDEL ARDELRANGE ARINSERT ARMSET ARRING ARSEEK ARSET""",
            (Route.MASTER, Replay.NEVER): """HOTKEYS HOTKEYS|RESET HOTKEYS|START HOTKEYS|STOP HIMPORT HIMPORT|DISCARD
                HIMPORT|DISCARDALL BACKUP BACKUP|ABORT BACKUP|CLEANUP BACKUP|SEAL BACKUP|START""",
            (Route.SESSION, Replay.READ): "CLIENT|NO-TOUCH CLIENT|SETINFO",
            (Route.BLOCKING, Replay.READ): "WAITAOF",
            (Route.BLOCKING, Replay.WRITE): "BLMOVEM",
            (Route.REFUSED, Replay.WRITE): "TRIMSLOTS",
            (Route.REFUSED, Replay.NEVER): "CLUSTER|MIGRATION CLUSTER|SYNCSLOTS HIMPORT|PREPARE",
        }
        expected = {(name, *verdict) for verdict, names in judged.items() for name in names.split()}
        younger = [one for one in commands() if not exists_in(one, VERSIONS[0])]
        assert {(one.name, one.route, one.replay) for one in younger} == expected

    def test_nothing_that_a_replica_would_refuse_is_sent_there(self) -> None:
        for command in commands():
            if command.route is Route.REPLICA:
                assert "write" not in command.flags
                assert "blocking" not in command.flags or command.variant is not None


class TestRepeating:
    @each(
        """GET k; INFO; DBSIZE; SCAN 0; TIME; OBJECT FREQ k; MEMORY USAGE k; CONFIG GET x; COMMAND; PING; ROLE;
        EVAL_RO x 0; XREAD BLOCK 0 STREAMS s $; SLOWLOG GET; ACL WHOAMI; SCRIPT EXISTS x; OBJECT HELP"""
    )
    def test_reads_may_always_be_repeated(self, text: str) -> None:
        command = lookup(words(text))
        assert (command.reads_only, command.may_have_effect, command.replay) == (True, False, Replay.READ)

    @each("""SET k v; GETDEL k; XREADGROUP GROUP g c STREAMS s >; BLPOP k 0; SORT k""")
    def test_writes_are_known_as_such(self, text: str) -> None:
        command = lookup(words(text))
        assert (command.reads_only, command.may_have_effect, command.replay) == (False, True, Replay.WRITE)

    @each(
        """EVAL x 0; EVALSHA x 0; FCALL f 0; PUBLISH a b; JSON.SET k . 1; CONFIG SET a b; CONFIG NEW; EXEC;
        DEBUG SLEEP 1; ACL LOG RESET; SAVE; MEMORY PURGE; SCRIPT KILL; CONFIG RESETSTAT; FOO;
        XGROUP NEW; HOTKEYS START METRICS 1 CPU; BACKUP START"""
    )
    def test_what_has_effects_that_are_not_known_is_never_repeated(self, text: str) -> None:
        command = lookup(words(text))
        assert (command.reads_only, command.may_have_effect, command.replay) == (False, True, Replay.NEVER)

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

    @each(
        """MSETEX 2 a 1 b 2 EX 9; BLMOVEM a b LEFT LEFT 0; SDIFFCARD 2 a b LIMIT 1; LMOVEM a b LEFT LEFT COUNT 1 OBO"""
    )
    def test_they_are_found_in_commands_of_later_versions_too(self, text: str) -> None:
        assert keys(words(text)) == [b"a", b"b"]

    @each("""PING; EVAL x 0 a; EVAL x many a; EVAL x; SPUBLISH c m; FOO a; XREAD a b c""")
    def test_there_may_be_none(self, text: str) -> None:
        assert keys(words(text)) == []


class TestErrors:
    def test_a_wrong_number_of_arguments_is_told_in_the_words_of_redis(
        self, server: RedisServer, installed: Installed
    ) -> None:
        told = 0
        for name in installed.rows:
            for rest in ([], [b"x"], [b"x"] * 2, [b"x"] * 3):
                args = [*name.encode().split(b"|"), *rest]
                if text := arity_error(lookup(args), args, installed.version):
                    assert resp.error(text) == said(server, args)
                    told += 1
        assert told > 500

    @pytest.mark.parametrize(
        ("args", "versions", "wrong"),
        [
            ("GET k", ["", "7.0.15", "8.10.2"], False),
            ("GET", ["", "7.0.15", "8.10.2"], True),
            ("SET k v NX", ["", "7.0.15"], False),
            ("CONFIG GET x", ["", "7.0.15"], False),
            ("FOO", ["", "7.0.15"], False),
            ("ZRANK k a WITHSCORE", ["6.2.20", "7.0.11", "7.0.15"], True),
            ("ZRANK k a WITHSCORE", ["", "7.2.0", "7.2.4", "8.0.9", "9.0.0", "7.1.240", "unstable"], False),
            ("ZRANK k", ["", "7.0.15", "7.2.4"], True),
            ("COMMAND GETKEYS PING", ["7.0.15"], True),
            ("COMMAND GETKEYS PING", ["7.2.0"], False),
            ("VCARD", ["", "8.0.2", "8.2.3", "8.4.0"], False),  # left to the server
            ("VCARD", ["8.6.0", "8.10.2"], True),
        ],
    )
    def test_how_many_arguments_are_right_depends_on_the_version(
        self, args: str, versions: list[str], wrong: bool
    ) -> None:
        for version in versions:
            assert (arity_error(lookup(words(args)), words(args), version) is not None) is wrong, version

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
    def test_an_unknown_command_is_told_in_the_words_of_redis(
        self, server: RedisServer, installed: Installed, args: list[bytes]
    ) -> None:
        assert resp.error(unknown_command_error(args, installed.version)) == said(server, args)
        assert existence_error(args, installed.version) == unknown_command_error(args, installed.version)

    def test_since_8_6_nothing_is_said_of_arguments_that_there_are_not(self) -> None:
        assert unknown_command_error([b"x"], "8.6.0") == "ERR unknown command 'x'"
        assert unknown_command_error([b"x"], "8.2.3") == "ERR unknown command 'x', with args beginning with: "
        assert unknown_command_error([b"x"]) == "ERR unknown command 'x', with args beginning with: "

    @each(
        """HGETEX k FIELDS 1 f; ARGET k 1; VCARD k; CLIENT NO-TOUCH off; client setinfo LIB-NAME x; CLUSTER MYSHARDID;
        hotkeys get; HIMPORT discardall; GET k; CLIENT ID; CLIENT Nope; FOO; TRIMSLOTS RANGES 1 0 1; WAITAOF 0 0 1;
        config; CLIENT|ID; OBJECT ENCODING|x k"""
    )
    def test_a_command_that_a_version_does_not_have_is_told_in_its_words(
        self, server: RedisServer, installed: Installed, text: str
    ) -> None:
        reply, error = said(server, words(text)), existence_error(words(text), installed.version)
        if error is None:
            assert not reply.startswith(b"-ERR unknown ")
        else:
            assert resp.error(error) == reply

    @pytest.mark.parametrize(
        ("text", "version", "error"),
        [
            ("hgetex k", "7.0.15", "ERR unknown command 'hgetex', with args beginning with: 'k' "),
            ("hgetex k", "8.0.0", None),
            ("client no-touch on", "7.0.15", "ERR unknown subcommand 'no-touch'. Try CLIENT HELP."),
            ("client no-touch on", "7.2.0", None),
            (
                "himport set a b c",
                "8.6.3",
                "ERR unknown command 'himport', with args beginning with: 'set' 'a' 'b' 'c' ",
            ),
            ("himport set a b c", "8.10.0", None),
            ("himport set a b c", "", None),
            ("nope", "", "ERR unknown command 'nope', with args beginning with: "),
        ],
    )
    def test_it_depends_on_the_version(self, text: str, version: str, error: str | None) -> None:
        assert existence_error(words(text), version) == error

    @pytest.mark.parametrize("args", [[b"CLIENT", b"Foo"], [b"client", b"a\r\nb", b"c"], [b"Cluster", b"x" * 200]])
    def test_an_unknown_subcommand_is_told_in_the_words_of_redis(self, server: RedisServer, args: list[bytes]) -> None:
        assert resp.error(lookup(args).refusal) == said(server, args)


class TestEverywhere:
    @each("EXPIRETIME k; LCS a b; SINTERCARD 1 s; HTTL h FIELDS 1 f; VSIM v ELE e")
    def test_not_everywhere__young_read__yes(self, text: str) -> None:
        assert lookup(words(text)).not_everywhere

    @each("GET k; MGET a b; LPOS l e; SMISMEMBER s e; XRANGE s - +; HSETEX h FIELDS 1 f v; CLIENT NO-EVICT ON; FOO")
    def test_not_everywhere__old_or_no_read__no(self, text: str) -> None:
        assert not lookup(words(text)).not_everywhere


class TestBlock:
    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("XREAD BLOCK 0 STREAMS s $", 2),
            ("xread count 2 block 100 streams s $", 4),
            ("XREAD BLOCK 1 BLOCK 2 STREAMS s $", 4),
            ("XREADGROUP GROUP BLOCK 5 BLOCK 1000 STREAMS s >", 5),
            ("XREADGROUP GROUP g BLOCK BLOCK 1000 STREAMS s >", 5),
            ("XREADGROUP GROUP g c NOACK CLAIM 10 BLOCK 5 STREAMS s >", 8),
            ("XREADGROUP BLOCK 7 GROUP g c STREAMS s >", 2),
            ("XREADGROUP GROUP BLOCK BLOCK COUNT 1 STREAMS s >", None),
            ("XREAD STREAMS block 0", None),
            ("XREAD COUNT BLOCK STREAMS s 0", None),
            ("XREAD BLOCK", None),
            ("XREAD", None),
        ],
    )
    def test_block_place__options_of_xread__the_timeout(self, text: str, place: int | None) -> None:
        assert block_place(words(text)) == place
        expected = Route.REPLICA if text.upper().startswith("XREAD ") or text == "XREAD" else Route.MASTER
        assert route(text) is (Route.BLOCKING if place is not None else expected)


@pytest.mark.parametrize(
    ("command", "all_of_them"),
    [("SET", True), ("RPUSH", True), ("XADD", True), ("SORT", False), ("EXEC", False), ("FLUSHALL", False)],
)
def test_tells_all_keys__what_the_specifications_say__decides(command: str, all_of_them: bool) -> None:
    assert tells_all_keys(lookup([command.encode(), b"k", b"v"])) is all_of_them


@pytest.mark.parametrize(
    ("command", "spreads"),
    [
        ("SET k v", True),
        ("EVAL x 0", True),
        ("EVAL_RO x 0", False),
        ("FCALL x 0", True),
        ("PUBLISH c m", True),
        ("FUNCTION LOAD x", True),
        ("SCRIPT LOAD x", False),
        ("CONFIG SET a b", False),
        ("GET k", False),
        ("PFCOUNT k", False),
        ("XREADGROUP GROUP g c STREAMS s >", True),
        ("MODULE.DO k", True),
    ],
)
def test_may_replicate_holds_for_writes_scripts_and_messages(command: str, spreads: bool) -> None:
    assert lookup([word.encode() for word in command.split()]).may_replicate is spreads
