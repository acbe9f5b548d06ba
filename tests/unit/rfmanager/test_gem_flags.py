"""The gem's command line: what Ruby's OptionParser takes, and what it means for rfmanager."""

from __future__ import annotations

import pytest

from rfmanager.gem_flags import HELP, Translated, translate
from rfmanager.settings import ManagerConfig, parser
from rfprotocol.errors import ConfigError
from rfprotocol.topology.topology import Node

NEEDED = ("-n", "localhost:6379,localhost:6380", "-z", "localhost:2181")


def read(*argv: str) -> ManagerConfig:
    """As `redis_node_manager` reads it, without its environment."""
    return parser().parse(translate(argv).argv, {}).config


def complaint(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        translate(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_translate__every_flag_of_the_gem__means_the_same_to_rfmanager() -> None:
    config = read(
        *(*NEEDED, "-p", "foobar", "--znode-path", "/x", "--max-failures", "2", "--with-chroot", "/y"),
        *("--node-strategy", "consensus", "--failover-strategy", "latency", "--required-node-managers", "2"),
    )
    assert config.nodes == (Node("localhost", 6379), Node("localhost", 6380))
    assert config.zookeeper == "localhost:2181/y"
    assert config.password is not None
    assert config.password.get_secret_value() == "foobar"
    assert (config.znode_path, config.max_failures, config.required_node_managers) == ("/x", 2, 2)
    assert (config.node_strategy, config.failover_strategy) == ("consensus", "latency")
    assert translate(NEEDED).notices == ()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--nodes", "a"], "--nodes=a"),
        (["--nodes=a"], "--nodes=a"),
        (["-na"], "--nodes=a"),
        (["--zk", "a:1"], "--zkservers=a:1"),
        (["--max-f", "4"], "--max-failures=4"),
        (["--znode=/x"], "--znode-path=/x"),
        (["--req", "2"], "--required-node-managers=2"),
        (["-p", "-foo"], "--password=-foo"),
        (["-p", " foo\n"], "--password=foo"),
        (["-p", "one", "--password", "two"], "--password=two"),
    ],
)
def test_translate__abbreviated_joined_or_repeated__as_ruby_takes_it(words: list[str], flag: str) -> None:
    assert translate(words) == Translated((flag,))


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--node", "a"], "option --node not a unique prefix (try --help)"),
        (["--verbose"], "option --verbose not recognized (try --help)"),
        (["--pasword=hunter2"], "option --pasword not recognized (try --help)"),
        (["-xhunter2"], "option -x not recognized (try --help)"),
        (["-n"], "option -n requires argument (try --help)"),
        (["--help=x"], "option --help must not have an argument (try --help)"),
    ],
)
def test_translate__unknown_ambiguous_or_incomplete__refused_without_a_value(words: list[str], wrong: str) -> None:
    assert complaint(*words) == wrong


def test_translate__a_file__all_else_is_passed_over_and_told_once() -> None:
    asked = translate(["-C", "c.yml", "-E", "staging", "-n", "a", "-p", "hunter2", "--max-f", "0"])
    assert asked.argv == ("--config=c.yml", "--environment=staging")
    [notice] = asked.notices
    assert notice == ("ignored beside --config: --nodes, --password, --max-failures: all options come from the file")


def test_translate__an_environment_without_a_file__passed_over_and_told() -> None:
    asked = translate([*NEEDED, "-E", "staging"])
    assert asked.argv == translate(NEEDED).argv
    assert asked.notices == ("ignored without --config: --environment, which names a part of the file",)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_translate__words_that_are_no_flags__passed_over_and_told_without_quoting_them(place: int) -> None:
    asked = translate([*NEEDED[:place], "hunter2", *NEEDED[place:], "--", "-x"])
    assert asked.argv == translate(NEEDED).argv
    assert asked.notices == ("ignored: 2 words that belong to no flag",)
    assert translate(["start"]).notices == ("ignored: 1 word that belongs to no flag",)


def test_translate__counts_of_none__mean_one_and_are_told() -> None:
    asked = translate([*NEEDED, "--max-failures", "0", "--required-node-managers=0"])
    assert asked.argv[2:] == ("--max-failures=1", "--required-node-managers=1")
    assert [notice.partition(":")[0] for notice in asked.notices] == ["--max-failures", "--required-node-managers"]


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["--he"], [*NEEDED, "-h"]])
def test_translate__help__is_all_that_is_wanted(words: list[str]) -> None:
    assert translate(words) == Translated(wants_help=True)


def test_help__says_that_it_runs_rfmanager_and_lists_flags_that_it_has() -> None:
    assert "Runs rfmanager" in HELP
    assert all(len(line) <= 120 for line in HELP.splitlines())
    every = ("nodes", "zkservers", "password", "znode-path", "max-failures", "config", "with-chroot", "environment")
    for flag in (*every, "node-strategy", "failover-strategy", "required-node-managers", "help"):
        assert f"--{flag} " in HELP
