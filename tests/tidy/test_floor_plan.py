"""Every service has the same rooms, every resource the same parts in the same order."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.tree import ROOT, files, parse, services

ROOMS = {
    *("__init__.py", "service.py", "interface.py", "versions.py", "controllers.py"),
    *("controllers", "resources", "rules"),
}
PARTS = ("table", "fields", "policy", "operations")
REFERENCE = "https://docs.openstack.org/api-ref/"
SHAPES = {"Body", "OpenBody", "View"}
VERBS = {"get", "post", "put", "patch", "delete", "action", "operation"}


def part(node: ast.stmt) -> str | None:
    """Which part of a resource a statement belongs to; None where it could be any."""
    if isinstance(node, ast.ClassDef):
        return "fields" if {ast.unparse(base).split(".")[-1] for base in node.bases} & SHAPES else None
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        calls = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
        return "operations" if any(isinstance(call, ast.Attribute) and call.attr in VERBS for call in calls) else None
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        calls = [each.func for each in ast.walk(node.value) if isinstance(each, ast.Call)]
        names = {ast.unparse(call).split(".")[-1] for call in calls}
        return "table" if "Table" in names else "policy" if "Rule" in names else None
    return None


def disorder(tree: ast.Module) -> list[str]:
    """Each statement that comes after one of a later part."""
    found, reached = [], 0
    for node in tree.body:
        name = part(node)
        if name is None:
            continue
        if PARTS.index(name) < reached:
            found.append(f"line {node.lineno}: {name} after {PARTS[reached]}")
        reached = max(reached, PARTS.index(name))
    return found


def resources() -> Iterator[Path]:
    """The file that introduces each resource, its module or its package's `__init__.py`."""
    for service in services():
        for path in files():
            if path.suffix == ".py" and path.parent == service / "resources" and path.name != "__init__.py":
                yield path
            if path.name == "__init__.py" and path.parent.parent == service / "resources":
                yield path


def test_disorder_is_seen() -> None:
    good = """
server = sa.Table("server")
class Server(View): ...
RULES = [Rule("a", "b")]
@resource.get("/")
def show(): ...
"""
    assert [part(node) for node in ast.parse(good).body] == list(PARTS)
    assert disorder(ast.parse(good)) == []
    assert disorder(ast.parse("class Server(View): ...\nserver = sa.Table()")) == ["line 2: table after fields"]


def test_services_have_the_rooms_of_the_plan_and_no_other() -> None:
    extra = []
    for service in services():
        found = {path.relative_to(service).parts[0] for path in files() if path.is_relative_to(service)}
        extra += [str(service / name) for name in sorted(found - ROOMS)]
        extra += [f"{service}: controllers twice"] if {"controllers", "controllers.py"} <= found else []
    assert extra == []


def test_rules_know_no_table() -> None:
    found = []
    for service in services():
        for path in files():
            if path.suffix == ".py" and path.is_relative_to(service / "rules"):
                imported = [
                    ast.unparse(node) for node in ast.walk(parse(path)) if isinstance(node, ast.Import | ast.ImportFrom)
                ]
                found += [f"{path}: {line}" for line in imported if "sqlalchemy" in line or "pileus.core.store" in line]
    assert found == []


def test_resources_link_to_the_reference() -> None:
    assert [str(path) for path in resources() if REFERENCE not in (ast.get_docstring(parse(path)) or "")] == []


def test_resources_keep_the_order_of_parts() -> None:
    assert {str(path): found for path in resources() if (found := disorder(parse(path)))} == {}


def test_large_resources_are_split_by_part() -> None:
    allowed = {"__init__.py", *PARTS, *(f"{name}.py" for name in PARTS)}
    extra = []
    for path in resources():
        if path.name == "__init__.py":
            inside = {each.relative_to(path.parent).parts[0] for each in files() if each.is_relative_to(path.parent)}
            extra += [str(path.parent / name) for name in sorted(inside - allowed)]
    assert extra == []


def test_the_plan_is_seen() -> None:
    assert all((ROOT / service).is_dir() for service in services())
    assert services()
