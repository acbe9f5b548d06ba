"""Configuration files: YAML, as it is written today and as Ruby's `redis_failover` wrote it.

Every scalar is read as text, so that a file means the same as the environment and the flags do: the password
`0123` is not the number 83. Keys may have a leading colon, and top-level mappings are named environments of
which one is chosen; options beside them apply to all.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def read_file(path: str, environment: str = "") -> dict[str, Any]:
    """The options in a file, by name; in that `environment` when one is named.

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
    return _choose(options, path, environment)


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
        key = str(raw).removeprefix(":").replace("-", "_")
        if key in plain:
            raise ConfigError(f"{path}: {key}: given twice")
        if item is not None:
            plain[key] = _plain(item, path)
    return plain


def _choose(options: dict[str, Any], path: str, environment: str) -> dict[str, Any]:
    environments = {key: value for key, value in options.items() if isinstance(value, dict)}
    if not environments and not environment:
        return options
    names = ", ".join(environments) or "none"
    if not environment:
        raise ConfigError(f"{path}: has environments ({names}): choose one with -E")
    # Ruby writes the names with a colon as well, and an operator may copy them.
    chosen = environments.get(environment.removeprefix(":").replace("-", "_"))
    if chosen is None:
        raise ConfigError(f"{path}: has no environment {environment!r}, only: {names}")
    return {key: value for key, value in options.items() if key not in environments} | chosen
