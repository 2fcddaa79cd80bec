"""docs/security.md and docs/fault.md name tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT, parse

PAGE = ROOT / "docs" / "security.md"
FAULTS = ROOT / "docs" / "fault.md"

NAMED = re.compile(r"`((?:tests|src)/[\w/]+\.py)::(\w+)`")


def _tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("page", "least"), [(PAGE, 50), (FAULTS, 35)])
def test_every_guard_is_a_test_that_is_there(page: Path, least: int) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert len(named) > least
    lost = [f"{path}::{name}" for path, name in named if not (ROOT / path).is_file() or name not in _tests(Path(path))]
    assert lost == []


def test_every_fault_is_tried() -> None:
    heads = ("| what ", "|---")
    rows = [line for line in FAULTS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [row for row in rows if not row.startswith(heads) and not NAMED.search(row)] == []


def test_every_boundary_has_guards() -> None:
    text = PAGE.read_text(encoding="utf-8")
    drawn = set(re.findall(r"\((\d)\)", text.split("```")[1]))
    parts = {part[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part[0].isdigit()}
    assert drawn == parts.keys()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "what must not be" not in line]
    assert [row for row in rows if not NAMED.search(row)] == []
    assert [number for number, part in parts.items() if not NAMED.search(part)] == []
