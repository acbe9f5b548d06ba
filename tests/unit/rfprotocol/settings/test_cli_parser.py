"""Where options come from, which source wins, and what a user reads when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import SecretStr

from rfprotocol.errors import ConfigError
from rfprotocol.settings.cli_parser import OptionParser, Parsed, load
from rfprotocol.settings.fields import CommonOptions, Count, Flag, RubySymbol, Seconds, Servers
from rfprotocol.topology.topology import Node


class Sample(CommonOptions):
    env_prefix: ClassVar[str] = "SAMPLE_"

    nodes: Annotated[Servers, Flag("servers", ("-n", "--nodes"), "HOST:PORT,...")] = ()
    attempts: Annotated[Count, Flag("how often; 100% of them")] = 3
    patience: Annotated[Seconds | None, Flag("how long")] = None
    manner: Annotated[Literal["kind", "rude"], RubySymbol, Flag("how")] = "kind"
    loud: Annotated[bool, Flag("shout", ("-l", "--loud"))] = False


def sample(*argv: str, **environ: str) -> Sample:
    return load(Sample, argv, prog="sample", environ=environ)


def complaint(*argv: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        sample(*argv, **environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.yml"
    path.write_text("attempts: 10\npatience: 1\nmanner: :rude\nnodes: [a:1, b:2]\nloud: true\n")
    return path


def test_without_anything_the_defaults_apply() -> None:
    assert sample() == Sample()


def test_a_file_gives_values_of_every_type(file: Path) -> None:
    config = sample("-C", str(file))
    assert (config.attempts, config.patience, config.manner, config.loud) == (10, 1.0, "rude", True)
    assert config.nodes == (Node("a", 1), Node("b", 2))


def test_flags_win_over_the_environment_which_wins_over_the_file(file: Path) -> None:
    argv = ["--config", str(file), "--attempts", "30"]
    environ = {"SAMPLE_ATTEMPTS": "20", "SAMPLE_PATIENCE": "2"}
    config = sample(*argv, **environ)
    assert (config.attempts, config.patience, config.manner) == (30, 2.0, "rude")


def test_the_file_and_its_environment_may_be_named_by_variables(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(":test:\n  :attempts: 7\n")
    assert sample(SAMPLE_CONFIG=str(tmp_path / "c.yml"), SAMPLE_ENVIRONMENT="test").attempts == 7


def test_flags_can_be_joined_with_their_value() -> None:
    assert sample("-na:1", "--attempts=5", "-l") == Sample(nodes=(Node("a", 1),), attempts=5, loud=True)


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert sample(SAMPLE_PASSWORD="", SAMPLE_ATTEMPTS="").attempts == 3


def test_variables_of_other_programs_and_of_kubernetes_do_not_matter() -> None:
    links = {"SAMPLE_SERVICE_HOST": "10.0.0.1", "SAMPLE_PORT": "tcp://10.0.0.1:1", "SAMPLE_PORT_6380_TCP_ADDR": "x"}
    assert sample(OTHER_ATTEMPTS="x", **links) == Sample()


class TestWhatIsWrong:
    def test_in_a_flag(self) -> None:
        assert complaint("--attempts", "0") == "--attempts: should be at least 1, not '0': write 1"
        assert complaint("--attempts", "-1") == "--attempts: should be greater than or equal to 1, not '-1'"
        assert complaint("--manner", "odd") == "--manner: should be 'kind' or 'rude', not 'odd'"
        assert complaint("-n", "a:").startswith("--nodes: 'a:' is not host:port")
        assert complaint("--loud=maybe").startswith("-l/--loud:")
        assert complaint("--patience", "nan").startswith("--patience: should be a finite number")

    def test_in_a_variable(self) -> None:
        assert complaint(SAMPLE_ATTEMPTS="x").startswith("SAMPLE_ATTEMPTS: should be a valid integer")

    def test_in_a_file(self, file: Path) -> None:
        file.write_text("nodes: [a:1, b:x]\n")
        assert complaint("-C", str(file)).startswith(f"{file}: nodes: 'b:x' is not host:port")

    def test_an_unknown_key_in_a_file(self, file: Path) -> None:
        file.write_text(":atempts: 3\n")
        assert complaint("-C", str(file)) == f"{file}: atempts: no such option (did you mean attempts?)"

    def test_an_unknown_variable(self) -> None:
        assert "SAMPLE_ATEMPTS: no such option" in complaint(SAMPLE_ATEMPTS="3")
        assert "did you mean SAMPLE_ATTEMPTS?" in complaint(SAMPLE_ATEMPTS="3")

    def test_an_unknown_flag(self) -> None:
        assert complaint("--atempts", "3") == "--atempts: no such option (did you mean --attempts?)"
        assert complaint("--attempts", "-3").startswith("--attempts: ")
        assert complaint("-x", "3").startswith("-x: no such option")

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("--att", "--attempts"),
            ("--znode", "--znode-path"),
            ("--pa", "--password or --password-file or --patience"),
            ("--log", "--log-format or --log-level"),
            ("--password-fil=x", "--password-file"),
        ],
    )
    def test_an_abbreviated_flag__refused_with_all_that_may_be_meant(self, given: str, meant: str) -> None:
        name = given.partition("=")[0]
        assert complaint(given, "4") == f"{name}: no such option (did you mean {meant}?)"

    def test_a_flag_without_its_value(self) -> None:
        assert complaint("--attempts").startswith("--attempts: expected one argument")

    def test_a_word_too_many(self) -> None:
        assert complaint("-l", "extra").startswith("extra: not expected here")

    def test_a_missing_file(self) -> None:
        assert complaint("-C", "/absent.yml") == "/absent.yml: cannot be read: No such file or directory"

    def test_an_environment_without_a_file(self) -> None:
        assert complaint("-E", "test") == "--environment: names a part of a file, which has to be given too (-C)"

    def test_a_required_option_that_is_nowhere(self) -> None:
        with pytest.raises(ConfigError) as caught:
            load(Sample, [], prog="sample", environ={}, required=("zkservers",))
        expected = "zkservers is missing: give --zkservers, SAMPLE_ZKSERVERS or a file (-C) that has it"
        assert str(caught.value) == expected

    def test_is_one_line_on_stderr_and_exit_status_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            OptionParser(Sample, "sample").parse_or_exit(["--attempts", "0"], {})
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err == "sample: --attempts: should be at least 1, not '0': write 1\n"


class Successor(Sample):
    """Takes over from the gem."""

    gems_counts: ClassVar[frozenset[str] | None] = frozenset({"attempts"})


class TestFilesOfTheGem:
    def parsed(self, tmp_path: Path, text: str, *argv: str) -> Parsed[Successor]:
        (tmp_path / "c.yml").write_text(text)
        return OptionParser(Successor, "sample").parse(["-C", str(tmp_path / "c.yml"), *argv], {})

    def test_are_read_as_the_gem_does_and_what_is_passed_over_is_told(self, tmp_path: Path) -> None:
        parsed = self.parsed(tmp_path, ':attempts: 0\n:logfile: x\n:password: " foo "\n')
        assert parsed.is_gems
        assert parsed.config.attempts == 1
        assert parsed.config.password == SecretStr("foo")
        assert ["logfile" in parsed.notices[0], "attempts: 0 means 1" in parsed.notices[1]] == [True, True]
        assert "foo" not in repr(parsed)

    def test_flags_win_over_them(self, tmp_path: Path) -> None:
        assert self.parsed(tmp_path, ":attempts: 3\n", "--attempts", "4").config.attempts == 4

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("atempts: 3\n", "atempts: no such option (did you mean attempts?)"),
            ("attempts: 0\n", "attempts: should be at least 1, not '0': write 1"),
        ],
    )
    def test_others_are_read_strictly(self, tmp_path: Path, text: str, wrong: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.parsed(tmp_path, text)
        assert str(caught.value) == f"{tmp_path / 'c.yml'}: {wrong}"

    def test_a_password_of_another_file_keeps_its_blanks(self, tmp_path: Path) -> None:
        parsed = self.parsed(tmp_path, 'password: " foo "\n')
        assert not parsed.is_gems
        assert parsed.notices == ()
        assert parsed.config.password == SecretStr(" foo ")

    def test_a_count_of_none_in_a_flag_is_refused_beside_them(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--attempts: should be at least 1"):
            self.parsed(tmp_path, ":attempts: 3\n", "--attempts", "0")


class TestThePassword:
    @pytest.fixture
    def secret(self, tmp_path: Path) -> str:
        path = tmp_path / "password"
        path.write_text("hunter2\n")
        return str(path)

    def read(self, *argv: str, **environ: str) -> str | None:
        password = sample(*argv, **environ).password
        return password.get_secret_value() if password else None

    def test_comes_from_a_flag_a_variable_a_file_or_a_file_of_its_own(self, secret: str, tmp_path: Path) -> None:
        config = tmp_path / "c.yml"
        config.write_text("password: hunter2\n")
        pointing = tmp_path / "p.yml"
        pointing.write_text(f"password_file: {secret}\n")
        assert self.read() is None
        assert self.read("-p", "hunter2") == "hunter2"
        assert self.read("--password-file", secret) == "hunter2"
        assert self.read(SAMPLE_PASSWORD="hunter2") == "hunter2"
        assert self.read(SAMPLE_PASSWORD_FILE=secret) == "hunter2"
        assert self.read("-C", str(config)) == "hunter2"
        assert self.read("-C", str(pointing)) == "hunter2"

    def test_follows_the_same_order_whichever_way_it_is_given(self, secret: str) -> None:
        assert self.read("--password-file", secret, SAMPLE_PASSWORD="other") == "hunter2"
        assert self.read("-p", "other", SAMPLE_PASSWORD_FILE=secret) == "other"

    def test_given_in_two_ways_at_once_is_ambiguous(self, secret: str) -> None:
        text = complaint("-p", "hunter2", "--password-file", secret)
        assert text == "--password-file: given together with --password: which one?"

    def test_in_a_file_that_cannot_be_read_is_an_error(self) -> None:
        text = complaint(SAMPLE_PASSWORD_FILE="/absent")
        assert text == "SAMPLE_PASSWORD_FILE: /absent: cannot be read: No such file or directory"

    def test_is_text_even_if_it_looks_like_a_number(self, tmp_path: Path) -> None:
        (tmp_path / "c.yml").write_text(":password: 0123\n")
        assert self.read("-C", str(tmp_path / "c.yml")) == "0123"

    @pytest.mark.parametrize(
        "argv",
        [
            ["--pasword", "hunter2"],
            ["--pasword=hunter2"],
            ["-P", "hunter2"],
            ["-p", "hunter2", "--attempts", "0"],
            ["-p", "hunter2", "status", "extra"],
        ],
    )
    def test_is_never_quoted_in_an_error(self, argv: list[str]) -> None:
        parser = OptionParser(Sample, "sample")
        parser.command("status", "say what is")
        with pytest.raises(ConfigError) as caught:
            parser.parse(argv, {})
        assert "hunter2" not in str(caught.value)

    def test_of_a_wrong_type_is_not_quoted_either(self, tmp_path: Path) -> None:
        (tmp_path / "c.yml").write_text("password: [hunter2]\n")
        text = complaint("-C", str(tmp_path / "c.yml"))
        assert "password: should be" in text
        assert "hunter2" not in text

    def test_does_not_show_in_what_was_parsed(self) -> None:
        assert "hunter2" not in repr(OptionParser(Sample, "sample").parse(["-p", "hunter2"], {}))


class TestCommands:
    @pytest.fixture
    def parser(self) -> OptionParser[Sample]:
        parser = OptionParser(Sample, "sample", required=("nodes",))
        parser.command("status", "say what is").add_argument("--json", action="store_true")
        parser.command("go", "go on", options=("zkservers", "attempts"), required=()).add_argument("--to")
        return parser

    def test_without_a_command_the_programs_own_options_are_required(self, parser: OptionParser[Sample]) -> None:
        parsed = parser.parse(["-n", "a:1"], {})
        assert (parsed.command, parsed.config.nodes) == ("", (Node("a", 1),))
        with pytest.raises(ConfigError, match="nodes is missing"):
            parser.parse([], {})

    def test_a_command_has_arguments_of_its_own(self, parser: OptionParser[Sample]) -> None:
        parsed = parser.parse(["status", "--zk", "z:1", "--json"], {})
        assert (parsed.command, parsed.config.zkservers, parsed.arguments.json) == ("status", "z:1", True)
        assert parser.parse(["go", "--to", "x"], {}).arguments.to == "x"

    def test_options_may_stand_before_the_command(self, parser: OptionParser[Sample]) -> None:
        assert parser.parse(["-z", "z:1", "status"], {}).config.zkservers == "z:1"
        assert parser.parse(["-z", "y:1", "status", "-z", "z:1"], {}).config.zkservers == "z:1"

    def test_a_command_reads_the_file_of_the_program(self, parser: OptionParser[Sample], file: Path) -> None:
        assert parser.parse(["status", "-z", "z:1", "-C", str(file)], {}).config.attempts == 10

    def test_a_command_says_which_option_it_misses(self, parser: OptionParser[Sample]) -> None:
        with pytest.raises(ConfigError, match="zkservers is missing"):
            parser.parse(["status"], {})

    def test_a_command_does_not_take_what_it_has_no_use_for(self, parser: OptionParser[Sample]) -> None:
        with pytest.raises(ConfigError, match="--attempts: not expected here"):
            parser.parse(["status", "-z", "z:1", "--attempts", "5"], {})

    def test_an_unknown_command_is_told_apart_from_the_known_ones(self, parser: OptionParser[Sample]) -> None:
        with pytest.raises(ConfigError, match=r"COMMAND: invalid choice: 'stauts'.*status"):
            parser.parse(["stauts"], {})


def test_help_shows_each_option_with_its_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sample("--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "how often; 100% of them (default: 3) [SAMPLE_ATTEMPTS]" in shown
    assert "--manner kind|rude" in shown
    assert "-z HOST:PORT,..., --zkservers HOST:PORT,..., --zk HOST:PORT,..." in shown
    for name in Sample.model_fields:
        assert f"[SAMPLE_{name.upper()}]" in shown


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sample("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("sample 0.")
