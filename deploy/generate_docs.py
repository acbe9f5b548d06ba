"""Write the parts of docs/ that say what the code says: the tables of options, and the list of packages and files.

    python -m deploy.generate_docs            # after a change of options, files or module docstrings
    python -m deploy.generate_docs --check    # exit status 1 if a document is out of date

A document marks such a part by `<!-- generated: NAME -->` and `<!-- end -->`. Everything else is written by hand.
tests/test_docs.py fails while a part differs from what is generated.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from rfmanager.settings import ManagerConfig
from rfprotocol.settings.fields import Flag, Options
from rfproxy.settings import ProxyConfig

ROOT = Path(__file__).parents[1]
SOURCES = ("protocol/rfprotocol", "proxy/rfproxy", "manager/rfmanager")
PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def options(model: type[Options]) -> str:
    """A table for each group of options, in the order of `--help`."""
    groups: dict[str, list[str]] = {}
    for name, info in model.model_fields.items():
        flag = next(item for item in info.metadata if isinstance(item, Flag))
        cells = (f"`{name}`", _spelling(name, info, flag), _default(info), _meaning(flag.help, info))
        row = f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        groups.setdefault(flag.group, []).append(row)
    return "\n".join(
        f"### {group}\n\n| key in the file | flag | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
        for group, rows in groups.items()
    )


def _spelling(name: str, info: FieldInfo, flag: Flag) -> str:
    names = flag.names or ("--" + name.replace("_", "-"),)
    value = "" if info.annotation is bool or _choices(info) else " " + (flag.metavar or name.upper())
    return ", ".join(f"`{spelling}{value if spelling.startswith('--') else ''}`" for spelling in names)


def _default(info: FieldInfo) -> str:
    default = info.default
    if isinstance(default, bool):
        return "no"
    if isinstance(default, ByteSize):
        return "`" + re.sub(r"\.0(?=[A-Z])", "", default.human_readable()) + "`"
    if default is None or default in ("", ()) or info.is_required() or info.default_factory:
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _meaning(text: str, info: FieldInfo) -> str:
    choices = ", ".join(f"`{choice}`" for choice in _choices(info))
    return text + (f". One of {choices}" if choices else "")


def _choices(info: FieldInfo) -> tuple[str, ...]:
    parts = (info.annotation, *get_args(info.annotation))
    return tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))


def files() -> str:
    """The packages and their files, each with the first sentence of its docstring."""
    return "\n".join(line for source in SOURCES for line in _package(ROOT / source))


def _package(folder: Path) -> Iterator[str]:
    yield f"### `{folder.relative_to(ROOT).as_posix()}/`\n"
    yield "| file | holds |\n|---|---|"
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            yield f"| `{path.name}` | {_first_sentence(path)} |"
    yield ""
    for inner in sorted(path for path in folder.iterdir() if (path / "__init__.py").exists()):
        yield from _package(inner)


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?]) (?=[A-Z`(])", paragraph)[0]
    return sentence.rstrip(".:").replace("|", r"\|")


PARTS: dict[str, Callable[[], str]] = {
    "rfproxy-options": lambda: options(ProxyConfig),
    "rfmanager-options": lambda: options(ManagerConfig),
    "files": files,
}


def generated(text: str) -> str:
    """A document with its generated parts as they should be."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def out_of_date() -> Iterator[Path]:
    """Documents that differ from what is generated."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if (text := path.read_text()) != generated(text):
            yield path


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    paths = list(out_of_date())
    for path in paths:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(generated(path.read_text()))
    return int(check and bool(paths))


if __name__ == "__main__":
    sys.exit(main())
