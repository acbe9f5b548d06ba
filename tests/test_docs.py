"""The documents name only what there is: links, files, modules, tests, targets of make, and packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.generate_docs import SOURCES, generated

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "tests" / "README.md"]
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""All but the one that tells of earlier releases."""
PLACES = [ROOT, ROOT / "docs", ROOT / "tests", ROOT / "deploy"]
SOURCE_ROOTS = [ROOT / source for source in SOURCES]
ARCHITECTURE = ROOT / "docs" / "architecture" / "README.md"

LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`([\w./-]+\.(?:py|md|sh|csv|svg|service|socket)|deploy/[\w.-]+)(?:::\w+)?`")
FOLDER = re.compile(r"`((?:docs|tests|bench|deploy|proxy|manager|protocol)/[\w/]*|[a-z][\w/]*/)`")
ZNODES = {"proxies/", "master_redis_node_manager_lock/"}
"""Written like folders, and none."""
MODULE = re.compile(r"python -m ((?:tests|bench|deploy)[\w.]*)")
TARGET = re.compile(r"`make ([\w-]+)`|^    make ([\w-]+)", re.MULTILINE)

documents = pytest.mark.parametrize("path", CURRENT, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(path: Path) -> set[str]:
    """The fragments of a document's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(path: Path) -> str:
    """A document without the list of files, which has a test of its own."""
    return re.sub(r"<!-- generated: files -->.*?<!-- end -->", "", path.read_text(), flags=re.DOTALL)


def there(name: str, path: Path, *more: Path) -> bool:
    return any((place / name).exists() for place in (path.parent, *PLACES, *more))


@documents
def test_links__lead_to_a_file_and_a_heading(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if not link.startswith(("http://", "https://")):
            name, _, fragment = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not fragment or fragment in anchors(target), link


@documents
def test_files__named_in_a_document__exist(path: Path) -> None:
    packages = [folder.parent for folder in SOURCE_ROOTS]
    missing = [name for name in FILE.findall(prose(path)) if not there(name, path, *packages, *SOURCE_ROOTS)]
    assert not missing


@documents
def test_folders__named_in_a_document__exist(path: Path) -> None:
    packages = [folder.parent for folder in SOURCE_ROOTS]
    named = set(FOLDER.findall(prose(path))) - ZNODES
    missing = [name for name in named if not there(name, path, *packages, *SOURCE_ROOTS)]
    assert not missing


@documents
def test_commands__of_the_repository__exist(path: Path) -> None:
    text = path.read_text()
    for module in MODULE.findall(text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
    makefile = (ROOT / "Makefile").read_text()
    for name in filter(None, (name for pair in TARGET.findall(text) for name in pair)):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


@documents
def test_generated_parts__are_up_to_date(path: Path) -> None:
    text = path.read_text()
    assert text == generated(text), "run: python -m deploy.generate_docs"


def test_packages__listed_in_architecture__are_those_there_are() -> None:
    table = ARCHITECTURE.read_text().partition("## Packages")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w/]+)/` \|", table, re.MULTILINE)
    packages = (init.parent for source in SOURCE_ROOTS for init in source.rglob("__init__.py"))
    assert sorted(listed) == sorted(_name(package) for package in packages)


def _name(package: Path) -> str:
    return next(
        package.relative_to(source.parent).as_posix() for source in SOURCE_ROOTS if package.is_relative_to(source)
    )


def test_docs__each_page__is_reached_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    while True:
        linked = {
            (path.parent / link.partition("#")[0]).resolve()
            for path in reached
            if path.suffix == ".md"
            for link in LINK.findall(path.read_text())
            if not link.startswith("http") and link.partition("#")[0]
        }
        if linked <= reached:
            break
        reached |= linked
    assert set((ROOT / "docs").rglob("*.md")) <= reached
