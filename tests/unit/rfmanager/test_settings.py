"""Options of the managers: the gem's, with its defaults, and the sample that shows them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfmanager.daemon.daemon import Settings
from rfmanager.monitoring.failure_detector import Limits
from rfmanager.settings import ManagerConfig, parser, with_gems_patience
from rfprotocol.errors import ConfigError
from rfprotocol.settings.cli_parser import Parsed
from rfprotocol.topology.topology import Node
from tests.support.samples import DEPLOY, options_set, options_shown

SAMPLE = "rfmanager.yml"
EXAMPLES = {"username", "password", "password_file", "chroot", "state_dir"}
"""Shown in the sample with a made-up value."""


def read(*argv: str) -> ManagerConfig:
    return parser().parse(argv, {}).config


def in_file(tmp_path: Path, text: str, *argv: str) -> Parsed[ManagerConfig]:
    (tmp_path / "config.yml").write_text(text)
    return parser().parse(["-C", str(tmp_path / "config.yml"), *argv], {})


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


ONE_ENVIRONMENT = """
:nodes:
  - redis01:6379
  - redis02:6379
:zkservers:
  - zk01:2181
  - zk02:2181
  - zk03:2181
"""
SEVERAL = """
:development:
  :nodes:
    - localhost:6379
    - localhost:6389
  :zkservers:
    - localhost:2181
  :chroot: /with/chroot_development

:staging:
  :nodes:
    - redis01:6379
    - redis02:6379
  :zkservers:
    - zk01:2181
    - zk02:2181
    - zk03:2181
  :chroot: /with/chroot_staging
"""
IN_THE_README = """
---
:max_failures: 2
:node_strategy: majority
:failover_strategy: latency
:required_node_managers: 2
:nodes:
  - localhost:6379
  - localhost:1111
  - localhost:2222
  - localhost:3333
:zkservers:
  - localhost:2181
  - localhost:2182
  - localhost:2183
:password: foobar
"""


@pytest.mark.parametrize(
    ("text", "argv", "nodes", "zookeeper"),
    [
        (ONE_ENVIRONMENT, [], "redis01:6379,redis02:6379", "zk01:2181,zk02:2181,zk03:2181"),
        (
            f"{ONE_ENVIRONMENT}:chroot: /with/chroot\n",
            [],
            "redis01:6379,redis02:6379",
            "zk01:2181,zk02:2181,zk03:2181/with/chroot",
        ),
        (SEVERAL, ["-E", "development"], "localhost:6379,localhost:6389", "localhost:2181/with/chroot_development"),
        (
            SEVERAL,
            ["-E", "staging"],
            "redis01:6379,redis02:6379",
            "zk01:2181,zk02:2181,zk03:2181/with/chroot_staging",
        ),
        (
            IN_THE_README,
            [],
            "localhost:6379,localhost:1111,localhost:2222,localhost:3333",
            "localhost:2181,localhost:2182,localhost:2183",
        ),
        (":nodes: [redis1, redis2]\n:zkservers: [zk:2181]\n", [], "redis1:6379,redis2:6379", "zk:2181"),
    ],
)
def test_config__files_of_the_forms_that_the_gem_shows__are_read_without_a_word(
    text: str, argv: list[str], nodes: str, zookeeper: str, tmp_path: Path
) -> None:
    parsed = in_file(tmp_path, text, *argv)
    assert parsed.is_gems
    assert parsed.notices == ()
    assert ",".join(map(str, parsed.config.nodes)) == nodes
    assert parsed.config.zookeeper == zookeeper


def test_config__the_gems_options_in_a_file__mean_the_same(tmp_path: Path) -> None:
    config = in_file(tmp_path, IN_THE_README).config
    assert (config.max_failures, config.required_node_managers) == (2, 2)
    assert (config.node_strategy, config.failover_strategy) == ("majority", "latency")
    assert config.password is not None
    assert config.password.get_secret_value() == "foobar"


@pytest.mark.parametrize("count", ["max_failures", "required_node_managers"])
def test_config__a_count_of_none__means_one_in_a_file_of_the_gem_and_is_refused_elsewhere(
    count: str, tmp_path: Path
) -> None:
    parsed = in_file(tmp_path, f"{ONE_ENVIRONMENT}:{count}: 0\n")
    assert getattr(parsed.config, count) == 1
    assert len(parsed.notices) == 1
    flag = f"--{count.replace('_', '-')}"
    for wrong in (
        lambda: in_file(tmp_path, f"nodes: [a]\nzkservers: z:1\n{count}: 0\n"),
        lambda: read("-n", "a", "-z", "z:1", flag, "0"),
        lambda: parser().parse(["-n", "a", "-z", "z:1"], {f"RFMANAGER_{count.upper()}": "0"}),
    ):
        with pytest.raises(ConfigError, match="should be at least 1, not '0': write 1"):
            wrong()


def test_gems_patience__nothing_else_given__the_gems_times_and_one_notice_of_both() -> None:
    patient, notice = with_gems_patience(read("-n", "a", "-z", "z:1"))
    assert Settings.of(patient).limits == Limits(3, 0.25, 7.0, 2.0, 21.0, 5.0)
    assert Settings.of(patient).policy.brake_limit == 1
    assert notice == (
        "the times of redis_failover are kept for max_failures 3: a server counts as down when it refuses connections "
        "for 4 s, is silent for 21 s, or its host is for 21 s. For the times of rfmanager (0.1 s, 1.4 s, 0.8 s) write "
        "probe_timeout: 0.45, reconnect_interval: 0.01, unreachable_timeout: 0.8, brake_limit: 8"
    )


@pytest.mark.parametrize("failures", [1, 2, 3, 10])
def test_gems_patience__any_number_of_failures__that_many_attempts_as_the_gem_makes_them(failures: int) -> None:
    patient, notice = with_gems_patience(ManagerConfig(max_failures=failures))
    limits = patient.limits
    assert (limits.silence, limits.unreachable) == (7.0 * failures, 7.0 * failures)
    assert limits.refusal == 2.0 * (failures - 1)
    assert f"for {limits.refusal:g} s, is silent for {limits.silence:g} s" in notice


@pytest.mark.parametrize(
    ("option", "value"),
    [("probe_timeout", 0.5), ("reconnect_interval", 0.02), ("unreachable_timeout", 0.7), ("brake_limit", 4)],
)
def test_gems_patience__some_times_given__they_count_and_the_notice_names_the_rest(option: str, value: float) -> None:
    given = ManagerConfig.model_validate({option: value})
    patient, notice = with_gems_patience(given)
    assert getattr(patient, option) == value
    assert notice.startswith("where no others are given, the times") is (option != "brake_limit")
    own = notice.partition(" write ")[2]
    assert f"{option}:" not in own
    times = {"probe_timeout", "reconnect_interval", "unreachable_timeout"} - {option}
    assert all(f"{name}: {getattr(given, name):g}" in own for name in times)
    assert all(getattr(patient, name) != getattr(given, name) for name in times)


def test_gems_patience__what_the_notice_says_to_write__gives_rfmanagers_times_and_no_notice(tmp_path: Path) -> None:
    _, notice = with_gems_patience(in_file(tmp_path, ONE_ENVIRONMENT).config)
    lines = notice.partition(" write ")[2].replace(", ", "\n")
    config, silence = with_gems_patience(in_file(tmp_path, f"{ONE_ENVIRONMENT}{lines}\n").config)
    assert (config.limits, config.brake_limit, silence) == (Limits(), ManagerConfig().brake_limit, "")


@pytest.mark.parametrize("variable", [True, False])
def test_gems_patience__times_in_flags_or_variables__win(variable: bool, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(ONE_ENVIRONMENT)
    argv = ["-C", str(tmp_path / "c.yml"), *([] if variable else ["--probe-timeout", "0.3"])]
    config = parser().parse(argv, {"RFMANAGER_PROBE_TIMEOUT": "0.3"} if variable else {}).config
    assert with_gems_patience(config)[0].probe_timeout == 0.3


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
