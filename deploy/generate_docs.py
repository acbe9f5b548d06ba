"""Write the parts of docs/ that say what the code says: options, log events, packages and files.

    python -m deploy.generate_docs            # after a change of options, log events, files or their docstrings
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
    sentence = re.split(r"(?<=[.!?])(?<![.][.][.]) (?=[A-Z`(])", paragraph)[0]
    return sentence.rstrip(".:").replace("|", r"\|")


_LEVELS = ("debug", "info", "warning", "error", "exception")


def events(source: str) -> str:
    """The log events of a program: every name that it logs, with its level and fields."""
    found: dict[str, tuple[set[str], dict[str, None]]] = {}
    for path in sorted((ROOT / source).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (level := _level(node)):
                for name in _names(node.args[0]):
                    levels, fields = found.setdefault(name, (set(), {}))
                    levels.add(level)
                    fields.update(dict.fromkeys(word.arg for word in node.keywords if word.arg))
    rows = (
        f"| `{name}` | {', '.join(sorted(levels))} | {', '.join(f'`{one}`' for one in fields if one != 'exc_info')} |"
        for name, (levels, fields) in sorted(found.items(), key=lambda item: item[0].lower())
    )
    return "| event | level | fields |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _level(call: ast.Call) -> str:
    """The level of a call that logs, empty for any other one."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _LEVELS or not call.args:
        return ""
    logger = ast.unparse(call.func.value)
    level = "error" if call.func.attr == "exception" else call.func.attr
    return level if re.search(r"(^|[._])log$|get_logger\(\)$", logger) else ""


def _names(name: ast.expr) -> Iterator[str]:
    if isinstance(name, ast.IfExp):
        yield from (*_names(name.body), *_names(name.orelse))
    elif isinstance(name, ast.Constant) and isinstance(name.value, str):
        yield name.value


PARTS: dict[str, Callable[[], str]] = {
    "rfproxy-options": lambda: options(ProxyConfig),
    "rfmanager-options": lambda: options(ManagerConfig),
    "rfproxy-events": lambda: events("proxy/rfproxy"),
    "rfmanager-events": lambda: events("manager/rfmanager"),
    "rfprotocol-events": lambda: events("protocol/rfprotocol"),
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
