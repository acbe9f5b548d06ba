"""Options of the managers: the gem's, with its defaults, and the sample that shows them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfmanager.config import ManagerConfig, parser
from rfmanager.daemon import Settings
from rfmanager.detector import Limits
from rfprotocol.errors import ConfigError
from rfprotocol.topology import Node
from tests.support.samples import DEPLOY, options_set, options_shown

SAMPLE = "rfmanager.yml"
EXAMPLES = {"username", "password", "password_file", "chroot", "state_dir"}
"""Shown in the sample with a made-up value."""


def read(*argv: str) -> ManagerConfig:
    return parser().parse(argv, {}).config


def test_the_gems_defaults_hold() -> None:
    config = read("-n", "a:1,b:2", "-z", "z:1")
    assert config.znode_path == "/redis_failover"
    assert (config.max_failures, config.required_node_managers) == (3, 1)
    assert config.node_strategy == "majority"
    assert config.failover_strategy == "offset"


def test_all_flags_of_the_gem_are_known() -> None:
    config = read(
        *("-n", "localhost:6379,localhost:6380", "-z", "localhost:2181,localhost:2182", "-p", "foobar"),
        *("--znode-path", "/x", "--max-failures", "2", "--with-chroot", "/y", "--node-strategy", "consensus"),
        *("--failover-strategy", "latency", "--required-node-managers", "2"),
    )
    assert config.nodes == (Node("localhost", 6379), Node("localhost", 6380))
    assert config.zookeeper == "localhost:2181,localhost:2182/y"
    assert config.password is not None
    assert config.password.get_secret_value() == "foobar"
    assert (config.znode_path, config.max_failures, config.required_node_managers) == ("/x", 2, 2)
    assert (config.node_strategy, config.failover_strategy) == ("consensus", "latency")


def test_a_file_of_the_gem_with_environments_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        """
:development:
  :nodes:
    - localhost:6379
  :zkservers:
    - localhost:2181
:staging:
  :nodes:
    - :host: redis01
      :port: 6379
    - redis02:6379
  :zkservers: zk01:2181,zk02:2181
  :chroot: /with/chroot_staging
  :max_failures: 2
  :node_strategy: :consensus
  :failover_strategy: :latency
  :required_node_managers: 2
  :password: foobar
  :znode_path: /other
  :verbose: true
"""
    )
    config = read("-C", str(tmp_path / "config.yml"), "-E", "staging")
    assert config.nodes == (Node("redis01", 6379), Node("redis02", 6379))
    assert config.zookeeper == "zk01:2181,zk02:2181/with/chroot_staging"
    assert (config.max_failures, config.node_strategy, config.failover_strategy) == (2, "consensus", "latency")
    assert config.least_log_level == "debug"


@pytest.mark.parametrize(("argv", "missing"), [(["-z", "z:1"], "nodes"), (["-n", "a:1"], "zkservers")])
def test_the_daemon_needs_servers_and_zookeeper(argv: list[str], missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{missing} is missing"):
        read(*argv)


def test_verbose_is_another_word_for_the_debug_level() -> None:
    assert ManagerConfig().least_log_level == "info"
    assert ManagerConfig(log_level="error").least_log_level == "error"
    assert ManagerConfig(verbose=True).least_log_level == "debug"


def test_the_sample_loads_and_shows_every_option() -> None:
    assert len(read("-C", str(DEPLOY / SAMPLE)).nodes) == 3
    assert options_set(SAMPLE) | set(options_shown(SAMPLE)) == set(ManagerConfig.model_fields)


@pytest.mark.parametrize(
    ("option", "value"), [item for item in options_shown(SAMPLE).items() if item[0] not in EXAMPLES]
)
def test_what_the_sample_shows_as_default_is_the_default(option: str, value: str, tmp_path: Path) -> None:
    sample = DEPLOY / SAMPLE
    (tmp_path / "c.yml").write_text(f"{sample.read_text()}\n{option}: {value}\n")
    assert read("-C", str(tmp_path / "c.yml")) == read("-C", str(sample))


def test_examples_in_the_sample_are_of_the_right_form(tmp_path: Path) -> None:
    sample, shown = DEPLOY / SAMPLE, options_shown(SAMPLE)
    lines = "".join(f"{name}: {shown[name]}\n" for name in EXAMPLES - {"password_file", "state_dir"})
    (tmp_path / "c.yml").write_text(f"{sample.read_text()}\n{lines}")
    assert read("-C", str(tmp_path / "c.yml")).username == shown["username"]


def test_a_staleness_that_samples_cannot_tell_is_refused() -> None:
    assert ManagerConfig(max_staleness=0.5).max_staleness == 0.5
    with pytest.raises(ValueError, match="at least 0"):
        ManagerConfig(max_staleness=0.4)


def test_the_records_of_a_group_are_below_its_znode_path() -> None:
    assert ManagerConfig(znode_path="/cache").paths.nodes == "/cache/nodes"


def test_config__bounds_of_silence__reach_the_detectors() -> None:
    config = read(
        "-n", "a:1", "-z", "z:1", "--unreachable-timeout", "0.6", "--busy-patience", "7", "--brake-limit", "2"
    )
    assert Settings.of(config).limits == Limits(unreachable_timeout=0.6, busy_patience=7.0)
    assert Settings.of(config).policy.brake_limit == 2
    assert Settings.of(read("-n", "a:1", "-z", "z:1")).limits == Limits()
