"""Metadata definitions are taken out of a package of which nothing else is used."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pileus.cli import definition

DATA = "glance-1.data/data/etc/glance/metadefs"


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the package holds; pip's part is played."""
    files: dict[str, bytes] = {}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(command)
        assert "--hash=sha256:" in Path(command[command.index("--requirement") + 1]).read_text(encoding="ascii")
        if not files:
            return subprocess.CompletedProcess(command, 1, "trying\nERROR: nobody answers\n")
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "glance-1-py3-none-any.whl", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", run)
    return files


def namespace(name: str) -> bytes:
    return json.dumps({"namespace": name}).encode()


def test_what_is_wanted_is_taken(wheel: dict[str, bytes], tmp_path: Path) -> None:
    assert definition.documents(tmp_path) == []
    for name in ("b", "a", "cim-x", "compute-vmware-flavor", "compute-xenapi"):
        wheel[f"{DATA}/{name}.json"] = namespace(name)
    wheel |= {f"{DATA}/README": b"", "glance/evil.py": b"", "glance-1.data/data/etc/glance/schema-image.json": b"{}"}
    assert definition.fetch(tmp_path, lambda text: None) == 2
    assert definition.documents(tmp_path) == [namespace("a"), namespace("b")]
    assert [path.name for path in tmp_path.iterdir()] == ["metadefs"]
    assert definition.directory(tmp_path).stat().st_mode & 0o777 == 0o755
    # An operator's own are there as well.
    (definition.directory(tmp_path) / "c.json").write_bytes(namespace("c"))
    assert definition.documents(tmp_path)[-1] == namespace("c")


def test_names_in_the_package_cannot_lead_elsewhere(wheel: dict[str, bytes], tmp_path: Path) -> None:
    wheel[f"../../{DATA}/../metadefs/a.json"] = namespace("a")
    wheel[f"/{DATA}/b.json"] = namespace("b")
    (tmp_path / "inner").mkdir()
    definition.fetch(tmp_path / "inner", lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert {path.parent.name for path in tmp_path.rglob("*.json")} == {"metadefs"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "nobody answers"),
        ({"other": b""}, "no definitions"),
        ({f"{DATA}/a.json": namespace("a"), f"{DATA}/b.json": b"{"}, "b.json is not a namespace"),
        ({f"{DATA}/a.json": b"[]"}, "not a namespace"),
    ],
)
def test_nothing_is_left_of_what_cannot_be_had(
    wheel: dict[str, bytes], tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    wheel |= files
    with pytest.raises(definition.DefinitionFailure, match=reason):
        definition.fetch(tmp_path, lambda text: None)
    assert list(tmp_path.iterdir()) == []
