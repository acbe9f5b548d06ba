"""Configuration files, also those of Ruby's redis_failover."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from rfprotocol.errors import ConfigError
from rfprotocol.settings.yaml_file import ConfigFile, as_the_gem, is_zero, read_file, read_secret, stripped


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
    assert read_file(path).options == {
        "max_failures": "2",
        "node_strategy": "majority",
        "nodes": ["localhost:6379", {"host": "localhost", "port": "1111"}],
        "zkservers": ["localhost:2181"],
        "password": "foobar",
    }


def test_keys_may_be_written_with_dashes_or_without_colons(tmp_path: Path) -> None:
    assert read_file(written(tmp_path, "max-failures: 2\nznode_path: /x\n")).options == {
        "max_failures": "2",
        "znode_path": "/x",
    }


@pytest.mark.parametrize("scalar", ["0123", "1_000", "yes", "1e3", "12:30:45", "2020-01-01", "0x10"])
def test_scalars_stay_as_they_are_written(tmp_path: Path, scalar: str) -> None:
    assert read_file(written(tmp_path, f"password: {scalar}\n")).options == {"password": scalar}


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_an_option_without_a_value_is_not_set(tmp_path: Path, nothing: str) -> None:
    assert read_file(written(tmp_path, f"fence_wait: {nothing}\n")).options == {}


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert read_file(written(tmp_path, "# nothing yet\n")).options == {}


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
    assert read_file(written(tmp_path, ENVIRONMENTS), name).options == {
        "max_failures": "2",
        "nodes": ["a:1"],
        "znode_path": "/common",
    }


def test_an_environment_overrides_what_stands_beside_it(tmp_path: Path) -> None:
    options = read_file(written(tmp_path, ENVIRONMENTS), "production").options
    assert options == {"nodes": ["b:1"], "znode_path": "/own"}


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


@pytest.mark.parametrize(
    ("text", "environment", "is_gems"),
    [
        ("max_failures: 2\n", "", False),
        ("nodes:\n  - :host: a\nnode_strategy: :majority\n", "", False),
        (":max_failures: 2\nnodes: [a]\n", "", True),
        (":staging:\n  max_failures: 2\n", "staging", True),
        ("staging:\n  :max_failures: 2\n", "staging", True),
        ("staging:\n  max_failures: 2\n", "staging", False),
        ("staging:\n  max_failures: 2\nother:\n  :max_failures: 2\n", "staging", False),
    ],
)
def test_read_file__a_key_with_a_colon__file_is_in_the_gems_form(
    tmp_path: Path, text: str, environment: str, is_gems: bool
) -> None:
    assert read_file(written(tmp_path, text), environment).is_gems is is_gems


KNOWN = ("nodes", "password", "max_failures", "required_node_managers", "brake_limit")
COUNTS = ("max_failures", "required_node_managers")


def taken(tmp_path: Path, text: str, environment: str = "") -> tuple[dict[str, object], list[str]]:
    return as_the_gem(read_file(written(tmp_path, text), environment), KNOWN, COUNTS)


def test_as_the_gem__unknown_keys__left_out_and_named_without_their_values(tmp_path: Path) -> None:
    options, [notice] = taken(tmp_path, ":nodes: [a]\n:logfile: /secret\n:pidfile: x\n")
    assert options == {"nodes": ["a"]}
    assert notice.endswith("config.yml: ignored: logfile, pidfile: no such option")


def test_as_the_gem__a_mapping_of_somebody_else_beside_servers__no_environment_but_an_unknown_key(
    tmp_path: Path,
) -> None:
    options, [notice] = taken(tmp_path, ":nodes: [a]\n:logging:\n  :level: info\n")
    assert options == {"nodes": ["a"]}
    assert "ignored: logging: no such option" in notice


def test_as_the_gem__texts__are_stripped_as_ruby_does(tmp_path: Path) -> None:
    options, notices = taken(tmp_path, ':password: " foo \\t\\u00a0"\n:nodes: [" a "]\n')
    assert options == {"password": "foo \t\u00a0", "nodes": [" a "]}
    assert notices == []
    assert stripped(" foo\0\n") == "foo"


@pytest.mark.parametrize("none", ["0", '"0"', '" 00 "', "-0"])
@pytest.mark.parametrize("count", COUNTS)
def test_as_the_gem__a_count_of_none__means_one_and_is_said(tmp_path: Path, count: str, none: str) -> None:
    options, [notice] = taken(tmp_path, f":{count}: {none}\n:brake_limit: 0\n")
    assert options == {count: "1", "brake_limit": "0"}
    assert notice.endswith(f"config.yml: {count}: 0 means 1, as with redis_failover: write 1")


def test_as_the_gem__options_beside_environments__only_those_without_a_colon_apply(tmp_path: Path) -> None:
    text = ":password: foo\n:max_failures: 2\nbrake_limit: 3\n:staging:\n  :nodes: [a]\n  :max_failures: 4\n"
    options, [notice] = taken(tmp_path, text, "staging")
    assert options == {"nodes": ["a"], "max_failures": "4", "brake_limit": "3"}
    assert "config.yml: ignored: :password: beside the environments" in notice
    assert "foo" not in notice


def test_config_file__shown__without_its_values() -> None:
    assert "hunter2" not in repr(ConfigFile("c.yml", {"password": "hunter2"}))


@pytest.mark.parametrize(("text", "zero"), [("0", True), ("-0", True), ("", False), ("0x", False), ("10", False)])
def test_is_zero__a_text__says_whether_it_counts_none(text: str, zero: bool) -> None:
    assert is_zero(text) is zero
