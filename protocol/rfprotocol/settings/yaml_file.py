"""Configuration files: YAML, as it is written today and as Ruby's `redis_failover`, the gem, wrote it.

Every scalar is read as text, so that a file means the same as the environment and the flags do: the password
`0123` is not the number 83. Keys may have a leading colon, and top-level mappings are named environments of
which one is chosen; options beside them apply to all.

A file with such colons was written for the gem, which is less strict: `as_the_gem` reads it as the gem does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from rfprotocol.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Knows text and null only, and `<<` to merge."""


_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [(tag, regexp) for tag, regexp in resolvers if tag.endswith((":null", ":merge"))])
}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says. `options` by name, without colons and with underscores."""

    path: str
    options: dict[str, Any] = field(repr=False)
    is_gems: bool = False  # a key has a leading colon
    beside: tuple[str, ...] = ()  # those of the options that stand beside the environments, with a colon


def read_file(path: str, environment: str = "") -> ConfigFile:
    """The options in a file; in that `environment` when one is named.

    Raises ConfigError, without quoting the file, which may hold secrets.
    """
    try:
        content = yaml.load(read_text(path), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError(f"{path}:{line} not valid YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{path}: not valid YAML: it holds characters that YAML does not allow") from None
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: a configuration file consists of 'option: value' lines")
    options: dict[str, Any] = _plain(content, path)
    return _choose(ConfigFile(path, options, bool(_symbols(content))), content, environment)


def as_the_gem(file: ConfigFile, known: Collection[str], counts: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The options as the gem takes them, and a sentence on each thing that it passes over.

    It looks only at options that are `known`, and only in the chosen environment; it strips texts; and of `counts`
    none means one. Keys without a colon are none of the gem's: those beside the environments apply.
    """
    notices = []
    options = {name: value for name, value in file.options.items() if name not in file.beside}
    if file.beside:
        names = ", ".join(f":{name}" for name in file.beside)
        why = "beside the environments, where redis_failover does not look either"
        notices.append(f"{file.path}: ignored: {names}: {why}; write them into each of them")
    if unknown := [name for name in options if name not in known]:
        notices.append(f"{file.path}: ignored: {', '.join(unknown)}: no such option")
    taken = {name: stripped(value) for name, value in options.items() if name in known}
    for name in counts:
        if isinstance(value := taken.get(name), str) and is_zero(value):
            taken[name] = "1"
            notices.append(f"{file.path}: {name}: 0 means 1, as with redis_failover: write 1")
    return taken, notices


def stripped(value: Any) -> Any:
    """Texts as the gem takes them, without what Ruby calls blank around them."""
    return value.strip(" \t\n\v\f\r\0") if isinstance(value, str) else value


def is_zero(text: str) -> bool:
    """Whether a count is written that means none."""
    return re.fullmatch(r"\s*[+-]?0+\s*", text) is not None


def read_secret(path: str) -> str:
    """The first and only line of a file. Raises ConfigError."""
    secret = read_text(path).rstrip("\r\n")
    if not secret or "\n" in secret:
        raise ConfigError(f"{path}: should hold one line, the secret itself")
    return secret


def read_text(path: str) -> str:
    """Raises ConfigError when the file is missing, unreadable or not text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None


def _plain(value: Any, path: str) -> Any:
    """The same without the colons of Ruby's symbols, with underscores, and without what is set to null."""
    if isinstance(value, list):
        return [_plain(item, path) for item in value]
    if not isinstance(value, Mapping):
        return value
    plain: dict[str, Any] = {}
    for raw, item in value.items():
        key = _name(raw)
        if key in plain:
            raise ConfigError(f"{path}: {key}: given twice")
        if item is not None:
            plain[key] = _plain(item, path)
    return plain


def _choose(file: ConfigFile, content: Mapping[Any, Any], environment: str) -> ConfigFile:
    environments = {key: value for key, value in file.options.items() if isinstance(value, dict)}
    # With servers at its top a file of the gem has no environments: it may hold mappings that are others' business.
    if not environment and (not environments or "nodes" in _symbols(content)):
        return file
    names = ", ".join(environments) or "none"
    if not environment:
        raise ConfigError(f"{file.path}: has environments ({names}): choose one with -E")
    # Ruby writes the names with a colon as well, and an operator may copy them.
    wanted = _name(environment)
    if wanted not in environments:
        raise ConfigError(f"{file.path}: has no environment {environment!r}, only: {names}")
    chosen = environments[wanted]
    others = {key: value for key, value in file.options.items() if key not in environments}
    inside = next(value for key, value in content.items() if _name(key) == wanted)
    beside = tuple(name for name in _symbols(content) if name in others and name not in chosen)
    return replace(file, options=others | chosen, is_gems=file.is_gems or bool(_symbols(inside)), beside=beside)


def _symbols(mapping: Mapping[Any, Any]) -> list[str]:
    """The names of the keys that are written as Ruby's symbols."""
    return [_name(key) for key in mapping if str(key).startswith(":")]


def _name(key: object) -> str:
    return str(key).removeprefix(":").replace("-", "_")
