"""What holds for the tree as a whole: every module has its test and says what it is for.

Which package may import which is in the contracts of pyproject.toml, which `make lint` checks.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "rfprotocol": ROOT / "protocol" / "rfprotocol",
    "rfproxy": ROOT / "proxy" / "rfproxy",
    "rfmanager": ROOT / "manager" / "rfmanager",
}
MODULES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)): path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
    if path.stem != "__init__"
}

FOLDERS = sorted(
    str(path.parent.relative_to(ROOT)) for folder in PACKAGES.values() for path in folder.rglob("__init__.py")
)

CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
WITHOUT_IO = CONTRACTS["The core opens no socket and reads no clock; it is handed bytes and the time"]


def is_core(module: str) -> bool:
    """True if the contract holds the module, or the package it is in, to do no I/O."""
    return any(f"{module}.".startswith(f"{name}.") for name in WITHOUT_IO["source_modules"])


def imports(module: str, *, at_runtime: bool = False) -> set[str]:
    """Dotted names of everything a module imports, at its top or inside a function, and for its types."""
    names: set[str] = set()
    tree = ast.parse(MODULES[module].read_text())
    if at_runtime:
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names.add(str(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def does_io(module: str) -> bool:
    """True if the module imports one of the libraries that the core does without."""
    return any(name.split(".")[0] in WITHOUT_IO["forbidden_modules"] for name in imports(module))


@pytest.mark.parametrize("module", [module for module in MODULES if not is_core(module)])
def test_module_outside_the_core_does_io_or_is_a_command_line(module: str) -> None:
    """A new module without I/O belongs into the contract that keeps it so."""
    assert does_io(module) or module.endswith((".cli", ".__main__"))


@pytest.mark.parametrize("module", [module for module in MODULES if is_core(module)])
def test_core_reads_no_wall_clock(module: str) -> None:
    """By import this cannot be told: `datetime` is used for its types, too."""
    assert not re.search(r"\b(datetime|date)\.(now|utcnow|today)\b", MODULES[module].read_text())


def test_modules_do_not_import_in_circles() -> None:
    graph = {module: imports(module, at_runtime=True) & MODULES.keys() for module in MODULES}
    while leaves := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - leaves for module, needs in graph.items() if module not in leaves}
    assert not graph, f"among these: {', '.join(graph)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_test_and_every_test_its_module(package: str) -> None:
    folder, mirror = PACKAGES[package], ROOT / "tests" / "unit" / package
    modules = {path.relative_to(folder) for path in folder.rglob("*.py") if path.stem not in ("__init__", "__main__")}
    tests = {path.relative_to(mirror) for path in mirror.rglob("test_*.py")}
    tested = {path.with_name(path.name.removeprefix("test_")) for path in tests}
    assert modules - tested == set(), "modules without a test"
    assert tested - modules == set(), "tests without a module"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


@pytest.mark.parametrize("folder", FOLDERS)
def test_package_docstring_names_each_of_its_files(folder: str) -> None:
    """One line for each: what it holds, in at most twelve words."""
    package = ROOT / folder
    contents = {path.name for path in package.iterdir() if path.suffix in {".py", ".json"}} - {"__init__.py"}
    contents |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    headline, *lines = str(ast.get_docstring(ast.parse((package / "__init__.py").read_text()))).splitlines()
    entries = [line.split() for line in lines if line]
    assert headline.endswith(".")
    assert sorted(name for name, *_ in entries) == sorted(contents)
    assert not [name for name, *words in entries if not 0 < len(words) <= 12]


def test_nothing_depends_on_the_machine_it_was_written_on() -> None:
    personal = re.compile(r"/(?:home|Users|root|work)/\w")
    top_level = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]  # of a worktree
    folders = (".ci", "bench", "deploy", "manager", "protocol", "proxy", "tests")
    paths = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "node_modules" not in path.parts
    ]
    found = [
        str(path.relative_to(ROOT))
        for path in (*top_level, *paths)
        if path.suffix not in {".pyc", ".so"} and personal.search(path.read_text(errors="replace"))
    ]
    assert not found


def test_package__what_is_installed__is_the_three_packages_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert project["namespaces"] is False, "else folders without __init__.py are packages, too"
    names = {init.parent.name for root in project["where"] for init in (ROOT / root).glob("*/__init__.py")}
    assert names == set(PACKAGES)
