"""What an operator can set and a client can ask for is written down."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.tidy.tree import ROOT, parse, services

CONFIG = Path("src/pileus/core/config.py")
CONFIGURATION = ROOT / "docs" / "configuration.md"


def settings() -> list[str]:
    """Names of all settings: the fields of `Config`."""
    classes = [node for node in parse(CONFIG).body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    fields = [node.target for node in classes[0].body if isinstance(node, ast.AnnAssign)]
    return [target.id for target in fields if isinstance(target, ast.Name)]


def history(path: Path) -> dict[str, str] | None:
    """The ledger of a `versions.py`: version to line; None when the service has no versions."""
    for node in parse(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "HISTORY" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    return None


def test_every_setting_is_documented() -> None:
    assert settings()
    text = CONFIGURATION.read_text(encoding="utf-8") if CONFIGURATION.exists() else ""
    assert [name for name in settings() if f"`{name}`" not in text] == []


def test_every_version_has_a_line() -> None:
    wrong = []
    for service in services():
        path = service / "versions.py"
        if not (ROOT / path).exists():
            continue
        for version, line in (history(path) or {}).items():
            if not line.strip() or "\n" in line or len(line) > 200:
                wrong.append(f"{path}: {version} {line!r}")
    assert wrong == []


def test_ledgers_are_in_order() -> None:
    for service in services():
        path = service / "versions.py"
        if (ROOT / path).exists():
            numbers = [tuple(map(int, key.split("."))) for key in history(path) or {} if re.fullmatch(r"\d+\.\d+", key)]
            assert numbers in (sorted(numbers), sorted(numbers, reverse=True)), path


def test_versions_that_code_names_are_in_the_ledger() -> None:
    """A window that begins at a version nobody wrote down is a slip of the pen."""
    lost = []
    for service in services():
        path = service / "versions.py"
        ledger = history(path) if (ROOT / path).exists() else None
        for source in sorted((ROOT / service).rglob("*.py")) if ledger else ():
            for node in ast.walk(parse(source.relative_to(ROOT))):
                if (
                    isinstance(node, ast.keyword)
                    and node.arg in {"since", "until"}
                    and isinstance(node.value, ast.Constant)
                ):
                    name = node.value.value
                    if isinstance(name, str) and re.fullmatch(r"\d+\.\d+", name) and name not in (ledger or {}):
                        lost.append(f"{source.relative_to(ROOT)}:{node.value.lineno} {name}")
    assert lost == []
