"""Servers of several versions: those that are installed, and what to leave out where they are not."""

from __future__ import annotations

import os

import pytest

from deploy.processes import PROGRAMS
from deploy.servers import Server, the

__all__ = ["Server", "chosen", "only"]


def chosen(*names: str) -> list[object]:
    """Parameters: the servers of these lines, or None for those that the environment says (`make matrix`)."""
    return [pytest.param(None, id="chosen")] if PROGRAMS in os.environ else [only(name) for name in names]


def only(*names: str, marks: tuple[pytest.MarkDecorator, ...] = ()) -> object:
    """A parameter for pytest: the servers of these lines, such as "Redis 8"; left out where one is not installed."""
    servers = [the(name) for name in names]
    missing = [name for name, server in zip(names, servers, strict=True) if server is None]
    reason = f"{', '.join(missing)} cannot be run here: python -m deploy.servers says why"
    left_out = (pytest.mark.skip(reason=reason),) if missing else ()
    return pytest.param(*servers, id=" to ".join(names), marks=(*marks, *left_out))
