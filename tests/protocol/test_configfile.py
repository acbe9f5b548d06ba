"""Configuration files, also those of Ruby's redis_failover."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from rfprotocol.configfile import read_file, read_secret
from rfprotocol.errors import ConfigError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yml"
    path.write_text(dedent(text))
    return str(path)


def test_the_gems_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        ---
        :max_failures: 2
        :node_strategy: majority
        :nodes:
          - localhost:6379
          - :host: localhost
            :port: 1111
        :zkservers:
          - localhost:2181
        :password: foobar
        """,
    )
    assert read_file(path) == {
        "max_failures": "2",
        "node_strategy": "majority",
        "nodes": ["localhost:6379", {"host": "localhost", "port": "1111"}],
        "zkservers": ["localhost:2181"],
        "password": "foobar",
    }


def test_keys_may_be_written_with_dashes_or_without_colons(tmp_path: Path) -> None:
    assert read_file(written(tmp_path, "max-failures: 2\nznode_path: /x\n")) == {
        "max_failures": "2",
        "znode_path": "/x",
    }


@pytest.mark.parametrize("scalar", ["0123", "1_000", "yes", "1e3", "12:30:45", "2020-01-01", "0x10"])
def test_scalars_stay_as_they_are_written(tmp_path: Path, scalar: str) -> None:
    assert read_file(written(tmp_path, f"password: {scalar}\n")) == {"password": scalar}


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_an_option_without_a_value_is_not_set(tmp_path: Path, nothing: str) -> None:
    assert read_file(written(tmp_path, f"fence_wait: {nothing}\n")) == {}


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert read_file(written(tmp_path, "# nothing yet\n")) == {}


ENVIRONMENTS = """
    defaults: &defaults
      max_failures: 2
    znode_path: /common
    :staging:
      <<: *defaults
      :nodes: [a:1]
    :production:
      :nodes: [b:1]
      :znode_path: /own
    """


@pytest.mark.parametrize("name", ["staging", ":staging"])
def test_one_environment_is_chosen_and_completed_by_what_stands_beside_them(tmp_path: Path, name: str) -> None:
    assert read_file(written(tmp_path, ENVIRONMENTS), name) == {
        "max_failures": "2",
        "nodes": ["a:1"],
        "znode_path": "/common",
    }


def test_an_environment_overrides_what_stands_beside_it(tmp_path: Path) -> None:
    assert read_file(written(tmp_path, ENVIRONMENTS), "production") == {"nodes": ["b:1"], "znode_path": "/own"}


def test_a_file_with_environments_needs_a_choice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yml: has environments \(defaults, staging, production\).*-E"):
        read_file(written(tmp_path, ENVIRONMENTS))


def test_an_unknown_environment_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no environment 'test', only: defaults, staging, production"):
        read_file(written(tmp_path, ENVIRONMENTS), "test")


def test_an_environment_of_a_file_without_any_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no environment 'test', only: none"):
        read_file(written(tmp_path, "max_failures: 2\n"), "test")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("password: hunter2\nnodes: [a:1\nx: 1\n", r"config\.yml: line \d: not valid YAML"),
        ("password: hunter2\n\tnodes: 1\n", r"config\.yml: line 2: not valid YAML"),
        ("password: !ruby/object:Secret hunter2\n", r"config\.yml: line 1: not valid YAML: .*tag"),
        ("password: hunter2\0\n", "not valid YAML"),
        ("- hunter2\n", "'option: value' lines"),
        ("hunter2\n", "'option: value' lines"),
        (":password: hunter2\npassword: hunter2\n", "password: given twice"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_place_and_quotes_nothing(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_file(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_a_folder_and_binary_data_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, complaint in [("absent", "No such file"), ("", "Is a directory"), ("binary", "not UTF-8")]:
        with pytest.raises(ConfigError, match=complaint):
            read_file(str(tmp_path / name))


def test_a_secret_is_the_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" hunter 2 \r\n")
    assert read_secret(str(path)) == " hunter 2 "


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n"])
def test_a_secret_is_not_guessed_from_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "password"
    path.write_text(text)
    with pytest.raises(ConfigError, match="should hold one line"):
        read_secret(str(path))
