"""The readers as they are, and the same sources compiled by mypyc: whatever holds must hold for both."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from rfprotocol.resp import inline, reply_scanner, resp

_PACKAGE = "rfcompiled"
_FOLDER = Path(str(resp.__file__)).parent
_NAMES = ("reply_scanner", "inline", "resp")


@dataclass(frozen=True)
class Build:
    """One way to run the readers."""

    name: str
    RequestReader: type[resp.RequestReader]
    ReplyScanner: type[reply_scanner.ReplyScanner]
    split: Callable[[bytes], list[bytes]]
    split_inline: Callable[[bytes], list[bytes]]


INTERPRETED = Build(
    "interpreted", resp.RequestReader, reply_scanner.ReplyScanner, reply_scanner.split, inline.split_inline
)


class CannotCompile(Exception):
    """mypyc or the C compiler refused; says what they wrote. Debian: gcc, libc6-dev, python3-dev."""


@cache
def compiled() -> Build:
    """Copies of the readers as C extensions, built once per process; takes about 15 s. Raises CannotCompile."""
    folder = tempfile.TemporaryDirectory(prefix="rf-compiled-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    _compile(Path(folder.name))
    sys.path.insert(0, folder.name)
    try:
        modules: dict[str, Any] = {name: import_module(f"{_PACKAGE}.{name}") for name in _NAMES}
    finally:
        sys.path.remove(folder.name)
    for module in modules.values():
        if not str(module.__file__).endswith(".so"):
            raise CannotCompile(f"{module.__file__} is not an extension")
    reader, scanner = modules["resp"].RequestReader, modules["reply_scanner"].ReplyScanner
    return Build("compiled", reader, scanner, modules["reply_scanner"].split, modules["inline"].split_inline)


def _compile(folder: Path) -> None:
    package = folder / _PACKAGE
    package.mkdir()
    (package / "__init__.py").touch()
    copies = []
    for name in _NAMES:
        copy = package / f"{name}.py"
        copy.write_text(
            (_FOLDER / f"{name}.py").read_text().replace("from rfprotocol.resp.inline ", f"from {_PACKAGE}.inline ")
        )
        copies.append(str(copy.relative_to(folder)))
    done = subprocess.run(
        [sys.executable, "-m", "mypyc", "--strict", *copies],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(_FOLDER.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotCompile(done.stdout + done.stderr)
