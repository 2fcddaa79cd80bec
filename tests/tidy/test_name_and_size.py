"""Names say what a thing is; functions and modules stay small enough to be read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.tidy.tree import files, lines, sources

MUSHY = re.compile(r"(utils?|helpers?|common|misc|managers?\d*)")
WORD = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])")

FUNCTION_LINES = 70
MODULE_LINES = 500

MIGRATIONS = Path("src/pileus/migration/versions")
"""Written once by a generator, as long as the tables they make, and read by nobody later."""

TOP = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "bench", "conformance", "docs"),
    *("pileus", "pyproject.toml", "requirements", "src", "tests"),
}
"""What the root of the repository holds; anything else has no owner."""

ROOMS = {
    "__init__.py",
    "agent",
    "api",
    "bench",
    "cli",
    "conformance",
    "conftest.py",
    "effort.py",
    "core",
    "drivers",
    "race",
    "real",
    "services",
    "session.py",
    "sim",
    "tidy",
}
"""What `tests` holds."""


def mushy(name: str) -> bool:
    """Whether a name has a word that could be said of anything. Tests may speak of Identity's role `manager`."""
    words = [word.lower() for word in WORD.findall(name)]
    persona = words[:1] == ["test"]
    return any(MUSHY.fullmatch(word) for word in words if not (persona and word in ("manager", "managers")))


def named(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """All functions and classes of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_names_are_told_apart() -> None:
    assert all(
        map(mushy, ["util", "StringUtils", "_helper", "common_fields", "NetworkManager", "manager2", "HTTPHelper"])
    )
    assert not any(map(mushy, ["utility_room", "Commons", "manage", "core", "server_group"]))


def test_nothing_is_named_for_lack_of_a_name() -> None:
    found = [str(path) for path in files() if any(mushy(part) for part in path.with_suffix("").parts)]
    for path, tree in sources():
        found += [f"{path}:{node.lineno} {node.name}" for node in named(tree) if mushy(node.name)]
    assert found == []


def test_functions_are_short() -> None:
    long = []
    for path, tree in sources():
        for node in named(tree) if not path.is_relative_to(MIGRATIONS) else ():
            size = (node.end_lineno or 0) - node.lineno + 1
            if not isinstance(node, ast.ClassDef) and size > FUNCTION_LINES:
                long.append(f"{path}:{node.lineno} {node.name}: {size} lines")
    assert long == []


def test_modules_are_short() -> None:
    sizes = {path: len(lines(path)) for path, _ in sources() if not path.is_relative_to(MIGRATIONS)}
    assert {str(path): size for path, size in sizes.items() if size > MODULE_LINES} == {}


def test_every_file_has_a_place() -> None:
    lost = [str(path) for path in files() if path.parts[0] not in TOP]
    lost += [str(path) for path in files() if path.parts[0] == "tests" and path.parts[1] not in ROOMS]
    assert lost == []


def test_python_packages_have_no_gap() -> None:
    """A folder without `__init__.py` is left out of the wheel."""
    folders = {path.parent for path, _ in sources() if path.parts[0] == "src"}
    assert {str(folder) for folder in folders if folder / "__init__.py" not in files()} == set()


def test_the_checkout_is_seen() -> None:
    assert Path("src/pileus/__init__.py") in files()
    assert Path("tests/tidy/test_name_and_size.py") in files()
