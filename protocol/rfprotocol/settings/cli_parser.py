"""Reads a model of options from flags, the environment and a file.

Where a value is given more than once, flags win over the environment, the environment over the file, the file
over the default. Whatever is wrong becomes one `ConfigError` that names the option and the place it was given
in, and never a secret.

(pydantic-settings does not tell which of its sources a bad value came from, and passes over unknown
variables; both matter more here than the lines it would save.)
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rfprotocol.errors import ConfigError
from rfprotocol.settings.fields import STORE_OPTIONS, Flag, Options
from rfprotocol.settings.yaml_file import as_the_gem, read_file, read_secret

_DISTRIBUTION = "redis-failover-proxy"

# Kubernetes sets these for a service that is named like the program; nobody wrote them.
_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?")

_NUMBER = re.compile(r"-[0-9.]+")  # a value, if a wrong one

M = TypeVar("M", bound=Options)

Needed = str | tuple[str, ...]
"""An option that must be given, or several of which one must be."""


@dataclass(frozen=True, slots=True)
class Parsed(Generic[M]):
    """What the user asked for."""

    config: M
    command: str = ""  # empty: none was named
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)  # the command's own
    is_gems: bool = False  # there is a file, in the form of the gem
    notices: tuple[str, ...] = ()  # what of it was passed over, a sentence each


class OptionParser(Generic[M]):
    """The command line of one program. `required` are options that must be given when no command is named; of those
    that stand together in a tuple, one."""

    def __init__(self, model: type[M], prog: str, description: str = "", required: Sequence[Needed] = ()) -> None:
        self._model = model
        self._required = {"": tuple(required)}
        self._root = _ArgumentParser(prog=prog, description=description, allow_abbrev=False)
        self._root.add_argument("--version", action="version", version=f"{prog} {version(_DISTRIBUTION)}")
        self._root.add_options(model, tuple(model.model_fields))
        self._parsers = [self._root]
        self._commands: Callable[..., _ArgumentParser] | None = None

    def command(
        self, name: str, help: str, options: Sequence[str] = STORE_OPTIONS, required: Sequence[Needed] = ("zkservers",)
    ) -> argparse.ArgumentParser:
        """Add a command that takes some of the model's options; its own arguments are added to what is returned."""
        if self._commands is None:
            group = self._root.add_subparsers(title="commands", dest="command", metavar="COMMAND")
            self._commands = group.add_parser
        parser = self._commands(name, help=help, description=help, allow_abbrev=False)
        parser.add_options(self._model, options)
        self._parsers.append(parser)
        self._required[name] = tuple(required)
        return parser

    def parse(self, argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Parsed[M]:
        """Read everything. Raises ConfigError. `--help` and `--version` print and exit 0."""
        arguments = self._arguments(sys.argv[1:] if argv is None else argv)
        command = vars(arguments).pop("command", None) or ""
        fields = self._model.model_fields
        named = [name for name in (*fields, *_META) if name in arguments]
        flags = {name: _Given(vars(arguments).pop(name), _flag_name(fields, name)) for name in named}
        config, file = self._load(flags, os.environ if environ is None else environ, self._required[command])
        return Parsed(config, command, arguments, file.is_gems, file.notices)

    def parse_or_exit(self, argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Parsed[M]:
        """`parse`, for a program's main: what is wrong goes to stderr as one line, exit status 2."""
        try:
            return self.parse(argv, environ)
        except ConfigError as error:
            print(f"{self._root.prog}: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    def _arguments(self, argv: Sequence[str]) -> argparse.Namespace:
        # argparse would take the word after an unknown flag, perhaps a password, for a command, and quote it.
        known: set[str] = set().union(*(parser.names for parser in self._parsers))
        for word in argv:
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if name.startswith("-") and name not in {*known, "-", "--"} and not _NUMBER.fullmatch(word):
                raise ConfigError(f"{name}: no such option{_did_you_mean(name, known)}")
        arguments, rest = self._root.parse_known_args(list(argv))
        if rest:
            raise ConfigError(f"{rest[0].partition('=')[0]}: not expected here (try --help)")
        return arguments

    def _load(self, flags: _Layer, environ: Mapping[str, str], required: Sequence[Needed]) -> tuple[M, _File]:
        model = self._model
        variables = _from_environment(model, environ)
        path, section = (flags.pop(name, None) or variables.pop(name, None) for name in _META)
        if section and not path:
            raise ConfigError(f"{section.origin}: names a part of a file, which has to be given too (-C)")
        file = _from_file(model, str(path.value), str(section.value) if section else "") if path else _File()
        given = _with_secrets(file.layer) | _with_secrets(variables) | _with_secrets(flags)
        try:
            config = model.model_validate({name: item.value for name, item in given.items()})
        except ValidationError as error:
            raise ConfigError(_explain(error, given)) from None
        for needed in required:
            name, *others = (needed,) if isinstance(needed, str) else needed
            if not any(getattr(config, one) for one in (name, *others)):
                flag, variable = _flag_name(model.model_fields, name), model.env_prefix + name.upper()
                instead = "".join(f", or else {_flag_name(model.model_fields, other)}" for other in others)
                raise ConfigError(f"{name} is missing: give {flag}, {variable} or a file (-C) that has it{instead}")
        return config, file


def load(
    model: type[M],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str = "",
    required: Sequence[Needed] = (),
    environ: Mapping[str, str] | None = None,
) -> M:
    """The options of a program without commands. Raises ConfigError."""
    return OptionParser(model, prog, description, required).parse(argv, environ).config


_META = ("config", "environment")
"""Options that say where options are; the model does not have them."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as the user wrote it, and where, in the words of an error message."""

    value: Any = field(repr=False)
    origin: str


_Layer = dict[str, _Given]


@dataclass(frozen=True, slots=True)
class _File:
    layer: _Layer = field(default_factory=dict)
    is_gems: bool = False
    notices: tuple[str, ...] = ()


class _ArgumentParser(argparse.ArgumentParser):
    """argparse that raises, and that remembers the names of its options."""

    def __init__(self, **settings: Any) -> None:
        self.names: set[str] = set()
        super().__init__(**settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        self.names.update(names)
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')} (try --help)")

    def add_options(self, model: type[Options], fields: Sequence[str]) -> None:
        """Offer these fields of the model. All values stay text: the model is who judges them."""
        variable = model.env_prefix
        self.add_argument(
            "-C",
            "--config",
            default=argparse.SUPPRESS,
            metavar="PATH",
            help=f"YAML file with options [{variable}CONFIG]",
        )
        self.add_argument(
            "-E",
            "--environment",
            default=argparse.SUPPRESS,
            metavar="ENV",
            help=f"part of the file to use [{variable}ENVIRONMENT]",
        )
        groups: dict[str, Any] = {}
        for name in fields:
            info = model.model_fields[name]
            flag = _flag(info)
            if flag.group not in groups:
                groups[flag.group] = self.add_argument_group(flag.group)
            names = flag.names or (_dashed(name),)
            self.names.update(names)
            settings: dict[str, Any] = {"metavar": flag.metavar or _choices(info) or name.upper()}
            if info.annotation is bool:
                settings = {"action": "store_const", "const": "true"}
            groups[flag.group].add_argument(
                *names,
                dest=name,
                default=argparse.SUPPRESS,
                help=_help(info, flag, variable + name.upper()),
                **settings,
            )


def _flag(info: FieldInfo) -> Flag:
    return next(item for item in info.metadata if isinstance(item, Flag))


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flag_name(fields: Mapping[str, FieldInfo], name: str) -> str:
    names = _flag(fields[name]).names if name in fields else ()
    return next((flag for flag in names if flag.startswith("--")), _dashed(name))


def _choices(info: FieldInfo) -> str:
    choices = [
        value
        for part in (info.annotation, *get_args(info.annotation))
        if get_origin(part) is Literal
        for value in get_args(part)
    ]
    return "|".join(choices)


def _help(info: FieldInfo, flag: Flag, variable: str) -> str:
    unsaid = info.default is False or info.default in (None, "", (), PydanticUndefined)
    default = "" if unsaid else f" (default: {info.default})"
    return f"{flag.help}{default} [{variable}]".replace("%", "%%")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """Names that are abbreviated count before those that are misspelt."""
    known = sorted(known)
    meant = [one for one in known if one.startswith(name) and name.strip("-")]
    meant = meant or difflib.get_close_matches(name, known, 1)
    return f" (did you mean {' or '.join(meant)}?)" if meant else ""


def _from_environment(model: type[Options], environ: Mapping[str, str]) -> _Layer:
    known = (*model.model_fields, *_META)
    layer: _Layer = {}
    for variable, value in environ.items():
        suffix = variable.removeprefix(model.env_prefix)
        if suffix == variable or _KUBERNETES.fullmatch(suffix):
            continue
        if suffix.lower() not in known or suffix != suffix.upper():
            near = _did_you_mean(variable, [model.env_prefix + name.upper() for name in known])
            raise ConfigError(f"{variable}: no such option (environment variable){near}")
        if value:  # a unit file or a container can only empty a variable, not remove it
            layer[suffix.lower()] = _Given(value, variable)
    return layer


def _from_file(model: type[Options], path: str, section: str) -> _File:
    file = read_file(path, section)
    options, notices = file.options, list[str]()
    if file.is_gems and model.gems_counts is not None:
        options, notices = as_the_gem(file, model.model_fields, model.gems_counts)
    for key in options:
        if key not in model.model_fields:
            raise ConfigError(f"{path}: {key}: no such option{_did_you_mean(key, model.model_fields)}")
    layer = {key: _Given(value, f"{path}: {key}") for key, value in options.items()}
    return _File(layer, file.is_gems, tuple(notices))


def _with_secrets(layer: _Layer) -> _Layer:
    """Read the password that the layer only points to; in the same layer, so that precedence holds."""
    pointer = layer.get("password_file")
    if pointer is None:
        return layer
    if "password" in layer:
        raise ConfigError(f"{pointer.origin}: given together with {layer['password'].origin}: which one?")
    try:
        secret = read_secret(str(pointer.value))
    except ConfigError as error:
        raise ConfigError(f"{pointer.origin}: {error}") from None
    return layer | {"password": _Given(secret, pointer.origin)}


def _explain(error: ValidationError, given: _Layer) -> str:
    """The first thing that is wrong, in one line, with its place."""
    first = error.errors(include_url=False)[0]
    text = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:
        return text
    name = str(first["loc"][0])
    value = given[name].value if name in given else None
    if first["type"] != "value_error" and isinstance(value, str) and name != "password":
        text += f", not {value!r}"
    return f"{given[name].origin if name in given else name}: {text}"
