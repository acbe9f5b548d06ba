"""Options of the proxy, and the sample that shows them all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rfprotocol.errors import ConfigError
from rfprotocol.topology.topology import Node
from rfproxy.runtime.client_limits import OutputLimit, OutputLimits
from rfproxy.settings import ProxyConfig, parser
from tests.support.samples import DEPLOY, options_set, options_shown

SAMPLE = "rfproxy.yml"
EXAMPLES = {"username", "password", "password_file", "chroot", "nodes"}
"""Shown in the sample with a made-up value."""


def read(*argv: str) -> ProxyConfig:
    return parser().parse(argv, {}).config


def test_by_default_it_listens_on_the_loopback_and_reads_from_replicas() -> None:
    config = read("--zk", "z:1")
    assert config.listen == Node("127.0.0.1", 6380)
    assert (config.reads, config.retry_writes, config.on_store_loss) == ("replica", "idempotent", "hold")
    assert not config.allow_admin
    assert (config.write_safety, config.durable_replicas, config.durable_timeout) == ("async", 1, 1.0)
    assert (config.hold_timeout, config.hold_bytes, config.max_clients) == (30.0, 256 * 1024 * 1024, 10_000)
    assert not config.embedded


def test_servers_instead_of_zookeeper_mean_the_embedded_mode() -> None:
    config = read("--nodes", "a:1,[::1]:2,c:3", "--listen", "[::]:0", "--max-failures", "2")
    assert config.embedded
    assert config.nodes == (Node("a", 1), Node("::1", 2), Node("c", 3))
    assert config.listen == Node("::", 0)


def test_there_are_as_many_workers_as_one_says_or_as_there_are_cpus_to_use() -> None:
    assert read("--zk", "z:1").workers == 1
    assert read("--zk", "z:1", "--workers", "3").workers == 3
    assert read("--zk", "z:1", "--workers", "auto").workers == len(os.sched_getaffinity(0))
    for wrong in ("0", "many"):
        with pytest.raises(ConfigError, match="--workers"):
            read("--zk", "z:1", "--workers", wrong)


def test_in_the_embedded_mode_there_is_one_worker() -> None:
    with pytest.raises(ConfigError, match="only one manager may decide"):
        read("--nodes", "a:1", "--workers", "2")


def test_limits_have_the_names_and_the_defaults_of_redis() -> None:
    config = read("--zk", "z:1")
    assert (config.timeout, config.tcp_keepalive, config.client_query_buffer_limit) == (0, 300, 1 << 30)
    assert config.client_output_buffer_limit == OutputLimits()
    config = read("--zk", "z:1", "--timeout", "10", "--tcp-keepalive", "0", "--client-query-buffer-limit", "2mb")
    assert (config.timeout, config.tcp_keepalive, config.client_query_buffer_limit) == (10, 0, 2 << 20)
    config = read("--zk", "z:1", "--client-output-buffer-limit", "normal 1mb 1kb 5")
    assert config.client_output_buffer_limit == OutputLimits(normal=OutputLimit(1 << 20, 1 << 10, 5))


def test_limits_can_come_from_the_environment() -> None:
    environ = {"RFPROXY_CLIENT_OUTPUT_BUFFER_LIMIT": "pubsub 1 2 3", "RFPROXY_ALLOW_ADMIN": "yes"}
    config = parser().parse(["--zk", "z:1"], environ).config
    assert config.client_output_buffer_limit == OutputLimits(pubsub=OutputLimit(1, 2, 3))
    assert config.allow_admin


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--timeout", "-1"),
        ("--tcp-keepalive", "32768"),
        ("--client-query-buffer-limit", "1023kb"),
        ("--client-output-buffer-limit", "replica 0 0 0"),
    ],
)
def test_impossible_limits_are_refused_by_name(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{option}: "):
        read("--zk", "z:1", f"{option}={value}")


@pytest.mark.parametrize(
    ("argv", "why"), [([], "one of them is needed"), (["--zk", "z:1", "--nodes", "a:1"], "not both")]
)
def test_it_needs_either_zookeeper_or_servers(argv: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=f"^--zk and --nodes: {why}"):
        read(*argv)


def test_sizes_may_have_units() -> None:
    assert read("--zk", "z:1", "--hold-bytes", "1MiB").hold_bytes == 1024 * 1024
    assert read("--zk", "z:1", "--hold-bytes", "1mb").hold_bytes == 1024 * 1024
    with pytest.raises(ConfigError, match=r"^--hold-bytes: "):
        read("--zk", "z:1", "--hold-bytes", "many")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/rfproxy:/var/lib/other", "XDG_STATE_HOME": "/state"}, "/var/lib/rfproxy"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/h"}, "/state/rfproxy"),
        ({"HOME": "/h"}, "/h/.local/state/rfproxy"),
    ],
)
def test_the_state_is_kept_where_systemd_or_the_user_keeps_it(
    environ: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert read("--zk", "z:1").state_dir == Path(folder)
    assert read("--zk", "z:1", "--state-dir", "/elsewhere").state_dir == Path("/elsewhere")


def test_the_sample_loads_and_shows_every_option() -> None:
    assert not read("-C", str(DEPLOY / SAMPLE)).embedded
    assert options_set(SAMPLE) | set(options_shown(SAMPLE)) == set(ProxyConfig.model_fields)


@pytest.mark.parametrize(
    ("option", "value"), [item for item in options_shown(SAMPLE).items() if item[0] not in EXAMPLES]
)
def test_what_the_sample_shows_as_default_is_the_default(option: str, value: str, tmp_path: Path) -> None:
    sample = DEPLOY / SAMPLE
    (tmp_path / "c.yml").write_text(f"{sample.read_text()}\n{option}: {value}\n")
    assert read("-C", str(tmp_path / "c.yml")) == read("-C", str(sample))
