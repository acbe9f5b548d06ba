"""Compiles the hot path with mypyc while the package is built, where that can be done; otherwise it runs interpreted.

There is one source: the same modules, typed, run either way. An editable installation is never compiled, since what is
edited would not be what runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

READERS = Path("protocol/rfprotocol/resp")
PROXY = Path("proxy/rfproxy")
INTERPRETED = {"process", "runtime"}
"""Packages of the proxy that start it, read options, or wait for the store."""
HOT = PROXY / "runtime" / "connections.py"
"""The module of these that every command passes through."""
CHECKED_ELSEWHERE = ("--follow-imports=silent", "--ignore-missing-imports", "--no-warn-unused-ignores")
"""Types are needed to compile; that they are right is asked where all dependencies are there."""

WITHOUT = (
    "rfproxy is built without its compiled core, which costs CPU time; to compile it, install a C compiler and "
    "the headers of Python (Debian: gcc python3-dev) and build it again"
)


def sources() -> list[str]:
    """The modules that every command passes through, and those that they share types with."""
    core = [path for path in sorted(PROXY.glob("*/*.py")) if path.parent.name not in INTERPRETED]
    return [str(path) for path in (*sorted(READERS.glob("*.py")), HOT, *core) if path.stem != "__init__"]


class BuildOrInterpret(build_ext):
    """Where there is no compiler, the package is built without extensions, and a line says so."""

    def run(self) -> None:
        """Turn the sources into C and compile that."""
        if self.editable_mode:
            self.extensions = []
            return
        try:
            self._compile()
        except (CCompilerError, ExecError, PlatformError, ImportError, SystemExit) as error:
            self.extensions = []
            print(f"{WITHOUT} ({type(error).__name__}: {str(error)[:80]})", file=sys.stderr)

    def _compile(self) -> None:
        from mypyc.build import mypycify  # noqa: PLC0415  # absent where nothing is compiled

        self.distribution.ext_modules = mypycify(
            [*CHECKED_ELSEWHERE, *sources()], opt_level="3", debug_level="0", group_name="rfproxy_core"
        )
        self.initialize_options()
        self.finalized = False
        self.ensure_finalized()
        super().run()


setup(ext_modules=[Extension("rfproxy_core", [])], cmdclass={"build_ext": BuildOrInterpret})
