"""What holds for the tree as a whole: which module may import which, and that every module has its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "rfprotocol": ROOT / "protocol" / "rfprotocol",
    "rfproxy": ROOT / "proxy" / "rfproxy",
    "rfmanager": ROOT / "manager" / "rfmanager",
}
PROGRAMS = {"rfproxy", "rfmanager"}
MODULES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)): path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
    if path.stem != "__init__"
}

SHELL = {
    "rfprotocol.clock": "the clock of leases",
    "rfprotocol.network.resolver": "looks up host names ahead, and connects to what they stand for",
    "rfprotocol.embedded.record_keeper": "keeps the records of a store in memory in a file, in a thread of its own",
    "rfprotocol.embedded.socket_server": "serves a store to other processes, over a unix socket",
    "rfprotocol.embedded.socket_client": "the client of such a server",
    "rfprotocol.store.zookeeper_session": "the connection to ZooKeeper, which kazoo runs in a thread of its own",
    "rfprotocol.store.zookeeper": "the store on top of it: coroutines that are bounded in time",
    "rfproxy.runtime.address_file": "writes a file in a thread",
    "rfproxy.process.embedded": "composes the proxy with the manager's daemon on one event loop",
    "rfproxy.runtime.registration": "the proxy's tasks at the store: announce, watch, prove that the session lives",
    "rfproxy.runtime.connections": "the connections of clients and of lanes, and which of them are still there",
    "rfproxy.process.listen_sockets": "the listening sockets, from the system or from the program before",
    "rfproxy.process.worker": "one process: composes server, store and membership, and hears when it has to leave",
    "rfproxy.process.supervisor": "forks the workers, waits for signals, and hands on to the next program",
    "rfproxy.process.worker_channel": "the workers' questions to each other, over unix sockets",
    "rfproxy.runtime.server": "the listener, the timers, and who is connected",
    "rfmanager.daemon.daemon": "gathers, decides, executes, in a loop",
    "rfmanager.daemon.executor": "applies one step at a time and waits for what it needs",
    "rfmanager.operator.inspection": "asks servers and store for what `rfmanager doctor` judges",
    "rfmanager.daemon.store_mirror": "keeps a copy of what the store holds, refreshed by its watches",
    "rfmanager.operator.operations": "an operator's commands, which wait for what the managers do",
    "rfmanager.monitoring.prober": "asks one Redis server again and again",
    "rfmanager.monitoring.redis_admin": "commands to Redis servers over redis-py",
}
"""Modules that do I/O, and what for. All others, save the `cli`s, are the core: they are handed bytes and the time."""

KAZOO = {"rfprotocol.store.zookeeper_session"}
EVENTS_AND_CLOCKS = {"asyncio", "kazoo", "redis", "selectors", "socket", "threading", "time", "uvloop"}
COMPOSITION = {"rfproxy.process.embedded": "rfmanager"}
"""The one point where one program imports the other."""


def is_cli(module: str) -> bool:
    return module.endswith((".cli", ".__main__"))


def layer(module: str) -> int:
    """0 is the core, 1 the shell, 2 the command line."""
    return 2 if is_cli(module) else int(module in SHELL)


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


def packages_imported(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)}


@pytest.mark.parametrize("module", MODULES)
def test_programs_import_the_shared_package_and_never_each_other(module: str) -> None:
    own = module.split(".", maxsplit=1)[0]
    foreign = (packages_imported(module) & PROGRAMS) - {own, COMPOSITION.get(module)}
    assert not foreign


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_from_the_command_line_to_the_shell_to_the_core(module: str) -> None:
    back = {name for name in imports(module) & MODULES.keys() if layer(name) > layer(module)}
    assert not back


@pytest.mark.parametrize("module", [module for module in MODULES if layer(module) == 0])
def test_the_core_does_no_io_and_reads_no_clock(module: str) -> None:
    assert not packages_imported(module) & EVENTS_AND_CLOCKS
    assert not re.search(r"\b(datetime|date)\.(now|utcnow|today)\b", MODULES[module].read_text())


@pytest.mark.parametrize("module", MODULES)
def test_kazoo_is_known_to_one_module_only(module: str) -> None:
    assert "kazoo" not in packages_imported(module) or module in KAZOO


@pytest.mark.parametrize("module", SHELL)
def test_a_module_is_only_called_shell_while_it_exists_and_does_io(module: str) -> None:
    assert packages_imported(module) & EVENTS_AND_CLOCKS


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
